"The style gate: ruff, columns, and words that a native technical writer would not choose"
import ast, json, re, subprocess, sys, tokenize
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
code = [root/o for o in ('distill_nb','tests','scripts','benchmarks','experiments')]
modules = sorted(p for p in (root/'distill_nb').rglob('*.py') if p.stem != '_modidx')
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
texts = sorted(root.glob('*.md')) + sorted((root/'tests').glob('*.md')) + sorted((root/'experiments').glob('*.md'))

def test_ruff():
    "Rules are in pyproject.toml: 140 columns, no semicolon, no unused name, on package, notebooks, tests and scripts"
    run = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--quiet', '--output-format', 'concise', '.'],
                         cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[:4000] + run.stderr

def test_120_columns_are_the_rule():
    "Of the package's lines that are not blank at most one in thirty is longer, about as many as in fastcore"
    lines = [l for p in modules for l in p.read_text(encoding='utf-8').splitlines() if l.strip()
             and not l.startswith(('# %%','__all__',"           '"))]
    assert sum(len(l) > 120 for l in lines) <= len(lines)/30

def cells(path, kind):
    return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]

unit = '(score|weight|row|number|line|column|pass|probe|seed|rate|run|vote|loss)'
thing = '(source|image|class|run|method|seed|target|model|network|file|cell|step)'
kind = '(folder|file|number|chunk|class|image|source|pickle|regular file|argument|network|vector|tensor|table|list)'
worst = { # pattern -> what to write
    r'cannot be had|can be had': 'is not available; can be reproduced',
    r'\bthat (is|are) none\b|\bit is none\b(?! of)': 'non-numeric, not a ...',
    r'\bnot believed\b': 'validated, not trusted',
    r'lets go of': 'releases',
    r'rooms? later': 'modules downstream',
    r'\banew\b': 'again, from scratch',
    r'chance wants': 'random',
    r'\bnil\b': 'zero',
    r'\bshelf\b': 'a set of models',
    rf'\b(one|a) {unit} an? {thing}\b': 'per',
    r'\ball alike\b': 'equally, the same',
    r'[Ss]ees? to it\b': 'make sure',
    r'\bheld against\b': 'compared with, checked against',
    r'\b(is|are) told of\b': 'described, notified',
    r'\bboil(s|ed)? down to\b': 'reduces to',
    r'\bdoorkeepers?\b': 'checks',
    r'\bin earnest\b': 'in practice',
    r'\bfor good\b': 'permanently',
    r'\bgets? on without\b': 'does without',
    rf'(?<!there )(?<!There )\bis no {kind}\b': 'is not a',
    r'\bput away\b': 'clean up',
    r"\bone'?s own\b": 'your own'}

def prose():
    "(where, text) of all that a reader reads: pages, lessons, docstrings, comments, messages"
    for p in texts: yield p.name,p.read_text(encoding='utf-8')
    for p in notebooks:
        for s in cells(p, 'markdown'): yield p.stem,s
    for p in modules:
        with open(p, 'rb') as f:
            for t in tokenize.tokenize(f.readline):
                if t.type in (tokenize.STRING,tokenize.COMMENT) and ' ' in t.string: yield p.stem,t.string

@pytest.mark.parametrize('words', worst)
def test_words_that_read_as_translated(words):
    found = [f'{where}: {m[0]}' for where,text in prose() for m in [re.search(words, text)] if m]
    assert not found, f'better: {worst[words]}\n' + '\n'.join(found[:40])

events = {'new','hold','encodes','score','trust','to','loss','facts','choose','forward','train','open'} # as in the base class, or private
def public(tree, names):
    "(name, function) of what a module exports: functions, and methods of its classes, patched ones too"
    for n in tree.body:
        if isinstance(n, ast.ClassDef) and n.name in names:
            yield from ((f'{n.name}.{f.name}', f) for f in n.body if isinstance(f, ast.FunctionDef))
        elif isinstance(n, ast.FunctionDef):
            if n.name in names or any('patch' in ast.unparse(d) for d in n.decorator_list): yield n.name,n

@pytest.mark.parametrize('path', modules, ids=lambda p: p.stem)
def test_what_is_returned_is_annotated(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    lists = [n.value.elts for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__']
    names = {ast.literal_eval(e) for elts in lists for e in elts}
    for name,f in public(tree, names):
        returns = any(isinstance(n, ast.Return) and n.value is not None for n in ast.walk(f))
        own = f.name.startswith(('_','before_','after_')) or f.name in events
        assert f.returns is not None or not returns or own, name

@pytest.mark.parametrize('path', modules, ids=lambda p: p.stem)
def test_docments_begin_in_lower_case(path):
    proper = 'Axes|BLAKE2b|DataLoaders|Learner|None|ONNX|Pillow|Source|True|False|D_l|C_s'
    for line in path.read_text(encoding='utf-8').splitlines():
        if m := re.match(r'^ {4,8}\*?\w+(:[\w.\[\]]+)?(=[^#]*)?, *# ([A-Z][a-z]+)\b', line): assert re.match(proper, m[3]), line
