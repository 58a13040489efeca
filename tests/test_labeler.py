"The labelling widget, act by act, without a page"
import re, threading
import bs4, numpy as np, pandas as pd, pytest
from PIL import Image
from distill_nb.choose import Choice
from distill_nb.hand_labels import HandLabels
from distill_nb.items import get_images
from distill_nb.browse import class_keys
from distill_nb.labeler import Labeler, Reviewer
from distill_nb.suspects import Suspects
from distill_nb.zoo import Zoo

@pytest.fixture
def images(tmp_path):
    res = [tmp_path/f'{i:02d}.png' for i in range(40)]
    for i,o in enumerate(res): Image.fromarray(np.random.default_rng(i).integers(0, 256, (8,8,3), dtype=np.uint8)).save(o)
    return res

class Chooser:
    "Chooses as they come; knows a class from its first two labels on"
    def __init__(self): self.asked,self.gate = [],threading.Event()
    def __call__(self, images, labeled, n):
        if self.asked: self.gate.wait(60)
        self.asked.append((len(images), None if labeled is None else list(labeled[1])))
        vocab = [] if labeled is None else sorted(set(labeled[1]))
        probs = np.tile(np.linspace(1, 2, len(vocab))/np.linspace(1, 2, len(vocab)).sum(), (len(images),1)) if len(vocab) > 1 else None
        return Choice(images, np.arange(min(n, len(images))), ['typical']*n, vocab, probs)

@pytest.fixture
def choose():
    res = Chooser()
    res.gate.set()
    return res

def labeler(images, choose, vocab=('cat','dog'), n=8, **kwargs):
    return Labeler(images, HandLabels(images[0].parent/'labels.csv', list(vocab)), choose, n, **kwargs)

def words(lab): return re.sub('<style.*?</style>|<[^>]+>', ' ', lab.to_html(), flags=re.S)

def test_one_label_after_the_other(images, choose):
    lab = labeler(images, choose)
    assert lab.current == 0 and 'typical' in words(lab) and '0 labels' in words(lab) and '00.png' in words(lab)
    lab.give('cat')
    lab.reject()
    lab.skip()
    lab.give('a fox')
    assert lab.current == 4 and lab.labels.labels == {'00.png': 'cat', '03.png': 'a fox'} and lab.vocab == ['cat','dog','a fox']
    assert '2 labels, 1 of no class, 1 put off' in words(lab)

def test_undo_brings_the_image_back(images, choose):
    lab = labeler(images, choose)
    acts = [lambda: lab.give('cat'), lab.reject, lab.skip, lambda: lab.give('new')]
    for f in acts: f()
    for i in (3,2,1,0):
        lab.undo()
        assert lab.current == i and lab.queue[:3] == [i,i+1,i+2]
    lab.undo()
    assert lab.current == 0 and not lab.labels.said and 'new' not in lab.vocab

def test_it_chooses_anew_without_touching_the_screen(images, choose):
    lab = labeler(images, choose)
    choose.gate.clear()
    for _ in range(4): lab.give('dog')
    assert lab.busy.is_alive() and lab.queue == [4,5,6,7]
    lab.give('cat')                                             # while the sources are asked
    before = lab.queue[:]
    choose.gate.set()
    lab.wait()
    assert lab.queue[:3] == before == [5,6,7] and len(lab.queue) > 3 and not set(lab.queue) & set(range(5))
    assert choose.asked[1][1] == ['dog']*3 + choose.asked[1][1][3:]

def test_the_guess(images, choose):
    lab = labeler(images, choose)
    lab.accept()                                                # there is none yet
    assert lab.current == 0 and lab.guess is None
    for o in ('cat','dog','dog','dog'): lab.give(o)
    lab.wait()
    assert lab.guess[0] == 'dog' and 'dog 67%' in ' '.join(words(lab).split()) and 'class="dnb-guess"' in lab.buttons.value
    lab.accept()
    assert lab.labels.labels['04.png'] == 'dog'

def test_images_put_off_come_back_at_the_end(images, choose):
    lab = labeler(images[:4], choose)
    lab.skip()
    for _ in range(3): lab.wait().give('cat')
    assert lab.wait().current == 0
    lab.skip()
    assert lab.wait().current == 0
    lab.give('dog')
    assert lab.wait().current is None and 'All images are labelled' in words(lab)
    for f in (lab.accept, lab.reject, lab.skip, lambda: lab.give('cat')): f()
    assert len(lab.labels) == 4
    lab.undo()
    assert lab.current == 0

def test_a_reopened_table(images, choose):
    lab = labeler(images, choose)
    for _ in range(3): lab.give('fox')
    lab.reject()
    again = labeler(images, choose)
    assert again.current == 4 and again.vocab == ['cat','dog','fox'] and len(again.labels) == 3
    assert choose.asked[-1] == (36, ['fox']*3)

def said(lab, act): lab.said.value = act

def test_what_the_page_says(images, choose):
    "An act counts for the turn that the page saw, once; others are ignored"
    lab = labeler(images, choose)
    said(lab, '0 give cat')
    said(lab, '0 give dog')                                     # the key was pressed twice
    assert lab.labels.labels == {'00.png': 'cat'} and 'data-turn="1"' in lab.buttons.value
    said(lab, '1 accept')                                       # no guess: nothing happens, and the page hears of it
    assert lab.current == 1 and 'data-turn="2"' in lab.buttons.value
    said(lab, '2 give two words')
    said(lab, '3 skip')
    said(lab, '4 reject')
    assert list(lab.labels.said.values()) == ['cat','two words',None,False]
    for i,odd in enumerate(('5 _fill','5 wait','nonsense','','5 give')): said(lab, odd)
    assert len(lab.labels.said) == 4

def test_what_goes_wrong_is_shown(images, choose):
    lab = labeler(images, choose)
    said(lab, '0 give cat; dog')
    assert 'several classes' in lab.foot.value and lab.current == 0
    said(lab, '1 give cat')
    assert 'several classes' not in lab.foot.value and lab.current == 1

def test_a_choice_that_fails(images):
    "At first it is an error; later labelling goes on as images come, and the page says why"
    def fails(images, labeled, n):
        if labeled is None: return Choice(images, np.arange(n), ['']*n, [])
        raise RuntimeError('the disk <b>is gone')
    lab = labeler(images, fails)
    for _ in range(5): lab.wait().give('cat')
    lab.wait()
    assert 'as they come (RuntimeError: the disk &lt;b&gt;is gone)' in lab.foot.value and len(lab.queue) >= 8
    with pytest.raises(RuntimeError): labeler(images, fails)

def test_the_forecast(images, choose):
    class Sure:
        curve = pd.DataFrame(dict(labels=[2,4,8], accuracy=[.4,.5,.6]))
        def __str__(self): return 'Another 20 labels would bring about 3 points.'
    def forecast(images, labels):
        if len(labels) < 2: raise ValueError('too few')
        return Sure()
    lab = labeler(images, choose, forecast=forecast)
    assert 'dnb-curve' not in lab.to_html()
    for _ in range(4): lab.wait().give('cat')
    assert 'about 3 points' in words(lab.wait()) and 'dnb-curve' in lab.to_html()

def test_labels_of_elsewhere_count(images, choose):
    lab = labeler(images[2:], choose, vocab=(), labeled=(images[:2], ['owl','ape']))
    assert lab.vocab == ['owl','ape'] and choose.asked[0] == (38, ['owl','ape']) and lab.guess == ('owl', pytest.approx(2/3))
    lab.give('owl')
    assert lab.labels.labels == {'02.png': 'owl'}

def test_a_choice_from_a_part_of_the_images(images):
    "The positions of a choice are those in its own images"
    def part(images, labeled, n): return Choice(images[[5,3]], np.array([1,0]), ['a','b'], ['cat','dog'], np.array([[.9,.1],[.2,.8]]))
    lab = labeler(images, part)
    assert lab.queue == [3,5] and lab.why == {3: 'a', 5: 'b'} and lab.guess == ('dog', .8)

def test_images_that_cannot_be_labelled(images, choose, tmp_path):
    with pytest.raises(ValueError, match='`pool`: 1 of 2 images.*save the images'):
        labeler([images[0], np.zeros((8,8,3), np.uint8)], choose)
    (tmp_path/'bad.png').write_bytes(b'no image')
    lab = labeler([tmp_path/'bad.png', *images[:3]], choose)
    assert 'cannot read image' in lab.stage.value
    lab.reject()
    assert lab.current == 1

def test_keys():
    assert class_keys(['cat','dog','x']) == {'cat': '1', 'dog': '2', 'x': '3'}
    assert 'k' not in class_keys([f'class {i}' for i in range(40)], 'nukx').values() and class_keys('kl', 'nukx') == {'k': '1', 'l': 'l'}
    assert class_keys('ab1') == {'a': 'a', 'b': 'b', '1': '1'} and class_keys(['a','A']) == {'a': 'a', 'A': '1'}

def test_names_of_classes_are_no_markup(images, choose):
    lab = labeler(images, choose, ['<img src=x onerror=alert(1)>', '"quoted"', "it's", '"both\'s"'])
    lab.give('"quoted"')
    page = bs4.BeautifulSoup(lab.to_html() + lab.field.value, 'html.parser')
    assert not page.find_all('img', src='x') and len(page.find_all('option')) == 4
    assert [o['data-act'] for o in page.select('.dnb-classes button')] == [f'give {o}' for o in lab.vocab]

def test_from_sources(images, tmp_path):
    "The embedded sources, before any label"
    lab = Zoo.embedded().label(images[:12], tmp_path/'labels.csv', ['a','b'], n=6, store=tmp_path/'store', progress=False)
    own = dict(labeled=(images[:2], ['a','b']), store=tmp_path/'store', progress=False)
    drawn = Zoo.embedded().label(images[2:12], tmp_path/'more.csv', **own)
    assert lab.forecast.keywords['chosen'] and not drawn.forecast.keywords['chosen']
    while lab.wait().current is not None: lab.give('ab'[len(lab.labels)%2])
    assert len(HandLabels(tmp_path/'labels.csv')) == 12 and not lab.note

class Doubts:
    "Takes images 1, 3 and 5 for dogs, the labels of others for right, and image 7 for no image"
    def __init__(self): self.asked,self.fails = [],False
    def __call__(self, labeled):
        images,labels = labeled
        self.asked.append(dict(zip([o.name for o in images], labels)))
        if self.fails: raise ValueError('one class is left')
        rows = [i for i,(o,y) in enumerate(zip(images, labels)) if o.name in ('01.png','03.png','05.png') and y == 'cat']
        odd = [i for i,o in enumerate(images) if o.name == '07.png']
        why = ['the sources take it for dog']*len(rows) + ['unlike all others']*len(odd)
        return Suspects(get_images(images), np.array(rows + odd, dtype=int), why,
                        ['cat','dog'], None, labels=labels, proposed=['dog']*len(rows) + ['']*len(odd),
                        sure=np.array([.9]*len(rows) + [np.nan]*len(odd)))

@pytest.fixture
def reviewer(images):
    "Ten labels: image 9 is a dog, the others are cats"
    hand = HandLabels(images[0].parent/'labels.csv')
    for i in range(10): hand.label(images[i], 'dog' if i == 9 else 'cat')
    return Reviewer(HandLabels(hand.path), Doubts())

def table(lab): return pd.read_csv(lab.labels.path).set_index('image').label.to_dict()

def test_suspects_one_by_one(reviewer):
    "Each key changes the table, whose rows stay in their order; what was kept is not asked again"
    rev,before = reviewer,table(reviewer)
    assert rev.queue == [1,3,5,7] and rev.given == 'cat' and '4 suspects left' in words(rev)
    assert 'Labelled cat , wrong with 90%. Sources: dog' in ' '.join(words(rev).split()) and 'the sources take it for dog' in words(rev)
    said(rev, '0 accept')
    assert table(rev) == before | {'01.png': 'dog'}
    said(rev, '1 keep')
    said(rev, '2 give a fox')
    assert table(rev) == before | {'01.png': 'dog', '05.png': 'a fox'} and list(table(rev)) == list(before)
    assert rev.wait().queue == [7] and rev.guess is None and 'wrong with' not in words(rev)
    said(rev, '3 accept')                                       # nothing is proposed
    assert rev.current == 7
    said(rev, '4 reject')
    rev.wait()
    assert rev.current is None and '07.png' not in table(rev)
    assert 'No other label looks wrong' in words(rev) and '0 suspects left' in words(rev)
    assert rev.choose.asked[-1]['01.png'] == 'dog' and rev.choose.asked[-1]['03.png'] == 'cat'

def test_undo_ends_where_the_page_began(reviewer):
    rev,before = reviewer,table(reviewer)
    for act in (rev.accept, rev.keep, lambda: rev.give('new'), rev.reject):
        act()
        rev.wait()
    for i in (7,5,3,1):
        rev.undo()
        assert rev.current == i
    rev.undo()
    assert rev.current == 1 and table(rev) == before and not rev.note

def test_put_off_is_no_act_of_a_review(reviewer):
    "It would take the label away"
    before = table(reviewer)
    said(reviewer, '0 skip')
    assert reviewer.current == 1 and table(reviewer) == before
    reviewer.skip()
    assert reviewer.current == 3 and table(reviewer) == before

def test_a_second_look_that_fails(reviewer):
    "The suspects that are known are shown, and no other image"
    reviewer.choose.fails = True
    for i in (1,3,5,7):
        assert reviewer.current == i
        reviewer.keep()
        reviewer.wait()
    assert reviewer.current is None and 'could not be asked again (ValueError: one class is left)' in words(reviewer)

def test_a_second_look_that_finds_more(reviewer):
    "Labels that look wrong only beside the mended ones join the end"
    def more(labeled):
        names = [o.name for o in labeled[0]]
        return Suspects(get_images(labeled[0]), np.array([names.index('02.png'), names.index('01.png')]), ['',''], ['cat','dog'], None,
                        labels=labeled[1], proposed=['dog','cat'], sure=np.array([.6,.5]))
    reviewer.choose = more
    reviewer.accept()
    assert reviewer.wait().queue == [3,5,7,2] and reviewer.current == 3

def test_review_from_sources(images, tmp_path):
    from distill_nb.packs import digits_dls
    from distill_nb.labeled import labeled_images
    from distill_nb.images import open_image
    items,y = labeled_images(digits_dls(n=6, seed=0)[0].train)
    hand = HandLabels(tmp_path/'digits.csv')
    for i,o in enumerate(items):
        open_image(o).save(tmp_path/f'd{i}.png')
        hand.label(tmp_path/f'd{i}.png', '7' if i == 40 else str(y[i]))
    rev = Zoo.embedded().review(hand.path, store=False, progress=False)
    while rev.wait().current is not None and rev.names[rev.current] != 'd40.png': rev.keep()
    assert rev.guess[0] == str(y[40])
    rev.accept()
    assert HandLabels(hand.path).labels == {f'd{i}.png': str(o) for i,o in enumerate(y)} and not rev.wait().note

@pytest.mark.parametrize('n', [0,3])
def test_labels_of_one_class_are_not_reviewed(images, n):
    hand = HandLabels(images[0].parent/'labels.csv')
    for o in images[:n]: hand.label(o, 'cat')
    with pytest.raises(ValueError, match=f'`path`.*{n} labels of {n > 0:d} class.*label more'): Zoo.embedded().review(hand.path)
