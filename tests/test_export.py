"A student's graphs give its answers, with its metadata; what it costs is counted"
import json
from copy import deepcopy
import numpy as np, pytest, timm, torch
from torch import nn
from fastai.vision.all import Learner, Normalize, accuracy, imagenet_stats
from distill_nb.packs import digits_dls
from distill_nb.student import create_student, student_splitter
from distill_nb.sources import Source
from distill_nb.export import *

def student(arch='test_efficientnet', n_out=7):
    torch.manual_seed(0)
    return create_student(arch, n_out, pretrained=False).eval()

@pytest.fixture(scope='module')
def learn():
    dls,_ = digits_dls(n=2, seed=0)
    dls.add_tfms([Normalize.from_stats(*imagenet_stats)], 'after_batch')
    learn = Learner(dls, student(n_out=10), splitter=student_splitter, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return learn

def test_onnx(learn, tmp_path, capfd, recwarn):
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    learn.model.train()
    learn.model.source_heads = nn.Linear(learn.model.head.in_features, 5000)
    try:
        diff = to_onnx(learn, tmp_path/'a.onnx', softmax=True)
        assert to_onnx(learn, tmp_path/'b.onnx', normalize=False) < 1e-3
    finally: learn.model.source_heads = None
    assert learn.model.training and diff < 1e-4
    out,err = capfd.readouterr()
    assert out+err == '' and [str(w.message) for w in recwarn] == []
    assert sorted(o.name for o in tmp_path.iterdir()) == ['a.onnx', 'b.onnx']
    assert (tmp_path/'a.onnx').stat().st_size < 2e6
    net = deepcopy(learn.model).cpu().eval()
    x01 = torch.rand(7, 3, 32, 32)
    mean,std = [torch.tensor(o)[:,None,None] for o in imagenet_stats]
    with torch.no_grad(): logits = net((x01-mean)/std)
    run = lambda f,x: ort.InferenceSession(str(tmp_path/f), providers=['CPUExecutionProvider']).run(None, {'image': x.numpy()})[0]
    np.testing.assert_allclose(run('a.onnx', x01), logits.softmax(1).numpy(), atol=1e-4)
    np.testing.assert_allclose(run('b.onnx', (x01-mean)/std), logits.numpy(), atol=1e-3)
    assert run('a.onnx', x01[:1]).shape == (1,10)
    props = ort.InferenceSession(str(tmp_path/'a.onnx')).get_modelmeta().custom_metadata_map
    assert json.loads(props['labels']) == [str(o) for o in range(10)] and json.loads(props['input_size']) == [3,32,32]

def test_onnx_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr('distill_nb.export.find_spec', lambda n: None)
    with pytest.raises(ImportError, match=r'distill_nb\[onnx\]'): to_onnx(student(), tmp_path/'x.onnx', size=32)

def test_report():
    nets = {'student': student(), 'linear': nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 11)),
            'source': Source.from_timm('test_resnet', pretrained=False).load()}
    nets['student'].source_heads = nn.Linear(nets['student'].head.in_features, 1000)
    r = profile(nets, size=32, n=5)
    assert list(r.index) == ['student', 'linear', 'source'] and np.isfinite(r.drop(columns='kind').to_numpy(dtype=float)).all()
    assert r.loc['linear','parameters'] == 3*32*32*11 + 11 and r.loc['linear','million MACs'] == pytest.approx(3*32*32*11/1e6)
    assert r.loc['student','parameters'] == sum(p.numel() for p in student().parameters())
    assert (r['MB fp16'] < r['MB']).all() and (r['CPU ms'] > 0).all()
    with pytest.raises(ValueError, match='`n`'): profile(nets, size=32, n=0)
    with pytest.raises(TypeError, match='`learn`'): profile('student')

def test_what_is_not_exported(learn, tmp_path):
    plain = timm.create_model('test_efficientnet')
    with pytest.raises(ValueError, match='`size`'): to_onnx(plain, tmp_path/'x.onnx')
    with pytest.raises(ValueError, match='`normalize=False`'): to_onnx(plain, tmp_path/'x.onnx', size=32)
    with pytest.raises(ValueError, match='.pt2'): to_export(learn, tmp_path/'x.pt')
    with pytest.raises(ValueError, match='`size`'): profile(nn.Sequential(nn.Flatten(), nn.Linear(3*4*4, 100)))

def test_what_is_not_quantized(learn, tmp_path):
    pytest.importorskip('onnxscript')
    to_onnx(learn, tmp_path/'a.onnx')
    images = list(np.zeros((2,32,32,3), np.uint8))
    with pytest.raises(ValueError, match='`images`'): quantize_onnx(tmp_path/'a.onnx', tmp_path/'x.onnx', [])
    with pytest.raises(ValueError, match='minmax'): quantize_onnx(tmp_path/'a.onnx', tmp_path/'x.onnx', images, method='best')

def test_any_network(learn, tmp_path):
    pytest.importorskip('onnxscript')
    net = Learner(learn.dls, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)), loss_func=nn.CrossEntropyLoss())
    assert to_onnx(net, tmp_path/'net.onnx') < 1e-4

# opsets

def test_an_opset_is_what_the_graph_says(tmp_path):
    pytest.importorskip('onnxscript')
    onnx,ort = pytest.importorskip('onnx'),pytest.importorskip('onnxruntime')
    net,x = student(),torch.rand(3, 3, 32, 32)
    with torch.no_grad(): want = net((x-.5)/.5).numpy()
    for n in (18,20):
        assert to_onnx(net, tmp_path/f'{n}.onnx', size=32, mean=.5, std=.5, opset=n) < 1e-4
        assert [(o.domain, o.version) for o in onnx.load(tmp_path/f'{n}.onnx').opset_import] == [('',n)]
        got, = ort.InferenceSession(str(tmp_path/f'{n}.onnx')).run(None, {'image': x.numpy()})
        np.testing.assert_allclose(got, want, atol=1e-4)

@pytest.mark.parametrize('opset', [7,99])
def test_an_opset_that_torch_cannot_write(opset, tmp_path):
    pytest.importorskip('onnxscript')
    with pytest.raises(ValueError, match=f'`opset`: torch .* cannot write opset {opset} of this network'):
        to_onnx(student(), tmp_path/'x.onnx', size=32, mean=.5, std=.5, opset=opset)
    assert not list(tmp_path.iterdir())

def test_an_opset_that_the_runtime_does_not_know(tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    def old(*_, **__): raise ValueError('opset 18 is under development')
    monkeypatch.setattr('distill_nb.export.Predictor', old)
    with pytest.raises(ValueError, match='`opset`: the installed ONNX Runtime cannot open'):
        to_onnx(student(), tmp_path/'x.onnx', size=32, mean=.5, std=.5, opset=18)
    with pytest.raises(ValueError, match='^opset 18'): to_onnx(student(), tmp_path/'x.onnx', size=32, mean=.5, std=.5)
    assert not list(tmp_path.iterdir())

def test_a_scale_per_channel_or_one(tmp_path):
    pytest.importorskip('onnxscript')
    onnx = pytest.importorskip('onnx')
    net,images = student(),list(np.random.default_rng(0).integers(0, 256, (8,32,32,3), np.uint8))
    with torch.no_grad(): net.backbone.conv_stem.weight.mul_(torch.logspace(-4, 0, len(net.backbone.conv_stem.weight))[:,None,None,None])
    to_onnx(net, tmp_path/'s.onnx', size=32, mean=.5, std=.5)
    sizes = {}
    for each in (True,False):
        quantize_onnx(tmp_path/'s.onnx', tmp_path/'q.onnx', images, per_channel=each)
        scales = [list(o.dims) for o in onnx.load(tmp_path/'q.onnx').graph.initializer if o.name.endswith('_scale')]
        sizes[each] = max((o[0] for o in scales if o), default=1)
    assert sizes[True] > 8 and sizes[False] == 1
    with pytest.raises(ValueError, match='`per_channel`'): quantize_onnx(tmp_path/'s.onnx', tmp_path/'q.onnx', images, per_channel='yes')
