"Trainings that are cut and go on, with callbacks that remember something; the notebook `resume` has the plain ones"
from functools import partial
import pytest, torch
from fastai.vision.all import (Adam, Callback, CSVLogger, EarlyStoppingCallback, MixUp, OptimWrapper, SaveModelCallback, accuracy, no_random, tensor)
from distill_nb.data import digits_dls
from distill_nb.distill import LabelsLast
from distill_nb.fixmatch import EMA, FixMatch, weak_augment
from distill_nb.learner import distill_learner
from distill_nb.resume import Resume
from distill_nb.sources import Zoo

class PowerCut(Callback):
    order,run_valid = 200,False
    def __init__(self, epoch=None, batch=3): self.at = epoch,batch
    def after_batch(self):
        if (self.epoch,self.iter) == self.at: raise KeyboardInterrupt

def new_learner(path, *cbs, seed=0, num_workers=0, **kwargs):
    with no_random(seed):
        dls,pool = digits_dls(n=5, seed=0, bs=16, num_workers=num_workers)
        return distill_learner(dls, pool, Zoo.embedded()['digits'], 'test_efficientnet', pretrained=False, path=path, store=path/'store', progress=False, epoch_len=128, metrics=accuracy, cbs=cbs, **kwargs)

def end(learn): return [*learn.model.state_dict().values(), torch.stack([*learn.recorder.losses]), tensor([list(v)[:2] for v in learn.recorder.values])]

def resumes(path, epoch, *cbs, batch=3, n=3, **kwargs):
    res = {}
    for name,folder,cut in (('cut','a',PowerCut(epoch, batch)), ('again','a',PowerCut()), ('whole','b',PowerCut())):
        learn = new_learner(path, *[cb() for cb in cbs], seed=int(name == 'again'), **kwargs)
        with learn.no_bar(), learn.no_logging(), no_random(42):
            try: learn.fit_one_cycle(n, 4e-3, cbs=[Resume(folder), cut]); assert name != 'cut'
            except KeyboardInterrupt: pass
        res[name] = end(learn)
    return all(map(torch.equal, res['again'], res['whole'])) and not all(map(torch.equal, res['again'][:-2], res['cut'][:-2]))

def fixmatch(adapt): return FixMatch(digits_dls(n=5, seed=0)[1], adapt=adapt, threshold=.3, align=True, weak=weak_augment)

@pytest.mark.parametrize('cbs,kw', {
    'best weights, log': ((partial(SaveModelCallback, monitor='accuracy'), CSVLogger), {}), 'mixup, sources': ((partial(MixUp, .4),), dict(pseudo='source')),
    'flexmatch': ((partial(fixmatch, 'flexmatch'), EMA), {}), 'freematch': ((partial(fixmatch, 'freematch'), EMA), {}), 'early stopping': ((partial(EarlyStoppingCallback, patience=2),), {}),
    'labels last': ((partial(LabelsLast, .5),), {}), 'optimizer of torch': ((), dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))), "fastai's Adam": ((), dict(opt_func=Adam)), 'a worker': ((), dict(num_workers=1))}.values(),
    ids=lambda o: None)
def test_goes_on(cbs, kw, tmp_path): assert resumes(tmp_path, 1, *cbs, **kw)

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

def test_another_training_is_refused_by_what_differs(tmp_path):
    def fit(n=2, lr=4e-3, cbs=(), **kw):
        learn = new_learner(tmp_path, **kw)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, lr, cbs=[Resume(), *cbs])
    fit()
    fit()
    for what,kw in (('epochs', dict(n=3)), ('schedule', dict(lr=1e-3)), ('callbacks', dict(lam=.3)), ('callbacks', dict(cbs=[EMA()])), ('callbacks', dict(T=2.)), ('weights', dict(pseudo='source'))):
        with pytest.raises(ValueError, match=rf'resume/fit-0.pt is of another training \([a-z, ]*{what}.*Delete the folder'): fit(**kw)
