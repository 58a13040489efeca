"""Rate, steps, batch-norm statistics and image size for two kinds of student on eight targets, tried on training images alone:
`python experiments/recipe_eight.py DATA OUT.csv [--jobs 2]`

Five labels per class (three of pets, which has six) are trained on; half of the other training images, at most 300, are validated on,
the rest is the pool. The test images are not touched. Both kinds of student start from the ImageNet weights of EfficientNet-Lite0:
`small` is its first four stages on images of 64 px, `whole` is all of it on 96 px. The five models of DATA teach. Every run keeps its
accuracy and loss at the start and after each fifth of its steps. One thread per run; runs that are in OUT.csv are not made again."""
import argparse, sys, time, warnings
from collections import Counter
warnings.simplefilter('ignore')
from pathlib import Path
import pandas as pd, torch
from joblib import Parallel, delayed
from fastai.vision.all import accuracy, aug_transforms, no_random
from distill_nb.data import few_labels, image_dls
from distill_nb.learner import distill_learner, transfer_learner
from distill_nb.packs import load_pack
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

kinds = dict(small=dict(stages=4, size=64), whole=dict(size=96))
targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']
keys = ['kind','target','method','lr','steps','freeze','size','seed']

def data(path, size, seed):
    "(dls, pool) of a target"
    pack = load_pack(path)
    x,y = pack.train
    few,rest = few_labels(y, n=5 if min(Counter(y.tolist()).values()) > 8 else 3, seed=seed)
    valid,pool = few_labels(y[rest], frac=min(.5, 300/len(rest)), seed=seed)
    valid,pool = rest[valid],rest[pool]
    dls = image_dls(x[few], y[few], x[valid], y[valid], vocab=pack.classes, size=size, bs=16,
                    batch_tfms=aug_transforms(max_rotate=10, max_warp=.1, size=None))
    return dls,x[pool]

def run(folder, store, kind, target, method, lr, steps, freeze, size, seed):
    "One row"
    torch.set_num_threads(1)
    kw = {k: v for k,v in kinds[kind].items() if k != 'size'}
    dls,pool = data(folder/'targets'/f'{target}.npz', size, seed)
    zoo = Zoo.checkpoints(folder/'weights', size=128)
    kw |= dict(start=zoo['imagenet_lite0'], freeze_stats=freeze, metrics=accuracy, probe_head=True, epoch_len=steps//5*16, store=store)
    began = time.perf_counter()
    with no_random(seed):
        if method == 'distill':
            rank = rank_sources(dls, zoo, times=0, store=store, progress=False)
            learn = distill_learner(dls, pool, rank, bs_u=32, progress=False, **kw)
        else: learn = transfer_learner(dls, **{k: v for k,v in kw.items() if k != 'store'})
        with learn.no_bar(), learn.no_logging():
            start = learn.validate()
            learn.fit_one_cycle(5, lr)
    names = list(learn.recorder.metric_names)[1:-1]
    curve = [start] + [[v[names.index(k)] for k in ('valid_loss','accuracy')] for v in learn.recorder.values]
    row = dict(kind=kind, target=target, method=method, lr=str(lr), steps=steps, freeze=freeze, size=size, seed=seed)
    row |= {f'acc{i}': round(c[1], 4) for i,c in enumerate(curve)} | {f'loss{i}': round(c[0], 4) for i,c in enumerate(curve)}
    return dict(row, seconds=round(time.perf_counter()-began), **machine())

def grid():
    "What is tried, the most telling first"
    def cells(kind, method, lrs, steps, freeze=True, size=None, only=targets):
        return [(kind, t, method, lr, steps, freeze, size or kinds[kind]['size'], 7) for lr in lrs for t in only]
    some = targets[:4]
    return [*cells('small', 'distill', [5e-4,2e-3], 200), *cells('whole', 'distill', [5e-4,1e-3], 200, only=some[:3]),
            *cells('small', 'distill', [5e-3], 200, only=some), *cells('small', 'distill', [2e-3], 600, only=some),
            *cells('small', 'distill', [slice(2e-4, 2e-3)], 200, only=some),
            *cells('small', 'distill', [2e-3], 200, freeze=False, only=some),
            *cells('whole', 'distill', [2e-4], 200, only=some[:3]),
            *cells('small', 'distill', [2e-3], 200, size=96, only=some[:3]),
            *cells('whole', 'distill', [5e-4], 200, size=128, only=some[:3]),
            *cells('small', 'distill', [2e-3], 200, size=96, only=some[3:]),
            *cells('whole', 'distill', [5e-4], 600, only=some[:2])]

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    ap.add_argument('--jobs', type=int, default=2)
    a = ap.parse_args()
    rows = pd.read_csv(a.out, dtype=dict(lr=str)).to_dict('records') if a.out.exists() else []
    done = {tuple(str(r[k]) for k in keys) for r in rows}
    todo = [c for c in grid() if tuple(map(str, c)) not in done]
    for row in Parallel(n_jobs=a.jobs, return_as='generator_unordered')(delayed(run)(a.data, a.store, *c) for c in todo):
        rows.append(row)
        print(row, flush=True)
        pd.DataFrame(rows).to_csv(a.out, index=False)
