"""Labels flipped on purpose on eight targets: how many are found, by which rule, and what mending them is worth:
`python experiments/flipped_eight.py DATA OUT.csv --store STORE [--part flags teachers students strangers copies]`

Of the training images 5 or 20 labels per class are drawn (fewer where a class has fewer), and 5, 10 or 20 % of them
changed: to any other class
(`uniform`), or to the one that clean held-out answers take the class for most often (`confused`). The five models of
DATA are the sources.

- `flags`: precision and recall of each rule's flags, and average precision of its order. `found` is that of `find_suspects`.
- `teachers`: accuracy of the mean of their probes on the test images with the labels as flipped, with the true label
  given to whatever is flagged
  (as a person would who looks at these alone), and with the true labels.
- `students`: the same for a small student, the first four stages of EfficientNet-Lite0 from its ImageNet weights on
  images of 64 px,
  200 steps, the other training images as its pool.
- `strangers`: five images of another target among the labelled ones; `copies`: edited copies of 20 images among 400.
  `rule` names the other target, or the edit.

`checked` is the share of labels that somebody looks at. cleanlab's rules are there if it is installed. One thread; rows
that are in OUT.csv are not made again."""
import argparse, io, sys, time, warnings
warnings.simplefilter('ignore')
from functools import lru_cache
from pathlib import Path
import numpy as np, pandas as pd, torch
from PIL import Image, ImageOps
from scipy.special import softmax
from sklearn.metrics import average_precision_score
from fastai.vision.all import accuracy, aug_transforms, no_random
from distill_nb.data import few_labels, image_dls
from distill_nb.estimators.probes import fit_probe
from distill_nb.folds import held_out_folds
from distill_nb.images import open_image
from distill_nb.learner import distill_learner
from distill_nb.outputs import get_outputs
from distill_nb.packs import load_pack
from distill_nb.similarity import rank_sources
from distill_nb.suspects import far_from_all, held_out_ridge, label_doubts, near_pairs, same_picture, unit_features
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']
keys = ['part','target','per','share','kind','seed','rule']

@lru_cache(8)
def target_data(folder, store, target):
    "(pack, features of training images by each source, of test images)"
    pack,zoo = load_pack(folder/'targets'/f'{target}.npz'),Zoo.checkpoints(folder/'weights', size=128)
    look = lambda x: [get_outputs(s, x, store, progress=False).features.numpy() for s in zoo]
    return pack,look(pack.train[0]),look(pack.test[0])

def joint(features, k=64):
    "As `feature_hints` with equal weights"
    res = []
    for x in features:
        u,d,_ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        res.append((u*d)[:,:k]*np.sqrt(len(x)/np.square(d[:k]).sum()))
    return np.concatenate(res, 1)

def flip(y, share, kind, p, rng):
    "Some labels changed"
    c,res = y.max()+1,y.copy()
    mean = np.stack([np.where(np.arange(c)==i, -1, p[y==i].mean(0)) for i in range(c)])
    for i in rng.choice(len(y), max(1, round(share*len(y))), replace=False):
        res[i] = mean[y[i]].argmax() if kind=='confused' else (y[i] + rng.integers(1, c))%c
    return res

def probes(features, y, c, test=None, C=.1):
    "Probabilities [S,n,c] by linear probes: of the test images, or by five folds of the labelled ones"
    def ask(x, train, asked):
        w,b = fit_probe(x[train], y[train], C)
        p = np.zeros((len(asked), c))
        p[:,np.unique(y[train])] = softmax(asked.astype(float)@w.numpy() + b.numpy(), axis=1)
        return p
    if test is not None: return np.stack([ask(x, np.arange(len(y)), t) for x,t in zip(features, test)])
    res = np.full((len(features), len(y), c), 1/c)
    for train,held in held_out_folds(y):
        for s,x in enumerate(features): res[s,held] = ask(x, train, x[held])
    return res

def confident(p, y):
    """Confident learning (Northcutt et al., JAIR 2021, eq. 2): another class is above its own mean self-confidence,
    and is the likeliest such class"""
    own = p[np.arange(len(y)),y]
    limit = np.array([own[y==j].mean() if (y==j).any() else np.inf for j in range(p.shape[1])])
    above = np.where(p >= limit, p, -1)
    return (above.max(1) > 0) & (above.argmax(1) != y)

def orders(p, y):
    "(doubt by self-confidence, by margin); the larger, the more suspect"
    rows = np.arange(len(y))
    own,other = p[rows,y],np.where(np.arange(p.shape[1])==y[:,None], -1, p).max(1)
    return 1-own, other-own

def by_cleanlab(p, y):
    "rule -> (flags, order)"
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError: return {}
    order = 1 - get_label_quality_scores(y, p, method='normalized_margin')
    def flags(how):
        try: return find_label_issues(y, p, filter_by=how)
        except Exception: return np.zeros(len(y), bool)                            # classes that the labels lack
    return {f'cleanlab {o}': (flags(o), order) for o in ('prune_by_noise_rate','both','low_normalized_margin')}

def rules(x, features, y, c):
    "rule -> (flags, order)"
    began = time.perf_counter()
    ridge = softmax_of(held_out_ridge(x, y), y, c)
    doubt,_ = label_doubts(ridge, y)
    quick = time.perf_counter()-began
    folds = probes(features, y, c)
    slow = time.perf_counter()-began-quick
    mean,answers = folds.mean(0),folds.argmax(2)
    agreed = (answers==answers[0]).all(0) & (answers[0]!=y)
    res = {f'found {l}': (doubt>=l, doubt) for l in (.2,.1,.3,.5)}
    res |= {f'{n} {w}': (f, o) for n,p in (('ridge',ridge),('folds',mean))
            for w,f,o in (('confident', confident(p, y), orders(p, y)[1]), ('self', orders(p, y)[0]>.5, orders(p, y)[0]))}
    by_folds,_ = label_doubts(mean/mean.sum(1, keepdims=True), y)
    res['folds doubts'] = by_folds>=.2,by_folds
    res['all agree .8'] = agreed & (mean.max(1)>=.8),orders(mean, y)[1]
    res |= by_cleanlab(mean/mean.sum(1, keepdims=True), y)
    return res,dict(ms_ridge=round(1000*quick), ms_folds=round(1000*slow))

def softmax_of(p, y, c):
    "Columns for all classes"
    res = np.full((len(p), c), 1e-9)
    res[:,np.unique(y)] = p
    return res/res.sum(1, keepdims=True)

def draw(folder, store, target, per, share, kind, seed):
    "(pack, features, test features, positions of the labelled images, true and flipped labels, joint features, classes)"
    pack,features,test = target_data(folder, store, target)
    truth = np.asarray(pack.train[1])
    few,_ = few_labels(truth, n=min(per, int(np.bincount(truth).min())), seed=seed)
    few,features = np.asarray(few),[f[few] for f in features]
    y,x,c = truth[few].astype(int),joint(features),len(pack.classes)
    given = flip(y, share, kind, held_out_ridge(x, y), np.random.default_rng(seed))
    return pack,features,test,few,y,given,x,c

def flag_rows(*cell):
    "A row per rule"
    pack,features,test,few,y,given,x,c = draw(*cell)
    bad,(found,ms) = given!=y,rules(x, features, given, c)
    for rule,(flags,order) in found.items():
        hit = int((flags & bad).sum())
        yield rule,dict(n=len(y), bad=int(bad.sum()), flags=int(flags.sum()), hits=hit, checked=flags.mean(),
                        average_precision=average_precision_score(bad, order), **ms)

def mended_labels(x, y, given, c):
    "What is trained with, in words -> (labels, share that was looked at)"
    doubt,_ = label_doubts(softmax_of(held_out_ridge(x, given), given, c), given)
    look = lambda at: (np.where(at, y, given), at.mean())
    rng = np.random.default_rng(0)
    n = int((doubt>=.2).sum())
    some = np.isin(np.arange(len(y)), rng.choice(len(y), n, replace=False))
    return dict(flipped=look(np.zeros(len(y), bool)), mended=look(doubt>=.2), sure=look(doubt>=.5), some=look(some),
                true=look(np.ones(len(y), bool)))

def teacher_rows(*cell):
    "A row for each set of labels"
    pack,features,test,few,y,given,x,c = draw(*cell)
    for rule,(labels,checked) in mended_labels(x, y, given, c).items():
        p = probes(features, labels, c, test).mean(0)
        yield rule,dict(n=len(y), bad=int((labels!=y).sum()), checked=checked, accuracy=(p.argmax(1)==pack.test[1]).mean())

def student_rows(folder, store, target, per, share, kind, seed, only=('flipped','mended','true')):
    "A row for each set of labels"
    pack,features,test,few,y,given,x,c = draw(folder, store, target, per, share, kind, seed)
    zoo,pool = Zoo.checkpoints(folder/'weights', size=128),np.setdiff1d(np.arange(len(pack.train[0])), few)
    for rule,(labels,checked) in mended_labels(x, y, given, c).items():
        if rule not in only: continue
        began = time.perf_counter()
        dls = image_dls(pack.train[0][few], labels, *pack.test, vocab=pack.classes, size=64, bs=16,
                        batch_tfms=aug_transforms(max_rotate=10, max_warp=.1, size=None))
        with no_random(seed):
            rank = rank_sources(dls, zoo, times=0, store=store, progress=False)
            learn = distill_learner(dls, pack.train[0][pool], rank, bs_u=32, progress=False,
                                    start=zoo['imagenet_lite0'], stages=4, metrics=accuracy,
                                    probe_head=True, epoch_len=40*16, store=store)
            with learn.no_bar(), learn.no_logging():
                learn.fit_one_cycle(5, 2e-3)
                acc = learn.validate()[1]
        yield rule,dict(n=len(y), bad=int((labels!=y).sum()), checked=checked, accuracy=acc, seconds=round(time.perf_counter()-began))

def stranger_rows(folder, store, target, per, share, kind, seed, others=5):
    "Labelled images and five images of another target: how many of either are called unlike all others"
    pack,features,test,few,y,given,x,c = draw(folder, store, target, per, share, kind, seed)
    for other in targets:
        if other==target: continue
        strange = [f[np.random.default_rng(seed).choice(len(f), others, replace=False)] for f in target_data(folder, store, other)[1]]
        flags = far_from_all(unit_features([np.r_[a,b] for a,b in zip(features, strange)])) > 1.5
        yield other,dict(n=len(y), bad=others, flags=int(flags.sum()), hits=int(flags[-others:].sum()), checked=flags.mean())

def jpeg(im, quality=40):
    "Encoded once more"
    with io.BytesIO() as f:
        im.save(f, 'jpeg', quality=quality)
        return Image.open(f).convert('RGB')

def cropped(im, part):
    return im.crop([round(o) for o in (im.width*part, im.height*part, im.width*(1-part), im.height*(1-part))]).resize(im.size)

edits = {'jpeg 40': jpeg, 'half the size': lambda im: im.resize((im.width//2,im.height//2)).resize(im.size),
         'a fourth brighter': lambda im: im.point(lambda v: min(255, 1.25*v)),
         'mirrored': ImageOps.mirror, 'cropped to 90 %': lambda im: cropped(im, .05), 'turned by 3 degrees': lambda im: im.rotate(3)}

def copy_rows(folder, store, target, per, share, kind, seed, n=20):
    "Edited copies of twenty images among 400 of the target: how many are found; pairs that are found among the 400 themselves"
    pack,features,_ = target_data(folder, store, target)
    some = np.random.default_rng(seed).permutation(len(pack.train[0]))[:400]
    zoo,images = Zoo.checkpoints(folder/'weights', size=128),[open_image(pack.train[0][int(i)]) for i in some]
    for name,edit in {'none': None, **edits}.items():
        copies = [np.asarray(edit(im)) for im in images[:n]] if edit else []
        new = [get_outputs(s, copies, False, progress=False).features.numpy() if copies else f[:0] for s,f in zip(zoo, features)]
        pairs = near_pairs(joint([np.r_[f[some],o] for f,o in zip(features, new)]))
        items = images + [Image.fromarray(o) for o in copies]
        same = {(int(i),int(j)) for i,j in pairs if (j >= len(images) or not edit) and same_picture(items[int(i)], items[int(j)])}
        hits = sum((i, len(images)+i) in same for i in range(len(copies)))
        yield name,dict(n=len(items), bad=len(copies), flags=len(same), hits=hits)

parts = dict(flags=flag_rows, teachers=teacher_rows, students=student_rows, strangers=stranger_rows, copies=copy_rows)

def grid(part):
    "What is tried"
    if part=='students': return [(t, 5, .2, 'uniform', s) for s in (0,1) for t in ('textures','aerial','flowers','corn','birds')]
    if part in ('strangers','copies'): return [(t, 20, 0., 'uniform', 0) for t in targets]
    if part=='teachers': return [(t, per, share, 'uniform', s) for s in range(5) for t in targets for per in (5,20) for share in (.1,.2)]
    return [(t, per, share, kind, s) for s in range(5) for t in targets for per in (5,20) for share in (.05,.1,.2)
            for kind in ('uniform','confused')]

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    ap.add_argument('--part', nargs='+', default=list(parts), choices=list(parts))
    ap.add_argument('--only', nargs='+', default=targets, choices=targets)
    a = ap.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_csv(a.out).to_dict('records') if a.out.exists() else []
    done = {tuple(str(r[k]) for k in keys[:-1]) for r in rows}
    for part in a.part:
        for cell in grid(part):
            if cell[0] not in a.only or (part,*map(str, cell)) in done: continue
            mine = [dict(zip(keys, (part,*cell,rule)), **o) for rule,o in parts[part](a.data, a.store, *cell)]
            rows += [{**r, **machine()} for r in mine]
            print(part, *cell, flush=True)
            pd.DataFrame(rows).round(4).to_csv(a.out, index=False)
