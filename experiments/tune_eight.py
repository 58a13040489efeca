"""Learning rates for the suite `eight`, tried on labelled training images alone, for every method alike: `python
experiments/tune_eight.py DATA SOURCES [TARGET ...]`

Of the 20 % of the training images that are labelled in the larger budget, five a class are trained on, the others are
validated on, and the other 80 % are the pool. The test images are
not touched. Split and training have the seed 7, all else is the suite's. One thread a run, two runs at a time.
Prints, and writes `tuning.csv` into `benchmarks/eight_small`, or a folder named after the tier and size asked for;
runs that are there are not made again."""
import argparse, warnings
warnings.simplefilter('ignore')
from functools import partial
from pathlib import Path
import pandas as pd
from joblib import Parallel, delayed
from distill_nb.data import few_labels, image_dls
from distill_nb.bench import run_cell
from distill_nb.suites import eight_suite, suite_tfms

def split(load, size, bs, budget=None, seed=7):
    "(dls, pool): five labels a class to train on, the other labelled training images to validate on"
    pack = load()
    x,y = pack.train
    labelled,rest = few_labels(y, frac=.2, seed=seed)
    few,valid = few_labels(y[labelled], n=5, seed=seed)
    few,valid = labelled[few],labelled[valid]
    return image_dls(x[few], y[few], x[valid], y[valid], vocab=pack.classes, size=size, bs=bs, batch_tfms=suite_tfms()), x[rest]

def suite(*args, **recipe):
    "`eight_suite` on these splits"
    s = eight_suite(*args, **recipe)
    s.targets = {t: partial(split, *f.args) for t,f in s.targets.items()}
    return s

def run(args, sources, target, method, lr):
    row = run_cell(suite(*args, lr=lr), target, 5, 7, method, store=sources/'outputs', threads=1)
    return dict(target=target, method=method, lr=lr, **{k: round(row[k], 4)
                                                        for k in ('accuracy','balanced_accuracy','valid_loss')},
                seconds=round(row['seconds']))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('sources', type=Path)
    ap.add_argument('targets', nargs='*', default=['flowers','textures'])
    ap.add_argument('--methods', nargs='+', default=['transfer','fixmatch','weighted','distill'])
    ap.add_argument('--rates', nargs='+', type=float, default=[2e-3,5e-4,6e-3,1.5e-4])
    ap.add_argument('--jobs', type=int, default=2)
    ap.add_argument('--tier', choices=('small','full'), default='small')
    ap.add_argument('--size', type=int, help="side of the student's images (default: the tier's)")
    a = ap.parse_args()
    args = a.data,a.sources,a.tier,a.size
    out = Path(__file__).resolve().parent.parent/'benchmarks'/suite(*args).name.replace('-','_')
    out.mkdir(exist_ok=True)
    rows = pd.read_csv(out/'tuning.csv').to_dict('records') if (out/'tuning.csv').exists() else []
    done = {(r['target'],r['method'],r['lr']) for r in rows}
    todo = [(t,m,lr) for lr in a.rates for m in a.methods for t in a.targets if (t,m,lr) not in done]
    for r in Parallel(n_jobs=a.jobs, return_as='generator_unordered')(delayed(run)(args, a.sources, *o) for o in todo):
        rows.append(r)
        print(r, flush=True)
        pd.DataFrame(rows).to_csv(out/'tuning.csv', index=False)
