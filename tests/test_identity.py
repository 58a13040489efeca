"Digests: what has one of its own, what shares one, and what has none"
import re, tempfile, threading, types
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn
from distill_nb.identity import Unidentified, identity

different = [
    None, 0, 1, True, 1.5, 'a', b'a', (1,), [[1]], {1}, {1: 2}, {2: 1}, slice(3), range(3), Path('a'),
    np.arange(3), np.arange(3.), np.array([1,None]), torch.arange(3), torch.zeros(2), torch.zeros(1,2), torch.float16,
    len, [].append, partial(int, base=2), partial(int, base=3), lambda x: x, lambda x: x+1,
    np.random.default_rng(0), np.random.default_rng(1), re.compile('a'), re.compile('b'),
    nn.ReLU(), nn.GELU(), nn.LSTM(2, 2), nn.Linear, nn.Conv2d(3,3,1)]

def test_different_objects_have_different_digests():
    assert len({identity(o) for o in different}) == len(different)

@pytest.mark.parametrize('a,b', [
    (4, 4.), ([1,2], (1,2)), ({'b','a'}, {'a','b'}), (partial(dict, a=1, b=2), partial(dict, b=2, a=1)),
    ('caf\udce9', 'caf\udce9')], ids=['numbers','sequences','sets','keywords','undecodable'])
def test_what_is_the_same(a, b): assert identity(a) == identity(b)

@pytest.mark.parametrize('a,b', [
    (dict(a=1, b=2), dict(b=2, a=1)),
    (torch.tensor([1.], dtype=torch.bfloat16), torch.tensor([2.], dtype=torch.bfloat16))], ids=['order','bfloat16'])
def test_what_is_not(a, b): assert identity(a) != identity(b)

class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.net,self.by = nn.Linear(3, 2),by
    def forward(self, x): return self.by*self.net(x)

def twins():
    one,five = Scaled(1.),Scaled(5.)
    five.load_state_dict(one.state_dict())
    five.by = 1
    assert identity(one) == identity(five)
    return one,five

def test_networks():
    one,five = twins()
    assert identity(one.eval()) == identity(five)
    one.register_buffer('mask', torch.ones(2), persistent=False)
    assert identity(one) != identity(five)

def test_a_forward_of_its_own():
    one,five = twins()
    five.forward = types.MethodType(lambda self, x: self.net(x)-1, five)
    changed = identity(five)
    assert changed != identity(one)
    five.forward = types.MethodType(lambda self, x: self.net(x)-2, five)
    assert identity(five) != changed

def test_parts_whose_digest_is_given():
    a,b = nn.Linear(3, 2),nn.Linear(3, 2)
    assert identity(a) != identity(b)
    shapes = [(p, f'{tuple(p.shape)}') for p in (*a.parameters(), *b.parameters())]
    assert identity(a, known=shapes) == identity(b, known=shapes)

def test_closures():
    def make(k):
        def f(x, a=1): return x*k+a
        return f
    assert identity(make(2)) == identity(make(2)) != identity(make(3))

def test_a_method_that_another_one_calls():
    class A:
        b = 1
        def f(self): return self.g()+1
        def g(self): return 1
    old = identity(A())
    class A:
        b = 1
        def f(self): return self.g()+1
        def g(self): return 2
    assert identity(A()) != old and identity(A) != old

def test_an_object_that_contains_itself():
    class A: pass
    a = A()
    a.me = a
    assert identity(a) == identity(a)

def test_slots():
    class Slotted:
        __slots__ = 'x',
        def __init__(self, x): self.x = x
    assert identity(Slotted(1)) == identity(Slotted(1)) != identity(Slotted(2))

def test_a_path_is_its_file(tmp_path):
    f = tmp_path/'w.pt'
    f.write_bytes(b'1')
    first = identity(dict(start=f))
    f.write_bytes(b'2')
    assert identity(dict(start=f)) != first

def test_an_open_file_has_none_unless_it_has_a_key():
    class Keyed:
        def __init__(self, f, key): self.f,self.key = f,key
    with tempfile.TemporaryFile() as o:
        with pytest.raises(Unidentified, match=r'recipe\.start\.0'): identity(dict(start=[o]), 'recipe')
        assert identity(Keyed(o, 'a')) == identity(Keyed(None, 'a'))

def nested():
    deep = []
    for _ in range(100_000): deep = [deep]
    return deep

@pytest.mark.parametrize('make,why', [
    (lambda: (i for i in range(3)), '`key`'), (threading.Lock, 'lock'), (nested, 'too deeply')])
def test_what_has_no_digest(make, why):
    with pytest.raises(TypeError, match=why): identity(make())
