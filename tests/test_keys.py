"Two networks whose outputs differ have two keys, whatever makes them differ; copies, modes and processes have one"
import copy, os, subprocess, sys, types
from collections import OrderedDict
from functools import partial
import numpy as np, pytest, timm, torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from distill_nb.identity import Unidentified
from distill_nb.store import Store
from distill_nb.outputs import get_outputs
from distill_nb.sources import Source

probe = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))*4 - 2

def base(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))

class Own(nn.Module):
    "A network and whatever else decides what it puts out"
    def __init__(self, f=None, **attrs):
        super().__init__()
        self.net,self.f = base(),f
        vars(self).update(attrs)
    def forward(self, x):
        y = self.net(x)
        return y if self.f is None else self.f(y)

def local(k):
    class Local(Own):
        def forward(self, x): return super().forward(x)*k
    return Local()

def helped(k):
    def helper(x): return x+k
    return Own(lambda x: helper(x))

def method(f):
    m = Own()
    m.forward = types.MethodType(f, m)
    return m

def hooked(f, pre=False):
    m = base()
    (m[2].register_forward_pre_hook if pre else m[2].register_forward_hook)(f)
    return m

def buffered(v, persistent=False):
    class Buffered(Own):
        def forward(self, x): return self.net(x)*self.b
    m = Buffered()
    m.register_buffer('b', torch.tensor(v), persistent=persistent)
    return m

def ordered(*names):
    class Ordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.ops,self.net = nn.ModuleDict({n: dict(a=nn.Tanh(), b=nn.Softplus())[n] for n in names}),base()
        def forward(self, x):
            for op in self.ops.values(): x = op(x)
            return self.net(x)
    return Ordered()

def seq(**layers): return nn.Sequential(OrderedDict(net=base(), **layers))

class _Times(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k
    def forward(self, w): return w*self.k

def parametrized(k):
    m = base()
    parametrize.register_parametrization(m[2], 'weight', _Times(k))
    return m

class _First(nn.Module):
    def __init__(self, k=1.):
        super().__init__()
        self.k = k
    def forward(self, x): return x[0]*self.k

class _Chain:
    def __init__(self, **fs): self.fs = fs
    def __call__(self, x):
        for f in self.fs.values(): x = f(x)
        return x

class Keyed:
    "Of a kind whose inside cannot be read, but that says what it does"
    def __init__(self, k): self.key,self.gen = str(k),(k for _ in iter(int, 1))
    def __call__(self, x): return x*float(self.key)
    def __deepcopy__(self, memo): return Keyed(float(self.key))

slope = 1.
def by_global(x): return x*slope
def with_global(v):
    f = types.FunctionType(by_global.__code__, {**by_global.__globals__, 'slope': v})
    return Own(f)

tables = [torch.ones(5), torch.arange(5.)]
weight_of = lambda k: (lambda m: (m[2].weight.data.mul_(k), m)[1])(base())
heads = lambda n: timm.create_model('test_vit', img_size=16, num_heads=n, num_classes=5, dynamic_img_size=True)

def scaled_by_k(self, x): return self.net(x)*getattr(self, 'k', 1)
def with_k():
    m = method(scaled_by_k)
    m.k = 2
    return m

def padded(pad): return nn.Sequential(pad(1), base()[0], nn.AdaptiveAvgPool2d(6), *base()[1:])
def times(k): return lambda x: x*k

kinds = { # pairs that share every weight
    'a function': (lambda: Own(torch.tanh), lambda: Own(torch.sin)),
    'a lambda': (lambda: Own(lambda x: x+1), lambda: Own(lambda x: x+2)),
    'a partial': (lambda: Own(partial(F.leaky_relu, negative_slope=.1)),
                  lambda: Own(partial(F.leaky_relu, negative_slope=.2))),
    'a closure': (lambda: Own(times(2)), lambda: Own(times(3))),
    'a default': (lambda: Own(lambda x, k=2: x*k), lambda: Own(lambda x, k=3: x*k)),
    'a closure of tensors': (lambda: Own(times(tables[0])), lambda: Own(times(tables[1]))),
    'a helper': (lambda: helped(1), lambda: helped(2)),
    'a global': (lambda: with_global(1.), lambda: with_global(2.)),
    'a class in a function': (lambda: local(1.), lambda: local(2.)),
    'forward': (lambda: method(lambda self, x: self.net(x)), lambda: method(lambda self, x: self.net(x)-1)),
    'a hook': (lambda: hooked(lambda m, a, y: y+1), lambda: hooked(lambda m, a, y: y+2)),
    'a hook or none': (base, lambda: hooked(lambda m, a, y: y+2)),
    'a hook before': (lambda: hooked(lambda m, a: (a[0]+1,), True), lambda: hooked(lambda m, a: (a[0]+2,), True)),
    'a buffer that is not saved': (lambda: buffered(1.), lambda: buffered(2.)),
    'a buffer': (lambda: buffered(1., True), lambda: buffered(2., True)),
    'the order of layers': (lambda: ordered('a','b'), lambda: ordered('b','a')),
    'a layer without weights': (lambda: seq(a=nn.ReLU()), lambda: seq(a=nn.Tanh())),
    'an option of a layer': (lambda: seq(a=nn.LeakyReLU(.1)), lambda: seq(a=nn.LeakyReLU(.3))),
    'a layer more': (lambda: seq(a=nn.ReLU()), lambda: seq(a=nn.ReLU(), b=nn.Tanh())),
    'the order of a dictionary': (lambda: Own(_Chain(a=torch.tanh, b=F.softplus)),
                                  lambda: Own(_Chain(b=F.softplus, a=torch.tanh))),
    'a parametrization': (lambda: parametrized(2.), lambda: parametrized(3.)),
    'a weight': (base, lambda: weight_of(1.001)),
    'a key of its own': (lambda: Own(Keyed(2.)), lambda: Own(Keyed(3.))),
    'heads of a transformer': (lambda: heads(2), lambda: heads(4)),
    'padding': (lambda: padded(nn.ZeroPad2d), lambda: padded(nn.ReflectionPad2d)),
    'a recurrent layer': (lambda: seq(a=nn.LSTM(5, 5), b=_First()),
                          lambda: seq(a=nn.LSTM(5, 5, num_layers=1, batch_first=False), b=_First(-1.))),
    'epsilon': (lambda: seq(a=nn.LayerNorm(5, eps=1e-5)), lambda: seq(a=nn.LayerNorm(5, eps=.1))),
    'an attribute': (lambda: method(scaled_by_k), with_k)}

def made(f):
    torch.manual_seed(0)
    return f()
def key(m, **kw): return Source.from_module(m, .5, .5, probe.shape[-1], **{'classifier': False, **kw}).key
def out(m):
    x = F.interpolate(probe, 16) if type(m).__name__ == 'VisionTransformer' else probe
    with torch.no_grad(): return m.eval()(x)

@pytest.mark.parametrize('kind', kinds)
def test_outputs_that_differ_have_two_keys(kind):
    a,b = map(made, kinds[kind])
    size = dict(classifier=None) if type(a).__name__ == 'VisionTransformer' else {}
    if size: key = lambda m: Source.from_module(m, .5, .5, 16).key
    else: key = globals()['key']
    ka,kb = key(a),key(b)
    assert not torch.equal(out(a), out(b)) and ka != kb
    for f,k in zip(kinds[kind], (ka,kb)): assert key(made(f)) == k
    assert key(copy.deepcopy(a)) == key(a.eval()) == key(a.train()) == key(a.requires_grad_(False)) == ka

def test_every_pair_of_kinds_has_two_keys():
    seen = {}
    for kind,fs in kinds.items():
        if kind == 'heads of a transformer': continue
        for f in fs: seen.setdefault(key(made(f)), []).append(out(made(f)))
    for same in seen.values(): assert all(torch.equal(same[0], o) for o in same)

script = """
import sys
sys.path.insert(0, sys.argv[1])
import test_keys as t
for kind in t.kinds:
    if kind != 'heads of a transformer': print(kind, *[t.key(t.made(f)) for f in t.kinds[kind]])
"""

def test_another_process_has_the_same_keys(request):
    there = subprocess.check_output([sys.executable, '-W', 'ignore', '-c', script, request.path.parent], text=True,
                                    env={**os.environ, 'PYTHONHASHSEED': '7'})
    here = {k: [key(made(f)) for f in fs] for k,fs in kinds.items() if k != 'heads of a transformer'}
    assert there == ''.join(' '.join([k, *keys])+'\n' for k,keys in here.items())

def test_the_store_keeps_them_apart(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (3,8,8,3), dtype=np.uint8)
    for f in kinds['an attribute']:
        src = Source.from_module(made(f), .5, .5, 8, classifier=False)
        a,b = (get_outputs(src, x, s, progress=False).features for s in (Store(tmp_path, dtype='float32'), False))
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)

@pytest.mark.parametrize('make', [lambda f: Source.from_module(Own(f), .5, .5, 8, classifier=False),
                                  lambda f: Source.from_timm('test_resnet', pretrained=False, act_layer=f),
                                  lambda f: Source('mine', lambda: f, lambda: 'weights', size=8)])
def test_what_cannot_be_digested_is_refused_when_the_source_is_made(make):
    class Stream:
        def __init__(self): self.rows = (i for i in range(3))
        def __call__(self, x): return x
        def __deepcopy__(self, memo): return self
    with pytest.raises(Unidentified, match='Stream|rows.*`key`'): make(Stream())

def test_what_builds_a_network_of_ones_own_is_part_of_the_key():
    def build(k): return lambda: Own(lambda x: x*k)
    mine = lambda b, w=None: Source('mine', b, w, size=8, classifier=False)
    assert mine(build(1), lambda: 'w').key == mine(build(1), lambda: 'w').key
    assert len({mine(build(k), lambda w=w: w).key for k in (1,2) for w in 'ab'}) == 4
    assert len({mine(partial(made, f)).key for f in kinds['a layer without weights']}) == 2

def test_arguments_of_an_architecture_are_told_by_what_they_are():
    def key(act): return Source.from_timm('test_resnet', pretrained=False, act_layer=act).key
    keys = [key(o) for o in (nn.ReLU, nn.ReLU6, partial(nn.LeakyReLU, .1), partial(nn.LeakyReLU, .3))]
    assert len(set(keys)) == 4 and key(partial(nn.LeakyReLU, .3)) == keys[3]

def test_arrays_are_those_of_their_images():
    a,b = np.zeros((2,4,4,3), np.uint8),np.stack([np.zeros((4,4,3)), np.full((4,4,3), 9)]).astype(np.uint8)
    f = torch.randn(2, 3)
    assert len({Source.from_arrays('a', x, f*k).key for x in (a,b,b[::-1].copy()) for k in (1,2)}) == 6
    assert Source.from_arrays('a', a, f).key == Source.from_arrays('b', a.copy(), f.clone()).key
