"`FusedAdam` beside fastai's `Adam`: the same weights, and all that a Learner asks of an optimizer"
from copy import deepcopy
from functools import partial
import pytest, torch
from fastai.vision.all import (Adam, GradientAccumulation, GradientClip, Learner, MixedPrecision, OptimWrapper,
    accuracy, load_learner, no_random, params)
from fastai.callback.channelslast import ChannelsLast
from distill_nb import optimizer
from distill_nb.packs import digits_dls
from distill_nb.learner import transfer_learner
from distill_nb.optimizer import FusedAdam

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(128, 64), torch.nn.LayerNorm(64), torch.nn.Linear(64, 10))

def splitter(m): return [params(m[:3]), params(m[3:7]), params(m[7:])]

def by_hand(opt_func, steps=12, act=None, **kwargs):
    "A Learner of `net` after some steps of a schedule on random images; `act(learn, i)` before step i"
    m = net()
    learn = Learner(digits_dls(n=2, bs=8)[0], m, loss_func=torch.nn.CrossEntropyLoss(), opt_func=opt_func, splitter=splitter, **kwargs)
    learn.create_opt()
    r = torch.Generator().manual_seed(1)
    for i in range(steps):
        learn.opt.set_hypers(lr=slice(1e-4*(i+1), 4e-3*(i+1)), mom=.95-.01*i, wd=.5)
        if act: act(learn, i)
        torch.nn.functional.cross_entropy(m(torch.randn(16,3,8,8, generator=r)), torch.randint(10, (16,), generator=r)).backward()
        learn.opt.step()
        learn.opt.zero_grad()
    return learn

def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def close(a, b, tol=1e-4): return max((x-y).abs().max().item() for x,y in zip(a, b, strict=True)) < tol

def freeze_and_thaw(learn, i):
    if i == 3: learn.freeze_to(1)
    if i == 6: learn.freeze()
    if i == 9: learn.unfreeze()

@pytest.mark.parametrize('kw', [{}, dict(wd_bn_bias=True), dict(train_bn=False)], ids=str)
@pytest.mark.parametrize('act', [None, freeze_and_thaw], ids=['plain','frozen'])
def test_same_weights_as_adam(kw, act):
    assert close(weights(by_hand(Adam, act=act, **kw)), weights(by_hand(FusedAdam, act=act, **kw)))

def test_biases_and_norms_are_spared_and_the_rest_is_not():
    ends = {k: by_hand(FusedAdam, **kw) for k,kw in dict(spared={}, all=dict(wd_bn_bias=True)).items()}
    wrapped = by_hand(partial(OptimWrapper, opt=torch.optim.AdamW, fused=True, betas=(.9,.99), eps=1e-5))
    assert not close(weights(ends['spared']), weights(ends['all'])) and not close(weights(wrapped), weights(ends['spared']))
    assert close(weights(wrapped), weights(ends['all']))     # PyTorch's own decays all
    def undone(learn, i): learn.opt.set_hypers(wd=0.)
    assert not close(weights(by_hand(FusedAdam, act=undone)), weights(ends['spared']))

def test_groups_and_hypers_are_fastais():
    a,b = by_hand(Adam, 1),by_hand(FusedAdam, 1)
    assert b.opt.hypers == a.opt.hypers and len(b.opt.param_groups) == len(b.opt.param_lists) == 3
    assert [h['lr'] for h in b.opt.hypers] == pytest.approx([1e-4, (1e-4*4e-3)**.5, 4e-3])
    assert set(b.opt.state_dict()['state'][0]) == set(a.opt.state_dict()['state'][0])

def test_without_a_fused_kernel(monkeypatch):
    want = weights(by_hand(FusedAdam))
    called = []
    monkeypatch.setattr(optimizer, '_fused', set())
    monkeypatch.setattr(optimizer, 'adamw', lambda *args, _f=optimizer.adamw, **kw: called.append(kw['foreach']) or _f(*args, **kw))
    assert close(weights(by_hand(FusedAdam)), want) and called and all(called)

@pytest.mark.parametrize('before,after', [(Adam,FusedAdam), (FusedAdam,Adam), (FusedAdam,FusedAdam)])
def test_a_saved_state_goes_on_in_either(before, after):
    "Weights and state after six steps, loaded by the other, then six more"
    kept = {}
    def keep(learn, i):
        if i == 6: kept.update(model={k: v.clone() for k,v in learn.model.state_dict().items()}, opt=deepcopy(learn.opt.state_dict()))
    whole = by_hand(before, act=keep)
    def restore(learn, i):
        if i == 6:
            learn.model.load_state_dict(kept['model'])
            learn.opt.load_state_dict(kept['opt'])
    assert close(weights(by_hand(after, act=restore)), weights(whole))

def test_a_change_of_the_memory_layout():
    "Averages and gradients follow a model that becomes channels last between two steps"
    def turn(learn, i):
        if i == 5: learn.model.to(memory_format=torch.channels_last)
    def grads_only(learn, i):
        if i == 5:
            for p in learn.model.parameters(): p.grad = torch.zeros_like(p).to(memory_format=torch.channels_last) if p.ndim == 4 else p.grad
    for act in (turn, grads_only): assert close(weights(by_hand(FusedAdam, act=act)), weights(by_hand(Adam)))

def student(opt_func=None, **kwargs):
    with no_random(0):
        return transfer_learner(digits_dls(n=5, seed=0, bs=16)[0], 'test_efficientnet', pretrained=False, epoch_len=128,
            metrics=accuracy, **kwargs, **({'opt_func': opt_func} if opt_func else {}))

def trained(learn, f):
    with learn.no_bar(), learn.no_logging(), no_random(1): f(learn)
    return learn

@pytest.mark.parametrize('fit', {
    'one cycle, a rate for each group': lambda l: l.fit_one_cycle(1, slice(1e-3, 1e-2), wd=.1), 'fine tune': lambda l: l.fine_tune(1, 2e-3),
    'accumulated': lambda l: l.fit(1, 3e-3, cbs=GradientAccumulation(32)), 'clipped': lambda l: l.fit(1, 3e-3, cbs=GradientClip(.1)),
    'channels last in the second fit': lambda l: (l.fit(1, 3e-3), l.fit(1, 3e-3, cbs=ChannelsLast()))}.values(), ids=lambda o: None)
def test_learners_train_as_with_adam(fit):
    a,b = trained(student(Adam), fit),trained(student(), fit)
    assert type(b.opt) is FusedAdam and type(a.opt) is not FusedAdam
    assert [[h[k] for h in b.opt.hypers] for k in ('lr','mom','wd')] == [[h[k] for h in a.opt.hypers] for k in ('lr','mom','wd')]
    assert list(map(float, b.recorder.losses[:4])) == pytest.approx(list(map(float, a.recorder.losses[:4])), rel=1e-3)
    assert float(b.recorder.losses[-1]) == pytest.approx(float(a.recorder.losses[-1]), rel=.1)

def test_lr_find_and_files(tmp_path):
    learn = student(path=tmp_path)
    before = weights(learn)
    rate = trained(learn, lambda l: setattr(l, 'found', l.lr_find(num_it=12, show_plot=False))).found.valley
    assert 1e-7 < rate < 10 and close(weights(learn), before, 1e-12)
    trained(learn, lambda l: l.fit_one_cycle(1, 3e-3))
    learn.save('whole', with_opt=True)
    other = student(path=tmp_path)
    other.create_opt()
    other.load('whole', with_opt=True)
    for a,b in zip(learn.opt.state_dict()['state'], other.opt.state_dict()['state'], strict=True):
        assert set(a) == set(b) and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    learn.export('student.pkl')
    loaded = load_learner(tmp_path/'student.pkl')
    loaded.create_opt()
    assert type(loaded.opt) is FusedAdam and close(weights(loaded), weights(learn), 1e-12)

def test_another_optimizer_is_kept():
    learn = student(partial(Adam, eps=1e-3))
    learn.create_opt()
    assert learn.opt.hypers[0]['eps'] == 1e-3 and type(learn.opt) is not FusedAdam
    mine = student(partial(FusedAdam, wd=.3))
    mine.create_opt()
    assert mine.opt.hypers[0]['wd'] == .3

@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='mixed precision of fastai is for CUDA')
def test_mixed_precision():
    learn = trained(student(cbs=MixedPrecision()), lambda l: l.fit(2, 3e-3))
    assert torch.stack([*learn.recorder.losses]).isfinite().all()
