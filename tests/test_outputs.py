"What the outputs notebook cannot hold well: crashes, races and damage, in processes of their own"
import os, signal, subprocess, sys, time, warnings
from io import BytesIO
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn
from distill_nb import outputs
from distill_nb.core import rules
from distill_nb.images import ImageView
from distill_nb.images import *
from distill_nb.store import *
from distill_nb.outputs import *
from distill_nb.pseudo_labels import *
from distill_nb.sources import Source

rng = np.random.default_rng(0)
imgs = [rng.integers(0, 255, (12,12,3), dtype=np.uint8) for _ in range(30)]

class Net(nn.Module):
    "A small classifier that counts its images and fails when `fail` says so"
    seen,fail = 0,None
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.m = nn.Sequential(nn.Conv2d(3,5,3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5,4))
    def forward(self, x):
        if Net.fail: Net.fail()
        Net.seen += len(x)
        return self.m(x)

@pytest.fixture()
def source():
    src = Source.from_module(Net(), .5, .5, 12, name='net')
    Net.seen,Net.fail = 0,None
    yield src
    Net.fail = None

def get(source, items=imgs, store=False, **kw): return get_outputs(source, items, store, progress=False, **kw)
def stored(store): return sorted(p.name for p in Path(store).rglob('*') if p.is_file())

# What an image is

def test_key_is_the_content(tmp_path):
    a = imgs[0]
    Image.fromarray(a).save(tmp_path/'a.png')
    (tmp_path/'b.dat').write_bytes((tmp_path/'a.png').read_bytes())
    assert image_key(str(tmp_path/'a.png')) == image_key(tmp_path/'b.dat') == image_key((tmp_path/'b.dat').read_bytes())
    assert image_key(a) == image_key(torch.from_numpy(a)) == image_key(Image.fromarray(a)) == image_key(np.asfortranarray(a))
    g = a[...,0]
    assert image_key(g) == image_key(Image.fromarray(g)) == image_key(Image.fromarray(g).convert('RGB'))
    assert image_key(a[:6]) != image_key(a[:,:6]) and len(image_key(a)) == 32

def test_same_pixels_of_another_shape_are_another_image():
    z = np.zeros((4,6), np.uint8)
    assert image_key(z) != image_key(z.T)

# Rows

@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.integers(0,29), min_size=1, max_size=60), bs=st.integers(1,9), chunk=st.integers(1,20))
def test_a_row_for_each_image_in_order(tmp_path_factory, order, bs, chunk):
    src = Source.from_module(Net(), .5, .5, 12)
    with torch.no_grad(): want = src.load()(torch.stack([src.tfm(Image.fromarray(o)) for o in imgs]))
    store = Store(tmp_path_factory.mktemp('s'), chunk=chunk, dtype='float32')
    get(src, imgs[:10], store, bs=bs)
    Net.seen = 0
    for _ in range(2):
        res = get(src, [imgs[i] for i in order], store, bs=bs)
        torch.testing.assert_close(res.features, want[0][order], atol=1e-5, rtol=0)
        torch.testing.assert_close(res.logits, want[1][order], atol=1e-5, rtol=0)
    assert Net.seen == len({i for i in order if i>=10})

def test_images_of_every_kind_and_size(source, tmp_path):
    Image.fromarray(imgs[0]).save(tmp_path/'a.png')
    buf = BytesIO()
    picture = Image.fromarray(rng.integers(0, 255, (40,23,3), dtype=np.uint8))
    picture.save(buf, 'JPEG')
    res = get(source, [tmp_path/'a.png', buf.getvalue(), imgs[0], picture, imgs[1][...,0]])
    torch.testing.assert_close(res.features[0], res.features[2])
    assert len(res) == 5 and get(source, np.stack(imgs)).features.shape == (30,5)

def test_workers_give_the_same(source): assert torch.equal(get(source, bs=8, num_workers=1).logits, get(source, bs=8, num_workers=5).logits)

def test_random_state_is_left_alone(source):
    torch.manual_seed(3)
    np.random.seed(3)
    want = torch.rand(2),np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    get(source)
    assert torch.equal(torch.rand(2), want[0]) and np.random.rand() == want[1]

def test_rows_are_ordinary_tensors(source, tmp_path):
    for res in (get(source), get(source, store=tmp_path), get(source, store=tmp_path)):
        for t in (res.features, res.logits):
            assert not t.is_inference() and not t.requires_grad and t.dtype==torch.float32 and t.device.type=='cpu'
        w = torch.ones(5, requires_grad=True)
        (res.features@w).sum().backward()
        assert w.grad.abs().sum()>0
        res.features.add_(0)

def test_bar_only_when_there_is_something_to_do(source, tmp_path, monkeypatch):
    shown = []
    class Bar:
        def __init__(self, gen, total, leave): self.gen,self.total = gen,total
        def __iter__(self):
            yield from self.gen
            shown.append((self.comment, self.total))
    monkeypatch.setattr(outputs, 'progress_bar', Bar)
    for _ in range(2): get_outputs(source, imgs, tmp_path)
    assert shown == [('net', 30)]

def test_views_are_kept_apart(source, tmp_path):
    views = {v: [ImageView(o, v) for o in imgs] for v in ('hflip','crop0','crop1')}
    res = {'as it is': get(source, store=tmp_path), **{v: get(source, o, tmp_path) for v,o in views.items()}}
    assert Net.seen == 120
    assert torch.equal(res['hflip'].logits, get(source, [o[:,::-1].copy() for o in imgs]).logits)
    for v,o in views.items(): assert torch.equal(get(source, o, tmp_path).logits, res[v].logits)
    assert Net.seen == 150 and len({tuple(o.logits.flatten().tolist()) for o in res.values()}) == 4

def test_a_source_that_changed_is_another_source(tmp_path):
    net = Net()
    a = get(Source.from_module(net, .5, .5, 12), store=tmp_path)
    with torch.no_grad(): net.m[-1].bias += 1
    b = get(Source.from_module(net, .5, .5, 12), store=tmp_path)
    torch.testing.assert_close(b.logits, a.logits+1, atol=2e-3, rtol=0)

# The store

def test_default_store(source, tmp_path, monkeypatch):
    monkeypatch.setenv('DISTILL_NB_CACHE', str(tmp_path/'here'))
    get(source, store=None)
    assert len(stored(tmp_path/'here')) == 1 and Store().path == tmp_path/'here'
    monkeypatch.delenv('DISTILL_NB_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'user'))
    assert Store().path.name == 'distill_nb'

def test_nothing_is_kept_without_a_store(source, tmp_path, monkeypatch):
    monkeypatch.setenv('DISTILL_NB_CACHE', str(tmp_path))
    for _ in range(2): get(source)
    assert stored(tmp_path) == [] and Net.seen == 60

def test_clear_one_or_all(source, tmp_path):
    other = Source.from_module(Net(), .5, .4, 12, name='other')
    store = Store(tmp_path)
    for s in (source, other): get(s, store=store)
    full = store.size
    store.clear(other)
    assert 0 < store.size < full and store.index(other) == {}
    store.clear()
    assert store.size == 0

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_what_is_done_stays_done(source, tmp_path, error):
    want,calls = get(source),[]
    def fail():
        calls.append(1)
        if len(calls)==3: raise error
    Net.seen,Net.fail = 0,fail
    with pytest.raises(error): get(source, store=Store(tmp_path, chunk=10), bs=5)
    assert Net.seen == 10 and len(stored(tmp_path)) == 1
    Net.fail = None
    assert torch.equal(get(source, store=tmp_path, bs=5).logits, want.logits) and Net.seen == 30

@pytest.mark.parametrize('damage',
    [lambda b: b[:len(b)//2], lambda b: b[:4], lambda b: b'', lambda b: bytes(len(b)), lambda b: b[:-1]+bytes([b[-1]^1]), lambda b: b+b'x'])
def test_damaged_chunks_are_computed_again(source, tmp_path, damage):
    want,store = get(source, store=Store(tmp_path, chunk=10), bs=10),Store(tmp_path)
    path = next(store.folder(source).glob('chunk-*'))
    path.write_bytes(damage(path.read_bytes()))
    Net.seen = 0
    with pytest.warns(UserWarning, match='removed a broken file'): res = get(source, store=store, bs=10)
    assert torch.equal(res.logits, want.logits) and torch.equal(res.features, want.features) and Net.seen == 10
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert torch.equal(get(source, store=Store(tmp_path)).logits, want.logits) and Net.seen == 10

def test_a_failed_write_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left'): get(source, store=tmp_path)
    assert stored(tmp_path) == []

script = '''
import os, sys, time, numpy as np, torch
from torch import nn
from distill_nb.store import Store
from distill_nb.outputs import get_outputs
from distill_nb.sources import Source
class Slow(nn.Module):
    def __init__(self): super().__init__(); torch.manual_seed(0); self.m = nn.Sequential(nn.Flatten(), nn.Linear(192,6), nn.Linear(6,4))
    def forward(self, x): time.sleep(float(os.environ['PAUSE'])); return self.m(x)
def work(store, pause, file):
    os.environ['PAUSE'] = pause
    imgs = list(np.random.default_rng(5).integers(0, 255, (60,8,8,3), dtype=np.uint8))
    out = get_outputs(Source.from_module(Slow(), .5, .5, 8), imgs, Store(store, chunk=6), bs=3, progress=False)
    torch.save(out.logits, file)
for line in sys.stdin:                                    # PID: how that process ended; STORE PAUSE FILE: the number of a new one
    args = line.split()
    if len(args) == 1: res = os.waitpid(int(args[0]), 0)[1]
    else:
        res = os.fork()
        if res == 0:
            try: work(*args)
            except BaseException: os._exit(1)
            os._exit(0)
    print(res, flush=True)
'''

@pytest.fixture()
def nursery(tmp_path):
    "Asks a process that has imported the library, once, for others"
    (tmp_path/'s.py').write_text(script)
    p = subprocess.Popen([sys.executable, '-W', 'ignore', str(tmp_path/'s.py')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    def ask(*args):
        p.stdin.write(' '.join(map(str, args)) + '\n')
        p.stdin.flush()
        return int(p.stdout.readline())
    yield ask
    p.communicate(timeout=60)

def test_two_processes_at_once_then_one_killed(nursery, tmp_path):
    store = tmp_path/'store'
    both = [nursery(store, .02, tmp_path/f'{i}.pt') for i in range(2)]
    assert list(map(nursery, both)) == [0,0]
    a,b = (torch.load(tmp_path/f'{i}.pt', weights_only=True) for i in range(2))
    assert torch.equal(a, b)
    assert not [o for o in stored(store) if not o.startswith('chunk-')]
    Store(store).clear()
    p,t = nursery(store, .4, tmp_path/'k.pt'),time.time()
    while len(stored(store))<2 and time.time()-t<900: time.sleep(.05)
    os.kill(p, signal.SIGKILL)
    assert nursery(p) == signal.SIGKILL
    assert not (tmp_path/'k.pt').exists()
    kept = {o for o in stored(store) if o.startswith('chunk-')}
    assert 0 < len(kept) < 10
    assert nursery(nursery(store, 0, tmp_path/'r.pt')) == 0
    assert torch.equal(torch.load(tmp_path/'r.pt', weights_only=True), a)
    assert kept < set(stored(store)) and len([o for o in stored(store) if o.startswith('chunk-')]) == 10

# Errors

def test_bad_input_is_named(source, tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'no')
    for items,match in (([tmp_path/'bad.jpg'], 'bad.jpg'), ([tmp_path/'none.jpg'], 'none.jpg'), ([], 'image')):
        with pytest.raises(ValueError, match=match): get(source, items)
    for kw,match in ((dict(bs=0), 'bs'),):
        with pytest.raises(ValueError, match=match): get(source, **kw)
    with pytest.raises(TypeError, match='store'): get(source, store=True)
    with pytest.raises(ValueError, match='chunk'): Store(tmp_path, chunk=0)

def test_nan_names_the_source_and_is_not_stored(tmp_path):
    net = Net()
    with torch.no_grad(): net.m[-1].weight.fill_(float('nan'))
    with pytest.raises(ValueError, match="source 'sick'.*30 of 30"): get(Source.from_module(net, .5, .5, 12, name='sick'), store=tmp_path)
    assert stored(tmp_path) == []

def test_arrays_find_their_rows_by_content(source, tmp_path):
    out = get(source)
    arrays = Source.from_arrays('a', imgs+imgs[:1], torch.cat([out.features, out.features[:1]]),
        probs=torch.cat([out.probs(), out.probs()[:1]]))
    res = get(arrays, imgs[::-1], store=tmp_path)
    assert torch.equal(res.features, out.features.flip(0)) and stored(tmp_path) == []
    torch.testing.assert_close(res.probs(), out.probs().flip(0))
    with pytest.raises(ValueError, match='no row for 1 of 2'): get(arrays, [imgs[0], imgs[0]+1])

def test_a_failure_does_not_shift_the_images_of_others(source, tmp_path):
    "The second source lacks only the last images; the first breaks off before the pass has come to them"
    def fail(): raise RuntimeError('no luck')
    class Bad(nn.Module):
        def forward(self, x): fail()
    bad = Source('bad', Bad, lambda: 'bad', size=12, mean=.5, std=.5)
    bad.n_classes = 4
    want,store = get(source),Store(tmp_path)
    get(source, imgs[:20], store)
    assert list(compute_outputs([bad, source], imgs, store, bs=5, block=10, on_error='skip', progress=False)) == ['bad']
    assert torch.equal(get(source, store=store).logits, want.logits)

# What is computed is right

def test_temperatures_have_bounds(source):
    low,high = rules['T'].low,rules['T'].high
    said = Outputs(torch.zeros(2,1), torch.tensor([[9000.,0,-9000.],[.1,0,-.1]]))
    for T in (low, 4, high):
        assert said.probs(T).isfinite().all()
        torch.testing.assert_close(said.probs(T).sum(1), torch.ones(2))
    for T in (float('inf'), 1e20, 1e-300, 10**400, 0, np.nextafter(1e-3, 0)):
        with pytest.raises(ValueError, match='`T` must be a number at least 0.001'): said.probs(T)

def test_batches_of_other_sizes_round_differently(source, tmp_path):
    get(source, store=tmp_path)
    a,b = get(source, imgs[:9], store=tmp_path).features,get(source, imgs[:9]).features
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)

def test_nothing_is_computed_again(source, tmp_path):
    for _ in range(2): get(source, store=tmp_path)
    assert Net.seen == 30

def test_a_store_is_needed_to_compute_ahead(source):
    with pytest.raises(TypeError, match='would lose them'): compute_outputs([source], imgs, store=False)
    with pytest.raises(TypeError, match='`source` must be Sources'): get_outputs(Net(), imgs)
    with pytest.raises(ValueError, match='bs'): pseudo_labels([source], imgs, store=False, bs=0)

def test_views_have_no_row_in_arrays(source):
    arrays = Source.from_arrays('a', imgs, rng.normal(size=(30,3)))
    with pytest.raises(ValueError, match='no row for 30 of 30'): get(arrays, [ImageView(o, 'hflip') for o in imgs])
