"What a stranger sees first: the front page, the README made of the same notebook, the page of changes, and how to cite"
import re, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'scripts'))
import make_readme
from website import pages as site_pages
from website.changelog import changelog
from website.front import cards, opening_columns

readme = make_readme.readme()
link = r'(?<!!)\[([^]]+)\]\(([^)]+)\)'

# The pieces

def test_a_frame_becomes_a_table():
    import pandas as pd
    df = pd.DataFrame(dict(a=['x < y','z'], b=[.5,1.]), index=pd.Index(['one','two'], name='method'))
    assert make_readme.table(df._repr_html_()).splitlines() == [
        '| method | a | b |', '| --- | --- | --- |', '| one | x < y | 0.5 |', '| two | z | 1.0 |']
    assert make_readme.table(pd.DataFrame(dict(a=[1]))._repr_html_()).splitlines()[0] == '|  | a |'

def test_links_from_the_folder_above():
    text = '<!-- cards -->\n\n[a](pages/01_method.ipynb) ![b](images/c.png) [d](../CHANGELOG.md) [e](https://x.org) [f](#g)'
    assert make_readme.from_root(text) == ('[a](nbs/pages/01_method.ipynb) ![b](nbs/images/c.png) [d](CHANGELOG.md) '
                                           '[e](https://x.org) [f](#g)')

def test_sections_become_cards():
    text = cards('<!-- cards -->\n\n## One\n\nWords.\n\n```python\nx\n```\n\n[To](a.ipynb)\n\n## Two\n\nMore.\n\n[There](b.ipynb)')
    assert text.count('{grid-item-card}') == 2 and '{grid-item-card} One' in text and '## ' not in text
    assert text.index('Words.') < text.index('```python') < text.index('[To](a.ipynb)') < text.index('Two') < text.index('[There]')

def test_the_opening_keeps_title_line_install_and_picture():
    text = opening_columns('# T\n\n> line\n\nWords.\n\n```bash\npip\n```\n\n![what is seen](images/a.png)')
    assert text.startswith('# T\n') and '{.front-line}\nline\n' in text and '> ' not in text
    assert text.index('pip') < text.index('![what is seen]')

def test_the_changelog_links_to_pages():
    text = changelog('1.2.3', {}, site_pages.notebooks())
    assert text.startswith('# Changelog\n') and 'version 1.2.3' in text and '](reproduction.ipynb)' in text and '\n## Unreleased\n' in text
    assert not re.search(r'`nbs/[^`]+\.ipynb`|\]\(nbs/', text)
    assert (root/'CHANGELOG.md').read_text(encoding='utf-8').partition('## ')[2].splitlines()[-1] in text

@pytest.mark.parametrize('name,seen', [('index','changelog.md'), ('guide/05_cite','../changelog.md')])
def test_links_to_the_changelog(name, seen):
    path = root/'nbs'/f'{name}.ipynb'
    up = '../'*(name.count('/')+1)
    assert site_pages.links(f'[c]({up}CHANGELOG.md)', path, {}) == f'[c]({seen})'

# The README

def test_the_readme_reads_well_anywhere():
    assert ':::' not in readme and '{grid' not in readme and '<!-- cards' not in readme and readme.count('\n## ') >= 9
    for text,to in re.findall(r'\[([^]]*)\]\(([^)]+)\)', readme):
        if not to.startswith('https://'): assert (root/to).exists(), to

def test_links_are_named_after_their_pages():
    found = [(t, to) for t,to in re.findall(link, readme) if to.endswith('.ipynb')]
    assert len(found) > 20 and [(t, to) for t,to in found if site_pages.opening(root/to)[0] != t] == []
    assert not re.search(r'`nbs/[^`]+\.ipynb`', readme)

def test_all_tutorials_are_named():
    assert {p.name for p in (root/'nbs'/'tutorials').glob('*.ipynb')} == set(re.findall(r'\(nbs/tutorials/([^)]+)\)', readme))

def test_the_package_page_has_full_links():
    code = (root/'setup.py').read_text(encoding='utf-8')
    names = {}
    exec(code[:code.index('\nsetup(')], {**names, '__file__': str(root/'setup.py')}, names)
    names['absolute'].__globals__.update(names)
    repo = 'https://github.com/distill-nb/distill_nb'
    text = names['absolute'](readme)
    assert [to for _,to in re.findall(r'\[([^]]*)\]\(([^)]+)\)', text) if not to.startswith('https://')] == []
    assert f']({repo}/raw/main/nbs/images/explore.png)' in text and f'[Glossary]({repo}/blob/main/nbs/pages/02_glossary.ipynb)' in text

# How to cite

def test_what_is_cited_is_one_thing():
    yaml = pytest.importorskip('yaml')
    from distill_nb import __version__
    cff = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    paper, = cff['references']
    page = '\n'.join(''.join(c['source']) for c in site_pages.load(root/'nbs'/'guide'/'05_cite.ipynb')['cells'])
    assert {'cff-version','message','title','authors'} <= cff.keys() and cff['authors'] == [dict(name='the distill_nb authors')]
    assert str(cff['version']) == __version__ and f'version = {{{__version__}}}' in page
    names = ' and '.join(f"{a['family-names']}, {a['given-names']}" for a in paper['authors'])
    assert f"title     = {{{paper['title']}}}" in page and f'author    = {{{names}}}' in page
    assert f"year      = {{{paper['year']}}}" in page and f"booktitle = {{{paper['conference']['name']}}}" in page
    assert paper['title'] in readme and cff['repository-code'] in page

# On the site

def test_the_front_page_shows_no_cells(site):
    text = (site/'index.html').read_text(encoding='utf-8')
    assert 'class="cell' not in text and 'cell_output' not in text and '<!-- cards' not in text
    assert text.count('front-card') == 4 and all(f'>\n{o}</div>' in text for o in ('Rank','Distil','Label')) # the row and three cards
    assert len(re.findall('<table', text)) == 3 and re.search(r'<td[^>]*><p>fine-tuning</p></td>', text)
    alt = re.search(r'<img[^>]*alt="([^"]+)"[^>]*explore\.png|<img[^>]*explore\.png[^>]*alt="([^"]+)"', text)
    assert len(alt[1] or alt[2]) > 100

def test_changes_and_citation_are_pages(site):
    from distill_nb import __version__
    front,changes = [(site/f'{o}.html').read_text(encoding='utf-8') for o in ('index','changelog')]
    assert 'href="changelog.html"' in front and 'href="guide/cite.html"' in front and f'version {__version__}' in changes
    assert '@inproceedings' in (site/'guide'/'cite.html').read_text(encoding='utf-8')

@pytest.mark.browser
@pytest.mark.parametrize('width', [1280,390])
def test_the_front_page_shows_itself_at_once(served, width):
    "What it does, the install line and the picture are in the first screen; no line of the opening and the cards is cut"
    chrome,base = served
    page = chrome.new_context(viewport=dict(width=width, height=900)).new_page()
    page.goto(base+'index.html')
    bottom = lambda sel: page.locator(sel).first.bounding_box()
    for sel in ('.front-line','.front-opening pre','.front-opening img'):
        box = bottom(sel)
        assert box['y']+box['height'] < 900, sel
    if width == 1280: assert max(o['y']+o['height'] for o in map(lambda c: c.bounding_box(), page.locator('.front-card').all())) < 900
    cut = page.evaluate("""() => [...document.querySelectorAll('.front-opening pre, .front-card pre')]
        .filter(p => p.scrollWidth > p.clientWidth+1).map(p => p.innerText)""")
    assert cut == []
    copy = page.locator('.front-opening button.copybtn')
    assert copy.is_visible() and float(copy.evaluate('b => getComputedStyle(b).opacity')) == 1
