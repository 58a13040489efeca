"What the benchmarks share: the machine they ran on, and where their tables go"
import os, platform, time
from pathlib import Path
import pandas as pd, torch

here = Path(__file__).resolve().parent

def machine():
    "Columns that say where a figure was measured"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else next((l.split(':')[1].strip()
            for l in open('/proc/cpuinfo') if l.startswith('model name')), platform.processor()) \
        if Path('/proc/cpuinfo').exists() else platform.processor()
    return dict(machine=name, cores=os.cpu_count(), threads=torch.get_num_threads(), torch=torch.__version__)

def today(): return time.strftime('%Y-%m-%d')

def write(df, name, a):
    "Print the table, and write `benchmarks/NAME.csv`, or NAME_gpu.csv from a GPU; a quick try is not written"
    with pd.option_context('display.width', 250, 'display.max_columns', None, 'display.max_colwidth', 60): print(df.round(4).to_string())
    if getattr(a, 'small', False): return
    device = getattr(a, 'device', None) or 'cpu'
    df.round(4).to_csv(here/(f'{name}.csv' if device=='cpu' else f'{name}_gpu.csv'), index=False)
