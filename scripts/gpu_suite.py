"""The suite `eight` at its full tier, run by run, into runs.csv. A part of `gpu_run.py`.

A fifth of the labels, then five a class; seeds outermost, so that whatever ends first is a whole comparison of one
seed. Within a seed, `methods` come with the first of `--steps`, `patient` ones with each of the others.
Each run is kept the moment it ends.
Several processes share the GPU, and each holds its run's images there. Training is in half precision where
`checks.csv` found its losses finite; the column `half` says so. `--done` goes on from an earlier run: its rows are
taken over, its checks trusted."""
import os, time, warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
warnings.simplefilter('ignore')
import pandas as pd
from gpu_common import Table, begin, conditions, parser

methods = 'transfer','lp_ft','fixmatch','weighted','distill','all_labels'
patient = 'transfer','weighted','distill'

def make_suite(a, steps):
    "The suite of the arguments, for so many steps; each process makes its own"
    from fastai.vision.all import ChannelsLast, MixedPrecision
    from distill_nb.zoo import Zoo
    from distill_nb.optimizer import FusedAdam
    from distill_nb.suites import eight_suite
    zoo = Zoo.checkpoints(a.data/'weights', size=128)
    start = zoo['imagenet_lite0' if 'imagenet_lite0' in zoo.names else zoo.names[0]]
    cbs = [ChannelsLast()] + ([MixedPrecision()] if a.half else [])
    return eight_suite(a.data, None, 'full', a.px, steps=steps, start=start, cbs=cbs, cache='device', opt_func=FusedAdam)

def look(a, target):
    "Put what the sources say of a target's training images into its store: once, before any run asks for it"
    from distill_nb.outputs import compute_outputs
    warnings.simplefilter('ignore')
    try:
        suite = make_suite(a, a.steps[0])
        dls,_ = suite.targets[target](None, 0)
        compute_outputs(suite.zoo(target), dls.train.items, a.store/target, num_workers=a.threads, device=a.device,
                        progress=False)
        return dict(target=target, error='')
    except Exception as e: return dict(target=target, error=f'{type(e).__name__}: {e}')      # its runs will say so

def run(a, job):
    "One run (steps, cell) of the suite: its row, or that of its error"
    from distill_nb.bench import run_cell
    from fastai.torch_core import default_device
    warnings.simplefilter('ignore')
    default_device(a.device != 'cpu')
    steps,cell = job
    try: row = dict(run_cell(make_suite(a, steps), **cell, store=a.store/cell['target'], threads=a.threads), error='')
    except Exception as e: row = dict(cell, error=f'{type(e).__name__}: {e}'[:500])
    return dict(row, steps=steps)

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

def ended(folder):
    "The rows of an earlier run that ended without an error"
    if folder is None: return []
    runs = pd.read_csv(folder/'runs.csv', dtype={'error': str}, keep_default_na=False)
    return runs[runs.error == ''].to_dict('records')

def key(steps, cell): return (steps, *[str(cell[k]) for k in ('target','seed','method')], float(cell['budget']))

def jobs(suite, seeds, targets=None, steps=(200,)):
    "(steps, cell) of all runs, a seed after the other, within it the steps, then the budgets"
    named = {n: methods if n == steps[0] else patient for n in steps}
    return [(n,c) for seed in range(seeds) for n in steps for budget in (.2,5)
            for c in suite.cells(targets, budget, seed, named[n])]

def limit_threads(n):
    "Processes that start from now on compute in `n` threads each, as joblib's do: numpy takes all cores otherwise"
    for o in ('OMP','MKL','OPENBLAS','NUMEXPR'): os.environ[f'{o}_NUM_THREADS'] = str(n)

def half_is_finite(*folders):
    "Whether checks trained in half precision without a loss that is not finite"
    tables = [o/'checks.csv' for o in folders if (o/'checks.csv').exists()]
    if not tables: return False
    c = pd.read_csv(tables[0]).set_index('check')
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
    ap.add_argument('--steps', type=int, nargs='+', default=[200])
    ap.add_argument('--seeds', type=int, default=20)
    ap.add_argument('--jobs', type=int, help='runs at a time')
    ap.add_argument('--targets', nargs='*', help='some of them only')
    ap.add_argument('--done', type=Path, help='tables of an earlier run, to go on from')
    a = begin(ap, argv)
    cores = os.cpu_count() or 1
    a.jobs = a.jobs or max(1, min(8, cores//2))
    a.threads = max(1, cores//a.jobs)
    limit_threads(a.threads)
    a.px,a.half = side(a.data),a.device != 'cpu' and half_is_finite(a.out, a.done or a.out)
    suite = make_suite(a, a.steps[0])
    before = ended(a.done)
    made = {key(r['steps'], r) for r in before}
    todo = [j for j in jobs(suite, a.seeds, a.targets, a.steps) if key(*j) not in made]
    table = Table(a.out/'runs.csv', half=a.half, px=a.px, sources=len(suite.sources), jobs=a.jobs,
                  **conditions(a))
    for r in before: table.add(**r)
    start = time.perf_counter()
    for f,row in in_processes(a, [(look, a.targets or suite.targets), (run, todo)], a.jobs):
        if f is run: table.add(**row)
        print(f'{time.perf_counter()-start:.1f} s', f.__name__, row, flush=True)

if __name__=='__main__': main()
