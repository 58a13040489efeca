"""Rates and frozen statistics for the small tier of the suite `eight`, tried on labelled training images alone: `python scripts/tune_eight.py DATA SOURCES [TARGET ...]`

Of the 20 % of the training images that are labelled in the larger budget, five a class are trained on, the others are validated on, and the other 80 % are the pool. The test images are
not touched. Split and training have the seed 7, a run has 200 steps of 32 labelled images (and 32 of the pool). Also what the sources' probes themselves say of the validation images, the
most that a student could learn from them. One thread a run, two runs at a time. Prints, and writes `tuning.csv` and `teachers.csv` into `benchmarks/eight_small`."""
import argparse, time, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import pandas as pd, torch
from joblib import Parallel, delayed
from fastai.vision.all import accuracy, aug_transforms, no_random
from distill_nb.data import few_labels, image_dls, item_labels, load_pack
from distill_nb.sources import Zoo
from distill_nb.similarity import rank_sources
import distill_nb.weights # Ranking.weights
from distill_nb.learner import distill_learner, fixmatch_learner, probe_labels, transfer_learner, _ValidateOnce

methods = dict(probe=dict(probe_head=True), transfer={}, lp_ft=dict(probe_head=True), fixmatch={}, weighted=dict(pseudo='source'),
               probes=dict(pseudo='probe', probe_head=True), both=dict(pseudo='both', probe_head=True))

def data(folder, target, seed):
    pack = load_pack(folder/'targets'/f'{target}.npz')
    x,y = pack.train
    labelled,rest = few_labels(y, frac=.2, seed=seed)
    few,valid = few_labels(y[labelled], n=5, seed=seed)
    few,valid = labelled[few],labelled[valid]
    return image_dls(x[few], y[few], x[valid], y[valid], vocab=pack.classes, size=64, bs=32, batch_tfms=aug_transforms(max_rotate=10, max_warp=.1, size=None)), x[rest]

def zoo(folder, sources): return Zoo.checkpoints(folder/'weights', size=128) + Zoo.checkpoints(sources, size=128)

def run(folder, sources, target, method, lr, freeze, steps=200, seed=7):
    torch.set_num_threads(1)
    (dls,pool),start = data(folder, target, seed),time.perf_counter()
    kw = dict(start=Zoo.checkpoints(sources/'start')['start'], freeze_stats=freeze, epoch_len=steps*dls.train.bs, metrics=accuracy, **methods[method])
    store = dict(store=sources/'outputs', progress=False)
    with no_random(seed):
        if 'pseudo' in kw: learn = distill_learner(dls, pool, rank_sources(dls, zoo(folder, sources), times=0, **store), **kw, **store)
        else: learn = fixmatch_learner(dls, pool, **kw) if method == 'fixmatch' else transfer_learner(dls, **kw)
        with learn.no_bar(), learn.no_logging():
            if method != 'probe': learn.fit_one_cycle(1, lr, cbs=_ValidateOnce())
            loss,acc = learn.validate()
    return dict(target=target, method=method, lr=lr, freeze_stats=freeze, steps=steps, accuracy=acc, valid_loss=loss, n_valid=len(dls.valid_ds), seconds=time.perf_counter()-start)

def teachers(folder, sources, target, seed=7):
    "How often the probes on the sources' features are right on the validation images"
    (dls,pool),store = data(folder, target, seed),dict(store=sources/'outputs', progress=False)
    rank = rank_sources(dls, zoo(folder, sources), times=0, **store)
    right = lambda s,alpha: (probe_labels(s, alpha, dls, dls.valid_ds.items, **store).argmax(1).numpy() == item_labels(dls.valid_ds)).mean()
    every = list(rank.zoo)
    return dict(target=target, sources=len(every), n_valid=len(dls.valid_ds), best_name=rank.best.name, best=right([rank.best], [1.]), equal=right(every, [1/len(every)]*len(every)), weighted=right(every, rank.weights().values))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path); ap.add_argument('sources', type=Path); ap.add_argument('targets', nargs='*', default=['flowers','textures'])
    ap.add_argument('--methods', nargs='+', default=list(methods), choices=list(methods)); ap.add_argument('--teachers', action='store_true', help='the teachers alone')
    a = ap.parse_args()
    out = Path(__file__).resolve().parent.parent/'benchmarks'/'eight_small'; out.mkdir(exist_ok=True)
    t = pd.DataFrame([teachers(a.data, a.sources, o) for o in a.targets])
    print(t.round(4).to_string()); t.round(4).to_csv(out/'teachers.csv', index=False)
    if a.teachers: raise SystemExit
    grid = [(m,lr,f) for m in a.methods for lr in ((0,) if m == 'probe' else (2e-4,1e-3,4e-3) if m in ('transfer','lp_ft') else (2e-3,)) for f in ((True,) if m == 'probe' else (True,False))]
    rows = []
    for r in Parallel(n_jobs=2, return_as='generator_unordered')(delayed(run)(a.data, a.sources, o, *g) for g in grid for o in a.targets):
        rows.append(r); print(r, flush=True)
        pd.DataFrame(rows).round(4).to_csv(out/'tuning.csv', index=False)
