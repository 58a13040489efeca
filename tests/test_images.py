"What the images notebook cannot hold well: every mode, size and shape, every kind of loader, workers, damage, and that nothing is opened twice"
import copy, io, os, pickle, random, stat, subprocess, sys, warnings
from collections import Counter
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn
from fastai.vision.all import (Categorize, CategoryBlock, CropPad, DataBlock, Datasets, FlipItem, ImageBlock, ImageDataLoaders, IntToFloatTensor, L, Learner, Pipeline, PILImage, PILImageBW, RandomCrop,
    RandomResizedCrop, Resize, TensorImage, TfmdDL, ToTensor, Transform, aug_transforms, get_image_files, load_learner, parent_label, set_seed)
from distill_nb import images, kept, outputs
from distill_nb.images import *
from distill_nb.kept import *
from distill_nb.data import *
from distill_nb.pool import *
from distill_nb.packs import *
from distill_nb.images import *
from distill_nb.kept import *
from distill_nb.infer import read_rgb
from distill_nb.teachers import Both, Probes, SourceClasses
from distill_nb.learner import distill_learner, student_learner, transfer_learner
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.similarity import rank_sources
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

def levels(a, b): return np.abs(np.asarray(a, int)-np.asarray(b, int)).max()
def near(a, b, scale):
    "As near as rounding; where the picture was halved first, but for a few values at its hard edges"
    off = np.abs(np.asarray(a, int)-np.asarray(b, int))
    return off.max() <= 1 if scale < 2*Halves.margin else off.max() <= 4 and (off>1).sum() <= 6 + .02*off.size

def ordinary(img, size, method='crop'): return Resize(size, method)(PILImage(img.copy()), split_idx=1)

# The kept view is the ordinary one

sides = st.integers(1, 400)
@settings(max_examples=80, deadline=None)
@given(w=sides, h=sides, tw=st.integers(1, 60), th=st.integers(1, 60), method=st.sampled_from(['crop','squish']))
def test_validation_sees_what_resize_makes(w, h, tw, th, method):
    img,resize = picture(w, h, w*h),Resize((th,tw), method)
    try: want = ordinary(img, (th,tw), method)
    except ValueError: return                                     # fastai's own crop of an image that is too thin
    assert near(resize_view(Pipeline(resize))(img), want, min(w/tw, h/th))

@pytest.mark.parametrize('w,h,side', [(1600,1200,96), (1200,1600,96), (1600,1202,96), (1601,1200,96), (2048,2048,64), (700,500,96)])
def test_training_may_crop_anywhere(w, h, side):
    img = picture(w, h, 3)
    strip = resize_view(Pipeline(Resize(side)), train=True)(img)
    assert min(strip.size) == side
    m,across = min(w,h)/side,int(w>h)
    rim = (max(w,h) - max(strip.size)*m)/2                        # less than a pixel of the strip, on both sides
    assert 0 <= rim < m/2
    for place in {0, (max(strip.size)-side)//3, max(strip.size)-side}:
        lo = (place,0) if across else (0,place)
        box = [o*m + rim*(i==1-across) for i,o in enumerate(lo)]
        whole = img.resize((side,side), Image.BILINEAR, box=(*box, *(min(o+side*m, s) for o,s in zip(box, img.size))))
        assert near(strip.crop((*lo, lo[0]+side, lo[1]+side)), whole, m)

@pytest.mark.parametrize('mode', ['1','L','LA','P','RGB','RGBA','CMYK','YCbCr','HSV','I;16','I'])
def test_every_mode(mode, tmp_path):
    img = picture(300, 200) if mode not in ('I;16','I') else Image.fromarray(rng.integers(0, 2**16, (200,300)).astype(np.uint16 if mode=='I;16' else np.int32))
    if mode not in ('I;16','I'): img = img.convert(mode)
    ext = 'tiff' if mode in ('CMYK','YCbCr','LA','I') else 'png'
    if mode=='HSV': img,ext = img.convert('RGB'),'bmp'
    img.save(tmp_path/f'a.{ext}')
    kept,view = KeptImages(tmp_path/'kept'),resize_view(Pipeline(Resize(64)))
    for _ in range(2): assert levels(kept.open(tmp_path/f'a.{ext}', view), ordinary(open_image(tmp_path/f'a.{ext}'), 64)) <= 1

def test_opening_leaves_the_callers_image_alone():
    img = picture(30, 20)
    before,kind = img.tobytes(),type(img)
    open_image(img).paste((0,0,0), (0,0,30,20))
    assert img.tobytes()==before and type(img) is kind

# Loaders

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "18 photos of three classes, of two shapes"
    path = tmp_path_factory.mktemp('photos')
    for c in range(3):
        (path/f'c{c}').mkdir()
        for i in range(6): picture(*((400,300),(300,420))[i%2], seed=10*c+i).save(path/f'c{c}'/f'{i}.jpg', quality=92)
    return path

def dls_of(path, cache=None, size=64, **kw):
    files = get_images(path)
    return image_dls(files, [o.parent.name for o in files], size=size, cache=cache, **{'bs': 6, 'valid_pct': .34, **kw})

def seeded(dl, seed=1):
    set_seed(seed)
    dl.rng = random.Random(seed)
    return list(dl)

def same(a, b): return len(a)==len(b) and all(torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) for x,y in zip(a, b))

builders = dict(
    folder = lambda p, **kw: ImageDataLoaders.from_folder(p, valid_pct=.3, seed=1, bs=4, num_workers=0, **kw),
    block  = lambda p, **kw: DataBlock((ImageBlock,CategoryBlock), get_items=get_image_files, get_y=parent_label, **kw).dataloaders(p, bs=4, num_workers=0),
    image_dls = lambda p, item_tfms: dls_of(p, size=None, item_tfms=item_tfms))

@pytest.mark.parametrize('build', builders)
def test_any_dls_of_a_resize(build, folder, tmp_path):
    dls = builders[build](folder, item_tfms=Resize(64))
    kept = repeat_dls(dls, len(dls.train_ds), cache=tmp_path)
    assert kept.train.view.train and not kept.valid.view.train
    want = list(dls.valid)
    for _ in range(2):
        for (x,y),(a,b) in zip(want, kept.valid): assert (x-a).abs().max() <= 1/255+1e-6 and torch.equal(y, b) and type(a)==type(x) and type(b)==type(y)
    assert len(list(tmp_path.rglob('*.npy'))) == len(dls.valid_ds)
    kept.show_batch(); kept.valid.show_batch()

@pytest.mark.parametrize('tfms', [RandomResizedCrop(64), [Resize(80, 'pad')], [FlipItem(), CropPad(64)], RandomCrop(64)], ids=lambda o: str(o)[:20])
def test_other_transforms_see_the_whole_image(tfms, folder, tmp_path):
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=1, bs=4, num_workers=0, item_tfms=tfms)
    kept = repeat_dls(dls, len(dls.train_ds), cache=tmp_path)
    assert kept.train.view is None and same(list(dls.valid), list(kept.valid)) and not list(tmp_path.rglob('*.npy'))

class Mirror(Transform):
    order = 2
    def encodes(self, o:PILImage): return o.flip_lr()

def test_what_follows_the_resize_still_runs(folder, tmp_path):
    def batch(*more):
        dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=1, bs=12, num_workers=0, item_tfms=[Resize(64, 'squish'), *more])
        dl = repeat_dls(dls, len(dls.train_ds), cache=tmp_path).train.new(shuffle=False)
        assert dl.view is not None
        return dl.one_batch()[0]
    assert torch.equal(batch(), batch(Mirror()).flip(-1))

def test_a_grey_or_own_opener_is_left_alone(folder, tmp_path):
    for kw in (dict(img_cls=PILImageBW),):
        dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=1, bs=4, num_workers=0, item_tfms=Resize(64), **kw)
        assert repeat_dls(dls, 12, cache=tmp_path).train.view is None
    own = DataBlock((ImageBlock(),CategoryBlock), get_items=get_image_files, get_y=parent_label, item_tfms=Resize(64))
    dls = own.dataloaders(folder, bs=4, num_workers=0)
    dls.train_ds.tls[0].tfms.fs[-1:] = [Pipeline(lambda o: PILImage.create(o).rotate(90)).fs[0]]
    assert repeat_dls(dls, 12, cache=tmp_path).train.view is None

def test_square_images_train_to_the_same_bit(tmp_path):
    for i in range(12): picture(256, 256, i).save(tmp_path/f'{i}.png')
    files = get_images(tmp_path)
    def loss(cache):
        set_seed(0, reproducible=True)
        dls = image_dls(files, [int(o.stem)%3 for o in files], size=64, bs=4, cache=cache, batch_tfms=aug_transforms())
        learn = Learner(dls, nn.Sequential(nn.Conv2d(3,4,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,3)), loss_func=nn.CrossEntropyLoss())
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
        return torch.stack([*learn.recorder.losses])
    assert torch.equal(loss(False), loss(tmp_path/'kept'))

@pytest.mark.parametrize('workers', [0, 2])
def test_workers_keep_the_same(workers, folder, tmp_path):
    one = seeded(dls_of(folder, tmp_path/'a', shuffle=False).valid)
    two = dls_of(folder, tmp_path/'b', num_workers=workers, shuffle=False).valid
    assert same(seeded(two), one) and same(seeded(two), one) and len(list((tmp_path/'b'/two.view.name).rglob('*.npy'))) == len(two.dataset)

def test_changed_transforms_see_the_whole_image_again(folder, tmp_path):
    dl = dls_of(folder, tmp_path, size=16).valid
    list(dl)
    larger = dl.new(after_item=Pipeline([Resize(128), ToTensor()]))
    want = dls_of(folder, False, size=128).valid
    assert (larger.one_batch()[0]-want.one_batch()[0]).abs().max() <= 1/255+1e-6

def test_a_file_that_changes_is_opened_again(folder, tmp_path):
    file = tmp_path/'a.png'
    kept,view = KeptImages(tmp_path/'kept'),resize_view(Pipeline(Resize(32)))
    for seed in (1,2):
        picture(200, 200, seed).save(file)
        assert levels(kept.open(file, view), ordinary(open_image(file), 32)) <= 1

def test_labels_and_new_data_sets_are_not_mixed_up(folder, tmp_path):
    dls = dls_of(folder, tmp_path)
    list(dls.train), list(dls.valid)
    test = dls.test_dl(get_images(folder)[:5])
    n = len(list(tmp_path.rglob('*.npy')))
    assert test.one_batch()[0].shape == (5,3,64,64) and test.view is None and len(list(tmp_path.rglob('*.npy'))) == n
    few,pool = few_label_dls(dls, n=1)
    assert few.train.view is not None and unlabeled_dl(few, pool).view == few.train.view

# On the device

def test_held_images_train_to_the_same_bit(folder, tmp_path):
    def losses(cache, workers=0):
        set_seed(0, reproducible=True)
        dls = dls_of(folder, cache, batch_tfms=aug_transforms(), num_workers=workers)
        learn = student_learner(dls, 'mobilenetv3_small_050', pretrained=False, epoch_len=12)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3)
        return torch.stack([*learn.recorder.losses]),learn
    a,_ = losses(tmp_path)
    b,learn = losses('device')
    assert torch.equal(a, b) and learn.dls.train.on_device and learn.dls.train.fake_l.num_workers == 0
    learn.export(tmp_path/'l.pkl')
    assert (tmp_path/'l.pkl').stat().st_size < 6e6
    assert len(load_learner(tmp_path/'l.pkl').predict(get_images(folder)[0])[2]) == 3

def test_held_needs_a_plain_resize(folder):
    with pytest.raises(ValueError, match='batch_tfms'): dls_of(folder, 'device', size=None, item_tfms=[Resize(64), FlipItem()])
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=1, bs=4, num_workers=0, item_tfms=RandomResizedCrop(64))
    with pytest.raises(ValueError, match="cache='device'"): student_learner(dls, 'mobilenetv3_small_050', pretrained=False, cache='device')

def test_held_arrays_make_no_files(tmp_path):
    pics = rng.integers(0, 256, (8,40,40,3), dtype=np.uint8)
    dls = image_dls(pics, list('abababab'), pics[:2], list('ab'), size=20, bs=4, cache=False)
    few = repeat_dls(dls, 8, cache=tmp_path)
    held = few.train.new(on_device=True)
    assert few.train.view is None and same(seeded(held), seeded(few.train)) and not list(tmp_path.rglob('*'))

# Nothing is opened twice

class Net(nn.Module):
    def __init__(self, c=4):
        super().__init__()
        torch.manual_seed(0)
        self.m = nn.Sequential(nn.Conv2d(3,5,3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5,c))
    def forward(self, x): return self.m(x)

def two_sources(): return [Source.from_module(Net(), .5, .5, 24, name='a'), Source.from_module(Net(), .5, .4, 40, crop_pct=.9, interpolation='bicubic', name='b')]

@pytest.fixture()
def opened_files(monkeypatch):
    seen,decode = Counter(),images._decode
    def counted(item):
        seen[str(item)] += 1
        return decode(item)
    monkeypatch.setattr(images, '_decode', counted)
    return seen

@pytest.mark.parametrize('teach', [Probes(), SourceClasses(), Both()], ids=lambda o: type(o).__name__)
def test_nothing_is_opened_twice(teach, folder, tmp_path, opened_files):
    dls = dls_of(folder, tmp_path/'images')
    few,pool = few_label_dls(dls, n=2)
    opened_files.clear()                                          # fastai looks at the first image when loaders are made
    rank = rank_sources(few, two_sources(), times=0, store=tmp_path/'s', progress=False)
    learn = distill_learner(few, pool, rank, 'mobilenetv3_small_050', pretrained=False, teach=teach, p=0, store=tmp_path/'s', cache=KeptImages(tmp_path/'images'), progress=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-3)
        learn.validate()
    assert set(opened_files.values()) == {1} and len(opened_files) == 18

def test_probe_head_and_training_open_once(folder, tmp_path, opened_files):
    few,pool = few_label_dls(dls_of(folder, tmp_path/'images'), n=2)
    opened_files.clear()
    rank_sources(few, two_sources(), times=0, store=tmp_path/'s', progress=False)
    learn = transfer_learner(few, 'mobilenetv3_small_050', pretrained=False, probe_head=True, cache=KeptImages(tmp_path/'images'))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert set(opened_files.values()) == {1}

def test_one_pass_for_all_preprocessings(folder, tmp_path):
    items,(a,b) = list(get_images(folder)),two_sources()
    apart = [get_outputs(s, items, store=Store(tmp_path/s.name, dtype='float32'), bs=5, progress=False) for s in (a,b)]
    store = Store(tmp_path/'both', dtype='float32')
    compute_outputs([a], items[:7], store, bs=5, progress=False)    # the sources lack different images
    compute_outputs([b], items[12:], store, bs=5, progress=False)
    compute_outputs([a,b], items, store, bs=5, progress=False)
    for s,want in zip((a,b), apart):
        got = get_outputs(s, items, store, progress=False)
        torch.testing.assert_close(got.features, want.features, atol=1e-6, rtol=0)
        torch.testing.assert_close(got.logits, want.logits, atol=1e-6, rtol=0)

def test_each_image_is_opened_once_for_both(folder, tmp_path, opened_files):
    compute_outputs(two_sources(), get_images(folder), tmp_path, bs=5, progress=False)
    assert set(opened_files.values()) == {1}

def test_live_teachers_make_no_pass_over_the_pool(folder, tmp_path):
    few,pool = few_label_dls(dls_of(folder, tmp_path/'images'), n=2)
    distill_learner(few, pool, two_sources(), 'mobilenetv3_small_050', pretrained=False, teach=SourceClasses(live=True), p=0, store=tmp_path/'s', progress=False)
    assert not list((tmp_path/'s').rglob('chunk-*'))

def test_blocks_bound_the_pixels():
    jobs = [(0, Source.from_module(Net(), .5, .5, 224), None), (1, Source.from_module(Net(), .5, .5, 96), None)]
    block = outputs._block_size(jobs, 64, torch.device('cpu'))
    assert block%64 == 0 and block*3*(224**2+96**2) <= 2**26 < (block+64)*3*(224**2+96**2)
    assert outputs._block_size([(0, Source.from_module(Net(), .5, .5, 2000), None)], 16, torch.device('cpu')) == 16
    assert outputs._block_size([(0, Source.from_module(Net(), .5, .5, 24), None)], 48, torch.device('cpu')) == 1008

# When it cannot be kept

def test_a_place_that_cannot_be_written_warns_once(folder, tmp_path):
    (tmp_path/'file').write_text('no folder')
    with pytest.warns(UserWarning, match='cannot be kept') as w: got = list(dls_of(folder, tmp_path/'file').valid)
    assert len([o for o in w if 'cannot be kept' in str(o.message)]) == 1
    assert all((x-y).abs().max() <= 1/255+1e-6 for (x,_),(y,_) in zip(got, dls_of(folder, False).valid))

@pytest.mark.parametrize('content', ['float', 'flat', 'empty', 'pickle'])
def test_a_file_of_something_else_is_made_again(content, folder, tmp_path):
    kept,view,item = KeptImages(tmp_path),resize_view(Pipeline(Resize(32))),get_images(folder)[0]
    want = kept.open(item, view)
    buf = io.BytesIO()
    np.save(buf, dict(float=np.zeros((32,32,3)), flat=np.zeros((32,32), np.uint8), empty=np.zeros((0,0,3), np.uint8), pickle=np.array([{}], object))[content], allow_pickle=True)
    kept.file(item, view).write_bytes(bytes.fromhex(images.digest(buf.getvalue())) + buf.getvalue())
    with pytest.warns(UserWarning, match='broken file'): assert levels(kept.open(item, view), want) == 0

def test_an_unreadable_image_is_named(folder, tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'\xff\xd8\xff\xe0')
    files = [*get_images(folder)[:5], tmp_path/'bad.jpg']
    dls = image_dls(files, list('aabbab'), files[:2], list('ab'), size=64, bs=6, cache=tmp_path/'kept')
    with pytest.raises(ValueError, match='bad.jpg'): list(dls.train)

def test_copies_and_processes(folder, tmp_path):
    dls = dls_of(folder, tmp_path/'kept')
    want = seeded(dls.valid)
    for other in (copy.deepcopy(dls.valid), pickle.loads(pickle.dumps(dls.valid))): assert same(seeded(other), want)
    gone = KeptImages(False)
    path = gone.path
    assert path.exists() and pickle.loads(pickle.dumps(gone)).path == path
    del gone
    assert not path.exists()

def test_nothing_is_kept_of_what_is_small_or_decoded(tmp_path):
    small = [np.asarray(picture(48, 48, i)) for i in range(6)]
    jpegs = []
    for o in small:
        buf = io.BytesIO(); Image.fromarray(o).save(buf, 'JPEG'); jpegs.append(buf.getvalue())
    for items in (small, jpegs):
        dls = image_dls(items, list('aabbab'), items[:2], list('ab'), size=40, bs=6, cache=tmp_path)
        assert dls.train.view is None
        list(dls.train)
    assert not list(tmp_path.rglob('*'))
    assert image_dls(jpegs, list('aabbab'), jpegs[:2], list('ab'), size=20, bs=6, cache=tmp_path).train.view is not None

# One way to look at an image

def grey(bits, low=0): return rng.integers(low, 2**bits, (24,30))
def saved(im, fmt, **kw):
    buf = io.BytesIO()
    im.save(buf, fmt, **kw)
    return buf.getvalue()

def transparent(mode):
    im = picture(30, 24).convert('RGBA').quantize() if mode=='P' else picture(30, 24).convert(mode)
    return saved(im, 'PNG', transparency={'P': bytes(range(256)), 'RGB': (0,0,0), 'L': 0, '1': 0}[mode])

def of_12_bits():
    "A TIFF that says that its greys have 12 bits"
    a = grey(12)
    packed = np.unpackbits(a.astype('>u2').view(np.uint8).reshape(24,30,2), axis=2)[...,4:].reshape(24,-1)
    data = saved(Image.fromarray(a.astype(np.uint16)), 'TIFF')
    raw = np.packbits(packed, axis=1).tobytes()
    from PIL import TiffImagePlugin
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for k,v in {256:30, 257:24, 258:12, 259:1, 262:1, 273:0, 277:1, 278:24, 279:len(raw)}.items(): ifd[k] = v
    return b'II*\0' + (8).to_bytes(4, 'little') + ifd.tobytes(8) + raw, a>>4     # which moves the strips behind itself

all_looks = {
    **{f'{m} {fmt}': (lambda m=m, fmt=fmt: saved(picture(30, 24).convert(m), fmt)) for fmt,ms in dict(PNG=['1','L','LA','P','RGB','RGBA'], TIFF=['1','L','LA','P','RGB','RGBA','CMYK','YCbCr','RGBX'], JPEG=['L','RGB','CMYK'],
       GIF=['P','L'], BMP=['RGB','1'], WEBP=['RGB','RGBA'], PPM=['RGB','L'], TGA=['LA','RGBA'], PCX=['P']).items() for m in ms},
    **{f'{m} transparent': (lambda m=m: transparent(m)) for m in ('P','RGB','L','1')},
    '16 bits PNG': lambda: saved(Image.fromarray(grey(16).astype(np.uint16)), 'PNG'), '16 bits TIFF': lambda: saved(Image.fromarray(grey(16).astype(np.uint16)), 'TIFF'),
    '16 bits, big end first': lambda: saved(Image.frombytes('I;16B', (30,24), grey(16).astype('>u2').tobytes()), 'TIFF'), '16 bits PPM': lambda: saved(Image.fromarray(grey(16).astype(np.int32)), 'PPM'),
    '8 bits in 32': lambda: saved(Image.fromarray(grey(8).astype(np.int32)), 'TIFF'), '16 bits in 32': lambda: saved(Image.fromarray(grey(16).astype(np.int32)), 'TIFF'),
    '12 bits': lambda: of_12_bits()[0],
    'animated': lambda: saved(picture(30, 24), 'GIF', save_all=True, append_images=[picture(30, 24, 1)]), 'pages': lambda: saved(picture(30, 24), 'TIFF', save_all=True, append_images=[picture(20, 10, 1)]),
    'held upright': lambda: saved(picture(30, 24), 'JPEG', exif=(lambda e: (e.__setitem__(274, 6), e)[1])(Image.Exif()))}

def pixels_of(o):
    o = o[0] if isinstance(o, tuple) else o
    return np.asarray(o)

def all_sights(dls, file):
    "The pixels of a file that is in `dls.train` and in `dls.valid`, from wherever it is looked at"
    learn = transfer_learner(dls, 'test_efficientnet', pretrained=False, normalize=False, cache=False)
    d,item = learn.dls,image_items(learn.dls)[0]
    few = few_label_dls(dls, n=1)[0]
    return dict(train=d.train_ds[0], valid=d.valid_ds[0], few=few.valid_ds[0], predict=d.test_dl([file]).dataset[0], pool=unlabeled_dl(d, [file]).dataset[0], source=open_image(item),
                source_pool=open_image(opened_as(d, L([file]))[0]), users_dls=open_image(image_items(dls)[0]))

def dls_with_both(file, *opener, other=None):
    other = other or file
    cls = opener or (PILImage.create,)
    return Datasets([file,other,file,other], [list(cls), [lambda o, n=iter('abab'*50): next(n), Categorize(vocab=['a','b'])]], splits=[[0,1],[2,3]]).dataloaders(bs=2, num_workers=0, after_item=ToTensor(), after_batch=IntToFloatTensor(), device='cpu')

@pytest.mark.parametrize('kind', all_looks)
def test_a_file_looks_the_same_everywhere(kind, tmp_path):
    (tmp_path/'a').write_bytes(all_looks[kind]())
    file = tmp_path/'a'
    want = np.asarray(open_image(file))
    for how,o in {**all_sights(dls_with_both(file), file), 'bytes': open_image(file.read_bytes()), 'lazy': open_image(Image.open(file)), 'infer': read_rgb(file), 'infer, bytes': read_rgb(file.read_bytes()), 'infer, lazy': read_rgb(Image.open(file))}.items():
        assert np.array_equal(pixels_of(o), want), how
    assert want.shape == (24,30,3) and want.std() > 20 and 40 < want.mean() < 215

@pytest.mark.parametrize('a,bits', [(grey(16), 16), (grey(8), 8), (grey(8)//2, 8), (grey(9), 16)])
def test_greys_are_scaled_by_their_depth(a, bits, tmp_path):
    file = tmp_path/'a.tif'
    Image.fromarray(a.astype(np.int32)).save(file)
    for f in (open_image, read_rgb):
        if a.max()>>(bits-8) >= 16: assert np.array_equal(np.asarray(f(file))[...,0], a>>(bits-8))
        else:
            with pytest.warns(UserWarning, match='nearly black'): assert np.array_equal(np.asarray(f(file))[...,0], a>>(bits-8))

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
        for f in (open_image, read_rgb): f(Image.fromarray(np.full((4,4), 40, np.uint16)))            # black all over: nothing is lost

@pytest.mark.parametrize('a', [grey(17), grey(8)-9, grey(31)])
def test_greys_of_no_known_depth_are_refused(a):
    for f in (open_image, read_rgb):
        with pytest.raises(ValueError, match='grey levels from .* to .* scale them'): f(Image.fromarray(a.astype(np.int32)))

class Thick(PILImage):
    @classmethod
    def create(cls, fn, **kw): return cls(Image.fromarray(np.asarray(Image.open(fn).convert('RGB'))//2))
def negative(p): return PILImage(Image.fromarray(255-np.asarray(Image.open(p).convert('RGB'))))
def negative_of_path(p:Path): return negative(p.parent/p.name)
def negative_of_str(p:str): return negative(p + '')
def redder(im:PILImage): return PILImage(Image.fromarray((np.asarray(im)//np.array([1,2,3])).astype(np.uint8)))
def upper(o): return Path(o)
own_openers = dict(function=[negative], path=[negative_of_path], text=[negative_of_str], create=[Thick.create], after=[PILImage.create, redder], getter=[upper, negative], twice=[negative, PILImage.create], lambda_=[lambda o: negative(o)])

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
    assert np.array_equal(pixels_of(unlabeled_dl(dls, [view]).dataset[0]), want[:,::-1]) and np.array_equal(np.asarray(open_image(view)), want[:,::-1])
    assert len({image_key(o) for o in (file, pool[0], view, ImageView(file, 'hflip'))}) == 4 and image_key(pool[0]) == image_key(image_items(dls)[0])

def test_openers_have_keys_of_their_own(tmp_path):
    picture(30, 24).save(tmp_path/'a.png')
    file = tmp_path/'a.png'
    keys = {image_key(image_items(dls_with_both(str(file) if n=='text' else file, *o))[0]) for n,o in own_openers.items() if n != 'getter'}
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
    learn = distill_learner(dls, files[2:], src, 'test_efficientnet', pretrained=False, probe_head=False, teach=SourceClasses(), store=tmp_path/'s', progress=False)
    assert np.array_equal(np.asarray(open_image(learn.distill.pool[0])), np.asarray(negative(files[2])))

def test_an_opener_that_cannot_open_the_pool_is_named(tmp_path):
    picture(30, 24).save(tmp_path/'a.png')
    dls = dls_with_both(tmp_path/'a.png', negative_of_path)
    with pytest.raises(ValueError, match='negative_of_path, which fails on .* bytes .*no image'): unlabeled_dl(dls, [(tmp_path/'a.png').read_bytes()])

@pytest.mark.parametrize('kind', ['RGB PNG','16 bits PNG','P PNG'])
def test_one_channel_stays_one_channel(kind, tmp_path):
    file = tmp_path/'a'
    file.write_bytes(all_looks[kind]())
    dls = repeat_dls(dls_with_both(file, PILImageBW.create), 2)
    u = unlabeled_dl(dls, [file, ImageView(file, 'hflip')])
    want = np.asarray(open_image(file).convert('L'))
    for o in (dls.train_ds[0], dls.valid_ds[0], u.dataset[0], dls.test_dl([file]).dataset[0]): assert type(o[0]) is PILImageBW and np.array_equal(pixels_of(o), want)
    assert u.dataset[1][0].mode == 'L' and u.one_batch()[0].shape == (2,1,24,30) and np.asarray(open_image(image_items(dls)[0])).shape == (24,30,3)

def test_pixels_of_other_kinds():
    x = torch.from_numpy(np.asarray(picture(30, 24)).copy())
    assert np.array_equal(np.asarray(open_image(TensorImage(x.permute(2,0,1)))), x) and open_image(TensorImage(x[None,...,0])).size == (30,24)
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
    finally: Image.ID.remove('ODD'); Image.OPEN.pop('ODD')

@pytest.mark.parametrize('kind', ['fifo','device','folder','socket'])
def test_only_regular_files_are_opened(kind, tmp_path, monkeypatch):
    path = tmp_path/'a.png'
    if kind=='fifo': os.mkfifo(path)
    if kind=='device': path.symlink_to('/dev/zero')
    if kind=='folder': path.mkdir()
    if kind=='socket':
        import socket
        monkeypatch.chdir(tmp_path); socket.socket(socket.AF_UNIX).bind('a.png')
    for f in (open_image, read_rgb, image_key):
        for item in (path, str(path)):
            with pytest.raises(ValueError, match='a.png.*folder, pipe or device'): f(item)
    assert kept.pixel_size(path) is None and list(check_images([path])) == [path]
