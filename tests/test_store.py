"""Whatever lies in a store's folder: outputs are those without a store.
A pass that was interrupted ends as if it had not been. Half precision keeps the scores"""
import os, random, shutil, sqlite3, warnings
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import load, save
from torch import nn
from distill_nb import outputs, store as store_room
from distill_nb.files import digest, seal
from distill_nb.images import image_key, path_keys
from distill_nb.kept import KeptImages, ResizeView
from distill_nb.images import *
from distill_nb.store import *
from distill_nb.outputs import *
from distill_nb.pseudo_labels import *
from distill_nb.estimators.core import metrics
from distill_nb.sources import Source

rng = np.random.default_rng(0)
pictures = list(rng.integers(0, 255, (12,8,8,3), dtype=np.uint8))

class Net(nn.Module):
    "A small classifier; its outputs depend on the size of the batch, as those of a large one do in their last digits"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.m = nn.Sequential(nn.Flatten(), nn.Linear(192,6), nn.Linear(6,4))
        self.register_buffer('by', torch.zeros(()))
    def forward(self, x): return self.m(x)*(1+self.by*len(x))

def source(by=0., **kw):
    net = Net()
    net.by.fill_(by)
    return Source.from_module(net, .5, .5, 8, name='net', **kw)

src = source()
def get(items, store, **kw): return get_outputs(src, items, store, bs=4, progress=False, **kw)

# Any bytes

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    d = tmp_path_factory.mktemp('files')
    for i,o in enumerate(pictures): Image.fromarray(o).save(d/f'{i:02}.png')
    return sorted(d.iterdir())

def fill(path, files, dtype='float32'):
    path_keys.clear()
    store = Store(path, chunk=4, dtype=dtype)
    get(files, store)
    pseudo_labels([src], files, store=store, memory=0, bs=4, progress=False)
    return store

@pytest.fixture(scope='module')
def want(files, tmp_path_factory):
    store = fill(tmp_path_factory.mktemp('want'), files)
    return get(files, store),pseudo_labels([src], files, store=store, progress=False)[:]

def check(store, files, want, heals=True):
    "As without a store; if anything is not, it is said, and only once"
    for again in range(2):
        path_keys.clear()
        with warnings.catch_warnings():
            warnings.simplefilter('error' if again and heals else 'ignore')
            store = Store(store.path, 4, store.dtype)
            out = get(files, store)
            torch.testing.assert_close(out.features, want[0].features, atol=1e-6, rtol=0)
            torch.testing.assert_close(out.logits, want[0].logits, atol=1e-6, rtol=0)
            torch.testing.assert_close(pseudo_labels([src], files, store=store, memory=0, bs=4, progress=False)[:], want[1],
                atol=1e-3, rtol=0)

def put_chunk(path, chunk, metadata=None):
    data = save({k: v.contiguous() for k,v in chunk.items()}, metadata)
    path.unlink()
    (path.parent/f'chunk-{digest(data)}.safetensors').write_bytes(data)

wrong = {
    'another width': lambda c: c.update(features=torch.randn(4,9)), 'no logits': lambda c: c.pop('logits'),
    'other classes': lambda c: c.update(logits=torch.randn(4,3)), 'NaN': lambda c: c['features'].fill_(float('nan')),
    'infinite': lambda c: c['logits'].fill_(float('inf')),
    'whole numbers': lambda c: c.update(features=torch.ones(4,6, dtype=torch.int64)),
    'doubles': lambda c: c.update(features=c['features'].double()), 'other halves': lambda c: c.update(features=c['features'].bfloat16()),
    'fewer rows': lambda c: c.update(features=c['features'][:3]),
    'one dimension': lambda c: c.update(features=c['features'].flatten()), 'no keys': lambda c: c.pop('keys'),
    'short keys': lambda c: c.update(keys=c['keys'][:,:8]), 'another part': lambda c: c.update(more=torch.ones(4)),
    'nothing': lambda c: c.clear(),
    'offsets of another width': lambda c: c.update(features_at=torch.zeros(1,2,5), features_in=torch.tensor([4])),
    'offsets of other batches': lambda c: c.update(features_at=torch.zeros(1,2,6), features_in=torch.tensor([3])),
    'offsets alone': lambda c: c.update(features_at=torch.zeros(1,2,6)),
    'offsets of NaN': lambda c: c.update(logits_at=torch.full((4,1), float('nan')))}

@pytest.mark.parametrize('kind', wrong)
@pytest.mark.parametrize('signed', [False,True])
@pytest.mark.parametrize('which', ['one','all'])
def test_chunks_whose_checksum_is_right(kind, signed, which, files, want, tmp_path):
    store = fill(tmp_path, files)
    chunks = sorted(store.folder(src).glob('chunk-*'))
    for p in chunks[:1] if which == 'one' else chunks:
        c = load(p.read_bytes())
        keys = digest(c['keys'].numpy())
        wrong[kind](c)
        put_chunk(p, c, dict(source=f'{src.key} {keys}') if signed else None)
    if signed and which == 'all' and kind in ('another width','no logits','other classes'): return # a forger who knows all; nobody else can
    with pytest.warns(UserWarning, match='from the store'): get(files, Store(tmp_path, 4, 'float32'))
    check(store, files, want)

def test_chunk_of_another_source(files, want, tmp_path):
    other,store = source(1.),fill(tmp_path, files)
    get_outputs(other, files, store, progress=False)
    for p in store.folder(other).iterdir(): shutil.copy(p, store.folder(src))
    with pytest.warns(UserWarning, match='another source'): get(files, store)
    check(store, files, want)

def test_chunks_of_an_earlier_version(files, tmp_path):
    "Neither offsets nor the name of their source"
    store = Store(tmp_path)
    out = get(files, False)
    keys = torch.tensor([list(bytes.fromhex(image_key(o))) for o in files], dtype=torch.uint8)
    store.folder(src).mkdir(parents=True)
    (store.folder(src)/'chunk-0').touch()
    put_chunk(store.folder(src)/'chunk-0', dict(keys=keys, features=out.features.half()+1, logits=out.logits.half()))
    assert torch.equal(get(files, store).features, (out.features.half()+1).float())

def test_anything_for_a_file(files, want, tmp_path):
    "Cut, garbled, another file, a folder, a link to nowhere, to itself, to /dev/zero, a pipe; fixed seed"
    r = random.Random(0)
    def cut(p): p.write_bytes(p.read_bytes()[:r.randrange(p.stat().st_size)])
    def garbled(p):
        d = bytearray(p.read_bytes())
        for _ in range(r.choice((1,1,5,50))): d[r.randrange(len(d))] = r.randrange(256)
        p.write_bytes(d)
    def noise(p): p.write_bytes(r.randbytes(r.choice((0,1,100,5000))))
    def folder(p):
        p.unlink()
        (p/'deep').mkdir(parents=True)
        (p/'deep'/'file').touch()
    def pipe(p):
        p.unlink()
        os.mkfifo(p)
    def link(to): return lambda p: (p.unlink(), p.symlink_to(to(p)))
    def gone(p): p.unlink()
    ways = [cut, garbled, garbled, noise, folder, pipe, gone, link(lambda p: '/nowhere'), link(lambda p: p),
        link(lambda p: '/dev/zero'), link(lambda p: files[0]), link(lambda p: p.parent)]
    whole = fill(tmp_path/'whole', files).path
    kinds = set()
    for k in range(60):
        shutil.rmtree(tmp_path/'s', ignore_errors=True)
        shutil.copytree(whole, tmp_path/'s')
        there = sorted(p for p in (tmp_path/'s').rglob('*') if p.is_file())
        for p in r.sample(there, r.choice((1,1,len(there)))):
            kinds.add(p.suffix)
            ways[k%len(ways)](p)
        check(Store(tmp_path/'s', 4, 'float32'), files, want)
        store = Store(tmp_path/'s')
        repr(store)
        store.clear()
        assert store.size == 0
    assert kinds == {'.safetensors','.sqlite','.npy','.json'}
    assert files[0].read_bytes()[1:4] == b'PNG'

@pytest.mark.parametrize('at', ['{key}','{key}/float32','tables','tables/*'])
def test_anything_for_a_folder(at, files, want, tmp_path):
    store = fill(tmp_path, files)
    for p in list(tmp_path.glob(at.format(key=src.key))):
        shutil.rmtree(p)
        p.write_text('no folder')
    check(store, files, want)

def test_what_cannot_be_read_is_left(files, want, tmp_path, monkeypatch):
    store = fill(tmp_path, files)
    mine = sorted(store.folder(src).glob('chunk-*'))[0]
    was,inode = Path.read_bytes,mine.stat().st_ino
    def denied(self):
        if self == mine and self.stat().st_ino == inode: raise PermissionError(13, 'Permission denied', str(self))
        return was(self)
    monkeypatch.setattr(Path, 'read_bytes', denied)
    with pytest.warns(UserWarning, match='ignored a file of the store'): out = get(files, Store(tmp_path, 4, 'float32'))
    assert torch.equal(out.features, want[0].features) and mine.exists()

@pytest.mark.parametrize('sql',
    ["update contents set key='zz'", "update contents set key=(select key from contents order by path limit 1)",
    "update contents set at='0'", "update contents set key=null, at=3", "update contents set seal=''",
    "drop table contents; create table contents (path text primary key, key text)",
    "drop table contents; create view contents as select 1 path, 2 at, 3 key, 4 seal",
    "create trigger t before insert on contents begin select raise(abort, 'no'); end",
    "insert into contents values (x'ff00', '', '', '')",
    "drop table contents; create table files (path text primary key, mtime_ns integer, size integer, key text); "
    "insert into files values ('a',1,2,'b')"])
def test_data_base_of_files(sql, files, want, tmp_path):
    store = fill(tmp_path, files)
    with sqlite3.connect(tmp_path/'files.sqlite') as db: db.executescript(sql)
    check(store, files, want)

def test_files_that_change_places(tmp_path):
    for n,c in (('a','red'),('b','blue')):
        Image.new('RGB', (32,32), c).save(tmp_path/f'{n}.bmp')
        os.utime(tmp_path/f'{n}.bmp', (1e9,1e9))
    fs = [tmp_path/'a.bmp', tmp_path/'b.bmp']
    first = get(fs, tmp_path/'store')
    for a,b in (('a','t'),('b','a'),('t','b')): os.rename(tmp_path/f'{a}.bmp', tmp_path/f'{b}.bmp')
    for clear in (False,True):
        if clear: path_keys.clear()
        assert torch.equal(get(fs, tmp_path/'store').features, first.features.flip(0))

def test_kept_images(tmp_path):
    kept,view = KeptImages(tmp_path),ResizeView((4,4), True, False, 2)
    img = kept.open(pictures[0], view)
    file = kept.file(pictures[0], view)
    whole = file.read_bytes()
    def npy(a):
        import io
        np.save(f := io.BytesIO(), a, allow_pickle=True)
        return seal(f.getvalue())
    for data in (b'', b'x', whole[:-1], whole+b'x', seal(b''), seal(b'\x93NUMPY'), npy(np.zeros((3,4,3), np.uint8)),
        npy(np.zeros((4,4), np.uint8)), npy(np.zeros((4,4,3))), npy(np.array([{}]))):
        file.write_bytes(data)
        with pytest.warns(UserWarning, match='broken file'): assert kept.open(pictures[0], view) == img
        assert file.read_bytes() == whole
    for make in (file.mkdir, lambda: os.mkfifo(file), lambda: file.symlink_to('/dev/zero')):
        file.rmdir() if file.is_dir() else file.unlink()
        make()
        with pytest.warns(UserWarning, match='cannot be kept'): assert KeptImages(tmp_path).open(pictures[0], view) == img

def test_parts_of_dead_writers(files, tmp_path):
    store = fill(tmp_path, files)
    for d in (store.folder(src), next((tmp_path/'tables').iterdir())): (d/'.tmp-0').write_bytes(b'half')
    (tmp_path/'tables'/'.tmp-1').mkdir()
    get(files[:3]+pictures[:1], store)
    pseudo_labels([src], files[:4], store=store, memory=0, bs=4, progress=False)
    assert not list(tmp_path.rglob('.tmp-*'))

# Taken up again

many = list(rng.integers(0, 255, (50,8,8,3), dtype=np.uint8))
twins = [source(1e-3), Source.from_module(nn.Sequential(nn.Flatten(), nn.Linear(192,5)), .5, .5, 8, name='twin')]

def run(store, bs, block, stop=None, kill=False, sources=twins):
    "The pass, broken off at batch number `stop`"
    n,forward = 0,outputs._forward
    def counted(*a):
        nonlocal n
        if n == stop: raise KeyboardInterrupt
        n += 1
        return forward(*a)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(outputs, '_forward', counted)
        if kill: m.setattr(outputs._Writer, 'close', lambda self: [w.result() for w in self.writes])   # nothing is put away
        try: compute_outputs(sources, many, store, bs=bs, block=block, progress=False)
        except KeyboardInterrupt: pass
    return n

@pytest.mark.parametrize('dtype', ['float32','float16'])
@pytest.mark.parametrize('bs,block,chunk', [(1,None,7),(7,14,16),(7,None,3),(8,8,8),(12,30,25),(16,None,10),(48,None,16),(64,100,1)])
def test_a_resumed_pass_is_a_whole_one(bs, block, chunk, dtype, tmp_path):
    def out(store): return [o for s in twins for x in (get_outputs(s, many, store, bs=bs, progress=False),) for o in (x.features, x.logits)]
    n = run(Store(tmp_path/'whole', chunk, dtype), bs, block)
    want = out(Store(tmp_path/'whole', dtype=dtype))
    for kill in (False,True):
        for stop in {1, n//3, n//2, n-1}:
            path = tmp_path/f'{stop} {kill}'
            for at in (stop, 1, None): run(Store(path, chunk, dtype), bs, block, at, kill and at is not None)
            for a,b in zip(out(Store(path, dtype=dtype)), want): assert torch.equal(a, b)

def test_what_was_there_before_does_not_move_the_grid(tmp_path):
    "Of what is missing each batch holds what lies between two multiples of its size, in the order asked for; nothing is computed twice"
    forward = outputs._forward
    for there in ([], [5], [0,1,2], list(range(17)), list(range(0,50,2)), [49]):
        store,batches = Store(tmp_path/f'{len(there)}{there[:1]}', dtype='float32'),[]
        if there: compute_outputs(twins[:1], [many[i] for i in there], store, progress=False)
        with pytest.MonkeyPatch.context() as m:
            m.setattr(outputs, '_forward', lambda s, net, x, *a: batches.append(len(x)) or forward(s, net, x, *a))
            compute_outputs(twins[:1], many, store, bs=8, progress=False)
        left = sorted(set(range(50))-set(there))
        assert batches == [n for lo in range(0, 50, 8) if (n := len([i for i in left if lo<=i<lo+8]))]

# Half precision

y = np.arange(120)%3
base = torch.tensor(rng.normal(size=(120,12)) + 1.2*np.eye(12)[y]*[1.]*12, dtype=torch.float32).relu()
some = ['cka','parc','knn','linear_probe','h_score','logme']

def kept(x, z=None, bs=32):
    "As they come back from a store"
    sizes = [len(o) for o in x.split(bs)]
    data = store_room._pack_features(x, sizes) | ({} if z is None else store_room._pack_logits(z))
    data = load(save({k: v.contiguous() for k,v in data.items()}))
    return store_room._unpack(data),sum(v.nbytes for v in data.values())

@pytest.mark.parametrize('scale', [1e-3,1.,1e3])
@pytest.mark.parametrize('offset', [0.,10.,-300.,1e4])
def test_scores_do_not_depend_on_scale_and_offset(scale, offset):
    x = base*scale + offset*scale
    got,size = kept(x)
    assert size < .75*x.nbytes                                                   # half, and the offsets of batches of 32
    for m in some: assert abs(metrics[m](got['features'], y) - metrics[m](x, y)) < .01, m

def test_each_dimension_for_itself():
    torch.manual_seed(0)
    a,b = 10**(6*torch.rand(12)-3),2e4*torch.rand(12)-1e4
    x = base*a + b*a
    x[:,3] = 7e4
    x[:,4] = 0
    x[:,5] = 1e-7*base[:,5]
    x[:,6] = 3e38*(base[:,6]>1)
    got = kept(x)[0]['features']
    assert (got[:,3]==7e4).all() and (got[:,4]==0).all() and (got[:,6]==x[:,6]).all()
    spread = (x.double()-x.double().mean(0)).abs().amax(0).clamp(min=1e-30)
    assert ((got.double()-x.double()).abs().amax(0)/spread).max() < 2e-3
    same,size = kept(base)                                                     # where nothing is gained nothing changes
    assert torch.equal(same['features'], base.half().float()) and size == base.nbytes//2
    assert torch.equal(kept(x[:3], bs=1)[0]['features'], x[:3])                   # batches too small to gain anything

@pytest.mark.parametrize('scale', [1e-3,1.,30.])
@pytest.mark.parametrize('offset', [0.,300.,-1e4,6e4])
def test_pseudo_labels_do_not_depend_on_an_offset(scale, offset):
    torch.manual_seed(0)
    z = (torch.randn(120,9)+2*torch.eye(9)[y])*scale + offset
    got,size = kept(base, z)
    for T in (.5,1,20): torch.testing.assert_close((got['logits']/T).softmax(1), (z/T).softmax(1), atol=2e-3, rtol=5e-3)
    p,q = got['logits'].softmax(1),z.softmax(1)
    assert abs(metrics['leep'](p, y)-metrics['leep'](q, y)) < .01
    torch.testing.assert_close(got['logits'], z, atol=2**-8*max(1, scale), rtol=2**-10)

# A store by itself

def test_half_and_full_precision(tmp_path):
    torch.manual_seed(0)
    keys,small,logits = [image_key(o) for o in many[:40]],torch.randn(40,64)*.1+300,torch.randn(40,5)*20+300
    half,full = [Store(tmp_path/t, dtype=t) for t in ('float16','float32')]
    got = half.read(half.write(twins[1], keys, small, logits))
    full.write(twins[1], keys, small, logits)
    torch.testing.assert_close(got['features'], small, atol=3e-4, rtol=0)      # a half at 300 is off by up to 0.125
    torch.testing.assert_close(got['logits'].softmax(1), logits.softmax(1), atol=1e-4, rtol=0)
    assert half.size < .75*full.size                                           # of forty images half is names
    huge = torch.cat([torch.full((1,64), 1e5), torch.rand(4,64)])
    torch.testing.assert_close(half.read(half.write(twins[1], keys[:5], huge, logits[:5]))['features'], huge, atol=50, rtol=0)
    odd = half.write(twins[1], keys[:5], torch.rand(5,63), logits[:5])
    with pytest.warns(UserWarning, match='its features and classes are'): half.index(twins[1])
    assert not odd.exists()

def test_a_chunk_that_has_changed_is_gone(tmp_path):
    store = Store(tmp_path)
    path = store.write(twins[1], [image_key(many[0])], torch.rand(1,192), torch.rand(1,5))
    path.write_bytes(path.read_bytes()[:-1]+b'x')
    with pytest.warns(UserWarning, match='its content has changed'): assert store.read(path) == {}
    assert store.index(twins[1]) == {} and store.size == 0

def test_keys_of_files_are_those_of_their_content(tmp_path):
    Image.fromarray(pictures[0]).save(tmp_path/'zero.png')
    store,items = Store(tmp_path/'store'),[tmp_path/'zero.png', ImageView(tmp_path/'zero.png', 'hflip'), pictures[0]]
    path_keys.clear()
    want = [image_key(o) for o in items]
    assert store.image_keys(items) == want
    path_keys.clear()
    assert store.image_keys(items) == want
    known = dict(path_keys)
    path_keys.clear()
    with sqlite3.connect(store.path/'files.sqlite') as db: db.execute('update contents set key=upper(key)')
    assert store.image_keys(items) == want and path_keys == known              # a row that has changed does not count
    (store.path/'files.sqlite').write_bytes(b'not a database'*100)
    path_keys.clear()
    with pytest.warns(UserWarning, match='not a database of files'): assert store.image_keys(items) == want
