"What the data notebook cannot hold well: every way fastai has to build DataLoaders, bad input, pickles and fresh processes"
import copy, io, pickle, subprocess, sys, warnings
from collections import Counter
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn, Tensor
from PIL import Image
from fastai.vision.all import (
    Categorize, CategoryBlock, ColReader, ColSplitter, CrossEntropyLossFlat, DataBlock, Datasets, Flatten, ImageBlock,
    ImageDataLoaders, IntToFloatTensor, L, Learner, MultiCategorize, MultiCategoryBlock, OneHotEncode, PILImage, PILImageBW,
    RandomSplitter, TensorImage, TfmdDL, TfmdLists, ToTensor, accuracy, get_image_files, noop, parent_label)
from distill_nb import items
from distill_nb.items import Images, get_images, image_items, item_labels
from distill_nb.data import few_labels, image_dls
from distill_nb.identity import identity
from distill_nb.images import ImageView, check_images, image_key, open_image
from distill_nb.learner import distill_learner, fixmatch_learner, transfer_learner
from distill_nb.packs import digits_dls
from distill_nb.pool import few_label_dls, repeat_dls, unlabeled_dl
from distill_nb.zoo import Zoo

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
    return pd.DataFrame(dict(fn=[str(o.relative_to(path)) for o in fns], label=[o.parent.name for o in fns],
                             valid=[i%4==3 for i in range(24)]))

builders = dict(
    folder    = lambda p: ImageDataLoaders.from_folder(p, valid_pct=.25, seed=1, bs=4, num_workers=0),
    name_func = lambda p: ImageDataLoaders.from_name_func(p, get_image_files(p), _label, seed=1, bs=4, num_workers=0),
    df        = lambda p: ImageDataLoaders.from_df(_df(p), p, valid_col='valid', bs=4, num_workers=0),
    lists     = lambda p: ImageDataLoaders.from_lists(p, get_image_files(p),
                                                      [o.parent.name for o in get_image_files(p)], seed=1, bs=4, num_workers=0),
    getters   = lambda p: DataBlock((ImageBlock,CategoryBlock), getters=[ColReader('fn', pref=f'{p}/'),ColReader('label')],
                                    splitter=ColSplitter('valid')).dataloaders(_df(p), bs=4, num_workers=0),
    bw        = lambda p: ImageDataLoaders.from_folder(p, valid_pct=.25, seed=1, bs=4, num_workers=0, img_cls=PILImageBW),
    datasets  = lambda p: Datasets(get_image_files(p), [[PILImage.create],[parent_label,Categorize]],
                                   splits=RandomSplitter(seed=1)(range(24))
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
        d.show_batch(max_n=2)
        plt.close('all')
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
    assert len(pool)==10
    assert all(isinstance(o, PILImage) for o in pool) and unlabeled_dl(few, pool, bs=10).one_batch()[0].shape==(10,3,12,12)

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
    (dict(labels=[0,1], frac=0), '`frac` must'), (dict(labels=[0,1], frac=1.1), '`frac` must'),
    (dict(labels=[0,1], frac=float('nan')), '`frac` must'),
    (dict(labels=[0,1,1,1], n=2, classes=['cat','dog']), r'cat \(1\)'),
    (dict(labels=[0,2,2], n=1, classes=['cat','dog','eel']), 'class dog'),
    (dict(labels=[0,1,2], n=1, classes=['cat','dog']), 'label 2'),
    (dict(labels=[0,1], n=1, classes=['cat','cat']), 'twice'), (dict(labels=['a','b',None], n=1), 'without gaps'),
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
    with pytest.raises(ValueError, match='one class for each image'):
        item_labels(Datasets([1,2], [[noop],[lambda o: [str(o)], MultiCategorize(), OneHotEncode()]]).train)

def test_images_pass_the_door_once(monkeypatch):
    "An `Images` comes back as it is; each of its items is hashed once, in slices and sums as well"
    x,hashed = images(6),[]
    ims = get_images(x)
    monkeypatch.setattr(items, '_check_items', None)
    assert get_images(ims) is ims and type(ims) is Images
    monkeypatch.undo()
    monkeypatch.setattr(items, 'image_key', lambda o: hashed.append(o) or image_key(o))
    keys = ims.keys
    assert keys==ims.keys==[image_key(o) for o in x] and len(hashed)==6
    parts = ims[:2],ims[[2,4]],ims[[False,False,False,True,False,True]]
    assert all(type(o) is Images for o in parts) and [o.keys for o in parts]==[keys[:2],[keys[2],keys[4]],[keys[3],keys[5]]]
    assert (parts[1]+parts[0]).keys==[keys[2],keys[4],*keys[:2]] and len(hashed)==6
    assert len((parts[0]+[x[5]]).keys)==3 and len(hashed)==7
    assert type(ims.map(np.mean)) is L and type([x[0]]+ims) is L and len(ims[:0])==0
    with pytest.raises(TypeError, match='item 0 is a int'): ims+[3]
    with pytest.raises(ValueError, match='no image'): get_images(ims[:0])

def test_images_notice_a_file_that_changes(tmp_path):
    for i,o in enumerate(images(2)): Image.fromarray(o).save(tmp_path/f'{i}.png')
    ims = get_images(tmp_path)
    seen = ims+[ImageView(ims[0], 'hflip')]
    before = seen.keys
    Image.fromarray(images(1)[0]).save(ims[0])
    after = seen.keys
    assert [a==b for a,b in zip(before, after)]==[False,True,False]

def test_images_are_lists_to_all_others(folder):
    ims = get_images(folder)
    keys,known = ims.keys,identity(L(list(ims)))
    assert identity(ims)==known==identity(get_images(folder))
    for o in (pickle.loads(pickle.dumps(ims)), copy.deepcopy(ims)): assert type(o) is Images and o==ims and o.keys==keys
    assert len(pickle.dumps(get_images(images(50))[:1])) < 2000
    ds = Datasets(ims, [[PILImage.create],[parent_label,Categorize]], splits=[range(18),range(18,24)])
    dls = ds.dataloaders(bs=4, num_workers=0, after_item=ToTensor(), device='cpu')
    assert dls.one_batch()[0].shape==(4,3,12,12) and get_images(dls)==ims[:18] and len(dls.test_dl(ims).dataset)==24

def test_one_block_is_a_pool(folder):
    dls = DataBlock(ImageBlock, get_items=get_image_files).dataloaders(folder, num_workers=0)
    assert len(get_images(dls))==len(dls.train_ds)

def test_open_image(tmp_path):
    x = images(1)[0]
    im = Image.fromarray(x)
    png = io.BytesIO()
    im.save(png, "png")
    (tmp_path/'a.png').write_bytes(png.getvalue())
    lazy = Image.open(tmp_path/'a.png')
    for o in x,torch.from_numpy(x),im,lazy,png.getvalue(),tmp_path/'a.png',str(tmp_path/'a.png'),TensorImage(
            torch.from_numpy(x).permute(2,0,1)):
        res = open_image(o)
        assert isinstance(res, PILImage) and res.mode=='RGB'
        np.testing.assert_array_equal(np.asarray(res), x)
    assert type(im) is Image.Image and not isinstance(lazy, PILImage)
    pal = im.convert('P')
    pal.info['transparency'] = bytes(range(256))
    pal.save(tmp_path/'p.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert open_image(tmp_path/'p.png').mode=='RGB'
    Image.fromarray(np.array([[0,256,25600,65535]], np.uint16)).save(tmp_path/'deep.png')
    assert np.asarray(open_image(tmp_path/'deep.png'))[0,:,0].tolist()==[0,1,100,255]
    with pytest.raises(ValueError, match='cannot read'): open_image(Image.fromarray(np.zeros((3,3), np.float32)))
    broken = tmp_path/'broken.jpg'
    broken.write_bytes(png.getvalue()[:60])
    for bad,name in (broken,'broken.jpg'),(tmp_path/'gone.png','gone.png'),(b'GIF89a??','8 bytes'),(np.zeros((3,3)),
            'float64'),(np.zeros((2,3,3,3),np.uint8),'ndarray'):
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
    for args,match in (((x,y[:9]),'labels has shape'), ((x[:3],[0]*3),'at least 2'), ((x[:2],[0,1]),'single image'),
                       ((x,y,x),'valid_labels is missing'),
                       ((x,y,x[:2],[0,7]),'validation class 7'), ((x,y,x[:0],[]),'no image')):
        with pytest.raises(ValueError, match=match): image_dls(*args)
    with pytest.raises(ValueError, match='class f'): image_dls(x, y, vocab=list('abcdef'))
    with pytest.raises(ValueError, match='label 4'): image_dls(x, y, vocab=list('abcd'))
    for p in 0,1:
        with pytest.raises(ValueError, match='valid_pct'): image_dls(x, y, valid_pct=p)

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
    one_block_dls = (lambda d, p: DataBlock(ImageBlock, get_items=get_image_files,
                                            splitter=RandomSplitter(.25, seed=0)).dataloaders(p, bs=2, num_workers=0), 18),
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
    concat        = (lambda d, p: torch.utils.data.ConcatDataset([Pictures(lambda i: (x5[i], 0)),
        torch.utils.data.Subset(image_folder(p), [1,2])]), 7),
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
    numbers  = (lambda p: pd.DataFrame(dict(file=[1,2])), "2 of 2 files are not there, the first '1'"),
    tensors  = (lambda p: Pictures(lambda i: (torch.rand(3,8,8), 0)), 'must be uint8, got torch.float32'),
    floats   = (lambda p: list(x5/255), 'must be uint8, got float64'),
    empty    = (lambda p: Pictures(None, 0), 'no image in Pictures'),
    labels   = (lambda p: TfmdLists([1,2,3], noop), 'item 0 is a int'),
    rows     = (lambda p: [dict(image=x5[0])], 'item 0 is a dict'))

@pytest.mark.parametrize('how', bad_pools)
def test_an_error_about_the_pool_names_the_argument(how, folder):
    dls = builders['folder'](folder)
    make,match = bad_pools[how]
    for f in (lambda o: distill_learner(dls, o, Zoo.embedded(names=['digits']), 'test_efficientnet', pretrained=False,
                                        store=False, progress=False),
              lambda o: fixmatch_learner(dls, o, 'test_efficientnet', pretrained=False)):
        with pytest.raises((ValueError,TypeError), match=f'`unlabeled`: .*{match}'): f(make(folder))

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
    block    = lambda p, df: DataBlock((ImageBlock,CategoryBlock), get_y=ColReader('label'), **gets(p)).dataloaders(df,
        bs=4, num_workers=0),
    datasets = lambda p, df: Datasets(df, [[ColReader('fn', pref=f'{p}/'), PILImage.create],
                                           [ColReader('label'), Categorize]],
                                      splits=ColSplitter('valid')(df)).dataloaders(bs=4, num_workers=0, after_item=ToTensor),
    multi    = lambda p, df: DataBlock((ImageBlock,MultiCategoryBlock), get_y=lambda r: [r['label']],
                                       **gets(p)).dataloaders(df, bs=4, num_workers=0))

@pytest.mark.parametrize('how', odd)
@pytest.mark.parametrize('frame,match', [(holey, 'training images have no label .row 5.'),
                                         (odd_one, 'validation class blob has no training image .row 3.')], ids=['hole','class'])
def test_labels_are_looked_at_when_learners_are_made(how, frame, match, folder):
    dls = odd[how](folder, frame(folder))
    calls = [lambda: repeat_dls(dls, 8), lambda: transfer_learner(dls, 'test_efficientnet', pretrained=False),
             lambda: fixmatch_learner(dls, images(4), 'test_efficientnet', pretrained=False),
             lambda: distill_learner(dls, images(4), None, 'test_efficientnet'), lambda: few_label_dls(dls, n=1)]
    for f in calls[:4] if how=='multi' else calls:
        with pytest.raises(ValueError, match=match): f()

def test_a_class_of_the_valid_folder_alone(folder, tmp_path):
    for part,cs in dict(train='ab', valid='abc').items():
        for c in cs:
            (tmp_path/part/c).mkdir(parents=True)
            for i in range(2): Image.fromarray(images(1)[0]).save(tmp_path/part/c/f'{i}.png')
    with pytest.raises(ValueError, match=r'validation class c has no training image \(.*valid.c.0.png'):
        transfer_learner(ImageDataLoaders.from_folder(tmp_path, bs=2, num_workers=0), 'test_efficientnet', pretrained=False)

@pytest.mark.parametrize('labels', [['a',None,'b','a'], ['a',float('nan'),'b','a'], np.array([0,np.nan,1,0]),
                                    pd.Series(['a',np.nan,'b','a']), pd.Series([0,pd.NA,1,0], dtype='Int64')],
                         ids=lambda o: type(o).__name__)
def test_a_missing_label_is_named(labels):
    for f in (lambda: few_labels(labels, n=1), lambda: image_dls(images(4), labels),
              lambda: image_dls(images(4), list('aabb'), images(4), labels)):
        with pytest.raises(ValueError, match=r'labels: 1 of 4 images have none \(rows 1\)'): f()

