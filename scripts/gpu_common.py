"What the parts of `gpu_run.py` share: their arguments, and tables that are whole whenever they are stopped"
import argparse, os, signal, threading, time
from pathlib import Path
import pandas as pd

class Table:
    "A CSV that is written anew, as a whole, with every row: whoever is killed leaves the rows so far"
    def __init__(self, path, **columns): self.path,self.columns,self.rows = Path(path),columns,[]
    def add(self, **row):
        self.rows.append({**row, **self.columns, **row})
        part = self.path.with_name(f'.{self.path.name}.part')
        pd.DataFrame(self.rows).to_csv(part, index=False)
        os.replace(part, self.path)

def conditions(a):
    "Columns that say where and when a row was measured"
    from common import machine
    return dict(device=a.device, **machine())

def end_with(parent):
    "End this process and its workers when the process `parent` has ended"
    def watch():
        while os.getppid() == parent: time.sleep(.5)
        os.killpg(0, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()

def parser(doc):
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True, help='folder for the table')
    ap.add_argument('--device', default='cuda')
    ap.add_argument('--small', action='store_true', help='the same code, tiny')
    ap.add_argument('--parent', type=int, help='end with this process')
    return ap

def begin(ap, argv=None):
    "Read the arguments; use the device that they name"
    a = ap.parse_args(argv)
    if a.parent: end_with(a.parent)
    import torch
    from fastai.torch_core import default_device
    if a.device != 'cpu' and not torch.cuda.is_available(): ap.error('--device: there is no GPU here; `cpu` runs the same without one')
    default_device(a.device != 'cpu')
    a.out.mkdir(parents=True, exist_ok=True)
    return a
