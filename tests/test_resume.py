"Trainings that are cut and go on, with callbacks that remember something; the notebook `resume` has the plain ones"
import inspect, shutil
from functools import cache, partial
import numpy as np, pytest, torch
from fastai.vision.all import (Adam, BalancedAccuracy, Brightness, Callback, CrossEntropyLossFlat, CSVLogger,
    EarlyStoppingCallback, GradientAccumulation, GradientClip, LabelSmoothingCrossEntropyFlat, Learner,
    MixUp, OptimWrapper, RMSProp, SaveModelCallback, SGD, accuracy, aug_transforms, no_random,
    tensor, trainable_params)
from fastai.data.all import Transform, L
from distill_nb.files import seal
from distill_nb.items import image_items, item_labels
from distill_nb.data import image_dls
from distill_nb.packs import digits_dls
from distill_nb.callbacks import EMA, LabelsLast
from distill_nb.fixmatch import FixMatch, Flex, Free, weak_augment
from distill_nb.ranking import WeightedSources
from distill_nb.teach import Both, Hints, Probes, SourceClasses
from distill_nb.learner import distill_learner, fixmatch_learner, student_learner
from distill_nb.resume import Resume, write_state
from distill_nb import networks as room
from distill_nb.sources import Source
from distill_nb.zoo import Zoo

class PowerCut(Callback):
    order,run_valid = 200,False
    def __init__(self, epoch=None, batch=3): self.at = epoch,batch
    def after_batch(self):
        if (self.epoch,self.iter) == self.at: raise KeyboardInterrupt

def new_learner(path, *cbs, seed=0, num_workers=0, **kwargs):
    with no_random(seed):
        dls,pool = digits_dls(n=5, seed=0, bs=16, num_workers=num_workers)
        learn = distill_learner(dls, pool, Zoo.embedded()['digits'], 'test_efficientnet', pretrained=False, path=path,
                                store=path/'store', progress=False, epoch_len=128, metrics=accuracy, cbs=cbs, **kwargs)
    learn.dls.valid.n = 64 # a short validation
    return learn

def end(learn): return [*learn.model.state_dict().values(), torch.stack([*learn.recorder.losses]),
    tensor([list(v)[:2] for v in learn.recorder.values])]

def resumes(path, epoch, *cbs, batch=3, n=3, fit=None, **kwargs):
    res,fit = {},fit or (lambda learn, cbs: learn.fit_one_cycle(n, 4e-3, cbs=cbs))
    for name,folder,cut in (('cut','a',PowerCut(epoch, batch)), ('again','a',PowerCut()), ('whole','b',PowerCut())):
        learn = new_learner(path, *[cb() for cb in cbs], seed=int(name == 'again'), **kwargs)
        with learn.no_bar(), learn.no_logging(), no_random(42):
            try: fit(learn, [Resume(folder), cut])
            except KeyboardInterrupt: assert name == 'cut'
            else: assert name != 'cut'
        res[name] = end(learn)
    unfinished = not all(map(torch.equal, res['again'][:-2], res['cut'][:-2]))
    return all(map(torch.equal, res['again'], res['whole'])) and (unfinished or batch == 7) # no step is left after the last batch

def fixmatch(threshold): return FixMatch(digits_dls(n=5, seed=0)[1], threshold=threshold, align=True, weak=weak_augment)

@pytest.mark.parametrize('cbs,kw', {
    'best weights, log': ((partial(SaveModelCallback, monitor='accuracy'), CSVLogger), {}),
        'mixup, sources': ((partial(MixUp, .4),), dict(teach=SourceClasses())),
    'flexmatch': ((partial(fixmatch, Flex(.3)), EMA), {}), 'freematch': ((partial(fixmatch, Free()), EMA), {}),
        'early stopping': ((partial(EarlyStoppingCallback, patience=2),), {}),
    'labels last': ((partial(LabelsLast, .5),), {}),
        'optimizer of torch': ((), dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))),
        "fastai's Adam": ((), dict(opt_func=Adam)), 'a worker': ((), dict(num_workers=1))}.values(),
    ids=lambda o: None)
def test_goes_on(cbs, kw, tmp_path): assert resumes(tmp_path, 1, *cbs, **kw)

def fine_tune(learn, cbs): learn.fine_tune(2, 4e-3, freeze_epochs=1, cbs=cbs)

@pytest.mark.parametrize('epoch,batch,cbs,fit',
    [(2, 7, (), None), (1, 3, (partial(EMA, .9),), None), (1, 3, (partial(GradientAccumulation, 16*5),), None),
     (1, 3, (), fine_tune)],
    ids=['the last batch','average','accumulated gradients','the second fit'])
def test_goes_on_wherever_it_was_cut(epoch, batch, cbs, fit, tmp_path):
    "An epoch has 8 batches: gradients of 5 are accumulated when one ends"
    assert resumes(tmp_path, epoch, *cbs, batch=batch, fit=fit)

def test_every_other_epoch(tmp_path):
    "Epochs after the last file are made again"
    for folder,at in (('a',3), ('a',None), ('b',None)):
        learn = new_learner(tmp_path)
        with learn.no_bar(), learn.no_logging(), no_random(0):
            try: learn.fit_one_cycle(5, 4e-3, cbs=[Resume(folder, every=2), PowerCut(at)])
            except KeyboardInterrupt: pass
        if at is None and folder == 'a': again = end(learn)
    assert all(map(torch.equal, again, end(learn)))

def test_rows_are_shown_and_the_log_is_whole(tmp_path):
    for at in (2, None):
        learn,rows = new_learner(tmp_path, CSVLogger()),[]
        learn.logger = rows.append
        with learn.no_bar(), no_random(0):
            try: learn.fit_one_cycle(4, 4e-3, cbs=[Resume(), PowerCut(at)])
            except KeyboardInterrupt: learn.csv_logger.file.close()
    assert [r[0] for r in rows] == [0,1,2,3] and len((tmp_path/'history.csv').read_text().splitlines()) == 5
    assert learn.csv_logger.read_log()['epoch'].tolist() == [0,1,2,3]

# Another training: each argument of what makes a Learner, refused by its name

class Own(Callback):
    "A callback of a user's own"
    def __init__(self, k=1): self.k = k

tfms = dict(do_flip=False, max_rotate=10., max_zoom=1.1, max_warp=0.1, max_lighting=0)

@cache
def scans():
    "A few of the digits: labelled, the pool, validation"
    dls,pool = digits_dls(n=4, seed=0)
    y = item_labels(dls)
    by = np.argsort(y, kind='stable')
    return [np.stack([np.asarray(i) for i in o])
        for o in (image_items(dls)[by], pool[:48], image_items(dls.valid)[:16])],[y[by], item_labels(dls.valid)[:16]]

def few(of=slice(0, None, 2), y=None, bs=16, v=0, **kw):
    (x,pool,valid),(yx,yv) = scans()
    yx = yx[of] if y is None else yx[of][y]
    return image_dls(x[of], yx, valid[v:], yv[v:], vocab=[str(i) for i in range(10)], bs=bs,
        **{'batch_tfms': aug_transforms(**tfms), **kw}),pool

def add(tfm):
    dls,_ = few()
    dls.train.after_item.add(tfm)
    return dls
zoo = Zoo.embedded()
base = dict(arch='test_efficientnet', pretrained=False, epoch_len=32, metrics=accuracy, progress=False)
taught = '`sources`, `p`, `teach`'
changed = { # argument -> (words of the error, values in place of `base`'s)
    'dls': [('`dls`: the labelled images', few(slice(1, None, 2))), ('`dls`: the labels', few(y=slice(None, None, -1))),
        ('`dls`: the validation set', few(v=1)), ('`dls`: the transforms', few(batch_tfms=aug_transforms(**{**tfms, 'max_rotate': 11.}))),
        ('`dls`: the transforms', add(Brightness())), ('`dls`: the transforms', add(Transform(lambda x: x))),
        ('`dls`: the batches', few(bs=8)), ('`dls`: the batches', few(num_workers=1))],
    'unlabeled': [('`unlabeled`', few()[1][::-1]), ('`unlabeled`', few()[1][1:]), ('`unlabeled`', few()[1]//2)],
        'sources': [('`sources`', zoo['letters']), ('`sources`', WeightedSources([zoo['letters'],zoo['digits']], [.6,.4]))],
    'arch': [('`model`', 'test_resnet')], 'p': [(taught, 1.)],
        'lam': [('`lam` \\(0.5 there, 0.3 here\\)', .3)], 'teach': [(taught, o)
        for o in (SourceClasses(), SourceClasses(top_k=2), SourceClasses(live=True), Both(), Probes(T=2.), Probes(C=1.),
            Probes() + Hints())] + [('`unlabeled`', Probes(views=('crop0',))), ('`unlabeled`', Probes(labeled_too=False))],
    'probe_head': [('`probe_head`', True)],
        'bs_u': [('`bs_u`', 8)], 'ema': [('`ema`', .9)], 'epoch_len': [('`epoch_len`', 48)],
    'cbs': [('`cbs`', GradientClip(1.)), ('`cbs`', Own()), ('`cbs`', MixUp(.4))],
        'start': [('`start`', Source.from_timm('test_efficientnet', pretrained=False))],
        'pretrained': [('`pretrained`', True)], 'stages': [('`model`', 2)], 'freeze_stats': [('`freeze_stats`', True)],
    'normalize': [('`normalize`', False)], 'arch_kwargs': [('`model`', dict(drop_rate=.5))],
        'opt_func': [('`opt_func`', SGD), ('`opt_func`', partial(Adam, eps=1e-3)), ('`opt_func`', RMSProp),
        ('`opt_func`', partial(OptimWrapper, opt=torch.optim.AdamW))],
    'loss_func': [('`loss_func`', LabelSmoothingCrossEntropyFlat(eps=.5)),
        ('`loss_func`', CrossEntropyLossFlat(weight=torch.arange(10.))), ('`loss_func`', lambda p, y: p.sum()*0+y.sum()*0)],
    'lr': [('`lr`', 1e-4)], 'metrics': [('`metrics`', [accuracy, BalancedAccuracy()]), ('`metrics`', None)],
        'wd': [('`wd`', .5)], 'wd_bn_bias': [('`wd_bn_bias`', True)], 'train_bn': [('`train_bn`', False)], 'moms': [('`moms`', (.5,.5,.5))],
    'threshold': [('`threshold`', .5), ('`threshold`', Flex()), ('`threshold`', Free(fairness=.5))],
        'mu': [('`mu`', 2)], 'lam_u': [('`lam_u`', .5)], 'weak': [('`weak`', weak_augment), ('`weak`', lambda x: x)],
        'align': [('`align`', True), ('`align`', [.1]*10)],
    'splitter': [('`splitter`', trainable_params)], 'model': []}
no_matter = dict(on_error='the pool is what is left of it', store='it keeps what the sources say, to six digits',
    progress='a display', cache='the same pixels', path='where files are', model_dir='where files are',
    default_cbs='without these there is no `Resume`', self='', model='made of `arch`',
    splitter='the methods have their own; see the test of a plain Learner')

before = dict(sources=[zoo['digits'],zoo['letters']], teach=Probes())                  # what makes a change felt
needs = {}

def fit(make, path, stop=None, lr=4e-3, cbs=(), folder='resume'):
    with no_random(0): learn = make(path=path)
    with learn.no_bar(), learn.no_logging(), no_random(42):
        try: learn.fit_one_cycle(2, lr, cbs=[Resume(folder), PowerCut(stop, 1), *cbs])
        except KeyboardInterrupt: assert stop is not None
    return learn

@pytest.fixture(scope='module')
def store(tmp_path_factory): return tmp_path_factory.mktemp('store')

@pytest.fixture(scope='module')
def cut(store, tmp_path_factory):
    "A function that gives the folder of a training that was cut, made once"
    @cache
    def cut(f, *own):
        path = tmp_path_factory.mktemp('cut')
        fit(maker(f, store, **dict(own)), path, stop=1)
        return path
    return cut

def maker(f, store, **change):
    "A function that makes a Learner of `distill_learner`, `fixmatch_learner` or `student_learner` with something changed"
    dls,pool = few()
    args = {**base, 'dls': dls, 'unlabeled': pool, **({**before, 'store': store} if f is distill_learner else {}), **change}
    if isinstance(args['dls'], tuple): args['dls'] = args['dls'][0]
    if f is student_learner: del args['unlabeled'],args['progress']
    if f is fixmatch_learner: del args['progress']
    return partial(f, **args)

def of(f): return set(inspect.signature(f).parameters)
def relevant(f): return [k for k in changed if k in (of(f) | of(Learner.__init__)) - set(no_matter)]

@pytest.mark.parametrize('f,arg', [(f, k) for f in (distill_learner, fixmatch_learner) for k in relevant(f)
    if f is distill_learner or k not in relevant(distill_learner) or k in ('dls','unlabeled','ema','epoch_len')],
                         ids=lambda o: getattr(o, '__name__', o))
def test_a_changed_argument_is_refused_by_its_name(f, arg, store, cut, monkeypatch):
    real,own = room.create_network,needs.get(arg, {})
    monkeypatch.setattr(room, 'create_network', lambda arch, pretrained=False, **kw: real(arch, **kw))      # no hub
    monkeypatch.setattr(room, 'check_hub', lambda names: None)
    path = cut(f, *own.items())
    for words,value in changed[arg]:
        error = f'(?s)`Resume`: resume/fit-0.pt is of another training.*{words}.*Delete the folder'
        with pytest.raises(ValueError, match=error): fit(maker(f, store, **{**own, arg: value}), path)

@pytest.mark.parametrize('f,own', [(distill_learner, {}), (distill_learner, dict(teach=SourceClasses())),
    (distill_learner, dict(teach=Both() + Hints(1.), ema=.9)), (fixmatch_learner, {}), (student_learner, {})])
def test_the_same_goes_on(f, own, store, cut, tmp_path):
    shutil.copytree(cut(f, *own.items()), tmp_path, dirs_exist_ok=True)
    learn = fit(maker(f, store, **own), tmp_path)
    assert [len(v) for v in learn.recorder.values] == [len(learn.recorder.metric_names)-2]*2

def test_no_argument_is_forgotten():
    every = of(distill_learner) | of(fixmatch_learner) | of(student_learner) | of(Learner.__init__)
    assert every - {'kwargs'} <= set(changed) | set(no_matter)

@pytest.mark.parametrize('change', [dict(progress=True), dict(cache=False), dict(model_dir='other'), dict(store=False)],
    ids=lambda o: ''.join(o))
def test_what_does_not_matter_goes_on_to_the_same_end(change, store, cut, tmp_path):
    shutil.copytree(cut(distill_learner), tmp_path, dirs_exist_ok=True)
    make = maker(distill_learner, **{'store': store, **change})
    again,whole = fit(make, tmp_path),fit(make, tmp_path, folder='whole')
    tol = 1e-3 if 'store' in change else 0
    same = partial(torch.testing.assert_close, atol=tol, rtol=tol)
    for a,b in zip(again.model.state_dict().values(), whole.model.state_dict().values()): same(a, b)

def test_fits_are_told_apart_by_schedule_and_callbacks(store, tmp_path):
    make = maker(student_learner, store)
    fit(make, tmp_path, stop=1, cbs=[GradientClip(1.)])
    for words,kw in (('`lr`', dict(lr=1e-3, cbs=[GradientClip(1.)])),
        ('`cbs`: `GradientClip` \\(`max_norm`\\)', dict(cbs=[GradientClip(9.)])), ('`cbs`', dict(cbs=[])),
        ('`cbs`', dict(cbs=[GradientClip(1.), Own()]))):
        with pytest.raises(ValueError, match=f'another training.*{words}'): fit(make, tmp_path, **kw)
    fit(make, tmp_path, cbs=[GradientClip(1.)])

def test_a_plain_learner(tmp_path):
    dls,_ = few()
    net = lambda act=torch.nn.ReLU: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), act(), torch.nn.Flatten(), torch.nn.Linear(3600, 10))
    make = lambda act=torch.nn.ReLU, splitter=trainable_params: partial(Learner, dls, net(act),
        loss_func=CrossEntropyLossFlat(), splitter=splitter)
    fit(make(), tmp_path, stop=1)
    with pytest.raises(ValueError, match='`model`'): fit(make(torch.nn.Tanh), tmp_path)
    halves = lambda m: L(list(m[0].parameters()), list(m[3].parameters()))
    with pytest.raises(ValueError, match='`splitter`'): fit(make(splitter=halves), tmp_path)
    with pytest.raises(ValueError, match='`default_cbs`'): fit(partial(make(), default_cbs=False), tmp_path)
    fit(make(), tmp_path)

def test_what_cannot_be_digested_is_refused_before_training(store, tmp_path):
    rows = (i for i in range(3))
    for words,kw in (('`loss_func`', dict(loss_func=lambda p, y: next(rows))), ('`cbs`|`k`', dict(cbs=Own(rows))),
        ('`weak`', dict(weak=lambda x: next(rows)))):
        with pytest.raises(TypeError, match=f'(?s)`Resume`.*{words}.*`key`'): fit(maker(fixmatch_learner, store, **kw), tmp_path)
    assert not (tmp_path/'resume').exists()

def test_a_state_of_another_version_is_refused(store, tmp_path):
    for state in (dict(facts=dict(epochs=2), seed=1, epoch=1), dict(), dict(format=99)):
        write_state(tmp_path/'resume'/'fit-0.pt', state)
        with pytest.raises(ValueError, match='resume/fit-0.pt was written by another version.*Delete'):
            fit(maker(student_learner, store), tmp_path)
    (tmp_path/'resume'/'fit-0.pt').write_bytes(seal(b'something'))
    with pytest.raises(ValueError, match='fit-0.pt.*not written by `Resume`'): fit(maker(student_learner, store), tmp_path)
    (tmp_path/'resume'/'fit-0.pt').unlink()
    (tmp_path/'resume'/'fit-0.pt').mkdir()
    with pytest.raises(ValueError, match='fit-0.pt.*is a folder'): fit(maker(student_learner, store), tmp_path)
