"What the data notebook cannot hold well: every way fastai has to build DataLoaders, bad input, pickles and fresh processes"
import io, os, pickle, subprocess, sys, warnings
from collections import Counter
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn, Tensor
from PIL import Image
from fastai.callback.data import PartialDL, WeightedDL
from fastai.vision.all import (Categorize, CategoryBlock, ColReader, ColSplitter, CrossEntropyLossFlat, DataBlock, Datasets, Flatten, ImageBlock,
    ImageDataLoaders, IntToFloatTensor, L, Learner, MultiCategorize, MultiCategoryBlock, Normalize, OneHotEncode, PILImage, PILImageBW, RandomSplitter, TensorBase,
    Resize, TensorImage, TfmdDL, TfmdLists, ToTensor, accuracy, concat, get_image_files, image2tensor, imagenet_stats, noop, parent_label, set_seed)
from distill_nb.data import *
from distill_nb.data import OpenImage, RepeatDL
from distill_nb.images import image_key, path_keys
from distill_nb.learner import distill_learner, fixmatch_learner, transfer_learner
from distill_nb.sources import Source, Zoo

rng = np.random.default_rng(0)
classes = ['dot','line','square']

def images(n, size=12): return rng.integers(0, 255, (n,size,size,3), dtype=np.uint8)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "24 PNGs, 8 per class: class/class_i.png"
    path = tmp_path_factory.mktemp('shapes')
    for c in classes:
        (path/c).mkdir()
        for i,o in enumerate(images(8)): Image.fromarray(o).save(path/c/f'{c}_{i}.png')
    return path

def _label(fn): return fn.split('_')[0]
def _df(path):
    fns = get_image_files(path).sorted()
    return pd.DataFrame(dict(fn=[str(o.relative_to(path)) for o in fns], label=[o.parent.name for o in fns], valid=[i%4==3 for i in range(24)]))

builders = dict(
    folder    = lambda p: ImageDataLoaders.from_folder(p, valid_pct=.25, seed=1, bs=4, num_workers=0),
    name_func = lambda p: ImageDataLoaders.from_name_func(p, get_image_files(p), _label, seed=1, bs=4, num_workers=0),
    df        = lambda p: ImageDataLoaders.from_df(_df(p), p, valid_col='valid', bs=4, num_workers=0),
    lists     = lambda p: ImageDataLoaders.from_lists(p, get_image_files(p), [o.parent.name for o in get_image_files(p)], seed=1, bs=4, num_workers=0),
    getters   = lambda p: DataBlock((ImageBlock,CategoryBlock), getters=[ColReader('fn', pref=f'{p}/'),ColReader('label')],
                                    splitter=ColSplitter('valid')).dataloaders(_df(p), bs=4, num_workers=0),
    bw        = lambda p: ImageDataLoaders.from_folder(p, valid_pct=.25, seed=1, bs=4, num_workers=0, img_cls=PILImageBW),
    datasets  = lambda p: Datasets(get_image_files(p), [[PILImage.create],[parent_label,Categorize]], splits=RandomSplitter(seed=1)(range(24))
                                  ).dataloaders(bs=4, num_workers=0, after_item=ToTensor, after_batch=IntToFloatTensor),
    image_dls = lambda p: image_dls(p, [o.parent.name for o in get_image_files(p).sorted()], bs=4),
)

@pytest.fixture(params=builders)
def any_dls(request, folder): return builders[request.param](folder)

def test_any_dls(any_dls):
    dls = any_dls
    n = len(dls.train_ds)
    items,labels = image_items(dls),item_labels(dls)
    assert len(items)==len(labels)==n and all(isinstance(o, (str,Path)) for o in items)
    assert [Path(o).parent.name for o in items]==[dls.vocab[i] for i in labels]
    assert list(map(str, get_images(dls)))==list(map(str, items))
    few,pool = few_label_dls(dls, n=2, bs=64)
    assert len(few.train_ds)==6==few.train.bs and len(few.train)==1 and len(pool)==n-6 and len(dls.train_ds)==n
    assert Counter(item_labels(few).tolist())=={0:2,1:2,2:2}
    assert set(map(str, image_items(few)))|set(map(str, pool))==set(map(str, items))
    assert list(map(str, image_items(few.valid_ds)))==list(map(str, image_items(dls.valid_ds)))
    assert few.vocab==dls.vocab and few.c==3 and few.path==dls.path and few.device==dls.device and type(few) is type(dls)
    x,y = few.one_batch()
    udl = unlabeled_dl(few, pool, bs=4)
    u,i = udl.one_batch()
    assert type(u) is type(x) and u.shape[1:]==x.shape[1:] and type(i) is Tensor and i.dtype==torch.int64 and i.shape==(4,)
    seen = torch.cat([b[1] for b in udl])
    assert len(seen)==len(pool)//4*4==len(set(seen.tolist())) and len(udl)==len(pool)//4
    torch.testing.assert_close(u[0].cpu(), few.test_dl([pool[i[0]]]).one_batch()[0][0].cpu())
    rep = repeat_dls(few, 20, bs=10)
    assert len(rep.train)==2 and sum(len(y) for _,y in rep.train)==20
    for d in few,rep:
        d.show_batch(max_n=2); plt.close('all')
        assert d.new_empty().train_ds.vocab==dls.vocab and len(d.test_dl(list(pool[:3])))==1
        net = nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(x.shape[1],3))
        learn = Learner(d, net, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
        w = net[2].weight.detach().clone()
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
        assert not torch.equal(w, net[2].weight.detach())

def _pil(o): return PILImage(Image.fromarray(o))

def test_pipeline_that_opens_nothing():
    "Where no transform is known to open the image, items come out decoded"
    x,y = images(20),np.arange(20)%2
    dls = Datasets(range(20), [[lambda i: _pil(x[i])],[lambda i: y[i],Categorize]], splits=[range(16),range(16,20)]
                  ).dataloaders(bs=4, num_workers=0, after_item=ToTensor, after_batch=IntToFloatTensor)
    few,pool = few_label_dls(dls, n=3)
    assert len(pool)==10 and all(isinstance(o, PILImage) for o in pool) and unlabeled_dl(few, pool, bs=10).one_batch()[0].shape==(10,3,12,12)

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
    dls.train.after_batch.fs.clear(); dls.train.after_batch.add([IntToFloatTensor()])
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

def test_export(tmp_path):
    dls,pool = digits_dls()
    rep = repeat_dls(dls, 100)
    rep.path = tmp_path
    learn = Learner(rep, nn.Sequential(nn.AdaptiveAvgPool2d(4), Flatten(), nn.Linear(48,10)), loss_func=CrossEntropyLossFlat())
    learn.export('m.pkl')
    assert (tmp_path/'m.pkl').stat().st_size<100_000
    Image.fromarray(pool[0]).save(tmp_path/'a.png')
    code = (f"from fastai.vision.all import *\nl = load_learner(r'{tmp_path/'m.pkl'}')\n"
            f"with l.no_bar(): print(l.predict(r'{tmp_path/'a.png'}')[2].tolist())")
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    with learn.no_bar(): want = learn.predict(pool[0])[2]
    np.testing.assert_allclose(eval(res.stdout), want, atol=1e-6)

@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0,4), min_size=2, max_size=80).filter(lambda o: len(set(o))>1), st.integers(0,99), st.booleans(), st.data())
def test_few_labels_properties(labels, seed, by_n, data):
    counts = Counter(labels)
    kw = dict(n=data.draw(st.integers(1, min(counts.values())))) if by_n else dict(frac=data.draw(st.floats(.01,1)))
    few,rest = few_labels(labels, seed=seed, **kw)
    assert few.dtype==rest.dtype==np.int64 and sorted([*few,*rest])==list(range(len(labels)))
    assert list(few)==sorted(few) and list(rest)==sorted(rest)
    got = Counter(labels[i] for i in few)
    assert all(got[c]==(kw['n'] if by_n else max(1, round(kw['frac']*k))) for c,k in counts.items())
    names = [f'c{o}' for o in labels]
    for a,b in zip((few,rest), few_labels(names, seed=seed, **kw)): np.testing.assert_array_equal(a, b)

@pytest.mark.parametrize('args,match', [
    (dict(labels=[0,0,0], n=1), 'at least 2'), (dict(labels=[], n=1), 'at least 2|labels must'), (dict(labels=[0,1]), 'exactly one'),
    (dict(labels=[0,1], n=1, frac=.5), 'exactly one'), (dict(labels=[0,1], n=0), '`n` must'), (dict(labels=[0,1], n=1.5), '`n` must'),
    (dict(labels=[0,1], frac=0), '`frac` must'), (dict(labels=[0,1], frac=1.1), '`frac` must'), (dict(labels=[0,1], frac=float('nan')), '`frac` must'),
    (dict(labels=[0,1,1,1], n=2, classes=['cat','dog']), r'cat \(1\)'), (dict(labels=[0,2,2], n=1, classes=['cat','dog','eel']), 'class dog'),
    (dict(labels=[0,1,2], n=1, classes=['cat','dog']), 'label 2'), (dict(labels=[0,1], n=1, classes=['cat','cat']), 'twice'), (dict(labels=['a','b',None], n=1), 'without gaps'),
    (dict(labels=[0.,1.], n=1), 'labels must'), (dict(labels=[[0,1]], n=1), 'labels must')])
def test_few_labels_rejects(args, match):
    with pytest.raises(ValueError, match=match): few_labels(**args)

def test_get_images(folder, tmp_path):
    files = get_images(folder)
    assert len(files)==24 and files==files.sorted() and get_images(str(folder))==files and get_images(list(files))==files
    x = images(5)
    for o in x,torch.from_numpy(x),list(x): np.testing.assert_array_equal(np.stack([np.asarray(open_image(i)) for i in get_images(o)]), x)
    assert np.asarray(open_image(get_images(x[...,0])[0])).shape==(12,12,3)
    full = Datasets(files, [[PILImage.create],[parent_label,Categorize]], splits=[range(18),range(18,24)])
    assert get_images(full)==files[:18]==get_images(full.train) and get_images(full.valid)==files[18:]
    for bad in tmp_path,[],x[:0]:
        with pytest.raises(ValueError, match='no image'): get_images(bad)
    with pytest.raises(ValueError, match='not a folder'): get_images(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='uint8'): get_images(x/255)
    with pytest.raises(ValueError, match='uint8'): get_images(x.transpose(0,3,1,2))
    assert get_images(np.array(list(map(str, files))))==list(map(str, files))==get_images(pd.Series(files).astype(str))
    for bad in [3],b'x',{},[None]:
        with pytest.raises(TypeError): get_images(bad)
    with pytest.raises(TypeError, match='Datasets'): image_items([1,2])
    with pytest.raises(TypeError, match='one class per image'):
        item_labels(Datasets([1,2], [[noop],[lambda o: [str(o)], MultiCategorize(), OneHotEncode()]]).train)

def test_open_image(tmp_path):
    x = images(1)[0]
    im = Image.fromarray(x)
    png = io.BytesIO(); im.save(png, 'png')
    (tmp_path/'a.png').write_bytes(png.getvalue())
    lazy = Image.open(tmp_path/'a.png')
    for o in x,torch.from_numpy(x),im,lazy,png.getvalue(),tmp_path/'a.png',str(tmp_path/'a.png'),TensorImage(torch.from_numpy(x).permute(2,0,1)):
        res = open_image(o)
        assert isinstance(res, PILImage) and res.mode=='RGB'
        np.testing.assert_array_equal(np.asarray(res), x)
    assert type(im) is Image.Image and not isinstance(lazy, PILImage)
    pal = im.convert('P'); pal.info['transparency'] = bytes(range(256))
    pal.save(tmp_path/'p.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert open_image(tmp_path/'p.png').mode=='RGB'
    Image.fromarray(np.array([[0,256,25600,65535]], np.uint16)).save(tmp_path/'deep.png')
    assert np.asarray(open_image(tmp_path/'deep.png'))[0,:,0].tolist()==[0,1,100,255]
    with pytest.raises(ValueError, match='cannot read'): open_image(Image.fromarray(np.zeros((3,3), np.float32)))
    broken = tmp_path/'broken.jpg'; broken.write_bytes(png.getvalue()[:60])
    for bad,name in (broken,'broken.jpg'),(tmp_path/'gone.png','gone.png'),(b'GIF89a??','8 bytes'),(np.zeros((3,3)),'float64'),(np.zeros((2,3,3,3),np.uint8),'ndarray'):
        with pytest.raises(ValueError, match=f'cannot read image.*{name}.*mend'): open_image(bad)
    assert check_images([broken, tmp_path/'a.png', b'']) == [broken, b'']
    with pytest.raises(ValueError, match='broken.jpg'): image_dls([broken]*4, [0,1,0,1])
    dls,_ = digits_dls()
    with pytest.raises(ValueError, match='broken.jpg'): unlabeled_dl(dls, [broken]*4).one_batch()

def test_image_dls():
    x,y = images(50),np.arange(50)%5
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dls = image_dls(x, y, vocab=list('abcde'), size=8, bs=64)
        b = dls.one_batch()
    assert b[0].shape==(40,3,8,8) and len(dls.train)==1 and Counter(item_labels(dls.valid_ds).tolist())=={i:2 for i in range(5)}
    label_of = {o.tobytes():'abcde'[i] for o,i in zip(x,y)}
    assert [dls.vocab[i] for i in item_labels(dls)]==[label_of[o.tobytes()] for o in image_items(dls)]
    assert image_dls(x, y).vocab==[0,1,2,3,4]
    lone = image_dls(x[:6], list('aaaaab'))
    assert Counter(item_labels(lone).tolist())=={0:4,1:1} and lone.vocab==['a','b']
    assert len(image_dls(x[:3], list('aab')).valid_ds)==1
    for args,match in (((x,y[:9]),'labels has shape'), ((x[:3],[0]*3),'at least 2'), ((x[:2],[0,1]),'single image'), ((x,y,x),'valid_labels is missing'),
                       ((x,y,x[:2],[0,7]),'validation class 7'), ((x,y,x[:0],[]),'no image')):
        with pytest.raises(ValueError, match=match): image_dls(*args)
    with pytest.raises(ValueError, match='class f'): image_dls(x, y, vocab=list('abcdef'))
    with pytest.raises(ValueError, match='label 4'): image_dls(x, y, vocab=list('abcd'))
    for p in 0,1:
        with pytest.raises(ValueError, match='valid_pct'): image_dls(x, y, valid_pct=p)

def _pack(path, n=30, **over):
    js = []
    for o in images(n):
        b = io.BytesIO(); Image.fromarray(o).save(b, 'jpeg'); js.append(b.getvalue())
    d = dict(jpeg=np.frombuffer(b''.join(js), np.uint8), offsets=np.cumsum([0,*map(len,js)]), labels=(np.arange(n)%3).astype(np.int16),
             is_test=np.arange(n)>=21, classes=np.array(classes))
    np.savez(path, **{k:v for k,v in {**d,**over}.items() if v is not None})
    return js

def test_pack(tmp_path):
    path = tmp_path/'shapes.npz'
    js = _pack(path)
    pack = load_pack(path)
    assert list(pack.items)==js and len(pack)==30 and pack.labels.dtype==np.int64 and '21 training and 9 test' in repr(pack)
    assert list(pack.test[0])==js[21:] and pack.train[1].tolist()==[i%3 for i in range(21)] and get_images(pack)==js[:21]
    dls,pool = pack_dls(path, n=2, size=16)
    assert dls.vocab==classes and len(dls.train_ds)==6 and len(pool)==15 and len(dls.valid_ds)==9 and dls.one_batch()[0].shape==(6,3,16,16)
    assert len(unlabeled_dl(dls, pool))==2 and set(pool)<set(js[:21])
    full,none = pack_dls(pack, size=16)
    assert len(full.train_ds)==21 and len(none)==0
    with pytest.raises(ValueError, match='no image'): unlabeled_dl(full, none)
    for over in dict(classes=None),dict(offsets=np.arange(5)),dict(labels=np.array(['x',None])):
        _pack(tmp_path/'bad.npz', **over)
        with pytest.raises(ValueError, match='bad.npz'): load_pack(tmp_path/'bad.npz')
    (tmp_path/'text.npz').write_text('hello')
    with pytest.raises(ValueError, match='text.npz'): load_pack(tmp_path/'text.npz')
    with pytest.raises(FileNotFoundError): load_pack(tmp_path/'gone.npz')

def test_digits():
    a,pool = digits_dls()
    b,_ = digits_dls(seed=1)
    assert len(a.train_ds)==50 and len(a.valid_ds)==599 and len(pool)==1148 and pool[0].shape==(32,32,3) and pool[0].dtype==np.uint8
    def _set(items): return {o.tobytes() for o in items}
    assert _set(image_items(a.valid_ds))==_set(image_items(b.valid_ds)) and _set(image_items(a))!=_set(image_items(b))
    assert Counter(item_labels(a).tolist())=={i:5 for i in range(10)}
    with pytest.raises(ValueError, match='fewer images'): digits_dls(n=150)

@pytest.mark.data
def test_real_packs():
    path = Path(os.environ.get('DISTILL_NB_DATA', Path(__file__).parents[2]/'shared'/'data'))/'targets'
    if not path.exists(): pytest.skip('no ../shared/data and no $DISTILL_NB_DATA: real packs are not tested')
    for name in 'birds','pets':
        dls,pool = pack_dls(path/f'{name}.npz', n=3)
        assert len(item_labels(dls))==3*dls.c and unlabeled_dl(dls, pool).one_batch()[0].shape==(32,3,128,128)

# What is a pool

class Pictures(torch.utils.data.Dataset):
    def __init__(self, make, n=5): self.make,self.n = make,n
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i >= self.n: raise IndexError(i)
        return self.make(i)

x5 = images(5)
def some_files(p): return get_image_files(p).sorted()[:5]
def image_folder(p):
    from torchvision.datasets import ImageFolder
    return ImageFolder(p)
pools = dict( # how it comes, and how many images it has
    test_dl       = (lambda d, p: d.test_dl(some_files(p)), 5),
    test_dl_label = (lambda d, p: d.test_dl(some_files(p), with_labels=True), 5),
    one_block_dls = (lambda d, p: DataBlock(ImageBlock, get_items=get_image_files, splitter=RandomSplitter(.25, seed=0)).dataloaders(p, bs=2, num_workers=0), 18),
    one_block_set = (lambda d, p: DataBlock(ImageBlock, get_items=get_image_files, splitter=RandomSplitter(.25, seed=0)).datasets(p), 18),
    no_transform  = (lambda d, p: Datasets(some_files(p)), 5),
    tfmd_lists    = (lambda d, p: TfmdLists(some_files(p), PILImage.create), 5),
    tfmd_split    = (lambda d, p: TfmdLists(some_files(p), PILImage.create, splits=[[0,1,2],[3,4]]), 3),
    tfmd_dl       = (lambda d, p: TfmdDL(TfmdLists(some_files(p), PILImage.create), bs=2, num_workers=0), 5),
    valid_dl      = (lambda d, p: d.valid, 6),
    frame         = (lambda d, p: pd.DataFrame(dict(x=some_files(p))), 5),
    frame_text    = (lambda d, p: pd.DataFrame(dict(label=range(5), FName=list(map(str, some_files(p))))), 5),
    series        = (lambda d, p: pd.Series(list(map(str, some_files(p)))), 5),
    pil           = (lambda d, p: Pictures(lambda i: Image.fromarray(x5[i])), 5),
    arrays        = (lambda d, p: Pictures(lambda i: x5[i]), 5),
    labelled      = (lambda d, p: Pictures(lambda i: (Image.fromarray(x5[i]), i%2)), 5),
    paths         = (lambda d, p: Pictures(lambda i: some_files(p)[i]), 5),
    subset        = (lambda d, p: torch.utils.data.Subset(Pictures(lambda i: (x5[i], 0)), [0,3]), 2),
    concat        = (lambda d, p: torch.utils.data.ConcatDataset([Pictures(lambda i: (x5[i], 0)), torch.utils.data.Subset(image_folder(p), [1,2])]), 7),
    torch_dl      = (lambda d, p: torch.utils.data.DataLoader(Pictures(lambda i: (Image.fromarray(x5[i]), 0)), batch_size=2), 5),
    torchvision   = (lambda d, p: image_folder(p), 24),
    fastai_subset = (lambda d, p: torch.utils.data.Subset(d.train_ds, [0,1]), 2))

@pytest.mark.parametrize('how', pools)
def test_what_fastai_and_torch_call_unlabelled_is_a_pool(how, folder):
    dls = builders['folder'](folder)
    make,n = pools[how]
    pool = get_images(make(dls, folder))
    assert len(pool)==n and unlabeled_dl(dls, make(dls, folder), bs=2).one_batch()[0].shape==(2,3,12,12)
    if how in ('test_dl','frame','paths','tfmd_dl'): assert list(map(str, pool))==list(map(str, some_files(folder)))
    if how in ('pil','arrays','labelled','torch_dl'): assert all(np.array_equal(np.asarray(open_image(o)), x) for o,x in zip(pool, x5))

bad_pools = dict(
    columns  = (lambda p: pd.DataFrame(dict(a=some_files(p), b=1)), 'The table has a, b, none of which'),
    two      = (lambda p: pd.DataFrame(dict(file=some_files(p), image=1)), "The table has file, image, several .* df\\['file'\\]"),
    gap      = (lambda p: pd.DataFrame(dict(file=[*some_files(p), None])), 'gaps in rows 5'),
    numbers  = (lambda p: pd.DataFrame(dict(file=[1,2])), 'item 0 is a int'),
    tensors  = (lambda p: Pictures(lambda i: (torch.rand(3,8,8), 0)), 'must be uint8, got torch.float32'),
    floats   = (lambda p: list(x5/255), 'must be uint8, got float64'),
    empty    = (lambda p: Pictures(None, 0), 'no image in Pictures'),
    labels   = (lambda p: TfmdLists([1,2,3], noop), 'item 0 is a int'),
    rows     = (lambda p: [dict(image=x5[0])], 'item 0 is a dict'))

@pytest.mark.parametrize('how', bad_pools)
def test_an_error_about_the_pool_names_the_argument(how, folder):
    dls = builders['folder'](folder)
    make,match = bad_pools[how]
    for f in (lambda o: distill_learner(dls, o, Zoo.embedded(names=['digits']), 'test_efficientnet', pretrained=False, store=False, progress=False), lambda o: fixmatch_learner(dls, o, 'test_efficientnet', pretrained=False)):
        with pytest.raises((ValueError,TypeError), match=f'`unlabeled`: .*{match}'): f(make(folder))

# What is in a pool

def dls_and(path, **kw): return ImageDataLoaders.from_folder(path, valid_pct=.25, seed=1, bs=4, num_workers=0, **kw)
def source(): return Source.from_module(nn.Sequential(nn.Conv2d(3,4,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,3)), .5, .5, 12, name='s')
def distilled(dls, pool, tmp_path, **kw): return distill_learner(dls, pool, source(), 'test_efficientnet', pretrained=False, pseudo='source', store=tmp_path/'store', progress=False, **kw)

@pytest.mark.parametrize('form', ['files','bytes','copies','arrays'])
def test_a_pool_that_has_the_labelled_and_the_validation_images(form, folder, tmp_path):
    dls,files = dls_and(folder),get_images(folder)
    if form=='copies':
        for f in files: (tmp_path/'pool').mkdir(exist_ok=True); (tmp_path/'pool'/f'_{f.name}').write_bytes(f.read_bytes())
        pool = tmp_path/'pool'
    elif form=='arrays':
        x = np.stack([np.asarray(open_image(o)) for o in files])
        y = [o.parent.name for o in files]
        dls,pool = image_dls(x, y, bs=4, valid_pct=.25),x
    else: pool = files if form=='files' else [o.read_bytes() for o in files]
    with pytest.warns(UserWarning, match='`unlabeled`: 6 of the 6 validation images are in the pool') as w: learn = distilled(dls, pool, tmp_path)
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
    dls = Datasets(get_images(folder), [[own],[parent_label,Categorize]], splits=[range(0,24,2),range(1,24,2)]).dataloaders(bs=4, num_workers=0, after_item=ToTensor, device='cpu')
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
    (tmp_path/'bad.png').write_bytes(b'no image'); (tmp_path/'cut.png').write_bytes(good[0].read_bytes()[:300]); os.mkfifo(tmp_path/'pipe.png')
    pool = get_images(tmp_path)
    assert len(pool)==7
    for f in (lambda **k: distilled(dls, pool, tmp_path, labeled_too=False, **k).distill, lambda **k: fixmatch_learner(dls, pool, 'test_efficientnet', pretrained=False, **k).fix_match):
        with pytest.warns(UserWarning, match="`unlabeled`: 3 of 7 images cannot be read and are left out .first: .*bad.png"): assert f(on_error='skip').pool==good
        with pytest.raises(ValueError, match='`on_error`'): f(on_error='ignore')
    with pytest.raises(ValueError, match='cannot read image .*(bad|cut|pipe).png'): distilled(dls, pool, tmp_path)
    with pytest.raises(ValueError, match='none of its 1 images'): distilled(dls, [tmp_path/'bad.png'], tmp_path, on_error='skip')

# Labels that are missing, and classes that only validation has

def holey(p):
    df = _df(p)
    df.loc[5,'label'] = np.nan
    return df
def odd_one(p):
    df = _df(p)
    df.loc[3,'label'] = 'blob'                                                                      # a row for validation
    return df
def gets(p): return dict(get_x=ColReader('fn', pref=f'{p}/'), splitter=ColSplitter('valid'))
odd = dict(
    from_df  = lambda p, df: ImageDataLoaders.from_df(df, p, valid_col='valid', bs=4, num_workers=0),
    block    = lambda p, df: DataBlock((ImageBlock,CategoryBlock), get_y=ColReader('label'), **gets(p)).dataloaders(df, bs=4, num_workers=0),
    datasets = lambda p, df: Datasets(df, [[ColReader('fn', pref=f'{p}/'), PILImage.create],[ColReader('label'), Categorize]], splits=ColSplitter('valid')(df)).dataloaders(bs=4, num_workers=0, after_item=ToTensor),
    multi    = lambda p, df: DataBlock((ImageBlock,MultiCategoryBlock), get_y=lambda r: [r['label']], **gets(p)).dataloaders(df, bs=4, num_workers=0))

@pytest.mark.parametrize('how', odd)
@pytest.mark.parametrize('frame,match', [(holey, 'training images have no label .row 5.'), (odd_one, 'validation class blob has no training image .row 3.')], ids=['hole','class'])
def test_labels_are_looked_at_when_learners_are_made(how, frame, match, folder):
    dls = odd[how](folder, frame(folder))
    calls = [lambda: repeat_dls(dls, 8), lambda: transfer_learner(dls, 'test_efficientnet', pretrained=False), lambda: fixmatch_learner(dls, images(4), 'test_efficientnet', pretrained=False),
             lambda: distill_learner(dls, images(4), None, 'test_efficientnet'), lambda: few_label_dls(dls, n=1)]
    for f in calls[:4] if how=='multi' else calls:
        with pytest.raises(ValueError, match=match): f()

def test_a_class_of_the_valid_folder_alone(folder, tmp_path):
    for part,cs in dict(train='ab', valid='abc').items():
        for c in cs:
            (tmp_path/part/c).mkdir(parents=True)
            for i in range(2): Image.fromarray(images(1)[0]).save(tmp_path/part/c/f'{i}.png')
    with pytest.raises(ValueError, match=r'validation class c has no training image \(.*valid.c.0.png'): transfer_learner(ImageDataLoaders.from_folder(tmp_path, bs=2, num_workers=0), 'test_efficientnet', pretrained=False)

@pytest.mark.parametrize('labels', [['a',None,'b','a'], ['a',float('nan'),'b','a'], np.array([0,np.nan,1,0]), pd.Series(['a',np.nan,'b','a']), pd.Series([0,pd.NA,1,0], dtype='Int64')], ids=lambda o: type(o).__name__)
def test_a_missing_label_is_named(labels):
    for f in (lambda: few_labels(labels, n=1), lambda: image_dls(images(4), labels), lambda: image_dls(images(4), list('aabb'), images(4), labels)):
        with pytest.raises(ValueError, match=r'labels: 1 of 4 images have none \(rows 1\)'): f()

# Weights, and other loaders

def weighted(p, **kw):
    files = get_image_files(p).sorted()
    return DataBlock((ImageBlock,CategoryBlock), get_items=lambda p: files, get_y=parent_label, splitter=lambda o: (list(range(0,24,2)),list(range(1,24,2)))).weighted_dataloaders(p, np.arange(1, 25.), bs=4, num_workers=0)

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
    with pytest.raises(ValueError, match='weight of 0'): few_label_dls(dls, n=1, seed=next(s for s in range(99) if 11 not in few_labels(item_labels(dls), n=1, seed=s)[0]))

def test_a_partial_loader_keeps_its_share(folder):
    dls = Datasets(get_image_files(folder).sorted(), [[PILImage.create],[parent_label,Categorize]], splits=[range(0,24,2),range(1,24,2)]).partial_dataloaders(partial_n=6, bs=3, num_workers=0, after_item=ToTensor, device='cpu')
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
