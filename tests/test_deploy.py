"A saved student is the same network for timm, for ONNX Runtime and in a fresh process"
import json, math, subprocess, sys
import numpy as np, pytest, timm, torch
from copy import deepcopy
from torch import nn
from safetensors import safe_open
from safetensors.torch import load_file
from fastai.vision.all import Learner, Normalize, accuracy, imagenet_stats, resnet18
from distill_nb.packs import digits_dls
from distill_nb.student import create_student, student_splitter
from distill_nb.sources import Source
from distill_nb.deploy import *
from distill_nb.export import *
from distill_nb.publish import *

def student(arch='test_efficientnet', n_out=7, **kw):
    torch.manual_seed(0)
    return create_student(arch, n_out, pretrained=False, **kw).eval()

archs = [('test_efficientnet', {}), ('test_vit', {}), ('test_convnext', {}), ('test_byobnet', dict(output_stride=16)),
         ('test_mambaout', {}),
         ('resnet10t', dict(channels=[16,32,48,64], stem_width=8)), ('mobilenetv3_small_050', {}),
         ('vit_tiny_patch16_224', dict(img_size=64, depth=2)),
         ('deit_tiny_distilled_patch16_224', dict(depth=2)), ('resnetv2_50d_gn', dict(layers=[1,1,1,1]))]

@pytest.mark.parametrize('arch,kw', archs, ids=[o[0] for o in archs])
def test_timm_loads_it_strictly(arch, kw, tmp_path):
    m = student(arch, **kw)
    size = kw.get('img_size', m.backbone.pretrained_cfg['input_size'][-1])
    x = torch.randn(2, 3, size, size)
    path = save_student(m, tmp_path/'s.safetensors', input_size=[3,size,size])
    meta = student_meta(path)
    assert meta['layout'] == 'timm'
    net = timm.create_model(meta['arch'], num_classes=meta['num_classes'], **meta['kwargs']).eval()
    net.load_state_dict(load_file(path), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(net(x), m(x), atol=1e-4, rtol=1e-4)
        assert torch.equal(load_student(path)(x), m(x))

@pytest.mark.parametrize('arch,stages', [('test_efficientnet', 4), ('test_efficientnet', 2), ('test_convnext', 2),
                                         ('resnet10t', 3), ('mobilenetv3_small_050', 4), ('test_byobnet', 3)])
def test_a_cut_student_comes_back(arch, stages, tmp_path):
    m = student(arch, stages=stages)
    path = save_student(m, tmp_path/'s.safetensors', input_size=[3,64,64])
    meta,x = student_meta(path),torch.randn(2, 3, 64, 64)
    assert meta['arch'] == arch and meta['kwargs'] == dict(stages=stages) and meta['layout'] == 'student'
    with torch.no_grad(): assert torch.equal(load_student(path)(x), m(x))
    again = create_student(arch, 3, start=path, stages=stages).eval()           # and is a start for another target
    with torch.no_grad(): assert torch.equal(again.backbone(x), m.backbone(x))

def test_classifiers_that_are_more_than_a_linear_layer_keep_the_students_names(tmp_path):
    m = student('levit_128s')
    path = save_student(m, tmp_path/'s.safetensors', input_size=[3,224,224])
    assert student_meta(path)['layout'] == 'student'
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad(): assert torch.equal(load_student(path)(x), m(x))

def test_fresh_process_reads_it_with_timm_alone(tmp_path):
    m = student(drop_rate=.1)
    save_student(m, tmp_path/'s.safetensors', labels=list('abcdefg'))
    x = torch.randn(2, 3, 32, 32)
    np.save(tmp_path/'x.npy', x.numpy())
    code = ("import sys, json, timm, torch, numpy as np; from safetensors import safe_open; from safetensors.torch import load_file\n"
            "with safe_open('s.safetensors', 'pt') as f: meta = json.loads(f.metadata()['distill_nb'])\n"
            "net = timm.create_model(meta['arch'], num_classes=len(meta['labels']), **meta['kwargs']).eval()\n"
            "net.load_state_dict(load_file('s.safetensors'), strict=True)\n"
            "with torch.no_grad(): np.save('y.npy', net(torch.from_numpy(np.load('x.npy'))).numpy())\n"
            "assert not any(o.startswith(('fastai', 'distill_nb')) for o in sys.modules)")
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True)
    with torch.no_grad(): np.testing.assert_allclose(np.load(tmp_path/'y.npy'), m(x).numpy(), atol=1e-5)

def test_nothing_changes_while_saving_and_loading(tmp_path):
    m = student().train()
    m.source_heads = nn.Linear(m.head.in_features, 50)
    before,rng = {k: v.clone() for k,v in m.state_dict().items()},torch.get_rng_state()
    save_student(m, tmp_path/'s.safetensors')
    load_student(tmp_path/'s.safetensors')
    assert torch.equal(rng, torch.get_rng_state())
    assert m.training and m.source_heads is not None
    assert all(torch.equal(v, before[k]) for k,v in m.state_dict().items())
    assert [o.name for o in tmp_path.iterdir()] == ['s.safetensors']
    assert not any('source' in k or v.shape[:1] == (50,) for k,v in load_file(tmp_path/'s.safetensors').items())

def test_half(tmp_path):
    m = student()
    full,half = save_student(m, tmp_path/'a.safetensors'),save_student(m, tmp_path/'b.safetensors', half=True)
    assert half.stat().st_size < .6*full.stat().st_size
    got = load_student(half)
    assert all(p.dtype == torch.float32 for p in got.parameters())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(): torch.testing.assert_close(got(x), m(x), atol=.02, rtol=.02)

def test_own_and_torchvision_backbones(tmp_path):
    m = student(resnet18)
    path = save_student(m, tmp_path/'s.safetensors')
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(): assert torch.equal(load_student(path, backbone=resnet18)(x), m(x))
    with pytest.raises(ValueError, match='`backbone`'): load_student(path)
    with pytest.raises(ValueError, match='does not fit'): load_student(path, backbone=nn.Conv2d(3,4,3))

def test_keywords_that_no_file_can_hold(tmp_path):
    m = student('test_efficientnet', act_layer=nn.ReLU)
    path = save_student(m, tmp_path/'s.safetensors')
    assert student_meta(path)['layout'] == 'student'
    with pytest.raises(ValueError, match='`backbone`'): load_student(path)
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(load_student(path, backbone=student('test_efficientnet', act_layer=nn.ReLU))(x), m(x))

@pytest.fixture(scope='module')
def learn():
    dls,_ = digits_dls(n=2, seed=0)
    dls.add_tfms([Normalize.from_stats(*imagenet_stats)], 'after_batch')
    learn = Learner(dls, student(n_out=10), splitter=student_splitter, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return learn

def test_as_a_source(learn, tmp_path):
    path = save_student(learn, tmp_path/'digits.safetensors')
    meta = student_meta(path)
    src = Source.from_checkpoint(path, meta['arch'], meta['num_classes'], meta['mean'], meta['std'],
                                 meta['input_size'][-1], meta['crop_pct'], classes=meta['labels'], **meta['kwargs'])
    x01 = torch.rand(2, 3, 32, 32)
    mean,std = [torch.tensor(o)[:,None,None] for o in imagenet_stats]
    with torch.no_grad():
        torch.testing.assert_close(src.load()(src.prep(x01))[1], learn.model.cpu().eval()((x01-mean)/std), atol=1e-4, rtol=1e-4)

def test_metadata_survive_a_second_save(learn, tmp_path):
    a = save_student(learn, tmp_path/'a.safetensors')
    b = save_student(load_student(a), tmp_path/'b.safetensors')
    assert student_meta(a) == student_meta(b) and a.stat().st_size == b.stat().st_size
    a,b = load_file(a),load_file(b)
    assert list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a if not k.endswith('num_batches_tracked'))

@pytest.mark.parametrize('content', [b'', b'no safetensors at all', b'\x80\x04\x95'])
def test_broken_files(content, tmp_path):
    (tmp_path/'s.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match='s.safetensors'): load_student(tmp_path/'s.safetensors')

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
    monkeypatch.setattr('distill_nb.deploy.find_spec', lambda n: None)
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
