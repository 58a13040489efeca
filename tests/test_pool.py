"The pool: what is in it, its loader, and an epoch of another length; weights, shares and loaders of other classes"
import os, pickle
import numpy as np, pytest, torch
from PIL import Image
from hypothesis import given, settings, strategies as st
from torch import nn
from fastai.callback.data import WeightedDL
from fastai.vision.all import (Categorize, CategoryBlock, DataBlock, Datasets, ImageBlock, ImageDataLoaders, IntToFloatTensor, Normalize,
    PILImage, TensorBase, TfmdDL, ToTensor, concat, get_image_files, image2tensor, imagenet_stats, noop, parent_label, set_seed)
from distill_nb.items import get_images, image_items, item_labels
from distill_nb.data import few_labels, image_dls
from distill_nb.images import OpenImage, image_key, open_image, path_keys
from distill_nb.teach import SourceClasses
from distill_nb.learner import distill_learner, fixmatch_learner, transfer_learner
from distill_nb.packs import digits_dls
from distill_nb.pool import RepeatDL, few_label_dls, images_in, pool_images, repeat_dls, unlabeled_dl
from distill_nb.sources import Source
from test_data import folder, images # noqa: F401 (a fixture)

def test_few_of_repeated():
    dls,_ = digits_dls(n=10)
    few,_ = few_label_dls(repeat_dls(dls, 500), n=2)
    assert len(few.train)==1 and sorted(few.train.get_idxs())==list(range(20))

def test_transforms_do_not_leak():
    dls,pool = digits_dls()
    rep = repeat_dls(dls, 100)
    n = len(dls.train.after_batch.fs)
    rep.add_tfms([Normalize.from_stats(*imagenet_stats, cuda=False)], 'after_batch')
    assert [len(d.after_batch.fs) for d in (*dls.loaders,*rep.loaders)]==[n,n,n+1,n+1]
    dls.add_tfms([Normalize.from_stats([.5]*3, [.5]*3, cuda=False)], 'after_batch')
    assert [len(d.after_batch.fs) for d in (*dls.loaders,*rep.loaders)]==[n+1]*4
    u,m = unlabeled_dl(rep, pool),unlabeled_dl(dls, pool)
    assert u.after_batch.normalize.mean.flatten().tolist()!=m.after_batch.normalize.mean.flatten().tolist()==[.5]*3
    assert u.one_batch()[0].min()<-1.5

def test_unlabeled_augments_and_repeats():
    dls,pool = digits_dls()
    def _run():
        set_seed(3)
        dl = unlabeled_dl(dls, pool, bs=256)
        return [[(x.clone(),i) for x,i in dl] for _ in range(2)]
    a,b = _run(),_run()
    for (x,i),(y,j) in zip(concat(*a), concat(*b)): assert torch.equal(i,j) and torch.equal(x,y)
    assert not torch.equal(a[0][0][1], a[1][0][1])
    x,i = a[0][0]
    plain = torch.stack([image2tensor(open_image(pool[k])) for k in i]).float()/255
    assert (x-plain).abs().mean()>.01
    dls.train.after_batch.fs.clear()
    dls.train.after_batch.add([IntToFloatTensor()])
    x,i = unlabeled_dl(dls, pool, bs=256).one_batch()
    assert torch.equal(TensorBase(x), torch.stack([image2tensor(open_image(pool[k])) for k in i]).float()/255)

@settings(max_examples=25, deadline=None)
@given(n=st.integers(1,200), bs=st.integers(1,80))
def test_repeat_is_balanced(n, bs):
    dls = image_dls(images(7,4), list('aabbbab'), images(2,4), list('ab'), bs=5)
    dl = repeat_dls(dls, n, bs=bs).train
    a,b = dl.get_idxs(),dl.get_idxs()
    for o in a,b:
        c = np.bincount(o, minlength=7)
        assert len(o)==n and c.max()-c.min()<=1
    assert len(dl)==n//min(bs,n)>0
    plain = dl.new(shuffle=False, drop_last=False)
    assert plain.get_idxs()==list(range(7))

def test_repeat_rejects():
    dls,_ = digits_dls()
    for n in 0,-3,1.5:
        with pytest.raises(ValueError, match='`n` must be'): repeat_dls(dls, n)

def test_pickle_and_workers():
    dls,pool = digits_dls()
    rep = repeat_dls(dls, 120, bs=40)
    p = pickle.loads(pickle.dumps(rep))
    assert isinstance(p.train, RepeatDL) and len(p.train)==3 and p.vocab==dls.vocab
    q = pickle.loads(pickle.dumps(unlabeled_dl(rep, pool[:80], bs=40)))
    assert len(q)==2 and q.one_batch()[0].shape==(40,3,32,32)
    w = unlabeled_dl(dls, pool[:80], bs=20, num_workers=1)
    assert sorted(torch.cat([i for _,i in w]).tolist())==list(range(80))

# What is in a pool

def dls_and(path, **kw): return ImageDataLoaders.from_folder(path, valid_pct=.25, seed=1, bs=4, num_workers=0, **kw)
def source():
    return Source.from_module(nn.Sequential(nn.Conv2d(3,4,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,3)), .5, .5, 12, name='s')
def distilled(dls, pool, tmp_path, labeled_too=True, **kw):
    return distill_learner(dls, pool, source(), 'test_efficientnet', pretrained=False, teach=SourceClasses(labeled_too=labeled_too),
                           store=tmp_path/'store', progress=False, **kw)

@pytest.mark.parametrize('form', ['files','bytes','copies','arrays'])
def test_a_pool_that_has_the_labelled_and_the_validation_images(form, folder, tmp_path):
    dls,files = dls_and(folder),get_images(folder)
    if form=='copies':
        for f in files:
            (tmp_path/'pool').mkdir(exist_ok=True)
            (tmp_path/'pool'/f'_{f.name}').write_bytes(f.read_bytes())
        pool = tmp_path/'pool'
    elif form=='arrays':
        x = np.stack([np.asarray(open_image(o)) for o in files])
        y = [o.parent.name for o in files]
        dls,pool = image_dls(x, y, bs=4, valid_pct=.25),x
    else: pool = files if form=='files' else [o.read_bytes() for o in files]
    with pytest.warns(UserWarning, match='`unlabeled`: 6 of the 6 validation images are in the pool'):
        learn = distilled(dls, pool, tmp_path)
    assert len(learn.distill.pool)==24==len({image_key(o) for o in learn.distill.pool})
    with pytest.warns(UserWarning, match='6 of the 6 validation'): fixmatch_learner(dls, pool, 'test_efficientnet', pretrained=False)

def test_a_pool_of_other_images_is_neither_changed_nor_read(folder, tmp_path):
    dls = dls_and(folder)
    for i,o in enumerate(images(4, 40)): Image.fromarray(o).save(tmp_path/f'{i}.png')               # of other sizes
    files,seen = get_images(tmp_path),set(path_keys)
    fixmatch = fixmatch_learner(dls, files, 'test_efficientnet', pretrained=False)
    assert fixmatch.fix_match.pool==files and set(path_keys)==seen
    assert list(map(str, distilled(dls, files, tmp_path).distill.pool))==[*map(str, files), *map(str, image_items(dls))]
    assert distilled(dls, files, tmp_path, labeled_too=False).distill.pool==files

def test_an_opener_of_ones_own_does_not_hide_an_image(folder):
    def own(p): return PILImage(Image.open(p).rotate(90))
    dls = Datasets(get_images(folder), [[own],[parent_label,Categorize]],
                   splits=[range(0,24,2),range(1,24,2)]).dataloaders(bs=4, num_workers=0, after_item=ToTensor, device='cpu')
    with pytest.warns(UserWarning, match='2 of the 12 validation'): pool = pool_images(dls, get_images(folder)[:4])
    assert images_in(image_items(dls), pool)==[True,True]+[False]*10

def test_part_of_the_labelled_images_is_in_the_pool(folder, tmp_path):
    dls = dls_and(folder)
    few = image_items(dls)
    learn = distilled(dls, few[:5], tmp_path)
    assert list(learn.distill.pool)==[*few[:5], *few[5:]]

def test_unreadable_images_of_the_pool_can_be_left_out(folder, tmp_path):
    dls = dls_and(folder)
    for i,o in enumerate(images(4, 40)): Image.fromarray(o).save(tmp_path/f'{i}.png')
    good = get_images(tmp_path)
    (tmp_path/'bad.png').write_bytes(b'no image')
    (tmp_path/'cut.png').write_bytes(good[0].read_bytes()[:300])
    os.mkfifo(tmp_path/'pipe.png')
    pool = get_images(tmp_path)
    assert len(pool)==7
    for f in (lambda **k: distilled(dls, pool, tmp_path, labeled_too=False, **k).distill,
              lambda **k: fixmatch_learner(dls, pool, 'test_efficientnet', pretrained=False, **k).fix_match):
        with pytest.warns(UserWarning, match="`unlabeled`: 3 of 7 images cannot be read and are left out .first: .*bad.png"):
            assert f(on_error='skip').pool==good
        with pytest.raises(ValueError, match='`on_error`'): f(on_error='ignore')
    with pytest.raises(ValueError, match='cannot read image .*(bad|cut|pipe).png'): distilled(dls, pool, tmp_path)
    with pytest.raises(ValueError, match='none of its 1 images'): distilled(dls, [tmp_path/'bad.png'], tmp_path, on_error='skip')

# Weights, and other loaders

def weighted(p, **kw):
    files = get_image_files(p).sorted()
    return DataBlock((ImageBlock,CategoryBlock), get_items=lambda p: files, get_y=parent_label,
                     splitter=lambda o: (list(range(0,24,2)),list(range(1,24,2)))).weighted_dataloaders(p,
            np.arange(1, 25.), bs=4, num_workers=0)

def weight_of(path): return dict(zip(get_image_files(path).sorted().map(str), np.arange(1, 25.)))

def shares(dl, n):
    with_n = type(dl)(dl.dataset, wgts=dl.wgts, n=n, bs=4, shuffle=True, num_workers=0) if type(dl) is RepeatDL else None
    return np.bincount(with_n.get_idxs(), minlength=len(dl.dataset))/n

def test_weights_follow_their_images(folder):
    dls,w = weighted(folder),weight_of(folder)
    rep = repeat_dls(dls, 50)
    few,pool = few_label_dls(dls, n=2)
    few_rep,rep_few = repeat_dls(few, 30),few_label_dls(rep, n=2)[0]
    for d in (rep, few, few_rep, rep_few, repeat_dls(rep_few, 40), repeat_dls(rep, 20)):
        want = np.array([w[str(o)] for o in image_items(d)])
        np.testing.assert_allclose(d.train.wgts, want/want.sum())
        assert len(d.valid.get_idxs())==12 and d.valid.get_idxs()==list(range(12))
    assert isinstance(few.train, WeightedDL)
    for d in (rep, few_rep): assert np.abs(shares(d.train, 20000)-d.train.wgts).max() < .015
    assert len(rep.train.get_idxs())==50 and rep.train.new(shuffle=False, drop_last=False).get_idxs()==list(range(12))
    learn = transfer_learner(dls, 'test_efficientnet', pretrained=False)
    np.testing.assert_allclose(learn.dls.train.wgts, dls.train.wgts)
    again = pickle.loads(pickle.dumps(rep.train))
    np.testing.assert_allclose(again.wgts, rep.train.wgts)

def test_weights_of_nil_are_refused(folder):
    dls = weighted(folder)
    dls.train.wgts = np.eye(12)[11]
    with pytest.raises(ValueError, match='weight of 0'):
        few_label_dls(dls, n=1, seed=next(s for s in range(99) if 11 not in few_labels(item_labels(dls), n=1, seed=s)[0]))

def test_a_partial_loader_keeps_its_share(folder):
    dls = Datasets(get_image_files(folder).sorted(), [[PILImage.create],[parent_label,Categorize]],
                   splits=[range(0,24,2),range(1,24,2)]).partial_dataloaders(partial_n=6, bs=3, num_workers=0,
            after_item=ToTensor, device='cpu')
    few,_ = few_label_dls(dls, n=3)
    assert few.train.partial_n==6 and len(few.train)==2
    idxs = transfer_learner(dls, 'test_efficientnet', pretrained=False).dls.train.get_idxs()
    assert len(idxs)==6==len(set(idxs)) and len(repeat_dls(dls, 30).train.get_idxs())==30

class Odd(TfmdDL):
    def __init__(self, dataset=None, odd=None, **kwargs):
        self.odd = odd
        super().__init__(dataset, **kwargs)

class Fair(Odd):
    def new(self, dataset=None, cls=None, **kwargs): return super().new(dataset, cls, **{'odd': self.odd, **kwargs})

def test_other_loaders_are_carried_along_or_refused_by_name(folder):
    def dls(cls): return Datasets(get_image_files(folder).sorted(), [[PILImage.create],[parent_label,Categorize]],
        splits=[range(0,24,2),range(1,24,2)]).dataloaders(dl_type=cls, odd=3, bs=3, num_workers=0, after_item=ToTensor, device='cpu')
    for f in (lambda d: repeat_dls(d, 8), lambda d: few_label_dls(d, n=1)):
        with pytest.raises(TypeError, match='`dls`: .*Odd.*fastai\'s own loader'): f(dls(Odd))
    few = few_label_dls(dls(Fair), n=1)[0]
    assert type(few.train) is Fair and few.train.odd==3==few.valid.odd
    with pytest.raises(TypeError, match='`dls`: .*Fair.*weighted_dataloaders'): repeat_dls(dls(Fair), 8)

def test_draws_by_weight(folder):
    ds = Datasets(get_images(folder)[:9], [[OpenImage()],[noop,Categorize()]], splits=[range(9),[0]])
    heavy = ds.weighted_dataloaders([8]+[1]*8, bs=3, num_workers=0, device='cpu', after_item=ToTensor())
    drawn = np.bincount(repeat_dls(heavy, 8000).train.get_idxs())/8000
    np.testing.assert_allclose(drawn, [.5]+[1/16]*8, atol=.03)

def test_each_process_gets_whole_batches(monkeypatch):
    few,_ = few_label_dls(image_dls(images(30), np.arange(30)%3), n=3)
    monkeypatch.setenv('WORLD_SIZE', '4')
    assert len(repeat_dls(few, 100, bs=9).train)==12                           # 3 for each of four
    assert len(repeat_dls(few, 9, bs=9).train)==4
