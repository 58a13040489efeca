"Two processes (gloo, on the CPU) train as one would on the union of their batches; `distributed_script.py` is what they run."
import os, socket, subprocess, sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
import pytest, torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import load_learner
from torch import nn
from distill_nb.learner import transfer_learner
pytest.importorskip('accelerate')
from distributed_script import ARCH, make, task

here = Path(__file__).resolve().parent

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def train(out):
    "Both processes; they write into `out`"
    env = {**os.environ, 'ACCELERATE_USE_CPU':'true', 'OMP_NUM_THREADS':'1', 'MPLBACKEND':'agg',
           'PYTHONPATH':os.pathsep.join(filter(None, [str(here.parent), os.environ.get('PYTHONPATH')]))}
    if sys.platform == 'linux': env['GLOO_SOCKET_IFNAME'] = 'lo' # nothing leaves this machine
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-addr', '127.0.0.1',
           '--master-port', str(free_port()),
           str(here/'distributed_script.py'), str(out)]
    proc = subprocess.Popen(cmd, env=env, cwd=out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try: log,_ = proc.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        proc.terminate() # which ends the processes that it started
        log,_ = proc.communicate(timeout=30)
        pytest.fail(f'the processes hang:\n{log[-5000:]}')
    assert proc.returncode == 0, log[-5000:]

@pytest.fixture(scope='module')
def ranks(once):
    "What the two processes hand back, and the folder they wrote into"
    out = once('ranks', train)
    return [torch.load(out/f'{r}.pt', weights_only=False) for r in range(2)] + [out]

def passes(ranks, key, n):
    "The pool's images that each process drew, `n` batches to a pass"
    a,b = (r[key]['idx'] for r in ranks[:2])
    return [(sum(a[i:i+n], []), sum(b[i:i+n], [])) for i in range(0, len(a), n)]

def test_step_equals_that_of_one_process_on_the_union(ranks):
    "Loss and gradients, those of the source heads too, within 1e-5 of their size"
    steps = [r['distill']['first'] for r in ranks[:2]]
    union = {k: torch.cat([s[k] for s in steps]) for k in ('xb','yb')}
    pool = tuple(torch.cat(o) for o in zip(*[s['pool'] for s in steps]))
    class Union(Callback):
        order = 4 # before Distill
        def before_batch(self):
            self.learn.xb,self.learn.yb = (union['xb'],),(union['yb'],)
            self.learn.distill.batches = iter([pool])
        def after_backward(self):
            self.found = float(self.learn.loss),{n: p.grad.clone() for n,p in self.model.named_parameters()}
            raise CancelFitException
    learn = make()
    learn.model.load_state_dict(ranks[0]['distill']['start'])
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=(cb := Union()))
    loss,grads = cb.found
    assert len(union['yb']) == 20 and len(pool[1]) == 30
    assert sum(float(s['loss']) for s in steps)/2 == pytest.approx(loss, rel=1e-5)
    assert set(grads) == set(steps[0]['grads']) and 'source_heads.weight' in grads
    for s in steps:
        for n,g in grads.items(): assert (s['grads'][n] - g).norm() <= 1e-5*g.norm() + 1e-7, n
    assert all(g.norm() > 0 for n,g in grads.items() if 'heads' in n or n.startswith('head'))

def test_each_draws_its_own_images(ranks):
    "A pass of 61 images, two batches of 15 for each process: none twice, and other ones each time"
    drawn = passes(ranks, 'distill', 2)
    assert len(drawn) == 4
    for a,b in drawn: assert len(a) == len(b) == 30 and len(set(a+b)) >= 59 # 61 is odd: one image may come twice
    assert len({tuple(a) for a,_ in drawn}) == len({frozenset(a) for a,_ in drawn}) == 4
    assert len(set().union(*[{*a, *b} for a,b in drawn])) == 61

def test_labelled_images_are_shared_out(ranks):
    "20 images, 80 drawn by both together: each image four times, whoever gets it, as in one process"
    x = torch.cat([r['distill']['labelled'][i] for r in ranks[:2] for i in range(4)])
    _,counts = x.flatten(1).unique(dim=0, return_counts=True)
    assert counts.tolist() == [4]*20

@pytest.mark.parametrize('key', ['distill','again','third','accumulation','fixmatch','flexmatch','freematch','live','transfer','short'])
def test_processes_agree(ranks, key):
    "The same weights on both before and after, which have moved; the same records"
    a,b = (r[key] for r in ranks[:2])
    for k in ('start','end'): assert all(torch.equal(v, b[k][n]) for n,v in a[k].items())
    assert all((v != a['start'][n]).any() for n,v in a['end'].items() if n.endswith('weight'))
    assert all(torch.isfinite(v).all() for v in a['end'].values())
    assert a['values'] and [v[:-1] for v in a['values']] == [v[:-1] for v in b['values']]

def test_number_of_steps(ranks):
    "An epoch of 80 is four steps of 2 x 10; one that is too short for a batch each is one step"
    n = {k: len(ranks[0][k]['labelled']) for k in ('distill','again','accumulation','fixmatch','live','transfer','short')}
    assert n == dict(distill=8, again=4, accumulation=4, fixmatch=4, live=1, transfer=1, short=1)

def test_columns(ranks):
    r = ranks[0]
    assert r['distill']['names'] == ['epoch','train_loss','valid_loss','accuracy','distill_loss','time']
    assert r['fixmatch']['names'] == ['epoch','train_loss','valid_loss','accuracy','fixmatch_loss','confident','time']
    assert r['transfer']['names'] == ['epoch','train_loss','valid_loss','accuracy','time']

@pytest.mark.parametrize('key', ['flexmatch','freematch'])
def test_thresholds_and_alignment_are_shared(ranks, key):
    "Each process knows what the others saw: FlexMatch's table, the running means"
    a,b = (r[key]['learned'] for r in ranks[:2])
    for x,y in zip(a, b): torch.testing.assert_close(x, y, atol=0, rtol=0)
    if key == 'flexmatch':
        seen = {i for r in ranks[:2] for i in r[key]['idx'] for i in i}
        assert not (set(torch.nonzero(a[0] >= 0).flatten().tolist()) - seen)

def test_accumulation_adds_up(ranks):
    "GradientAccumulation counts the images of one process: a step of the optimizer every second batch"
    assert ranks[0]['accumulation']['n_steps'] == 2

def test_validation_and_export(ranks):
    "`validate` on two processes is that of the exported student on one"
    *two,out = ranks
    assert two[0]['valid'] == two[1]['valid']
    learn = load_learner(out/'student.pkl')
    assert learn.model.source_heads is None
    assert torch.allclose(learn.model.eval()(two[0]['x']), two[0]['y'], atol=1e-6)
    learn = make()
    learn.model.load_state_dict(two[0]['again']['end'])
    with learn.no_bar(): loss,acc = learn.validate()
    assert (loss,acc) == pytest.approx(two[0]['valid'], abs=1e-5)

def test_norms_keep_their_activation(monkeypatch):
    "torch's own conversion to synchronised batch norms, which fastai applies, would drop timm's activations"
    monkeypatch.setenv('WORLD_SIZE', '2')
    for learn in (transfer_learner(task()[0], ARCH, pretrained=False), make(freeze_stats=False)):
        x,before = torch.randn(4, 3, 32, 32),deepcopy(learn.model.eval())
        for _ in range(2): # two contexts
            learn.distributed_trainer = SimpleNamespace(sync_bn=True, accelerator=SimpleNamespace(device=torch.device('cuda')))
            for cb in learn.cbs.sorted('order'):
                if cb.order < 11: cb('before_fit')
            assert not learn.distributed_trainer.sync_bn
        norms = [m for m in learn.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
        assert torch.equal(learn.model.eval()(x), before(x))

def test_an_interrupted_training_goes_on(ranks):
    for r in ranks[:2]:
        cut,resumed,whole = r['cut'],r['resumed'],r['whole']
        assert all(torch.equal(v, whole['end'][k]) for k,v in resumed['end'].items())
        assert any(not torch.equal(v, whole['end'][k]) for k,v in cut['end'].items())
        assert resumed['idx'] == whole['idx'][-len(resumed['idx']):] and len(resumed['idx']) == len(whole['idx'])*2//3
        assert [v[:-1] for v in resumed['values']] == [v[:-1] for v in whole['values']]
    assert ranks[0]['whole']['idx'] != ranks[1]['whole']['idx']
