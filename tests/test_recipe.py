"The recipe: rate, epochs and size stay within their bounds, and a fit is judged when it has ended, and only then"
import itertools, warnings
from types import SimpleNamespace
import numpy as np, pytest, torch
from torch import nn
from fastai.vision.all import Callback, CrossEntropyLossFlat, Learner, accuracy, no_random
from PIL import Image
from distill_nb import recipe
from distill_nb.data import image_dls
from distill_nb.folds import StopAfter
from distill_nb.compare import NoValidation
from distill_nb.learner import student_learner, transfer_learner
from distill_nb.recipe import CheckFit, native_size, suggested_epochs, suggested_lr, suggested_size
from distill_nb.student import create_student

# Rate

def of_size(n):
    "A student whose backbone has `n` weights, none of them in memory"
    return SimpleNamespace(backbone=nn.Linear(n, 1, bias=False, device='meta'), head=nn.Linear(9, 9))

def test_a_larger_network_never_gets_a_higher_rate():
    rates = [suggested_lr(of_size(int(10**e))) for e in np.arange(0, 9, .25)]
    assert all(a >= b for a,b in itertools.pairwise(rates)) and len(set(rates)) > 10

@pytest.mark.parametrize('n,lr', [(1, 5e-3), (150_000, 5e-3), (700_000, 1.6e-3), (3_400_000, 5e-4), (25_000_000, 1.1e-4), (10**9, 1e-4)])
def test_rates(n, lr): assert suggested_lr(of_size(n)) == lr

def test_heads_do_not_count():
    "The rate belongs to the backbone: a thousand classes more change nothing"
    assert len({suggested_lr(create_student('test_efficientnet', n, pretrained=False)) for n in (2,1000)}) == 1

def test_a_learner_trains_at_the_suggested_rate_unless_told_otherwise():
    kw = dict(pretrained=False, normalize=False, cache=False)
    learn = transfer_learner(dls(), 'test_efficientnet', **kw)
    assert learn.lr == suggested_lr(learn.model)
    assert student_learner(dls(), 'test_efficientnet', lr=.7, **kw).lr == .7
    class Peak(Callback):
        most = 0
        def after_batch(self): self.most = max(self.most, self.opt.hypers[-1]['lr'])
    for given,peak in ((), learn.lr), ((.03,), .03):
        seen = Peak()
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(4, *given, cbs=seen)
        assert seen.most == pytest.approx(peak, rel=.2)

# Epochs

@pytest.mark.parametrize('batches,steps,n', [(1,1,5), (1,600,100), (6,600,100), (7,600,86), (31,300,10), (60,300,5), (10**6,1,5)])
def test_epochs(batches, steps, n): assert suggested_epochs(batches, steps) == n

def test_epochs_depend_on_the_device(monkeypatch):
    for device,n in (('cpu',10), ('cuda',20)):
        monkeypatch.setattr(recipe, 'default_device', lambda d=device: torch.device(d))
        assert suggested_epochs(30) == n

# Size

def image(file, w, h):
    file.parent.mkdir(exist_ok=True, parents=True)
    Image.new('RGB', (w,h)).save(file)

def test_size_of_a_folder_with_files_that_cannot_be_read(tmp_path):
    for i in range(3): image(tmp_path/'a'/f'{i}.png', 60, 45)
    for i,data in enumerate((b'', b'not a picture', (tmp_path/'a'/'0.png').read_bytes()[:20])):
        (tmp_path/'a'/f'x{i}.png').write_bytes(data)
    assert suggested_size(tmp_path, most=512) == 80                                  # twice 45, in steps of 16
    for o in (tmp_path/'a').glob('?.png'): o.unlink()
    assert suggested_size(tmp_path, native=224, most=512) == 224                     # nothing is known

@pytest.mark.parametrize('sides,size', [([(8,8)], 32), ([(64,30)], 48),
    ([(30,64)], 48), ([(400,300)], 128), ([(20,20),(20,20),(400,400)], 32)])
def test_sizes(sides, size):
    "Twice the typical shorter side, in steps of 16, from 32 to the largest that is asked for"
    assert suggested_size([np.zeros((h,w,3), np.uint8) for w,h in sides], most=128) == size

def test_size_depends_on_the_device_and_the_start(monkeypatch):
    photos = [np.zeros((480,640,3), np.uint8)]
    for device,n in (('cpu',128), ('cuda',160)):
        monkeypatch.setattr(recipe, 'default_device', lambda d=device: torch.device(d))
        assert suggested_size(photos) == n and suggested_size(photos, native=100) == 96
    assert native_size('no such network', start=None) == 224

def test_a_hundred_images_are_enough_to_look_at(monkeypatch):
    seen = []
    monkeypatch.setattr(recipe, '_pixels', lambda o: seen.append(1) or (50,50))
    suggested_size([np.zeros((4,4,3), np.uint8)]*300)
    assert len(seen) == 100

# Is it working?

rng = np.random.default_rng(0)

def pics(n):
    "Images of two classes, which are dark and bright"
    y = np.arange(n)%2
    return [rng.integers(128*c, 128*c+127, (8,8,3), dtype=np.uint8) for c in y],[int(c) for c in y]

def dls():
    (x,y),(vx,vy) = pics(20),pics(12)
    return image_dls(x, y, vx, vy, vocab=['dark','bright'], size=8, bs=5)

class Centre(nn.Module):
    def forward(self, x): return x.flatten(1)-.5

def learner(loss=None):
    "A linear classifier of random start"
    with no_random():
        return Learner(dls(), nn.Sequential(Centre(), nn.Linear(8*8*3, 2)), loss_func=loss or CrossEntropyLossFlat(),
                       metrics=accuracy, cbs=CheckFit())

def always_dark(pred, y): return nn.functional.cross_entropy(pred, torch.zeros_like(y))

def said(learn, n=8, lr=.01, **kwargs):
    "What a fit warns of, errors of the user's own left aside"
    with warnings.catch_warnings(record=True) as seen, learn.no_bar(), learn.no_logging():
        warnings.simplefilter('always')
        try: learn.fit(n, lr, **kwargs)
        except KeyboardInterrupt: pass
    assert (learn.check_fit.first,learn.check_fit.last,learn.check_fit.truth) == (None,None,None)
    return [str(o.message) for o in seen if issubclass(o.category, UserWarning)]

def test_a_fit_that_is_fine_says_nothing():
    learn = learner()
    assert said(learn) == []
    assert learn.recorder.values[-1][-1] == 1

def test_a_fit_that_collapses():
    [text] = said(learner(always_dark), lr=.1)
    assert "answers 'dark' to 12 of 12 validation images: it has collapsed to one class" in text and 'lower rate, such as 1e-02' in text

def test_a_fit_that_does_harm():
    learn = learner()
    said(learn)
    [text] = said(learner_with(learn, lambda pred,y: nn.functional.cross_entropy(pred, 1-y)))
    assert 'right on 0 of 12 validation images, and its start was on 12: the training has done harm' in text

def learner_with(learn, loss):
    learn.loss_func = loss
    return learn

def test_a_fit_that_diverges():
    [text] = said(learner(lambda pred,y: always_dark(pred, y)*np.nan))
    assert 'diverged' in text

def test_a_fit_that_does_not_move():
    learn = learner()
    said(learn)
    [text] = said(learner_with(learn, lambda pred,y: pred.sum()*0 + 1))
    assert 'nothing was learned' in text and 'learn.unfreeze()' in text

def test_a_fit_without_validation_is_not_judged():
    learn = learner(always_dark)
    assert said(learn, lr=.1, cbs=NoValidation()) == []
    learn = learner(always_dark)
    learn.dls.loaders[1] = learn.dls.valid.new([])
    assert len(learn.dls.valid_ds) == 0 and said(learn, lr=.1) == []

class Stop(Callback):
    "Ctrl-C in the third epoch"
    def before_batch(self):
        if self.epoch == 2: raise KeyboardInterrupt

def test_an_interrupted_fit_is_not_judged_and_the_next_one_is():
    learn = learner(always_dark)
    assert said(learn, lr=.1, cbs=Stop()) == []
    assert learn.epoch == 2
    [text] = said(learn, lr=.1)
    assert 'collapsed' in text

def test_a_fit_that_a_callback_ends_is_judged_by_the_epochs_that_it_had():
    learn = learner(always_dark)
    [text] = said(learn, n=20, lr=.1, cbs=StopAfter(8))
    assert 'collapsed' in text and len(learn.recorder.values) == 8

def test_each_fit_is_judged_by_its_own_start():
    "What the first fit ruined is no harm of the second"
    learn = learner(always_dark)
    assert len(said(learn, lr=.1)) == 1
    assert said(learner_with(learn, CrossEntropyLossFlat()), n=20, lr=.05) == []
