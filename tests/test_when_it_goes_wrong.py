"The page of what goes wrong quotes messages that the library has, and its remedies call what exists"
import ast, json, re
from pathlib import Path
import pytest
from guide_code import check_code, instance_of, namespace

root = Path(__file__).resolve().parent.parent
page = root/'nbs'/'guide'/'03_when_it_goes_wrong.ipynb'
cells = [''.join(c['source']) for c in json.loads(page.read_text(encoding='utf-8'))['cells']]
apart = cells.index('## Without a message')
entries = [c for c in cells if c.startswith('### ')]
def heading(cell): return cell.splitlines()[0].removeprefix('### ')
quoted = [heading(c) for c in cells[:apart] if c.startswith('### ')]

def plain(s): return re.sub(r'\s+', ' ', s.replace('`', '')).casefold()

def texts():
    "Every text in the library's source, adjacent ones joined, with `\\0` for what is filled in"
    for p in sorted((root/'distill_nb').rglob('*.py')):
        for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))):
            if isinstance(n, ast.Constant) and isinstance(n.value, str): yield plain(n.value)
            if isinstance(n, ast.JoinedStr):
                yield plain(''.join(o.value if isinstance(o, ast.Constant) else '\0' for o in n.values))

@pytest.fixture(scope='module')
def known(): return list(texts())

def is_quoted(message, known):
    parts = [re.escape(plain(o).strip()) for o in message.split('...')]
    return any(re.search('.*'.join(parts), t, re.S) for t in known)

@pytest.mark.parametrize('message', quoted)
def test_a_quoted_message_occurs_in_the_library(message, known): assert is_quoted(message, known)

def test_other_words_are_not_found(known):
    assert not is_quoted('the hub ... answers', known) and not is_quoted('nothing ... hub ... was learned', known)

def test_fifteen_entries_each_with_a_remedy():
    assert len(entries) >= 15 and len(set(map(heading, entries))) == len(entries)
    for c in entries: assert len(c.split('\n\n')) >= 2 and len(c) < 900, heading(c)

remedies = [(heading(c), m[1]) for c in entries for m in re.finditer(r'```python\n(.*?)```', c, re.S)]
@pytest.fixture(scope='module')
def names():
    from fastai.vision.all import DataLoaders, Learner, nn
    ours = namespace()
    data = dict(dls=DataLoaders, pool=list, zoo=ours['Zoo'], rank=ours['Ranking'], learn=Learner, model=nn.Module)
    return ours | {k: instance_of(v) for k,v in data.items()}

@pytest.mark.parametrize('code', [c for _,c in remedies], ids=[h for h,_ in remedies])
def test_a_remedy_calls_what_exists(code, names): check_code(code, names)

@pytest.mark.parametrize('code', ['distil_learner(dls)','distill_learner(dls, pool, rank, cash=1)','learn.fit_one_circle(2)','Zoo.tim("a")',
                                  'from distill_nb.all import nothing'])
def test_wrong_code_is_found(code, names):
    with pytest.raises((NameError,TypeError,AttributeError)): check_code(code, names)
