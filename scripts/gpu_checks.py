"""A minute of truth: what this package does on a GPU, each check a row of checks.csv. A part of `gpu_run.py`.

Every check returns a number and raises where something is wrong; a check that fails stops no other."""
import resource, tempfile, time, warnings
from functools import partial
from io import BytesIO
from importlib.util import find_spec
from pathlib import Path
warnings.simplefilter('ignore')
import numpy as np
import torch
from PIL import Image
from fastai.vision.all import Callback, ChannelsLast, accuracy, no_random, to_float
from distill_nb.images import open_image
from distill_nb.data import image_dls
from distill_nb.packs import digits_dls
from distill_nb.deploy import load_student, save_student
from distill_nb.export import to_onnx
from distill_nb.teachers import SourceTeacher, StoredTeachers
from distill_nb.teach import SourceClasses
from distill_nb.distill import Distill
from distill_nb.fixmatch import strong_augment
from distill_nb.learner import distill_learner, fixmatch_learner, student_learner
from distill_nb.pseudo_labels import PseudoLabels
from distill_nb.resume import Resume
from distill_nb.estimators.core import metrics
from distill_nb.zoo import Zoo
from gpu_common import Table, begin, conditions, parser

class LeftOut(Exception): "The check cannot be made here"

# Numbers

def difference(a, b):
    "Largest difference of two arrays, relative to the spread of the second"
    a,b = (np.asarray(o, dtype=np.float64) for o in (a, b))
    return float(np.abs(a-b).max()/max(b.std(), 1e-12))

def below(value, most):
    assert value <= most, f'{value:.3g} is more than {most:g}'
    return value

def estimator(name, a, n, d, c):
    "The same score from an array on the GPU and on the CPU"
    r = np.random.default_rng(0)
    y = r.permutation(np.arange(n)%c)
    x = torch.tensor(np.maximum(r.normal(size=(n,d)) + .3*r.normal(size=(c,d))[y], 0))
    f = metrics[name]
    if f.needs == 'probs': x = x.softmax(1)
    here,there = float(f(x, y)), float(f(x.to(a.device), y))
    assert np.isclose(there, here, rtol=1e-6, atol=1e-9), f'{there} there, {here} on the CPU'
    return there

def source_outputs(a, most=.05):
    "Features of an embedded source, computed there and on the CPU"
    source,(_,pool) = Zoo.embedded()['objects'],digits_dls(n=5)
    x = source.normalize(torch.stack([source.tfm(open_image(o)) for o in pool[:32]]))
    with torch.inference_mode(): here,there = (source.load(d)(x.to(d))[0].cpu() for d in ('cpu', a.device))
    return below(difference(there, here), most)

# Training

class Losses(Callback):
    "The loss of every batch"
    order = 90
    def before_fit(self): self.all = []
    def after_loss(self):
        if self.training: self.all.append(self.learn.loss.detach().float())

def falling(losses):
    "The last fifth of the losses over the first; they must be finite, and fall"
    x = np.asarray(losses, dtype=np.float64)
    k = max(1, len(x)//5)
    assert np.isfinite(x).all(), f'{(~np.isfinite(x)).sum()} of {len(x)} losses are not finite'
    first,last = x[:k].mean(), x[-k:].mean()
    assert last < first, f'the loss does not fall: {first:.3f}, then {last:.3f}'
    return float(last/first)

def fall(learn, lr=4e-3):
    "Train for an epoch, see `falling`"
    keep = Losses()
    with learn.no_bar(), learn.no_logging(), no_random(0): learn.fit(1, lr, cbs=keep)
    ratio = falling(torch.stack(keep.all).cpu())
    assert all(p.isfinite().all() for p in learn.model.parameters()), 'weights are not finite'
    return ratio

def digits(n=5): return digits_dls(n=n, seed=0, bs=25)

def distilled(steps=40, store=False, **kw):
    "A Learner that distils all embedded sources; `store` keeps their outputs for the next"
    zoo,(dls,pool) = Zoo.embedded(),digits()
    own = dict(start=zoo['objects'], p=0, store=store, progress=False, epoch_len=steps*25, metrics=accuracy,
               freeze_stats=False)
    return distill_learner(dls, pool, zoo, **{**own, **kw})

def fixmatched(steps=40):
    dls,pool = digits()
    return fixmatch_learner(dls, pool, start=Zoo.embedded()['objects'], threshold=.5, epoch_len=steps*25,
                            freeze_stats=False)

def precision(a, how, steps):
    learn = distilled(steps, a.store, cbs=ChannelsLast() if 'channels last' in how else None)
    if a.device != 'cpu' and 'fp16' in how: learn.to_fp16()
    if a.device != 'cpu' and 'bf16' in how: learn.to_bf16()
    return fall(learn)

def live(a, steps):
    learn = distilled(steps, teach=SourceClasses(live=True))
    return fall(learn.to_fp16() if a.device != 'cpu' else learn)

def augmented(a):
    "Strong augmentation stays on its device, within [0,1], and changes the images"
    x = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(a.device)
    y = strong_augment(x)
    assert y.device == x.device and y.shape == x.shape and y.isfinite().all() and y.min() >= 0 and y.max() <= 1
    changed = float((y-x).abs().mean())
    assert changed > .01, f'images change by {changed:.3g} alone'
    return changed

def held(a):
    "Batches cut out of images that are held there are those that are read from files, to the bit"
    r,jpegs = np.random.default_rng(0),[]
    for i in range(24):
        f = BytesIO()
        Image.fromarray(r.integers(0, 256, (60,80+i,3), dtype=np.uint8)).save(f, 'JPEG')
        jpegs.append(f.getvalue())
    with tempfile.TemporaryDirectory() as tmp:
        dls = image_dls(jpegs, [i%3 for i in range(24)], size=24, bs=8, device=a.device, cache=tmp)
        def batches(on_device):
            with no_random(0): return [x.cpu() for x,_ in dls.train.new(shuffle=False, on_device=on_device)]
        pairs = list(zip(batches(False), batches(True)))
    assert pairs and all(torch.equal(x, y) for x,y in pairs), 'they differ'
    return len(pairs)

class Cut(Callback):
    "The power fails in the second epoch"
    order,run_valid = 200,False
    def __init__(self, fails): self.cut = fails             # by another name: `Resume` compares arguments that are kept
    def after_batch(self):
        if self.cut and self.epoch == 1 and self.iter == 2: raise KeyboardInterrupt

def resumed(a, steps, most=.05):
    "A training that was cut goes on as one that was not: difference of their last losses"
    last = {}
    with tempfile.TemporaryDirectory() as tmp:
        for name,folder,cut in (('cut','a',True), ('again','a',False), ('whole','b',False)):
            with no_random(0): learn = distilled(steps, a.store, path=Path(tmp))
            if a.device != 'cpu': learn.to_fp16()
            with learn.no_bar(), learn.no_logging(), no_random(1):
                try: learn.fit_one_cycle(2, 4e-3, cbs=[Resume(folder), Cut(cut)])
                except KeyboardInterrupt: pass
            last[name] = [float(o[0]) for o in learn.recorder.values]
    assert len(last['cut']) == 1 and len(last['again']) == 2, f"epochs: {[len(o) for o in last.values()]}"
    return below(abs(last['again'][-1]/last['whole'][-1] - 1), most)

# What leaves

def trained(a):
    learn = distilled(4, a.store)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return learn

def exported(a, most=.05):
    "A student written as safetensors and read back on the CPU gives what it gave there"
    learn = trained(a)
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as tmp:
        student = load_student(save_student(learn, Path(tmp)/'student.safetensors'))
    net = learn.model.eval()
    with torch.inference_mode(): return below(difference(student(x), to_float(net(x.to(a.device))).cpu()), most)

def onnx(a):
    "Difference between the ONNX graph and the student"
    lost = [o for o in ('onnx','onnxscript','onnxruntime') if find_spec(o) is None]
    if lost: raise LeftOut(f"{', '.join(lost)} not installed")
    learn = trained(a)
    with tempfile.TemporaryDirectory() as tmp: return to_onnx(learn, Path(tmp)/'student.onnx')

def memory(a, steps):
    "MiB at the peak of distillation from 28 sources at real size, in half precision; without a GPU, of the process"
    from step import SIZES, images, labelled
    arch,px,bs = ('test_efficientnet',64,8) if a.small else ('tf_efficientnet_lite0',160,32)
    x = images(256, px)
    labels = PseudoLabels(torch.rand(len(x), sum(SIZES)).half(), SIZES)
    distill = Distill(x, SourceTeacher(StoredTeachers(labels), torch.ones(28)/28))
    dls = labelled(x, bs, device=a.device)
    learn = student_learner(dls, arch, pretrained=False, cbs=distill, epoch_len=steps*bs)
    if a.device != 'cpu':
        learn.to_fp16()
        torch.cuda.reset_peak_memory_stats()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    if a.device != 'cpu': return torch.cuda.max_memory_allocated()/2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**10

def checks(a):
    "(name, function) of every check, the most telling first"
    steps,shape = (12,(120,24,6)) if a.small else (40,(1000,256,20))
    for o in ('fp32','fp16','bf16','fp32, channels last','fp16, channels last'):
        yield f'train: {o}', partial(precision, a, o, steps)
    yield 'train: live teachers', partial(live, a, steps)
    yield 'strong augmentation', partial(augmented, a)
    yield 'images held there', partial(held, a)
    yield 'train: fixmatch', lambda: fall(fixmatched(steps))
    yield 'outputs of a source', partial(source_outputs, a)
    yield 'resume', partial(resumed, a, max(4, steps//4))
    yield 'export: safetensors', partial(exported, a)
    yield 'memory peak, MiB', partial(memory, a, 6)
    for o in metrics:
        some = (200,64,10) if o == 'nleep' and not a.small else shape               # its mixture takes seconds
        yield f'estimator: {o}', partial(estimator, o, a, *some)
    yield 'export: onnx', partial(onnx, a)

def check(name, f):
    "One row"
    start,row = time.perf_counter(),dict(part='checks', check=name, ok=True, value=None, error='')
    try: row['value'] = f()
    except LeftOut as e: row.update(ok=None, error=f'left out: {e}')
    except Exception as e: row.update(ok=False, error=' '.join(f'{type(e).__name__}: {e}'.split())[:500])
    return row | dict(seconds=round(time.perf_counter()-start, 3))

def main(argv=None):
    a = begin(parser(__doc__), argv)
    table = Table(a.out/'checks.csv', **conditions(a))
    with tempfile.TemporaryDirectory() as a.store:
        for name,f in checks(a):
            table.add(**check(name, f))
            print(*list(table.rows[-1].values())[1:6], flush=True)

if __name__=='__main__': main()
