"Zoos: by pattern, from a folder, from PARC's bank"
import json, os, pickle, shutil, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, timm, torch
from PIL import Image
from torch import nn
from distill_nb.learner import student_learner
from distill_nb.outputs import compute_outputs
from distill_nb.packs import digits_dls
from distill_nb.sources import Source
from distill_nb.zoo import *

data = Path(os.environ.get('DISTILL_NB_DATA', Path(__file__).resolve().parents[2]/'shared'/'data'))
rng = np.random.default_rng(0)

def picture(w, h): return Image.fromarray(rng.integers(0, 255, (h,w,3), dtype=np.uint8))

def test_building_a_source_holds_no_weights(ckpt):
    import gc
    zoo = Zoo([Source.from_checkpoint(ckpt[0]/'a.safetensors', 'test_resnet', name=str(i)) for i in range(3)])
    gc.collect()
    before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for s in zoo:
        s.key
        s.load()
    gc.collect()
    assert sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) <= before

def test_patterns_fetch_and_build_nothing(monkeypatch):
    monkeypatch.setattr(timm, 'create_model', lambda *a, **kw: pytest.fail('a network was built'))
    start = time.process_time()
    zoo = Zoo.timm('*resnet*', '*vit*', 'mobilenetv3_large_100', exclude=['test_*','*sapiens2*'])
    assert len(zoo)>400 and time.process_time()-start<10
    assert len(set(zoo.names))==len(zoo) and not any(n.startswith('test_') for n in zoo.names)
    assert all('.' in n for n in zoo.names[:-1]) and zoo.names[-1]=='mobilenetv3_large_100'
    zoo.to_frame()
    zoo._repr_html_()
    repr(zoo)

def test_patterns():
    def names(*a, **kw): return Zoo.timm(*a, **kw).names
    assert names('resnet18.a?_in1k')==['resnet18.a1_in1k', 'resnet18.a2_in1k', 'resnet18.a3_in1k']
    assert names('resnet18.a[12]_in1k', 'test_resnet', 'resnet18.a*')[:3]==['resnet18.a1_in1k', 'resnet18.a2_in1k', 'test_resnet']
    assert names('resnet18*', exclude='*.*a*')==[n for n in timm.list_pretrained('resnet18*') if 'a' not in n.partition('.')[2]]
    assert 'resnet18' in names('resnet*', pretrained=False) and not any('.' in n for n in names('resnet*', pretrained=False))
    assert names('resnet18', 'resnet18')==['resnet18'] and names('resnet18.a1_in1k', 'resnet18')==['resnet18.a1_in1k']
    assert len(names('resnet18.*', 'resnet18'))==len(names('resnet18.*'))
    assert names('resnet18', exclude='*')==['resnet18']                          # a plain name is what is wanted
    assert [s.size for s in Zoo.timm('resnet18.a?_in1k', size=96)]==[96]*3
    for a,kw in ((('resnet18','resnot*'), {}), (('resnet18.*',), dict(pretrained=False)), (('resnet18*',), dict(exclude='resnet*'))):
        with pytest.raises(ValueError, match='pattern .* matches no timm model'): names(*a, **kw)
    with pytest.raises(ValueError, match='Nearest'): names('resnet1*', 'resnot18')

def test_a_pattern_leaves_out_what_cannot_be_a_source(monkeypatch):
    real = Source.from_timm
    def from_timm(arch, **kw):
        if arch=='resnet18.a2_in1k': raise ValueError(f"arch='{arch}' is broken")
        return real(arch, **kw)
    monkeypatch.setattr(Source, 'from_timm', from_timm)
    with pytest.warns(UserWarning, match="left out of the zoo: arch='resnet18.a2_in1k' is broken"): zoo = Zoo.timm('resnet18.a*')
    assert 'resnet18.a1_in1k' in zoo.names and 'resnet18.a2_in1k' not in zoo.names
    for a in (('resnet18.a1_in1k','resnet18.a2_in1k'), ('resnet18.a2*',)):
        with pytest.raises(ValueError, match='is broken'): Zoo.timm(*a)

def test_manifest_mistakes(ckpt):
    path,_ = ckpt
    good = dict(arch='test_resnet', num_classes=3, mean=[.5]*3, std=[.5]*3, input_size=[3,64,64])
    def zoo(**kw):
        (path/'manifest.json').write_text(json.dumps({'a': good | kw}))
        return Zoo.checkpoints(path)
    assert zoo()['a'].load()(torch.rand(1,3,64,64))[1].shape == (1,3)
    with pytest.raises(ValueError, match='2 labels for 3 classes'): zoo(labels=['x','y'])
    with pytest.raises(ValueError, match='test_resnet'): zoo(arch='test_resnett')
    (path/'manifest.json').write_text(json.dumps({'a': dict(arch='test_resnet')}))
    with pytest.raises(ValueError, match='lacks num_classes, mean'): Zoo.checkpoints(path)
    (path/'manifest.json').write_text(json.dumps({'gone': good}))
    with pytest.raises(FileNotFoundError, match='gone.safetensors'): Zoo.checkpoints(path)
    (path/'manifest.json').write_text('{')
    with pytest.raises(ValueError, match='not JSON'): Zoo.checkpoints(path)

def test_parc_bank(tmp_path):
    import torchvision.models as tv
    for a,t,n in ('googlenet','cifar10',10),('resnet18','nabird',555):
        kw = dict(aux_logits=False, init_weights=False) if a=='googlenet' else {}
        (tmp_path/a).mkdir()
        torch.save(nn.DataParallel(getattr(tv, a)(weights=None, num_classes=n, **kw)).state_dict(), tmp_path/a/f'{a}_{t}.pth')
    before = torch.random.get_rng_state()
    zoo = Zoo.parc(tmp_path)
    assert zoo.names==['resnet18.nabird','googlenet.cifar10'] and [s.n_classes for s in zoo]==[555,10] and len({s.key for s in zoo})==2
    assert [(s.size,s.crop_pct,s.mean[0]) for s in zoo]==[(224,.875,.485),(224,1.,.4914)]
    sd = torch.load(tmp_path/'resnet18'/'resnet18_nabird.pth', weights_only=True)
    net = zoo[0].load()
    assert all(torch.equal(v, sd[f'module.{k}']) for k,v in net.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.inference_mode(): f,y = net(torch.rand(2,3,64,64))
    assert f.shape==(2,512) and y.shape==(2,555)
    assert pickle.loads(pickle.dumps(zoo[0])).key==zoo[0].key
    assert Zoo.parc(tmp_path, exclude='nabird').names==['googlenet.cifar10']
    assert Zoo.parc(str(tmp_path), exclude=['cifar10','imagenet']).names==['resnet18.nabird']
    (tmp_path/'resnet18'/'resnet18_nabird.pth').rename(tmp_path/'resnet18'/'resnet18_cub200.pth')
    with pytest.raises(ValueError, match='resnet18_cub200.pth.*200 classes.*another shape'): Zoo.parc(tmp_path)['resnet18.cub200'].load()
    with pytest.raises(FileNotFoundError, match='dbolya/parc'): Zoo.parc(tmp_path/'googlenet')

@pytest.mark.data
def test_real_models_load_at_128():
    if not (data/'weights'/'manifest.json').exists(): pytest.skip('no $DISTILL_NB_DATA and no ../shared/data')
    for s in Zoo.checkpoints(data/'weights', size=128):
        f,l = s.load()(s.tfm(picture(150,128))[None])
        assert f.shape == (1,1280) and l.shape == (1,s.n_classes) and f.isfinite().all() and l.isfinite().all()

def test_parts_of_a_zoo():
    zoo = Zoo.timm('resnet50.a1_in1k', 'vit_small_patch14_dinov2') + Source.from_timm('test_resnet', pretrained=False, name='noise')
    assert zoo[['noise']].names == ['noise'] and zoo[1:].names == zoo.names[1:]
    assert (len(Zoo()+zoo), len(zoo[0:1]+zoo[1])) == (3,2)
    assert 'random (seed 42)' in zoo._repr_html_()
    with pytest.raises(TypeError, match='Source.from_timm'): Zoo(['resnet50'])

def test_patterns_of_architectures():
    assert Zoo.timm('resnet1[8-9]', pretrained=False).names == ['resnet18']
    assert Zoo.timm('*resnet*', 'vit_small_patch14_dinov2', exclude=['test_*','*clip*']).names[-1] == 'vit_small_patch14_dinov2'
    with pytest.raises(ValueError, match=r"'\*resnot\*' matches no timm model that has pretrained weights"):
        Zoo.timm('resnet18', '*resnot*')
    with pytest.raises(ValueError, match='would be random'): Zoo.timm('resnet1*', num_classes=3)              # nothing is left
    with pytest.warns(UserWarning, match='left out of the zoo') as w: Zoo.timm('vit_base_patch16_s*', pretrained=False)
    assert len([o for o in w if 'left out' in str(o.message)]) == 1

@pytest.mark.parametrize('name,change,match', [
    ('../a', {}, 'not the name of a file'), ('a', dict(arch='hf-hub:somebody/something'), 'nothing is fetched'),
    ('a', dict(kwargs=dict(checkpoint_path='/elsewhere.pth')), 'checkpoint_path'), ('a', dict(kwargs=dict(size=3)), 'size'),
    ('a', dict(std=[0,1,1]), 'std='), ('a', dict(labels='abc'), 'labels=')])
def test_manifests_are_validated(name, change, match, ckpt):
    good = dict(arch='test_resnet', num_classes=3, mean=[.5]*3, std=[.5]*3, input_size=[3,64,64])
    (ckpt[0]/'bad.json').write_text(json.dumps({name: good | change}))
    with pytest.raises(ValueError, match=match): Zoo.checkpoints(ckpt[0]/'bad.json')

def test_names_that_are_not_there(ckpt, tmp_path):
    with pytest.raises(FileNotFoundError, match='manifest.json'): Zoo.checkpoints(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='Nearest: digits'): Zoo.embedded(names=['digit'])
    with pytest.raises(ValueError, match='Nearest: cub200'): Zoo.parc(tmp_path, exclude=['cub2000'])

def test_every_kind_of_source_fills_its_columns(ckpt, tmp_path):
    import torchvision.models as tv
    (tmp_path/'resnet18').mkdir()
    torch.save(tv.resnet18(weights=None, num_classes=37).state_dict(), tmp_path/'resnet18'/'resnet18_oxford_pets.pth')
    n = sum(p.numel() for p in tv.resnet18(num_classes=37).parameters())
    arrays = Source.from_arrays('arrays', list(rng.integers(0, 255, (4,8,8,3), dtype=np.uint8)), np.eye(4))
    module = Source.from_module(nn.Sequential(nn.Flatten(), nn.Linear(3*16*16, 4)), .5, .5, 16)
    zoo = Zoo.embedded() + Zoo.parc(tmp_path) + Zoo.timm('resnet50.a1_in1k') + module + arrays
    odd = Source.from_timm('test_resnet', pretrained=False, num_classes=5, drop_rate=.1, name='odd') # not in the table: sketched
    assert Zoo(odd).to_frame().parameters.item() == sum(p.numel() for p in odd.load().model.parameters())
    t = zoo.to_frame()
    assert t.columns.tolist() == ['arch','task','classes','size','parameters','download_mb','license','weights']
    assert t.parameters.drop('arrays').notna().all() and t.parameters['resnet18.oxford_pets'] == n and t.parameters['module'] == 3076
    assert t.task.drop(['module','arrays']).notna().all() and t.task['resnet50.a1_in1k'] == 'ImageNet-1k'
    assert t.license.drop(['module','arrays','resnet18.oxford_pets']).notna().all()
    assert t.download_mb.drop('resnet50.a1_in1k').eq(0).all() and t.download_mb['resnet50.a1_in1k'] == pytest.approx(102.2, abs=.1)
    assert zoo[['module','arrays']].to_download() == '' and '0.1 GB, 1 model of 26 million' in zoo.to_download()

def test_parameters_of_a_learner():
    s = Source.from_learner(student_learner(digits_dls(n=2, seed=0)[0], 'test_efficientnet', pretrained=False), size=32)
    assert Zoo(s).to_frame().parameters.item() == sum(p.numel() for p in s.load().model.parameters())

def test_a_zoo_says_how_large_it_is():
    zoo = Zoo.timm('resnet*', '*vit_large*', exclude=['*naflex*','*sapiens2*'])
    said = zoo.to_download()
    assert f'{len(zoo):,} models' in said and said in repr(zoo) and said in zoo._repr_html_() and len(repr(zoo)) < 1500
    assert zoo._repr_html_().count('<tr') < 70
    gb = zoo.to_frame().parameters.sum()*4e-9
    assert f'about {gb:,.0f} GB' in said

def test_a_pass_asks_before_it_downloads(monkeypatch):
    "Before a network is built or an image is opened"
    monkeypatch.setattr(timm, 'create_model', lambda *a, **kw: pytest.fail('a network was built'))
    zoo = Zoo.timm('vit_*', exclude=['*naflex*','*sapiens2*'])
    for images in (['/nowhere.png'], list(rng.integers(0, 255, (2,8,8,3), dtype=np.uint8))):
        with pytest.raises(ValueError, match='GB would be downloaded for .* sources.*Zoo.recommended'):
            compute_outputs(zoo, images, on_error='skip')
    few = Zoo.timm('vit_large_patch16_224.augreg_in21k')
    monkeypatch.setenv('DISTILL_NB_DOWNLOAD_GB', '1')
    with pytest.raises(ValueError, match='about 1.3 GB.*more than 1 GB.*DISTILL_NB_DOWNLOAD_GB=2'): check_download(few)
    monkeypatch.setenv('DISTILL_NB_DOWNLOAD_GB', '2')
    check_download(few)
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: SimpleNamespace(free=5e8))
    with pytest.raises(ValueError, match='the disk has 0.5 GB left') as e: check_download(few)
    assert 'allow it' not in str(e.value)                                      # the disk would not
    monkeypatch.setenv('DISTILL_NB_DOWNLOAD_GB', 'much')
    with pytest.raises(ValueError, match='number of GB'): check_download(few)
    monkeypatch.setattr('distill_nb.zoo.is_downloaded', lambda arch: True)
    check_download(zoo)
