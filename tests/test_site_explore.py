"""The explorer that works in a page without a kernel: after each move it says and weighs what the widget does in Python.
The page is opened as a file, and asks nobody for anything."""
import html, json, math, re, shutil, sys
from pathlib import Path
import numpy as np, pytest
from browser import browser, chromium
from distill_nb.explore import RankExplorer, powers
from distill_nb.ranking import Ranking
from distill_nb.weights import source_weights
from distill_nb.zoo import Zoo
root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'scripts'))
from website import live, pages
from website.convert import convert

static = root/'scripts'/'website'/'static'

# In Python

def ranking(metric, scores, noise, seed=0):
    "The embedded sources with made-up scores"
    rng,zoo = np.random.default_rng(seed),Zoo.embedded()
    null = rng.normal(.1, .02, (20,len(zoo)))
    return Ranking(zoo, scores, metric, 100, scores + rng.normal(0, noise, (200,len(zoo))), null)

@pytest.fixture(scope='module')
def rankings():
    return [ranking('cka', np.array([.5,.49,.1,.3,.42,-.05,.11,.2]), .02),
            ranking('logme', np.array([-1.2,-2.,-.4,-.9,-1.,-3.,-.2,-.2]), .01, 1),
            ranking('parc', np.array([-.1,-.2,-.1,-.3,-.1,-.2,-.15,-.4]), .01, 2)]

def kept(rankings):
    about = [dict(name=s.name, task=s.meta['task'], parameters=s.meta['n_params']) for s in rankings[0].zoo]
    return live.kept_ranking(rankings, about, target='digits', classes=10)

def test_what_is_kept(rankings):
    o = kept(rankings)
    assert list(o['metrics']) == ['cka','logme','parc'] and o['n_probe'] == 100 and o['sources'][0]['name'] == 'digits'
    m,r = o['metrics']['logme'],rankings[1]
    assert m['norm'] == 'minmax' and m['scores'] == pytest.approx(r.scores, rel=1e-5)
    np.testing.assert_allclose(r.interval()[:,1], np.add(m['scores'], 1.6448536*np.array(m['se'])), rtol=1e-4)
    assert m['gap_se'][6][2] == pytest.approx(r.stability().se if r.stability().second == 'textures' else
                                              (r.replicates[:,6]-r.replicates[:,2]).std(), rel=1e-5)

def test_the_kept_ranking_is_real():
    o = json.loads(live.kept_at.read_text(encoding='utf-8'))
    n = len(o['sources'])
    assert n == 28 and len({s['name'] for s in o['sources']}) == n and {'target','classes','date','made_by'} <= o.keys()
    assert len(live.kept_at.read_bytes()) < 100_000
    for m in o['metrics'].values():
        assert len(m['scores']) == len(m['se']) == len(m['null']) == n and list(map(len, m['gap_se'])) == list(range(n))

def shown(name):
    "The HTML that the page of a notebook shows, output by output"
    cells = convert(root/'nbs'/f'{name}.ipynb', {}, pages.notebooks())['cells']
    return [''.join(o['data']['text/html']) for c in cells for o in c.get('outputs', []) if 'text/html' in (o.get('data') or {})]

def test_one_widget_is_alive_and_the_others_say_that_they_are_not():
    tutorial = shown('tutorials/02_explore')
    assert sum('class="dnb-live"' in o for o in tutorial) == 1 and not any('carries 55%' in o for o in tutorial)
    assert 'src="../_static/explore.js"' in ''.join(tutorial)
    notes = {n: sum('<b>Run live:</b>' in o for o in shown(n)) for n in
             ('tutorials/02_explore','tutorials/12_no_label','55_explore','56_browse','57_labeler','pages/01_method')}
    assert notes == {'tutorials/02_explore': 2, 'tutorials/12_no_label': 1, '55_explore': 2, '56_browse': 1, '57_labeler': 1,
                     'pages/01_method': 0}
    assert 'blob/main/nbs/56_browse.ipynb' in ''.join(shown('56_browse'))

# In the page

@pytest.fixture(scope='module')
def chrome():
    with browser(chromium()) as b: yield b

@pytest.fixture()
def visit(chrome, tmp_path):
    "Opens a page with an explorer of a kept ranking, from a file; at the end nothing may have gone wrong or left the folder"
    said,contexts = [],[]
    def visit(kept, width=1000, scheme='light'):
        for f in ('explore.js','explore.css'): shutil.copy(static/f, tmp_path)
        look = '<meta charset="utf-8"><meta name="color-scheme" content="light dark"><body style="font:16px sans-serif">'
        (tmp_path/'page.html').write_text(look + live.live_html(kept, '.'), encoding='utf-8')
        contexts.append(chrome.new_context(viewport=dict(width=width, height=800), color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on('console', lambda m: said.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: said.append(str(e)))
        page.on('request', lambda r: said.append(r.url) if not r.url.startswith(tmp_path.as_uri()) else None)
        page.goto((tmp_path/'page.html').as_uri())
        page.wait_for_selector('.dnb-live li')
        return page
    yield visit
    for c in contexts: c.close()
    assert said == []

def set_to(page, label, value):
    "Moves the slider with this label"
    page.get_by_label(label).evaluate('(e, v) => { e.value = v; e.dispatchEvent(new Event("input")) }', value)

def weights(page):
    "Name -> weight, in the order of the rows"
    return dict(page.locator('.dnb-live li').evaluate_all('ls => ls.map(l => [l.querySelector("label").textContent, +l.dataset.weight])'))

def text(page, where): return page.locator(f'.dnb-live {where}').inner_text()

def words(ex): return html.unescape(re.sub('<[^>]+>', '', ex.readout.value))

moves = [('metric','logme'), ('p',0), ('p',math.inf), ('p',.5), ('norm','clip'), ('off','objects'), ('off','textures'), ('top',2),
         ('metric','cka'), ('p',1), ('off','digits'), ('off','signs'), ('off','clothing'), ('on','digits'), ('norm','minmax'),
         ('top',8), ('p',32), ('metric','parc'), ('p',4), ('off','letters'), ('off','printed_digits'), ('off','digits'),
         ('off','animals'), ('on','letters')]

@pytest.mark.browser
@pytest.mark.filterwarnings('ignore:no source scores above 0')
def test_each_move_gives_what_the_widget_gives(visit, rankings):
    page,ex = visit(kept(rankings)),RankExplorer(rankings[0])
    ex.metric.options,ex.rankings = [r.metric for r in rankings],{r.metric: r for r in rankings}
    def same(move):
        got = weights(page)
        assert list(got) == ex.names, move
        np.testing.assert_allclose(list(got.values()), ex.weights, rtol=1e-9, atol=1e-15, err_msg=str(move))
        assert text(page, '.said') == words(ex), move
        if ex.switched_on: assert text(page, 'code') == ex.call, move
        for n in ex.names: assert f'{page.get_by_label(n, exact=True).is_checked()}' == f'{ex.on[n].value}', move
    same('at first')
    for what,value in moves:
        if what == 'metric':
            page.get_by_label('metric').select_option(value)
            ex.metric.value = value
        elif what == 'norm':
            page.get_by_label('scores').select_option(value)
            ex.norm.value = value
        elif what == 'p':
            set_to(page, 'power p', list(powers.values()).index(value))
            ex.p.value = value
        elif what == 'top':
            set_to(page, 'keep best', value)
            ex.top.value = value
        else:
            page.get_by_label(value, exact=True).set_checked(what == 'on')
            ex.on[value].value = what == 'on'
        same((what,value))
    for n in ex.switched_on: page.get_by_label(n, exact=True).uncheck()
    assert text(page, '.said') == 'No source is switched on.' and set(weights(page).values()) == {0}

@pytest.mark.browser
def test_the_real_ranking_weighs_as_python_does(visit):
    o = json.loads(live.kept_at.read_text(encoding='utf-8'))
    page,names = visit(o),[s['name'] for s in o['sources']]
    off = names[::5]
    for switched_off in ((), off):
        for n in switched_off: page.get_by_label(n, exact=True).uncheck()
        on = [n for n in names if n not in switched_off]
        for m,k in o['metrics'].items():
            page.get_by_label('metric').select_option(m)
            scores = [s for n,s in zip(names, k['scores']) if n in on]
            for i,p in list(enumerate(powers.values()))[::3]:
                set_to(page, 'power p', i)
                got = weights(page)
                np.testing.assert_allclose([got[n] for n in on], source_weights(scores, p, k['norm']), rtol=1e-9, atol=1e-15)
                assert all(got[n] == 0 for n in switched_off)

@pytest.mark.browser
def test_by_keyboard(visit, rankings):
    page = visit(kept(rankings))
    page.get_by_label('power p').focus()
    page.keyboard.press('ArrowRight')
    assert 'p=6)' in text(page, 'code') and page.get_by_label('power p').get_attribute('aria-valuetext') == '6'
    page.keyboard.press('End')
    assert 'p=math.inf)' in text(page, 'code') and weights(page)['digits'] == 1
    page.keyboard.press('Tab')                                                       # how many to keep
    page.keyboard.press('Tab')                                                       # the first source
    page.keyboard.press('Space')
    assert text(page, '.said').startswith('letters carries 100% of the weight') and weights(page)['digits'] == 0
    assert page.get_by_role('img', name='score 0.490, weight 100.0%').count() == 1

@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light','dark'])
def test_on_a_phone(visit, scheme):
    page = visit(json.loads(live.kept_at.read_text(encoding='utf-8')), 390, scheme)
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    outside = page.locator('.dnb-live *').evaluate_all('es => es.filter(e => e.getBoundingClientRect().right > 391).length')
    assert outside == 0
