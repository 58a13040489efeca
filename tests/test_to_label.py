"The folder of images to label: whole or not there, never in place of anything else, and labelled data once it is filled in"
import numpy as np, pandas as pd, pytest
from PIL import Image
from browser import faults_on_a_phone
from distill_nb import to_label
from distill_nb.choose import Choice
from distill_nb.items import get_images
from distill_nb.labeled import labeled_images
from distill_nb.to_label import write_to_label

pics = np.random.default_rng(0).integers(0, 256, (6,16,16,3), dtype=np.uint8)
odd = ['a, b.png','#1 100%.png','"q".png','dé ü.png','<b>.png','=1+1.png']

@pytest.fixture()
def photos(tmp_path):
    "Six images, whose names are hard on tables and pages"
    (tmp_path/'photos').mkdir()
    for name,im in zip(odd, pics): Image.fromarray(im).save(tmp_path/'photos'/name)
    return tmp_path/'photos'

def chosen(images, probs=None):
    "Six images in an order of their own, with a guess or without"
    return Choice(get_images(images), np.array([4,0,5,1,3,2]), ['typical <i>']*6, [] if probs is None else ['a','b'], probs)

def fill(out, labels, keep=slice(None)):
    "Write labels into the table"
    t = pd.read_csv(out/'to_label.csv', dtype=str, keep_default_na=False)
    t['label'] = labels
    t.iloc[keep].to_csv(out/'to_label.csv', index=False)
    return out/'to_label.csv'

def test_names_of_any_kind_come_back_with_their_labels(photos, tmp_path):
    choice = chosen(photos, np.full((6,2), .5))
    out = write_to_label(choice, tmp_path/'next')
    images,labels = labeled_images(fill(out, list('abcdef')))
    assert list(labels) == list('abcdef')
    assert [o.read_bytes() for o in images] == [o.read_bytes() for o in choice.chosen]
    assert [o.name for o in images] == [f'0{i}_{o.name}' for i,o in enumerate(choice.chosen, 1)]

def test_rows_without_a_label_are_told_or_left_out(photos, tmp_path):
    out = write_to_label(chosen(photos), tmp_path/'next')
    with pytest.raises(ValueError, match='6 of 6 images have no label .*label them, or leave them out'): labeled_images(out/'to_label.csv')
    table = fill(out, ['x','y','','x','y',''])
    with pytest.raises(ValueError, match='2 of 6 images have no label'): labeled_images(table)
    assert len(labeled_images(fill(out, ['x','y','','x','y',''], [0,1,3,4]))[0]) == 4

def test_the_page_shows_names_as_they_are_and_needs_nothing_else(photos, tmp_path):
    page = (write_to_label(chosen(photos, np.full((6,2), .5)), tmp_path/'next')/'index.html').read_text()
    assert page.count('data:image/jpeg;base64,') == 6 and page.count('guess: a, 50 %') == 6 and 'http' not in page
    assert '&lt;b&gt;.png' in page and '<b>.png' not in page and '<i>' not in page
    assert 'href="04_%231%20100%25.png"' in page
    assert 'guess' not in (write_to_label(chosen(photos), tmp_path/'first')/'index.html').read_text()

@pytest.mark.browser
def test_the_page_fits_a_phone_and_is_readable_in_the_dark(photos, tmp_path):
    assert faults_on_a_phone(write_to_label(chosen(photos, np.full((6,2), .5)), tmp_path/'next')/'index.html') == []

@pytest.mark.parametrize('images', [list(pics), [b'', *[None]*5]], ids=['arrays','bytes'])
def test_images_that_are_no_files(images, photos, tmp_path):
    if images[0] is not pics[0] and isinstance(images[0], bytes): images = [o.read_bytes() for o in sorted(photos.iterdir())]
    out = write_to_label(chosen(images), tmp_path/'next')
    assert sorted(o.name for o in out.glob('*.png')) == [f'0{i}_image.png' for i in range(1,7)]
    want = images[4] if isinstance(images[4], bytes) else None
    got = (out/'01_image.png')
    assert got.read_bytes() == want if want else (np.asarray(Image.open(got)) == pics[4]).all()

def test_what_fails_leaves_nothing(photos, tmp_path, monkeypatch):
    choice = chosen(photos)
    def fail(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(to_label, 'to_label_page', fail)
        with pytest.raises(OSError): write_to_label(choice, tmp_path/'next')
    assert [o.name for o in tmp_path.iterdir()] == ['photos']
    out = write_to_label(choice, tmp_path/'next')
    before = {o.name: o.read_bytes() for o in out.iterdir()}
    with monkeypatch.context() as m:
        m.setattr(to_label, 'to_label_page', fail)
        with pytest.raises(OSError): write_to_label(choice, out, force=True)
    assert {o.name: o.read_bytes() for o in out.iterdir()} == before and len(list(tmp_path.iterdir())) == 2

def test_nothing_is_written_over(photos, tmp_path):
    choice = chosen(photos)
    with pytest.raises(ValueError, match='holds other files'): write_to_label(choice, photos)
    with pytest.raises(ValueError, match='holds other files'): write_to_label(choice, photos, force=True)
    (tmp_path/'empty').mkdir()
    out = write_to_label(choice, tmp_path/'empty')
    fill(out, ['x']*4 + ['']*2)
    with pytest.raises(ValueError, match='4 of them labelled.*force=True'): write_to_label(choice, out)
    assert pd.read_csv(write_to_label(choice, out, force=True)/'to_label.csv').label.isna().all()
    with pytest.raises(ValueError, match='`out` must be a place for a folder'): write_to_label(choice, photos/'=1+1.png')

def test_what_is_no_choice():
    none = Choice(get_images(list(pics)), np.array([], int), [], [])
    with pytest.raises(TypeError, match='`choice` must be a Choice'): write_to_label([], 'x')
    with pytest.raises(ValueError, match='no image was chosen'): write_to_label(none, 'x')
