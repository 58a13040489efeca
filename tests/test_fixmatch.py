"FixMatch, its thresholds and the average of the weights against their formulas written out, and beside the other callbacks of a Learner"
import json, math, re
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from fastai.vision.all import (Callback, DataBlock, IntToFloatTensor, MultiCategoryBlock, PILImage, RandomSplitter,
    RegressionBlock, TransformBlock, CancelEpochException, CancelFitException, CancelStepException,
    CancelValidException, GradientAccumulation, Learner, MixUp,
    Module, Normalize, SGD, SaveModelCallback, ShortEpochCallback, accuracy, load_learner, set_seed, tensor)
from distill_nb.pool import repeat_dls
from distill_nb.packs import digits_dls
from distill_nb.teachers import SourceTeacher, StoredTeachers, TargetTeacher
from distill_nb.teach import Both
from distill_nb.student import create_student, student_splitter
from distill_nb.callbacks import FreezeStats
from distill_nb.distill import Distill
from distill_nb.callbacks import EMA
from distill_nb.fixmatch import (FixMatch, Flex, Free, Threshold, align_logits, fairness_loss, fixmatch_loss,
    strong_augment, weak_augment)
from distill_nb.learner import distill_learner, fixmatch_learner

@settings(max_examples=50, deadline=None)
@given(n=st.integers(1,8), c=st.integers(2,6), threshold=st.floats(0,.999), seed=st.integers(0,999))
def test_loss_is_equation_4(n, c, threshold, seed):
    rng = np.random.default_rng(seed)
    weak,strong = rng.normal(size=(2,n,c))*4
    expect = 0.
    for w,s in zip(weak, strong):
        q,p = [np.exp(o-o.max())/np.exp(o-o.max()).sum() for o in (w,s)]
        if abs(q.max()-threshold) < 1e-5: return
        if q.max() >= threshold: expect -= math.log(p[q.argmax()])
    loss,mask = fixmatch_loss(tensor(weak), tensor(strong), threshold)
    assert loss.item() == pytest.approx(expect/n, rel=1e-4, abs=1e-5)
    assert mask.dtype == torch.bool and mask.shape == (n,)

def test_half_precision_logits_do_not_overflow():
    weak,strong = tensor([[60000.,0.]]).half(),tensor([[0.,60000.]]).half()
    assert fixmatch_loss(weak, strong)[0].isfinite()

@settings(max_examples=20, deadline=None)
@given(n=st.integers(1,5), h=st.integers(1,40), w=st.integers(1,40), n_ops=st.integers(0,10), magnitude=st.floats(0,1),
    cutout=st.floats(0,1), seed=st.integers(0,99))
def test_strong_augment_stays_in_range(n, h, w, n_ops, magnitude, cutout, seed):
    torch.manual_seed(seed)
    x = torch.rand(n, 3, h, w)
    y = strong_augment(x, n_ops, magnitude, cutout)
    assert y.shape == x.shape and y.isfinite().all() and 0 <= y.min() and y.max() <= 1
    if magnitude == 0 and cutout == 0: torch.testing.assert_close(y, x, atol=1e-5, rtol=0) # interpolation rounds, where it is told to stay

def test_rotation_keeps_a_circle_round_on_wide_images():
    from distill_nb.fixmatch import affine
    yy,xx = torch.meshgrid(torch.arange(40)-19.5, torch.arange(80)-39.5, indexing='ij')
    disc = ((yy**2 + xx**2) < 100).float().expand(1,3,-1,-1)*.5 + .5
    z = torch.zeros(1)
    turned = affine(disc, z+math.pi/4, z, z, z, z)
    assert (turned-disc).abs().mean() < .01

def test_images_get_their_own_draw_and_a_seed_repeats_it():
    x = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    torch.manual_seed(3)
    a = strong_augment(x)
    torch.manual_seed(3)
    b = strong_augment(x)
    assert torch.equal(a, b)
    assert len({o.cpu().numpy().tobytes() for o in a}) == 8

@pytest.fixture(scope='module')
def digits():
    dls,pool = digits_dls(n=2, seed=0)
    return repeat_dls(dls, 60), pool[:60]

def learner(dls, *cbs, student=None, **kw):
    return Learner(dls, student or create_student('test_efficientnet', dls.c, pretrained=False),
        splitter=student_splitter, metrics=accuracy, cbs=cbs, **kw)

def quiet_fit(learn, n=1, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3, **kw)
    return learn

class Keep(Callback):
    "What went through the network and what came out as loss"
    order,run_valid = 5.5,False
    def before_batch(self): self.seen = self.x.clone()
    def after_loss(self): self.total,self.labelled = self.learn.loss.item(), self.learn.loss_func(self.pred, *self.yb).item()

class Table(Module):
    "Logits that depend on the image's row in the batch alone; a batch norm that learns keeps all views in one batch"
    def __init__(self): self.w,self.norm = nn.Parameter(torch.randn(1000, 10)*5),nn.BatchNorm1d(1)
    def forward(self, x): return self.w[:len(x)]

@pytest.mark.parametrize('mu,lam_u', [(1,1.), (3,.5)])
def test_loss_of_a_step(digits, mu, lam_u):
    dls,pool = digits
    keep = Keep()
    net = Table()
    learn = Learner(dls, net, cbs=[FixMatch(pool, threshold=.9, mu=mu, lam_u=lam_u), keep], opt_func=SGD)
    w = net.w.detach().clone()
    quiet_fit(learn, cbs=ShortEpochCallback(pct=.01))
    b = dls.train.bs
    n = min(mu*b, len(pool))
    assert len(keep.seen) == b + 2*n
    weak,strong = w[b:b+n].softmax(1),w[b+n:b+2*n].log_softmax(1)
    u = sum(-strong[i, weak[i].argmax()] for i in range(n) if weak[i].max() >= .9)/n
    assert keep.total == pytest.approx(keep.labelled + lam_u*float(u), rel=1e-5)

def test_strong_view_is_of_the_weak_view_and_normalised_again(digits):
    dls,pool = digits
    for norm in (None, Normalize.from_stats([.3,.4,.5], [.2,.1,.3])):
        d = repeat_dls(dls, 60)
        if norm: d.add_tfms([norm], 'after_batch')
        seen,keep = [],Keep()
        def strong(x):
            seen.append(x.clone())
            return 1-x
        quiet_fit(learner(d, FixMatch(pool, strong=strong), keep), cbs=ShortEpochCallback(pct=.01))
        b = d.train.bs
        weak,inv = keep.seen[b:].chunk(2)
        assert 0 <= seen[0].min() and seen[0].max() <= 1
        mean,std = (norm.mean,norm.std) if norm else (0.,1.)
        torch.testing.assert_close(inv*std + mean, 1-(weak*std + mean).clamp(0,1), atol=1e-4, rtol=1e-4)

def test_no_weight_no_images(digits):
    dls,pool = digits
    keep = Keep()
    learn = quiet_fit(learner(dls, FixMatch(pool, lam_u=0), keep), cbs=ShortEpochCallback(pct=.01))
    assert len(keep.seen) == dls.train.bs and 'fixmatch_loss' not in learn.recorder.metric_names

def test_with_distill_in_any_order_of_adding(digits):
    dls,pool = digits
    losses = []
    for first_one in (0,1):
        set_seed(0, reproducible=True)
        cbs = [FixMatch(pool, threshold=0.), Distill(pool, SourceTeacher(StoredTeachers([torch.randn(60, 7)]), [1.]), lam=.3)]
        keep = Keep()
        learn = quiet_fit(learner(repeat_dls(dls, 60), *cbs[::1 if first_one else -1], keep))
        b = dls.train.bs
        assert len(keep.seen) == 4*b
        f,d = cbs
        assert (f.lo,f.hi,d.lo,d.hi) == (b, 3*b, 3*b, 4*b)
        losses.append(keep.total)
        assert {'fixmatch_loss','confident','distill_loss'} <= set(learn.recorder.metric_names)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

def test_with_probes_too(digits):
    "Each callback's images are its own, whoever takes the predictions off first"
    dls,pool = digits
    set_seed(0, reproducible=True)
    probes = torch.rand(60, 10).softmax(1)
    cbs = [FixMatch(pool, threshold=0.), Distill(pool, TargetTeacher(probes), lam=.3)]
    quiet_fit(learner(repeat_dls(dls, 60), *cbs), cbs=ShortEpochCallback(pct=.01))
    assert 1.5 < float(cbs[1].mean_loss()) < 5                                      # a new head is about log 10 from any opinion

def test_weak_views_alone_make_no_difference_where_no_norm_learns(digits, monkeypatch):
    import distill_nb.fixmatch as module
    dls,pool = digits
    seen = {}
    for alone in (True, False):
        if not alone: monkeypatch.setattr(module, 'learns_stats', lambda m: True)
        set_seed(0, reproducible=True)
        keep,f = Keep(),FixMatch(pool, threshold=.1)
        learn = quiet_fit(learner(repeat_dls(dls, 60), f, FreezeStats(), Distill(pool, TargetTeacher(torch.full((60,10), .1))),
            keep), cbs=ShortEpochCallback(pct=.01))
        seen[alone] = keep.total,f.counted.item(),torch.cat([p.detach().flatten() for p in learn.model.parameters()])
        assert f.hi-f.lo == (1 if alone else 2)*dls.train.bs
    assert seen[True][1] == seen[False][1] > 0 and seen[True][0] == pytest.approx(seen[False][0], rel=1e-5)
    torch.testing.assert_close(seen[True][2], seen[False][2], atol=1e-5, rtol=1e-4)

def test_what_a_learner_must_still_do(digits, tmp_path):
    dls,pool = digits
    learn = learner(dls, FixMatch(pool, threshold=.2, strong=lambda x: x), MixUp(), GradientAccumulation(32), path=tmp_path)
    quiet_fit(learn, 2)
    assert all(math.isfinite(o) for o in learn.recorder.values[-1])
    with learn.no_bar(), learn.no_logging():
        assert len(learn.validate()) == 2
        assert len(learn.get_preds()[0]) == len(dls.valid_ds)
        learn.lr_find(num_it=3, show_plot=False)
    learn.predict(pool[0])
    learn.export('s.pkl')
    plain = learner(dls, path=tmp_path)
    plain.export('p.pkl')
    assert (tmp_path/'s.pkl').stat().st_size < (tmp_path/'p.pkl').stat().st_size + 8192

def test_learns_from_the_pool(digits):
    "Every parameter moves even when the labels have no part in the loss"
    dls,pool = digits
    learn = learner(dls, FixMatch(pool, threshold=0.), loss_func=lambda p,y: 0*p.sum())
    before = {n: p.detach().clone() for n,p in learn.model.named_parameters()}
    quiet_fit(learn)
    assert all((before[n] != p.detach()).any() for n,p in learn.model.named_parameters())

@pytest.mark.parametrize('kw,name', [(dict(threshold=1), '`threshold`'), (dict(threshold=math.nan), '`threshold`'),
    (dict(threshold='flexmatch'), 'Flex'), (dict(threshold=Flex), '`threshold`'), (dict(mu=.5), '`mu`'),
    (dict(mu=1.5), '`mu`'), (dict(lam_u=-.1), '`lam_u`'), (dict(lam_u=math.inf), '`lam_u`'), (dict(align='yes'), '`align`')])
def test_errors_name_the_argument(kw, name):
    with pytest.raises(ValueError, match=name): FixMatch([np.zeros((8,8,3), dtype=np.uint8)], **kw)

# --- thresholds, alignment, the weak view

@settings(max_examples=50, deadline=None)
@given(n=st.integers(1,30), c=st.integers(2,6), steps=st.integers(1,6), threshold=st.floats(.3,.99), seed=st.integers(0,999))
def test_flexmatch_counts_as_written(n, c, steps, threshold, seed):
    "A dictionary of the latest confident class of each image, and the formula class by class"
    rng = np.random.default_rng(seed)
    flex,latest = Flex(threshold),{}
    flex.begin(n, c, 'cpu')
    for _ in range(steps):
        idx = rng.permutation(n)[:rng.integers(1, n+1)]
        q = tensor(rng.dirichlet([.3]*c, len(idx))).float()
        sigma = [sum(o == k for o in latest.values()) for k in range(c)]
        beta = [o/max(max(sigma), n-sum(sigma)) for o in sigma]
        assert flex(q, tensor(idx)).tolist() == pytest.approx([threshold*b/(2-b) for b in beta], abs=1e-6)
        for i,o in zip(idx, q):
            if o.max() >= threshold: latest[i] = int(o.argmax())

@settings(max_examples=30, deadline=None)
@given(c=st.integers(2,6), steps=st.integers(1,30), decay=st.floats(.5,.999), seed=st.integers(0,999))
def test_freematch_means_as_written(c, steps, decay, seed):
    rng = np.random.default_rng(seed)
    free = Free(decay)
    free.begin(16, c, 'cpu')
    tau,p,h = 1/c,np.full(c, 1/c),np.full(c, 1/c)
    for t in range(steps):
        q = rng.dirichlet([.5]*c, 16)
        d = min(decay, (1+t)/(10+t))
        tau,p = d*tau + (1-d)*q.max(1).mean(), d*p + (1-d)*q.mean(0)
        h = d*h + (1-d)*np.bincount(q.argmax(1), minlength=c)/16
        assert free(tensor(q)).tolist() == pytest.approx((tau*p/p.max()).tolist(), abs=1e-5)
    assert free.hist.value.tolist() == pytest.approx(h.tolist(), abs=1e-5)

@settings(max_examples=30, deadline=None)
@given(n=st.integers(1,20), c=st.integers(2,6), seed=st.integers(0,999))
def test_fairness_as_written(n, c, seed):
    "Sum over the classes that were predicted, on the images that counted; gradients are finite, also where nothing counted"
    rng = np.random.default_rng(seed)
    z,mask,p,h = rng.normal(size=(n,c))*2,rng.random(n) > .4,rng.dirichlet([1.]*c),rng.dirichlet([1.]*c)
    strong = tensor(z).float().requires_grad_()
    loss = fairness_loss(strong, tensor(mask), tensor(p).float(), tensor(h).float())
    loss.backward()
    assert strong.grad.isfinite().all() and loss <= 0
    if not mask.any():
        assert loss == 0
        return
    q = np.exp(z)/np.exp(z).sum(1, keepdims=True)
    hist = np.bincount(q[mask].argmax(1), minlength=c)
    now = np.array([q[mask][:,k].sum()/hist[k] if hist[k] else 0. for k in range(c)])
    now,usual = now/now.sum(),p/np.maximum(h, 1e-6)/(p/np.maximum(h, 1e-6)).sum()
    assert loss.item() == pytest.approx(sum(usual[k]*math.log(now[k]) for k in range(c) if hist[k]), abs=1e-4, rel=1e-4)

def test_thresholds_reach_the_loss(digits):
    "FlexMatch begins with everything, FreeMatch with the mean confidence; both reset at every fit"
    dls,pool = digits
    for threshold in (Flex(.999),Free()):
        learn = learner(dls, FixMatch(pool, threshold=threshold))
        for _ in range(2):
            quiet_fit(learn, cbs=ShortEpochCallback(pct=.01, short_valid=False))
            share = learn.recorder.values[-1][-1]
            assert share == 1 if isinstance(threshold, Flex) else .1 < share < 1
        learn.validate()
        assert type(learn.fix_match.thresholds) == type(threshold) and not hasattr(threshold, 'latest') and not hasattr(threshold, 'tau')

def test_a_threshold_of_ones_own(digits):
    "It is begun at every fit, sees every image of the pool, and its extra loss is part of the loss"
    dls,pool = digits
    class Own(Threshold):
        def begin(self, n_pool, n_out, device): self.args,self.seen = (n_pool, n_out, torch.device(device)),[]
        def __call__(self, probs, idx):
            assert probs.shape == (len(idx), self.args[1])
            torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:,0]), atol=1e-4, rtol=0)
            self.seen += idx.tolist()
            return torch.ones(self.args[1], device=probs.device)*2
        def extra(self, strong, mask): return 3. + 0*strong.sum() + mask.sum()
    learn = learner(dls, FixMatch(pool, threshold=Own()))
    for _ in range(2):
        quiet_fit(learn)
        own = learn.fix_match.thresholds
        assert own.args == (60, 10, torch.device(dls.device)) and set(own.seen) <= set(range(60))
        assert len(own.seen) == len(dls.train)*dls.train.bs
        assert list(learn.recorder.values[-1][-2:]) == [3., 0.]

def test_alignment_reaches_the_labels(digits):
    "A student that always says class 3 is corrected towards the labelled distribution, or the one that is given"
    dls,pool = digits
    class Three(Module):
        def __init__(self): self.w = nn.Parameter(torch.zeros(10))
        def forward(self, x): return (self.w + 5.*(torch.arange(10, device=x.device) == 3)).expand(len(x), -1)
    for align,share in ((False,1.), (True,0.), ('uniform',0.), ([.01]*3+[.91]+[.01]*6, 1.)):
        learn = Learner(dls, Three(), cbs=FixMatch(pool, threshold=.8, align=align), opt_func=SGD, metrics=accuracy)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 0.)
        assert learn.recorder.values[-1][-1] == share
    for bad in ([.5,.5], [-1.]+[1.]*9, [0.]*10):
        with pytest.raises(ValueError, match='`align`'): quiet_fit(learner(dls, FixMatch(pool, align=bad)))

def test_alignment_is_the_ratio():
    q,target = torch.rand(7,4).softmax(1),tensor([.1,.2,.3,.4])
    expect = q*target/q.mean(0)
    torch.testing.assert_close(align_logits(q.log(), q.mean(0), target).softmax(1), expect/expect.sum(1, keepdim=True),
        atol=1e-4, rtol=1e-4)
    assert align_logits(q.log(), tensor([0.,0,.5,.5]), tensor([0.,.5,.5,0])).isfinite().all()

@settings(max_examples=20, deadline=None)
@given(n=st.integers(1,5), h=st.integers(1,20), w=st.integers(1,20), shift=st.floats(0,.5), flip=st.booleans(), seed=st.integers(0,99))
def test_weak_augment_moves_pixels(n, h, w, shift, flip, seed):
    "Each row and column of the result is one of the image's; nothing is interpolated, nothing changed in place"
    torch.manual_seed(seed)
    x = torch.arange(float(n*3*h*w)).reshape(n, 3, h, w)
    kept = x.clone()
    y = weak_augment(x, shift, flip)
    assert y.shape == x.shape and torch.equal(x, kept)
    for a,b in zip(x, y): assert set(b.flatten().tolist()) <= set(a.flatten().tolist())
    if shift == 0 and not flip: assert torch.equal(x, y)

def test_weak_augmentation_without_batch_tfms(digits):
    "Labelled images and the weak views move, the strong view is made of the weak one"
    dls,pool = digits_dls(n=2, seed=0, batch_tfms=[])
    seen,keep = [],Keep()
    def strong(x):
        seen.append(x.clone())
        return x
    def weak(x): return x.flip(3)
    quiet_fit(learner(dls, FixMatch(pool[:20], strong=strong, weak=weak), keep))
    flipped = keep.seen[-40:-20]
    assert torch.equal(flipped, keep.seen[-20:]) and torch.equal(flipped, seen[-1])
    known = {o.cpu().numpy().tobytes() for o in dls.train.new(shuffle=False).one_batch()[0].flip(3)}
    assert {o.cpu().numpy().tobytes() for o in keep.seen[:20]} == known
    learn = learner(dls, FixMatch(pool[:20], weak=weak_augment), Keep())
    a,b = [quiet_fit(learn).keep.seen[-40:-20] for _ in range(2)]
    assert len({o.cpu().numpy().tobytes() for o in torch.cat([a,b])}) > 20

# --- the average of the weights

class Steps(Callback):
    "The weights after each step that was made"
    order = 30
    def before_fit(self): self.all = [state(self.learn)]
    def after_step(self): self.all.append(state(self.learn))

def state(learn): return {k: v.detach().clone() for k,v in learn.model.state_dict().items()}

def average(states, decay):
    res = states[0]
    for t,s in enumerate(states[1:]):
        d = min(decay, (1+t)/(10+t))
        res = {k: d*res[k] + (1-d)*v if v.is_floating_point() else v for k,v in s.items()}
    return res

def same(a, b, **kw):
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], **{'atol':1e-6, 'rtol':1e-5, **kw})

@pytest.mark.parametrize('decay', [.999, .5, 0.])
def test_average_as_written(digits, decay):
    "Parameters and batch norm's statistics, over two fits, the second of which starts from the average of the first"
    dls,_ = digits
    learn = learner(dls, EMA(decay), Steps())
    for _ in range(2):
        quiet_fit(learn, 2)
        same(state(learn), average(learn.steps.all, decay))
        if decay == 0: same(state(learn), learn.steps.all[-1])

def test_average_is_validated_and_training_goes_on_without(digits, tmp_path):
    "The same steps as without; each epoch's validation is that of the average at the time, and SaveModelCallback saves it"
    dls,_ = digits
    class Seen(Callback):
        order = 55
        def before_fit(self): self.at = []
        def after_epoch(self): self.at.append((state(self.learn), average(self.steps.all, .9)))
    runs = []
    for cbs in ([], [EMA(.9), Seen()]):
        set_seed(0, reproducible=True)
        learn = learner(repeat_dls(dls, 60), Steps(), *cbs, path=tmp_path)
        runs.append(quiet_fit(learn, 3))
    a,b = (r.steps.all for r in runs)
    assert len(a) == len(b)
    for x,y in zip(a, b): same(x, y)
    for got,expect in learn.seen.at: same(got, expect)
    last = learn.recorder.values[-1][1]
    with learn.no_bar(), learn.no_logging():
        assert learn.validate()[0] == pytest.approx(last, rel=1e-5)
        learn = learner(dls, EMA(.9), Seen(), Steps(), SaveModelCallback(fname='best'), path=tmp_path)
        learn.fit(3, 1e-3)
    best = int(np.argmin([o[1] for o in learn.recorder.values]))
    same(state(learn), learn.seen.at[best][0])

def test_lr_find_and_reading_change_nothing(digits):
    dls,pool = digits
    learn = learner(dls, EMA())
    before = state(learn)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=6, show_plot=False)
        learn.validate(), learn.get_preds()
    learn.predict(pool[0])
    same(before, state(learn), atol=0, rtol=0)
    learn.summary()
    same(before, state(learn), atol=0, rtol=0)

class At(Callback):
    "Raise at an event of an epoch"
    order = 20
    def __init__(self, event, ex, epoch=1): self.event,self.ex,self.at = event,ex,epoch
    def __call__(self, name):
        if name == self.event and self.epoch == self.at: raise self.ex

@pytest.mark.parametrize('event,ex', [('after_batch',CancelFitException()), ('before_validate',CancelValidException()),
    ('before_validate',CancelFitException()), ('after_epoch',CancelFitException()),
    ('before_epoch',CancelEpochException()), ('before_validate',CancelEpochException())])
def test_cancelled_fit_ends_with_the_average(digits, event, ex):
    dls,_ = digits
    learn = quiet_fit(learner(dls, EMA(), Steps(), At(event, ex)), 3)
    same(state(learn), average(learn.steps.all, .999))
    assert learn.ema.average is learn.ema.trained is None

@pytest.mark.parametrize('event', ['after_batch','before_validate','after_epoch'])
def test_broken_fit_can_be_followed_by_another(digits, event):
    "As after the kernel was interrupted: what the model has is validated, and averaged anew from there"
    dls,_ = digits
    learn = learner(dls, EMA(), Steps(), At(event, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): quiet_fit(learn, 3)
    learn.remove_cb(At)
    before = state(learn)
    with learn.no_bar(), learn.no_logging(): learn.validate()
    same(before, state(learn), atol=0, rtol=0)
    quiet_fit(learn)
    same(before, learn.steps.all[0], atol=0, rtol=0)
    same(state(learn), average(learn.steps.all, .999))

def test_steps_that_did_not_happen_do_not_count(digits):
    "Gradients that are accumulated, and half precision's overflow (a CancelStepException)"
    dls,_ = digits
    class Updates(Callback):
        order = 13
        def before_fit(self): self.n = 0
        def after_step(self): self.n = self.ema.n_steps
    learn = quiet_fit(learner(dls, EMA(), GradientAccumulation(2*dls.train.bs), Updates()))
    assert learn.updates.n == len(dls.train)//2
    class Overflow(Callback):
        order = 10
        def before_step(self):
            if self.iter%2: raise CancelStepException()
    learn = quiet_fit(learner(dls, EMA(), Overflow(), Updates()))
    assert learn.updates.n == (len(dls.train)+1)//2

def test_mixed_precision_counts_the_steps_it_made(digits):
    "A scale so large that the first steps overflow (on a GPU; without one nothing is scaled)"
    dls,_ = digits
    class Made(Callback):
        order = 13
        def after_step(self): self.made_steps,self.n = len(self.mixed_precision.scales),self.ema.n_steps
    learn = learner(dls, EMA(), Made()).to_fp16(init_scale=2.**60)
    quiet_fit(learn, 6)
    assert learn.made.n == learn.made.made_steps
    assert torch.cuda.is_available() or learn.made.n == 6*len(dls.train)

def test_half_precision_weights_are_averaged_in_single(digits):
    dls,_ = digits
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 10)).to(torch.bfloat16)
    class Cast(Callback):
        def before_batch(self): self.learn.xb = (self.x.to(torch.bfloat16),)
        def after_pred(self): self.learn.pred = self.pred.float()
        def after_batch(self):
            if self.training: assert all(o.dtype == torch.float32 for o in self.ema.average)
    quiet_fit(Learner(dls, net, cbs=[EMA(), Cast()]))
    assert all(p.dtype == torch.bfloat16 for p in net.parameters())

def test_fine_tune_frozen_statistics_source_heads_and_export(digits, tmp_path):
    "FixMatch and Distill in one Learner: heads are averaged, statistics stay, the exported student is the average alone"
    dls,pool = digits
    def make(*cbs): return learner(dls, FixMatch(pool, threshold=Free()),
        Distill(pool, SourceTeacher(StoredTeachers([torch.randn(60, 7)]), [1.]), lam=.3), FreezeStats(),
                                   *cbs, path=tmp_path)
    learn = make(EMA(), Steps())
    start = state(learn)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, freeze_epochs=1)
    end = state(learn)
    same(end, average(learn.steps.all, .999))
    before,after = (o['source_heads.weight'] for o in (start, end))
    assert after.shape == (7, *before.shape[1:]) and (after != before).any()
    for k in end:
        if 'running' in k: assert torch.equal(end[k], start[k])
    learn.remove_cb(Steps)
    learn.export('a.pkl')
    bare = make()
    bare.export('b.pkl')
    assert (tmp_path/'a.pkl').stat().st_size < (tmp_path/'b.pkl').stat().st_size + 8192
    loaded = load_learner(tmp_path/'a.pkl')
    assert loaded.ema.average is None
    with loaded.no_bar(), loaded.no_logging(), learn.no_bar(), learn.no_logging():
        torch.testing.assert_close(loaded.predict(pool[0])[2], learn.predict(pool[0])[2])

def test_wrapped_model_is_averaged_by_its_own_names(digits):
    dls,_ = digits
    class Wrap(Callback):
        "As ParallelTrainer and DistributedTrainer do"
        order = 11
        def before_fit(self): self.learn.model = nn.DataParallel(self.model)
        def after_fit(self): self.learn.model = self.model.module
    class Inner(Steps):
        def before_fit(self): self.all = [{k.replace('module.', ''): v for k,v in state(self.learn).items()}]
        def after_step(self): self.all.append({k.replace('module.', ''): v for k,v in state(self.learn).items()})
    learn = quiet_fit(learner(dls, EMA(), Wrap(), Inner()))
    same(state(learn), average(learn.inner.all, .999))

def test_fixmatch_learner_passes_on(digits):
    dls,pool = digits
    kw = dict(pretrained=False, metrics=accuracy)
    learn = fixmatch_learner(dls, pool, 'test_efficientnet', **kw)
    fix = learn.fix_match
    assert learn.ema.decay == .999 and (repr(fix.threshold), fix.align, fix.weak) == ('Fixed(threshold=0.95)', False, None)
    learn = fixmatch_learner(dls, pool, 'test_efficientnet', threshold=Free(fairness=.001), align='uniform',
        weak=weak_augment, ema=None, **kw)
    assert not hasattr(learn, 'ema') and learn.fix_match.threshold.fairness == .001 and learn.fix_match.weak is weak_augment
    assert math.isfinite(quiet_fit(learn).recorder.values[-1][0])

def test_columns_come_once(digits):
    dls,pool = digits
    class Names(Callback):
        def after_batch(self):
            if self.training: self.cols = self.learn.metrics.attrgot('name')
    learn = learner(dls, FixMatch(pool, threshold=Flex()), Names())
    for _ in range(2): quiet_fit(learn, 2)
    assert learn.names.cols == ['accuracy','fixmatch_loss','confident'] and learn.metrics.attrgot('name') == ['accuracy']

def other_targets():
    "Learners' data whose targets are not one class an image"
    x,n = list(np.random.default_rng(0).integers(0, 256, (8,16,16,3), dtype=np.uint8)),list(range(8))
    make = lambda block,get_y: DataBlock((TransformBlock(PILImage.create, batch_tfms=IntToFloatTensor), block),
        get_x=lambda i: x[i], get_y=get_y, splitter=RandomSplitter(.25, seed=0)).dataloaders(n, bs=2, num_workers=0)
    return dict(several=make(MultiCategoryBlock, lambda i: ['a','b'][:1+i%2]),
        numbers=make(RegressionBlock, lambda i: float(i)), points=make(RegressionBlock(n_out=2), lambda i: [float(i),1.])), x

@pytest.mark.parametrize('kind', ['several','numbers','points'])
def test_other_targets_are_refused_before_anything_runs(kind):
    "When the learner is made, or at `before_fit` of a fit that is given the callback, and by all that teach in the target's classes"
    dls,x = other_targets()
    dls = dls[kind]
    dls.c = 2
    bare = lambda *cbs: Learner(dls, create_student('test_efficientnet', 2, pretrained=False), splitter=student_splitter, cbs=cbs)
    probes = torch.full((len(x),2), .5)
    for f in (lambda: bare(FixMatch(x)), lambda: bare().fit(1, cbs=FixMatch(x)),
        lambda: bare(Distill(x, TargetTeacher(probes))), lambda: fixmatch_learner(dls, x, 'test_efficientnet', pretrained=False),
        lambda: distill_learner(dls, x, Never(), 'test_efficientnet', pretrained=False),
        lambda: distill_learner(dls, x, Never(), 'test_efficientnet', pretrained=False, teach=Both())):
        with pytest.raises(ValueError, match='`dls` must give one class for each image'): f()

class Never:
    "Sources that nobody may ask for anything"
    def __getattr__(self, name): raise AssertionError(name)

def test_formula_of_the_tutorial_is_the_loss():
    "As it is written on the page, and as two callbacks compute it"
    page = json.loads((Path(__file__).parent.parent/'nbs/tutorials/07_with_fixmatch.ipynb').read_text())
    formula, = re.findall(r'\$\$(.+?)\$\$', ''.join(page['cells'][0]['source']), re.S)
    for a,b in ((r'\\mathcal L_\{\\text\{(\w+)\}\}', r'\1'), (r'\\lambda_u', 'lam_u'), (r'\\lambda', 'lam'),
        (r'\\big|\\,', ''), (r'\s*([+-])\s*', r'\1')): formula = re.sub(a, b, formula)
    formula = re.sub(r'(?<=[\w)])\s*(?=\()|(?<=\))\s*(?=\w)|(?<=[a-z])\s+(?=[a-zA-Z])|(lam(?:_u)?)(?=[A-Za-z])(?!_u)',
        lambda m: (m[1] or '')+'*', formula.strip())
    alone = lambda o: type(o.__name__, (o,), dict(active=True, learn=None))
    black = [np.zeros((4,4,3), np.uint8)]*2
    fix,dis = alone(FixMatch)(black, lam_u=2.),alone(Distill)(black, TargetTeacher(torch.ones(2,2)/2), lam=.3)
    learn = SimpleNamespace(loss_grad=tensor(1.), loss=None)
    for cb,loss in ((fix,10.), (dis,100.)):
        cb.learn,cb.loss_u,cb.loss_sum,cb.n_batches = learn,tensor(loss),0.,0
        cb.after_loss()
    assert fix.order < dis.order
    assert learn.loss_grad.item() == pytest.approx(eval(formula, dict(lam=.3, lam_u=2., labels=1., sources=100., FixMatch=10.)))

@pytest.mark.parametrize('magnitude', [0,1,3,10])
def test_strong_augment_is_finite_up_to_the_largest_magnitude(magnitude):
    torch.manual_seed(0)
    for size in (1,8): assert strong_augment(torch.rand(200, 3, size, 8), n_ops=10, magnitude=magnitude).isfinite().all()
    for m in (math.nextafter(10, 11), 1e9, math.inf, math.nan, 10**400, -1):
        with pytest.raises(ValueError, match='`magnitude`'): strong_augment(torch.rand(1,3,8,8), magnitude=m)
