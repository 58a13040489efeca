"The explore notebook in a real browser, served by Voila and by JupyterLab: every control does what it says"
import json, os, re, time
from pathlib import Path
import pytest
from browser import browser, chromium, hard_to_read, run_in_lab, serve, serve_lab, too_wide

notebook = Path(__file__).resolve().parent.parent/'nbs'/'tutorials'/'02_explore.ipynb'
pytestmark = pytest.mark.browser
wait = 900_000 # ms, for cells to run on a machine that others keep busy

@pytest.fixture(scope='module')
def rank():
    "The ranking that the notebook shows; what its sources say is kept for the notebook"
    from distill_nb.all import Zoo, digits_dls, rank_sources
    dls,_ = digits_dls(n=5, seed=0)
    return rank_sources(dls, Zoo.embedded(), progress=False)

@pytest.fixture(scope='module')
def chrome():
    with browser(chromium()) as b: yield b

@pytest.fixture(scope='module')
def page(chrome, rank, tmp_path_factory):
    "The notebook as Voila shows it, with a shorter comparison: what the last widget does, it does with any runs"
    pytest.importorskip('voila', reason='browser tests need voila: pip install -e ".[dev]"')
    d = tmp_path_factory.mktemp('voila')
    short,n = re.subn(r'n_epoch=\d+, epoch_len=\d+', 'n_epoch=1, epoch_len=50', notebook.read_text(encoding='utf-8'))
    assert n == 1
    (d/'explore.ipynb').write_text(short, encoding='utf-8')
    with serve('voila', 'explore.ipynb', '--Voila.ip=127.0.0.1', cwd=d) as url:
        c = chrome.new_context(viewport=dict(width=1280, height=900), permissions=['clipboard-read','clipboard-write'])
        p = c.new_page()
        p.set_default_timeout(wait)
        p.goto(url, wait_until='commit')
        p.wait_for_selector('.dnb-runs')
        p.wait_for_selector('.dnb-readout')
        yield p

def readout(page): return page.inner_text('.dnb-readout')
def code(page): return page.inner_text('.dnb-code code')
def weights(page):
    "Name -> weight in percent, as shown, from top to bottom"
    rows = page.evaluate("[...document.querySelectorAll('.dnb-bar')].map(o => "
                         "[o.closest('.widget-hbox').querySelector('.widget-checkbox').innerText.trim(), "
                         "o.querySelectorAll('text')[1].textContent])")
    return {n: int(w.rstrip('%')) for n,w in rows}
def rounded(alpha): return {n: round(100*a) for n,a in alpha.items()}
def until(page, f, seconds=600):
    "Wait for `f()`"
    end = time.time()+seconds
    while not f():
        assert time.time() < end, f'waited in vain; the readout says: {readout(page)}'
        page.wait_for_timeout(50)
def same(shown, expected):
    return shown.keys() == expected.keys() and all(abs(shown[n]-expected[n]) <= 1 for n in shown) # half percents may be rounded either way
def slide(page, text, key, n=1):
    page.locator(f'.dnb-explore .widget-hslider:has-text("{text}") .noUi-handle').focus()
    for _ in range(n): page.keyboard.press(key)
def check(page, name, on):
    page.locator('.dnb-explore .widget-checkbox', has=page.get_by_text(name, exact=True)).locator('input').set_checked(on)

def shot(page, css):
    "A picture of a part of the page, into the folder $DISTILL_NB_SHOTS if there is one: look at them"
    if folder := os.environ.get('DISTILL_NB_SHOTS'):
        page.locator(css).first.scroll_into_view_if_needed()
        page.locator(css).first.screenshot(path=Path(folder)/f'{css[5:]}.png')

def test_as_it_opens(page, rank):
    shot(page, '.dnb-explore')
    assert same(weights(page), rounded(rank.weights()))
    assert list(weights(page)) == [rank.names[i] for i in rank.order]
    assert f'{rank.best.name} carries {rank.weights().max():.0%} of the weight' in readout(page)
    assert code(page) == 'learn = distill_learner(dls, unlabeled, rank, p=4)'

def test_power(page, rank):
    bar = page.locator('.dnb-bar').first.inner_html()
    slide(page, 'power p', 'ArrowRight')
    until(page, lambda: 'p=6' in code(page))
    assert same(weights(page), rounded(rank.weights(6)))
    assert page.locator('.dnb-bar').first.inner_html() != bar
    slide(page, 'power p', 'End')
    until(page, lambda: 'p=math.inf' in code(page))
    assert weights(page)[rank.best.name] == 100 and f'{rank.best.name} carries 100% of the weight' in readout(page)
    slide(page, 'power p', 'Home')
    until(page, lambda: 'p=0' in code(page))
    assert readout(page).startswith(f'All {len(rank)} sources weigh the same')
    slide(page, 'power p', 'ArrowRight', 5)
    until(page, lambda: 'p=4' in code(page))
    assert same(weights(page), rounded(rank.weights()))

def test_best_only(page, rank):
    slide(page, 'keep best', 'ArrowLeft', len(rank)-2)
    until(page, lambda: 'top=2' in code(page))
    assert same(weights(page), rounded(rank.weights(top=2)))
    slide(page, 'keep best', 'End')
    until(page, lambda: 'top' not in code(page))

def test_scores_from_the_least_up(page, rank):
    page.locator('.dnb-explore .widget-dropdown', has_text='scores').locator('select').select_option('from the least up')
    until(page, lambda: "norm='minmax'" in code(page))
    assert same(weights(page), rounded(rank.weights(norm='minmax')))
    page.locator('.dnb-explore .widget-dropdown', has_text='scores').locator('select').select_option('as they are')
    until(page, lambda: 'norm' not in code(page))

def test_switch_a_source_off(page, rank):
    check(page, rank.best.name, False)
    until(page, lambda: 'only' in code(page))
    left = rank.only([n for n in rank.names if n != rank.best.name])
    assert same(weights(page), rounded({**left.weights(), rank.best.name: 0.})
                and {n: rounded({**left.weights(), rank.best.name: 0.})[n] for n in weights(page)})
    assert readout(page).startswith(left.best.name)
    check(page, rank.best.name, True)
    until(page, lambda: 'only' not in code(page))
    assert same(weights(page), rounded(rank.weights()))

def test_another_metric(page, rank):
    metric = page.locator('.dnb-explore .widget-dropdown', has_text='metric').locator('select')
    metric.select_option('parc')
    until(page, lambda: "rank.by('parc')" in code(page) and 'computed' not in readout(page))
    other = rank.by('parc', progress=False)
    assert same(weights(page), rounded(other.weights())) and list(weights(page)) == [other.names[i] for i in other.order]
    metric.select_option('cka')
    until(page, lambda: 'parc' not in code(page))

def test_copy(page):
    page.click('.dnb-copy')
    until(page, lambda: page.inner_text('.dnb-copy') == 'copied')
    assert page.evaluate('navigator.clipboard.readText()') == code(page)

def test_button_makes_a_learner(page):
    page.click('.dnb-take')
    until(page, lambda: page.inner_text('.dnb-taken') == 'ready: ex.learn')

def test_pictures_of_training(page):
    shot(page, '.dnb-watch')
    assert page.locator('.dnb-watch img').count() == 1+8
    assert page.inner_text('.dnb-watch b').startswith('epoch 4 of 4')

def test_images_and_what_sources_say(page):
    cards = lambda: page.evaluate("[...document.querySelectorAll('.dnb-card')].map(o => +o.dataset.image)")
    most = cards()
    apart = page.evaluate("[...document.querySelectorAll('.dnb-card')].map(o => +o.innerText.match(/disagreement ([0-9.]+)/)[1])")
    shot(page, '.dnb-cards')
    assert len(most) == 6 and apart == sorted(apart, reverse=True)
    page.locator('.widget-dropdown', has_text='images where').locator('select').select_option('as they come')
    until(page, lambda: cards() == list(range(6)))
    page.locator('.widget-hslider:has-text("page") .noUi-handle').focus()
    page.keyboard.press('ArrowRight')
    until(page, lambda: cards() == list(range(6,12)))

def test_runs(page):
    src = lambda: page.get_attribute('.dnb-picture', 'src')
    picture = src()
    shot(page, '.dnb-runs')
    page.locator('.dnb-runs .widget-dropdown', has_text='against').locator('select').select_option('weighted')
    until(page, lambda: 'gap to weighted' in page.inner_text('.dnb-table') and src() != picture)
    page.locator('.dnb-runs select[multiple]').select_option(['distill'])
    until(page, lambda: 'transfer' not in page.inner_text('.dnb-table'))
    assert 'distill' in page.inner_text('.dnb-table')

def test_on_a_phone(page):
    "Nothing is cut off, and nothing has to be scrolled sideways to be seen"
    page.set_viewport_size(dict(width=390, height=844))
    cut = "[...document.querySelectorAll('.dnb-bar, .dnb-bar text, .dnb-card, .dnb-watch img, .dnb-picture, .dnb-code')]" \
          ".filter(o => o.getBoundingClientRect().right > innerWidth+1).length"
    until(page, lambda: page.evaluate(cut) == 0)
    assert too_wide(page) == []
    assert page.evaluate("[...document.querySelectorAll('.dnb-bar')].map(o => o.getBoundingClientRect().width)[0]") > 300
    for o in ('.dnb-readout','.dnb-cards','.dnb-watch','.dnb-runs'): assert hard_to_read(page, 3, o) == [] # large, or coloured on purpose
    page.set_viewport_size(dict(width=1280, height=900))

def test_jupyterlab(chrome, tmp_path, rank):
    "The first widget, in JupyterLab"
    nb = json.loads(notebook.read_text(encoding='utf-8'))
    nb['cells'] = nb['cells'][:4]
    for c in nb['cells']:
        if c['cell_type'] == 'code': c['outputs'] = []
    (tmp_path/'explore.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    with serve_lab(tmp_path) as url:
        p = chrome.new_page(viewport=dict(width=1280, height=900))
        p.set_default_timeout(wait)
        run_in_lab(p, url, 'explore.ipynb')
        p.wait_for_selector('.dnb-readout')
        until(p, lambda: 'carries' in readout(p))
        slide(p, 'power p', 'ArrowRight')
        until(p, lambda: 'p=6' in code(p))
        assert same(weights(p), rounded(rank.weights(6)))
