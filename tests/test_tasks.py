"The readers of the paper's eight tasks, on small folders of the published layouts"
import json
from collections import Counter
from types import SimpleNamespace
import numpy as np, pytest
from PIL import Image
from scipy.io import savemat
from distill_nb import tasks
from distill_nb.items import get_images
from distill_nb.data import few_labels, image_dls
from distill_nb.pool import few_label_dls, unlabeled_dl
from distill_nb.packs import pack_dls
from distill_nb.tasks import load_task, paper_tasks

N = 6 # images a class

def paint(file, grey=False):
    file.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(len(str(file))).integers(0, 256, (20,24) if grey else (20,24,3), dtype=np.uint8)
    Image.fromarray(x).save(file)

def write(file, rows, end='\n'):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(''.join(f'{o}{end}' for o in rows).encode())

def birds(root, classes, ids, stems, more=()):
    files = [f'{c}/{s}.jpg' for c,s in stems]
    for f in files: paint(root/'images'/f)
    write(root/'images.txt', [f'{i} {f}' for i,f in zip(ids, files)])
    write(root/'image_class_labels.txt', [f'{i} {int(f.split("/")[0].split(".")[0])}' for i,f in zip(ids, files)])
    write(root/'train_test_split.txt', [f'{i} {int(k%3!=2)}' for k,i in enumerate(ids)])
    write(root/'classes.txt', [f'{k} {o}' for k,o in classes])
    return SimpleNamespace(items=[root/'images'/f for f in files], is_test=[k%3==2 for k in range(len(files))])

def make_cub200(path):
    cs = ['001.Black_footed_Albatross','002.Laysan_Albatross','200.Common_Yellowthroat']
    stems = [(c, f'{c[4:]}_{i:04}_{7900+i}') for c in cs for i in range(N)]
    want = birds(path/'CUB_200_2011', [(int(c[:3]), c) for c in cs], range(1, 3*N+1), stems)
    want.classes,want.labels = ['Black footed Albatross','Laysan Albatross','Common Yellowthroat'],np.repeat(range(3), N)
    return want

def make_nabirds(path):
    "Class numbers are nodes of a tree: not dense, in no order among the images, inner nodes have no images"
    stems = [(f'{k:04}', f'{i:04}{k:04}6d6f4a4e8c3b2f1a0b9c8d7e') for k in (817,295,1010) for i in range(N)]
    ids = [f'{s[:8]}-{s[8:12]}-{s[12:16]}-{s[16:20]}-{s[20:]}' for _,s in stems]
    classes = [(0,'Birds'), (1,'Ducks, Geese, and Swans'), (295,'Common Eider (Adult male)'), (817,'Oak Titmouse'),
               (1010,'Yellow-headed Blackbird (Female/Immature Male)')]
    want = birds(path/'nabirds', classes, ids, stems)
    want.classes,want.labels = [o for k,o in classes if k>1],np.repeat([1,0,2], N)
    return want

def make_oxford_pets(path):
    root,cs = path/'oxford-iiit-pet',[('Abyssinian',1,1),('american_bulldog',2,1),('Bombay',1,2)]
    rows = [(f'{c}_{i}', f'{k} {s} {b}') for k,(c,s,b) in enumerate(cs, 1) for i in range(1,N+1)]
    for o,_ in rows: paint(root/'images'/f'{o}.jpg')
    (root/'images'/'Abyssinian_100.mat').write_bytes(b'MATLAB')
    write(root/'annotations'/'list.txt', ['#Image CLASS-ID SPECIES BREED ID','#ID: 1:37 Class ids'] + [' '.join(o) for o in rows])
    train,test = ([o for k,o in enumerate(rows) if (k%3==2)==t] for t in (False,True))
    write(root/'annotations'/'trainval.txt', map(' '.join, train))
    write(root/'annotations'/'test.txt', map(' '.join, test))
    rows = train+test
    return SimpleNamespace(items=[root/'images'/f'{o}.jpg' for o,_ in rows], is_test=[False]*12+[True]*6,
                           labels=[int(o[0])-1 for _,o in rows],
                           classes=['Abyssinian','american bulldog','Bombay'])

def mat(file, files, labels):
    def cell(rows):
        res = np.empty((len(rows),1), dtype=object)
        res[:,0] = rows
        return res
    savemat(file, dict(file_list=cell(files), annotation_list=cell([o[:-4] for o in files]),
                       labels=np.array(labels, dtype=np.uint8)[:,None]))

def make_stanford_dogs(path):
    cs = ['n02085620-Chihuahua','n02085782-Japanese_spaniel','n02116738-African_hunting_dog']
    files = [f'{c}/{c.split("-")[0]}_{17*i+3}.jpg' for c in cs for i in range(N)]
    for o in files: paint(path/'Images'/o)
    labels = np.repeat([1,2,120], N)
    rows = [[(f,k) for j,(f,k) in enumerate(zip(files, labels)) if (j%3==2)==t] for t in (False,True)]
    for o,r in zip(('train','test'), rows): mat(path/f'{o}_list.mat', *zip(*r))
    mat(path/'file_list.mat', files, labels)
    rows = rows[0]+rows[1]
    return SimpleNamespace(items=[path/'Images'/f for f,_ in rows], is_test=[False]*12+[True]*6,
                           labels=[{1:0,2:1,120:2}[k] for _,k in rows],
                           classes=['Chihuahua','Japanese spaniel','African hunting dog'])

chest_header = 'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,' \
    'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],'
chest = ['Atelectasis','Cardiomegaly','Effusion','Infiltration','Mass','Nodule','Pneumothorax']

def make_chestx(path):
    found = [o for c in chest for o in [c]*3] + ['No Finding','Pneumonia','Hernia','Effusion|Mass','Nodule|Atelectasis']
    rows = [(f'{k:08}_000.png', o) for k,o in enumerate(found, 1)]
    for k,(n,_) in enumerate(rows): paint(path/f'images_{1+k%2:03}'/'images'/n, grey=True)
    write(path/'Data_Entry_2017.csv', [chest_header] + [f'{n},{o},000,{k},058Y,M,PA,2682,2749,0.143,0.143,' for k,
                                                        (n,o) in enumerate(rows)], end='\r\n')
    write(path/'train_val_list.txt', [n for k,(n,_) in enumerate(rows) if k%3!=2])
    write(path/'test_list.txt', [n for k,(n,_) in enumerate(rows) if k%3==2])
    return SimpleNamespace(items=[path/f'images_{1+k%2:03}'/'images'/n for k,(n,_) in enumerate(rows[:21])],
                           is_test=[k%3==2 for k in range(21)], labels=np.repeat(range(7), 3), classes=chest)

isic = ['MEL','NV','BCC','AKIEC','BKL','DF','VASC']

def make_isic2018(path):
    pre = path/'ISIC2018_Task3_Training'
    names = [f'ISIC_{24306+i:07}' for i in range(7*N)]
    labels = [i%7 for i in range(7*N)]
    for o in names: paint(path/f'{pre.name}_Input'/f'{o}.jpg')
    (path/f'{pre.name}_Input'/'LICENSE.txt').write_text('CC-BY-NC')
    write(path/f'{pre.name}_GroundTruth'/f'{pre.name}_GroundTruth.csv',
          [','.join(['image',*isic])] + [','.join([o,*(f'{float(k==j)}' for j in range(7))]) for o,k in zip(names, labels)])
    write(path/f'{pre.name}_LesionGroupings.csv', ['image,lesion_id,diagnosis_confirm_type'] + [
            f'{o},HAM_{i//14*7+i%7:07},histopathology' for i,o in enumerate(names)])
    return SimpleNamespace(items=[path/f'{pre.name}_Input'/f'{o}.jpg' for o in names], is_test=None, labels=labels,
                           classes=isic, groups=[i//14*7+i%7 for i in range(7*N)])

def make_eurosat(path):
    cs = ['AnnualCrop','HerbaceousVegetation','SeaLake']
    items = [path/'eurosat'/'2750'/c/f'{c}_{i}.jpg' for c in cs for i in range(1,N+1)]
    for o in items: paint(o)
    return SimpleNamespace(items=sorted(items), is_test=None, labels=np.repeat(range(3), N), classes=cs)

plants = ['Apple___healthy','Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot','Pepper,_bell___Bacterial_spot']

def make_crop_disease(path):
    root = path/'PlantVillage-Dataset'
    items,leaf = [],{}
    for c in plants:
        for i in range(N):
            items.append(root/'raw'/'color'/c/f'{i:08x}-98f5-4a4e___RS_HL {100+i}{" copy 2" if i==5 else ""}.{"JPG" if i%2 else "jpg"}')
            paint(items[-1])
            leaf.setdefault(f'rs_hl {100+i}', []).append(f'{c}:::{i//2}')
    write(root/'leaf-map.json', [json.dumps(leaf)])
    return SimpleNamespace(items=sorted(items), is_test=None, labels=np.repeat(range(3), N), classes=plants,
                           groups=[(k,i//2) for k in range(3) for i in range(N)])

makers = {k[5:]:f for k,f in list(globals().items()) if k.startswith('make_')}

def test_every_task_has_a_maker():
    assert set(makers)==set(paper_tasks)==set(tasks.task_homes) and set(tasks.task_downloads)<set(paper_tasks)

@pytest.mark.parametrize('name', list(makers))
def test_task(name, tmp_path):
    want = makers[name](tmp_path)
    task = load_task(name, tmp_path)
    assert list(task.items)==list(want.items)
    assert task.labels.dtype==np.int64 and task.labels.tolist()==list(want.labels) and list(task.classes)==want.classes
    if want.is_test is not None: assert task.is_test.tolist()==list(want.is_test)
    else:
        assert set(task.labels[task.is_test])==set(task.labels[~task.is_test])==set(range(len(want.classes)))
        assert .15<task.is_test.mean()<.45
        assert (load_task(name, str(tmp_path)).is_test==task.is_test).all()
        assert (load_task(name, tmp_path, seed=3).is_test!=task.is_test).any()
        assert load_task(name, tmp_path, test_frac=.5).is_test.mean()>=.45
    for g in set(getattr(want, 'groups', ())): assert len({bool(t) for t,o in zip(task.is_test, want.groups) if o==g})==1
    few,rest = few_labels(task.train[1], n=1, classes=task.classes)
    assert Counter(task.train[1][few])=={k:1 for k in range(len(want.classes))} and get_images(task)==task.train[0]
    dls,pool = pack_dls(task, n=1, size=16)
    C = len(want.classes)
    assert dls.one_batch()[0].shape==(C,3,16,16)
    assert list(dls.vocab)==want.classes and len(pool)==(~task.is_test).sum()-C and len(dls.valid_ds)==task.is_test.sum()
    assert unlabeled_dl(dls, pool, bs=4).one_batch()[0].shape==(4,3,16,16)

def test_image_dls_from_a_task(tmp_path):
    make_oxford_pets(tmp_path)
    task = load_task('oxford_pets', tmp_path)
    dls = image_dls(*task.train, *task.test, vocab=task.classes, size=16, bs=4)
    few,pool = few_label_dls(dls, n=2)
    assert few.one_batch()[0].shape==(4,3,16,16) and len(few.train_ds)==6 and len(pool)==6

@pytest.mark.parametrize('name', list(makers))
def test_nothing_there(name, tmp_path):
    home = tasks.task_homes[name].split()[-1]
    for path in tmp_path,tmp_path/'nowhere':
        with pytest.raises(FileNotFoundError) as e: load_task(name, path)
        assert f"task '{name}'" in str(e.value) and home in str(e.value) and str(path) in str(e.value)
        assert ('download=True' in str(e.value))==(name in tasks.task_downloads)

def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match='it is one of cub200, chestx'): load_task('cub', tmp_path)

# every list of a task, removed; every task, with an image removed
lists = dict(cub200=['CUB_200_2011/'+o for o in ('images.txt','image_class_labels.txt','train_test_split.txt','classes.txt')],
             nabirds=['nabirds/'+o for o in ('images.txt','image_class_labels.txt','train_test_split.txt','classes.txt')],
             oxford_pets=['oxford-iiit-pet/annotations/'+o for o in ('trainval.txt','test.txt')],
             stanford_dogs=['train_list.mat','test_list.mat'],
             chestx=['Data_Entry_2017.csv','train_val_list.txt','test_list.txt'],
             isic2018=['ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv',
                       'ISIC2018_Task3_Training_LesionGroupings.csv'],
             eurosat=[], crop_disease=['PlantVillage-Dataset/leaf-map.json'])

@pytest.mark.parametrize('name,file', [(k,o) for k,v in lists.items() for o in v])
def test_list_missing(name, file, tmp_path):
    makers[name](tmp_path)
    (tmp_path/file).unlink()
    with pytest.raises(FileNotFoundError) as e: load_task(name, tmp_path)
    assert file.split('/')[-1] in str(e.value) and tasks.task_homes[name] in str(e.value)

@pytest.mark.parametrize('name', [o for o in makers if o not in ('eurosat','crop_disease')])
def test_image_missing(name, tmp_path):
    file = makers[name](tmp_path).items[-2]
    file.unlink()
    with pytest.raises(FileNotFoundError) as e: load_task(name, tmp_path)
    assert file.name in str(e.value) and f"(1 of {len(list(makers[name](tmp_path).items))} images are missing)" in str(e.value)

def line(file, k, to):
    "Replace line `k` of `file`; None drops it"
    rows = file.read_text().splitlines()
    rows[k:k+1] = [] if to is None else [to]
    write(file, rows)

@pytest.mark.parametrize('name,file,k,to,match', [
    ('cub200','image_class_labels.txt',3,None,'lacks 1 of the 18 images of images.txt, the first is 4'),
    ('cub200','train_test_split.txt',3,None,'lacks 1 of the 18'),
    ('cub200','train_test_split.txt',3,'4 2',"expected 0 or 1, got '2'"),
    ('cub200','images.txt',3,'4','expected 2 columns'),
    ('cub200','images.txt',3,'3 002.Laysan_Albatross/x.jpg','1 ids come twice'),
    ('nabirds','classes.txt',2,None,'has no class 295'),
    ('oxford_pets','trainval.txt',3,'Abyssinian_5 1','expected 4 columns'),
    ('oxford_pets','test.txt',3,'american_bulldog_3 x 1 1','three numbers'),
    ('oxford_pets','test.txt',3,'american_bulldog_3 1 1 1',"number 1 to 'Abyssinian' and to 'american_bulldog'"),
    ('oxford_pets','test.txt',3,'american_bulldog_3 9 1 1',"two numbers to one class"),
    ('chestx','test_list.txt',0,None,'1 images of Data_Entry_2017.csv are in neither list, the first is 00000003_000.png'),
    ('chestx','test_list.txt',0,'00000001_000.png','is in train_val_list.txt and in test_list.txt'),
    ('chestx','Data_Entry_2017.csv',0,'a,b,c','its columns are Image Index, Finding Labels'),
    ('isic2018','ISIC2018_Task3_Training_GroundTruth.csv',2,'ISIC_0024307,0.0,1.0,0.0,1.0,0.0,0.0,0.0',
     '1 images have not exactly one class, the first is ISIC_0024307'),
    ('isic2018','ISIC2018_Task3_Training_GroundTruth.csv',2,'ISIC_0024307,0.0,,0.0,0.0,0.0,0.0,0.0','not exactly one class'),
    ('isic2018','ISIC2018_Task3_Training_GroundTruth.csv',0,'picture,MEL','its columns are image, MEL'),
    ('isic2018','ISIC2018_Task3_Training_LesionGroupings.csv',2,None,'lacks 1 of 42 images'),
    ('crop_disease','leaf-map.json',0,'{"rs_hl','is not JSON')])
def test_damaged_list(name, file, k, to, match, tmp_path):
    makers[name](tmp_path)
    line(next(tmp_path.rglob(file)), k, to)
    with pytest.raises(ValueError, match=match) as e: load_task(name, tmp_path)
    assert str(tmp_path) in str(e.value)

def test_damaged_mat(tmp_path):
    make_stanford_dogs(tmp_path)
    file = tmp_path/'test_list.mat'
    good = file.read_bytes()
    for bad in good[:150],b'<html>404</html>',b'':
        file.write_bytes(bad)
        with pytest.raises(ValueError, match='is not a list of Stanford Dogs'): load_task('stanford_dogs', tmp_path)
    mat(file, ['n02085620-Chihuahua/n02085620_3.jpg'], [2])
    with pytest.raises(ValueError, match="number 2 to 'Japanese_spaniel' and to 'Chihuahua'"): load_task('stanford_dogs', tmp_path)

def test_chestx_layouts(tmp_path):
    "All images in one folder, as the archives of the NIH unpack; the labels of 2020"
    want = make_chestx(tmp_path)
    (tmp_path/'images').mkdir()
    for o in tmp_path.glob('images_*/images/*.png'): o.rename(tmp_path/'images'/o.name)
    assert list(load_task('chestx', tmp_path).items)==[tmp_path/'images'/o.name for o in want.items]
    (tmp_path/'Data_Entry_2017.csv').rename(tmp_path/'Data_Entry_2017_v2020.csv')
    assert load_task('chestx', tmp_path).labels.tolist()==list(want.labels)

def test_crop_disease_of_kaggle(tmp_path):
    for part,n in ('train',4),('test',2):
        for c in plants:
            for i in range(n): paint(tmp_path/'dataset'/part/c/f'{part}{i}.JPG')
    task = load_task('crop_disease', tmp_path)
    assert len(task)==18 and task.is_test.sum()==6 and list(task.classes)==plants and all('test' in o.parts for o in task.test[0])
    assert list(load_task('crop_disease', tmp_path/'dataset').items)==list(task.items)
    (tmp_path/'dataset'/'test'/plants[0]).rename(tmp_path/'dataset'/'test'/'Apple___scab')
    with pytest.raises(ValueError, match='in only one of train and test'): load_task('crop_disease', tmp_path)
    (tmp_path/'dataset'/'test').rename(tmp_path/'elsewhere')
    with pytest.raises(FileNotFoundError, match="no 'test'"): load_task('crop_disease', tmp_path)

def test_isic_table_beside_images(tmp_path):
    want = make_isic2018(tmp_path)
    table = next(tmp_path.rglob('*GroundTruth.csv'))
    table.rename(tmp_path/table.name)
    assert list(load_task('isic2018', tmp_path).items)==want.items

def test_eurosat_folders(tmp_path):
    make_eurosat(tmp_path)
    a = load_task('eurosat', tmp_path)
    for o in tmp_path/'eurosat',tmp_path/'eurosat'/'2750': assert list(load_task('eurosat', o).items)==list(a.items)
    (tmp_path/'eurosat'/'2750').rename(tmp_path/'EuroSAT_RGB')
    b = load_task('eurosat', tmp_path)
    assert [o.name for o in a.test[0]]==[o.name for o in b.test[0]]

def test_nabirds_twice_the_same_name(tmp_path):
    make_nabirds(tmp_path)
    line(tmp_path/'nabirds'/'classes.txt', 3, '817 Common Eider (Adult male)')
    assert list(load_task('nabirds', tmp_path).classes)[:2]==['Common Eider (Adult male) [295]','Common Eider (Adult male) [817]']

@pytest.mark.parametrize('name', sorted(tasks.task_downloads))
def test_download(name, tmp_path, monkeypatch):
    "What is missing is fetched once, from the right place, into `path`; no network here"
    import torchvision.datasets, torchvision.datasets.utils as utils
    seen,path = [],tmp_path/'data sets'
    def _got(what):
        seen.append(what)
        makers[name](path)
    monkeypatch.setattr(tasks, 'untar_data', lambda url, base: (seen.append(url), makers[name](base/'data')))
    for o in 'EuroSAT','OxfordIIITPet': monkeypatch.setattr(torchvision.datasets, o, lambda root, download, o=o: _got(o))
    for o in 'download_and_extract_archive','download_url': monkeypatch.setattr(utils, o, lambda url, root: _got(url))
    task = load_task(name, path, download=True)
    home = dict(cub200='CUB_200_2011.tgz', eurosat='EuroSAT', oxford_pets='OxfordIIITPet',
                isic2018='isic-challenge-data', stanford_dogs='vision.stanford.edu')[name]
    n = len(seen)
    assert n==dict(isic2018=3, stanford_dogs=2).get(name, 1) and all(home in o for o in seen)
    assert list(load_task(name, path, download=True).items)==list(task.items) and len(seen)==n

def test_download_not_offered(tmp_path):
    for name in set(paper_tasks)-set(tasks.task_downloads):
        with pytest.raises(ValueError, match='cannot be fetched') as e: load_task(name, tmp_path, download=True)
        assert tasks.task_homes[name] in str(e.value)

def test_another_seed_draws_another_test_part(tmp_path):
    for o in 'AnnualCrop','Forest':
        for i in range(10): paint(tmp_path/o/f'{o}_{i}.jpg')
    a,b,c = (load_task('eurosat', tmp_path, seed=s).is_test for s in (0,0,1))
    assert (a==b).all() and (a!=c).any()
