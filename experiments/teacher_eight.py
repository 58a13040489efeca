"""Which teacher is right most often? Pseudo-labels of a pool and of test images, many ways:
`python experiments/teacher_eight.py DATA OUT.csv --store STORE [--targets ...]`

Five labels a class or a fifth of the labels (`few_labels`), or five labels a class in number, drawn as they come
(`random`; a class that is
missed gets one). The rest of the training images is the pool, the five models of DATA are the sources. `pool` and
`test` are accuracies,
`pool_fit` and `test_fit` mean log-probabilities of the true classes (those below 1e-4 count as that).

- `probes`: mean of the sources' linear probes (`fit_probe`, C=.1), weighted by CKA^4; `probes, equal`: all alike;
  `probes, unit`: on features
  of length one.
- `ridge`: `fit_ridge` on joint features, that is `Joint(steps=0)`; `ridge, left-out`: penalty and temperature by
  leave-one-out likelihood of
  the labels; `ridge, raw`: on features as they are.
- `pool`: `learn_from_pool` with `ridge` as its prior; `joint`: the mean of both, the default; `joint, k=32` and so
  on: other options.
- `no prior`: expectation maximisation that begins from `ridge` and then goes its own way; `even shares`: all classes
  as frequent as each other;
  `whole likelihood`: without the root.
- `pool from probes`: `learn_from_pool` with the mean of the probes as its prior (of each image, so that it is not a
  linear classifier).
- `graph` and `joint, graph`: `ridge` and `joint` spread over the graph of 8 nearest neighbours in the joint space
  (Zhou et al. 2003).

One thread. Targets and draws that are in OUT.csv are not computed again. Names of source tasks of DATA are targets,
too: 500 of their images,
of the most frequent classes."""
import argparse, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from distill_nb.data import few_labels
from distill_nb.estimators.kernels import cka
from distill_nb.estimators.probes import fit_probe
from distill_nb.joint import fit_ridge, gaussian_logits, learn_from_pool, source_axes
from distill_nb.outputs import get_features
from distill_nb.packs import load_pack
from distill_nb.weights import source_weights
from distill_nb.zoo import Zoo

targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']
tasks = dict(pacs_art_painting=7, caltech101=30, dogs6=6, gtsrb43=20) # classes of the source tasks that are tried
starts = {'5': dict(n=5), '0.2': dict(frac=.2), 'random': {}}

def some_of(images, y, classes, n, rng):
    "`n` images of `classes`, and their codes"
    i = np.sort(rng.permutation(np.flatnonzero(np.isin(y, classes)))[:n])
    return [images[int(j)] for j in i],np.searchsorted(classes, y[i])

def target_images(data, name):
    "(training images, classes), (test images, classes)"
    kind = 'targets' if name in targets else 'sources'
    pack = load_pack(data/kind/f'{name}.npz')
    (x,y),(tx,ty) = pack.train,pack.test
    y,ty = np.asarray(y),np.asarray(ty)
    if name in targets: return (x,y),(tx,ty)
    rng = np.random.default_rng(0)
    classes = np.sort(np.argsort(-np.bincount(y), kind='stable')[:tasks[name]])
    return some_of(x, y, classes, 500, rng),some_of(tx, ty, classes, 200, rng)

def drawn(y, start, seed):
    "(labelled, pool): positions"
    if start != 'random': return few_labels(y, **starts[start], seed=seed)
    rng,c = np.random.default_rng(seed),int(y.max())+1
    few = rng.permutation(len(y))[:5*c]
    few = np.unique([*few, *(rng.choice(np.flatnonzero(y == k)) for k in range(c) if k not in y[few])])
    return few,np.setdiff1d(np.arange(len(y)), few)

def probed(x, y, few, test, alpha):
    "Weighted mean of the sources' probes [n,C]: training images, test images"
    res = 0,0
    for a,x,t in zip(alpha, x, test):
        w,b = fit_probe(x[few], y[few])
        res = [r + a*(o.double()@w + b).softmax(1).float() for r,o in zip(res, (x,t))]
    return res

def joint(x, test, alpha, k=64):
    "Joint features of training and test images"
    axes = [source_axes(o, a, k) for o,a in zip(x, alpha)]
    return [torch.cat([(o-m)@a for o,(m,a) in zip(xs, axes)], 1) for xs in (x, test)]

def left_out_ridge(z, y):
    "`fit_ridge` with the penalty and factor at which answers to labels that were left out are likeliest"
    y,c = np.asarray(y),int(max(y))+1
    w = torch.tensor(1/np.bincount(y)[y]*len(y)/c).sqrt().float()[:,None]
    one = F.one_hot(torch.tensor(y), c).float()
    u,d,_ = torch.linalg.svd(w*(z - (w**2*z).mean(0)), full_matrices=False)
    known,best = torch.tensor(np.bincount(y)[y] > 1),(np.inf,1.,10.)
    for ridge in np.logspace(-2, 1.5, 15):
        g = d**2/(d**2+ridge)
        share = (w**2*one).mean(0)
        fit = (u*g)@(u.T@(w*(one-share))) + w*share
        out = one - (w*one-fit)/(1 - (u*u*g).sum(1, keepdim=True) - w**2/len(y))/w
        cost = lambda s: F.cross_entropy(out[known]*np.exp(s), torch.tensor(y)[known]).item() # noqa: B023
        if not known.any(): break
        r = minimize_scalar(cost, bounds=(-1, 4), method='bounded')
        if r.fun < best[0]: best = r.fun,ridge,float(np.exp(r.x))
    return fit_ridge(z, y, *best[1:])

def em(few, y, pool, prior, of, hold=True, shares=True, root=.5, steps=10, k=64, weight=.5):
    "Answers for `of`, by a variant of `learn_from_pool` with prior log-probabilities of `pool` and `of`"
    one = F.one_hot(torch.tensor(y)).float()
    second = few.T@few + weight*pool.T@pool
    axes = torch.linalg.eigh(second).eigenvectors[:,-k:]
    few,pool,of,second = few@axes,pool@axes,of@axes,axes.T@second@axes
    p = prior[0].softmax(1)
    for _ in range(steps):
        size = one.sum(0) + weight*p.sum(0)
        w,b = gaussian_logits(size, one.T@few + weight*p.T@pool, second)
        if not shares: b = b - ((size+1)/(size.sum()+len(size))).log()
        p = (root*(pool@w + b) + hold*prior[0]).softmax(1)
    return (root*(of@w + b) + hold*prior[1]).softmax(1)

def spread(z, p, few, y, share=.5, k=8):
    "Answers spread over the graph of nearest neighbours: a fixed point of p -> (1-share) p + share S p (Zhou et al. 2003)"
    s = F.normalize(z)@F.normalize(z).T
    s.fill_diagonal_(-1)
    near = torch.zeros_like(s).scatter_(1, s.topk(k).indices, s.topk(k).values.clamp(min=0)**3)
    near = torch.maximum(near, near.T)
    d = near.sum(1).clamp(min=1e-9).rsqrt()
    start = p.clone()
    start[few] = F.one_hot(torch.tensor(y), p.shape[1]).float()
    res = start
    for _ in range(30): res = (1-share)*start + share*(d[:,None]*near*d)@res
    return res/res.sum(1, keepdim=True)

def answers(x, test, y, few, rest):
    "(way, answers for all training images, answers for test images)"
    code,raw = y[few],(x, test)
    alpha = source_weights([cka(o[few], code) for o in x])
    x,test = [F.normalize(o) for o in x],[F.normalize(o) for o in test]
    probes = probed(*raw[:1], y, few, raw[1], alpha)
    yield 'probes',*probes
    yield 'probes, equal',*probed(raw[0], y, few, raw[1], [1/len(x)]*len(x))
    yield 'probes, unit',*probed(x, y, few, test, alpha)
    ask = lambda z, *wb: [(o@wb[0] + wb[1]).softmax(1) for o in z]
    z = joint(x, test, alpha)
    ridge = fit_ridge(z[0][few], code)
    labels = ask(z, *ridge)
    yield 'ridge',*labels
    yield 'ridge, left-out',*ask(z, *left_out_ridge(z[0][few], code))
    zr = joint(*raw, alpha)
    yield 'ridge, raw',*ask(zr, *fit_ridge(zr[0][few], code))
    learn = lambda z, wb, **kw: ask(z, *learn_from_pool(z[0][few], code, z[0][rest], *wb, **kw))
    mean = lambda a, b: [(i+j)/2 for i,j in zip(a, b)]
    pool = learn(z, ridge)
    yield 'pool',*pool
    both = mean(labels, pool)
    yield 'joint',*both
    for name,kw in {'k=32': dict(k=32), 'k=128': dict(k=128), 'steps=3': dict(steps=3), 'steps=30': dict(steps=30),
                    'weight=.25': dict(weight=.25), 'weight=1': dict(weight=1.)}.items():
        yield f'joint, {name}',*mean(labels, learn(z, ridge, **kw))
    logs = [o.clamp(min=1e-6).log() for o in labels]
    for name,kw in {'no prior': dict(hold=False, root=1.), 'even shares': dict(shares=False), 'whole likelihood': dict(root=1.)}.items():
        yield name,*mean(labels, [em(z[0][few], code, z[0][rest], (logs[0][rest],l), o, **kw) for o,l in zip(z, logs)])
    logs = [o.clamp(min=1e-6).log() for o in probes]
    yield 'pool from probes',*mean(probes, [em(z[0][few], code, z[0][rest], (logs[0][rest],l), o) for o,l in zip(z, logs)])
    yield 'graph',spread(z[0], labels[0], few, code),labels[1]
    yield 'joint, graph',spread(z[0], both[0], few, code),both[1]

def rows(data, zoo, store, target, draws):
    "All rows of a target"
    (images,y),(test,truth) = target_images(data, target)
    x,t = (get_features(zoo, list(o), store, False) for o in (images, test))
    x,t = [o.float() for o in x],[o.float() for o in t]
    for start in starts:
        for seed in range(draws):
            few,rest = drawn(y, start, seed)
            for way,p,q in answers(x, t, y, few, rest):
                p,q = p.numpy()[rest],q.numpy()
                fit = [np.log(o[np.arange(len(l)),l].clip(1e-4)).mean() for o,l in ((p, y[rest]), (q, truth))]
                yield dict(target=target, start=start, seed=seed, way=way, labels=len(few), pool=(p.argmax(1) == y[rest]).mean(),
                           test=(q.argmax(1) == truth).mean(), pool_fit=fit[0], test_fit=fit[1], sure=p.max(1).mean())

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None)
    ap.add_argument('--draws', type=int, default=3)
    ap.add_argument('--targets', nargs='+', default=targets + list(tasks))
    a = ap.parse_args()
    torch.set_num_threads(1)
    zoo = Zoo.checkpoints(a.data/'weights', size=128)
    done = pd.read_csv(a.out) if a.out.exists() else pd.DataFrame(columns=['target'])
    for target in a.targets:
        if (done.target == target).any(): continue
        done = pd.concat([done, pd.DataFrame(rows(a.data, zoo, a.store, target, a.draws))], ignore_index=True)
        done.round(4).to_csv(a.out, index=False)
        d = done[done.target == target].groupby('way')[['pool','test','pool_fit']].mean()
        print(target, *d.loc[['probes','ridge','joint']].round(3).to_numpy().tolist(), flush=True)
