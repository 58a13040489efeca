"""A fit leaves no trace, whatever ends it: every callback of the package, interrupted at every event by everything that
can end a fit, compared with a fit that was not interrupted. New callbacks are found and must be added to `recipes`."""
import importlib, itertools, pickle, pkgutil, random
from copy import deepcopy
from functools import lru_cache, partial
import numpy as np, pytest, torch
from torch import nn
from fastai.vision.all import (Callback, CancelBatchException, CancelEpochException, CancelFitException,
    CancelTrainException, CancelValidException, Learner, accuracy, event,
    load_learner, no_random)
import distill_nb
from distill_nb.data import image_dls
from distill_nb.deploy import save_student
from distill_nb.teachers import (HintTeacher, LiveTeachers, SeveralTeachers, SourceTeacher, StoredTeachers, TargetTeacher,
    )
from distill_nb.student import create_student, student_splitter
from distill_nb.callbacks import FreezeStats, LabelsLast, PoolCallback, SyncNorms
from distill_nb.distill import Distill
from distill_nb.watch import Watch
from distill_nb.callbacks import EMA
from distill_nb.fixmatch import FixMatch, Fixed, Flex, Free
from distill_nb.resume import Resume
from distill_nb.recipe import CheckFit
from distill_nb.sources import Source
from distill_nb.zoo import Zoo

rng = np.random.default_rng(0)
pics,pool = rng.integers(0, 256, (2,10,16,16,3), dtype=np.uint8)

def data(): return image_dls(pics, [0,1]*5, valid_items=list(pics[:4]), valid_labels=[0,1]*2, size=16, bs=5)
@lru_cache
def source(): return Zoo.embedded()['digits']

g = torch.Generator().manual_seed(0)
said,probes,hints = (torch.randn(10, k, generator=g) for k in (7,2,3))
probes = probes.softmax(1)
def several(*others):
    return SeveralTeachers([*others, TargetTeacher(probes), HintTeacher(hints)], [*[.5 for _ in others], 1-.5*len(others), 1.])
def stored(): return StoredTeachers([said[:,:4], said[:,4:]])

recipes = { # name -> callbacks of a Learner
    'synchronised norms': lambda: [SyncNorms()],
    'frozen statistics':  lambda: [FreezeStats()],
    'stored teachers': lambda: [Distill(list(pool), SourceTeacher(stored(), [.7,.3]))],
    'live teachers':   lambda: [Distill(list(pool), SourceTeacher(LiveTeachers([source()]), [1.]))],
    'probes':          lambda: [Distill(list(pool), TargetTeacher(probes))],
    'probes and hints':lambda: [Distill(list(pool), several())],
    'both and hints':  lambda: [Distill(list(pool), several(SourceTeacher(stored(), [.7,.3]))), FreezeStats(), SyncNorms()],
    'labels last':     lambda: [Distill(list(pool), SourceTeacher(stored(), [.7,.3])), LabelsLast(.25)],
    'average':         lambda: [EMA(.9)],
    'check of the fit':lambda: [CheckFit()],
    'all at once':     lambda: [FixMatch(list(pool), threshold=.1), Distill(list(pool), SourceTeacher(stored(), [.7,.3])), EMA(.9),
        Watch(), LabelsLast(.5), SyncNorms()],
    **{f'fixmatch, {threshold}, align {align}': lambda threshold=threshold,align=align:
           [FixMatch(list(pool), threshold=threshold, align=align), FreezeStats()]
       for threshold,align in itertools.product((Fixed(.1),Flex(.1),Free()), (False,True,'uniform'))}}
beside = {'PoolCallback': 'a part of Distill and FixMatch', 'FitCallback': 'a part of the others',
    'Resume': 'goes on with a fit that was broken off: see `test_resume_wakes_everybody`'}

def test_no_callback_is_forgotten():
    mods = [importlib.import_module(o.name) for o in pkgutil.walk_packages(distill_nb.__path__, 'distill_nb.')
        if o.name.rpartition('.')[2] not in ('all','_modidx')]
    public = {n for o in mods for n in getattr(o, '__all__', []) if isinstance(getattr(o, n), type) and issubclass(getattr(o, n), Callback)}
    assert public - set(beside) == {type(cb).__name__ for f in recipes.values() for cb in f()}

@lru_cache
def weights():
    with no_random(): return create_student('test_efficientnet', 2, pretrained=False).state_dict()

def make(name, **kwargs):
    student = create_student('test_efficientnet', 2, pretrained=False)
    student.load_state_dict(weights())
    with no_random(): learn = Learner(data(), student, splitter=student_splitter, metrics=accuracy, cbs=recipes[name](), **kwargs)
    return learn

def start(learn, state=None, seed=0):
    "A second fit from given weights, with a new optimizer and loaders that begin anew: the losses, and the weights in the end"
    if state is not None: learn.model.load_state_dict(state)
    learn.dls.train.rng = random.Random(seed)
    with no_random(seed), learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, reset_opt=True)
    return [*learn.model.state_dict().values(), torch.stack([*learn.recorder.losses]),
        torch.tensor([float(o) for o in learn.recorder.values[-1] if o is not None])]

class At(Callback):
    "Ends a fit"
    def __init__(self, event, error, order): self.event,self.error,self.order = event,error,order
    def __call__(self, name):
        if name == self.event and self.error is not None:
            error,self.error = self.error,None
            raise error

def hooks(m): return sum(len(getattr(o, k)) for o in m.modules() for k in ('_forward_hooks','_forward_pre_hooks','_backward_hooks'))

def left(learn):
    "What can be seen of a Learner between two fits"
    pools = [cb for cb in learn.cbs if isinstance(cb, PoolCallback)]
    return dict(metrics=learn.metrics.attrgot('name'), hooks=hooks(learn.model),
        told=getattr(learn.model, 'on_features', None), loss=type(learn.loss_func).__name__, cbs=learn.cbs.map(type),
        loaders=[(cb.loader,cb.batches,cb.batch,cb.loss_u) for cb in pools],
        features=[cb.features for cb in pools if isinstance(cb, Distill)],
        average=[(cb.average,cb.trained) for cb in learn.cbs if isinstance(cb, EMA)],
        asleep=[cb for cb in learn.cbs if not cb.run], in_fit=[cb for cb in learn.cbs if getattr(cb, 'in_fit', False)],
        last=(learn.dl,learn.xb,learn.yb,learn.pred,learn.loss),
        half_read=[hasattr(dl, 'it') for dl in learn.dls.loaders], dls=[type(dl) for dl in learn.dls.loaders],
        grads=any(p.grad is not None and p.grad.any().item() for p in learn.model.parameters()))

def broken(learn, event, error, order=200):
    learn.dls.train.rng = random.Random(0)
    with no_random(), learn.no_bar(), learn.no_logging():
        try: learn.fit(2, 1e-3, cbs=At(event, error, order))
        except (KeyboardInterrupt,RuntimeError): return True
        except CancelFitException: return True                   # in an event outside of what it cancels
        except (CancelBatchException,CancelEpochException,CancelTrainException,CancelValidException): return True

ends = [(e, err) for e in event.__dict__ if e.startswith(('before_','after_')) and 'cancel' not in e
    and e != 'after_create' for err in (KeyboardInterrupt, partial(RuntimeError, 'out of memory'))]
around = 'before_fit','before_epoch','before_batch','after_pred','after_step','before_validate','after_epoch','after_fit'
ends += [(e, err) for e in around
         for err in (CancelFitException,CancelEpochException,CancelBatchException,CancelTrainException,CancelValidException)]

@pytest.fixture(scope='module')
def whole():
    res = {}
    def of(name):
        if name not in res:
            learn = make(name)
            with no_random(), learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3)
            res[name] = left(learn)
        return res[name]
    return of

@pytest.mark.parametrize('name', recipes)
def test_a_fit_leaves_no_trace(name, whole):
    "One Learner, broken off in all ways, one after the other, and what it is after each"
    learn,some = make(name),ends
    if name.startswith('fixmatch'): some = ends[list(recipes).index(name)%3::3]    # nine of a kind share them
    for (at,error),order in zip(some, itertools.cycle((200,-20,4.5))):
        broken(learn, at, error(), order)
        seen = left(learn)
        assert seen == whole(name), (at, error, {k: (v,whole(name)[k]) for k,v in seen.items() if v != whole(name)[k]})
    with learn.no_bar(), learn.no_logging(): assert len(learn.validate()) == 2
    again = make(name)
    state = {k: v.clone() for k,v in learn.model.state_dict().items()}
    assert all(map(torch.equal, start(learn), start(again, state)))

@pytest.mark.parametrize('name', recipes)
@pytest.mark.parametrize('at', ['after_pred','after_backward','before_validate'])
def test_the_next_fit_and_whoever_takes_a_learner(name, at, tmp_path):
    learn = make(name, path=tmp_path)
    assert broken(learn, at, KeyboardInterrupt())
    assert broken(learn, at, RuntimeError('another'))
    deepcopy(learn.model), deepcopy(learn), pickle.dumps(learn)
    save_student(learn, tmp_path/'s.safetensors')
    Source.from_learner(learn)
    learn.export('l.pkl')
    with learn.no_bar(), learn.no_logging():
        assert len(learn.validate()) == 2 and len(learn.get_preds()[0]) == 4 and len(learn.predict(pics[0])[2]) == 2
    if at == 'after_pred':
        learn.show_results(show=False), learn.tta(n=1)
        with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=3, show_plot=False, suggest_funcs=None)
        assert len(load_learner(tmp_path/'l.pkl').validate(dl=learn.dls.valid)) == 2

@pytest.mark.parametrize('at', ['after_batch','before_validate','after_epoch'])
def test_a_copy_from_the_middle_is_a_learner(at, tmp_path):
    "Saved, copied and exported while a fit goes on, as by a callback that keeps the best student"
    class Keep(Callback):
        order = 200
        def __call__(self, name):
            if name != at or not self.learn.training and at == 'after_batch': return
            save_student(self.learn, tmp_path/'s.safetensors')
            copy = deepcopy(self.model)
            assert hooks(copy) == 0 and copy.on_features is None and copy.source_heads is None
            if at == 'after_epoch': self.learn.export('mid.pkl')
    learn = make('all at once', path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Keep())
    if at != 'after_epoch': return
    copy = load_learner(tmp_path/'mid.pkl')
    with copy.no_bar(), copy.no_logging(): assert len(copy.validate(dl=learn.dls.valid)) == 2
    assert copy.metrics.attrgot('name') == ['accuracy']

def test_the_average_is_what_an_interrupted_fit_ends_with():
    class Seen(Callback):
        order = 300
        def after_step(self): self.want = [o.clone() for o in self.ema.average]
    for at in ('after_batch','before_validate','after_epoch','before_train'):
        learn = make('average')
        seen = Seen()
        learn.add_cb(seen)
        class Second(Callback):
            order = 301
            def __call__(self, name):
                if name == at and self.epoch == 1: raise KeyboardInterrupt
        with learn.no_bar(), learn.no_logging(), pytest.raises(KeyboardInterrupt): learn.fit(2, 1e-2, cbs=Second())
        weights = [o.detach() for o in (*learn.model.parameters(), *learn.model.buffers()) if o.is_floating_point()]
        assert all(map(torch.equal, seen.want, weights)), at

def test_labels_last_rests_by_the_clock():
    "In each fit, after a share of its batches, however the last one ended"
    class See(Callback):
        order,run_valid = 8,False
        def before_fit(self): self.steps = []
        def after_loss(self): self.steps.append(self.learn.distill.active)
    learn = make('labels last')
    broken(learn, 'after_epoch', KeyboardInterrupt())
    learn.add_cb(See())
    for _ in range(2):
        with learn.no_bar(), learn.no_logging(): learn.fit(4)
        assert learn.see.steps == [True]*2 + [False]*6

class Cut(Callback):
    "Ends a fit at an event of an epoch"
    order = 101
    def __call__(self, name):
        if (name,self.epoch) == self.at: raise KeyboardInterrupt

def test_resume_wakes_everybody(tmp_path):
    "Broken off where epochs are skipped, and all others sleep"
    class Hear(Callback):
        def before_fit(self): self.epochs = []
        def after_epoch(self): self.epochs.append(self.epoch)
    for at,n_fits,epochs in ((('after_epoch',1), 0, [0,1]), (('before_fit',0), 0, []), (('before_epoch',1), 0, []), (None, 1, [2])):
        learn,resume,cut = make('average', path=tmp_path),Resume('run'),Cut()
        cut.at,cut.order = at,99 if at and at[0] == 'before_epoch' else 101
        learn.add_cb(Hear())
        with learn.no_bar(), learn.no_logging():
            try: learn.fit(3, cbs=[resume, cut])
            except KeyboardInterrupt: assert at
            assert resume.n_fits == n_fits and all(cb.run for cb in learn.cbs) and learn.hear.epochs == epochs
            if not n_fits: continue
            learn.fit(2)
            assert learn.hear.epochs == [0,1]

def test_reading_is_no_fit(tmp_path):
    "`tta` has the events of a fit, and is none"
    learn = make('average', path=tmp_path)
    learn.add_cb(Resume('run'))
    with learn.no_bar(), learn.no_logging(): learn.tta(n=1), learn.validate(), learn.get_preds()
    assert not (tmp_path/'run').exists() and learn.resume.n_fits == 0

def test_watch_goes_on_after_a_broken_validation():
    learn = make('all at once')
    class Break(Callback):
        def before_validate(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), learn.no_bar(): learn.validate(cbs=Break())
    class Observer(Callback):
        order = 80
        def after_batch(self): self.on = self.watch.watching
    last = Observer()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=last)
    assert last.on

def test_a_learner_of_others_is_left_alone():
    "No callback of ours: fastai's own behaviour, the last batch included"
    dls = data()
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(3*16*16, 2)), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(), pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=At('after_pred', KeyboardInterrupt(), 0))
    assert learn.pred is not None
