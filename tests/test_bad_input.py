"""The ways in against input that is wrong, strange or hostile: a clear error, or the right result. Each table says which
is expected of each case; with $DISTILL_NB_STURDY the outcomes become rows of the page `sturdy`."""
import io, json, math, os, resource, shutil, subprocess, warnings
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import save_file
from fastai.vision.all import Learner
from distill_nb.images import open_image
from distill_nb.items import get_images
from distill_nb.data import few_labels, image_dls
from distill_nb.deploy import load_student, save_student
from distill_nb.student import create_student
from distill_nb.teachers import distill_loss
from distill_nb.infer import find_images, read_rgb
from distill_nb.store import Store
from distill_nb.outputs import get_outputs
from distill_nb.resume import read_state, write_state
from distill_nb.similarity import rank_sources
from distill_nb.estimators.core import metrics
from distill_nb.sources import Source
from distill_nb.checkpoints import read_weights
from distill_nb.zoo import Zoo
from distill_nb.weights import source_weights

REFUSED = (ValueError, TypeError, FileNotFoundError)
def refusal(f, *args, **kw):
    "Message of the error with which `f` refuses; whatever else it raises is a failure"
    with pytest.raises(REFUSED) as e, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        f(*args, **kw)
    assert len(str(e.value)) > 15, f'says too little: {e.value!r}'
    return str(e.value)

# Images

RGB = np.random.default_rng(0).integers(0, 256, (24,32,3), dtype=np.uint8)
def encoded(img=None, fmt='PNG', **kw): # kw of PIL's save
    f = io.BytesIO()
    (Image.fromarray(RGB) if img is None else img).save(f, fmt, **kw)
    return f.getvalue()
im = lambda mode: Image.fromarray(RGB).convert(mode)

def exif_rotated():
    e = Image.Exif()
    e[274] = 6
    return encoded(exif=e)

def png_header(w, h):
    "A PNG of a few bytes that says it is as large as that"
    import struct, zlib
    chunk = lambda t,d: struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t+d))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)) + chunk(b'IDAT',
            zlib.compress(b'\0'*1000)) + chunk(b'IEND', b'')

images = { # case -> (bytes of a file, size that is read or None where it is refused)
    'ordinary':               (encoded, (32,24)),
    'empty file':             (lambda: b'', None),
    'text':                   (lambda: b'not an image at all, but a few words', None),
    'cut in half':            (lambda: encoded()[:900], None),
    'JPEG cut in half':       (lambda: encoded(fmt='JPEG', quality=95)[:700], None),
    'wrong bytes within':     (lambda: encoded()[:200] + b'\0'*400 + encoded()[600:], None),
    'HTML with the name of an image': (lambda: b'<html><body>404</body></html>', None),
    'animated GIF: the first picture': (lambda: encoded(im('P'), 'GIF', save_all=True, append_images=[im('P').rotate(90)]), (32,24)),
    'animated WebP: the first picture': (lambda: encoded(fmt='WEBP', save_all=True, append_images=[im('RGB').rotate(180)]), (32,24)),
    '16 bits':                (lambda: encoded(Image.fromarray((RGB[...,0].astype(np.uint16)*257))), (32,24)),
    'CMYK':                   (lambda: encoded(im('CMYK'), 'JPEG'), (32,24)),
    'CMYK with four whole channels as TIFF': (lambda: encoded(im('CMYK'), 'TIFF'), (32,24)),
    'alpha':                  (lambda: encoded(im('RGBA')), (32,24)),
    'grey with alpha':        (lambda: encoded(im('LA')), (32,24)),
    'palette with transparency': (lambda: encoded(im('P'), transparency=3), (32,24)),
    'one bit':                (lambda: encoded(im('1')), (32,24)),
    'floating point TIFF':    (lambda: encoded(Image.fromarray(RGB[...,0].astype(np.float32)), 'TIFF'), None),
    'turned by EXIF: as stored': (exif_rotated, (32,24)),
    'EPS, which a program would have to open': (lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 '
                                                        b'10\n%%EndComments\nshowpage\n', None),
    'WMF, which a program would have to open': (lambda: b'\xd7\xcd\xc6\x9a\x00\x00' + b'\0'*8 + b'\x60\0' + b'\0'*20, None),
    '8 bits in 32':           (lambda: encoded(Image.fromarray(RGB[...,0].astype(np.int32)), 'TIFF'), (32,24)),
    'greys below zero':       (lambda: encoded(Image.fromarray(RGB[...,0].astype(np.int32)-9), 'TIFF'), None),
    'greys of 24 bits':       (lambda: encoded(Image.fromarray(RGB[...,0].astype(np.int32)<<16), 'TIFF'), None),
    'one pixel':              (lambda: encoded(Image.fromarray(RGB[:1,:1])), (1,1)),
    'one row':                (lambda: encoded(Image.fromarray(RGB[:1])), (32,1)),
    '20,000 pixels wide':     (lambda: encoded(Image.fromarray(np.zeros((20,20000,3), np.uint8))), (20000,20)),
    '20,000 x 20,000 pixels in a few bytes': (lambda: png_header(20000, 20000), None),
    '2,000,000,000 pixels wide': (lambda: png_header(2_000_000_000, 1), None),
    'no pixel':               (lambda: png_header(0, 5), None)}

def looked_at(item):
    "What the entries that take one image make of it: sizes, or refusals that name the file"
    src = Zoo.embedded()['digits']
    yield 'open_image', lambda: open_image(item).size
    yield 'image_dls', lambda: tuple(image_dls([item]*4, [0,1,0,1], valid_items=[item], valid_labels=[0],
                                               size=16).one_batch()[0].shape[-2:])
    yield 'get_outputs', lambda: len(get_outputs(src, [item], store=False, progress=False))
    if isinstance(item, Path): yield 'read_rgb', lambda: read_rgb(item).size

@pytest.mark.parametrize('case', images)
def test_image(case, tmp_path, record_fault):
    make,size = images[case]
    data = make()
    file = tmp_path/'a picture.png'
    file.write_bytes(data)
    tried = 0
    for item in (data, file):
        for name,f in looked_at(item):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if size is None:
                said = refusal(f)
                assert 'a picture.png' in said or item is data, f'{name}: {said}'
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter('error')
                    got = f()
                assert got == {'open_image': size, 'read_rgb': size, 'image_dls': (16,16), 'get_outputs': 1}[name], name
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500e3, f'{name} took half a gigabyte'
            tried += 1
    record_fault('image', case, 'read' if size else 'refused, by name', tried)

items = { # not even a file
    'float array': np.zeros((8,8,3)), 'array [3,8,8]': np.zeros((3,8,8), np.uint8),
    'array of no pixels': np.zeros((0,8,3), np.uint8), 'array [2,8,8,3]': np.zeros((2,8,8,3), np.uint8),
    'array of NaN': np.full((8,8,3), np.nan), 'None': None, 'number': 3, 'dictionary': dict(image=1), 'list': [1,2],
    'file that is not there': Path('/nowhere/at/all.png'), 'folder': Path('/tmp')}

@pytest.mark.parametrize('case', items)
def test_image_item(case, record_fault):
    for _,f in (o for o in looked_at(items[case]) if o[0] != 'read_rgb'): refusal(f)
    record_fault('image', case, 'refused', 3)

names = {'Chinese': '图像', 'Arabic': 'صورة', 'Devanagari': 'चित्र', 'Cyrillic': 'картинка',
         'combining accents': 'u\u0308ber', 'emoji': '🐦', 'spaces and quotes': ''' a 'b' "c"  ''',
         'newline': 'a\nb', 'comma and semicolon': 'a,b;c', 'percent and hash': '100%#1', 'leading dash': '-rf', 'very long': 'a'*200}

@pytest.mark.parametrize('case', names)
def test_file_name(case, tmp_path, record_fault):
    "As a file's and as a class's name"
    n = names[case]
    for c in (n, 'other'):
        (tmp_path/c).mkdir()
        for i in range(2): (tmp_path/c/f'{n}{i}.png').write_bytes(encoded())
    files = get_images(tmp_path)
    assert len(files) == 4 and files == find_images(tmp_path)
    dls = image_dls(files, [f.parent.name for f in files], valid_pct=.5, size=16)
    assert sorted(dls.vocab) == sorted([n,'other']) and len(dls.one_batch()[0]) == 2
    assert len(get_outputs(Zoo.embedded()['digits'], files, store=tmp_path/'store', progress=False)) == 4
    save_student(learner(dls), tmp_path/'s.safetensors')
    assert load_student(tmp_path/'s.safetensors').meta['labels'] == list(dls.vocab)
    record_fault('name', case, 'as any other', 5)

def learner(dls): return Learner(dls, create_student('test_efficientnet', dls.c, pretrained=False))

def test_links_in_circles(tmp_path, record_fault):
    for c in 'ab':
        (tmp_path/c).mkdir()
        (tmp_path/c/'1.png').write_bytes(encoded())
    (tmp_path/'a'/'up').symlink_to(tmp_path)
    (tmp_path/'a'/'self').symlink_to(tmp_path/'a')
    (tmp_path/'a'/'x').symlink_to(tmp_path/'b')
    (tmp_path/'b'/'y').symlink_to(tmp_path/'a')
    (tmp_path/'gone.png').symlink_to(tmp_path/'nowhere.png')
    found = [str(o.relative_to(tmp_path)) for o in get_images(tmp_path)]
    assert {'a/1.png','b/1.png','a/x/1.png','b/y/1.png'} <= set(found) and len(found) < 10
    assert [str(o.relative_to(tmp_path)) for o in find_images(tmp_path)] == ['a/1.png','b/1.png','gone.png']
    assert 'gone.png' in refusal(open_image, tmp_path/'gone.png')
    record_fault('image', 'links in circles, a link to nowhere', 'each folder once on a way; the dead link refused by name', 3)

# Labels

N = 12
pictures = np.random.default_rng(1).integers(0, 256, (N,16,16,3), dtype=np.uint8)
labels = { # case -> (labels, classes found or None where refused)
    'strings': (['cat','dog','ox']*4, 3), 'integers': ([0,1,2]*4, 3), 'NumPy strings': (np.array(['cat','dog']*6), 2),
    'booleans': ([True,False]*6, 2), 'negative integers': ([-1,5]*6, 2),
    'tensor': (torch.arange(N)%3, 3), 'slashes in names': (['a/b','a\\b','../c']*4, 3),
    'any script': (['鳥','собака','🐦']*4, 3), 'empty string among them': (['','a']*6, 2),
    'strings and integers, as strings': ([0,'a']*6, 2),
    'floats': ([0.,1.,2.]*4, None), 'NaN': ([0.,math.nan]*6, None), 'None among them': ([None,'a']*6, None),
    'too few': ([0,1]*5, None), 'too many': ([0,1]*7, None), 'none at all': ([], None), 'a matrix': (np.eye(N), None),
    'a string': ('cats', None)}

@pytest.mark.parametrize('case', labels)
def test_labels(case, record_fault):
    y,c = labels[case]
    if c is None:
        refusal(image_dls, pictures, y, valid_pct=.5)
        refusal(few_labels, y, 1) if case not in ('too few','too many') else None
    else:
        dls = image_dls(pictures, y, valid_pct=.5)
        assert dls.c == c
        assert len(dls.one_batch()[1]) == N/2 and {str(v) for v in dls.vocab} == {str(o.item() if hasattr(o, 'item') else o) for o in y}
        assert len(few_labels(y, 1)) == 2
    record_fault('labels', case, f'{c} classes' if c else 'refused', 2)

def test_one_class(record_fault):
    assert '1 class' in refusal(image_dls, pictures, ['a']*N) and '1 class' in refusal(few_labels, ['a']*N, 2)
    record_fault('labels', 'one class only', 'refused', 2)

def test_ten_thousand_classes(record_fault, tmp_path):
    "Two images each: loaders, ranking, a student of so many classes, its file"
    n = 10_000
    x,y = np.random.default_rng(0).integers(0, 256, (2*n,4,4), dtype=np.uint8),[f'class {i}' for i in range(n)]*2
    dls = image_dls(x, y, valid_pct=.5, bs=32)
    assert dls.c == n
    z = np.random.default_rng(0).normal(size=(2*n,8))
    assert math.isfinite(metrics['cka'](z[:2000], np.arange(2000)%1000))
    save_student(Learner(dls, create_student('test_efficientnet', n, pretrained=False)), tmp_path/'s.safetensors')
    assert len(load_student(tmp_path/'s.safetensors').meta['labels']) == n
    logits = torch.randn(64, n)
    assert distill_loss(logits, logits.softmax(1), [n], torch.ones(1)).isfinite()
    record_fault('labels', '10,000 classes', 'loaders, scores, loss, student and its file', 5)

def test_one_image_and_the_same_image(record_fault):
    one = pictures[:1]
    refusal(image_dls, one, ['a'])
    same = np.repeat(one, N, 0)
    dls = image_dls(same, [0,1]*6, valid_pct=.5)
    assert 'constant' in refusal(rank_sources, dls, Zoo.embedded(), store=False, progress=False, metric='cka')
    out = get_outputs(Zoo.embedded()['digits'], same, store=False, progress=False)
    assert (out.logits == out.logits[0]).all()
    record_fault('image', 'one image only', 'refused: nothing is left to validate on', 1)
    record_fault('image', 'the same image over and over', 'one pass for all; a ranking is refused, by its reason', 2)

# Numbers: features, probabilities, scores

rng = np.random.default_rng(2)
X,Y = rng.normal(size=(40,5)),np.arange(40)%4
P = rng.dirichlet(np.ones(5), 40)
def matrices(good): # case -> matrix; all are refused by all metrics
    hole = lambda v: np.where(np.arange(40)[:,None]==7, v, good)
    return {'empty': good[:0], 'one image': good[:1], 'a vector': good[:,0], 'a cube': good[None],
            'NaN': hole(math.nan), 'infinite': hole(math.inf), 'strings': good.astype(str), 'objects': good.astype(object)*1j,
            'all rows equal': good[:1].repeat(40, 0), 'too few rows': good[:20], 'too many rows': good.repeat(2, 0), 'None': None}
targets = {'one class': Y*0, 'floats': Y+.5, 'NaN': np.where(Y==1, math.nan, Y), 'empty': Y[:0], 'a cube': np.zeros((2,2,2)), 'None': None}

@pytest.mark.parametrize('case', matrices(X))
def test_features(case, record_fault):
    for name,f in metrics.items():
        bad = matrices(P if f.needs == 'probs' else X)[case]
        refusal(f, bad, Y[:len(bad)] if case in ('empty','one image','a cube') else Y)
    record_fault('features', case, 'refused by every metric', len(metrics))

@pytest.mark.parametrize('case', targets)
def test_targets(case, record_fault):
    for name,f in metrics.items(): refusal(f, P if f.needs == 'probs' else X, targets[case])
    record_fault('labels of a score', case, 'refused by every metric', len(metrics))

def test_kinds_of_numbers_do_not_matter(record_fault):
    n = 0
    for name,f in metrics.items():
        x = P if f.needs == 'probs' else X
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            want = f(x, Y)
            for a,y in [(torch.tensor(x), torch.tensor(Y)), (x.astype(np.float32), Y.astype(np.int8)),
                        (x.tolist(), Y.tolist()), (x, np.array(list('abcd'))[Y]), (x, np.array(['a/b','a\\b','..',''])[Y])]:
                assert f(a, y) == pytest.approx(want, abs=2e-4), name
                n += 1
    record_fault('features', 'tensors, lists, float32; labels as tensors, int8, strings', 'the same score', n)

scores = {'NaN among them': [.1,math.nan], 'infinite': [.1,math.inf], 'empty': [], 'strings': ['a','b'], 'a matrix': [[1,2],[3,4]]}
@pytest.mark.parametrize('case', scores)
def test_scores(case, record_fault):
    refusal(source_weights, scores[case], p=2)
    record_fault('scores', case, 'refused', 1)

@pytest.mark.parametrize('case,s,want', [
    ('all equal', [.3,.3,.3], [1/3]*3), ('all nil', [0,0,0], [1/3]*3), ('all equal and negative', [-.2,-.2], [.5,.5]),
    ('one source', [.4], [1]), ('one source, negative', [-.4], [1])])
def test_scores_with_a_defined_outcome(case, s, want, record_fault):
    for p in (0, 1, 4, 50, math.inf):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='no source scores above 0')
            a = source_weights(s, p)
        assert np.isfinite(a).all() and np.isclose(a.sum(), 1)
        np.testing.assert_allclose(a, want)
    if max(s) <= 0:
        with pytest.warns(UserWarning, match='no source scores above 0'): source_weights(s, 1)
    record_fault('scores', case, 'weights are equal' + (', and a warning says why' if max(s) <= 0 else ''), 5)

def test_all_negative_scores(record_fault):
    for p in (0, 1, 4, math.inf):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='no source scores above 0')
            a = source_weights([-.1,-.2,-.3], p)
        assert np.isfinite(a).all() and np.isclose(a.sum(), 1) and (np.diff(a) <= 1e-12).all()
    record_fault('scores', 'all negative', 'equal weights and a warning; the best alone with p infinite', 4)

@pytest.mark.parametrize('case,kw', {'p negative': dict(p=-1), 'p NaN': dict(p=math.nan)}.items())
def test_powers(case, kw, record_fault):
    refusal(source_weights, [.1,.2], **kw)
    record_fault('scores', case, 'refused', 1)

@pytest.mark.parametrize('lam', [0., .5, 1.])
@pytest.mark.parametrize('p', [0, 1, math.inf])
@pytest.mark.parametrize('half', [False, True])
def test_gradients_are_finite(lam, p, half, record_fault):
    "With logits up to the largest of half precision, probabilities that are 0 and 1, and weights that are nil"
    sizes,alpha = [3,1000,2],torch.tensor(source_weights([.3,-.1,.2], p)).float()
    for scale in (1., 100., 6e4):
        z = ((torch.rand(8, 1005, generator=torch.Generator().manual_seed(0))*2-1)*scale).to(torch.float16 if half
                else torch.float32).requires_grad_()
        t = torch.zeros(8, 1005)
        t[:,[0,5,1003]] = 1.
        for T in (1., .5, 8.):
            loss = lam*z[:,:3].float().logsumexp(1).mean() + (1-lam)*distill_loss(z, t, sizes, alpha, T)
            g, = torch.autograd.grad(loss, z)
            assert loss.isfinite() and g.isfinite().all(), (scale, T)
    record_fault('numbers', f'λ = {lam:g}, p = {p}, {"half" if half else "single"} precision', 'loss and gradients are finite', 9)

def test_a_long_run_in_half_precision(record_fault):
    "300 steps in float16 under a gradient scaler, one source with logits of thousands: nothing overflows for good"
    torch.manual_seed(0)
    student = create_student('test_efficientnet', 3, pretrained=False)
    student.source_heads = torch.nn.Linear(student.head.in_features, 12)
    opt,scaler = torch.optim.AdamW(student.parameters(), 2e-3),torch.amp.GradScaler('cpu', init_scale=2.**16, growth_interval=20)
    x,y,z = torch.rand(4,3,16,16),torch.arange(4)%3,torch.randn(4,12)*torch.tensor([5000.]*5 + [1.]*7)
    t,losses,scales = torch.cat([o.softmax(1) for o in z.split([5,7], 1)], 1),[],[]
    for _ in range(300):
        with torch.autocast('cpu', torch.float16):
            f = student.backbone(x)
            loss = .5*torch.nn.functional.cross_entropy(student.head(f).float(),
                                                        y) + .5*distill_loss(student.source_heads(f), t, [5,7], torch.tensor([.5,.5]))
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    assert np.isfinite(losses).all() and losses[-1] < losses[0] and scales[-1] > 100
    assert all(p.isfinite().all() for p in student.parameters())
    record_fault('numbers', '300 steps in float16 with scaled losses, on the CPU', 'finite to the end', 300)

def test_a_source_of_nan_is_dropped_and_named(record_fault):
    sick = Zoo.embedded()['letters'].load('cpu').model
    with torch.no_grad(): next(p for p in reversed(list(sick.parameters())) if p.ndim > 1).fill_(math.nan)
    zoo = [Zoo.embedded()['digits'], Source.from_module(sick, .5, .5, 32, name='sick')]
    dls = image_dls(pictures, [0,1]*6, valid_pct=.3)
    with pytest.warns(UserWarning, match='sick'): r = rank_sources(dls, zoo, store=False, progress=False, times=0)
    assert r.names == ['digits']
    record_fault('numbers', 'a source that emits NaN', 'left out of the ranking, with a warning that names it', 1)

# Files

def trap(tmp):
    class Trap:
        def __reduce__(self): return Path.touch, (tmp/'trace',)
    return Trap()

def student_file(tmp):
    p = tmp/'good.safetensors'
    if not p.exists():
        save_student(create_student('test_efficientnet', 3, pretrained=False), p, labels=list('abc'), mean=[.5]*3,
                     std=[.5]*3, input_size=[3,32,32])
    return p.read_bytes()

def with_header(data, **change):
    "A student's file whose header says something else"
    n = int.from_bytes(data[:8], 'little')
    head = json.loads(data[8:8+n])
    meta = {**json.loads(head['__metadata__']['distill_nb']), **change}
    head['__metadata__']['distill_nb'] = json.dumps(meta)
    new = json.dumps(head).encode()
    new += b' '*(-len(new)%8)
    return len(new).to_bytes(8, 'little') + new + data[8+n:]

student_files = {
    'cut in half': lambda d: d[:len(d)//2], 'empty': lambda d: b'',
    'a header of 2^60 bytes': lambda d: (2**60).to_bytes(8, 'little') + d[8:], 'text': lambda d: b'hello'*100,
    'an architecture to be fetched': lambda d: with_header(d, arch='hf-hub:somebody/something'), 'an argument that '
    'reads another file': lambda d: with_header(d, kwargs=dict(checkpoint_path='/etc/passwd')),
    'an argument that reads the network': lambda d: with_header(d, kwargs=dict(pretrained=True)),
    'another architecture': lambda d: with_header(d, arch='resnet10t'),
    'minus one class': lambda d: with_header(d, num_classes=-1),
    'more classes than weights': lambda d: with_header(d, num_classes=9), 'classes in words': lambda d: with_header(d, num_classes='three')}

@pytest.mark.parametrize('case', student_files)
def test_student_file(case, tmp_path, record_fault):
    p = tmp_path/'s.safetensors'
    p.write_bytes(student_files[case](student_file(tmp_path)))
    assert 's.safetensors' in refusal(load_student, p)
    record_fault('file', f'student: {case}', 'refused, by name', 1)

def test_booby_traps(tmp_path, record_fault):
    "No reader runs what a pickle asks for"
    torch.save(dict(a=trap(tmp_path)), tmp_path/'w.pth')
    torch.save(trap(tmp_path), tmp_path/'model.pt')
    for f in (lambda: read_weights(tmp_path/'w.pth'), lambda: create_student('test_efficientnet', 3,
            start=tmp_path/'w.pth'), lambda: load_student(tmp_path/'w.pth'),
              lambda: Source.from_checkpoint(tmp_path/'model.pt', 'test_efficientnet').load(),
              lambda: Source.from_export(tmp_path/'model.pt'),
              lambda: read_state(write_state(tmp_path/'fit-0.pt', dict(a=trap(tmp_path))))):
        refusal(f)
    assert not (tmp_path/'trace').exists()
    torch.load(tmp_path/'w.pth', weights_only=False)                 # and the trap is one
    assert (tmp_path/'trace').exists()
    record_fault('file', 'a pickle that would run something', 'refused by each reader, nothing was run', 6)

good_entry = dict(arch='test_efficientnet', num_classes=3, mean=[.5]*3, std=[.5]*3, input_size=[3,32,32])
manifests = {
    'not JSON': '{"a": ', 'a list': '[1]', 'a number': '3', 'null': 'null', 'nested 100,000 deep': '['*100_000,
    'not UTF-8': b'\xff\xfe{}', 'an entry that is a list': {'good': [1]},
    'a name that leaves the folder': {'../good': good_entry}, 'an absolute name': {'/etc/passwd': good_entry},
    'a name with a backslash': {'..\\good': good_entry}, 'a name with a nil byte': {'good\0': good_entry},
    'an empty name': {'': good_entry}, 'the folder itself': {'.': good_entry}, 'an entry without a file': {'absent': good_entry},
    **{f'{k} = {v!r}': {'good': {**good_entry, k: v}} for k,
       v in [('arch', 'hf-hub:somebody/something'), ('arch', 'local-dir:/tmp'), ('arch', 'no_such_network'),
             ('arch', 3), ('arch', None), ('num_classes', -1), ('num_classes', '3'),
        ('num_classes', 1.5), ('mean', [0,0]), ('mean', 'abc'), ('std', [1,0,1]), ('std', None),
        ('input_size', [3,0,0]), ('input_size', 32), ('kwargs', [1]), ('kwargs', {'pretrained': True}),
        ('kwargs', {'checkpoint_path': '/etc/passwd'})]},
    'mean is infinite': {'good': {**good_entry, 'mean': [math.inf]*3}}}

@pytest.mark.parametrize('case', manifests)
def test_manifest(case, tmp_path, record_fault):
    save_file({k: v.contiguous() for k,v in create_student('test_efficientnet', 3,
                                                           pretrained=False).backbone.state_dict().items()}, tmp_path/'good.safetensors')
    m = manifests[case]
    (tmp_path/'manifest.json').write_bytes(m if isinstance(m, bytes) else (m if isinstance(m, str) else json.dumps(m)).encode())
    refusal(Zoo.checkpoints, tmp_path)
    record_fault('file', f'manifest: {case}', 'refused, by name', 1)

# The store

def chunks(store): return sorted(store.path.glob('*/*/chunk-*'))

def break_chunk(kind, path):
    d = path.read_bytes()
    if kind == 'cut': path.write_bytes(d[:-20])
    if kind == 'empty': path.write_bytes(b'')
    if kind == 'one bit': path.write_bytes(d[:-5] + bytes([d[-5]^1]) + d[-4:])
    if kind == 'a header of 2^60 bytes': path.write_bytes((2**60).to_bytes(8, 'little') + d[8:])
    if kind == 'another chunk under its name': path.write_bytes(chunks_of_noise())
def chunks_of_noise():
    from safetensors.torch import save
    return save(dict(keys=torch.zeros(3,16,dtype=torch.uint8), features=torch.randn(3,7)))

@pytest.mark.parametrize('kind', ['cut','empty','one bit','a header of 2^60 bytes','another chunk under its name'])
def test_broken_chunk(kind, tmp_path, record_fault):
    src,store = Zoo.embedded()['digits'],Store(tmp_path, chunk=4)
    want = get_outputs(src, pictures, store, bs=4, progress=False)
    path = chunks(store)[1]
    break_chunk(kind, path)
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('always')
        got = get_outputs(src, pictures, store, bs=4, progress=False)
    named = [path.name in str(w.message) and 'removed a broken file from the store' in str(w.message) for w in ws]
    assert any(named) or kind == 'another chunk under its name' # whose images are simply not those that are looked for
    for k in ('logits','features'):
        # computed again in another batch: the last bit of half precision may differ
        torch.testing.assert_close(getattr(got, k), getattr(want, k), atol=2e-3, rtol=2e-3)
    record_fault('file', f'chunk of the store: {kind}', 'named, removed, computed again' if any(named) else 'not used, computed again', 1)

def test_store_of_another_layout(tmp_path, record_fault):
    "Folders of another version are not looked at"
    src,store = Zoo.embedded()['digits'],Store(tmp_path, chunk=4)
    (tmp_path/src.key/'identity').mkdir(parents=True)
    (tmp_path/src.key/'identity'/'chunk-0.safetensors').write_bytes(b'old')
    assert len(get_outputs(src, pictures, store, progress=False)) == N
    assert (tmp_path/src.key/'identity'/'chunk-0.safetensors').read_bytes() == b'old'
    record_fault('file', 'store of an older layout', 'left alone, not used', 1)

@pytest.mark.parametrize('errno,what', [(28,'No space left on device'), (13,'Permission denied'), (30,'Read-only file system')])
def test_store_that_cannot_be_written(errno, what, tmp_path, monkeypatch, record_fault):
    def fail(part, path): raise OSError(errno, what, str(path))
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', fail)
        with pytest.raises(OSError, match=what): get_outputs(Zoo.embedded()['digits'], pictures, tmp_path, progress=False)
    assert chunks(Store(tmp_path)) == [] and not [o for o in tmp_path.rglob('.tmp*')]
    assert len(get_outputs(Zoo.embedded()['digits'], pictures, tmp_path, progress=False)) == N
    record_fault('fault', what.lower(), 'the error says so, nothing half-written is left, the next run goes on', 1)

@pytest.fixture()
def small_disk(tmp_path):
    "A file system of 64 KB, and a function that mounts it anew; where mounting is not allowed the tests are left out"
    disk,mount = tmp_path/'disk',lambda *o: subprocess.run(['mount', *o], capture_output=True).returncode == 0
    disk.mkdir()
    if not shutil.which('mount') or not mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(disk)):
        pytest.skip('mounting is not allowed here')
    yield disk, lambda how: mount('-o', f'remount,{how}', str(disk))
    subprocess.run(['umount', str(disk)], check=True)

def test_a_disk_that_is_full(small_disk, record_fault):
    disk,again = small_disk
    src,many = Zoo.embedded()['digits'],np.random.default_rng(3).integers(0, 256, (400,16,16,3), dtype=np.uint8)
    with pytest.raises(Exception, match='(?i)no space left|disk is full'): get_outputs(src, many, Store(disk, chunk=16), progress=False)
    assert not list(disk.rglob('.tmp*')), 'something half-written is left'
    assert again('size=8m')
    store = Store(disk, chunk=16)
    kept = len(store.index(src))
    got,want = get_outputs(src, many, store, progress=False),get_outputs(src, many, Store(disk/'new', chunk=16), progress=False)
    assert 0 < kept < 400 and len(store.index(src)) == 400
    torch.testing.assert_close(got.features, want.features, atol=2e-3, rtol=2e-3)
    record_fault('fault', 'a full disk, a real one', 'the error says so, what was kept before is used, the next run goes on', 1)

def test_a_state_on_a_full_disk(small_disk, record_fault):
    disk,_ = small_disk
    path = write_state(disk/'fit-0.pt', dict(epoch=1))
    with pytest.raises(OSError, match='No space left'): write_state(path, dict(epoch=2, weights=torch.randn(50_000)))
    assert read_state(path) == dict(epoch=1) and [o.name for o in disk.iterdir()] == ['fit-0.pt']
    record_fault('fault', "the state of a training on a full disk, a real one", 'the error says so, the state before is whole', 1)

def test_a_disk_that_is_read_only(small_disk, record_fault):
    disk,again = small_disk
    src,store = Zoo.embedded()['digits'],Store(disk, chunk=16)
    want = get_outputs(src, pictures, store, progress=False)
    assert again('ro')
    assert torch.equal(get_outputs(src, pictures, Store(disk), progress=False).features, want.features)
    with pytest.raises(Exception, match='(?i)read-?only'): get_outputs(src, pictures[:,::-1].copy(), Store(disk), progress=False)
    record_fault('fault', 'a file system that is read-only, a real one', 'what is there is used; the error says why '
                                                                         'nothing can be added', 2)
