"Every way a source could quietly be the wrong model: its preprocessing, its key, its classifier"
import copy, pickle
import numpy as np, pytest, timm, torch
from PIL import Image
from torch import nn
from distill_nb.networks import *
from distill_nb.sources import *
from distill_nb.sources import source_list

rng = np.random.default_rng(0)

def picture(w, h): return Image.fromarray(rng.integers(0, 255, (h,w,3), dtype=np.uint8))

def tiny(n=4):
    return nn.Sequential(nn.Conv2d(3,6,3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(),
        nn.Linear(6,n))

@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', '1'])
def test_any_mode_becomes_rgb(mode):
    assert Source.from_timm('test_resnet', pretrained=False).tfm(picture(50, 40).convert(mode)).shape == (3,160,160)

def test_tfm_goes_to_worker_processes():
    assert pickle.loads(pickle.dumps(Source.from_timm('resnet18').tfm))(picture(30,30)).shape == (3,224,224)

def test_prep_is_exact_at_its_own_size():
    src = Source('s', lambda: None, size=32, mean=(.1,.2,.3), std=(.4,.5,.6))
    x = torch.rand(2,3,32,32)
    before = x.clone()
    want = (x.permute(0,2,3,1)-torch.tensor([.1,.2,.3]))/torch.tensor([.4,.5,.6])
    torch.testing.assert_close(src.prep(x), want.permute(0,3,1,2))
    assert torch.equal(x, before) and src.prep(x.double()).dtype==torch.float64
    with pytest.raises(ValueError, match='x01'): src.prep(x[:,:1])

@pytest.mark.parametrize('bad,match',
    [(dict(size=0),'size'), (dict(size=3.5),'size'), (dict(std=0.),'std'), (dict(mean=(0.,np.nan,0.)),'mean'),
    (dict(crop_pct=0),'crop_pct'), (dict(crop_pct=1.5),'crop_pct'), (dict(interpolation='best'),'interpolation'),
    (dict(n_classes=2, classes=['a']),'classes')])
def test_bad_preprocessing_is_named(bad, match):
    with pytest.raises(ValueError, match=match): Source('s', lambda: None, **(dict(size=32) | bad))

def test_key_of_a_module_ignores_addresses_but_not_layers():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.f,self.m = object(),tiny()
        def extra_repr(self): return repr(self.f)
        def forward(self, x): return self.m(x)
    torch.manual_seed(0)
    a = Odd()
    torch.manual_seed(0)
    b = Odd()
    assert Source.from_module(a, 0, 1, 16).key == Source.from_module(b, 0, 1, 16).key
    c = tiny()
    d = copy.deepcopy(c)
    d[2] = nn.GELU()
    assert Source.from_module(c, 0, 1, 16).key != Source.from_module(d, 0, 1, 16).key

def test_module_is_left_as_it_was():
    m = tiny().train()
    m[0].requires_grad_(False)
    state,flags,modes = copy.deepcopy(m.state_dict()),[p.requires_grad for p in m.parameters()],[o.training for o in m.modules()]
    src = Source.from_module(m, .5, .5, 16)
    net = src.load()
    net(torch.rand(4,3,16,16))
    src.load()
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
        def __init__(self):
            super().__init__()
            self.m = tiny()
        def forward(self, x): return self.m(x), x
    with pytest.raises(TypeError, match='returned a tuple'): Source.from_module(Pair(), .5, .5, 16)
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.m,self.extra = tiny(),nn.Linear(2,2)
        def forward(self, x): return self.m(x)
    with pytest.raises(ValueError, match='took no part'): Source.from_module(Unused(), .5, .5, 16)
    assert Source.from_module(Unused(), .5, .5, 16, classifier='m.6').n_classes == 4
    with pytest.raises(ValueError, match='not a part'): Source.from_module(tiny(), .5, .5, 16, classifier=nn.Linear(2,2))
    with pytest.raises(ValueError, match='2 names in classes'): Source.from_module(tiny(), .5, .5, 16, classes=['a','b'])

def test_arrays_are_copied_and_checked():
    imgs,f = rng.integers(0, 255, (5,8,8), dtype=np.uint8),rng.normal(size=(5,3))
    src = Source.from_arrays('a', imgs, f)
    key = src.key
    want = src.arrays['features'].clone()
    f[:] = 0
    assert torch.equal(src.arrays['features'], want) and src.key == key and src.n_classes is None
    with pytest.raises(ValueError, match='not both'): Source.from_arrays('a', imgs, f, probs=f, logits=f)
    with pytest.raises(ValueError, match='matrix'): Source.from_arrays('a', imgs, f[0])
    with pytest.raises(ValueError, match='5 images but 4 rows of logits'): Source.from_arrays('a', imgs, f, logits=f[:4])
    with pytest.raises(ValueError, match='logits hold NaN'): Source.from_arrays('a', imgs, f, logits=np.full((5,3), np.inf))
    with pytest.raises((ValueError, TypeError)): Source.from_arrays('a', [], f[:0])

@pytest.mark.parametrize('odd', [True, 3, nn])
def test_classifier_that_is_none(odd):
    with pytest.raises(TypeError, match='`classifier` must be'): find_classifier(tiny(), odd)

def test_classifiers_of_timm():
    assert len(find_classifier(timm.create_model('test_vit', num_classes=10))) == 1
    assert find_classifier(timm.create_model('test_resnet', num_classes=0)) == []

def test_features_of_a_convolution():
    conv = nn.Sequential(nn.Conv2d(3,8,3), nn.ReLU(), nn.Conv2d(8,5,1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    f,l = SourceNet(conv, '2')(torch.rand(2,3,64,64))
    assert f.shape == (2,8) and not f.requires_grad and not any(p.requires_grad for p in conv.parameters())

def test_rows_of_arrays_are_checked():
    imgs,f = rng.integers(0, 255, (6,8,8), dtype=np.uint8),rng.normal(size=(6,3))
    with pytest.raises(ValueError, match='6 images but 5 rows of features'): Source.from_arrays('a', imgs, f[:5])
    with pytest.raises(ValueError, match='sum to 1'): Source.from_arrays('a', imgs, f, probs=f)
    f[3,1] = np.nan
    with pytest.raises(ValueError, match=r'in 1 rows \(first: \[3\]\)'): Source.from_arrays('a', imgs, f)

def test_a_constructor_of_ones_own():
    "`weights_hash` and a recipe decide the key, without a build; what `build` is decides it without a recipe"
    def fail(): raise AssertionError('built')
    def source(w='w', **kw): return Source('own', fail, lambda: w, size=8, **kw)
    assert source().key == source().key != source('v').key
    assert source(recipe=dict(a=1)).key == source(recipe=dict(a=1)).key != source(recipe=dict(a=2)).key
    assert source(mute=True).key != source().key

def test_lists_of_sources():
    a = Source.from_module(tiny(), .5, .5, 16)
    assert source_list(a) == source_list([a]) == source_list(o for o in [a]) == [a]
    with pytest.raises(TypeError, match='`zoo` must be Sources, not str'): source_list([a, 'resnet18'], 'zoo')
    with pytest.raises(ValueError, match='`sources` is empty'): source_list([])
