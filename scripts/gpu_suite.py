"""The suite `eight` at its full tier, run by run, into runs.csv. A part of `gpu_run.py`.

A fifth of the labels, then five a class; seeds outermost, so that whatever ends first is a whole comparison of one
seed.
Each run is kept the moment it ends.
Several processes share the GPU, and each holds its run's images there. Training is in half precision where
`checks.csv` found its losses finite; the column
`half` says so."""
import os, time, warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
warnings.simplefilter('ignore')
import pandas as pd
from gpu_common import Table, begin, conditions, parser

methods = 'transfer','lp_ft','fixmatch','weighted','distill','all_labels'

def make_suite(a):
    "The suite of the arguments; each process makes its own"
    from fastai.vision.all import ChannelsLast, MixedPrecision
    from distill_nb.zoo import Zoo
    from distill_nb.suites import eight_suite
    zoo = Zoo.checkpoints(a.data/'weights', size=128)
    start = zoo['imagenet_lite0' if 'imagenet_lite0' in zoo.names else zoo.names[0]]
    cbs = [ChannelsLast()] + ([MixedPrecision()] if a.half else [])
    return eight_suite(a.data, None, 'full', a.px, steps=a.steps, start=start, cbs=cbs, cache='device')

def look(a, target):
    "Put what the sources say of a target's training images into its store: once, before any run asks for it"
    from distill_nb.outputs import compute_outputs
    warnings.simplefilter('ignore')
    try:
        suite = make_suite(a)
        dls,_ = suite.targets[target](None, 0)
        compute_outputs(suite.zoo(target), dls.train.items, a.store/target, num_workers=a.threads, device=a.device,
                        progress=False)
        return dict(target=target, error='')
    except Exception as e: return dict(target=target, error=f'{type(e).__name__}: {e}')      # its runs will say so

def run(a, cell):
    "One run of the suite: its row, or that of its error"
    from distill_nb.bench import run_cell
    from fastai.torch_core import default_device
    warnings.simplefilter('ignore')
    default_device(a.device != 'cpu')
    try: return dict(run_cell(make_suite(a), **cell, store=a.store/cell['target'], threads=a.threads), error='')
    except Exception as e: return dict(cell, error=f'{type(e).__name__}: {e}'[:500])

def in_processes(a, stages, n):
    """Yield (function, result) as they come, one stage (function, items) after the other, from `n` processes that stay.

    Where a process dies, half as many make what is left."""
    stages = [(f, list(items)) for f,items in stages]
    while n and any(left for _,left in stages):
        with ProcessPoolExecutor(n, get_context('spawn')) as pool:
            try:
                for f,left in stages:
                    made = {pool.submit(f, a, o): o for o in left}
                    for r in as_completed(made):
                        yield f,r.result()
                        left.remove(made[r])
            except BrokenProcessPool: print(f'one of {n} processes died', flush=True)
        n //= 2

def cells(suite, seeds, targets=None):
    "All runs, a seed after the other, within it a budget after the other"
    return [c for seed in range(seeds) for budget in (.2,5) for c in suite.cells(targets, budget, seed, methods)]

def half_is_finite(out):
    "Whether the checks trained in half precision without a loss that is not finite"
    if not (out/'checks.csv').exists(): return False
    c = pd.read_csv(out/'checks.csv').set_index('check')
    return 'train: fp16, channels last' in c.index and c.ok.astype(str)['train: fp16, channels last'] == 'True'

def side(data):
    "Pixels of the smallest target's images"
    from distill_nb.images import open_image
    from distill_nb.packs import load_pack
    return min(open_image(load_pack(p).items[0]).size[0] for p in sorted((data/'targets').glob('*.npz')))

def main(argv=None):
    ap = parser(__doc__)
    ap.add_argument('--data', type=Path, required=True, help='folder with targets/ and weights/')
    ap.add_argument('--store', type=Path, required=True, help="folder for the sources' outputs")
    ap.add_argument('--steps', type=int, default=200)
    ap.add_argument('--seeds', type=int, default=20)
    ap.add_argument('--jobs', type=int, help='runs at a time')
    ap.add_argument('--targets', nargs='*', help='some of them only')
    a = begin(ap, argv)
    cores = os.cpu_count() or 1
    a.jobs = a.jobs or max(1, min(8, cores//2))
    a.threads = max(1, cores//a.jobs)
    a.px,a.half = side(a.data),a.device != 'cpu' and half_is_finite(a.out)
    suite = make_suite(a)
    todo = cells(suite, a.seeds, a.targets)
    table = Table(a.out/'runs.csv', half=a.half, px=a.px, steps=a.steps, sources=len(suite.sources), jobs=a.jobs,
                  **conditions(a))
    start = time.perf_counter()
    for f,row in in_processes(a, [(look, a.targets or suite.targets), (run, todo)], a.jobs):
        if f is run: table.add(**row)
        print(f'{time.perf_counter()-start:.1f} s', f.__name__, row, flush=True)

if __name__=='__main__': main()
