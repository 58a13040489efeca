"""The documentation site: builds without a warning; every page loads in a browser without an error and without asking
anybody else for anything, its links lead somewhere, its figures are seen, light and dark, wide and narrow; the search
finds what a user would type."""
import inspect, json, os, re, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Callable, Optional
from urllib.parse import unquote, urldefrag, urljoin
import pytest
pytest.importorskip('myst_nb')
pytest.importorskip('pydata_sphinx_theme')
pytest.importorskip('sphinx_design')
from browser import hard_to_read, too_wide, visit

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'scripts'))
import make_site
from website import api as site_api, convert as site_convert, examples, kinds, names as site_names, pages as site_pages

none = inspect.Parameter.empty

# The converter

def cell(source, typ='code', **kw):
    return dict(cell_type=typ, id='a', metadata={}, source=source,
                **({'outputs': [], 'execution_count': None} if typ == 'code' else {}), **kw)

@pytest.fixture()
def convert(tmp_path, monkeypatch):
    monkeypatch.setattr(site_pages, 'root', tmp_path)
    (tmp_path/'nbs'/'tutorials').mkdir(parents=True)
    def convert(*cells, name='24_similarity'):
        path = tmp_path/'nbs'/f'{name}.ipynb'
        path.write_text(json.dumps(dict(cells=[cell(c[3:], 'markdown') if c.startswith('md ') else cell(c)
                                               for c in cells], metadata={}, nbformat=4, nbformat_minor=5)))
        return make_site.convert(path, {'Store': ('distill_nb.outputs.store', 'distill_nb.outputs'),
                                        'few_labels': ('distill_nb.data.few_labels', 'distill_nb.data')},
                                 {'outputs': tmp_path/'nbs'/'20_outputs.ipynb',
                                  'speed': tmp_path/'nbs'/'pages'/'06_speed.ipynb'})['cells'][:-1]
    return convert

def test_directives(convert):
    assert convert('#| hide\nx', '#| default_exp data', '') == []
    plain,folded = convert('#| slow\nx = 1', '#| exporti\nx = 1')
    assert (plain['source'], plain['metadata']['tags'], folded['metadata']['tags']) == ('x = 1', [], ['hide-input'])
    assert convert('#| export\nimport os\nfrom pathlib import Path') == []
    assert convert('#| echo: false\nx')[0]['metadata']['tags'] == ['remove-input']

def test_outputs_that_a_page_shows(convert):
    out = lambda **data: dict(output_type='display_data', metadata={}, data=data)
    bar,table,figure = out(**{'text/html': ['<style>\nprogress {}\n</style>\n']}),out(
            **{'text/html': '<div><table class="fastprogress"></table></div>'}),out(**{'image/png': 'x'})
    shown = site_convert.outputs(dict(outputs=[dict(output_type='stream', name='stderr', text='w'), bar,
                                            out(**{'text/html': ''}), table, figure]))
    assert [o['data'] for o in shown] == [{'text/html': '<div><table class="dataframe"></table></div>'}, figure['data']]

def test_an_exported_function_has_its_arguments(convert):
    heading,api,source = convert('#| default_exp data', 'md ## Splits', '#| export\ndef few_labels(labels, n): pass')
    assert api['source'].startswith('(distill_nb.data.few_labels)=\n### few_labels')
    assert '| `n` |' in api['source'] and '**returns**' in api['source'] and '#| export' not in source['source']

def test_types_as_a_reader_says_them():
    many = Annotated[int, dict(nargs='+')]
    said = {'int or None': (int, None), 'int': (int, 3), 'Path': (Path, none), 'float or int or None': (float|int|None, None),
            'bool': (none, True), 'str or None': (Optional[str], None), 'callable': (none, Path), 'any': (object, None),
            'int, one or more': (many, none),
            'Zoo': ('Zoo', none), 'list of str': (list[str], none)}
    assert {k: kinds.kind(*v) for k,v in said.items()} == {k: k for k in said}
    assert [kinds.kind(*o) for o in ((none,None), (none,none), (None,none))] == ['','',''] and kinds.kind(Callable) == 'callable'

def test_no_table_of_arguments_has_a_type_of_the_machinery():
    names = site_api.symbols()
    rows = [(n, o) for n,(label,module) in names.items() if label == f'{module}.{n}'.lower() and callable(f := site_api.find(n, module))
            for o in site_api.argument_rows(f)[3:]]
    assert len(rows) > 1500
    assert [o for o in rows if re.search(r'NoneType|_empty|<class|typing\.|<function| 0x', o[1])] == []
    assert all('events' not in o and 'after_batch' not in o for n,o in rows if n in ('FreezeStats','CheckFit'))

def test_arguments_without_types_or_defaults_have_no_such_columns():
    def f(
        a, # first
        b, # second
    ): pass
    assert site_api.argument_rows(f) == ['{.arguments}', '|  |  |', '| --- | --- |', '| `a` | first |', '| `b` | second |', '']

def test_a_command_has_its_options():
    text = site_api.api('train', 'distill_nb.cli', 'distill_nb.cli.train', 2)
    from distill_nb.cli import commands
    assert text.startswith('(distill_nb.cli.train)=\n## distill_nb train') and 'distill_nb train LABELED UNLABELED ZOO' in text
    assert '| [`--p`]{#distill-nb-train-p} | float | `4.0` | power of the scores' in text and '--pdb' not in text
    assert '`joint` or `probe` or `source` or `both`' in text and '| [`--force`]{#distill-nb-train-force} | flag |  |' in text
    for name,f in commands.items(): assert f'## distill_nb {name}' in site_api.api(f.__name__, 'distill_nb.cli', 'x', 2)

def test_stars_and_dashes_are_what_they_look_like():
    assert site_api.table_cell("names ('*net*'), that of --start, a*b*c, `x*`") == "names (`*net*`), that of `--start`, a\\*b\\*c, `x*`"

def test_an_argument_is_no_link(convert):
    text = convert('#| default_exp data', '#| export\ndef few_labels(labels, n): pass')[0]['source']
    assert '| `labels` |' in text
    names = dict(n=('x.n', 'x'), few_labels=('x.few_labels', 'x'))
    assert site_api.link_names('| `n` | `few_labels`', names, ('f','n')) == '| `n` | [`few_labels`](#x.few_labels)'

def test_tests_are_no_part_of_an_example(convert):
    folds = lambda c: (c['source'], c['metadata']['tags'], c['metadata']['mystnb']['code_prompt_show'])
    only,cell_with_setup = convert('test_eq(1, 1)\nassert True', 'x = 1\ntest_eq(x, 1)')
    assert folds(only) == ('test_eq(1, 1)\nassert True', ['hide-input'], 'Tests')
    assert folds(cell_with_setup)[1:] == (['hide-input'], 'Tests')
    assert folds(convert('x = 1\nx')[0]) == ('x = 1\nx', [], 'Code')
    assert folds(convert('#| export\ndef few_labels(): pass')[0])[2] == 'Source'
    cell = 'x = f(1)\ntest_eq(x,\n        1) # so\nfor i in x: test_fail(lambda: i)\nassert (y := 1)\nz = 2; test_eq(z, 2)\nx'
    shown = examples.without_tests(cell)
    assert shown == 'x = f(1)\nassert (y := 1)\nz = 2; test_eq(z, 2)\nx'
    assert not examples.is_test('x = 1\ntest_eq(x, 1)\nx', has_output=True) and not examples.is_test('%time x') and not examples.is_test('')

def test_a_figure_is_described(convert):
    alt = lambda *cells: convert(*cells)[-1]['metadata']['mystnb']['image']['alt']
    assert alt('md ## Ranks\n\nA bar for each of the [eight](x.md) `sources`, with its interval. Look:', 'plot()') == (
        'A bar for each of the eight sources, with its interval. Look')
    assert alt('md ## Ranks\n\nLook:', 'plot()') == 'Ranks: Look' and alt('md Look:', '#| fig-alt: two bars\nplot()') == 'two bars'
    assert len(alt('md ' + 'word '*100, 'plot()')) <= 244

def test_every_figure_has_words():
    names,missing = site_pages.notebooks(),[]
    for name,path in names.items():
        for c in site_convert.convert(path, {}, {})['cells']:
            pictures = [o for o in c.get('outputs', []) if any(k.startswith('image/') for k in o.get('data') or {})]
            if pictures and len(c['metadata']['mystnb']['image']['alt']) < 15: missing.append((name, c['id']))
    assert missing == []

def test_names_find_what_they_stand_for():
    names = {'Ranking': ('r.ranking', 'r'), 'Ranking.explore': ('e.ranking.explore', 'e'), 'Store': ('s.store', 's'),
             'Store.keep_all': ('s.store.keep_all', 's'), 'rank': ('distill_nb.cli.rank', 'distill_nb.cli')}
    for text,to in {'rank.explore()': '#e.ranking.explore', 'Ranking.explore': '#e.ranking.explore',
                    'Store(path, on_error="skip").rows': '#s.store',
                    '@Store': '#s.store', 'keep_all': '#s.store.keep_all', 'distill_nb rank --p 4': '#distill_nb.cli.rank', 'rank': None,
                    'Learner': 'https://docs.fast.ai/learner.html#learner',
                    'fit_one_cycle': 'https://docs.fast.ai/callback.schedule.html#learner.fit_one_cycle',
                    'learn.export()': 'https://docs.fast.ai/learner.html#learner.export',
                    'export': None, 'torch.save': None, 'a + b': None}.items():
        assert site_names.where(text, names, module='s') == to, text
    assert site_names.where('explore(p)', names, here=('Ranking',)) == '#e.ranking.explore'
    assert site_names.where('Store', names, here=('Store',)) is None

def test_a_method_of_two_classes_has_one_section():
    names = site_api.symbols()
    assert names['Zoo.label'] == names['Ranking.label'] == ('distill_nb.labeler.ranking.label', 'distill_nb.labeler')

def test_names_become_links_once(convert):
    c, = convert('md `Store`, `Store(path)`, [`Store`](#x), `nothing`, `predict`\n\n```\n`Store`\n```')
    assert c['source'].startswith('[`Store`](#distill_nb.outputs.store), [`Store(path)`](#distill_nb.outputs.store), '
                                  '[`Store`](#x), `nothing`, `predict`')
    assert c['source'].endswith('```\n`Store`\n```')

def test_names_of_notebooks_lead_to_pages(convert):
    c, = convert('md [a](../20_outputs.ipynb#b), `nbs/20_outputs.ipynb`, `speed`, `outputs`, '
                 '[out](https://x.org/a.ipynb)', name='tutorials/one')
    assert c['source'] == '[a](../outputs.ipynb), [`nbs/20_outputs.ipynb`](../outputs.ipynb), [`speed`](../speed.ipynb), `outputs`, [out](https://x.org/a.ipynb)'

def test_every_notebook_has_its_place():
    assert sorted(p for ps in make_site.chapters().values() for p in ps) == sorted(set(site_pages.notebooks()) - {'index'})

def test_tables_are_tables(tmp_path):
    "A Markdown table is one on the page, whether it stands in a cell or is what a cell put out, as on the front page"
    table = '| | gap |\n|---|---|\n| {} | 1 |\n'
    out = dict(output_type='execute_result', execution_count=1, metadata={},
               data={'text/markdown': table.format('of a cell'), 'text/plain': 'x'})
    nb = dict(cells=[cell('# A page', 'markdown'), cell('words\n\n' + table.format('as written'), 'markdown'),
                     {**cell('x'), 'outputs': site_convert.outputs(dict(outputs=[out]))}],
              metadata=dict(language_info=dict(name='python', pygments_lexer='python')), nbformat=4, nbformat_minor=5)
    (tmp_path/'src'/'_static').mkdir(parents=True)
    (tmp_path/'src'/'index.ipynb').write_text(json.dumps(nb))
    (tmp_path/'src'/'_static'/'icon.svg').write_text((make_site.here/'static'/'icon.svg').read_text())
    (tmp_path/'src'/'conf.py').write_text((make_site.here/'conf.txt').read_text().format(version='0', widgets={},
                                                                repo=make_site.repo).replace(
        "html_theme = 'pydata_sphinx_theme'", "html_theme = 'basic'").replace('html_theme_options', 'unused'))
    p = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'sphinx', '-W', '-q', '-b', 'html', str(tmp_path/'src'),
                        str(tmp_path/'html')], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-3000:]
    page = (tmp_path/'html'/'index.html').read_text(encoding='utf-8')
    assert all(re.search(rf'<td[^>]*><p>{o}</p></td>', page) for o in ('as written','of a cell')) and '|---' not in page

def test_no_table_of_the_front_page_is_raw():
    "Each table of the front page has its heading, its rule and its rows one under the other, and an empty line before"
    for c in site_pages.load(root/'nbs'/'index.ipynb')['cells']:
        texts = [''.join(c['source'])] * (c['cell_type'] == 'markdown') + [''.join(o['data']['text/markdown'])
                for o in c.get('outputs', []) if 'text/markdown' in (o.get('data') or {})]
        for rows in (t.splitlines() for t in texts):
            for i,row in enumerate(rows):
                if re.fullmatch(r'\|(-+\|)+', row):
                    assert rows[i-1].count('|') == row.count('|') == rows[i+1].count('|') and (i == 1 or not rows[i-2].strip())

# The site

class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links,self.ids,self.assets = set(),set(),set()
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.add(a['id'])
        if tag == 'a' and a.get('href'): self.links.add(a['href'])
        for k in ('src','href'):
            if tag in ('img','script','link') and a.get(k) and a.get('rel') not in ('canonical',): self.assets.add(a[k])

def test_links_lead_somewhere(site):
    pages = {p.relative_to(site).as_posix(): Page(p.read_text(encoding='utf-8')) for p in site.rglob('*.html') if '_static' not in p.parts}
    assert len(pages) > 45
    lost = []
    for name,page in pages.items():
        for href in page.links | page.assets:
            if re.match(r'https?://github\.com/distill-nb|mailto:', href) or href.startswith('data:') or href == '#': continue
            if href.startswith('http'):
                if href in page.assets: lost.append((name, href))       # nothing is loaded from elsewhere
                continue
            target,frag = urldefrag(urljoin(name, unquote(href.split('?')[0])))
            target = target or name
            if not (site/target).exists() or frag and target in pages and unquote(frag) not in pages[target].ids: lost.append((name, href))
    assert lost == []

def test_api_pages_show_docments(site):
    text = (site/'learner.html').read_text(encoding='utf-8')
    assert 'the few labels, and a validation set' in text and 'id="distill-nb-learner-distill-learner"' in text
    assert 'the share of the target loss' in text
    assert '/blob/main/distill_nb/learner.py' in text and '/edit/main/nbs/35_learner.ipynb' in text

def test_the_index_is_full(site):
    text = (site/'genindex.html').read_text(encoding='utf-8')
    for word in ('few_labels()', 'Ranking (class)', 'explore()', 'distill_nb train', '--lam'): assert word in text, word

def test_no_picture_is_described_by_its_file(site):
    pages = [p for p in site.rglob('*.html') if '_static' not in p.parts]
    assert [p.name for p in pages if re.search(r'alt="[^"]*_images/', p.read_text(encoding='utf-8'))] == []

@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light', pytest.param('dark', marks=pytest.mark.slow)])
@pytest.mark.parametrize('width', [1280,390])
def test_every_page_in_a_browser(served, site, scheme, width):
    chrome,base = served
    said,wrong,shots = [],[],os.environ.get('DISTILL_NB_SHOTS')
    page = visit(chrome.new_context(color_scheme=scheme, viewport=dict(width=width, height=900)), base, said)
    for p in sorted(site.rglob('*.html')):
        name = p.relative_to(site).as_posix()
        if '_static' in p.parts or name in ('genindex.html','search.html'): continue
        page.goto(base+name, wait_until='load')
        bad = page.evaluate("""() => [...document.querySelectorAll('article img')].filter(i => !i.complete || !i.naturalWidth ||
            i.getBoundingClientRect().right > innerWidth+1 && !i.closest('.text_html')).map(i => i.src)""")
        if bad: wrong.append((name, bad))
        if page.evaluate('document.documentElement.scrollWidth > innerWidth+1'): wrong.append((name, 'wider than the window'))
        if '\\(' in p.read_text(encoding='utf-8') and 'math notranslate' in p.read_text(encoding='utf-8'):
            page.wait_for_function("document.querySelectorAll('mjx-container').length > 0 && "
                                   "!document.querySelector('mjx-merror')", timeout=300_000)
        if shots: page.screenshot(path=f"{shots}/{name[:-5].replace('/','_')}_{scheme}_{width}.png")
    assert wrong == [] and said == []

@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light','dark'])
def test_what_cells_put_out_is_readable_on_a_phone(served, scheme):
    "Widgets, tables and a report in the colours of the page; 3 to 1 is what green and orange predictions have"
    chrome,base = served
    page = chrome.new_context(color_scheme=scheme, viewport=dict(width=390, height=844)).new_page()
    wrong = []
    for name in ('tutorials/quick_start','tutorials/explore','tutorials/no_label','report','explore'):
        page.goto(f'{base}{name}.html')
        wrong += [(name, o) for o in too_wide(page) + hard_to_read(page, 3, 'article')]
    assert wrong == []

@pytest.mark.browser
def test_the_slider_moves_without_a_kernel(served):
    chrome,base = served
    said = []
    page = visit(chrome.new_context(viewport=dict(width=1280, height=900)), base, said)
    page.goto(base+'method.html')
    page.wait_for_selector('.noUi-handle')
    shown = lambda: page.locator('.cell_output p:has-text("p = "):visible').all_inner_texts()
    assert shown() == ['p = 4']
    page.locator('.noUi-handle').focus()
    page.keyboard.press('ArrowRight')
    page.wait_for_function("[...document.querySelectorAll('.cell_output p')].some(p => p.offsetParent && p.innerText == 'p = 5')")
    assert shown() == ['p = 5'] and said == []

@pytest.mark.browser
@pytest.mark.parametrize('width', [1280,390])
def test_tables_of_arguments_fit(served, width):
    chrome,base = served
    page = chrome.new_page(viewport=dict(width=width, height=900))
    for name in ('cli','learner','train','ranking','estimators/kernels'):
        page.goto(f'{base}{name}.html')
        wide = page.evaluate("""() => [...document.querySelectorAll('table.arguments')].map(t => [t.parentElement.scrollWidth
            - t.parentElement.clientWidth, t.querySelector('td:last-child').clientWidth]).filter(o => o[0] > 0 || o[1] < 150)""")
        assert wide == [], name

words = {'ranking': 'ranking.html', 'distill_learner': 'learner', 'FixMatch': 'fixmatch', 'onnx': 'export',
         'PARC': 'pairs', 'resume': 'resume', 'checkpoint': 'sources', 'temperature': 'calibrate',
         'folder': 'infer', 'weights': 'weights', 'skin': 'reproduction', 'fasterai': 'coming_from'}
@pytest.mark.browser
def test_search_finds(served):
    chrome,base = served
    page = chrome.new_context().new_page()
    missed = []
    for word,where in words.items():
        page.goto(f'{base}search.html?q={word}')
        page.wait_for_selector('#search-results .search-summary:has-text("Search finished")', timeout=300_000)
        found = page.locator('#search-results li a').evaluate_all('as => as.map(a => a.getAttribute("href"))')
        if not any(where in f for f in found[:8]): missed.append((word, [f.split('/')[-1] for f in found]))
    assert missed == []
