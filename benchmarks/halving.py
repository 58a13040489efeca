"""What does successive halving lose? Full rankings against `rank_sources(..., halving=25, 50, 100)`, as
`benchmarks/halving.csv`.

For each target of DATA/targets: sources are the real models of DATA/weights at 64, 96 and 128 px and the embedded zoo.
Of each target at most 700 training and 300 test images take part. The truth of a source is the accuracy, on the test
images, of a linear probe of its features fitted on all of the
training images. Each seed draws its own probe set of at most 500 of these; the rankings see that alone. All outputs
are computed once and kept in a store; the rankings run on them as arrays, by the public function.

    # about 2,600 seconds of CPU (estimated from parts of it) on two cores, less if the store is filled; DATA is
    # $DISTILL_NB_DATA or ../shared/data
    python benchmarks/halving.py [DATA]
    python benchmarks/halving.py --small     # half a minute: two targets, the embedded zoo, nothing written"""
import argparse, hashlib, os, sys, tempfile, time, warnings
from pathlib import Path
import numpy as np, pandas as pd, torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from common import save

root = Path(__file__).resolve().parent.parent
TARGETS = 'birds pets skin chestxray aerial corn textures flowers'.split()
SIZES,STARTS,KEEPS = (64,96,128),(25,50,100),(4,8)
SEEDS = dict(cka=10, parc=10, linear_probe=2)           # a linear probe takes forty times as long

def quietly(f):
    "`f` in a process of its own: one thread, no notices"
    def g(*args):
        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return f(*args)
    return g

def sources(data, small):
    "name -> Source"
    from distill_nb.zoo import Zoo
    real = {f'{s.name}@{size}':s for size in SIZES for s in Zoo.checkpoints(data/'weights', size=size)} if not small else {}
    for s in real.values(): s.build = lambda build=s.build: build().to(memory_format=torch.channels_last)      # a third faster on a CPU
    return real | {s.name:s for s in Zoo.embedded()}

def images(data, target, small):
    "(training items, labels, test items, labels)"
    from distill_nb.packs import load_pack
    from distill_nb.similarity import probe_set
    pack = load_pack(data/'targets'/f'{target}.npz')
    def some(items, labels, n):
        o = probe_set(labels, n, seed=0)
        return items[o.tolist()],labels[o]
    return *some(*pack.train, 150 if small else 700),*some(*pack.test, 60 if small else 300)

def outputs(data, small, store, target, name):
    "Features of the training images and of the test images"
    from distill_nb.outputs import get_outputs
    x,_,test_x,_ = images(data, target, small)
    return [get_outputs(sources(data, small)[name], o, store=store, bs=32, progress=False).features.numpy() for o in (x,test_x)]

def accuracy(x, y, test_x, test_y):
    "Of a linear probe on standardised features, C = 0.01 throughout"
    mean,std = x.mean(0),x.std(0)+1e-6
    return LogisticRegression(C=.01, max_iter=1000).fit((x-mean)/std, y).score((test_x-mean)/std, test_y)

def remembered(f):
    "`f`, computed once for the same features and labels"
    seen = {}
    def g(x, labels):
        key = hashlib.blake2b(x.numpy()).digest()+np.asarray(labels).tobytes()
        if key not in seen: seen[key] = f(x, labels)
        return seen[key]
    return g

def trials(x, y, feats, truth, metric, seeds, n):
    "A row for each seed and each way to rank"
    from distill_nb.data import image_dls
    from distill_nb.similarity import rank_sources
    from distill_nb.estimators.core import metrics
    from distill_nb.sources import Source
    from distill_nb.zoo import Zoo
    dls,f = image_dls(x, y, x[:8], y[:8], size=64),remembered(metrics[metric])
    zoo = Zoo([Source.from_arrays(k, x, v) for k,v in feats.items()])
    for seed in range(seeds):
        full = None
        for halving,keep in [(None,8)] + [(h,k) for h in STARTS for k in KEEPS]:
            try: r = rank_sources(dls, zoo, f, n=n, seed=seed, times=0, store=False, progress=False, halving=halving, keep=keep)
            except ValueError as e:
                print(f'{metric}, halving {halving}: {e}', flush=True)
                continue
            full = full or r
            passes = len(r)*r.n_probe + (r.eliminated.images.sum() if len(r.eliminated) else 0)
            lost = truth.max()-truth[[s.name for s in r]]
            yield dict(metric=metric, halving=halving or 0, keep=keep if halving else len(zoo),
                       passes=passes/len(zoo)/r.n_probe, finalists=len(r), regret1=100*lost.iloc[0], regret3=100*lost.iloc[:3].min(),
                       same_first=r.best.name==full.best.name, first_survives=full.best.name in r.names,
                       best_survives=truth.idxmax() in r.names)

def study(data, small, n, target, feats):
    "Rows of one target; `feats`: name -> features of training and test images"
    x,y,_,test_y = images(data, target, small)
    truth = pd.Series({k:accuracy(a, y, b, test_y) for k,(a,b) in feats.items()})
    rows = [o for m,s in SEEDS.items() if not small or m=='cka'
            for o in trials(x, y, {k:a for k,(a,_) in feats.items()}, truth, m, 2 if small else s, n)]
    df = pd.DataFrame(rows).groupby(['metric','halving','keep'], as_index=False).mean()
    return df.assign(target=target, seeds=df.metric.map(SEEDS), sources=len(truth), n=min(n, len(y)),
                     classes=len(set(y.tolist())), best=truth.max())

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', nargs='?', type=Path, default=Path(os.environ.get('DISTILL_NB_DATA',
            root.parent/'shared'/'data')), help='the folder with targets/ and weights/')
    ap.add_argument('--store', type=Path, help="where outputs are kept (default: the user's cache)")
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    a = ap.parse_args()
    if not (a.data/'targets').is_dir():
        sys.exit(f'skipped: there is no {a.data/"targets"}; name the folder of the experiments\' data, or set DISTILL_NB_DATA')
    start,targets = time.time(),TARGETS[:2] if a.small else TARGETS
    names,n = quietly(sources)(a.data, a.small).keys(),100 if a.small else 500
    jobs = Parallel(n_jobs=2)
    cells = [(t,k) for t in targets for k in names]
    with tempfile.TemporaryDirectory() as tmp:
        feats = dict(zip(cells, jobs(delayed(quietly(outputs))(a.data, a.small, tmp if a.small else a.store, *c) for c in cells)))
    print(f'features: {time.time()-start:.0f} s', flush=True)
    df = pd.concat(jobs(delayed(quietly(study))(a.data, a.small, n, t, {k:feats[t,k] for k in names}) for t in targets))
    keys = ['target','metric','halving','keep']
    df = df[[*keys, *df.columns.drop(keys)]]
    with pd.option_context('display.width', 250, 'display.max_columns', None):
        print(df.groupby(['metric','halving','keep']).mean(numeric_only=True).round(3))
    save(df, 'halving', a)
    print(f'{time.time()-start:.0f} s')
