"""Does a student gain by chosen labels as its teachers do? `python experiments/choose_student.py DATA OUT.csv [--store FOLDER]`

Two and five labels a class, drawn at random, by class, or chosen by `choose_from` from none (see `choose_eight.py`); the rest of the
training images is the pool. The student is the first four stages of EfficientNet-Lite0 on 64 px from ImageNet weights, taught for 200
steps at the suggested rate by the five models of DATA, and tried on the test images. The seed is that of the draw and of the training. Runs
that are in OUT.csv are not made again."""
import argparse, sys, time, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.vision.all import accuracy, aug_transforms, no_random
from distill_nb.choose import choose_from
from distill_nb.data import few_labels, image_dls
from distill_nb.items import get_images
from distill_nb.learner import distill_learner
from distill_nb.outputs import get_outputs
from distill_nb.packs import load_pack
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

def labeled(how, features, y, per, seed):
    "Positions of the labelled training images"
    n = per*(int(y.max())+1)
    if how == 'stratified': return few_labels(y, n=per, seed=seed)[0]
    if how == 'random': return np.random.default_rng(seed).permutation(len(y))[:n]
    chosen = np.array([], int)
    for k in (1,2,3,5):                                   # the batches of `choose_eight.py`
        if k <= per: chosen = np.concatenate([chosen, choose_from(features, k*n//per - len(chosen), chosen, y[chosen])[0]])
    return chosen

def run(data, zoo, store, target, how, per, seed):
    "One row"
    pack = load_pack(data/'targets'/f'{target}.npz')
    (x,y),(test,truth) = pack.train,pack.test
    y,truth = np.asarray(y),np.asarray(truth)
    features = [get_outputs(s, get_images(x), store, progress=False).features for s in zoo] if how == 'chosen' else None
    few = labeled(how, features, y, per, seed)
    rest = np.setdiff1d(np.arange(len(y)), few)
    began = time.perf_counter()
    tfms = aug_transforms(max_rotate=10, max_warp=.1, size=None)
    seen,own = np.unique(y[few]),np.isin(truth, y[few])         # classes without a label cannot be answered
    codes = [np.searchsorted(seen, o) for o in (y[few],truth[own])]
    dls = image_dls(x[few], codes[0], test[own], codes[1], vocab=[pack.classes[i] for i in seen], size=64, bs=16, batch_tfms=tfms)
    with no_random(seed):
        rank = rank_sources(dls, zoo, times=0, store=store, progress=False)
        learn = distill_learner(dls, x[rest], rank, bs_u=32, stages=4, start=zoo['imagenet_lite0'], metrics=accuracy, epoch_len=40*16,
                                store=store, progress=False)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(5)
            right = learn.validate()[1]*own.mean()
    row = dict(target=target, how=how, per_class=per, seed=seed, labels=len(few), seen=len(seen)/len(pack.classes))
    return dict(row, accuracy=round(right, 4), seconds=round(time.perf_counter()-began), **machine())

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    a = ap.parse_args()
    torch.set_num_threads(1)
    zoo = Zoo.checkpoints(a.data/'weights', size=128)
    rows = pd.read_csv(a.out).to_dict('records') if a.out.exists() else []
    keys = ['target','how','per_class','seed']
    done = {tuple(r[k] for k in keys) for r in rows}
    cells = [(t, how, per, seed) for seed in (0,1) for ts in (['textures','aerial','flowers'],['corn','birds','pets','skin','chestxray'])
             for t in ts for per in (5,2) for how in ('chosen','random','stratified')]
    for cell in cells:
        if cell in done or cell[0] == 'pets' and cell[2] == 5: continue
        rows.append(run(a.data, zoo, a.store, *cell))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(a.out, index=False)
