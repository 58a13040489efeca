"""Counts the parameters of every network that timm has weights for, on PyTorch's meta device, and writes
`distill_nb/zoo/timm_parameters.csv`. `Zoo` looks sizes up there; what the table lacks is counted when it is asked for.
Run it again for a new timm; two to four minutes on one core.

    python scripts/timm_parameters.py"""
import csv, warnings
from pathlib import Path
import timm
from timm.models import get_pretrained_cfg
from distill_nb.networks import create_network, sketching

def count(name):
    "Parameters of a timm network with its own classifier; `None` if it cannot be built without memory"
    try:
        with sketching(): net = create_network(name)
    except Exception as e:
        print(f'{name}: left out ({type(e).__name__}: {str(e)[:100]})')
        return None
    return sum(p.numel() for p in net.parameters())

def main():
    warnings.simplefilter('ignore')
    table = {}
    for name in timm.list_pretrained():
        cfg = get_pretrained_cfg(name)
        key = cfg.architecture,cfg.num_classes
        if key not in table: table[key] = count(name)
    out = Path(__file__).resolve().parents[1]/'distill_nb'/'zoo'/'timm_parameters.csv'
    with open(out, 'w', newline='', encoding='utf-8') as f:
        rows = csv.writer(f, lineterminator='\n')
        rows.writerow(('arch','classes','parameters'))
        rows.writerows((*k, n) for k,n in sorted(table.items()) if n)
    print(f'{len(table)} networks of timm {timm.__version__}: {out}')

if __name__ == '__main__': main()
