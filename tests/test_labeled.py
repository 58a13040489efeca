"Labelled images as people have them: folders, tables of every writer, Hugging Face and torchvision data, each as real files"
import shutil, tempfile, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from fastai.vision.all import (
    CategoryBlock, DataBlock, Datasets, ImageBlock, ImageDataLoaders, L, MultiCategoryBlock, RegressionBlock, get_image_files, parent_label)
from distill_nb import items
from distill_nb.items import Images, Pack, check_labels, get_images, item_labels
from distill_nb.images import open_image
from distill_nb.labeled import has_columns, labeled_images, labeled_parts
from distill_nb.learner import distill_learner, student_learner, transfer_learner
from distill_nb.pool import pool_images
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo
from distill_nb.data import image_dls

def draw(path, i=0):
    "A small image of a grey of its own"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8,8), (i%256,)*3).save(path)

def tree(root, *names):
    "A folder with small images of these names"
    root = Path(tempfile.mkdtemp(dir=root))
    for i,o in enumerate(names):
        if Path(o).suffix: draw(root/o, i)
        else: (root/o).mkdir(parents=True)
    return root

names = [f'{c}/{c}{i}.jpg' for c in ('cat','dog') for i in range(3)]
labels = ['cat']*3+['dog']*3

@pytest.fixture()
def photos(tmp_path): return tree(tmp_path, *names)

def said(x, **kw):
    "Names of the files and their classes, as `labeled_images` has them"
    files,ys = labeled_images(x, **kw)
    assert type(files) is Images
    return [Path(o).name for o in files],list(ys)
want = [Path(o).name for o in names],labels

several = 'several labels per image are not supported yet; one class per image is'

# Folders

def test_a_folder_for_each_class(tmp_path):
    files,ys = labeled_images(tree(tmp_path, 'cat/monday/1.png','cat/2.png','dog/tuesday/late/1.png','.cache/3.png','dog/.thumbs/4.png'))
    assert ys==['cat','cat','dog'] and type(files) is Images
    with pytest.raises(ValueError, match="`valid`: 'sheet.png'"): labeled_images(tree(tmp_path, 'cat/1.png', 'sheet.png'), 'valid')
    assert labeled_images(tree(tmp_path, 'train/1.png', 'bus/1.png'))[1]==['bus','train']
    with pytest.warns(UserWarning, match="no image in 'frog'"): labeled_images(tree(tmp_path, 'cat/1.png', 'frog'))
    with pytest.raises(ValueError, match='`labeled`.*is not a folder'): labeled_images(tmp_path/'nowhere')

def test_parts_are_not_classes(tmp_path):
    for given in (('train/cat/1.png','valid/cat/1.png'), ('val/cat/1.png',), ('Train/cat/1.png','test/cat/1.png')):
        with pytest.raises(ValueError, match='parts of a data set .*, not classes'): labeled_images(tree(tmp_path, *given))

def test_parts_by_folder(tmp_path):
    root = tree(tmp_path, 'train/cat/1.png','train/dog/2.png','Validation/cat/3.png','test/cat/4.png')
    parts = labeled_parts(root)
    assert {k: (len(o), list(y)) for k,(o,y) in parts.items()} == dict(valid=(1,['cat']), test=(1,['cat']), train=(2,['cat','dog']))
    assert list(labeled_parts(root/'train'))==['train']
    with pytest.warns(UserWarning, match="'models', 'test' in .* are left out"):
        assert set(labeled_parts(tree(tmp_path, 'train/a/1.png','val/a/1.png','models/x.png','test/1.png')))=={'train','valid'}
    with pytest.raises(ValueError, match='two of the folders .* join'): labeled_parts(tree(tmp_path, 'val/a/1.png','valid/a/1.png'))
    with pytest.raises(ValueError, match='no image'): labeled_parts(tree(tmp_path, 'train/a/1.png','valid'))

def test_loose_images_beside_a_table_point_to_it(tmp_path):
    root = tree(tmp_path, 'train/1.jpg','train/2.jpg')
    (root/'train.csv').write_text('id,label\n1,a\n2,b\n')
    with pytest.raises(ValueError, match='or the table of the labels, such as .*train.csv'): labeled_images(root/'train')
    assert said(root/'train.csv')==(['1.jpg','2.jpg'],['a','b'])

def test_an_image_folder_with_metadata(photos):
    pd.DataFrame(dict(file_name=names, label=labels)).to_csv(photos/'metadata.csv', index=False)
    assert said(photos)==want

# Tables

writers = dict(
    pandas    = lambda df, p: df.to_csv(p/'l.csv', index=False) or 'l.csv',
    with_index= lambda df, p: df.rename_axis('row').to_csv(p/'l.csv') or 'l.csv',
    excel     = lambda df, p: df.to_csv(p/'l.csv', sep=';', index=False, encoding='utf-8-sig', lineterminator='\r\n') or 'l.csv',
    excel_text= lambda df, p: df.to_csv(p/'l.tsv', sep='\t', index=False, encoding='utf-16') or 'l.tsv',
    quoted    = lambda df, p: df.to_csv(p/'l.csv', quoting=1, index=False) or 'l.csv',
    no_header = lambda df, p: df[['path','label']].to_csv(p/'l.csv', index=False, header=False) or 'l.csv',
    text      = lambda df, p: df.to_csv(p/'l.txt', sep='\t', index=False) or 'l.txt')

@pytest.mark.parametrize('writer', writers)
def test_a_table_of_any_writer(writer, photos):
    file = writers[writer](pd.DataFrame(dict(path=names, label=labels)), photos)
    assert said(photos/file)==want==said(str(photos/file))

paths = dict(
    relative = lambda o, p: o,
    absolute = lambda o, p: str(p/o),
    windows  = lambda o, p: o.replace('/', '\\'),
    bare     = lambda o, p: Path(o).name,
    ids      = lambda o, p: Path(o).stem,
    no_suffix= lambda o, p: o.removesuffix('.jpg'),
    blanks   = lambda o, p: f' {o} ')

@pytest.mark.parametrize('how', paths)
def test_paths_as_tables_have_them(how, photos, tmp_path):
    df = pd.DataFrame(dict(image=[paths[how](o, photos) for o in names], label=labels))
    df.to_csv(photos/'l.csv', index=False)
    assert said(photos/'l.csv')==want==said(df, root=photos)
    df.to_csv(tmp_path/'l.csv', index=False)
    assert said(tmp_path/'l.csv', root=photos)==want

def test_files_that_are_not_there_are_counted(photos):
    df = pd.DataFrame(dict(image=[*names, 'cat/gone.jpg', 'lost.jpg'], label=labels+['cat','dog']))
    df.to_csv(photos/'l.csv', index=False)
    for f in (labeled_images, labeled_parts, get_images):
        with pytest.raises(ValueError, match="2 of 8 files are not there, the first 'cat/gone.jpg' .* `root`"): f(photos/'l.csv')
    with pytest.warns(UserWarning, match='2 of 8 images cannot be read and are left out .first: .*gone.jpg'):
        assert said(photos/'l.csv', on_error='skip')==want
    df[6:].to_csv(photos/'l.csv', index=False)
    with pytest.raises(ValueError, match='2 of 2 files'): labeled_images(photos/'l.csv', on_error='skip')
    with pytest.raises(ValueError, match='`root` must be the folder'): labeled_images(df, root=photos/'nowhere')

def test_an_id_of_two_files(tmp_path):
    root = tree(tmp_path, 'train/1.jpg','test/1.jpg')
    (root/'l.csv').write_text('id,label\n1,a\n')
    with pytest.raises(ValueError, match="'1' may be '.*test/1.jpg' or '.*train/1.jpg'"): labeled_images(root/'l.csv')
    assert said(root/'l.csv', root=root/'train')==(['1.jpg'],['a'])

def test_numbers_are_names_of_files(tmp_path):
    root = tree(tmp_path, 'train/1.jpg','train/2.jpg')
    assert said(pd.DataFrame(dict(id=[1,2], label=[0,1])), root=root)==(['1.jpg','2.jpg'],['0','1'])

def test_columns_by_name_or_given(photos):
    df = pd.DataFrame(dict(id=range(6), Bild=names, Art=labels, seen=1))
    with pytest.raises(ValueError, match='which column has the labels.*Name it by `label`'): labeled_images(df, path='Bild', root=photos)
    with pytest.raises(ValueError, match="no column 'Sorte'"): labeled_images(df, path='Bild', label='Sorte', root=photos)
    assert said(df, path='Bild', label='Art', root=photos)==want
    two = pd.DataFrame(dict(file=names, Art=labels))                                 # the only one that is left
    assert said(two, root=photos)==want
    with pytest.raises(ValueError, match='no column of labels'): labeled_images(two[['file']], root=photos)
    with pytest.raises(ValueError, match='which column has the labels.*several'): labeled_images(two.assign(label=1, class_=2), root=photos)

@pytest.mark.parametrize('given,names_', [
    ([0,1,1,0,1,0], '011010'), ([True,False]*3, ['True','False']*3), (pd.Categorical(labels), labels), ([0.,1.]*3, '010101'),
    (['None','NA']*3, ['None','NA']*3), (['01','1']*3, ['01','1']*3), (['cat ','cat']*3, ['cat']*6)])
def test_labels_become_names(given, names_, photos):
    df = pd.DataFrame(dict(file=names, label=given))
    df.to_csv(photos/'l.csv', index=False)
    assert said(df, root=photos)[1]==list(names_)==said(photos/'l.csv')[1]

def test_missing_labels_are_named(photos):
    df = pd.DataFrame(dict(file=names, label=[*labels[:4], None, np.nan]))
    df.to_csv(photos/'l.csv', index=False)
    for f in (lambda: labeled_images(df, root=photos), lambda: labeled_images(photos/'l.csv')):
        with pytest.raises(ValueError, match='2 of 6 images have no label .*dog1.jpg'): f()

def test_parts_by_column(photos):
    df = pd.DataFrame(dict(file=names, label=labels))
    for column,words in (('split',['train','validation']), ('is_valid',[False,True]), ('is_valid',[0,1]), ('Set',['Train','VAL'])):
        df.assign(**{column:words*3}).to_csv(photos/'l.csv', index=False)
        parts = labeled_parts(photos/'l.csv')
        assert {k: [Path(i).name for i in o] for k,(o,_) in parts.items()}==dict(train=want[0][::2], valid=want[0][1::2])
        assert get_images(photos/'l.csv')==parts['train'][0]                           # a pool must not hold the others
        with pytest.raises(ValueError, match='parts of a data set .train, valid.'): labeled_images(photos/'l.csv')
    df.assign(split=['train']*6).to_csv(photos/'l.csv', index=False)
    assert said(photos/'l.csv')==want
    df.assign(split=['train']*4+['test']*2, label=[*labels[:4],None,None]).to_csv(photos/'l.csv', index=False)
    with pytest.warns(UserWarning, match="'test' has no labels"): assert said(photos/'l.csv')[1]==labels[:4]

def test_rows_for_one_image(photos):
    df = pd.DataFrame(dict(file=[*names, names[0].replace('/', '\\')], label=[*labels, 'cat']))
    with pytest.warns(UserWarning, match='1 of 7 rows repeat an image'): assert said(df, root=photos)==want
    df.loc[6,'label'] = 'dog'
    match = f'1 images have rows with different labels, the first .*cat0.jpg. .cat, dog.: {several}'
    with pytest.raises(ValueError, match=match): labeled_images(df, root=photos)

others = dict(
    semicolon = (['cat;dog','cat','dog']*8, several),
    pipe      = (['cat|dog','dog|bird','bird']*8, several),
    comma     = (['cat, dog','cat','dog']*8, several),
    blank     = (['cat dog','cat','dog']*8, several),
    text_list = (["['cat']","['cat', 'dog']","['dog']"]*8, several),
    floats    = (list(np.linspace(0, 1, 24)), 'regression targets. are not supported yet; one class per image is'),
    ages      = (list(range(24)), 'column .label. has 24 different labels for 24 images'),
    uuids     = ([f'{i*7919:x}-ff' for i in range(24)], 'looks like an id or a number'))

@pytest.mark.parametrize('kind', others)
def test_other_targets_are_refused(kind, tmp_path):
    given,match = others[kind]
    files = [f'{i}.png' for i in range(24)]
    root = tree(tmp_path, *files)
    df = pd.DataFrame(dict(file=files, label=given))
    df.to_csv(root/'l.csv', index=False)
    for f in (lambda: labeled_images(root/'l.csv'), lambda: labeled_parts(df, root=root)):
        with pytest.raises(ValueError, match=match): f()

def test_lists_in_cells_are_refused(photos):
    with pytest.raises(ValueError, match=f'a label is a list: {several}'):
        labeled_images(pd.DataFrame(dict(file=names, label=[['cat']]*6)), root=photos)

def test_one_image_per_class_is_not_an_id(tmp_path):
    "Few images, or folders, are taken as they are"
    root = tree(tmp_path, *[f'c{i}/{i}.png' for i in range(30)])
    assert len(set(labeled_images(root)[1]))==30
    df = pd.DataFrame(dict(file=[f'c{i}/{i}.png' for i in range(10)], label=[f'c{i}' for i in range(10)]))
    assert len(labeled_images(df, root=root)[1])==10

def test_a_file_that_is_not_a_table(tmp_path):
    (tmp_path/'l.csv').write_bytes(b'')
    with pytest.raises(ValueError, match='l.csv'): labeled_images(tmp_path/'l.csv')
    (tmp_path/'l.xlsx').write_bytes(b'PK')
    with pytest.raises(ValueError, match=r'give a folder .* or a table .\.csv'): labeled_images(tmp_path/'l.xlsx')
    (tmp_path/'l.csv').write_text('path,label\nhttps://host/1.jpg,cat\n')
    with pytest.raises(ValueError, match='download these images'): labeled_images(tmp_path/'l.csv')

@pytest.mark.parametrize('text,match', [
    ('path,label\n', 'there is no row in the table'), ('a,b,c\n1,2,3\n', 'Name it by `path`, as in path='),
    ('path,label\na.jpg,b,c,d\n', '1 of 1 files')])
def test_a_table_that_does_not_fit(text, match, tmp_path):
    (tmp_path/'l.csv').write_text(text)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=match):
        warnings.simplefilter('ignore')                                                # of pandas, about the length of a row
        labeled_images(tmp_path/'l.csv')

def test_columns_of_one_name():
    df = pd.DataFrame([['a.jpg','b','c']], columns=['path','label','label'])
    with pytest.raises(ValueError, match='two columns have the same name'): labeled_images(df)

# Unlabelled images

def test_unlabelled_images_in_every_form(photos, tmp_path):
    files = get_images(photos)
    (photos/'l.txt').write_text('\ufeff'+'\n'.join(o.replace('/', '\\') for o in names)+'\n\n')
    pd.DataFrame(dict(n=1, image=names)).to_csv(photos/'l.csv', index=False)
    shutil.copy(photos/'l.csv', tmp_path/'other.csv')
    for o in (f'{photos}/**/*.jpg', photos/'*', f'{photos}/*/*', photos/'l.txt', photos/'l.csv', [photos/'cat', photos/'dog'],
              [str(photos/'cat'), *files[3:]]): assert get_images(o)==files
    assert get_images(tmp_path/'other.csv', root=photos)==files==get_images(pd.DataFrame(dict(a=1, b=names)), path='b', root=photos)
    for bad,match in ((f'{photos}/*.gif','no image'), (photos/'cat'/'cat0.jpg','not a folder'), (photos/'none.txt','not a folder')):
        with pytest.raises(ValueError, match=match): get_images(bad)
    with pytest.raises(ValueError, match='1 of 1 files'):
        (photos/'l.txt').write_text('gone.jpg')
        get_images(photos/'l.txt')

def test_images_that_cannot_be_read_are_skipped_at_every_door(photos, tmp_path):
    (photos/'cat/bad.jpg').write_bytes(b'no image')
    good = get_images([photos/o for o in names])
    (photos/'l.txt').write_text('\n'.join([*names, 'cat/bad.jpg', 'cat/gone.jpg']))
    dls = image_dls(list(np.random.default_rng(0).integers(0, 256, (8,9,9,3), dtype=np.uint8)), [0,1]*4)
    skip = dict(on_error='skip')
    for n,f in ((7, lambda: get_images(photos, **skip)), (7, lambda: labeled_images(photos, **skip)[0]),
                (8, lambda: get_images(photos/'l.txt', **skip)), (7, lambda: labeled_parts(photos, **skip)['train'][0]),
                (8, lambda: pool_images(dls, photos/'l.txt', **skip)),
                (7, lambda: get_images(get_images(photos), **skip)), (7, lambda: pool_images(dls, f'{photos}/*', **skip))):
        with pytest.warns(UserWarning, match=f'{n-6} of {n} images cannot be read and are left out'): assert set(f())==set(good)
    with pytest.warns(UserWarning): assert labeled_images(photos, on_error='skip')[1]==labels
    with pytest.raises(ValueError, match='1 of 7 images cannot be read .first: .*bad.jpg'): items.readable(get_images(photos), 'images')
    assert items.readable(good, 'images')==[True]*6

def test_a_folder_has_no_columns(photos):
    for k in ('label','path'):
        with pytest.raises(ValueError, match=f'`{k}`: .*no columns'): labeled_images(photos, **{k: 'kind'})
    pd.DataFrame(dict(file=names, label=labels)).to_csv(photos/'l.csv', index=False)
    assert has_columns(photos/'l.csv') and not has_columns(photos)

# Objects

def test_torchvision_data(photos):
    from torchvision.datasets import DatasetFolder, ImageFolder
    folder = ImageFolder(photos)
    assert said(folder)==want==said(DatasetFolder(photos, open_image, ('.jpg',)))
    assert said(torch.utils.data.Subset(folder, [1,4]))==(['cat1.jpg','dog1.jpg'],['cat','dog'])
    assert said(torch.utils.data.DataLoader(folder))==want
    assert said(torch.utils.data.ConcatDataset([folder, folder]))[1]==labels*2
    assert said(ImageFolder(photos, target_transform=lambda i: 9-i))[1]==['9']*3+['8']*3

class Pictures(torch.utils.data.Dataset):
    def __init__(self, ys, classes=None):
        self.ys = ys
        if classes: self.classes = classes
    def __len__(self): return len(self.ys)
    def __getitem__(self, i): return Image.new('RGB', (8,8), (i,)*3),self.ys[i]

def test_torch_data():
    files,ys = labeled_images(Pictures([0,1,1], ['ant','bee']))
    assert ys==['ant','bee','bee'] and np.asarray(open_image(files[2]))[0,0,0]==2
    assert labeled_images(Pictures(torch.tensor([2,0])))[1]==['2','0'] and labeled_images(Pictures(['x','y']))[1]==['x','y']
    assert labeled_images(Pictures([1], [('tench','Tinca tinca'), ('goldfish','Carassius')]))[1]==['goldfish']
    with pytest.raises(ValueError, match=f'a label is a Tensor: {several}'): labeled_images(Pictures(torch.eye(3)))
    with pytest.raises(ValueError, match='regression'): labeled_images(Pictures([.5,1.5]))
    with pytest.raises(TypeError, match='gives images alone'): labeled_images(Pictures([None]))
    for bad in (3, None, b'x', {'a':1}, ([1],[2],[3]), [1,2]):
        with pytest.raises(TypeError, match='`labeled`: expected'): labeled_images(bad)

def test_fastai_data(photos):
    dls = ImageDataLoaders.from_folder(photos, valid_pct=.34, seed=1, num_workers=0)
    parts = labeled_parts(dls)
    assert {k: len(o) for k,(o,_) in parts.items()}==dict(train=4, valid=2)
    assert all(Path(i).parent.name==y for o,ys in parts.values() for i,y in zip(o, ys)) and labeled_images(dls)==parts['train']
    block = DataBlock((ImageBlock,CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=lambda o: ([0,1,2,3],[4,5]))
    ds = block.datasets(photos)
    assert isinstance(ds, Datasets) and [len(o) for o,_ in labeled_parts(ds).values()]==[4,2] and len(labeled_images(ds.valid)[0])==2
    assert len(labeled_images(dls.valid)[0])==2

def test_packs_and_pairs(photos):
    files = get_images(photos)
    pack = Pack(files, np.repeat([0,1], 3), np.arange(6)==5, L('cat','dog'))
    assert said(pack)==(want[0][:5],labels[:5]) and list(labeled_parts(pack))==['train','test']
    assert said((photos, labels))==want==said(list(zip(files, labels)))
    with pytest.raises(ValueError, match='6 images and 5 labels'): labeled_images((files, labels[:5]))

# Targets that are not one class per image, at every learner

class Never:
    "Sources that nobody may ask for anything"
    def __getattr__(self, name): raise AssertionError(name)

@pytest.mark.parametrize('block,get_y,kind', [(MultiCategoryBlock, lambda o: ['a','b'][:1+int(o.stem[-1])%2], 'several labels per image'),
                                              (RegressionBlock, lambda o: float(o.stem[-1]), 'regression targets'),
                                              (lambda: RegressionBlock(n_out=2), lambda o: [1.5,float(o.stem[-1])], 'regression targets')])
def test_learners_and_rankings_want_one_class(block, get_y, kind, photos):
    dls = DataBlock((ImageBlock,block()), get_items=get_image_files, get_y=get_y, splitter=lambda o: ([0,1,2,3],[4,5])).dataloaders(
        photos, bs=2, num_workers=0)
    dls.c = 2
    arch = dict(arch='test_efficientnet', pretrained=False)
    match = f'`dls` must give one class for each image .*{kind}.* not supported yet; one class per image is'
    for f in (lambda: student_learner(dls, **arch), lambda: transfer_learner(dls, **arch),
              lambda: distill_learner(dls, photos, Never(), **arch), lambda: rank_sources(dls, Zoo.embedded()),
              lambda: check_labels(dls), lambda: item_labels(dls), lambda: labeled_images(dls)):
        with pytest.raises(ValueError, match=match): f()

# Hugging Face data

@pytest.fixture()
def hf(): return pytest.importorskip('datasets')

def of_files(hf, photos, **columns):
    "A `Dataset` of the photographs"
    ds = hf.Dataset.from_dict(dict(image=[str(photos/o) for o in names], **columns))
    return ds.cast_column('image', hf.Image())

def shades(files): return [np.asarray(open_image(o))[0,0,0].item() for o in files]

def test_hugging_face_data(hf, photos, tmp_path):
    ds = of_files(hf, photos, label=[0]*3+[1]*3).cast_column('label', hf.ClassLabel(names=['cat','dog']))
    assert said(ds)==want and get_images(ds)==labeled_images(ds)[0]
    encoded = [dict(bytes=(photos/o).read_bytes(), path=None) for o in names]
    embedded = hf.Dataset.from_dict(dict(image=encoded, label=ds['label'][:]), features=ds.features)
    embedded.save_to_disk(tmp_path/'saved')
    for o in (embedded, tmp_path/'saved', str(tmp_path/'saved')):
        files,ys = labeled_images(o)
        assert list(ys)==labels and max(np.abs(np.subtract(shades(files), range(6)))) <= 2 and all(isinstance(o, bytes) for o in files)
        assert len(get_images(o))==6
    assert list(labeled_images(embedded.select([0,5]).with_format('torch'))[1])==['cat','dog']
    both = hf.DatasetDict(train=ds.select(range(4)), validation=ds.select([4]), test=ds.select([5]))
    both.save_to_disk(tmp_path/'both')
    for o in (both, tmp_path/'both'):
        assert {k: len(v) for k,(v,_) in labeled_parts(o).items()}==dict(train=4, valid=1, test=1) and len(get_images(o))==4
        with pytest.raises(ValueError, match='parts of a data set'): labeled_images(o)

def test_hugging_face_columns(hf, photos):
    assert said(of_files(hf, photos, label=labels))==want
    assert said(of_files(hf, photos, animal=labels, seen=[1]*6), label='animal')==want
    assert said(hf.Dataset.from_dict(dict(file_name=names, label=labels)), root=photos)==want
    with pytest.raises(ValueError, match='which column has the labels'): labeled_images(of_files(hf, photos, a=labels, b=labels))
    with pytest.raises(ValueError, match=f'a label is a list: {several}'): labeled_images(of_files(hf, photos, labels=[[0],[0,1]]*3))
    with pytest.raises(ValueError, match='regression'): labeled_images(of_files(hf, photos, label=[.5]*6))
    marked = of_files(hf, photos, label=[0,1,-1]*2).cast_column('label', hf.ClassLabel(names=['cat','dog']))
    with pytest.raises(ValueError, match='2 of 6 images have no label'): labeled_images(marked)
    with pytest.raises(TypeError, match='load it without streaming'): labeled_images(marked.to_iterable_dataset())

def test_parquet_files_of_a_hub(hf, photos, tmp_path):
    ds = of_files(hf, photos, label=[0]*3+[1]*3).cast_column('label', hf.ClassLabel(names=['cat','dog']))
    (tmp_path/'hub/data').mkdir(parents=True)
    ds.select(range(0,6,2)).to_parquet(tmp_path/'hub/data/train-00000-of-00001.parquet')
    ds.select([1,3,5]).to_parquet(tmp_path/'hub/data/validation-00000-of-00001.parquet')
    parts = labeled_parts(tmp_path/'hub')
    assert {k: list(y) for k,(_,y) in parts.items()}==dict(train=['cat','cat','dog'], valid=['cat','dog','dog'])
    (tmp_path/'hub/data/train-00000-of-00001.parquet').write_bytes(b'PAR1')
    with pytest.raises(ValueError, match='Hugging Face data set .* cannot be read'): labeled_parts(tmp_path/'hub')

def test_without_the_package_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
    for o in ('state.json','dataset_info.json'): (tmp_path/o).write_text('{}')
    for f in (labeled_images, get_images):
        with pytest.raises(ImportError, match=r"pip install 'distill_nb\[hf\]'"): f(tmp_path)

def test_nothing_is_said_of_good_data(photos):
    pd.DataFrame(dict(path=names, label=labels)).to_csv(photos/'l.csv', index=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert said(photos/'l.csv')==want==said(photos)
