"What the benchmarks share: the machine they ran on, and where their tables go"
import os, platform, time
from pathlib import Path
import pandas as pd, torch

here = Path(__file__).resolve().parent

def _processor():
    "Name of the CPU"
    info = Path('/proc/cpuinfo')
    if not info.exists(): return platform.processor()
    return next((l.split(':')[1].strip() for l in info.read_text().splitlines() if l.startswith('model name')), platform.processor())

def machine():
    "The columns that every table has: where and when a figure was measured"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return dict(machine=name, cores=os.cpu_count(), threads=torch.get_num_threads(), torch=torch.__version__,
                date=time.strftime('%Y-%m-%d'))

def show(df):
    "Print the table"
    with pd.option_context('display.width', 250, 'display.max_columns', None, 'display.max_colwidth', 60): print(df.round(4).to_string())

def save(df, name, a, keep=None, sort=None, folder=here):
    """Write `folder/NAME.csv`, or NAME_gpu.csv from a GPU, with the columns of `machine`; a quick try is not written.

    `keep`: function of the table that is there -> which of its rows stay, as they were measured; `sort`: keywords of `sort_values`"""
    device = getattr(a, 'device', None) or 'cpu'
    path = folder/(f'{name}.csv' if device=='cpu' else f'{name}_gpu.csv')
    df = df.round(4).assign(**{k: v for k,v in machine().items() if k not in df})
    if keep and path.exists() and not getattr(a, 'small', False):
        was = pd.read_csv(path)
        df = pd.concat([df, was[keep(was)]], ignore_index=True)
    if sort: df = df.sort_values(kind='stable', **sort)
    if not getattr(a, 'small', False): df.to_csv(path, index=False)
    return df

def write(df, name, a, **kwargs):
    "`save` and `show`"
    show(save(df, name, a, **kwargs))
