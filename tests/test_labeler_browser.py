"Labelling by hand in a real browser, served by Voila and by JupyterLab: keys, clicks, and a page that is closed and opened again"
import json, os, time
from pathlib import Path
import pandas as pd, pytest
from browser import browser, chromium, run_in_lab, serve, serve_lab

pytestmark = pytest.mark.browser
wait = 600_000 # ms, for cells to run on a machine that others keep busy

code = """import warnings
warnings.simplefilter('ignore')
from distill_nb.labeler import *
from distill_nb.zoo import Zoo
lab = Zoo.embedded().label('images', 'images/labels.csv', n=20, store='store', progress=False)
lab"""

# sources that are right, and labels of two classes from the beginning
knowing = """import numpy as np
from distill_nb.choose import Choice
from distill_nb.hand_labels import HandLabels
from distill_nb.items import get_images
from distill_nb.labeler import Labeler
def digit(o): return o.name.split('_')[1]
def choose(images, labeled, n):
    vocab = list('0123456789')
    probs = np.array([[.91 if v == digit(o) else .01 for v in vocab] for o in images])
    return Choice(images, np.arange(n), ['as it comes']*n, vocab, probs)
files = get_images('images')
hand = HandLabels('images/lab.csv', list('0123456789'))
hand.label(files[0], digit(files[0]))
lab = Labeler(files, hand, choose)
lab"""

# two of the labels are wrong
doubtful = """import warnings
warnings.simplefilter('ignore')
from distill_nb.labeler import *
from distill_nb.zoo import Zoo
lab = Zoo.embedded(names=['digits','printed_digits']).review('images/wrong.csv', store='store', progress=False)
lab"""

@pytest.fixture(scope='module')
def chrome():
    with browser(chromium()) as b: yield b

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A folder with handwritten digits, called after their classes, and a notebook"
    from distill_nb.all import digits_dls, labeled_images, open_image
    d = tmp_path_factory.mktemp('label')
    (d/'images').mkdir()
    images,labels = labeled_images(digits_dls(n=12, seed=0)[0].train)
    for i,(o,y) in enumerate(zip(images, labels)): open_image(o).save(d/'images'/f'digit_{y}_{i:03d}.png')
    right = pd.DataFrame(dict(image=sorted(o.name for o in (d/'images').glob('*.png'))))
    right['label'] = right.image.str.split('_').str[1]
    right.assign(label=right.label.mask(right.index.isin((5,40)), '9')).to_csv(d/'images'/'wrong.csv', index=False)
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
    for name,text in dict(label=code, knowing=knowing, doubtful=doubtful).items():
        cell = dict(cell_type='code', id='a', metadata={}, source=text, outputs=[], execution_count=None)
        nb = dict(cells=[cell], metadata=kernel, nbformat=4, nbformat_minor=5)
        (d/f'{name}.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    return d

def open_page(chrome, show, width=1280, height=900, **kwargs):
    p = chrome.new_context(viewport=dict(width=width, height=height), **kwargs).new_page()
    p.set_default_timeout(wait)
    show(p)
    p.wait_for_selector('.dnb-frame img')
    p.wait_for_function("document.querySelector('.dnb-labeler').dnb")
    return p

def image(p): return p.get_attribute('.dnb-stage[data-image]', 'data-image') # waits while the next images are being chosen
def turn(p): return p.get_attribute('[data-turn]', 'data-turn')
def truth(p): return Path(image(p)).name.split('_')[1]
def table(d): return pd.read_csv(d/'images'/'labels.csv', dtype=str)
def act(p, f):
    "Do `f` and wait until the page has answered"
    before = turn(p)
    f()
    p.wait_for_function("t => document.querySelector('[data-turn]').dataset.turn != t", arg=before, timeout=30_000)
def key(p, k): act(p, lambda: p.keyboard.press(k))
def new_class(p, name):
    p.keyboard.press('n')
    p.keyboard.type(name)
    key(p, 'Enter')

def shot(p, name):
    "A picture of the page, into the folder $DISTILL_NB_SHOTS if there is one: look at them"
    if folder := os.environ.get('DISTILL_NB_SHOTS'): p.screenshot(path=Path(folder)/f'{name}.png')

def too_wide(p):
    "Parts of the widget beyond its right edge or that of the page"
    return p.evaluate("""() => {
        const box = document.querySelector('.dnb-labeler'), right = Math.min(innerWidth, box.getBoundingClientRect().right) + 1;
        return [...box.querySelectorAll('.dnb-lab button, .dnb-lab .dnb-stage, .dnb-lab .dnb-side, .dnb-new, .dnb-progress')]
            .filter(o => o.getBoundingClientRect().right > right).map(o => o.className + ' ' + o.innerText)}""")

def test_fifty_labels_by_keyboard(chrome, made):
    "Fifty images in Voila: the clock, undo, put off, none of these, a new class; closed and opened again, it goes on"
    pytest.importorskip('voila', reason='browser tests need voila: pip install -e ".[dev]"')
    with serve('voila', 'label.ipynb', '--Voila.ip=127.0.0.1', cwd=made) as url:
        show = lambda p: p.goto(url, wait_until='commit')
        p = open_page(chrome, show)
        shot(p, 'voila_first')
        start = time.time()
        key(p, 's')
        rejected = image(p)
        key(p, 'x')
        for i in range(26):
            if p.locator(f'[data-key="{truth(p)}"]').count(): key(p, truth(p))
            else: new_class(p, truth(p))
        wrong = image(p)
        new_class(p, 'a mistake')
        assert 'a mistake' in set(table(made).label)
        key(p, 'u')
        assert image(p) == wrong and 'a mistake' not in p.inner_text('.dnb-classes')
        shot(p, 'voila_26')
        p.close()                                          # in the middle of it

        p = open_page(chrome, show, width=390, height=844)
        assert '26 labels, 1 of no class' in p.inner_text('.dnb-progress')
        assert 'Sources: ' in p.inner_text('.dnb-stage') and p.locator('.dnb-classes .dnb-guess').count() == 1
        assert p.inner_text('.dnb-outlook span').startswith('Another 20 labels') and p.locator('.dnb-outlook polyline').count() == 1
        for i in range(24):
            b = p.locator(f'[data-key="{truth(p)}"]')
            if b.count(): act(p, b.click if i % 2 else lambda: p.keyboard.press(truth(p)))
            else: new_class(p, truth(p))
        assert time.time() - start < 180
        shot(p, 'voila_390')
        assert not too_wide(p) and p.evaluate('document.documentElement.scrollWidth <= innerWidth')
        p.close()
    t = table(made)
    assert len(t) == t.image.nunique() == 50
    assert (t.image.str.split('_').str[1] == t.label).all()
    assert rejected not in set(t.image) and (made/'images'/'labels.none.csv').read_text().split() == ['image', Path(rejected).name]

def test_jupyterlab(chrome, made):
    "In JupyterLab, whose own keys rest while the widget has the focus; the guess on Enter and the space bar"
    with serve_lab(made) as url:
        p = open_page(chrome, lambda p: run_in_lab(p, url, 'knowing.ipynb'))
        p.locator('.dnb-frame').click()
        for k in ('Enter','Space','Enter'):
            assert p.inner_text('.dnb-guess span') == truth(p)
            key(p, k)
        first = image(p)
        key(p, 'x')
        key(p, 's')
        new_class(p, 'd d')                                 # d d removes a cell, elsewhere
        for k in ('Backspace','u','u'): key(p, k)
        assert image(p) == first
        shot(p, 'lab_light')
        t = pd.read_csv(made/'images'/'lab.csv', dtype=str)
        assert len(t) == 4 and (t.image.str.split('_').str[1] == t.label).all()
        assert p.locator('.jp-Notebook .jp-Cell').count() == 1 and not too_wide(p)

def contrast(p, css):
    "The least contrast of the text of buttons with what is behind them (WCAG 2.2, 1.4.3, where 4.5 is asked for)"
    return p.evaluate("""css => {
        const rgb = o => o.match(/[\\d.]+/g).map(Number)
        const light = c => c.slice(0, 3).map(v => v/255).map(v => v <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4)
            .reduce((a, v, i) => a + v*[.2126, .7152, .0722][i], 0)
        const behind = o => {
            const c = o ? rgb(getComputedStyle(o).backgroundColor) : [255, 255, 255]
            const a = c[3] ?? 1
            return a == 1 ? c : behind(o.parentElement).map((v, i) => (1-a)*v + a*c[i]).slice(0, 3)}
        return Math.min(...[...document.querySelectorAll(css)].map(o => {
            const [a, b] = [light(rgb(getComputedStyle(o).color)), light(behind(o))].sort((x, y) => y - x)
            return (a + .05)/(b + .05)}))}""", css)

def test_review_in_a_dark_theme(chrome, made):
    "Two wrong labels in Voila: one is mended by the guess, one is kept, taken back and mended; readable at the width of a telephone"
    pytest.importorskip('voila', reason='browser tests need voila: pip install -e ".[dev]"')
    read = lambda: pd.read_csv(made/'images'/'wrong.csv', dtype=str)
    truth = lambda: read().image.str.split('_').str[1]
    assert (read().label != truth()).sum() == 2
    with serve('voila', 'doubtful.ipynb', '--Voila.ip=127.0.0.1', '--theme=dark', cwd=made) as url:
        p = open_page(chrome, lambda p: p.goto(url, wait_until='commit'), width=390, height=844, color_scheme='dark')
        assert 'Labelled 9, wrong with' in p.inner_text('.dnb-stage') and 'keep the label' in p.inner_text('.dnb-acts')
        shot(p, 'review_dark_390')
        assert not too_wide(p) and p.evaluate('document.documentElement.scrollWidth <= innerWidth')
        assert contrast(p, '.dnb-lab button span, .dnb-lab button small, .dnb-lab kbd') > 4.5
        key(p, 'Enter')
        assert (read().label != truth()).sum() == 1
        second = image(p)
        act(p, p.locator('.dnb-acts [data-act="keep"]').click)
        assert (read().label != truth()).sum() == 1
        key(p, 'u')
        assert image(p) == second
        key(p, 'Enter')
        p.close()
    assert (read().label == truth()).all()
