"""Which weights protect from spoilt sources? `python experiments/spoilt_eight.py DATA OUT.csv --store STORE --spoilt FOLDER`

The teacher on eight targets is the mean of linear probes on the sources' features, weighted by each rule of `rules`, with five labels a
class (fewer where a class has fewer) and a fifth of the labels. Measured on the pool, the training images without a label, and on the test
images: accuracy, and the negative log-likelihood on the pool; means of three draws. `spoilt` is the share of weight of useless sources.

The sets of sources (`sets`): the five models of DATA alone; with three copies of the worst or of the median one, or with two near copies
of the worst (at 96 px, and there mirrored); with five useless ones (random weights twice, pixels from 0 to 255 where the network
wants -1 to 1, a small network trained from scratch on traffic signs, the features of a good model assigned to the wrong images); one or two
good models with these five; two of the five; the five with the eight small networks that come with the package (`thirteen`); and, where
FOLDER has their features, with two networks trained from scratch on Tiny-ImageNet (`diverse`; not run).

Rules that begin with `joint` weigh the features of a joint teacher (`distill_nb.joint`) in place of probes.

    --joint                the rows of these, for some sets (some minutes)
    --outputs [NAME ...]   only compute the features of spoilt sources, about ten minutes on one core, kept in FOLDER

One thread; what is in OUT.csv is not made again. An hour on a third of a core."""
import argparse, sys, time, warnings
warnings.simplefilter('ignore')
from functools import lru_cache, partial
from pathlib import Path
import numpy as np, pandas as pd, timm, torch
import torch.nn.functional as F
from PIL import ImageOps
from safetensors.torch import load_file, save_file
from scipy.optimize import nnls
from scipy.special import softmax
from fastai.vision.all import CrossEntropyLossFlat, Learner, Normalize, accuracy, aug_transforms, set_seed
from distill_nb.data import few_labels
from distill_nb.estimators.evidence import logme
from distill_nb.estimators.kernels import cka
from distill_nb.estimators.pairs import parc
from distill_nb.estimators.probes import fit_probe
from distill_nb.folds import held_out_folds
from distill_nb.images import open_image
from distill_nb.joint import fit_ridge, learn_from_pool, source_axes
from distill_nb.outputs import get_outputs
from distill_nb.packs import load_pack, pack_dls
from distill_nb.sources import Source
from distill_nb.weights import effective_sources, share_weights, source_weights
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']
half = dict(mean=.5, std=.5)

def untrained(arch, **kwargs):
    "A network with random weights, the same ones each time"
    torch.manual_seed(0)
    return timm.create_model(arch, **kwargs)

scratch = {'small_signs': ('resnet10t', {}, 'gtsrb43', 4), 'resnet18_tiny': ('resnet18', {}, 'tinyimagenet200', 4),
           'vit_tiny': ('vit_tiny_patch16_224', dict(img_size=64, patch_size=8, depth=6), 'tinyimagenet200', 6)}

def from_scratch(data, folder, name):
    "A network trained from random weights on 64 px images of a source task, once"
    arch,kwargs,task,epochs = scratch[name]
    pack,path = load_pack(data/'sources'/f'{task}.npz'),folder/f'{name}.safetensors'
    model = untrained(arch, num_classes=len(pack.classes), **kwargs)
    if path.exists(): model.load_state_dict(load_file(path))
    else:
        began = time.perf_counter()
        set_seed(0, reproducible=True)
        tfms = [*aug_transforms(max_rotate=5, max_warp=0, do_flip=task!='gtsrb43'), Normalize.from_stats([.5]*3, [.5]*3)]
        dls,_ = pack_dls(pack, size=64, bs=64, batch_tfms=tfms)
        learn = Learner(dls, model.to(memory_format=torch.channels_last), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
        with learn.no_bar(): learn.fit_one_cycle(epochs, 1e-3 if 'vit' in arch else 3e-3)
        save_file({k: v.contiguous() for k,v in model.state_dict().items()}, path)
        print(name, learn.recorder.values[-1], f'{time.perf_counter()-began:.0f} s', flush=True)
    return Source.from_module(model, **half, size=64, name=name)

def again(source, size=128, **kwargs):
    "The network of a source with another preprocessing"
    return Source.from_module(source.build(), **half | kwargs, size=size, interpolation='bicubic', name=source.name)

def sources(data, folder):
    "name -> function that makes the source; its images are mirrored if the name says so"
    real = Zoo.checkpoints(data/'weights', size=128)
    return {
        'random_mnv2': lambda: Source.from_module(untrained('mobilenetv2_100'), **half, size=96, name='random_mnv2'),
        'random_resnet': lambda: Source.from_module(untrained('resnet18'), **half, size=64, name='random_resnet'),
        'lite0_0_255': lambda: again(real['imagenet_lite0'], 96, mean=0, std=1/255),
        'small_signs': lambda: from_scratch(data, folder, 'small_signs'),
        'insects_mirrored': lambda: again(real['inat_insects'], 96),
        'insects_96': lambda: again(real['inat_insects'], 96),
        'resnet18_tiny': lambda: from_scratch(data, folder, 'resnet18_tiny'),
        'vit_tiny': lambda: from_scratch(data, folder, 'vit_tiny')}

def spoilt(data, folder, name, only=targets):
    "Compute the features of one of `sources` for the images of all targets, and keep them"
    left = [(t,p) for t in only for p in ('train','test') if not (folder/f'{name}_{t}_{p}.npy').exists()]
    source,began = sources(data, folder)[name]() if left else None,time.perf_counter()
    for target,part in left:
        images = getattr(load_pack(data/'targets'/f'{target}.npz'), part)[0]
        if 'mirrored' in name: images = [np.asarray(ImageOps.mirror(open_image(o))) for o in images]
        x = get_outputs(source, images, False, bs=32, progress=False).features.numpy()
        np.save(folder/f'{name}_{target}_{part}.npy', x.astype(np.float16) if np.abs(x).max() < 6e4 else x)
    print(name, f'{time.perf_counter()-began:.0f} s', flush=True)

# what each source says ------------------------------------------------------------------------------------------------------------------

@lru_cache(2)
def target_data(data, store, folder, target):
    "(training labels, test labels, name -> features of training and of test images)"
    pack = load_pack(data/'targets'/f'{target}.npz')
    zoo = Zoo.checkpoints(data/'weights', size=128) + Zoo.embedded()
    res = {s.name: [get_outputs(s, o, store, progress=False).features.numpy() for o in (pack.train[0],pack.test[0])] for s in zoo}
    for p in sorted(folder.glob(f'*_{target}_train.npy')):
        name = p.name.removesuffix(f'_{target}_train.npy')
        res[name] = [np.load(folder/f'{name}_{target}_{o}.npy').astype(np.float32) for o in ('train','test')]
    mixed = np.random.default_rng(0)
    res['misordered'] = [x[mixed.permutation(len(x))] for x in res['imagenet_mnv2']]
    return np.asarray(pack.train[1]).astype(int),np.asarray(pack.test[1]).astype(int),res

def labelled(y, per, seed):
    "(labelled, other) training images"
    return few_labels(y, frac=.2, seed=seed) if per=='fifth' else few_labels(y, n=min(per, int(np.bincount(y).min())), seed=seed)

def probe_answers(x, y, asked, c):
    "Probabilities [n,c] of each set of images in `asked`, by a probe of the labelled ones"
    w,b = fit_probe(x, y)
    res = []
    for z in asked:
        p = np.zeros((len(z), c), np.float32)
        p[:,np.unique(y)] = softmax(z.astype(float)@w.numpy() + b.numpy(), axis=1)
        res.append(p)
    return res

def fold_answers(x, y, c):
    "Held-out probabilities [n,c] by probes of five folds; an image that is alone in its class is asked about at random"
    res = np.full((len(y), c), 1/c, np.float32)
    if np.bincount(y).max() > 1:
        for train,held in held_out_folds(y): res[held] = probe_answers(x[train], y[train], [x[held]], c)[0]
    return res

def ridge_answers(x, y, c):
    "Scores [n,c] of each image by a ridge regression of all others in closed form, its ridge by least squared error"
    y = np.eye(c)[y]
    x = x.astype(float) - x.mean(0)
    u,d,_ = np.linalg.svd(x*np.sqrt(len(x)/max(np.square(x).sum(), 1e-12)), full_matrices=False)
    mean = (y.sum(0) - y)/(len(y)-1)
    def left_out(l):
        g = d*d/(d*d+l)
        return y - (y - (u*g)@(u.T@y) - y.mean(0))/(1 - np.square(u)@g - 1/len(y))[:,None]
    tries = [left_out(l) for l in np.logspace(-3, 3, 25)] + [mean]
    return min(tries, key=lambda s: np.square(s-y).sum()).astype(np.float32)

def quietly(f, *args, **kwargs):
    try: return float(f(*args, **kwargs))
    except ValueError: return 0.

def answers(data, store, folder, target, per, seed, names):
    "name -> all that the rules need of a source, computed once and kept in `folder`"
    res,where = {},folder/'answers'/f'{target}_{per}_{seed}'
    where.mkdir(parents=True, exist_ok=True)
    y,t,features = target_data(data, store, folder, target)
    few,rest = labelled(y, per, seed)
    own,c = y[few],int(y.max())+1
    for name in names:
        (x,z),path = features[name],where/f'{name}.npz'
        if not path.exists():
            began = time.perf_counter()
            pool,test = probe_answers(x[few], own, [x[rest],z], c)
            folds = fold_answers(x[few], own, c)
            mid = time.perf_counter()
            ridge = ridge_answers(x[few], own, c)
            end = time.perf_counter()
            scores = dict(cka=quietly(cka, x[few], own), debiased=quietly(cka, x[few], own, debiased=True), parc=quietly(parc, x[few], own),
                          logme=quietly(logme, x[few], own))
            np.savez(path, pool=pool, test=test, folds=folds, ridge=ridge, seconds=[mid-began, end-mid], **scores)
        with np.load(path) as f: res[name] = {k: f[k].astype(float) for k in f.files}
        res[name]['gram'] = unit_gram(x[few])
    return res,own,y[rest],t,{k: unit_gram(features[k][0][::max(1, len(y)//300)][:300]) for k in names}

def unit_gram(x):
    "Centred inner products of images, of norm 1, as one vector"
    x = x.astype(np.float32) - x.mean(0, dtype=float).astype(np.float32)
    x /= max(np.abs(x).max(), 1e-12)
    k = (x@x.T).ravel()
    return k/max(np.linalg.norm(k), 1e-12)

# weights --------------------------------------------------------------------------------------------------------------------------------

def unit(w):
    "Weights that sum to 1; equal ones if all are 0"
    w = np.maximum(np.nan_to_num(np.asarray(w, float)), 0)
    return w/w.sum() if w.sum() > 0 else np.full(len(w), 1/len(w))

def power(e, p): return unit(np.maximum(e, 0)**p)

def own_log(folds, own): return np.log(np.maximum(folds[:,np.arange(len(own)),own], 1e-6))                 # [S,n]

def mixture(folds, own, prior=1., steps=200):
    "Maximum-likelihood weights of a mixture of the held-out answers, with `prior` times as many images for equal weights"
    like = np.exp(own_log(folds, own))
    w = np.full(len(like), 1/len(like))
    for _ in range(steps):
        r = w[:,None]*like
        w = ((r/r.sum(0)).mean(1) + prior/len(like))/(1 + prior)
    return w

def least_squares(scores, own, shrink):
    "Non-negative weights that sum to 1, of least squared error of the mean of `scores` [S,n,c], drawn towards equal ones"
    s,y = len(scores),np.eye(scores.shape[2])[own]
    x = scores.reshape(s, -1).T
    size = np.sqrt(np.square(x).sum()/s)
    rows = [x, np.sqrt(shrink)*size*np.eye(s), 1e3*size*np.ones((1,s))]
    return unit(nnls(np.concatenate(rows), np.concatenate([y.ravel(), np.sqrt(shrink)*size*np.full(s, 1/s), [1e3*size]]))[0])

def alignf(grams, own):
    "Non-negative combination of the kernels that aligns best with the labels (Cortes et al., JMLR 2012, proposition 9)"
    y = unit_gram(np.eye(own.max()+1)[own])
    m,a = grams@grams.T,grams@y
    l = np.linalg.cholesky(m + 1e-6*np.eye(len(m)))
    return unit(nnls(l.T, np.linalg.solve(l, a))[0])

def greedy(folds, own, steps=20):
    "Forward selection with replacement by held-out log-likelihood (Caruana et al., ICML 2004)"
    like = np.exp(own_log(folds, own))
    total,w = np.zeros(like.shape[1]),np.zeros(len(like))
    for _ in range(steps):
        best = np.log(total + like).mean(1).argmax()
        total,w[best] = total + like[best],w[best] + 1
    return w/steps

def r_squared(ridge, own):
    "Share of the variance of the labels that held-out ridge scores explain"
    y = np.eye(ridge.shape[2])[own]
    return 1 - np.square(ridge-y).sum((1,2))/np.square(y - (y.sum(0) - y)/(len(y)-1)).sum()

def rules(a, own, pool):
    "name -> weights [S] of the sources whose `answers` are `a`; `pool`: their Gram matrices of images without a label"
    get = {k: np.stack([o[k] for o in a]) for k in ('cka','debiased','parc','logme','folds','ridge','gram')}
    ll,r2,one = own_log(get['folds'], own).mean(1),r_squared(get['ridge'], own),np.eye(len(a))
    res = {'equal': np.full(len(a), 1/len(a)), 'best by CKA': one[get['cka'].argmax()], 'best by likelihood': one[ll.argmax()]}
    res |= {f'{k}^{p}': power(get[k], p) for k,ps in dict(cka=(1,2,4,8,12), debiased=(2,), parc=(2,4,8)).items() for p in ps}
    res |= {f'R2^{p}': power(r2, p) for p in (1,2)} | {'R2^1, else cka^4': power(r2, 1) if r2.max() > 0 else res['cka^4']}
    res |= {'logme^4': source_weights(get['logme'], 4, 'minmax')}
    res |= {'exp(2 ll)': unit(np.exp(2*(ll - ll.max()))), 'exp(n ll)': unit(np.exp(len(own)*(ll - ll.max())))}
    res |= {f'mixture {k}': mixture(get['folds'], own, k) for k in (0,.5)}
    res |= {f'{n} stack {k}': least_squares(get[o], own, k) for n,o in (('ridge','ridge'),('probe','folds')) for k in (0,1)}
    res |= {'alignf': alignf(get['gram'], own), 'greedy': greedy(get['folds'], own)}
    alike = pool@pool.T
    for q in (4,8,16,32): res[f'cka^4 shared {q}'] = share_weights(res['cka^4'], alike, q)
    return res | {f'{n} shared 16': share_weights(res[n], alike, 16) for n in ('equal','R2^1, else cka^4')}

five = ['inat_birds','inat_insects','imagenet_mnv2','imagenet_lite0','stanford_dogs19']
tiny = ['digits','letters','printed_digits','signs','clothing','textures','objects','animals']
useless = ['random_mnv2','random_resnet','lite0_0_255','small_signs','misordered']
sets = {'five': five, 'useless': five + useless, 'one and useless': ['imagenet_lite0'] + useless,
        'two and useless': ['imagenet_mnv2','imagenet_lite0'] + useless,
        'worst thrice more': five + 3*['inat_insects'], 'median thrice more': five + 3*['imagenet_mnv2'],
        'near copies': five + ['insects_96','insects_mirrored'],
        'thirteen': five + tiny, 'two alike': ['imagenet_mnv2','imagenet_lite0'], 'two apart': ['inat_birds','imagenet_lite0'],
        'diverse': five + ['resnet18_tiny','vit_tiny']}

joint_sets = 'five','useless','one and useless','worst thrice more','median thrice more'

def rows(data, store, folder, target, per, seed, some):
    "A row for each set of sources and each rule"
    said,own,y,t,pool = answers(data, store, folder, target, per, seed, list(dict.fromkeys(o for k in some for o in sets[k])))
    for what,names in ((k, sets[k]) for k in some):
        a = [said[o] for o in names]
        p,q = (np.stack([o[k] for o in a]) for k in ('pool','test'))
        found = rules(a, own, np.stack([pool[o] for o in names]))
        single = (p.argmax(2)==y).mean(1)
        for rule,w in (found | {'best in truth': np.eye(len(a))[single.argmax()]}).items():
            m = np.tensordot(w, p, 1)
            yield dict(target=target, per=per, seed=seed, sources=what, rule=rule, n=len(own), pool=(m.argmax(1)==y).mean(),
                       test=(np.tensordot(w, q, 1).argmax(1)==t).mean(), nll=-np.log(np.maximum(m[np.arange(len(y)),y], 1e-6)).mean(),
                       effective=effective_sources(w), spoilt=sum(v for v,o in zip(w, names) if o in useless))

def joint_rows(data, store, folder, target, per, seed):
    "Rows of joint teachers, for the weights and sets that matter to them"
    y,t,features = target_data(data, store, folder, target)
    few,rest = labelled(y, per, seed)
    own,names = y[few],list(dict.fromkeys(o for k in joint_sets for o in sets[k]))
    x = {k: [F.normalize(torch.tensor(o).float()) for o in features[k]] for k in names}
    axes = {k: source_axes(x[k][0]) for k in names}
    z = {k: [(o-axes[k][0])@axes[k][1] for o in x[k]] for k in names}
    pool = {k: unit_gram(features[k][0][::max(1, len(y)//300)][:300]) for k in names}
    for what in joint_sets:
        cka4 = source_weights([max(quietly(cka, features[k][0][few], own), 1e-6) for k in sets[what]])
        alike = np.stack([pool[o] for o in sets[what]])
        alike = alike@alike.T
        for rule,w in {'equal': np.full(len(cka4), 1/len(cka4)), 'cka^4': cka4, 'cka^4 shared 16': share_weights(cka4, alike, 16)}.items():
            train,test = (torch.cat([float(a)**.5*z[k][i] for k,a in zip(sets[what], w)], 1) for i in (0,1))
            ridge = fit_ridge(train[few], own)
            learnt = ridge,learn_from_pool(train[few], own, train[rest], *ridge)
            p,q = (sum((o@v + b).softmax(1) for v,b in learnt).numpy()/2 for o in (train[rest],test))
            yield dict(target=target, per=per, seed=seed, sources=what, rule=f'joint: {rule}', n=len(own),
                       pool=(p.argmax(1)==y[rest]).mean(), test=(q.argmax(1)==t).mean(),
                       nll=-np.log(np.maximum(p[np.arange(len(rest)),y[rest]], 1e-6)).mean(),
                       effective=effective_sources(w), spoilt=sum(v for v,o in zip(w, sets[what]) if o in useless))

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    ap.add_argument('--spoilt', type=Path, required=True, help='folder for what is computed of spoilt sources')
    ap.add_argument('--outputs', nargs='*', help='only compute the features of these (by default of all)')
    ap.add_argument('--joint', action='store_true', help='make the rows of joint teachers')
    ap.add_argument('--sets', nargs='+', default=[k for k in sets if k!='diverse'], choices=list(sets))
    ap.add_argument('--only', nargs='+', default=targets, choices=targets)
    a = ap.parse_args()
    torch.set_num_threads(1)
    a.spoilt.mkdir(parents=True, exist_ok=True)
    if a.outputs is not None:
        for o in a.outputs or sources(a.data, a.spoilt): spoilt(a.data, a.spoilt, o, a.only)
        sys.exit()
    found = pd.read_csv(a.out).to_dict('records') if a.out.exists() else []
    keys = ['target','per','sources']
    done = {tuple(str(r[k]) for k in keys) for r in found if r['rule'].startswith('joint') == a.joint}
    for target,per in ((t, p) for t in a.only for p in (5,'fifth')):
        left = [o for o in (joint_sets if a.joint else a.sets) if (target,str(per),o) not in done]
        if not left: continue
        make = joint_rows if a.joint else partial(rows, some=left)
        new = pd.DataFrame([r for s in range(3) for r in make(a.data, a.store, a.spoilt, target, per, s)])
        new = new.groupby([*keys,'rule'], sort=False).mean(numeric_only=True).drop(columns='seed').reset_index()
        found += new.assign(draws=3, **machine()).to_dict('records')
        print(target, per, flush=True)
        pd.DataFrame(found).round(4).to_csv(a.out, index=False)
