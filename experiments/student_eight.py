"""What makes a student keep more of what its teachers know? `python experiments/student_eight.py DATA OUT.csv --store FOLDER --kind KIND`

Five labels a class; the rest of the training images is the pool. The student is the first four stages of EfficientNet-Lite0 on 64 px
from ImageNet weights, taught at the suggested rate by the five models of DATA (`--teacher joint`, the default of `distill_learner`, or
`probes`), and tried on the test images. Three kinds of run, from dear to cheap:

- `whole`: the student as `distill_learner` trains it, 200 steps of 16 labelled and 32 pool images (`--only NAME@600`: 600 steps)
- `upper`: its first three groups of blocks frozen, their outputs for one sequence of augmented batches computed once for all variants
- `head`: nothing trained but a linear head, in closed form, on the features of the start

A variant is a row of `variants`: what it changes, all else equal, seeds included. `pool` is the accuracy on the pool's images without a
label. Runs that are in OUT.csv are not made again."""
import argparse, sys, time, warnings
warnings.simplefilter('ignore')
from functools import lru_cache
from pathlib import Path
import numpy as np, pandas as pd
from fastai.vision.all import *
from fastai.callback.channelslast import ChannelsLast
from distill_nb.callbacks import EMA
from distill_nb.compare import NoValidation
from distill_nb.estimators.probes import fit_probe
from distill_nb.data import few_labels, image_dls
from distill_nb.distill import Distill
from distill_nb.fixmatch import strong_augment
from distill_nb.images import ImageView, open_image
from distill_nb.items import get_images
from distill_nb.joint import joint_labels
from distill_nb.learner import student_learner
from distill_nb.packs import load_pack
from distill_nb.recipe import CheckFit
from distill_nb.similarity import rank_sources
from distill_nb.teachers import HintTeacher, SeveralTeachers, TargetTeacher, feature_hints, probe_labels
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

# what the student sees of a batch of the pool, and is taught of it: (images in [0,1], probabilities) -> the same

def mixup(x, p, alpha=.2):
    w = torch.distributions.Beta(alpha, alpha).sample((len(x),))
    w,other = torch.max(w, 1-w),torch.randperm(len(x))
    return torch.lerp(x[other], x, w[:,None,None,None]),torch.lerp(p[other], p, w[:,None])

def cutmix(x, p, alpha=1.):
    w,other = float(torch.distributions.Beta(alpha, alpha).sample()),torch.randperm(len(x))
    h,side = x.shape[-1],int(x.shape[-1]*(1-w)**.5)
    top,left = (int(torch.randint(h-side+1, ())) for _ in range(2))
    x,share = x.clone(),side**2/h**2
    x[...,top:top+side,left:left+side] = x[other][...,top:top+side,left:left+side]
    return x,torch.lerp(p, p[other], share)

def strong(x, p): return strong_augment(x, magnitude=.5, cutout=.3),p

def crop(x, p, least=.35):
    n = len(x)
    side = torch.empty(n).uniform_(least, 1).sqrt()
    shift = (torch.rand(n, 2)*2 - 1)*(1-side)[:,None]
    mat = torch.cat([torch.diag_embed(side[:,None].expand(n, 2)), shift[...,None]], 2)
    return F.grid_sample(x, F.affine_grid(mat, x.shape, align_corners=False), align_corners=False, padding_mode='reflection'),p

class Altered(Distill):
    "`Distill` of `TargetTeacher`'s probabilities, on images that `alter` has changed, which may change the probabilities too"
    alter = None
    def views(self, x):
        mean,std = (o.as_subclass(Tensor) for o in (self.norm.mean,self.norm.std))
        x,self.probs = self.alter((x.as_subclass(Tensor)*std + mean).clamp(0, 1), self.teacher.probs[self.batch[1].as_subclass(Tensor)])
        return [(x-mean)/std]

    def pool_loss(self, x, idx): return F.cross_entropy(self.pool_logits.float(), self.probs)

class OtherHead(TargetTeacher):
    "Teaches a head of its own, which starts as the target head (after DHO, 2025)"
    @property
    def width(self): return self.probs.shape[1]
    def loss(self, student, features, z, x, idx): return F.cross_entropy(z.float(), self.probs[idx].float())

class HintsFirst(Callback):
    "The sources' features alone in the first `share` of a fit, probabilities alone after it"
    order = 4
    def __init__(self, weight, share=.4): self.weight,self.share = weight,share
    def before_batch(self):
        first = self.learn.pct_train < self.share
        self.learn.distill.teacher.weights = [0. if first else 1., self.weight if first else 0.]

def soft_probe(f, probs, C=.1):
    "(weight [C,d], bias [C]) of softmax regression of features on probabilities, penalised as in `fit_probe`"
    f,probs = f.double(),probs.double()
    middle,spread = f.mean(0),f.var(0, correction=0)
    scale = (spread + spread.mean()).rsqrt()
    z = (f-middle)*scale
    w,b = (torch.zeros(*o, probs.shape[1], dtype=z.dtype, requires_grad=True) for o in ((z.shape[1],), ()))
    opt = torch.optim.LBFGS([w, b], max_iter=150, line_search_fn='strong_wolfe')
    def loss():
        opt.zero_grad()
        l = C*F.cross_entropy(z@w + b, probs, reduction='sum') + w.square().sum()/2
        l.backward()
        return l
    opt.step(loss)
    weight = scale[:,None]*w.detach()
    return weight.T.float(),(b.detach() - middle@weight).float()

def sharper(probs, power):
    "Probabilities to a power, normalised: 2 is a temperature of a half"
    probs = probs**power
    return probs/probs.sum(1, keepdim=True)

def pixels(images): return tensor(np.asarray(images)).permute(0, 3, 1, 2)

def through(f, learn, images):
    "`f` of images uint8 [n,64,64,3], normalised for `learn` but not augmented"
    norm = learn.dls.train.after_batch.fs.filter(risinstance(Normalize))[0]
    with torch.no_grad(): return torch.cat([f(norm(TensorImage(o.float()/255)).as_subclass(Tensor)) for o in pixels(images).split(64)])

class Bench:
    "The targets, and what the sources say of them"
    def __init__(self, data, store, teacher='joint'):
        self.data,self.store,self.teacher,self.zoo = data,store,teacher,Zoo.checkpoints(data/'weights', size=128)

    @lru_cache(2)
    def pack(self, target): return load_pack(self.data/'targets'/f'{target}.npz')

    @lru_cache(2)
    def small(self, target, part, view=None):
        "Images at the student's size, uint8 [n,64,64,3]"
        resize = Resize(64)
        images = getattr(self.pack(target), part)[0]
        return np.stack([np.asarray(resize(open_image(ImageView(o, view) if view else o))) for o in images])

    def truth(self, target, part): return tensor(np.asarray(getattr(self.pack(target), part)[1])).long()

    def dls(self, x, few, target, size=64, bs=16, **kwargs):
        pack = self.pack(target)
        y,truth = np.asarray(pack.train[1]),np.asarray(pack.test[1])
        valid = self.small(target, 'test') if size is None else pack.test[0]
        return image_dls(x, y[few], valid, truth, vocab=list(pack.classes), size=size, bs=bs, **kwargs)

    @lru_cache(64)
    def teaching(self, target, seed, T, p, views):
        "(few, positions of the pool in the training images, probabilities of the pool and its views, sources)"
        pack = self.pack(target)
        few,rest = few_labels(np.asarray(pack.train[1]), n=5, seed=seed)
        order = np.concatenate([rest, few])
        dls,images = self.dls(pack.train[0][few], few, target),get_images(pack.train[0])[order]
        sources = rank_sources(dls, self.zoo, times=0, store=self.store, progress=False).choose(p)
        looks = images + L(ImageView(o, v) for v in views for o in images)
        own = dict(T=T, store=self.store, progress=False)
        if self.teacher == 'joint': probs = joint_labels(sources, sources.alpha, dls, images[:len(rest)], looks, **own)
        else: probs = probe_labels(sources, sources.alpha, dls, looks, **own)
        return few,order,probs,sources

    def hints(self, target, seed, k=64):
        _,order,_,sources = self.teaching(target, seed, 1., 4., ())
        return feature_hints(sources, sources.alpha, get_images(self.pack(target).train[0])[order], k, store=self.store, progress=False)

def percent(hits): return round(100*float(hits.float().mean()), 2)

def student(bench, target, seed, few, bs=16, steps=40, tfms=None, **kwargs):
    "A Learner of the student, its head a probe on the labelled images"
    tfms = aug_transforms(**{**dict(max_rotate=10, max_warp=.1, size=None), **(tfms or {})})
    dls = bench.dls(list(bench.small(target, 'train')[few]), few, target, size=None, bs=bs, batch_tfms=tfms, cache=False)
    learn = student_learner(dls, start=bench.zoo['imagenet_lite0'], stages=4, metrics=accuracy, epoch_len=min(40, steps)*bs,
                            cache=False, probe_head=True, **kwargs)
    learn.remove_cbs(learn.cbs.filter(risinstance(CheckFit)))
    return learn

def whole(bench, target, seed, steps, lam=.5, T=1., p=4., bs=16, bs_u=32, views=(), alter=None, head=None, heads=1, hints=None, share=.4,
          ema=None, lr=None, smooth=0., tfms=None, true=False, sharp=1.):
    "Train the student; a row"
    few,order,probs,_ = bench.teaching(target, seed, T, p, tuple(views))
    x,y = bench.small(target, 'train'),bench.truth(target, 'train')[order]
    pool = np.concatenate([x[order], *[bench.small(target, 'train', v)[order] for v in views]])
    probs = F.one_hot(y, probs.shape[1]).float() if true else sharper(probs, sharp)
    with no_random(seed):
        teacher = (OtherHead if heads == 2 else TargetTeacher)(probs)
        cbs = [ChannelsLast(), EMA(ema) if ema else None]
        if hints:
            teacher = SeveralTeachers([teacher, HintTeacher(bench.hints(target, seed))], [1., hints])
            cbs.append(HintsFirst(hints, share) if share else None)
        distill = (Altered if alter else Distill)(list(pool), teacher, lam, bs_u)
        if alter: distill.alter = alter
        loss = CrossEntropyLossFlat(label_smoothing=smooth)
        learn = student(bench, target, seed, few, bs, steps, tfms, lr=lr, loss_func=loss, cbs=L(distill, *cbs).filter())
        m,res = learn.model,{}
        if head == 'pool': set_head(m.head, soft_probe(through(m.eval().backbone, learn, x[order]), probs[:len(order)]))
        if heads == 2: m.source_heads.load_state_dict(m.head.state_dict())
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(max(1, steps//40), cbs=NoValidation())
            if heads == 2: res = mix_heads(m.head, m.source_heads, lambda: round(100*learn.validate()[1], 2))
            loss,right = learn.validate()
        answers = through(m.eval(), learn, x[order[:-len(few)]]).argmax(1)
    return dict(accuracy=round(100*right, 2), pool=percent(answers == y[:len(answers)]), loss=round(loss, 4), **res)

def set_head(head, probe):
    with torch.no_grad():
        for o,new in zip((head.weight,head.bias), probe): o.copy_(new)

def mix_heads(head, other, score):
    "Leave the mean of two heads in `head`; the score of each"
    label = deepcopy(head.state_dict())
    res = dict(label=score())
    head.load_state_dict(other.state_dict())
    res['other'] = score()
    head.load_state_dict({k: (label[k] + v)/2 for k,v in other.state_dict().items()})
    return res

@lru_cache(1)
def lower_outputs(bench, target, seed, steps):
    "(Learner, the lower blocks' outputs for each step [56,40,8,8], positions of its 16 labelled and 40 pool images, outputs of pool, test)"
    few,order,_,_ = bench.teaching(target, seed, 1., 4., ())
    x,rng = bench.small(target, 'train'),np.random.default_rng(seed)
    with no_random(seed):
        learn = student(bench, target, seed, few)
        body = learn.model.eval().to(memory_format=torch.channels_last).backbone
        lower = nn.Sequential(body.conv_stem, body.bn1, *body.blocks[:3])
        draws = [np.concatenate([rng.permutation(n) for _ in range(-(-k*steps//n))])[:k*steps].reshape(steps, k)
                 for n,k in ((len(few),16),(len(order),40))]
        tfms,res = learn.dls.train.after_batch,[]
        tfms.split_idx = 0
        for labeled,unlabeled in zip(*draws):
            batch = tfms(TensorImage(pixels(x[np.concatenate([few[labeled], order[unlabeled]])]))).as_subclass(Tensor)
            with torch.no_grad(): res.append(lower(batch.contiguous(memory_format=torch.channels_last)).half())
    return learn,res,draws,through(lower, learn, x[order]),through(lower, learn, bench.small(target, 'test'))

def one_cycle(opt, lr, t):
    "fastai's schedule of rate and momentum at the share `t` of the steps"
    def cos(a, b, t): return a + (b-a)*(1 - math.cos(math.pi*t))/2
    rate,mom = (cos(lr/25, lr, 4*t),cos(.95, .85, 4*t)) if t < .25 else (cos(lr, lr/1e5, (t-.25)/.75),cos(.85, .95, (t-.25)/.75))
    for g in opt.param_groups: g.update(lr=rate, betas=(mom,.99))

def upper(bench, target, seed, steps, lam=.5, sharp=1., bs=16, bs_u=32, head=None, heads=1, hints=0., share=.4, true=False):
    "Train the upper blocks and the head; a row"
    few,order,probs,_ = bench.teaching(target, seed, 1., 4., ())
    learn,batches,draws,pool,test = lower_outputs(bench, target, seed, steps)
    y = bench.truth(target, 'train')
    probs = F.one_hot(y[order], probs.shape[1]).float() if true else sharper(probs, sharp)
    m = nn.ModuleDict(dict(blocks=deepcopy(learn.model.backbone.blocks[3:]), head=deepcopy(learn.model.head))).eval()
    def features(z): return m.blocks(z).mean((2, 3))
    if head == 'pool':
        with torch.no_grad(): set_head(m.head, soft_probe(features(pool), probs))
    torch.manual_seed(seed)
    if heads == 2: m['other'] = deepcopy(m.head)
    if hints:
        goal = bench.hints(target, seed).float()
        spread,m['hint'] = goal.square().mean(0).sqrt(),nn.Linear(m.head.in_features, goal.shape[1])
        for o in m.hint.parameters(): nn.init.zeros_(o)
    groups = [dict(params=[o for o in m.parameters() if (o.ndim > 1) == big], weight_decay=.01*big) for big in (True,False)]
    opt = torch.optim.AdamW(groups, eps=1e-5, fused=True)
    for s,(z,labeled,unlabeled) in enumerate(zip(batches, *draws)):
        one_cycle(opt, learn.lr, s/steps)
        f = features(torch.cat([z[:bs], z[16:16+bs_u]]).float().contiguous(memory_format=torch.channels_last))
        idx = unlabeled[:bs_u]
        loss = F.cross_entropy(m.head(f[:bs]), y[few[labeled[:bs]]])
        if hints and s < share*steps: of_pool = hints*(goal[idx] - spread*m.hint(f[bs:])).square().sum(1).mean()
        else: of_pool = F.cross_entropy(m['other' if heads == 2 else 'head'](f[bs:]), probs[idx])
        opt.zero_grad()
        (lam*loss + (1-lam)*of_pool).backward()
        opt.step()
    truth,res = bench.truth(target, 'test'),{}
    with torch.no_grad(): f,g = features(test),features(pool[:-len(few)])
    if heads == 2: res = mix_heads(m.head, m.other, lambda: percent(m.head(f).argmax(1) == truth))
    with torch.no_grad(): z,on_pool = m.head(f),m.head(g).argmax(1)
    return dict(accuracy=percent(z.argmax(1) == truth), pool=percent(on_pool == y[order[:-len(few)]]),
                loss=round(float(F.cross_entropy(z, truth)), 4), **res)

def head(bench, target, seed, steps, sharp=1., head='labels', true=False):
    "A linear head on the features of the start; a row"
    few,order,probs,_ = bench.teaching(target, seed, 1., 4., ())
    y,truth = bench.truth(target, 'train'),bench.truth(target, 'test')
    x = bench.small(target, 'train')
    with no_random(seed): learn = student(bench, target, seed, few)
    f,test = (through(learn.model.eval().backbone, learn, o) for o in (x[order], bench.small(target, 'test')))
    probs = F.one_hot(y[order], probs.shape[1]).float() if true else sharper(probs, sharp)
    w,b = (o.float() for o in fit_probe(f[-len(few):], y[few])) if head == 'labels' else soft_probe(f, probs)
    if head == 'labels': w = w.T
    z,on_pool = test@w.T + b,(f[:-len(few)]@w.T + b).argmax(1)
    return dict(accuracy=percent(z.argmax(1) == truth), pool=percent(on_pool == y[order[:-len(few)]]),
                loss=round(float(F.cross_entropy(z, truth)), 4))

def teacher(bench, target, seed, steps):
    "The pseudo-labels themselves: accuracy on the pool, mean confidence, and the log loss by power"
    few,order,probs,_ = bench.teaching(target, seed, 1., 4., ())
    y,p = bench.truth(target, 'train')[order[:-len(few)]],probs[:-len(few)]
    loss = {f'loss{k}': round(float(F.nll_loss(sharper(p, k).log(), y)), 4) for k in (1,1.5,2,3,4)}
    return dict(pool=percent(p.argmax(1) == y), confidence=round(100*float(p.max(1)[0].mean()), 2), **loss)

plain = dict(max_rotate=0, max_warp=0., max_zoom=1., max_lighting=0.)
variants = {
    'base': {},
    'pool_head': dict(head='pool'),
    'lam.2': dict(lam=.2), 'lam.35': dict(lam=.35),
    '8+40': dict(bs=8, bs_u=40), '8+40,lam.2': dict(bs=8, bs_u=40, lam=.2),
    'sharp2': dict(sharp=2.), 'sharp3': dict(sharp=3.), 'sharp2,lam.2': dict(sharp=2., lam=.2),
    'pool_head,sharp2,8+40,lam.2': dict(head='pool', sharp=2., bs=8, bs_u=40, lam=.2),
    'sharp2,8+40,lam.2': dict(sharp=2., bs=8, bs_u=40, lam=.2),
    'T.5': dict(T=.5), 'T.7': dict(T=.7), 'T2': dict(T=2.),
    'two_heads': dict(heads=2), 'two_heads,lam.2': dict(heads=2, lam=.2),
    'mixup.2': dict(alter=mixup), 'mixup1': dict(alter=partial(mixup, alpha=1.)), 'cutmix1': dict(alter=cutmix),
    'crop': dict(alter=crop), 'strong': dict(alter=strong), 'flips': dict(tfms=plain),
    'crops2': dict(views=('crop0','crop1')), 'crops4': dict(views=('crop0','crop1','crop2','crop3')),
    'hints_first.3': dict(hints=.3), 'hints_first1': dict(hints=1.), 'hints_first3': dict(hints=3.), 'hints1': dict(hints=1., share=0),
    'ema.99': dict(ema=.99), 'smooth.1': dict(smooth=.1),
    'lr1e-3': dict(lr=1e-3), 'lr3e-3': dict(lr=3e-3),
    'pool_head,lam.2': dict(head='pool', lam=.2), 'pool_head,8+40,lam.2': dict(head='pool', bs=8, bs_u=40, lam=.2),
    'true_labels': dict(true=True), 'pool_head,true_labels': dict(head='pool', true=True), 'pool_head,sharp2': dict(head='pool', sharp=2.),
    'lam.1': dict(lam=.1), 'sharp2,lam.1': dict(sharp=2., lam=.1), 'sharp3,lam.1': dict(sharp=3., lam=.1),
    'sharp2,lam.2,hints_first1': dict(sharp=2., lam=.2, hints=1.),
}

by_kind = dict(whole=whole, upper=upper, head=head, teacher=teacher)

def table(rows, reference='base'):
    "Mean over targets and seeds, and the paired difference to `reference` of the same teacher, kind and steps, in points"
    res = []
    for (teacher,kind,steps,v),g in rows[rows.kind != 'teacher'].groupby(['teacher','kind','steps','variant'], sort=False):
        alike = (rows.teacher == teacher) & (rows.kind == kind) & (rows.steps == steps)
        ref = rows[alike & (rows.variant == reference)].set_index(['target','seed'])
        d = (g.set_index(['target','seed'])[['accuracy','pool','loss']] - ref[['accuracy','pool','loss']]).dropna(how='all')
        res.append(dict(teacher=teacher, kind=kind, steps=steps, variant=v, runs=len(d), mean=g.accuracy.mean(),
                        gap=d.accuracy.mean(), sem=d.accuracy.sem(),
                        pool=d['pool'].mean(), loss=d.loss.mean(), **d.accuracy.groupby('target').mean().round(1)))
    return pd.DataFrame(res).round(2)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    ap.add_argument('--teacher', default='joint', choices=('joint','probes'))
    ap.add_argument('--kind', default='whole', choices=list(by_kind))
    ap.add_argument('--only', nargs='+', default=list(variants), help='variants, such as lam.2, or lam.2@600 for 600 steps')
    ap.add_argument('--targets', nargs='+', default=['birds','textures','aerial','pets'])
    ap.add_argument('--seeds', nargs='+', type=int, default=[0])
    a = ap.parse_args()
    torch.set_num_threads(1)
    bench = Bench(a.data, a.store, a.teacher)
    rows = pd.read_csv(a.out).to_dict('records') if a.out.exists() else []
    keys = ['kind','target','variant','seed','steps','teacher']
    done = {tuple(r[k] for k in keys) for r in rows}
    steps_of = {n: int(n.partition('@')[2] or (200 if a.kind in ('whole','upper') else 0)) for n in a.only}
    for seed,target,name in ((s, t, n) for s in a.seeds for t in a.targets for n in a.only):
        key = a.kind,target,name.partition('@')[0],seed,steps_of[name],a.teacher
        if key in done: continue
        began = time.perf_counter()
        row = by_kind[a.kind](bench, target, seed, steps_of[name], **variants[key[2]])
        rows.append(dict(zip(keys, key)) | row | dict(seconds=round(time.perf_counter()-began)) | machine())
        print({k: v for k,v in rows[-1].items() if k not in machine()}, flush=True)
        pd.DataFrame(rows).to_csv(a.out, index=False)
    print(table(pd.DataFrame(rows)).to_string())
