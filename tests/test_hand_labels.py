"Labels given by hand: what the table holds after each act, and that nothing is lost or half there"
import threading, time
import pandas as pd, pytest
from PIL import Image
from distill_nb.hand_labels import HandLabels, row_name
from distill_nb.labeled import labeled_images

@pytest.fixture
def images(tmp_path):
    "Twelve images, one with a name that a table must quote"
    (tmp_path/'photos').mkdir()
    names = [*(f'{i}.png' for i in range(10)), 'one, "two".png', ' odd é.png']
    res = [tmp_path/'photos'/o for o in names]
    for i,o in enumerate(res): Image.new('RGB', (4,4), (i,i,i)).save(o)
    return res

def test_the_table_is_what_labeled_images_takes(images, tmp_path, monkeypatch):
    hand = HandLabels(tmp_path/'labels.csv')
    for i,o in enumerate(images):
        hand.label(o, ['cat','big dog'][i%2])
        assert labeled_images(tmp_path/'labels.csv') == (images[:i+1], (['cat','big dog']*6)[:i+1])
    assert HandLabels(tmp_path/'labels.csv').labels == hand.labels
    outside = HandLabels(tmp_path/'elsewhere'/'labels.csv')
    outside.label(images[3], 'cat')
    assert outside.labels == {str(images[3]): 'cat'} and labeled_images(outside.path) == ([images[3]], ['cat'])
    monkeypatch.chdir(tmp_path)
    here = HandLabels('labels.csv')
    assert 'photos/3.png' in here and here.labels == hand.labels

def test_it_trains(images, tmp_path):
    "Rows of `distill_nb train`: images of no class and those put off are not in the way"
    from distill_nb.labeled import labeled_parts
    hand = HandLabels(tmp_path/'labels.csv')
    for i in range(6): hand.label(images[i], 'ab'[i%2])
    hand.reject(images[6])
    hand.skip(images[7])
    parts = labeled_parts(tmp_path/'labels.csv')
    assert [len(o[0]) for o in parts.values()] == [6]

def test_one_undo_undoes_one_act(images, tmp_path):
    "Whatever it was; the state after each act comes back"
    hand,states = HandLabels(tmp_path/'labels.csv', ['cat']),[]
    def state(): return dict(hand.said),hand.vocab,*(o.read_text() if o.exists() else None for o in (hand.path,hand.beside))
    acts = [(hand.label, 0, 'cat'), (hand.reject, 1), (hand.skip, 2), (hand.label, 0, 'fox'), (hand.label, 1, 'cat'),
            (hand.reject, 0), (hand.label, 2, 'cat'), (hand.skip, 2)]
    for f,i,*more in acts:
        states.append((images[i], state()))
        f(images[i], *more)
    empty = {hand.path: 'image,label\n', hand.beside: 'image\n'}
    while states:
        path,(said,vocab,*texts) = states.pop()
        assert hand.undo() == path
        assert hand.said == said and hand.vocab == vocab
        assert HandLabels(hand.path).said == {k:v for k,v in said.items() if v is not None}
        for o,text in zip((hand.path,hand.beside), texts):
            assert sorted(o.read_text().splitlines()) == sorted((text or empty[o]).splitlines())
    assert hand.undo() is None

def test_it_goes_on_where_it_was(images, tmp_path):
    hand = HandLabels(tmp_path/'labels.csv')
    hand.label(images[0], 'cat')
    hand.reject(images[1])
    hand.skip(images[2])
    again = HandLabels(tmp_path/'labels.csv', ['dog'])
    assert images[0] in again and images[1] in again and images[2] not in again and again.vocab == ['dog','cat']
    assert again.undo() == images[0] and len(again) == 0

def test_two_widgets_on_one_table_add_up(images, tmp_path):
    one,two = HandLabels(tmp_path/'labels.csv'),HandLabels(tmp_path/'labels.csv')
    def work(hand, part):
        for o in part: hand.label(o, 'cat')
    threads = [threading.Thread(target=work, args=o) for o in ((one, images[:6]), (two, images[6:]))]
    for o in threads: o.start()
    for o in threads: o.join()
    assert set(labeled_images(one.path)[0]) == set(images)
    one.undo()
    assert len(HandLabels(one.path)) == 11

def test_a_reader_sees_whole_tables(images, tmp_path):
    hand,seen,stop = HandLabels(tmp_path/'labels.csv', ['cat']),set(),threading.Event()
    hand.label(images[0], 'cat')
    def read():
        while not stop.is_set(): seen.add(hand.path.read_text())
    reader = threading.Thread(target=read)
    reader.start()
    for o in images[1:]: hand.label(o, 'cat')
    stop.set()
    reader.join()
    assert all(o.endswith('cat\n') and o.startswith('image,label\n') for o in seen)

def test_a_failed_write_leaves_everything_as_it_was(images, tmp_path, monkeypatch):
    hand = HandLabels(tmp_path/'labels.csv')
    hand.label(images[0], 'cat')
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr('distill_nb.hand_labels.write_whole', full)
        with pytest.raises(OSError, match='No space'): hand.label(images[1], 'cat')
    assert images[1] not in hand and len(HandLabels(hand.path)) == 1
    hand.undo()
    assert len(hand) == 0

odd = '', '  ', 'nan', 'NaN', 'cat; dog', 'cat|dog', 'cat,dog', 'dog cat'

@pytest.mark.parametrize('name,vocab', [*((o, ['cat','dog']) for o in odd), ('1.5', ['1','2']), ('1.0', ['1','2'])])
def test_names_that_a_table_cannot_hold(images, tmp_path, name, vocab):
    hand = HandLabels(tmp_path/'labels.csv', vocab)
    with pytest.raises(ValueError, match='`label`'): hand.label(images[0], name)
    assert not hand.path.exists()

@pytest.mark.parametrize('text,why', [('image,label,split\n0.png,cat,train\n', 'columns image, label, split'),
                                      ('id,class\n1,2\n', 'id, class'), ('image,label\nphotos/0.png,\n', 'gap')])
def test_a_table_of_somebody_else_is_left_as_it_is(tmp_path, text, why):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(ValueError, match=f'`path`.*{why}'): HandLabels(tmp_path/'t.csv')
    assert (tmp_path/'t.csv').read_text() == text

def test_what_is_no_file_is_refused(images, tmp_path):
    hand = HandLabels(tmp_path/'labels.csv')
    with pytest.raises(ValueError, match='save the images to a folder'): hand.label(Image.open(images[0]), 'cat')
    with pytest.raises(ValueError, match='there is no image'): hand.label(tmp_path/'lost.png', 'cat')
    with pytest.raises(ValueError, match='`path`'): HandLabels(tmp_path/'labels.xlsx')
    with pytest.raises(ValueError, match='`path`'): HandLabels(tmp_path/'photos')
    assert row_name(images[0], tmp_path) == 'photos/0.png'

def test_fifty_thousand_labels(tmp_path):
    "A label costs milliseconds, and a second would be felt"
    n = 50_000
    (tmp_path/'labels.csv').write_text('image,label\n' + ''.join(f'p/image_{i:06d}.png,class {i%20}\n' for i in range(n)))
    hand = HandLabels(tmp_path/'labels.csv')
    Image.new('RGB', (4,4)).save(tmp_path/'new.png')
    hand.label(tmp_path/'new.png', 'class 3')
    start = time.perf_counter()
    hand.undo()
    hand.label(tmp_path/'new.png', 'class 4')
    assert time.perf_counter() - start < 2 and len(pd.read_csv(hand.path)) == n+1
