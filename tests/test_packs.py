"Packs: files of the right and of the wrong form, the demo's digits, and the real packs where they are"
import io, os
from collections import Counter
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from distill_nb.items import get_images, image_items, item_labels
from distill_nb.packs import digits_dls, load_pack, pack_dls
from distill_nb.pool import unlabeled_dl
from test_data import classes, images

def _pack(path, n=30, **over):
    js = []
    for o in images(n):
        b = io.BytesIO()
        Image.fromarray(o).save(b, 'jpeg')
        js.append(b.getvalue())
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

@pytest.mark.parametrize('name,change', [
    ('offsets', lambda v: v+.5), ('labels', lambda v: v/2), ('is_test', lambda v: v.astype(int)), ('classes', lambda v: np.arange(3)),
    ('jpeg', lambda v: v.astype(np.uint16))])
def test_an_array_of_another_kind(name, change, tmp_path):
    _pack(tmp_path/'good.npz')
    good = dict(np.load(tmp_path/'good.npz'))
    np.savez(tmp_path/'other.npz', **{**good, name: change(good[name])})
    with pytest.raises(ValueError, match=f'holds {name} of'): load_pack(tmp_path/'other.npz')

@pytest.mark.parametrize('name,change', [
    ('labels', lambda v: v+1), ('labels', lambda v: v-1), ('labels', lambda v: v[1:]), ('offsets', lambda v: v[::-1]),
    ('offsets', lambda v: v+1)])
def test_arrays_that_do_not_fit(name, change, tmp_path):
    _pack(tmp_path/'good.npz')
    good = dict(np.load(tmp_path/'good.npz'))
    np.savez(tmp_path/'other.npz', **{**good, name: change(good[name])})
    with pytest.raises(ValueError, match='other.npz'): load_pack(tmp_path/'other.npz')
