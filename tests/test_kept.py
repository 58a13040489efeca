"Kept images: every size and shape, every kind of loader, workers, damage, and that nothing is opened twice"
import copy, io, pickle, random
from collections import Counter
import numpy as np, PIL, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn
from fastai.vision.all import (
    CategoryBlock, CropPad, DataBlock, FlipItem, ImageBlock, ImageDataLoaders, Learner, Pipeline, PILImage, PILImageBW,
    RandomCrop, RandomResizedCrop, Resize, ToTensor, Transform, aug_transforms, get_image_files, load_learner,
    parent_label, set_seed)
from distill_nb import images, outputs
from distill_nb.files import seal
from distill_nb.images import *
from distill_nb.kept import *
from distill_nb.kept import pays
from distill_nb.items import *
from distill_nb.data import *
from distill_nb.pool import *
from distill_nb.packs import *
from distill_nb.teach import Both, Probes, SourceClasses
from distill_nb.learner import distill_learner, student_learner, transfer_learner
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.similarity import rank_sources
from distill_nb.sources import Source
from test_images import Net, picture, two_sources

rng = np.random.default_rng(0)

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

@pytest.mark.parametrize('w,h,side', [
    (1600,1200,96), (1200,1600,96), (1600,1202,96), (1601,1200,96), (2048,2048,64), (700,500,96)])
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
    if mode == 'YCbCr' and int(PIL.__version__.split('.')[0]) < 13: pytest.skip('Pillow before 13 cannot read such a TIFF')
    deep = {'I;16': np.uint16, 'I': np.int32}
    if mode in deep: img = Image.fromarray(rng.integers(0, 2**16, (200,300)).astype(deep[mode]))
    else: img = picture(300, 200).convert(mode)
    ext = 'tiff' if mode in ('CMYK','YCbCr','LA','I') else 'png'
    if mode=='HSV': img,ext = img.convert('RGB'),'bmp'
    img.save(tmp_path/f'a.{ext}')
    kept,view = KeptImages(tmp_path/'kept'),resize_view(Pipeline(Resize(64)))
    want = ordinary(open_image(tmp_path/f'a.{ext}'), 64)
    for _ in range(2): assert levels(kept.open(tmp_path/f'a.{ext}', view), want) <= 1

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

def from_folder(p, bs=4, **kw): return ImageDataLoaders.from_folder(p, valid_pct=.3, seed=1, bs=bs, num_workers=0, **kw)
def block(image_block=ImageBlock, **kw):
    return DataBlock((image_block,CategoryBlock), get_items=get_image_files, get_y=parent_label, **kw)

builders = dict(
    folder = from_folder,
    block  = lambda p, **kw: block(**kw).dataloaders(p, bs=4, num_workers=0),
    image_dls = lambda p, item_tfms: dls_of(p, size=None, item_tfms=item_tfms))

@pytest.mark.parametrize('build', builders)
def test_any_dls_of_a_resize(build, folder, tmp_path):
    dls = builders[build](folder, item_tfms=Resize(64))
    kept = repeat_dls(dls, len(dls.train_ds), cache=tmp_path)
    assert kept.train.view.train and not kept.valid.view.train
    want = list(dls.valid)
    for _ in range(2):
        for (x,y),(a,b) in zip(want, kept.valid):
            assert (x-a).abs().max() <= 1/255+1e-6 and torch.equal(y, b)
            assert type(a)==type(x) and type(b)==type(y)
    assert len(list(tmp_path.rglob('*.npy'))) == len(dls.valid_ds)
    kept.show_batch()
    kept.valid.show_batch()

whole = [RandomResizedCrop(64), [Resize(80, 'pad')], [FlipItem(), CropPad(64)], RandomCrop(64)]
@pytest.mark.parametrize('tfms', whole, ids=lambda o: str(o)[:20])
def test_other_transforms_see_the_whole_image(tfms, folder, tmp_path):
    dls = from_folder(folder, item_tfms=tfms)
    kept = repeat_dls(dls, len(dls.train_ds), cache=tmp_path)
    assert kept.train.view is None and same(list(dls.valid), list(kept.valid)) and not list(tmp_path.rglob('*.npy'))

class Mirror(Transform):
    order = 2
    def encodes(self, o:PILImage): return o.flip_lr()

def test_what_follows_the_resize_still_runs(folder, tmp_path):
    def batch(*more):
        dls = from_folder(folder, bs=12, item_tfms=[Resize(64, 'squish'), *more])
        dl = repeat_dls(dls, len(dls.train_ds), cache=tmp_path).train.new(shuffle=False)
        assert dl.view is not None
        return dl.one_batch()[0]
    assert torch.equal(batch(), batch(Mirror()).flip(-1))

def test_a_grey_or_own_opener_is_left_alone(folder, tmp_path):
    dls = from_folder(folder, item_tfms=Resize(64), img_cls=PILImageBW)
    assert repeat_dls(dls, 12, cache=tmp_path).train.view is None
    dls = block(ImageBlock(), item_tfms=Resize(64)).dataloaders(folder, bs=4, num_workers=0)
    dls.train_ds.tls[0].tfms.fs[-1:] = [Pipeline(lambda o: PILImage.create(o).rotate(90)).fs[0]]
    assert repeat_dls(dls, 12, cache=tmp_path).train.view is None

def test_square_images_train_to_the_same_bit(tmp_path):
    for i in range(12): picture(256, 256, i).save(tmp_path/f'{i}.png')
    files = get_images(tmp_path)
    def loss(cache):
        set_seed(0, reproducible=True)
        dls = image_dls(files, [int(o.stem)%3 for o in files], size=64, bs=4, cache=cache, batch_tfms=aug_transforms())
        net = nn.Sequential(nn.Conv2d(3,4,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,3))
        learn = Learner(dls, net, loss_func=nn.CrossEntropyLoss())
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
        return torch.stack([*learn.recorder.losses])
    assert torch.equal(loss(False), loss(tmp_path/'kept'))

@pytest.mark.parametrize('workers', [0, 2])
def test_workers_keep_the_same(workers, folder, tmp_path):
    one = seeded(dls_of(folder, tmp_path/'a', shuffle=False).valid)
    two = dls_of(folder, tmp_path/'b', num_workers=workers, shuffle=False).valid
    assert same(seeded(two), one) and same(seeded(two), one)
    assert len(list((tmp_path/'b'/two.view.name).rglob('*.npy'))) == len(two.dataset)

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
    with pytest.raises(ValueError, match='batch_tfms'):
        dls_of(folder, 'device', size=None, item_tfms=[Resize(64), FlipItem()])
    dls = from_folder(folder, item_tfms=RandomResizedCrop(64))
    with pytest.raises(ValueError, match="cache='device'"):
        student_learner(dls, 'mobilenetv3_small_050', pretrained=False, cache='device')

def test_held_arrays_make_no_files(tmp_path):
    pics = rng.integers(0, 256, (8,40,40,3), dtype=np.uint8)
    dls = image_dls(pics, list('abababab'), pics[:2], list('ab'), size=20, bs=4, cache=False)
    few = repeat_dls(dls, 8, cache=tmp_path)
    held = few.train.new(on_device=True)
    assert few.train.view is None and same(seeded(held), seeded(few.train)) and not list(tmp_path.rglob('*'))

# Nothing is opened twice

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
    opened_files.clear()                                        # fastai looks at the first image when loaders are made
    rank = rank_sources(few, two_sources(), times=0, store=tmp_path/'s', progress=False)
    learn = distill_learner(few, pool, rank, 'mobilenetv3_small_050', pretrained=False, teach=teach, p=0,
                            store=tmp_path/'s', cache=KeptImages(tmp_path/'images'), progress=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-3)
        learn.validate()
    assert set(opened_files.values()) == {1} and len(opened_files) == 18

def test_probe_head_and_training_open_once(folder, tmp_path, opened_files):
    few,pool = few_label_dls(dls_of(folder, tmp_path/'images'), n=2)
    opened_files.clear()
    rank_sources(few, two_sources(), times=0, store=tmp_path/'s', progress=False)
    cache = KeptImages(tmp_path/'images')
    learn = transfer_learner(few, 'mobilenetv3_small_050', pretrained=False, probe_head=True, cache=cache)
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
    distill_learner(few, pool, two_sources(), 'mobilenetv3_small_050', pretrained=False, teach=SourceClasses(live=True),
                    p=0, store=tmp_path/'s', progress=False)
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

no_images = dict(float=np.zeros((32,32,3)), flat=np.zeros((32,32), np.uint8), empty=np.zeros((0,0,3), np.uint8),
                 pickle=np.array([{}], object))
@pytest.mark.parametrize('content', no_images)
def test_a_file_of_something_else_is_made_again(content, folder, tmp_path):
    kept,view,item = KeptImages(tmp_path),resize_view(Pipeline(Resize(32))),get_images(folder)[0]
    want = kept.open(item, view)
    buf = io.BytesIO()
    np.save(buf, no_images[content], allow_pickle=True)
    kept.file(item, view).write_bytes(seal(buf.getvalue()))
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
        buf = io.BytesIO()
        Image.fromarray(o).save(buf, 'JPEG')
        jpegs.append(buf.getvalue())
    for items in (small, jpegs):
        dls = image_dls(items, list('aabbab'), items[:2], list('ab'), size=40, bs=6, cache=tmp_path)
        assert dls.train.view is None
        list(dls.train)
    assert not list(tmp_path.rglob('*'))
    assert image_dls(jpegs, list('aabbab'), jpegs[:2], list('ab'), size=20, bs=6, cache=tmp_path).train.view is not None

@pytest.mark.parametrize('name', ['n','most'])
def test_what_pays_needs_counts(name):
    for v in pays.rules[name].bad.values():
        with pytest.raises(ValueError, match=f'`{name}` must be'): pays([], None, **{name: v})

# Arrays

def opened_one_by_one(dl, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(KeptDL, 'plain_arrays', property(lambda self: False))
        return list(dl)

@pytest.mark.parametrize('odd', [None, (8,8)], ids=str)
@pytest.mark.parametrize('workers', [0,1])
def test_arrays_are_stacked_to_the_same_batches(odd, workers, monkeypatch):
    "Where one array has another shape, its batch is made as before; random numbers are drawn in the same places"
    rng = np.random.default_rng(0)
    arrays = list(rng.integers(0, 256, (10,8,8,3), dtype=np.uint8))
    if odd: arrays[7] = rng.integers(0, 256, odd, dtype=np.uint8)
    dls = image_dls(arrays, list('ababababab'), arrays[:4], list('abab'), bs=4, num_workers=workers, batch_tfms=aug_transforms(size=6))
    def batches(f):
        set_seed(0)
        dls.rng = dls.train.rng = random.Random(0)
        return f(dls.train.new(shuffle=False))
    assert dls.train.plain_arrays
    ours,theirs = batches(list),batches(lambda dl: opened_one_by_one(dl, monkeypatch))
    for a,b in zip(ours, theirs, strict=True):
        assert [type(o) for o in a] == [type(o) for o in b] and all(torch.equal(x, y) for x,y in zip(a, b))

@pytest.mark.parametrize('change', ['Resize','more transforms','files','grey','own item'])
def test_what_is_not_stacked(change, folder):
    arrays = list(np.zeros((4,8,8,3), np.uint8))
    if change == 'files': arrays = list(folder.rglob('*.jpg'))[:4]
    if change == 'grey': arrays = [o[...,0] for o in arrays]
    kw = {'Resize': dict(size=8), 'more transforms': dict(item_tfms=[FlipItem()])}.get(change, {})
    train = image_dls(arrays, list('abab'), arrays[:2], list('ab'), bs=2, **kw).train
    if change == 'own item': train.create_item = lambda s: s
    assert not train.plain_arrays
