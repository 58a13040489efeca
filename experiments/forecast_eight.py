"""How good is `forecast_accuracy`? On the eight targets: `python experiments/forecast_eight.py DATA [--store STORE]`

From 2, 3 and 5 labels a class, five seeds, as many labels of each class (`even`) or as they come (`random`), the
forecast for 20 more labels, 50 more and twice as many is held against the truth: accuracy on the test images of the mean
of the probes of the five sources at 128 px, before and after, with three draws of the further labels. Labels that are
`chosen` are chosen as `choose_images` does it, the further ones too, from four fifths of the training images, another four fifths
for each seed, in batches up to 1, 2, 3 and 5 labels a class. Three families of curves, each with one slope, are
fitted to the other seven targets; beside them the average gain of the others, and a slope measured on the labels
themselves. Writes `benchmarks/forecast_eight.csv`; what is there is not computed again, but judged again. The last lines
are the numbers of `distill_nb.forecast`: slopes of all eight targets, and by how much chosen labels read too low. `said` is the
accuracy that the forecast starts from."""
import argparse, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from distill_nb.choose import cosine_similarity, doubt, facility_location, few_per_class, probe_answers
from distill_nb.data import few_labels
from distill_nb.estimators.probes import fit_probe
from distill_nb.forecast import are_even, held_out_curve, kernel_of
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.packs import load_pack
from distill_nb.joint import joint_features
from distill_nb.zoo import Zoo

targets = 'aerial birds chestxray corn flowers pets skin textures'.split()
families = { # name -> (transformation of accuracy, its inverse, slope up to the labels that there are)
    'logit': (logit, expit, .8),
    'power': (lambda a: -np.log1p(-a), lambda z: 1 - np.exp(-z), .4),
    'log': (lambda a: a, lambda z: np.clip(z, .001, .999), .16)}

def load(data, target, store):
    "(features of the training images, of the test images, their classes, the training images) for each source"
    pack,zoo = load_pack(data/'targets'/f'{target}.npz'),Zoo.checkpoints(data/'weights', size=128)
    (images,y),(test,yt) = pack.train,pack.test
    compute_outputs(zoo, list(images) + list(test), store)
    features = [[get_outputs(s, o, store, progress=False).features.double() for s in zoo] for o in (images,test)]
    return *features,np.asarray(y),np.asarray(yt)

def probe_accuracy(x, t, y, yt, few):
    "Accuracy of the mean of the probes that learn from `few`"
    p,seen = torch.zeros(len(yt), max(y.max(), yt.max())+1),np.unique(y[few])
    for a,b in zip(x, t):
        w,bias = fit_probe(a[few], y[few])
        p[:,seen] += (b@w + bias).softmax(1).float()
    return float((p.argmax(1).numpy() == yt).mean())

def choose(space, x, y, few, n):
    "Positions of `n` images that `choose_images` chooses, when `few` have labels; `space` has the similarity of each pair"
    vocab,codes = np.unique(y[few], return_inverse=True)
    if not len(few) or len(few) < few_per_class*len(vocab): return facility_location(space, n, few)
    return facility_location(space, n, few, doubt(probe_answers(x, few, codes, len(vocab)).mean(0)))

def drawn_part(x, y, start, seed):
    "(features and classes of the images that are labelled from, the similarity of each pair where labels are chosen)"
    if start != 'chosen': return x,y,None
    some = np.random.default_rng(1000+seed).permutation(len(y))[:round(.8*len(y))]
    x = [o[some] for o in x]
    return x,y[some],cosine_similarity(joint_features(x))

def first_labels(space, x, y, start, k, seed):
    "Positions of `k` labels a class"
    n = k*(y.max()+1)
    if start == 'even': return few_labels(y, n=k, seed=seed)[0]
    if start == 'random': return np.random.default_rng(seed).permutation(len(y))[:n]
    few = np.array([], int)
    for i in (1,2,3,5):
        if i <= k: few = np.r_[few, choose(space, x, y, few, i*n//k - len(few))]
    return few

def level(curve, n, f):
    "Accuracy with all `n` labels on the scale of family `f`, by a curve that never falls"
    g,_,b = families[f]
    z = g((curve.accuracy*curve.images + .5)/(curve.images + 1))
    return max(np.average(z + b*np.log(n/curve.labels), weights=curve.labels), z.iloc[-1])

def cells(data, target, start, store):
    "Rows of one target: what is measured on the labels, and the truth"
    all_x,t,all_y,yt = load(data, target, store)
    for seed in range(5):
        x,y,space = drawn_part(all_x, all_y, start, seed)
        for k in (2,3,5):
            few = first_labels(space, x, y, start, k, seed)
            n,counts = len(few),np.bincount(y[few])
            if n < 8 or (counts > 1).sum() < 2: continue                       # refused
            curve = held_out_curve(kernel_of([o[few] for o in x]), y[few])
            row = dict(target=target, start=start, seed=seed, per_class=k, labels=n, even=are_even(y[few]))
            row |= {f'level_{f}': level(curve, n, f) for f in families}
            xs,a = np.log(curve.labels),(curve.accuracy*curve.images + .5)/(curve.images + 1)
            row['own_slope'] = np.polyfit(xs, logit(a), 1, w=np.sqrt(curve.labels))[0] if len(curve) > 1 else np.nan
            row['now'] = probe_accuracy(x, t, y, yt, few)
            rest = np.setdiff1d(np.arange(len(y)), few)
            for draw in range(1 if start == 'chosen' else 3):
                order = np.random.default_rng(1000*seed + draw).permutation(rest)
                for more in sorted({20, 50, n}):
                    if more > len(rest): continue
                    new = choose(space, x, y, few, more) if start == 'chosen' else order[:more]
                    yield row | dict(draw=draw, more=more, then=probe_accuracy(x, t, y, yt, np.r_[few, new]))

def smooth(a): return (300*a + .5)/301

def shift(d, f):
    "By how much held-out images read too low where labels are chosen, on the scale of family `f`, all targets equal"
    if (d.start != 'chosen').any(): return 0.
    off = families[f][0](smooth(d.now)) - d[f'level_{f}']
    return off.groupby([d.target, d.seed, d.per_class]).first().groupby('target').mean().mean()

def fitted(d, f):
    "(b, s, s0) of family `f`: change ~ N(b log((n+m)/n), (s log((n+m)/n))² + s0²), by maximum likelihood, all targets equal"
    g = families[f][0]
    change,x = (g(smooth(d.then)) - g(smooth(d.now))).to_numpy(),np.log1p(d.more/d.labels).to_numpy()
    weight = 1/d.groupby('target').more.transform('size').to_numpy()
    def loss(p):
        v = np.exp(2*p[1])*x**2 + np.exp(2*p[2])
        return (weight*((change - p[0]*x)**2/v + np.log(v))).sum()
    b,s,s0 = minimize(loss, [.5, -1, -2], method='Nelder-Mead').x
    return b,np.exp(s),np.exp(s0)

def judged(rows):
    "The rows with forecasts that were fitted to the other targets: gains, and the interval of the family 'logit'"
    kind = np.where(rows.more == rows.labels, 'double', rows.more.astype(str))
    rows,out = rows.assign(kind=kind),[]
    for (target,start),d in rows.groupby(['target','start']):
        o = rows[(rows.target != target) & (rows.start == start)]
        d,x = d.copy(),np.log1p(d.more/d.labels)
        for f,(g,inverse,_) in families.items():
            b,s,s0 = fitted(o, f)
            z = d[f'level_{f}'] + shift(o, f)
            d[f] = inverse(z + b*x) - inverse(z)
            if f == 'logit':
                d['said'] = inverse(z)
                rng,draws = np.random.default_rng(0),[]
                for zi,ni,xi in zip(z, d.labels, x):
                    zs = zi + rng.standard_normal(4000)/np.sqrt(ni*expit(zi)*expit(-zi) + .5)
                    up = b*xi + np.sqrt((s*xi)**2 + s0**2)*rng.standard_normal(4000)
                    draws.append(np.quantile(expit(zs + up) - expit(zs), (.1, .9)))
                d['low'],d['high'] = np.array(draws).T
                own = d.own_slope.fillna(b).clip(0)
                d['own'] = expit(z + own*x) - expit(z)
        same = [o[(o.per_class == r.per_class) & (o.kind == r.kind)] for r in d.itertuples()]
        d['average'] = [(s.then - s.now).mean() for s in same]
        out.append(d)
    return pd.concat(out)

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('--store', default=None)
    ap.add_argument('--targets', nargs='+', default=targets)
    ap.add_argument('--starts', nargs='+', default=['even','random','chosen'])
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'benchmarks'/'forecast_eight.csv')
    a = ap.parse_args()
    rows = pd.read_csv(a.out) if a.out.exists() else pd.DataFrame(columns=['target','start'])
    for target in a.targets:
        for start in a.starts:
            if ((rows.target == target) & (rows.start == start)).any(): continue
            new = pd.DataFrame(cells(a.data, target, start, a.store))
            print(target, start, len(new), flush=True)
            rows = pd.concat([rows, new], ignore_index=True)
            rows.round(4).to_csv(a.out, index=False)
    rows = judged(rows)
    rows.round(4).to_csv(a.out, index=False)
    for start,d in rows.groupby('start'):
        for f in families: print(start, f, *np.round([*fitted(d, f), shift(d, f)], 2))
