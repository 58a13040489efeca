"What the sources notebook cannot hold well: every way a source could quietly be the wrong model"
import copy, json, os, pickle, time, warnings
from pathlib import Path
import numpy as np, pytest, timm, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch import nn
from fastai.vision.all import CrossEntropyLossFlat, Learner, Normalize, Resize, ResizeMethod, imagenet_stats
from distill_nb import sources
from distill_nb.data import image_dls
from distill_nb.sources import *

data = Path(os.environ.get('DISTILL_NB_DATA', Path(__file__).resolve().parents[2]/'shared'/'data'))
rng = np.random.default_rng(0)

def picture(w, h): return Image.fromarray(rng.integers(0, 255, (h,w,3), dtype=np.uint8))
def tiny(n=4): return nn.Sequential(nn.Conv2d(3,6,3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(6,n))

@pytest.fixture()
def ckpt(tmp_path):
    "A folder with a trained-looking test_resnet of three classes"
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3).eval()
    save_file(model.state_dict(), tmp_path/'a.safetensors')
    return tmp_path, model

# Hub weights: there, or an error

@pytest.mark.parametrize('error', [OSError('no route to host'), RuntimeError('No pretrained weights exist')])
def test_unreachable_hub_is_an_error_with_remedies(monkeypatch, error):
    src = Source.from_timm('resnet18')
    def fail(arch, pretrained=False, **kw):
        assert pretrained
        raise error
    monkeypatch.setattr(timm, 'create_model', fail)
    monkeypatch.setattr(sources, 'check_hub', lambda names: None)
    for use in (lambda: src.load(), lambda: src.key):
        with pytest.raises(RuntimeError, match='from_checkpoint.*pretrained=False') as e: use()
        assert str(error) in str(e.value)

def test_hub_weights_are_the_ones_asked_for(monkeypatch):
    seen = []
    real = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda arch, pretrained=False, **kw: (seen.append((arch, pretrained)), real(arch, **kw))[1])
    monkeypatch.setattr(sources, 'check_hub', lambda names: None)
    src = Source.from_timm('test_resnet.r160_in1k')
    src.load()
    assert seen == [('test_resnet.r160_in1k', True)] and src.meta['weights'] == 'hub: timm/test_resnet.r160_in1k'

@pytest.mark.parametrize('arch,n', [('resnet18', 10), ('vit_small_patch14_dinov2', 10)])
def test_trained_weights_with_another_head_are_refused(arch, n):
    with pytest.raises(ValueError, match='would be random'): Source.from_timm(arch, num_classes=n)
    assert Source.from_timm(arch, num_classes=0).n_classes is None
    assert Source.from_timm(arch, pretrained=False, num_classes=n).n_classes == n

def test_random_weights_repeat_and_leave_the_random_state_alone():
    torch.manual_seed(7); want = torch.rand(3)
    torch.manual_seed(7)
    a,b = (Source.from_timm('test_resnet', pretrained=False).load() for _ in range(2))
    assert torch.equal(torch.rand(3), want)
    assert all(torch.equal(p, q) for p,q in zip(a.parameters(), b.parameters()))
    assert a is not b

# Preprocessing

@settings(max_examples=15, deadline=None)
@given(w=st.integers(20,300), h=st.integers(20,300), arch=st.sampled_from(['resnet18', 'tf_efficientnet_lite0', 'vit_base_patch16_siglip_224', 'mobilenetv3_small_100']))
def test_tfm_is_timms_own(w, h, arch):
    cfg = timm.models.get_pretrained_cfg(arch).to_dict()
    img,want = picture(w, h),create_transform(**resolve_data_config({}, pretrained_cfg=cfg), is_training=False)
    assert torch.equal(Source.from_timm(arch).tfm(img), want(img))

@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', '1'])
def test_any_mode_becomes_rgb(mode): assert Source.from_timm('test_resnet', pretrained=False).tfm(picture(50, 40).convert(mode)).shape == (3,160,160)

def test_tfm_goes_to_worker_processes(): assert pickle.loads(pickle.dumps(Source.from_timm('resnet18').tfm))(picture(30,30)).shape == (3,224,224)

def test_prep_is_exact_at_its_own_size():
    src = Source('s', lambda: None, size=32, mean=(.1,.2,.3), std=(.4,.5,.6))
    x = torch.rand(2,3,32,32); before = x.clone()
    want = (x.permute(0,2,3,1)-torch.tensor([.1,.2,.3]))/torch.tensor([.4,.5,.6])
    torch.testing.assert_close(src.prep(x), want.permute(0,3,1,2))
    assert torch.equal(x, before) and src.prep(x.double()).dtype==torch.float64
    with pytest.raises(ValueError, match='x01'): src.prep(x[:,:1])

@pytest.mark.parametrize('bad,match', [(dict(size=0),'size'), (dict(size=3.5),'size'), (dict(std=0.),'std'), (dict(mean=(0.,np.nan,0.)),'mean'), (dict(crop_pct=0),'crop_pct'),
                                       (dict(crop_pct=1.5),'crop_pct'), (dict(interpolation='best'),'interpolation'), (dict(n_classes=2, classes=['a']),'classes')])
def test_bad_preprocessing_is_named(bad, match):
    with pytest.raises(ValueError, match=match): Source('s', lambda: None, **(dict(size=32) | bad))

def test_position_embeddings_follow_the_size(tmp_path):
    model = timm.create_model('test_vit', num_classes=3)
    save_file(model.state_dict(), tmp_path/'v.safetensors')
    for size in (None, 96):
        src = Source.from_checkpoint(tmp_path/'v.safetensors', 'test_vit', size=size)
        assert src.load()(torch.rand(1,3,src.size,src.size))[1].shape == (1,3)

# Keys

def test_key_says_what_decides_the_outputs(ckpt):
    path,model = ckpt
    def key(p=path/'a.safetensors', **kw): return Source.from_checkpoint(p, 'test_resnet', **kw).key
    keys = [key(), key(size=96), key(mean=.1), key(std=.1), key(crop_pct=.5), key(interpolation='nearest'), key(classifier=False), key(in_chans=3)]
    assert len(set(keys)) == len(keys)
    assert key() == key(name='another', meta=dict(task='x'), classes=['a','b','c'])
    (path/'b.safetensors').write_bytes((path/'a.safetensors').read_bytes())
    assert key(path/'b.safetensors') == key()

def test_key_follows_a_file_that_changes(ckpt):
    path,model = ckpt
    src = Source.from_checkpoint(path/'a.safetensors', 'test_resnet'); before = src.key
    with torch.no_grad(): model.conv1[0].weight[0,0,0,0] += 1e-3
    save_file(model.state_dict(), path/'a.safetensors'); os.utime(path/'a.safetensors', (1,1))
    assert src.key != before

def test_key_of_a_module_ignores_addresses_but_not_layers():
    class Odd(nn.Module):
        def __init__(self): super().__init__(); self.f,self.m = object(),tiny()
        def extra_repr(self): return repr(self.f)
        def forward(self, x): return self.m(x)
    torch.manual_seed(0); a = Odd()
    torch.manual_seed(0); b = Odd()
    assert Source.from_module(a, 0, 1, 16).key == Source.from_module(b, 0, 1, 16).key
    c = tiny(); d = copy.deepcopy(c); d[2] = nn.GELU()
    assert Source.from_module(c, 0, 1, 16).key != Source.from_module(d, 0, 1, 16).key

# The user's own module and Learner stay as they are

def test_module_is_left_as_it_was():
    m = tiny().train(); m[0].requires_grad_(False)
    state,flags,modes = copy.deepcopy(m.state_dict()),[p.requires_grad for p in m.parameters()],[o.training for o in m.modules()]
    src = Source.from_module(m, .5, .5, 16)
    net = src.load(); net(torch.rand(4,3,16,16)); src.load()
    assert all(torch.equal(v, m.state_dict()[k]) for k,v in state.items())
    assert flags == [p.requires_grad for p in m.parameters()] and modes == [o.training for o in m.modules()]
    assert not any(o._forward_pre_hooks or o._forward_hooks for k in (m, net) for o in k.modules())
    assert not {p.data_ptr() for p in m.parameters()} & {p.data_ptr() for p in net.parameters()}

def test_net_never_trains():
    net = Source.from_module(tiny(), .5, .5, 16).load()
    before = copy.deepcopy(net.state_dict())
    net.train()(torch.rand(4,3,16,16))
    nn.Sequential(net).train()(torch.rand(4,3,16,16))
    assert not any(m.training for m in net.modules()) and all(torch.equal(v, net.state_dict()[k]) for k,v in before.items())

def test_hook_is_removed_when_the_network_fails():
    net = Source.from_module(tiny(), .5, .5, 16).load()
    with pytest.raises(RuntimeError): net(torch.rand(1,1,16,16))
    assert not any(m._forward_pre_hooks for m in net.modules())

def test_half_precision_module_runs_in_float():
    f,l = Source.from_module(tiny().half(), .5, .5, 16).load()(torch.rand(2,3,16,16))
    assert f.dtype == l.dtype == torch.float32

def test_odd_modules_are_explained():
    class Pair(nn.Module):
        def __init__(self): super().__init__(); self.m = tiny()
        def forward(self, x): return self.m(x), x
    with pytest.raises(TypeError, match='returned a tuple'): Source.from_module(Pair(), .5, .5, 16)
    class Unused(nn.Module):
        def __init__(self): super().__init__(); self.m,self.extra = tiny(),nn.Linear(2,2)
        def forward(self, x): return self.m(x)
    with pytest.raises(ValueError, match='took no part'): Source.from_module(Unused(), .5, .5, 16)
    assert Source.from_module(Unused(), .5, .5, 16, classifier='m.6').n_classes == 4
    with pytest.raises(ValueError, match='not a part'): Source.from_module(tiny(), .5, .5, 16, classifier=nn.Linear(2,2))
    with pytest.raises(ValueError, match='2 names in classes'): Source.from_module(tiny(), .5, .5, 16, classes=['a','b'])

def digits_learner(size=24, norm=imagenet_stats, **kw):
    imgs = rng.integers(0, 255, (20,30,24,3), dtype=np.uint8)
    dls = image_dls(imgs, np.arange(20)%2, imgs, np.arange(20)%2, vocab=['cat','dog'], bs=5, batch_tfms=Normalize.from_stats(*norm, cuda=False) if norm else None, size=size, **kw)
    torch.manual_seed(0)
    return imgs,Learner(dls, tiny(2), loss_func=CrossEntropyLossFlat())

def test_learner_goes_on_as_before():
    _,learn = digits_learner()
    learn.freeze(); learn.model.train(); state = copy.deepcopy(learn.model.state_dict())
    src = Source.from_learner(learn); key = src.key
    src.load()(torch.rand(2,3,24,24))
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in state.items()) and learn.model.training
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    assert not torch.equal(state['0.weight'], learn.model.state_dict()['0.weight'])
    assert src.key == key and Source.from_learner(learn).key != key

@pytest.mark.parametrize('method,size', [(ResizeMethod.Crop, 24), (ResizeMethod.Squish, 20)])
def test_learner_source_predicts_as_the_learner(method, size):
    imgs,learn = digits_learner(size=None, item_tfms=Resize(size, method))
    src = Source.from_learner(learn)
    assert (src.size, src.classes) == (size, ['cat','dog'])
    with learn.no_bar(): want = learn.get_preds(dl=learn.dls.valid)[0]
    got = src.load()(torch.stack([src.tfm(Image.fromarray(o)) for o in imgs]))[1].softmax(1)
    torch.testing.assert_close(got, want, atol=2e-3, rtol=0)

def test_learner_without_normalize_or_resize():
    _,learn = digits_learner(norm=None)
    src = Source.from_learner(learn)
    assert (src.mean, src.std) == ((0.,)*3, (1.,)*3)
    assert Source.from_learner(learn, size=40).size == 40

def test_export_is_opened_only_with_trust(tmp_path):
    _,learn = digits_learner()
    learn.export(tmp_path/'l.pkl')
    opened = []
    class Bomb:
        def __reduce__(self): return (opened.append, (1,))
    (tmp_path/'bomb.pkl').write_bytes(pickle.dumps(Bomb()))
    for f in ('l','bomb'):
        with pytest.raises(ValueError, match='trust=True'): Source.from_export(tmp_path/f'{f}.pkl')
    with pytest.raises(ValueError, match='more than tensors'): Source.from_checkpoint(tmp_path/'l.pkl', 'test_resnet')
    with pytest.warns(UserWarning, match='trust=True') as w: src = Source.from_export(tmp_path/'l.pkl', trust=True)
    assert len([o for o in w if o.category is UserWarning]) == 1
    x = torch.rand(2,3,24,24)
    assert torch.equal(src.load()(x)[1], Source.from_learner(learn).load()(x)[1])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning); src.load()

# Checkpoints

@pytest.mark.parametrize('wrap', [lambda d: d, lambda d: {'state_dict': d, 'epoch': 3}, lambda d: {'model': d, 'opt': {'lr': .1}}, lambda d: {f'module.{k}':v for k,v in d.items()},
                                  lambda d: {'model': {f'module.{k}':v.half() for k,v in d.items()}}, lambda d: {k:v for k,v in d.items() if 'num_batches' not in k}])
def test_wrapped_checkpoints(ckpt, wrap):
    path,model = ckpt
    torch.save(wrap(model.state_dict()), path/'w.pth')
    src,x = Source.from_checkpoint(path/'w.pth', 'test_resnet'),torch.rand(2,3,160,160)
    assert src.n_classes == 3
    torch.testing.assert_close(src.load()(x)[1], model(x).detach(), atol=1e-2, rtol=1e-2)

def test_checkpoint_that_does_not_fit_lists_the_names(ckpt):
    path,model = ckpt
    sd = dict(model.state_dict()); sd['extra'] = torch.zeros(1); del sd['fc.bias']; sd['conv1.0.weight'] = torch.zeros(1)
    torch.save(sd, path/'b.pth')
    with pytest.raises(ValueError) as e: Source.from_checkpoint(path/'b.pth', 'test_resnet').load()
    for part in ('missing 1 (fc.bias)', 'unexpected 1 (extra)', 'of another shape 1 (conv1.0.weight: (1,) in the file'): assert part in str(e.value)

@pytest.mark.parametrize('what', [[1,2], {'a': 1}, {}, torch.zeros(2)])
def test_not_a_state_dict(tmp_path, what):
    torch.save(what, tmp_path/'x.pth')
    with pytest.raises(ValueError, match='not a state dict'): Source.from_checkpoint(tmp_path/'x.pth', 'test_resnet')

def test_building_a_source_holds_no_weights(ckpt):
    import gc
    zoo = Zoo([Source.from_checkpoint(ckpt[0]/'a.safetensors', 'test_resnet', name=str(i)) for i in range(3)])
    gc.collect(); before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for s in zoo: s.key; s.load()
    gc.collect()
    assert sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) <= before

# Zoos

def test_patterns_fetch_and_build_nothing(monkeypatch):
    monkeypatch.setattr(timm, 'create_model', lambda *a, **kw: pytest.fail('a network was built'))
    start = time.process_time()
    zoo = Zoo.timm('*resnet*', '*vit*', 'mobilenetv3_large_100', exclude=['test_*','*sapiens2*'])
    assert len(zoo)>400 and time.process_time()-start<10
    assert len(set(zoo.names))==len(zoo) and not any(n.startswith('test_') for n in zoo.names)
    assert all('.' in n for n in zoo.names[:-1]) and zoo.names[-1]=='mobilenetv3_large_100'
    zoo.to_frame(); zoo._repr_html_(); repr(zoo)

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

# PARC's bank of models

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
    assert all(torch.equal(v, sd[f'module.{k}']) for k,v in net.model.state_dict().items()) and torch.equal(torch.random.get_rng_state(), before)
    with torch.inference_mode(): f,y = net(torch.rand(2,3,64,64))
    assert f.shape==(2,512) and y.shape==(2,555)
    assert pickle.loads(pickle.dumps(zoo[0])).key==zoo[0].key
    assert Zoo.parc(tmp_path, exclude='nabird').names==['googlenet.cifar10'] and Zoo.parc(str(tmp_path), exclude=['cifar10','imagenet']).names==['resnet18.nabird']
    (tmp_path/'resnet18'/'resnet18_nabird.pth').rename(tmp_path/'resnet18'/'resnet18_cub200.pth')
    with pytest.raises(ValueError, match='resnet18_cub200.pth.*200 classes.*another shape'): Zoo.parc(tmp_path)['resnet18.cub200'].load()
    with pytest.raises(FileNotFoundError, match='dbolya/parc'): Zoo.parc(tmp_path/'googlenet')


def test_arrays_are_copied_and_checked():
    imgs,f = rng.integers(0, 255, (5,8,8), dtype=np.uint8),rng.normal(size=(5,3))
    src = Source.from_arrays('a', imgs, f); key = src.key; want = src.arrays['features'].clone()
    f[:] = 0
    assert torch.equal(src.arrays['features'], want) and src.key == key and src.n_classes is None
    with pytest.raises(ValueError, match='not both'): Source.from_arrays('a', imgs, f, probs=f, logits=f)
    with pytest.raises(ValueError, match='matrix'): Source.from_arrays('a', imgs, f[0])
    with pytest.raises(ValueError, match='5 images but 4 rows of logits'): Source.from_arrays('a', imgs, f, logits=f[:4])
    with pytest.raises(ValueError, match='logits hold NaN'): Source.from_arrays('a', imgs, f, logits=np.full((5,3), np.inf))
    with pytest.raises((ValueError, TypeError)): Source.from_arrays('a', [], f[:0])

@pytest.mark.data
def test_real_models_load_at_128():
    if not (data/'weights'/'manifest.json').exists(): pytest.skip('no $DISTILL_NB_DATA and no ../shared/data')
    for s in Zoo.checkpoints(data/'weights', size=128):
        f,l = s.load()(s.tfm(picture(150,128))[None])
        assert f.shape == (1,1280) and l.shape == (1,s.n_classes) and f.isfinite().all() and l.isfinite().all()
