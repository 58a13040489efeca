"The loss against a loop written out, the edges of p, gradients, and what a distilled Learner must still do."
import math, subprocess, sys, warnings
import numpy as np, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.progress import ShowGraphCallback
from fastai.callback.schedule import *
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.learner import load_learner
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from torch import nn

from distill_nb.packs import digits_dls
from distill_nb.pseudo_labels import softmax_segments
from distill_nb.teachers import (distill_loss, HintTeacher, LiveTeachers, SeveralTeachers, SourceTeacher, StoredTeachers,
    TargetTeacher)
from distill_nb.teach import Both, Hints, Probes, SourceClasses
from distill_nb.ranking import WeightedSources
from distill_nb.student import Student, create_student
from distill_nb.callbacks import LabelsLast
from distill_nb.distill import Distill
from distill_nb.teachers import feature_hints, probe_labels
from distill_nb.learner import distill_learner, nearest_learner, student_learner, transfer_learner
from distill_nb.outputs import Outputs
from distill_nb.pseudo_labels import pseudo_labels
from distill_nb.ranking import Ranking
from distill_nb.sources import Source
from distill_nb.zoo import Zoo
from distill_nb.weights import source_weights

ARCH = dict(arch='test_efficientnet', pretrained=False)

@pytest.fixture(scope='module')
def task():
    dls,pool = digits_dls(n=5, seed=0)
    return dls,pool[:100]

@pytest.fixture(scope='module')
def store(tmp_path_factory): return tmp_path_factory.mktemp('store')

@pytest.fixture(scope='module')
def zoo(): return Zoo.embedded()[['digits','letters','objects']]

def quiet(learn, n=1, lr=1e-3, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, lr, **kw)
    return learn

def make(task, zoo, store, **kw):
    kw = {**ARCH, 'teach':SourceClasses(), 'metrics':accuracy, 'progress':False, **kw}
    chosen = Ranking(zoo, [.5,.3,.1]).choose(kw.pop('p', 1.), kw.pop('norm', None), kw.pop('top', None), min_weight=0)
    return distill_learner(*task, chosen, store=store, **kw)

def by_hand(logits, targets, alpha, T=1.):
    "Σ_s α_s CE(softmax(t_s/T), softmax(z_s/T)) T², one number at a time"
    total = 0.
    for a,z,t in zip(alpha, logits, targets):
        for zi,ti in zip(z.tolist(), t.tolist()):
            zi,ti = [o/T for o in zi],[o/T for o in ti]
            lz,lt = math.log(sum(map(math.exp, zi))),math.log(sum(map(math.exp, ti)))
            total -= a*sum(math.exp(b-lt)*(c-lz) for b,c in zip(ti, zi))/len(z)
    return total*T**2

@pytest.mark.parametrize('p', [0., .5, 1., 12., math.inf])
@pytest.mark.parametrize('T', [1., 4.])
def test_loss_is_the_formula(p, T):
    "p = 0 is uniform, p -> infinity the nearest, in between the formula, to 1e-6"
    g = torch.Generator().manual_seed(0)
    sizes,scores = [4,3,7,2],[.31,.22,.4,.05]
    logits = [torch.randn(6, c, generator=g, dtype=torch.float64) for c in sizes]
    targets = [3*torch.randn(6, c, generator=g, dtype=torch.float64) for c in sizes]
    e = [s/max(scores) for s in scores]
    alpha = [float(s == max(scores)) for s in scores] if math.isinf(p) else [o**p/sum(q**p for q in e) for o in e]
    if p == 0: assert alpha == [1/4]*4
    ours = distill_loss(torch.cat(logits, 1).float(), softmax_segments(torch.cat(targets, 1), sizes, T), sizes,
                        torch.tensor(source_weights(scores, p=p)), T)
    assert abs(float(ours) - by_hand(logits, targets, alpha, T))/T**2 < 1e-6

def test_loss_of_a_step_is_the_formula(task, zoo, store):
    "The Learner's own loss in a training step, from its own batch"
    learn = make(task, zoo, store, lam=.3)
    seen = {}
    class Spy(Distill.__mro__[2]): # a plain fastai Callback
        order = 6
        def after_loss(self):
            d = self.learn.distill
            if 'loss' in seen or not self.training: return
            x,idx = d.batch
            f = d.features.detach()
            z = self.model.source_heads(f[d.lo:d.hi]).detach().split(d.teacher.sizes, 1)
            t = d.teacher.teachers.labels[idx].log().split(d.teacher.sizes, 1)
            ce = nn.functional.cross_entropy(self.model.head(f[:d.lo]).detach(), self.yb[0].as_subclass(torch.Tensor))
            seen.update(loss=float(self.learn.loss), expect=.3*float(ce) + .7*by_hand(z, t, d.alpha.tolist()))
    quiet(learn, cbs=Spy())
    assert seen['loss'] == pytest.approx(seen['expect'], abs=1e-5)

def test_student_moves_and_teachers_do_not(task, zoo, store):
    learn = make(task, zoo, store, teach=SourceClasses(live=True), lam=.5)
    before = {n: p.detach().clone() for n,p in learn.model.named_parameters()}
    learn.distill.teacher.teachers.to('cpu')
    frozen = [{n: v.clone() for n,v in net.state_dict().items()} for net in learn.distill.teacher.teachers.nets]
    calls = []
    hooks = [net.register_forward_hook(lambda m, i, o: calls.append((torch.is_inference_mode_enabled(), m.training)))
             for net in learn.distill.teacher.teachers.nets]
    quiet(learn)
    for h in hooks: h.remove()
    still = [n for n,p in learn.model.named_parameters() if torch.equal(before[n], p.detach())]
    assert still == []
    assert len(calls) == 3*len(learn.dls.train) # each teacher once a step, and never in validation
    assert set(calls) == {(True, False)}
    for net,state in zip(learn.distill.teacher.teachers.nets, frozen):
        assert all(torch.equal(v, state[n]) for n,v in net.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())

def test_nil_weight_never_runs(task, zoo, store):
    "A source without weight is neither looked up nor loaded"
    broken = Source.from_module(nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 2)), mean=(0,0,0), std=(1,1,1), size=32, name='broken')
    def fail(*a, **k): raise AssertionError('a source of nil weight was run')
    broken.load = fail
    learn = distill_learner(*task, Ranking(Zoo([zoo['digits'], broken]), [1,0]).choose(), store=store, progress=False, **ARCH)
    assert learn.distill.names == ['digits']
    near = nearest_learner(*task, Ranking(Zoo([zoo['digits'], broken]), [.5,.3]), store=store, progress=False, **ARCH)
    assert near.distill.names == ['digits']

def test_lam_one_is_plain_training(task, zoo, store):
    "λ = 1 asks nobody, and trains exactly as transfer does"
    losses = []
    for learn in (lambda: make(task, zoo, store, lam=1., epoch_len=100),
                  lambda: transfer_learner(task[0], **ARCH, metrics=accuracy, epoch_len=100)):
        set_seed(0, reproducible=True)
        l = learn()
        assert l.model.source_heads is None
        set_seed(0, reproducible=True)
        nn.init.zeros_(l.model.head.weight)
        for p in params(l.model.backbone): p.data.fill_(.01)
        quiet(l)
        losses.append(torch.stack(list(l.recorder.losses)))
    assert torch.equal(*losses)

def test_fastai_citizen(task, zoo, store, tmp_path):
    "lr_find, fit_one_cycle, fine_tune, freeze, validate, get_preds, predict, show_results, MixUp, accumulation, ShowGraph, SaveModel, tta"
    import matplotlib
    matplotlib.use('agg')
    learn = make(task, zoo, store, lam=.5, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        before = {k:v.clone() for k,v in learn.model.state_dict().items()}
        learn.lr_find(num_it=8, show_plot=False)
        assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items()) # the source heads too
        learn.fine_tune(1, freeze_epochs=1)
        learn.freeze()
        assert not learn.model.backbone.conv_stem.weight.requires_grad and learn.model.source_heads.weight.requires_grad
        learn.unfreeze()
    with learn.no_logging():
        learn.fit_one_cycle(1, slice(1e-4, 1e-3), cbs=[MixUp(), GradientAccumulation(100), ShowGraphCallback(),
                                                       SaveModelCallback(monitor='accuracy')])
    with learn.no_bar(), learn.no_logging():
        assert learn.recorder.metric_names == ['epoch','train_loss','valid_loss','accuracy','distill_loss','time']
        record = learn.recorder.values[-1]
        loss,acc = learn.validate()
        preds,targs = learn.get_preds()
        plain = nn.functional.nll_loss(preds.log(), targs.as_subclass(torch.Tensor).long())
        assert float(plain) == pytest.approx(loss, abs=1e-3) # valid_loss is the target's loss alone
        assert float(accuracy(preds, targs)) == pytest.approx(acc, abs=1e-6)
        assert float(record[3]) > 0
        test = learn.dls.test_dl(list(task[1][:4]))
        assert learn.get_preds(dl=test)[0].shape == (4,10)
        cat,idx,probs = learn.predict(task[1][0])
        assert cat in learn.dls.vocab and probs.shape == (10,)
        learn.show_results(max_n=2)
        assert learn.tta(n=2)[0].shape[1] == 10
        assert [m.name for m in learn.metrics] == ['accuracy']
        learn.save('there')
        learn.load('there')
    matplotlib.pyplot.close('all')

def test_mixed_precision(task, zoo, store):
    "bf16 autocast on the CPU stands in for the GPU's fp16: teachers, heads and loss work under it"
    class CPUAutocast(MixedPrecision):
        def before_fit(self): self.autocast = torch.autocast('cpu', dtype=torch.bfloat16)
        def before_backward(self): pass
        def before_step(self): pass
        def after_step(self): pass
        def after_fit(self): pass
    for live in (False, True):
        learn = make(task, zoo, store, lam=.5, teach=SourceClasses(live=live))
        quiet(learn, cbs=CPUAutocast())
        assert all(torch.isfinite(p).all() for p in learn.model.parameters())
    if not torch.cuda.is_available():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            quiet(make(task, zoo, store, lam=.5).to_fp16()) # degrades to fp32 without a GPU

@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_fp16_on_gpu(task, zoo, store):
    for live in (False, True): quiet(make(task, zoo, store, lam=.5, teach=SourceClasses(live=live)).to_fp16())

def test_export_holds_the_student_alone(task, zoo, store, tmp_path):
    learn = quiet(make(task, zoo, store, lam=.5, path=tmp_path))
    plain = quiet(transfer_learner(task[0], **ARCH, metrics=accuracy, path=tmp_path, epoch_len=len(learn.dls.train)*50))
    learn.export('student.pkl')
    plain.export('control.pkl') # names of one length: a torch file repeats its name for every tensor
    sizes = [(tmp_path/f).stat().st_size for f in ('student.pkl','control.pkl')]
    assert sizes[0] < sizes[1] + 1024
    assert learn.model.source_heads is not None # goes on training where it was
    quiet(learn)
    code = f"""
import warnings; warnings.simplefilter('ignore')
import sys, torch
from fastai.learner import load_learner
learn = load_learner({str(tmp_path/'student.pkl')!r})
assert learn.model.source_heads is None
from distill_nb.packs import digits_dls
dls,pool = digits_dls(n=5, seed=0)
with learn.no_bar(): print(learn.predict(pool[0])[0])
"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    with learn.no_bar(): learn2 = load_learner(tmp_path/'student.pkl')
    with learn2.no_bar(): said = learn2.predict(task[1][0])[0]
    assert out.stdout.split()[-1] == said

def test_exported_learner_says_that_it_cannot_distil(task, zoo, store, tmp_path):
    learn = make(task, zoo, store, lam=.5, path=tmp_path)
    learn.export('a.pkl')
    back = load_learner(tmp_path/'a.pkl')
    back.dls = learn.dls
    with pytest.warns(UserWarning, match='without Distill'): quiet(back)

def test_interrupted_fit_leaves_a_learner_that_works(task, zoo, store, tmp_path):
    learn = make(task, zoo, store, lam=.5, path=tmp_path)
    class Stop(Distill.__mro__[2]):
        def after_step(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): quiet(learn, cbs=Stop())
    quiet(learn)
    assert [m.name for m in learn.metrics] == ['accuracy']
    assert len(learn.model.backbone._forward_hooks) == 0
    learn.export('a.pkl')

def test_cancelled_training(task, zoo, store):
    "fastai fires after_cancel_train and then after_train"
    learn = make(task, zoo, store, lam=.5)
    quiet(learn, cbs=ShortEpochCallback(pct=.5))
    assert learn.model.on_features is learn.distill.features is None

def test_same_seed_same_student(task, zoo, store):
    out = []
    for _ in range(2):
        set_seed(3, reproducible=True)
        learn = quiet(make(task, zoo, store, lam=.5))
        out.append(torch.stack(list(learn.recorder.losses)))
    assert torch.equal(*out)

def test_callers_dls_are_left_alone(task, zoo, store):
    dls,_ = task
    before = (len(dls.train), dls.train.bs, [type(f) for f in dls.after_batch.fs])
    quiet(make(task, zoo, store, lam=.5))
    assert before == (len(dls.train), dls.train.bs, [type(f) for f in dls.after_batch.fs])

def test_freeze_stats(task):
    start = create_student('test_efficientnet', 10, pretrained=False).backbone.state_dict()
    for freeze in (True, False):
        learn = student_learner(task[0], **{**ARCH, 'start': start}, freeze_stats=freeze)
        quiet(learn)
        same = [torch.equal(v.cpu(), start[k]) for k,v in learn.model.backbone.state_dict().items() if 'running_mean' in k]
        assert all(same) if freeze else not any(same)
        assert not torch.equal(learn.model.backbone.bn1.weight.detach().cpu(), start['bn1.weight'])

def test_what_teaches(task, zoo, store):
    """By default probes, in the target's classes, and the head starts from one where the student has a start; the
    paper's recipe is one option away"""
    start = create_student('test_efficientnet', 10, pretrained=False).backbone.state_dict()
    kw = dict(store=store, progress=False, arch='test_efficientnet', start=start)
    ways = {None: {}, 'probe': dict(teach=Probes()), 'source': dict(teach=SourceClasses()), 'both': dict(teach=Both())}
    learns = {o: distill_learner(*task, zoo['digits'], **kw, **way) for o,way in ways.items()}
    made = {o: (type(l.distill.teacher), l.model.source_heads is not None) for o,l in learns.items()}
    assert made == {None: (TargetTeacher,False), 'probe': (TargetTeacher,False), 'source': (SourceTeacher,True),
                    'both': (SeveralTeachers,True)}
    from_probe = transfer_learner(task[0], arch='test_efficientnet', start=start, probe_head=True).model.head.weight
    same = {o: torch.allclose(l.model.head.weight, from_probe, atol=1e-4) for o,l in learns.items()}
    assert same == {None: True, 'probe': True, 'source': False, 'both': True}
    # asked otherwise, or nothing to start from
    for kws in (dict(probe_head=False), dict(start=None, pretrained=False)):
        assert not torch.allclose(distill_learner(*task, zoo['digits'], **{**kw, **kws}).model.head.weight, from_probe, atol=1e-4)
    assert isinstance(nearest_learner(*task, zoo['digits'], **kw).distill.teacher, SourceTeacher)

def test_temperature_softens_probes_and_student(task, zoo, store):
    "T is for what the probes say, and for the student that learns it; the factor T² keeps the gradient's size"
    kw = dict(store=store, progress=False, epoch_len=50, **ARCH)
    learn,cold = distill_learner(*task, zoo['digits'], teach=Probes(T=3), **kw),distill_learner(*task, zoo['digits'], **kw)
    assert (learn.distill.teacher.probs.max(1).values < cold.distill.teacher.probs.max(1).values).all()
    class ByHand(Callback):
        order,run_valid,seen = 6,False,()
        def after_pred(self):
            d = self.learn.distill
            z,p = self.model.head(d.features[d.lo:d.hi]).double()/3,d.teacher.probs[d.batch[1]]
            self.seen = (*self.seen, (float(d.loss_u.detach()), float(-9*(z.log_softmax(1)*p).sum(1).mean().detach())))
    hand = ByHand()
    quiet(learn, cbs=hand)
    assert len(hand.seen) and np.allclose(*zip(*hand.seen), rtol=1e-4)

@pytest.mark.parametrize('k', [4,64])
def test_hints_start_at_the_whole_variance(task, zoo, store, k):
    "However many numbers the features boil down to: at first all of their variance is unseen, which is 1, and it falls"
    dls,pool = task
    hints = feature_hints(list(zoo), [1/3]*3, pool, k=k, store=store, progress=False)
    unseen = Distill(pool, HintTeacher(hints), lam=.5)
    class Trace(Callback):
        run_valid,seen = False,()
        def after_batch(self): self.seen = (*self.seen, float(unseen.loss_u.detach()))
    learn,trace = student_learner(dls, **ARCH, epoch_len=600, cbs=[unseen]),Trace()
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 2e-3, cbs=trace)
    assert trace.seen[0] == pytest.approx(float(hints.square().sum(1).mean()), abs=.35)
    assert max(trace.seen) < 2 and np.mean(trace.seen[-8:]) < .9*np.mean(trace.seen[:8]), trace.seen

def test_labels_last(task, zoo, store):
    class Sizes(Callback):
        order,run_valid = 6,False
        def before_fit(self): self.seen = []
        def before_batch(self): self.seen.append(len(self.x) > len(self.y))
    sizes = Sizes()
    learn = quiet(make(task, zoo, store, cbs=[LabelsLast(.6), sizes], epoch_len=250), 2)
    n = len(sizes.seen)
    assert sizes.seen == [i < .6*n for i in range(n)] and learn.distill.active                # rests, and is back after the fit
    quiet(learn, 1)
    assert sizes.seen[0] and not sizes.seen[-1]
    quiet(make(task, zoo, store, cbs=[LabelsLast(0.), sizes], epoch_len=250))
    assert sizes.seen and not any(sizes.seen)
    with pytest.raises(ValueError, match='`start`'): LabelsLast(1.2)

def test_a_cut_student_is_a_student(task, zoo, store, tmp_path):
    dls,_ = task
    start = create_student('test_efficientnet', 10, pretrained=False)
    learn = make(task, zoo, store, arch='test_efficientnet', start=start.backbone.state_dict(), stages=3)
    whole = start.backbone.state_dict()
    cut = learn.model.backbone.state_dict()
    assert cut and all(torch.equal(v, whole[k]) for k,v in cut.items()) and len(cut) < len(whole)
    quiet(learn)
    learn.export(tmp_path/'s.pkl')
    again = load_learner(tmp_path/'s.pkl')
    xb = dls.valid.one_batch()[0].cpu()
    assert torch.equal(again.model.cpu().eval()(xb), learn.model.cpu().eval()(xb))
    with pytest.raises(ValueError, match='`stages` of test_efficientnet are 1 to 5, not 6'):
        make(task, zoo, store, arch='test_efficientnet', stages=6)
    with pytest.raises(ValueError, match='`start`'):
        make(task, zoo, store, arch='test_efficientnet', start=create_student('test_convnext', 10,
                pretrained=False).backbone.state_dict(), stages=3)

def test_labeled_images_are_in_the_pool(task, zoo, store):
    assert len(make(task, zoo, store).distill.pool) == len(task[1]) + 50
    assert len(make(task, zoo, store, teach=SourceClasses(labeled_too=False)).distill.pool) == len(task[1])

def test_bad_input(task, zoo, store):
    dls,pool = task
    none = Source.from_module(nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 4)), mean=(0,0,0), std=(1,1,1), size=32,
                              name='selfsup', classifier=False)
    for match,kw in {'`lam`':dict(lam=1.2), '`p`':dict(p=-1), '`norm`':dict(norm='what'), '`top`':dict(top=9)}.items():
        with pytest.raises(ValueError, match=match): make(task, zoo, store, **kw)
    with pytest.raises(ValueError, match='`T`'): SourceClasses(T=0)
    for match,alpha in {'2 weights':[1,1], 'not be|not all|finite':[0,0,0], 'NaN':[1,math.nan,0]}.items():
        with pytest.raises(ValueError, match=match): WeightedSources(zoo, alpha)
    with pytest.raises(TypeError, match='`teach`'): make(task, zoo, store, teach='source')
    with pytest.raises(ValueError, match='selfsup has no classifier'): distill_learner(dls, pool, none, teach=SourceClasses(), **ARCH)
    with pytest.raises(ValueError, match='empty'): distill_learner(dls, pool, Zoo([]), **ARCH)
    with pytest.raises(ValueError): distill_learner(dls, [], zoo['digits'], **ARCH)
    arrays = Source.from_arrays('arrays', list(pool), features=np.random.rand(len(pool), 5), probs=np.full((len(pool), 2), .5))
    with pytest.raises(ValueError, match='no model to run'): distill_learner(dls, pool, arrays, teach=SourceClasses(live=True), **ARCH)
    learn = quiet(distill_learner(dls, pool, arrays, teach=SourceClasses(labeled_too=False), store=False,
                                  progress=False, **ARCH)) # arrays can teach
    assert learn.distill.teacher.sizes == [2]

def test_a_network_of_ones_own(task, zoo, store):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    learn = quiet(make(task, zoo, store, arch=body, pretrained=False))
    assert isinstance(learn.model, Student) and learn.model.head.in_features == 8

@pytest.mark.parametrize('teach', [
    Probes(T=1e-3), Probes(T=1e3), SourceClasses(T=1e3), Both(probes=Probes(T=1e-3), classes=SourceClasses(T=1e-3)) + Hints(1e6),
    Probes() + Hints(1e6), Probes() + Hints(1e-30)], ids=lambda o: repr(o).replace('[','(').replace(']',')'))
def test_weights_stay_finite_at_the_edges(task, zoo, store, teach):
    "At the least and the largest temperature and weight of hints that are allowed"
    learn = quiet(make(task, zoo, store, teach=teach, epoch_len=64))
    assert all(p.isfinite().all() for p in learn.model.parameters()) and all(math.isfinite(o) for o in learn.recorder.values[-1])

beyond = [math.inf, 1e20, math.nextafter(1e3, 2e3), math.nextafter(1e-3, 0), 1e-300, 0, -1, math.nan, 10**400, '2', None, torch.ones(2)]

@pytest.mark.parametrize('v', beyond, ids=lambda v: str(v)[:20])
def test_temperatures_beyond_the_range_are_refused_everywhere(task, zoo, v):
    dls,pool = task
    z,probes = torch.zeros(len(pool), 3),torch.full((len(pool),10), .1)
    for f in (lambda: Probes(T=v), lambda: SourceClasses(T=v), lambda: TargetTeacher(probes, v),
              lambda: SourceTeacher(StoredTeachers([z]), [1.], v), lambda: StoredTeachers([z], v),
              lambda: LiveTeachers(zoo, v), lambda: Outputs(z, z).probs(v),
              lambda: pseudo_labels(zoo, pool, T=v, store=False),
              lambda: probe_labels(list(zoo), [.5,.3,.2], dls, pool, T=v, store=False),
              lambda: softmax_segments(z, [3], v), lambda: distill_loss(z, z, [3], torch.ones(1), v)):
        with pytest.raises(ValueError, match='`T`'): f()

@pytest.mark.parametrize('v', [math.inf, 1e20, math.nextafter(1e6, 2e6), -1, math.nan, 10**400, '2'], ids=str)
def test_weights_of_hints_beyond_the_range_are_refused(v):
    with pytest.raises(ValueError, match='`weight`'): Hints(v)
