"""The site for programs: each page as Markdown, where the docstrings lead, and the list of them"""
import importlib, json, pkgutil, re, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'scripts'))
import distill_nb
from website import convert, machines, pages

def test_docstrings_lead_to_pages():
    "Every module names the Markdown of its page, and the page is there"
    names,missing = pages.notebooks(),[]
    for m in pkgutil.walk_packages(distill_nb.__path__, 'distill_nb.'):
        text = Path(importlib.util.find_spec(m.name).origin).read_text(encoding='utf-8')
        for to in re.findall(r'^Docs: (\S+?)"*$', text, re.M):
            page = to.removeprefix(machines.address).removesuffix('.html.md')
            if page not in names or names[page].stem.partition('_')[2] != m.name.rpartition('.')[2]: missing.append((m.name, to))
    assert missing == []

@pytest.fixture()
def made(tmp_path):
    "A small site: a page, one in a folder, a chapter"
    out = lambda **data: dict(output_type='execute_result', metadata={}, data=data)
    code = lambda src, tags=(), label='Code', *outputs: dict(cell_type='code', source=src, outputs=[*outputs], metadata=dict(
        tags=[*tags], mystnb=dict(code_prompt_show=label, image=dict(alt='two bars'))))
    cells = [convert.md('# Stores\n\n> Where `things` are kept. Always.'),
             convert.md('Text, see [`far`](#m.far) and [the other](tutorials/one.ipynb#b).'),
             convert.md('(m.store)=\n## Store\n\n```{index} single: Store()\n```\n\n{.arguments}\n'
                        '| | |\n|---|---|\n| [`--p`]{#m-p} | words |'),
             code('class Store: pass', ['hide-input'], 'Source'),
             code('test_eq(1, 1)', ['hide-input'], 'Tests'),
             code('a = 1\na', (), 'Code', out(**{'text/plain': '\x1b[31m1\x1b[0m', 'image/png': 'iVBORw0base64'}),
                  out(**{'text/plain': ['1\n','2']})),
             code('hidden', ['remove-input'], 'Code', dict(output_type='stream', name='stdout', text='said\n'))]
    def write(name, text):
        (tmp_path/'src'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'src'/name).write_text(text)
    write('store.ipynb', json.dumps(dict(cells=cells)))
    write('tutorials/one.ipynb', json.dumps(dict(cells=[convert.md(
        '# One\n\nThe first tutorial. See [`Store`](#m.store).\n\n(m.far)=\n## far')])))
    write('index.md', '# distill_nb\n\n> In one line.\n\n```{toctree}\nstore\n```\n')
    write('_static/note.md', '# not a page')
    (tmp_path/'html'/'tutorials').mkdir(parents=True)
    machines.write_markdown(tmp_path/'src', tmp_path/'html', {'Tutorials': ['tutorials/one'], 'Library': ['store']})
    return tmp_path/'html'

def test_a_page_as_markdown(made):
    assert (made/'store.html.md').read_text() == """# Stores

> Where `things` are kept. Always.

Text, see [`far`](tutorials/one.html#m-far) and [the other](tutorials/one.html.md).

## Store

| | |
|---|---|
| `--p` | words |

```python
a = 1
a
```

*Figure: two bars*

```text
1
2
```

```text
said
```
"""
    assert '[`Store`](../store.html#m-store)' in (made/'tutorials'/'one.html.md').read_text()
    assert (made/'index.html.md').read_text() == '# distill_nb\n\n> In one line.\n' and not (made/'_static').exists()

def test_what_only_sphinx_reads_is_left_out():
    "Grids and their options; the cards of the front page become sections"
    text = '# A\n\n:::::{grid} 1 1 3 3\n:gutter: 3\n\n::::{grid-item-card} Rank\n:class-card: front-card\n\nWords: more.\n::::\n:::::\n'
    assert re.split('\n{2,}', machines.tidy(text, '', {})) == ['# A', '## Rank', 'Words: more.']

def test_the_list_of_pages(made):
    text = (made/'llms.txt').read_text()
    assert text.startswith('# distill_nb\n\n> In one line.\n')
    assert f'## Tutorials\n\n- [One]({machines.address}tutorials/one.html.md): The first tutorial.\n\n## Library' in text
    assert f'- [Stores]({machines.address}store.html.md): Where things are kept. Always.' in text
    whole = (made/'llms-full.txt').read_text()
    assert whole.index('# distill_nb') < whole.index('# One') < whole.index('# Stores') and 'base64' not in whole

def test_a_fence_is_longer_than_those_inside(): assert machines.fenced('```\na\n```').splitlines()[0] == '````'

def test_every_notebook_becomes_markdown(tmp_path):
    "No page has a picture as text, a label of Sphinx or an empty title"
    for name,path in pages.notebooks().items():
        (tmp_path/'a.ipynb').write_text(json.dumps(convert.convert(path, {}, {})))
        text = machines.tidy(machines.page_markdown(tmp_path/'a.ipynb'), '', {})
        assert machines.title_and_line(text)[0] and not re.search(r'base64,|iVBORw0|^\([\w.-]+\)=$|\]\{#', text, re.M), name
