"fastai's callbacks for Weights & Biases (offline) and TensorBoard on a distilled Learner: what they are told, and what they are not"
import pytest, torch
from fastcore.basics import init_args
from fastai.vision.all import Path, SaveModelCallback, accuracy
from distill_nb.callbacks import EMA
from distill_nb.export import to_onnx
from distill_nb.fixmatch import FixMatch
from distill_nb.infer import Predictor
from distill_nb.learner import distill_learner
from distill_nb.packs import digits_dls
from distill_nb.resume import Resume
from distill_nb.zoo import Zoo

@pytest.fixture
def learn(tmp_path):
    torch.manual_seed(0)
    dls,pool = digits_dls(n=5, seed=0, bs=25)
    zoo = Zoo.embedded()
    res = distill_learner(dls, pool[:200], zoo, start=zoo['objects'], metrics=accuracy, progress=False)
    res.path = tmp_path/'learn'
    res.path.mkdir()
    return res

def fit(learn, *cbs):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 4e-3, cbs=cbs)

def columns(learn): return learn.recorder.metric_names[2:-1]

def exports(learn, tmp_path):
    "A fitted Learner leaves as it should: without the callbacks' logs, pool and teachers"
    pytest.importorskip('onnxscript')
    learn.export(tmp_path/'learn.pkl')
    assert (tmp_path/'learn.pkl').stat().st_size < 3*sum(p.numel()*4 for p in learn.model.parameters())
    to_onnx(learn, tmp_path/'s.onnx')
    assert Predictor(tmp_path/'s.onnx').labels == list(learn.dls.vocab)

def test_the_settings_of_a_callback_are_numbers(learn):
    "What `learn.gather_args`, of `fastai.callback.wandb`, reports of it: neither images nor teachers"
    assert init_args(learn.distill) == dict(lam=learn.distill.lam, bs=learn.distill.bs)
    assert 'pool' not in init_args(FixMatch(learn.distill.pool))
    assert len(learn.distill.pool) == 250 and learn.distill.teacher.names        # with the labelled images

def test_tensorboard(learn, tmp_path):
    pytest.importorskip('tensorboard', reason='pip install tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    fit(learn, TensorBoardCallback(tmp_path/'log'), EMA(), Resume(tmp_path/'resume'))
    events = EventAccumulator(str(tmp_path/'log'), size_guidance=dict(scalars=0)).Reload()
    assert {'train_loss','valid_loss','accuracy','distill_loss','lr_0'} <= set(events.Tags()['scalars'])
    assert events.Tags()['graph'] and events.Tags()['images']
    for i,name in enumerate(columns(learn)):
        assert [o.value for o in events.Scalars(name)] == pytest.approx([o[i+1] for o in learn.recorder.values])
    exports(learn, tmp_path)

@pytest.fixture
def run(tmp_path, monkeypatch):
    "A run of W&B that stays on this disk, and what is logged in it"
    for k in ('WANDB_DIR','WANDB_DATA_DIR','WANDB_CACHE_DIR','WANDB_CONFIG_DIR'):
        monkeypatch.setenv(k, str(tmp_path/'wandb'))
    for k,v in dict(WANDB_MODE='offline', WANDB_SILENT='true', WANDB_DISABLE_GIT='true').items(): monkeypatch.setenv(k, v)
    (tmp_path/'wandb').mkdir()
    wandb = pytest.importorskip('wandb', reason='pip install wandb')
    run,logged,log = wandb.init(project='test', config=dict(lam=.5)),[],wandb.log
    monkeypatch.setattr(wandb, 'log', lambda d, **kw: (logged.append(d), log(d, **kw)))
    yield run,logged
    run.finish()

def test_wandb(learn, run, tmp_path, capsys):
    from fastai.callback.wandb import WandbCallback
    run,logged = run
    learn.gather_args = dict # see the tutorial
    fit(learn, SaveModelCallback(), WandbCallback(valid_dl=learn.dls.valid, n_preds=4, log_model=True), EMA())
    assert 'not able' not in capsys.readouterr().out
    del learn.gather_args
    for i,name in enumerate(columns(learn)):
        assert [d[name] for d in logged if name in d] == pytest.approx([o[i+1] for o in learn.recorder.values])
    assert sum('train_loss' in d for d in logged) == 2*len(learn.dls.train) and any('Prediction_Samples' in d for d in logged)
    assert dict(run.config) == dict(lam=.5)
    saved = Path(learn.path)/'models'/'model.pth'
    assert saved.stat().st_size < 1.5*sum(p.numel()*4 for p in learn.model.parameters())
    exports(learn, tmp_path)
    run.finish()
    files = [o for o in (tmp_path/'wandb').rglob('*') if o.is_file()]
    assert sum(o.stat().st_size for o in files) < 5e6
    text = b''.join(o.read_bytes() for o in files)
    assert not [n for n in learn.distill.names if len(n) > 5 and n.encode() in text]
