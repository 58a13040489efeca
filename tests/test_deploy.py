"A saved student is the same network for timm and in a fresh process"
import json, math, subprocess, sys
import numpy as np, pytest, timm, torch
from torch import nn
from safetensors.torch import load_file, save_file
from fastai.vision.all import Learner, Normalize, accuracy, aug_transforms, imagenet_stats, resnet18
from distill_nb.data import image_dls
from distill_nb.packs import digits_dls
from distill_nb.student import create_student, student_splitter
from distill_nb.sources import Source
from distill_nb.deploy import *

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

@pytest.mark.parametrize('kwargs,words', [
    (dict(labels=['zero','one']), '2 names for 10'), (dict(classes=['zero']), 'labels'), (dict(crop_mode='centre'), '`crop_mode`'),
    (dict(input_size=32), '`input_size`'), (dict(mean=.5, std=.5), 'other pixels')])
def test_metadata_that_make_no_sense(learn, kwargs, words):
    with pytest.raises((TypeError,ValueError), match=words): student_meta(learn, **kwargs)

def test_what_has_no_metadata():
    with pytest.raises(TypeError, match='create_student'): student_meta(nn.Linear(2,2))
    images = list(np.random.default_rng(0).integers(0, 255, (8,48,48,3), dtype=np.uint8))
    dls = image_dls(images, [0,1]*4, images, [0,1]*4, size=48, batch_tfms=aug_transforms(size=32), bs=4)
    with pytest.raises(ValueError, match='presizing'): student_meta(Learner(dls, student(n_out=2)))

def test_what_is_not_saved(learn, tmp_path):
    with pytest.raises(ValueError, match='.safetensors'): save_student(learn, tmp_path/'student.pkl')
    with pytest.raises(TypeError, match='create_student'): save_student(timm.create_model('test_efficientnet'), tmp_path/'s.safetensors')
    broken = student()
    broken.head.weight.data[0] = math.nan
    with pytest.raises(ValueError, match='diverged'): save_student(broken, tmp_path/'nan.safetensors', input_size=[3,32,32])

def test_files_of_others(tmp_path):
    save_file({'w': torch.zeros(2)}, tmp_path/'other.safetensors')
    with pytest.raises(ValueError, match='not written by `save_student`'): load_student(tmp_path/'other.safetensors')
    with pytest.raises(FileNotFoundError, match='no file'): load_student(tmp_path/'none.safetensors')
    own = save_student(create_student(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU()), 10), tmp_path/'own.safetensors')
    with pytest.raises(ValueError, match='does not fit'): load_student(own, backbone=nn.Conv2d(3, 8, 3, 2))

@pytest.mark.parametrize('change', [
    dict(kwargs=dict(start='secret.txt')), dict(kwargs=dict(n_out=5)), dict(kwargs=dict(act_layer='zzz')), dict(labels=5),
    dict(num_classes=10**12), dict(num_classes=9, labels=None), dict(std=[0]*3)])
def test_a_header_that_lies(learn, change, tmp_path):
    file = save_student(learn, tmp_path/'s.safetensors')
    header = json.dumps({**student_meta(file), **change})
    save_file(load_file(file), tmp_path/'lies.safetensors', metadata={'distill_nb': header})
    with pytest.raises((TypeError,ValueError), match='lies.safetensors'): load_student(tmp_path/'lies.safetensors')
