"""What does a distillation step cost beside the student's own? `python benchmarks/step.py [--small] [--device cuda]
[--half]`

Everything is timed in one process, the variants in turn, round after round; `ratio` is the median of the rounds'
ratios, with the least and the most. The floor of a step with looked-up pseudo-labels is the student's plain
supervised step on a batch of as many images; with live teachers it is that plus the teachers' bare forward passes
(channels last, no gradients, ready tensors) on the
images that they see. The optimizer is the default one, `FusedAdam`; two rows have fastai's `Adam`. Images are random
and in memory, weights are random: neither changes the time. Beside ours: fasterai's KnowledgeDistillationCallback
(where
fasterai is installed) and timm's LogitDistillationTask, each with one teacher, which is what they take, and a plain
PyTorch loop over the teachers as people write it.
`--keep` measures with an allocator that keeps what is freed. Writes `benchmarks/step.csv`."""
import argparse, gc, os, sys, time, warnings
from functools import partial
from common import write
warnings.simplefilter('ignore')
import timm
from distill_nb.all import *
from distill_nb.teachers import LiveTeachers, SourceTeacher, StoredTeachers
from distill_nb.distill import Distill
from distill_nb.pseudo_labels import PseudoLabels
from distill_nb.sources import Source

SIZES = [1000]*4 + [555,400,373,200,200,101,100,90,81,43,37,27,19,10] + [7]*5
SIZES += [(8000-sum(SIZES))//5]*4
SIZES += [8000-sum(SIZES)]   # 28 sources, 8,000 classes
assert len(SIZES)==28 and sum(SIZES)==8000

kept_memory = dict(MALLOC_MMAP_THRESHOLD_=str(2**30), MALLOC_TRIM_THRESHOLD_=str(2**32),
                   MALLOC_TOP_PAD_=str(2**28))     # glibc reads them at its start

class Clock(Callback):
    "Seconds from one batch's end to the next's, after `warm` batches"
    order = 1000
    def __init__(self, n, warm=2): self.n,self.warm,self.seconds,self.last = n,warm,[],None
    def after_batch(self):
        if not self.training: return
        if self.dls.device.type=='cuda': torch.cuda.synchronize()
        now = time.perf_counter()
        if self.last is not None and self.iter>=self.warm: self.seconds.append(now-self.last)
        self.last = now
        if len(self.seconds)>=self.n: raise CancelFitException()

def seconds(make, n):
    clock,learn = Clock(n),make()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=clock)
    del learn
    gc.collect()         # a Learner is a circle of references, and would be held for a while
    return clock.seconds

def rounds(makes, n, times):
    "Seconds of a step of each of `makes`, timed in turn: the median of each round, an array"
    return {k: np.array(v) for k,v in zip(makes, zip(*[[np.median(seconds(make, n)) for make in makes.values()] for _ in range(times)]))}

def row(what, t, floor, **kw):
    "A row of the table; `ratio` is the median of the rounds' ratios"
    ratios = t/floor
    return dict(what=what, **kw, seconds=np.median(t), floor=np.median(floor), ratio=np.median(ratios),
                least=ratios.min(), most=ratios.max(), rounds=len(t))

def images(n, px): return np.random.default_rng(0).integers(0, 256, (n,px,px,3), dtype=np.uint8)

def labelled(x, bs, c=10, device=None):
    y = np.arange(len(x))%10
    dls = repeat_dls(image_dls(x, y, x[:10], y[:10], bs=bs, device=device and torch.device(device)), 1000*bs)
    dls.c = c
    return dls

def old_loss(logits, targets, sizes, alpha, T=1.):
    "A cross-entropy for each source, as one would write it"
    losses = [F.cross_entropy(z.float()/T, p) for z,p in zip(logits.split(sizes, 1), targets.split(sizes, 1))]
    return T**2*(torch.stack(losses)*alpha.to(losses[0])).sum()

class OldTeacher(SourceTeacher):
    def loss(self, student, features, z, x, idx): return old_loss(z, self.teachers(x, idx), self.sizes, self.alpha, self.T)

def bare_heads(n, d, device, times):
    "Median seconds of what 28 heads cannot do without: one layer forward and backward, with the loss and the optimizer"
    heads,x = nn.Linear(d, sum(SIZES)).to(device),torch.randn(n, d, device=device, requires_grad=True)
    targets = torch.cat([torch.rand(n, c).softmax(1) for c in SIZES], 1).to(device)
    alpha,opt,got = torch.ones(28, device=device)/28,FusedAdam([list(heads.parameters())], 1e-3),[]
    for _ in range(times+2):
        t = time.perf_counter()
        distill_loss(heads(x), targets, SIZES, alpha).backward()
        opt.step()
        opt.zero_grad()
        if x.is_cuda: torch.cuda.synchronize()
        got.append(time.perf_counter()-t)
    return float(np.median(got[2:]))

def looked_up(arch, px, bs, a, peers=True):
    "Rows for pseudo-labels that are looked up; without `peers`, of 1 and of 28 sources alone"
    x = images(256, px)
    labels = PseudoLabels(torch.rand(len(x), sum(SIZES)).half(), SIZES)
    def made(bs, cbs=None, opt_func=FusedAdam):
        l = student_learner(labelled(x, bs, device=a.device), arch, pretrained=False, cbs=cbs, opt_func=opt_func)
        return l.to_fp16() if a.half else l
    def ours(n, cls=SourceTeacher, opt_func=FusedAdam):
        some = PseudoLabels(labels.probs[:,:sum(SIZES[:n])], SIZES[:n])
        return made(bs, Distill(x, cls(StoredTeachers(some), torch.ones(n)/n)), opt_func)
    makes = {'student alone': partial(made, 2*bs), 'looked up, 1 source': partial(ours, 1), 'looked up, 28 sources': partial(ours, 28)}
    if peers:
        makes.update({'28 sources, a loss a source': partial(ours, 28, OldTeacher),
                      "student alone, fastai's Adam": partial(made, 2*bs, opt_func=Adam),
                            "28 sources, fastai's Adam": partial(ours, 28, opt_func=Adam)})
    t = rounds(makes, a.steps, a.rounds)
    t['student alone and bare heads of 28'] = t['student alone'] + bare_heads(bs, made(bs).model.head.in_features, a.device or 'cpu', 20)
    for k,v in t.items():
        yield row(k, v, t["student alone, fastai's Adam" if "fastai's" in k else 'student alone'], student=arch, px=px, images=2*bs)

def bare(nets, x, n):
    "Median seconds of each network's forward pass on `x`"
    out = []
    for net in nets:
        got = []
        for i in range(n+1):
            with torch.inference_mode():
                t = time.perf_counter()
                net(x)
                x.device.type=='cuda' and torch.cuda.synchronize()
                got.append(time.perf_counter()-t)
        out.append(float(np.median(got[1:])))
    return out

def live(arch, teachers, px, bs, a, peers=True):
    "Rows for teachers that run in the step, and the peers"
    x,device = images(256, px),a.device or 'cpu'
    sources = [Source.from_timm(t, pretrained=False, size=px, name=f'{t} {i}') for i,t in enumerate(teachers)]
    nets = [s.load(device).model.to(memory_format=torch.channels_last) for s in sources]
    # the peers' teacher and student share a label space: ImageNet's
    def half(l): return l.to_fp16() if a.half else l
    def plain(bs, c=10): return half(student_learner(labelled(x, bs, c, device=a.device), arch, pretrained=False))
    def ours(k):
        return half(student_learner(labelled(x, bs, device=a.device), arch, pretrained=False,
                                    cbs=Distill(x, SourceTeacher(LiveTeachers(sources[:k]), torch.ones(k)/k))))
    class Loop(Callback):
        """The plain loop: every teacher on every batch, a soft cross-entropy with the student's logits each; the
        teachers share the student's classes"""
        def __init__(self, nets): self.nets = nets
        def after_loss(self):
            if not self.training: return
            with torch.no_grad(): ps = [net(self.x).softmax(1) for net in self.nets]
            self.learn.loss_grad = .5*self.learn.loss_grad + .5*sum(F.cross_entropy(self.pred, p) for p in ps)/len(ps)
            self.learn.loss = self.learn.loss_grad.clone()
    own = lambda k: [s.load(device).model for s in sources[:k]]
    def loop(k):
        l = plain(2*bs, 1000)
        l.add_cb(Loop(own(k)))
        return l
    def fasterai():
        from fasterai.distill.all import KnowledgeDistillationCallback, SoftTarget
        l = plain(2*bs, 1000)
        l.add_cb(KnowledgeDistillationCallback(own(1)[0].requires_grad_(True), SoftTarget))
        return l
    makes = {'student alone': partial(plain, 2*bs), 'live, 1 source': partial(ours, 1),
             f'live, {len(sources)} sources': partial(ours, len(sources))}
    if peers:
        makes.update({'student alone, 1000 classes': partial(plain, 2*bs, 1000),
                      'plain loop, 1 teacher': partial(loop, 1), f'plain loop, {len(sources)} teachers': partial(loop, len(sources))})
        try:
            import fasterai as _ # noqa: F401
            makes["fasterai's callback, 1 teacher"] = fasterai
        except ImportError: print('fasterai is not installed: left out')
    t = rounds(makes, a.steps, a.rounds)
    if peers: t["timm's task, 1 teacher"] = timm_task(arch, own(1)[0], x, 2*bs, device, a)
    batch = lambda n: torch.rand(n, 3, px, px, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(torch.device(device).type, enabled=a.half and device!='cpu'):
        small,large = bare(nets, batch(bs), a.steps),bare(nets, batch(2*bs), a.steps)
    for k,v in t.items():
        n = len(sources) if f' {len(sources)} ' in k else 0 if 'alone' in k else 1
        mine = k.startswith('live')
        floor = t['student alone' if mine or k=='student alone' else 'student alone, 1000 classes'] + sum((small if mine else large)[:n])
        yield row(k, v, floor, student=arch, px=px, images=2*bs, teachers=', '.join(teachers[:n]) if n else '')

def timm_task(arch, teacher, x, bs, device, a):
    "Median seconds of a training step of timm's task, with its own loop: forward, backward, fused AdamW"
    from timm.task import LogitDistillationTask
    student = timm.create_model(arch, num_classes=1000).to(device)
    task = LogitDistillationTask(student, teacher.to(device), criterion=nn.CrossEntropyLoss(), task_loss_weight=.5,
                                 device=torch.device(device), verbose=False).train()
    opt,got = torch.optim.AdamW(student.parameters(), 1e-3, fused=True),[]
    for i in range(a.steps*a.rounds + 2):
        t,j = time.perf_counter(),np.random.permutation(len(x))[:bs]
        xb = torch.from_numpy(x[j]).permute(0,3,1,2).to(device).float()/255
        yb = torch.from_numpy(j%1000).to(device)
        with torch.autocast(torch.device(device).type, enabled=a.half and device!='cpu'): loss = task(xb, yb)['loss']
        loss.backward()
        opt.step()
        opt.zero_grad()
        if device!='cpu': torch.cuda.synchronize()
        got.append(time.perf_counter()-t)
    return np.array([np.median(o) for o in np.array_split(got[2:], a.rounds)])

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--device')
    ap.add_argument('--half', action='store_true', help='mixed precision')
    ap.add_argument('--only', choices=('looked up','live'), help='one part')
    ap.add_argument('--steps', type=int, default=5)
    ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--keep', action='store_true', help="have glibc keep the memory that is freed, see the page `speed`")
    a = ap.parse_args()
    if a.keep and not kept_memory.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **kept_memory})
    if a.device is None: default_device(False)
    if a.small: a.steps,a.rounds = 2,1
    rows,device = [],a.device or 'cpu'
    if a.only!='live':
        for arch,px in [('mobilenetv3_small_050',64)] if a.small else [('mobilenetv3_small_100',160)]:
            rows += [dict(bench='looked up', **r) for r in looked_up(arch, px, 8 if a.small else 32, a)]
    if a.only!='looked up':
        teachers = ['resnet18','mobilenetv3_large_100'] if a.small else ['resnet18','mobilenetv3_large_100','resnet26',
                'tf_efficientnet_lite0']
        rows += [dict(bench='live', **r) for r in live('mobilenetv3_small_050' if a.small else 'mobilenetv3_small_100',
                                                       teachers, 64 if a.small else 160, 8 if a.small else 32, a)]
    if a.keep: rows = [{**r, 'bench': f"{r['bench']}, memory kept"} for r in rows]
    df = pd.DataFrame(rows).assign(device=device, half=a.half)
    keep = (lambda was: ~was.bench.isin(df.bench)) if a.only else None # the other part as it was measured before
    write(df, 'step', a, keep=keep, sort=dict(by='bench', ascending=False))
