"What an exported student, and a source made of a Learner, see is what validation saw; or the transform that cannot be described is named"
import json, random, warnings
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from torch import nn
from fastai.vision.all import (AffineCoordTfm, Brightness, CategoryBlock, Contrast, CropPad, CrossEntropyLossFlat,
                               DataBlock, DihedralItem, FlipItem, Hue, ImageBlock, IntToFloatTensor, Learner,
                               Normalize, PILImage, PILImageBW,
    RandomCrop, RandomErasing, RandomResizedCrop, RandomResizedCropGPU, RatioResize, Resize, Rotate, Saturation,
    TensorCategory, TensorImage, Transform, TransformBlock, aug_transforms, get_image_files, imagenet_stats, load_learner)
from distill_nb.data import image_dls
from distill_nb.deploy import *
from distill_nb.export import *
from distill_nb.publish import *
from distill_nb.student import create_student, input_channels
from distill_nb.infer import Predictor, prepare, prepare_item
from distill_nb.teach import SourceClasses
from distill_nb.learner import distill_learner, transfer_learner
from distill_nb.preprocess import image_channels, image_shape, preprocessing, read_transforms
from distill_nb.sources import Source
from distill_nb.zoo import Zoo

rng = np.random.default_rng(0)
sizes = dict(landscape=(80,50), portrait=(50,80), small=(21,17), large=(330,221), square=(64,64), thin=(90,20))
def picture(w, h):
    return np.asarray(Image.fromarray(rng.integers(0, 256, (max(2, h//6), max(2, w//6), 3), dtype=np.uint8)).resize((w,h), Image.BICUBIC))
pics = [picture(*o) for o in sizes.values()]
norm = Normalize.from_stats(*imagenet_stats, cuda=False)
def dls_of(item=None, batch=None, pictures=pics):
    return image_dls(pictures, [0,1]*(len(pictures)//2), pictures, [0,1]*(len(pictures)//2), item_tfms=item,
                     batch_tfms=batch, bs=len(pictures))
def seen(dls): return dls.valid.one_batch()[0].as_subclass(torch.Tensor)
def files(folder, mode='RGB', pictures=pics):
    for i,o in enumerate(pictures): Image.fromarray(o).convert(mode).save(folder/f"{'ab'[i%2]}{i:02}.png")
    return get_image_files(folder).sorted()
def all_of_them(o): return list(range(len(o))),list(range(len(o)))                 # for training and for validation
def dls_from(fs, **kw):
    return DataBlock((ImageBlock(kw.pop('cls', PILImage)), CategoryBlock), get_y=lambda p: p.name[0],
                     splitter=all_of_them, item_tfms=kw.pop('item', Resize(32)),
                     batch_tfms=kw.pop('batch', None)).dataloaders(fs, bs=len(fs), num_workers=0, **kw)

class Same(Resize): "A class of one's own that changes nothing"
def nothing(x:PILImage): return x.copy()
def of_labels(x:TensorCategory): return x
twice = [norm, Normalize.from_stats([.1]*3, [2.]*3, cuda=False)]

described = { # item transforms, batch transforms
    'Resize': (Resize(32), None), 'squish': (Resize(32, 'squish'), norm), 'tall': (Resize((48,32)), norm),
    'wide': (Resize((16,40), 'squish'), None), 'nearest': (Resize(32, resamples=(Image.NEAREST,Image.NEAREST)), norm),
    'pad': (Resize(32, 'pad'), norm), 'pad zeros': (Resize(32, 'pad', pad_mode='zeros'), norm),
    'pad border': (Resize((32,48), 'pad', pad_mode='border'), norm),
    'RandomResizedCrop': (RandomResizedCrop(32), norm), 'RandomResizedCrop 50': (RandomResizedCrop(50), norm),
    'RandomResizedCrop, all of it': (RandomResizedCrop((32,48), val_xtra=0), norm),
    'RandomResizedCrop, half': (RandomResizedCrop(64, val_xtra=.9), norm),
    'RandomCrop': ([Resize(48), RandomCrop(33)], norm), 'RandomCrop of squish': ([Resize(47, 'squish'),
        RandomCrop(32)], norm), 'RandomCrop of pad': ([Resize(48, 'pad'), RandomCrop(32)], norm),
             'RandomCrop twice': ([Resize(48), RandomCrop(40), RandomCrop(32)], norm),
    'two Resize of one size': ([Resize(32), Resize(32, 'squish')], norm),
    'of training': ([FlipItem(1.), DihedralItem(1.), Resize(32)], [*aug_transforms(), RandomErasing(1.), norm]),
    'augmented at its size': (Resize(32), [*aug_transforms(size=32), norm]),
    'GPU crop of its size': (Resize((32,40)), [RandomResizedCropGPU((32,40)), norm]),
    'colours': (Resize(32), [Hue(), Saturation(), Brightness(), Contrast(), norm]),
    'two Normalize': (Resize(32), twice), 'Normalize of the batch': (Resize(32), Normalize()),
    'Normalize of bytes': ([Resize(32), Normalize(torch.full((3,1,1), 100.), torch.full((3,1,1), 50.))], norm),
    'its own class': (Same(32, 'squish'), norm), 'its own, and harmless': ([nothing, Resize(32)], norm),
    'of labels': (Resize(32), [of_labels, norm])}

@pytest.mark.parametrize('name', described)
def test_a_description_gives_the_pixels_of_validation(name):
    dls = dls_of(*described[name])
    desc,x = preprocessing(dls),seen(dls)
    assert desc['input_size'] == list(x.shape[1:]) == list(image_shape(dls))
    mean,std = (torch.tensor(desc[k])[:,None,None] for k in ('mean','std'))
    ours = torch.stack([torch.from_numpy(prepare_item(o, desc)) for o in pics])
    assert {k: float(d) for k,d in zip(sizes, (x*std + mean - ours).abs().amax((1,2,3))) if d > 1e-3} == {}

class Smaller(Resize):
    def encodes(self, x:Image.Image): return x.resize(self.size)
class Own(Transform):
    order = 99
    def encodes(self, x:TensorImage): return (x-.5)/.25
def grey(x:PILImage): return PILImage(x.convert('L').convert('RGB'))
def blur(x:TensorImage): return F.avg_pool2d(x.float(), 3, 1, 1)

refused = { # item transforms, batch transforms, the name in the error
    'presizing': (Resize(48), aug_transforms(size=32), 'Flip'),
    'presizing, cut': (Resize(48), aug_transforms(size=32, min_scale=.75), 'RandomResizedCropGPU'),
    'GPU crop': (Resize(32), RandomResizedCropGPU(32, valid_scale=.8), 'RandomResizedCropGPU'),
    'GPU crop of a long image': (Resize((32,64)), RandomResizedCropGPU((32,64)), 'RandomResizedCropGPU'),
    'affine': (Resize(48), Rotate(size=32), 'Rotate'), 'other shape': (Resize(32), AffineCoordTfm(size=(32,16)), 'AffineCoordTfm'),
    'CropPad': (CropPad(32), None, 'CropPad'), 'CropPad first': ([Resize(48), CropPad(32)], None, 'Resize .*CropPad'),
    'RandomCrop': (RandomCrop(32), norm, 'RandomCrop'), 'larger': ([Resize(32), RandomCrop(40)], None, 'RandomCrop'),
    'of two shares': ([Resize((48,64)), RandomCrop(32)], None, 'RandomCrop'),
    'long RandomResizedCrop': (RandomResizedCrop((32,64)), norm, 'RandomResizedCrop'),
    'Resize twice': ([Resize(48), Resize(32)], None, 'Resize'),
    'RatioResize': ([RatioResize(64), Resize(32)], None, 'RatioResize'),
    'its own class': (Smaller(32), norm, 'Smaller'), 'its own Normalize': (Resize(32), Own(), 'Own'),
    'grey': ([grey, Resize(32)], norm, 'grey'), 'blur': (Resize(32), [blur], 'blur')}

@pytest.mark.parametrize('name', refused)
def test_what_cannot_be_described_is_named(name, tmp_path):
    *tfms,match = refused[name]
    learn = Learner(dls_of(*tfms), create_student('test_efficientnet', 2, pretrained=False), loss_func=CrossEntropyLossFlat())
    for f in (lambda: preprocessing(learn.dls), lambda: save_student(learn, tmp_path/'s.safetensors'),
              lambda: to_onnx(learn, tmp_path/'s.onnx'), lambda: to_export(learn, tmp_path/'s.pt2'),
              lambda: save_hub(learn, tmp_path/'hub'), lambda: Source.from_learner(learn)):
        with pytest.raises(ValueError, match=f'`dls`: .*({match})'): f()
    assert not list(tmp_path.iterdir())

def test_values_can_be_given_where_only_they_are_unknown():
    assert preprocessing(dls_of(Resize(32), Own()), mean=.5, std=.25)['std'] == [.25]*3
    with pytest.raises(ValueError, match='other pixels'): preprocessing(dls_of(Resize(32), norm), mean=.5, std=.25)
    with pytest.raises(ValueError, match='`std`'): preprocessing(dls_of(Resize(32), norm), std=0)

def test_an_opener_of_its_own_is_found_out(tmp_path):
    fs = files(tmp_path)
    def negative(p): return PILImage(Image.fromarray(255-np.asarray(Image.open(p))))
    block = TransformBlock(negative, batch_tfms=IntToFloatTensor)
    dls = DataBlock((block, CategoryBlock), get_y=lambda p: p.name[0], splitter=all_of_them,
                    item_tfms=Resize(32)).dataloaders(fs, bs=6, num_workers=0)
    with pytest.raises(ValueError, match='negative'): preprocessing(dls)

def test_images_that_nothing_resizes():
    same = [picture(40,30) for _ in range(6)]
    for item,batch in ((None,norm), (CropPad((30,40)),None), (None, aug_transforms(size=(30,40)))):
        assert preprocessing(dls_of(item, batch, same))['input_size'] == [3,30,40]
    one = image_dls(pics, [0,1]*3, pics, [0,1]*3, bs=1)
    with pytest.raises(ValueError, match='different sizes.*`size`'): preprocessing(one)
    assert preprocessing(one, size=(20,24))['input_size'] == [3,20,24]

def test_without_images_what_is_unknown_is_named(tmp_path):
    def exported(item, batch=None):
        Learner(dls_of(item, batch), nn.Sequential(nn.Flatten(), nn.LazyLinear(2)),
                loss_func=CrossEntropyLossFlat()).export(tmp_path/'l.pkl')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return load_learner(tmp_path/'l.pkl').dls
    for name in ('RandomResizedCrop','tall','pad','two Normalize','of training','of labels'):
        assert preprocessing(exported(*described[name])) == preprocessing(dls_of(*described[name]))
    for name,match in {'its own, and harmless': 'nothing', 'its own class': 'Same'}.items():
        with pytest.raises(ValueError, match=f'{match} is not known'): preprocessing(exported(*described[name]))
    with pytest.raises(ValueError, match='presizing'): preprocessing(exported(*refused['presizing'][:2]))
    with pytest.raises(ValueError, match='`size`'): preprocessing(exported(None))
    assert preprocessing(exported(None), size=24)['input_size'] == [3,24,24]

def test_looking_changes_nothing():
    dls = dls_of(RandomResizedCrop(32), [*aug_transforms(), norm])
    dls.train.one_batch()                                                          # the affine transform has seen a training batch last
    states = lambda: (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                      [{k:v for k,v in vars(t).items() if not callable(v)} for t in dls.valid.after_item.fs],
                      dls.train.after_batch[1].split_idx)
    before = repr(states())
    for _ in range(2): preprocessing(dls)
    assert repr(states()) == before

# Sources

@pytest.mark.parametrize('name', ['Resize','squish','pad','RandomResizedCrop','RandomCrop','of training','its own class'])
def test_a_source_sees_what_the_learner_saw(name):
    dls = dls_of(*described[name])
    src = Source.from_learner(Learner(dls, create_student('test_efficientnet', 2, pretrained=False), loss_func=CrossEntropyLossFlat()))
    torch.testing.assert_close(torch.stack([src.tfm(Image.fromarray(o)) for o in pics]), seen(dls), atol=2e-3, rtol=0)

def test_a_source_is_square_and_in_colour(tmp_path):
    learn = lambda dls,**kw: Learner(dls, create_student('test_efficientnet', 2, pretrained=False, **kw), loss_func=CrossEntropyLossFlat())
    with pytest.raises(ValueError, match='48×32.*square'): Source.from_learner(learn(dls_of(Resize((48,32)))))
    with pytest.raises(ValueError, match='1 channel'): Source.from_learner(learn(dls_from(files(tmp_path), cls=PILImageBW), in_chans=1))
    for f in (lambda: Source.from_timm('test_efficientnet', pretrained=False, in_chans=1),
              lambda: Source.from_timm('test_efficientnet', pretrained=False, in_chans=4),
              lambda: Zoo.timm('test_efficientnet', pretrained=False, in_chans=1)):
        with pytest.raises(ValueError, match='in_chans'): f()
    with pytest.raises(ValueError, match='colour images'):
        Source.from_module(nn.Sequential(nn.Conv2d(1,2,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2,2)), .5, .5, 16)

@pytest.mark.parametrize('bad', [dict(crop_mode='centre'), dict(crop_mode='pad-zeros', resize='timm'),
                                 dict(crop_mode=None), dict(interpolation='cubic'), dict(interpolation=3), dict(resize='torch')])
def test_a_geometry_is_looked_at_where_it_enters(bad, tmp_path):
    with pytest.raises(ValueError, match=next(iter(bad))): Source('s', lambda: None, size=32, **bad)
    m = create_student('test_efficientnet', 2, pretrained=False)
    if 'resize' not in bad:
        for f in (lambda: student_meta(m, **bad), lambda: save_student(m, tmp_path/'s.safetensors', **bad),
                  lambda: prepare(Image.fromarray(pics[0]), 32, **bad)):
            with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"): f()

def test_a_student_that_padded_is_a_source(tmp_path):
    dls = dls_of(*described['pad'])
    learn = Learner(dls, create_student('test_efficientnet', 2, pretrained=False), loss_func=CrossEntropyLossFlat())
    (tmp_path/'manifest.json').write_text(json.dumps(dict(padded=student_meta(save_student(learn, tmp_path/'padded.safetensors')))))
    tfm = Zoo.checkpoints(tmp_path)['padded'].tfm
    torch.testing.assert_close(torch.stack([tfm(Image.fromarray(o)) for o in pics]), seen(dls), atol=2e-3, rtol=0)

def test_bars_of_timm_have_the_sources_colour():
    src,img = Source('s', lambda: None, size=32, mean=(.2,.4,.6), std=.5,
                     crop_mode='border'),Image.fromarray(np.full((10,40,3), 255, np.uint8))
    assert src.pixels(img)[:,0,0].tolist() == [51,102,153]
    assert prepare_item(img, dict(input_size=[3,32,32], crop_mode='border', mean=[.2,.4,.6]))[:,0,0] == pytest.approx([.2,.4,.6])

# From training to predicting

def fitted(dls, **kw):
    torch.manual_seed(0)
    learn = transfer_learner(dls, 'test_efficientnet', pretrained=False, **kw)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return learn

shapes = dict(grey=dict(cls=PILImageBW), tall=dict(item=Resize((48,32))),
              grey_wide=dict(cls=PILImageBW, item=Resize((24,40), 'squish')), pad=dict(item=Resize(32, 'pad')),
              crop=dict(item=RandomResizedCrop(32)))
@pytest.mark.parametrize('name', shapes)
def test_a_student_of_any_shape_leaves_and_answers(name, tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    (tmp_path/'photos').mkdir()
    fs,grey = files(tmp_path/'photos'),'grey' in name
    learn = fitted(dls_from(fs, **shapes[name]), arch_kwargs=dict(in_chans=1) if grey else {})
    with learn.no_bar(): want = learn.get_preds()[0].numpy()
    meta = student_meta(learn)
    assert meta['input_size'] == list(learn.dls.valid.one_batch()[0].shape[1:])
    assert len(meta['mean']) == len(meta['std']) == meta['input_size'][0]
    hub = save_hub(learn, tmp_path/'hub')
    again = load_student(hub/'model.safetensors')
    with torch.no_grad(): torch.testing.assert_close(again(seen(learn.dls)), learn.model.eval()(seen(learn.dls)))
    assert to_export(learn, tmp_path/'s.pt2') < 1e-4
    np.testing.assert_allclose(Predictor(hub/'student.onnx')(fs), want, atol=1e-4)
    assert 0 <= quantize_onnx(hub/'student.onnx', tmp_path/'q.onnx', fs, bs=3) <= 1 and Predictor(tmp_path/'q.onnx')(fs).shape == want.shape
    assert (hub/'config.json').exists() == (name != 'pad')                        # timm has no word for fastai's bars
    row = profile({'Learner': learn, 'Student': again}, n=1)
    assert row['million MACs'].nunique() == 1 and row['size'].nunique() == 1

def test_grey_images_are_normalised_by_the_mean_of_the_colours(tmp_path):
    dls = dls_from(files(tmp_path), cls=PILImageBW)
    learn = transfer_learner(dls, 'test_efficientnet', pretrained=False, arch_kwargs=dict(in_chans=1))
    t, = [t for t in learn.dls.after_batch.fs if isinstance(t, Normalize)]
    assert t.mean.numel() == t.std.numel() == 1 and t.mean.item() == pytest.approx(.449, abs=1e-3)
    with pytest.raises(ValueError, match='1 channel, the student takes 3.*in_chans=1'):
        transfer_learner(dls, 'test_efficientnet', pretrained=False)
    with pytest.raises(ValueError, match='3 channels, the student takes 1'):
        transfer_learner(dls_of(Resize(32)), 'test_efficientnet', pretrained=False, arch_kwargs=dict(in_chans=1))
    cut = create_student('test_efficientnet', 2, pretrained=False, stages=2, in_chans=1)
    assert input_channels(cut) == 1 and create_student(nn.Conv2d(1,4,3), 2)(torch.zeros(1,1,8,8)).shape == (1,2)
    assert student_meta(create_student('test_efficientnet', 2, pretrained=False, in_chans=1), mean=.5)['mean'] == [.5]
    three = dls_from(files(tmp_path), cls=PILImageBW, batch=norm)             # statistics of three colours make three channels
    assert image_channels(three) == 3 and transfer_learner(three, 'test_efficientnet', pretrained=False)

@pytest.mark.filterwarnings('ignore:.*validation images are in the pool')
def test_grey_images_in_colour_for_live_teachers(tmp_path):
    fs = files(tmp_path)
    learn = distill_learner(dls_from(fs, cls=PILImageBW), fs, Zoo.embedded(names=['digits']), 'test_efficientnet',
                            pretrained=False, teach=SourceClasses(live=True), store=False, progress=False, arch_kwargs=dict(in_chans=1))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[-1]).all()

def whatever(x): return x

def test_what_transforms_are_read_as():
    assert read_transforms([Resize(96), RandomCrop(64)]).crop_pct == 64/96
    assert read_transforms([Transform(of_labels), Transform(whatever)]).unknown == ['whatever']
    odd = {'RandomCrop': [Resize(96), RandomCrop(100)], 'RandomResizedCrop': [RandomResizedCrop((32,64))],
           'Flip': [Resize(96), *aug_transforms(size=64)],
           'RandomResizedCropGPU': [Resize(96), RandomResizedCropGPU(96, valid_scale=.8)]}
    for name,tfms in odd.items():
        with pytest.raises(ValueError, match=f'in validation {name} '): read_transforms(tfms)

def test_a_crop_mode_that_there_is_not():
    with pytest.raises(ValueError, match='`crop_mode`'): preprocessing(dls_of(Resize(32)), crop_mode='centre')
