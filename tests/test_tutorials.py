"Each tutorial says first what it leads to, how long it takes and what it needs; its links lead to pages and carry their titles"
import json, re
from pathlib import Path
import pytest

nbs = Path(__file__).resolve().parent.parent/'nbs'
tutorials = sorted((nbs/'tutorials').glob('*.ipynb'))
span = r'(half a minute|a minute|\d+ (seconds|minutes)|half an hour|an hour)'

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def prose(path):
    "The Markdown of a notebook, without blocks of code"
    text = '\n\n'.join(''.join(c['source']) for c in cells(path) if c['cell_type'] == 'markdown')
    return re.sub(r'^```.*?^```', '', text, flags=re.S|re.M)
def title(path): return re.search(r'^# (.+)$', prose(path), re.M)[1]
def opening(path): return prose(path).split('\n## ')[0]

def missing(text):
    "What the opening of a tutorial fails to say"
    promises = {'outcome': r'^- \*\*You will have\*\* \S', 'needs': r'^- \*\*You need\*\* \S',
                'time': rf'^- \*\*It takes\*\* about \d+ minutes to read\b[^.\n]*, and about {span} to run on two cores'}
    begins = {'a title, a line, the outcome, in this order': r'\A# .+\n\n> .+\n\n- \*\*You will'}
    return [k for k,pattern in {**promises, **begins}.items() if not re.search(pattern, text, re.M)]

@pytest.mark.parametrize('path', tutorials, ids=lambda p: p.stem)
def test_opening_names_outcome_time_and_needs(path): assert missing(opening(path)) == []

def test_an_opening_without_them_is_seen():
    good = ('# A\n\n> b\n\n- **You will have** a student.\n- **It takes** about 5 minutes to read, and about a minute to run on two '
            'cores.\n- **You need** nothing.')
    assert missing(good) == []
    assert missing(good.replace('have** a', 'like** a'))[0] == 'outcome'
    assert missing(good.replace('about a minute', 'a while')) == missing(good.replace('5 minutes', 'some time')) == ['time']
    assert missing(good.replace('> b', '> b\n\nBefore we begin:')) == ['a title, a line, the outcome, in this order']

def bare(text):
    "Names of notebooks in prose that are not the target of a link, and links whose text is a file's name"
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text)
    return [m[0] for m in re.finditer(r'\b(nbs/|estimators/)?\d\d_[a-z_]+\b(\.ipynb)?|`(nbs|estimators)/[\w/.]+`|[\w/]+\.ipynb', text)]

@pytest.mark.parametrize('path', tutorials, ids=lambda p: p.stem)
def test_no_bare_file_name(path): assert bare(prose(path)) == []

def test_bare_file_names_are_seen():
    assert bare('see `36_compare`, `estimators/trust`, nbs/a.ipynb and [`27_teach`](../27_teach.ipynb)') == [
        '36_compare', '`estimators/trust`', 'nbs/a.ipynb', '27_teach']
    assert bare('[Comparison](../36_compare.ipynb), `experiments/before_labels.py`') == []

def links(path):
    "(words, notebook) of each link to another notebook"
    return [(m[1], (path.parent/m[2]).resolve()) for m in re.finditer(r'\[([^\]]+)\]\(((?!https?:)[^)#]+\.ipynb)', prose(path))]

@pytest.mark.parametrize('path', tutorials, ids=lambda p: p.stem)
def test_links_lead_to_notebooks(path):
    "Also on GitHub, where nobody translates them; and somewhere in each tutorial a word is explained"
    assert [o.name for _,o in links(path) if not o.exists()] == []
    assert nbs/'pages'/'02_glossary.ipynb' in [o for _,o in links(path)]
