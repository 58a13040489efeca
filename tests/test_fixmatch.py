"FixMatch against its formula written out, and beside the other callbacks of a Learner"
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from fastai.vision.all import (Callback, GradientAccumulation, Learner, MixUp, Module, Normalize, SGD, ShortEpochCallback, accuracy, set_seed, tensor)
from distill_nb.data import digits_dls, repeat_dls
from distill_nb.distill import create_student, student_splitter, PoolCallback, Distill, StoredTeachers
from distill_nb.fixmatch import FixMatch, fixmatch_loss, strong_augment

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
@given(n=st.integers(1,5), h=st.integers(1,40), w=st.integers(1,40), n_ops=st.integers(0,10), magnitude=st.floats(0,1), cutout=st.floats(0,1), seed=st.integers(0,99))
def test_strong_augment_stays_in_range(n, h, w, n_ops, magnitude, cutout, seed):
    torch.manual_seed(seed)
    x = torch.rand(n, 3, h, w)
    y = strong_augment(x, n_ops, magnitude, cutout)
    assert y.shape == x.shape and y.isfinite().all() and 0 <= y.min() and y.max() <= 1
    if magnitude == 0 and cutout == 0: assert torch.equal(x, y)

def test_rotation_keeps_a_circle_round_on_wide_images():
    from distill_nb.fixmatch import _affine
    yy,xx = torch.meshgrid(torch.arange(40)-19.5, torch.arange(80)-39.5, indexing='ij')
    disc = ((yy**2 + xx**2) < 100).float().expand(1,3,-1,-1)*.5 + .5
    z = torch.zeros(1)
    turned = _affine(disc, z+math.pi/4, z, z, z, z)
    assert (turned-disc).abs().mean() < .01

def test_images_get_their_own_draw_and_a_seed_repeats_it():
    x = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    torch.manual_seed(3); a = strong_augment(x)
    torch.manual_seed(3); b = strong_augment(x)
    assert torch.equal(a, b)
    assert len({o.numpy().tobytes() for o in a}) == 8

@pytest.fixture(scope='module')
def digits():
    dls,pool = digits_dls(n=2, seed=0)
    return repeat_dls(dls, 60), pool[:60]

def learner(dls, *cbs, student=None, **kw):
    return Learner(dls, student or create_student('test_efficientnet', dls.c, pretrained=False), splitter=student_splitter, metrics=accuracy, cbs=cbs, **kw)

def quiet_fit(learn, n=1, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3, **kw)
    return learn

class Keep(Callback):
    "What went through the network and what came out as loss"
    order,run_valid = 5.5,False
    def before_batch(self): self.seen = self.x.clone()
    def after_loss(self): self.total,self.labelled = self.learn.loss.item(), self.learn.loss_func(self.pred, *self.yb).item()

class Table(Module):
    "Logits that depend on the image's row in the batch alone"
    def __init__(self): self.w = nn.Parameter(torch.randn(1000, 10)*5)
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
        def strong(x): seen.append(x.clone()); return 1-x
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
        cbs = [FixMatch(pool, threshold=0.), Distill(pool, StoredTeachers([torch.randn(60, 7)]), alpha=[1.], lam=.3)]
        keep = Keep()
        learn = quiet_fit(learner(repeat_dls(dls, 60), *cbs[::1 if first_one else -1], keep))
        b = dls.train.bs
        assert len(keep.seen) == 4*b
        f,d = cbs
        assert (f.lo,f.hi,d.lo,d.hi) == (b, 3*b, 3*b, 4*b)
        losses.append(keep.total)
        assert {'fixmatch_loss','confident','distill_loss'} <= set(learn.recorder.metric_names)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

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

@pytest.mark.parametrize('kw,name', [(dict(threshold=1), '`threshold`'), (dict(threshold=math.nan), '`threshold`'), (dict(mu=.5), '`mu`'), (dict(mu=1.5), '`mu`'),
                                     (dict(lam_u=-.1), '`lam_u`'), (dict(lam_u=math.inf), '`lam_u`')])
def test_errors_name_the_argument(kw, name):
    with pytest.raises(ValueError, match=name): FixMatch([np.zeros((8,8,3), dtype=np.uint8)], **kw)
