"What each of the two processes that `test_distributed.py` starts does, and what it hands back: OUT/RANK.pt"
import sys
from pathlib import Path
from fastai.vision.all import *
from fastai.distributed import *
from distill_nb.data import image_dls
from distill_nb.items import *
from distill_nb.data import *
from distill_nb.pseudo_labels import *
from distill_nb.teachers import *
from distill_nb.teach import *
from distill_nb.student import *
from distill_nb.callbacks import *
from distill_nb.distill import *
from distill_nb.callbacks import EMA
from distill_nb.fixmatch import FixMatch, Flex, Free
from distill_nb.learner import student_learner, transfer_learner
from distill_nb.resume import Resume
from distill_nb.zoo import Zoo

ARCH,SIZES,ALPHA,LAM = 'test_efficientnet',[7,3,26],[.6,.3,.1],.4

@patch
def _broadcast(self:DistributedDL, t, rank):
    "fastai sends indices through the GPU, which is not there"
    t = tensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

class Spy(Callback):
    "What a process drew, and the loss and the gradients of its first step"
    order,run_valid = 90,False
    def before_fit(self): self.start,self.labelled,self.idx,self.n_steps,self.first = state(self.learn),[],[],0,None
    def after_backward(self):
        pool = self.learn.cbs.filter(risinstance(PoolCallback))
        self.labelled.append(plain(self.x))
        if pool: self.idx.append(pool[0].batch[1].tolist())
        if self.first is None: self.first = dict(
            xb=plain(self.x), yb=plain(self.learn.yb[0]), pool=[plain(o) for o in pool[0].batch] if pool else None, loss=plain(self.loss),
            grads={n: p.grad.clone() for n,p in get_model(self.model).named_parameters()})
    def after_step(self): self.n_steps += 1

def plain(x): return x.detach().as_subclass(Tensor).clone()
def state(learn): return {k: v.clone() for k,v in get_model(learn.model).state_dict().items()}

def task():
    "Noise: 20 labelled images of 4 classes, 61 without labels, and 42 to validate (an odd one fastai would count twice)"
    x = np.random.default_rng(0).integers(0, 256, (123,32,32,3), dtype=np.uint8)
    y = np.arange(123)%4
    return image_dls(x[:20], y[:20], x[81:], y[81:], bs=10),list(x[20:81])

def student(dls, *cbs, **kw):
    return student_learner(dls, ARCH, **{'pretrained':False, 'freeze_stats':True, 'epoch_len':80, 'metrics':accuracy, 'cbs':cbs, **kw})

def make(*cbs, **kw):
    "A distilled Learner of three teachers with 7, 3 and 26 classes"
    dls,pool = task()
    g = torch.Generator().manual_seed(0)
    teachers = StoredTeachers([3*torch.randn(len(pool), c, generator=g) for c in SIZES])
    return student(dls, Distill(pool, SourceTeacher(teachers, ALPHA), LAM, bs=15), *cbs, **kw)

def fit(learn, n=1, lr=1e-2, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, lr, **kw)

class Stop(Callback):
    "Ends training within an epoch"
    order,run_valid = 200,False
    def __init__(self, epoch=None): self.at = epoch
    def after_batch(self):
        if (self.epoch,self.iter) == (self.at,1): raise CancelFitException

def summary(learn):
    spy = learn.spy
    return dict(start=spy.start, end=state(learn), first=spy.first, idx=spy.idx, labelled=spy.labelled, n_steps=spy.n_steps,
                names=list(learn.recorder.metric_names), values=[list(o) for o in learn.recorder.values])

def main(out):
    rank,res = rank_distrib(),{}
    set_seed(rank) # the processes start from other weights, and shuffle otherwise
    learn = make(Spy(), path=out)
    with learn.distrib_ctx():
        fit(learn, 2)
        res['distill'] = summary(learn)
        fit(learn) # again in the same context
        res['again'] = summary(learn)
        with learn.no_bar(): res['valid'] = list(learn.validate())
    with learn.distrib_ctx(), learn.no_bar(), learn.no_logging(): learn.fine_tune(1, freeze_epochs=1) # and in another
    res['third'] = summary(learn)
    learn.export('student.pkl')
    res['x'] = plain(first(learn.dls.valid)[0])
    res['y'] = plain(learn.model.eval()(res['x']))

    learn = make(Spy(), GradientAccumulation(20))
    with learn.distrib_ctx(): fit(learn)
    res['accumulation'] = summary(learn)

    dls,pool = task()
    learn = student(dls, FixMatch(pool, threshold=.1, mu=2), Spy())
    with learn.distrib_ctx(): fit(learn, lr=1e-3)
    res['fixmatch'] = summary(learn)

    for name,threshold in dict(flexmatch=Flex(.3), freematch=Free()).items():
        learn = student(dls, FixMatch(pool, threshold=threshold, align=True), EMA(), Spy())
        with learn.distrib_ctx(): fit(learn, 2, lr=1e-2)
        t = learn.fix_match.thresholds
        res[name] = summary(learn)
        res[name]['learned'] = [t.latest] if name == 'flexmatch' else [t.tau.value, t.p.value, t.hist.value]
        res[name]['learned'].append(learn.fix_match.predicted.value)

    learn = student(dls, Distill(pool, SourceTeacher(LiveTeachers([Zoo.embedded()['digits']]), [1.])), Spy(), epoch_len=20)
    with learn.distrib_ctx(): fit(learn)
    res['live'] = summary(learn)

    learn = transfer_learner(dls, ARCH, pretrained=False, metrics=accuracy, cbs=Spy())
    with learn.distrib_ctx(): fit(learn)
    res['transfer'] = summary(learn)

    learn = make(Spy(), epoch_len=10) # a batch for one process alone: rounded up
    with learn.distrib_ctx(): fit(learn)
    res['short'] = summary(learn)

    for name,folder,at in (('cut','a',1), ('resumed','a',None), ('whole','b',None)):
        set_seed(rank)
        learn = make(Spy(), path=out)
        with learn.distrib_ctx(): fit(learn, 3, cbs=[Resume(folder), Stop(at)])
        res[name] = summary(learn)
    torch.save(res, Path(out)/f'{rank}.pt')

if __name__ == '__main__': main(sys.argv[1])
