"Images: every mode and depth of a file, openers of your own, and what opening must not do"
import io, os, pickle, subprocess, warnings
from pathlib import Path
import numpy as np, PIL, pytest, torch
from PIL import Image, TiffImagePlugin
from torch import nn
from fastai.vision.all import Categorize, Datasets, IntToFloatTensor, L, PILImage, PILImageBW, TensorImage, ToTensor
from distill_nb import kept
from distill_nb.images import *
from distill_nb.items import *
from distill_nb.data import *
from distill_nb.pool import *
from distill_nb.packs import *
from distill_nb.infer import read_rgb
from distill_nb.teach import SourceClasses
from distill_nb.learner import distill_learner, transfer_learner
from distill_nb.store import Store
from distill_nb.outputs import get_outputs
from distill_nb.sources import Source

rng = np.random.default_rng(0)

def picture(w, h, seed=0):
    "Hard edges and smooth parts"
    r = np.random.default_rng(seed)
    a = np.asarray(Image.fromarray(r.integers(0, 256, (5,7,3), dtype=np.uint8)).resize((w,h), Image.BICUBIC)).copy()
    for _ in range(12):
        x,y = r.integers(0, w),r.integers(0, h)
        a[y:y+r.integers(1, max(2, h//3)),x:x+r.integers(1, max(2, w//3))] = r.integers(0, 256, 3)
    return Image.fromarray(a)

class Net(nn.Module):
    def __init__(self, c=4):
        super().__init__()
        torch.manual_seed(0)
        self.m = nn.Sequential(nn.Conv2d(3,5,3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5,c))
    def forward(self, x): return self.m(x)

def two_sources():
    return [Source.from_module(Net(), .5, .5, 24, name='a'),
            Source.from_module(Net(), .5, .4, 40, crop_pct=.9, interpolation='bicubic', name='b')]

def test_opening_leaves_the_callers_image_alone():
    img = picture(30, 20)
    before,kind = img.tobytes(),type(img)
    open_image(img).paste((0,0,0), (0,0,30,20))
    assert img.tobytes()==before and type(img) is kind

# One way to look at an image

def grey(bits, low=0): return rng.integers(low, 2**bits, (24,30))
def saved(im, fmt, **kw):
    buf = io.BytesIO()
    im.save(buf, fmt, **kw)
    return buf.getvalue()

def deep(bits, kind): return Image.fromarray(grey(bits).astype(kind))
def big_endian(): return Image.frombytes('I;16B', (30,24), grey(16).astype('>u2').tobytes())

def held_upright():
    exif = Image.Exif()
    exif[274] = 6
    return saved(picture(30, 24), 'JPEG', exif=exif)

def transparent(mode):
    im = picture(30, 24).convert('RGBA').quantize() if mode=='P' else picture(30, 24).convert(mode)
    return saved(im, 'PNG', transparency={'P': bytes(range(256)), 'RGB': (0,0,0), 'L': 0, '1': 0}[mode])

def of_12_bits():
    "A TIFF that says that its greys have 12 bits"
    a = grey(12)
    packed = np.unpackbits(a.astype('>u2').view(np.uint8).reshape(24,30,2), axis=2)[...,4:].reshape(24,-1)
    raw = np.packbits(packed, axis=1).tobytes()
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for k,v in {256:30, 257:24, 258:12, 259:1, 262:1, 273:0, 277:1, 278:24, 279:len(raw)}.items(): ifd[k] = v
    return b'II*\0' + (8).to_bytes(4, 'little') + ifd.tobytes(8) + raw, a>>4     # which moves the strips behind itself

modes = dict(
    PNG='1 L LA P RGB RGBA', TIFF='1 L LA P RGB RGBA CMYK YCbCr RGBX', JPEG='L RGB CMYK', GIF='P L', BMP='RGB 1',
    WEBP='RGB RGBA', PPM='RGB L', TGA='LA RGBA', PCX='P')
all_looks = { # a file of each kind, as bytes
    **{f'{m} {fmt}': (lambda m=m, fmt=fmt: saved(picture(30, 24).convert(m), fmt))
       for fmt,ms in modes.items() for m in ms.split()},
    **{f'{m} transparent': (lambda m=m: transparent(m)) for m in ('P','RGB','L','1')},
    '16 bits PNG': lambda: saved(deep(16, np.uint16), 'PNG'),
    '16 bits TIFF': lambda: saved(deep(16, np.uint16), 'TIFF'),
    '16 bits, big end first': lambda: saved(big_endian(), 'TIFF'),
    '16 bits PPM': lambda: saved(deep(16, np.int32), 'PPM'),
    '8 bits in 32': lambda: saved(deep(8, np.int32), 'TIFF'),
    '16 bits in 32': lambda: saved(deep(16, np.int32), 'TIFF'),
    '12 bits': lambda: of_12_bits()[0],
    'animated': lambda: saved(picture(30, 24), 'GIF', save_all=True, append_images=[picture(30, 24, 1)]),
    'pages': lambda: saved(picture(30, 24), 'TIFF', save_all=True, append_images=[picture(20, 10, 1)]),
    'held upright': held_upright}

old_pillow = int(PIL.__version__.split('.')[0]) < 13

def test_a_tiff_that_pillow_misreads_is_refused_with_the_remedy(monkeypatch, tmp_path):
    file = tmp_path/'a.tif'
    file.write_bytes(saved(picture(30, 24).convert('YCbCr'), 'TIFF'))
    for o in (TiffImagePlugin.II,TiffImagePlugin.MM):                # as versions before 13 have it
        monkeypatch.setitem(TiffImagePlugin.OPEN_INFO, (o, 6, (1,), 1, (8,8,8), ()), ('RGB','RGBX'))
    for f in (open_image,read_rgb):
        for o in (file,file.read_bytes()):
            with pytest.raises(ValueError, match='from version 13 on: update it'): f(o)
    assert list(check_images([file])) == [file]
    file.write_bytes(saved(picture(30, 24), 'TIFF'))                 # any other TIFF is read
    assert open_image(file).size == read_rgb(file).size == (30,24)

def pixels_of(o):
    o = o[0] if isinstance(o, tuple) else o
    return np.asarray(o)

def all_sights(dls, file):
    "The pixels of a file that is in `dls.train` and in `dls.valid`, from wherever it is looked at"
    learn = transfer_learner(dls, 'test_efficientnet', pretrained=False, normalize=False, cache=False)
    d,item = learn.dls,image_items(learn.dls)[0]
    few = few_label_dls(dls, n=1)[0]
    return dict(train=d.train_ds[0], valid=d.valid_ds[0], few=few.valid_ds[0], predict=d.test_dl([file]).dataset[0],
                pool=unlabeled_dl(d, [file]).dataset[0], source=open_image(item),
                source_pool=open_image(opened_as(d, L([file]))[0]), users_dls=open_image(image_items(dls)[0]))

def dls_with_both(file, *opener, other=None):
    other = other or file
    cls = opener or (PILImage.create,)
    labels = [lambda o, n=iter('abab'*50): next(n), Categorize(vocab=['a','b'])]
    dsets = Datasets([file,other,file,other], [list(cls), labels], splits=[[0,1],[2,3]])
    return dsets.dataloaders(bs=2, num_workers=0, after_item=ToTensor(), after_batch=IntToFloatTensor(), device='cpu')

@pytest.mark.parametrize('kind', all_looks)
def test_a_file_looks_the_same_everywhere(kind, tmp_path):
    if kind == 'YCbCr TIFF' and old_pillow: pytest.skip('Pillow before 13 cannot read it')
    (tmp_path/'a').write_bytes(all_looks[kind]())
    file = tmp_path/'a'
    want = np.asarray(open_image(file))
    sights = all_sights(dls_with_both(file), file)
    for name,f in dict(images=open_image, infer=read_rgb).items():
        sights |= {name: f(file), f'{name}, bytes': f(file.read_bytes()), f'{name}, lazy': f(Image.open(file))}
    for how,o in sights.items():
        assert np.array_equal(pixels_of(o), want), how
    assert want.shape == (24,30,3) and want.std() > 20 and 40 < want.mean() < 215

@pytest.mark.parametrize('a,bits', [(grey(16), 16), (grey(8), 8), (grey(8)//2, 8), (grey(9), 16)])
def test_greys_are_scaled_by_their_depth(a, bits, tmp_path):
    file = tmp_path/'a.tif'
    Image.fromarray(a.astype(np.int32)).save(file)
    for f in (open_image, read_rgb):
        if a.max()>>(bits-8) >= 16: assert np.array_equal(np.asarray(f(file))[...,0], a>>(bits-8))
        else:
            with pytest.warns(UserWarning, match='nearly black'): got = np.asarray(f(file))
            assert np.array_equal(got[...,0], a>>(bits-8))

def test_twelve_bits_that_the_file_tells():
    data,want = of_12_bits()
    for f in (open_image, read_rgb): assert np.array_equal(np.asarray(f(data))[...,0], want)

def test_a_picture_that_comes_out_black_is_told(tmp_path):
    for name,a in {'12 in 16': grey(12), '8 in 16': grey(8)}.items():
        Image.fromarray(a.astype(np.uint16)).save(tmp_path/'a.png')
        for f in (open_image, read_rgb):
            with pytest.warns(UserWarning, match='nearly black'): f(tmp_path/'a.png')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert check_images([tmp_path/'a.png']) == [tmp_path/'a.png']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        black = Image.fromarray(np.full((4,4), 40, np.uint16))      # all over: nothing is lost
        for f in (open_image, read_rgb): f(black)

@pytest.mark.parametrize('a', [grey(17), grey(8)-9, grey(31)])
def test_greys_of_no_known_depth_are_refused(a):
    for f in (open_image, read_rgb):
        with pytest.raises(ValueError, match='grey levels from .* to .* scale them'):
            f(Image.fromarray(a.astype(np.int32)))

class Thick(PILImage):
    @classmethod
    def create(cls, fn, **kw): return cls(Image.fromarray(np.asarray(Image.open(fn).convert('RGB'))//2))
def negative(p): return PILImage(Image.fromarray(255-np.asarray(Image.open(p).convert('RGB'))))
def negative_of_path(p:Path): return negative(p.parent/p.name)
def negative_of_str(p:str): return negative(p + '')
def redder(im:PILImage): return PILImage(Image.fromarray((np.asarray(im)//np.array([1,2,3])).astype(np.uint8)))
def upper(o): return Path(o)
own_openers = dict(function=[negative], path=[negative_of_path], text=[negative_of_str], create=[Thick.create],
                   after=[PILImage.create, redder], getter=[upper, negative], twice=[negative, PILImage.create],
                   lambda_=[lambda o: negative(o)])

@pytest.mark.parametrize('how', own_openers)
def test_an_opener_of_ones_own_is_used_by_all(how, tmp_path):
    file = tmp_path/'a.png'
    picture(30, 24).save(file)
    if how=='text': file = str(file)
    dls = dls_with_both(file, *own_openers[how])
    want = np.asarray(dls.train_ds[0][0])
    assert not np.array_equal(want, np.asarray(open_image(file)))
    sights = all_sights(dls, file)
    for name,o in sights.items(): assert np.array_equal(pixels_of(o), want), name
    pool = opened_as(dls, L([Path(file) if how=='text' else str(file)]))
    if how not in ('lambda_',): assert np.array_equal(np.asarray(open_image(pickle.loads(pickle.dumps(pool[0])))), want)
    view = ImageView(pool[0], 'hflip')
    for o in (unlabeled_dl(dls, [view]).dataset[0], open_image(view)): assert np.array_equal(pixels_of(o), want[:,::-1])
    assert len({image_key(o) for o in (file, pool[0], view, ImageView(file, 'hflip'))}) == 4
    assert image_key(pool[0]) == image_key(image_items(dls)[0])

def test_openers_have_keys_of_their_own(tmp_path):
    picture(30, 24).save(tmp_path/'a.png')
    file = tmp_path/'a.png'
    def key(name, tfms): return image_key(image_items(dls_with_both(str(file) if name=='text' else file, *tfms))[0])
    keys = {key(n, o) for n,o in own_openers.items() if n != 'getter'}
    assert len(keys) == len(own_openers)-1
    a,b = Store(tmp_path/'s').image_keys([tmp_path/'a.png', image_items(dls_with_both(tmp_path/'a.png', negative))[0]])
    assert a != b and a == image_key(tmp_path/'a.png')

def test_sources_see_what_the_opener_makes(tmp_path):
    for i in range(4): picture(40, 30, i).save(tmp_path/f'{i}.png')
    files,src = get_images(tmp_path),two_sources()[0]
    dls = dls_with_both(files[0], negative, other=files[1])
    seen = get_outputs(src, image_items(dls), store=tmp_path/'s', progress=False).features
    want = get_outputs(src, [np.asarray(negative(o)) for o in files[:2]], store=False, progress=False).features
    plain = get_outputs(src, files[:2], store=tmp_path/'s', progress=False).features
    assert torch.allclose(seen, want, atol=2e-3) and not torch.allclose(seen, plain, atol=2e-2)
    learn = distill_learner(dls, files[2:], src, 'test_efficientnet', pretrained=False, probe_head=False,
                            teach=SourceClasses(), store=tmp_path/'s', progress=False)
    assert np.array_equal(np.asarray(open_image(learn.distill.pool[0])), np.asarray(negative(files[2])))

def test_an_opener_that_cannot_open_the_pool_is_named(tmp_path):
    picture(30, 24).save(tmp_path/'a.png')
    dls = dls_with_both(tmp_path/'a.png', negative_of_path)
    with pytest.raises(ValueError, match='negative_of_path, which fails on .* bytes .*no image'):
        unlabeled_dl(dls, [(tmp_path/'a.png').read_bytes()])

@pytest.mark.parametrize('kind', ['RGB PNG','16 bits PNG','P PNG'])
def test_one_channel_stays_one_channel(kind, tmp_path):
    file = tmp_path/'a'
    file.write_bytes(all_looks[kind]())
    dls = repeat_dls(dls_with_both(file, PILImageBW.create), 2)
    u = unlabeled_dl(dls, [file, ImageView(file, 'hflip')])
    want = np.asarray(open_image(file).convert('L'))
    for o in (dls.train_ds[0], dls.valid_ds[0], u.dataset[0], dls.test_dl([file]).dataset[0]):
        assert type(o[0]) is PILImageBW and np.array_equal(pixels_of(o), want)
    assert u.dataset[1][0].mode == 'L' and u.one_batch()[0].shape == (2,1,24,30)
    assert np.asarray(open_image(image_items(dls)[0])).shape == (24,30,3)

def test_pixels_of_other_kinds():
    x = torch.from_numpy(np.asarray(picture(30, 24)).copy())
    assert np.array_equal(np.asarray(open_image(TensorImage(x.permute(2,0,1)))), x)
    assert open_image(TensorImage(x[None,...,0])).size == (30,24)
    for bad in (TensorImage(x.permute(2,0,1)/255), x/255, x.numpy()/255., np.zeros((0,4), np.uint8)):
        with pytest.raises(ValueError, match='cannot read'): open_image(bad)

# What opening must not do

def eps(): return b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n'
def wmf(): return b'\xd7\xcd\xc6\x9a\x00\x00' + b'\0'*8 + b'\x60\0' + b'\0'*20

@pytest.mark.parametrize('data', [eps(), wmf()], ids=['eps','wmf'])
def test_opening_starts_no_program(data, tmp_path, monkeypatch):
    def no(*a, **k): raise AssertionError('a program was started')
    monkeypatch.setattr(subprocess, 'Popen', no)
    (tmp_path/'photo.jpg').write_bytes(data)
    items = [tmp_path/'photo.jpg', data]
    if data==eps(): items.append(Image.open(tmp_path/'photo.jpg'))
    for item in items:
        for f in (open_image, read_rgb):
            with pytest.raises(ValueError, match='cannot read') as e: f(item)
            assert not isinstance(e.value.__cause__, AssertionError)
    assert kept.pixel_size(data) is None

def test_formats_of_plugins_are_read(monkeypatch):
    from PIL import PngImagePlugin
    class Odd(PngImagePlugin.PngImageFile):
        format = 'ODD'
        def _open(self):
            self.fp.seek(0)
            self.fp = io.BytesIO(self.fp.read()[4:])
            super()._open()
    Image.register_open('ODD', Odd, lambda p: p[:4]==b'ODD!')
    try:
        data = b'ODD!'+saved(picture(30, 24), 'PNG')
        for f in (open_image, read_rgb): assert np.array_equal(np.asarray(f(data)), np.asarray(picture(30, 24)))
    finally:
        Image.ID.remove('ODD')
        Image.OPEN.pop('ODD')

@pytest.mark.parametrize('kind', ['fifo','device','folder','socket'])
def test_only_regular_files_are_opened(kind, tmp_path, monkeypatch):
    path = tmp_path/'a.png'
    if kind=='fifo': os.mkfifo(path)
    if kind=='device': path.symlink_to('/dev/zero')
    if kind=='folder': path.mkdir()
    if kind=='socket':
        import socket
        monkeypatch.chdir(tmp_path)
        socket.socket(socket.AF_UNIX).bind('a.png')
    for f in (open_image, read_rgb, image_key):
        for item in (path, str(path)):
            with pytest.raises(ValueError, match='a.png.*folder, pipe or device'): f(item)
    assert kept.pixel_size(path) is None and list(check_images([path])) == [path]
