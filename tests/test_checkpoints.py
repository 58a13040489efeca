"Weights on disk and Learners: the network that was saved, with its preprocessing, or an error that names what differs"
import copy, os, pickle, warnings
import numpy as np, pytest, timm, torch
from fastai.vision.all import CrossEntropyLossFlat, Learner, Normalize, Resize, ResizeMethod, imagenet_stats
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from distill_nb.checkpoints import FileHash
from distill_nb.data import image_dls
from distill_nb.sources import Source

rng = np.random.default_rng(0)

def tiny(n=4):
    return nn.Sequential(nn.Conv2d(3,6,3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(),
        nn.Linear(6,n))

def test_position_embeddings_follow_the_size(tmp_path):
    model = timm.create_model('test_vit', num_classes=3)
    save_file(model.state_dict(), tmp_path/'v.safetensors')
    for size in (None, 96):
        src = Source.from_checkpoint(tmp_path/'v.safetensors', 'test_vit', size=size)
        assert src.load()(torch.rand(1,3,src.size,src.size))[1].shape == (1,3)

def test_key_says_what_decides_the_outputs(ckpt):
    path,model = ckpt
    def key(p=path/'a.safetensors', **kw): return Source.from_checkpoint(p, 'test_resnet', **kw).key
    keys = [key(), key(size=96), key(mean=.1), key(std=.1), key(crop_pct=.5), key(interpolation='nearest'),
        key(classifier=False), key(in_chans=3)]
    assert len(set(keys)) == len(keys)
    assert key() == key(name='another', meta=dict(task='x'), classes=['a','b','c'])
    (path/'b.safetensors').write_bytes((path/'a.safetensors').read_bytes())
    assert key(path/'b.safetensors') == key()

def test_key_follows_a_file_that_changes(ckpt):
    path,model = ckpt
    src = Source.from_checkpoint(path/'a.safetensors', 'test_resnet')
    before = src.key
    with torch.no_grad(): model.conv1[0].weight[0,0,0,0] += 1e-3
    save_file(model.state_dict(), path/'a.safetensors')
    os.utime(path/'a.safetensors', (1,1))
    assert src.key != before

def digits_learner(size=24, norm=imagenet_stats, **kw):
    imgs = rng.integers(0, 255, (20,30,24,3), dtype=np.uint8)
    dls = image_dls(imgs, np.arange(20)%2, imgs, np.arange(20)%2, vocab=['cat','dog'], bs=5,
        batch_tfms=Normalize.from_stats(*norm, cuda=False) if norm else None, size=size, **kw)
    torch.manual_seed(0)
    return imgs,Learner(dls, tiny(2), loss_func=CrossEntropyLossFlat())

def test_learner_goes_on_as_before():
    _,learn = digits_learner()
    learn.freeze()
    learn.model.train()
    state = copy.deepcopy(learn.model.state_dict())
    src = Source.from_learner(learn)
    key = src.key
    src.load()(torch.rand(2,3,24,24))
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in state.items()) and learn.model.training
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    assert not torch.equal(state['0.weight'], learn.model.state_dict()['0.weight'])
    assert src.key == key and Source.from_learner(learn).key != key

@pytest.mark.parametrize('method,size', [(ResizeMethod.Crop, 24), (ResizeMethod.Squish, 20)])
def test_learner_source_predicts_as_the_learner(method, size):
    imgs,learn = digits_learner(size=None, item_tfms=Resize(size, method))
    src = Source.from_learner(learn)
    assert (src.size, src.classes) == (size, ['cat','dog'])
    with learn.no_bar(): want = learn.get_preds(dl=learn.dls.valid)[0]
    got = src.load()(torch.stack([src.tfm(Image.fromarray(o)) for o in imgs]))[1].softmax(1)
    torch.testing.assert_close(got, want, atol=2e-3, rtol=0)

def test_learner_without_normalize_or_resize():
    _,learn = digits_learner(norm=None)
    src = Source.from_learner(learn)
    assert (src.mean, src.std) == ((0.,)*3, (1.,)*3)
    assert Source.from_learner(learn, size=40).size == 40

def test_export_is_opened_only_with_trust(tmp_path):
    _,learn = digits_learner()
    learn.export(tmp_path/'l.pkl')
    opened = []
    class Bomb:
        def __reduce__(self): return (opened.append, (1,))
    (tmp_path/'bomb.pkl').write_bytes(pickle.dumps(Bomb()))
    for f in ('l','bomb'):
        with pytest.raises(ValueError, match='trust=True'): Source.from_export(tmp_path/f'{f}.pkl')
    with pytest.raises(ValueError, match='more than tensors'): Source.from_checkpoint(tmp_path/'l.pkl', 'test_resnet')
    with pytest.warns(UserWarning, match='trust=True') as w: src = Source.from_export(tmp_path/'l.pkl', trust=True)
    assert len([o for o in w if o.category is UserWarning]) == 1
    x = torch.rand(2,3,24,24)
    assert torch.equal(src.load()(x)[1], Source.from_learner(learn).load()(x)[1])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        src.load()

@pytest.mark.parametrize('wrap',
    [lambda d: d, lambda d: {'state_dict': d, 'epoch': 3}, lambda d: {'model': d, 'opt': {'lr': .1}},
    lambda d: {f'module.{k}':v for k,v in d.items()}, lambda d: {'model': {f'module.{k}':v.half() for k,v in d.items()}},
    lambda d: {k:v for k,v in d.items() if 'num_batches' not in k}])
def test_wrapped_checkpoints(ckpt, wrap):
    path,model = ckpt
    torch.save(wrap(model.state_dict()), path/'w.pth')
    src,x = Source.from_checkpoint(path/'w.pth', 'test_resnet'),torch.rand(2,3,160,160)
    assert src.n_classes == 3
    torch.testing.assert_close(src.load()(x)[1], model(x).detach(), atol=1e-2, rtol=1e-2)

def test_checkpoint_that_does_not_fit_lists_the_names(ckpt):
    path,model = ckpt
    sd = dict(model.state_dict())
    sd['extra'] = torch.zeros(1)
    del sd['fc.bias']
    sd['conv1.0.weight'] = torch.zeros(1)
    torch.save(sd, path/'b.pth')
    with pytest.raises(ValueError) as e: Source.from_checkpoint(path/'b.pth', 'test_resnet').load()
    for part in ('missing 1 (fc.bias)', 'unexpected 1 (extra)', 'of another shape 1 (conv1.0.weight: (1,) in the file'):
        assert part in str(e.value)

@pytest.mark.parametrize('what', [[1,2], {'a': 1}, {}, torch.zeros(2)])
def test_not_a_state_dict(tmp_path, what):
    torch.save(what, tmp_path/'x.pth')
    with pytest.raises(ValueError, match='not a state dict'): Source.from_checkpoint(tmp_path/'x.pth', 'test_resnet')

def test_what_is_not_a_file_of_weights(ckpt):
    path,model = ckpt
    torch.save(model, path/'whole.pth')
    with pytest.raises(ValueError, match='holds more than tensors'): Source.from_checkpoint(path/'whole.pth', 'test_resnet')
    (path/'cut.safetensors').write_bytes((path/'a.safetensors').read_bytes()[:5000])
    with pytest.raises(ValueError, match='is it complete'): Source.from_checkpoint(path/'cut.safetensors', 'test_resnet')
    with pytest.raises(FileNotFoundError, match='no checkpoint'): Source.from_checkpoint(path/'gone.pth', 'test_resnet')
    with pytest.raises(ValueError, match='is not a file'): Source.from_checkpoint(path, 'test_resnet')
    with pytest.raises(FileNotFoundError, match='no exported'): Source.from_export(path/'gone.pkl', trust=True)

def test_an_unchanged_file_is_hashed_once(ckpt, monkeypatch):
    h = FileHash(ckpt[0]/'a.safetensors')
    first = h()
    monkeypatch.setattr('distill_nb.checkpoints.file_digest', lambda path: pytest.fail('hashed again'))
    assert h() == first
