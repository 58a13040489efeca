"The plan of the house: one number per notebook, imports that point backwards, public seams, rooms and cells of a readable size"
import ast, json, re
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
nbs,lib = root/'nbs',root/'distill_nb'
folders = {'.': '', 'estimators': 'estimators.'}                # of notebooks -> prefix of their modules
pages = 'guide','tutorials','pages'
by_hand = {'__init__','all','_modidx'}

def notebooks(folder): return sorted(p for p in (nbs/folder).glob('*.ipynb') if p.stem != 'index')
def sources(path): return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
def exported(path): return [s for s in sources(path) if re.search(r'^#\|\s*exporti?\s*$', s, re.M)]
def module(path):
    "What a notebook exports to, or None"
    return next((m[1] for s in sources(path) if (m := re.search(r'^#\|\s*default_exp (\S+)', s, re.M))), None)
def number(path): return int(path.name.partition('_')[0])

rooms = [p for f in folders for p in notebooks(f)]
order = {module(p): number(p) for p in notebooks('.')}
modules = sorted(p for p in lib.rglob('*.py') if p.stem not in by_hand)
def name(path): return '.'.join(path.relative_to(lib).with_suffix('').parts)

def imports(tree, here):
    "(module of ours, names) of every import, wherever it stands"
    depth = here.count('.')
    for n in ast.walk(tree):
        if not isinstance(n, ast.ImportFrom): continue
        if n.level: yield '.'.join([*here.split('.')[:depth+1-n.level], n.module or '']).strip('.'),[a.name for a in n.names]
        elif (n.module or '').partition('.')[0] == 'distill_nb': yield n.module.partition('.')[2],[a.name for a in n.names]

@pytest.mark.parametrize('folder', [*folders, *pages])
def test_each_notebook_has_a_number_of_its_own(folder):
    numbers = [number(p) for p in notebooks(folder)]
    assert numbers == list(range(numbers[0], numbers[0]+len(numbers)))
    assert all(re.fullmatch(r'\d\d_[a-z_]+', p.stem) for p in notebooks(folder))

@pytest.mark.parametrize('path', rooms, ids=lambda p: p.stem)
def test_a_room_is_named_after_its_module(path):
    prefix = folders['.' if path.parent == nbs else path.parent.name]
    assert module(path) in (None, prefix + path.stem.partition('_')[2])

@pytest.mark.parametrize('path', modules, ids=name)
def test_imports_point_backwards(path):
    here = name(path)
    for there,_ in imports(ast.parse(path.read_text(encoding='utf-8')), here):
        if not there or there.startswith('estimators'):         # the package's version; metrics know nothing but the checks
            assert not here.startswith('estimators') or there.startswith('estimators')
        elif here.startswith('estimators'): assert there in ('core','files')
        else: assert order[there] < order[here], f'{here} imports {there}'

def owners(tree):
    "(node, class it belongs to) of everything in a module; a patched function belongs to the class that it patches"
    def walk(node, owner):
        for n in ast.iter_child_nodes(node):
            mine = owner
            if isinstance(n, ast.ClassDef): mine = n.name
            elif isinstance(n, ast.FunctionDef) and any('patch' in ast.unparse(d)
                                                        for d in n.decorator_list) and n.args.args and n.args.args[0].annotation:
                mine = ast.unparse(n.args.args[0].annotation)
            yield n,mine
            yield from walk(n, mine)
    return walk(tree, None)

def private(name): return name.startswith('_') and not name.startswith(('__','_repr_')) # _repr_html_ is IPython's protocol

def own_privates():
    "Private attributes that classes of ours define -> those classes"
    res = {}
    for path in modules:
        for n,owner in owners(ast.parse(path.read_text(encoding='utf-8'))):
            if owner is None: continue
            if isinstance(n, ast.FunctionDef) and private(n.name): res.setdefault(n.name, set()).add(owner)
            if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and private(n.attr) and ast.unparse(n.value) == 'self':
                res.setdefault(n.attr, set()).add(owner)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and private(n.id): res.setdefault(n.id, set()).add(owner)
    return res
privates = own_privates()
fastais = {'_new','_repr_html_'} # names that fastcore and IPython gave

@pytest.mark.parametrize('path', modules, ids=name)
def test_seams_are_public(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for there,names in imports(tree, name(path)): assert not [o for o in names if private(o)], f'of {there}'
    for n,owner in owners(tree):
        if not isinstance(n, ast.Attribute) or n.attr not in privates or n.attr in fastais: continue
        assert ast.unparse(n.value) in ('self','cls','type(self)') or owner in privates[n.attr], f'line {n.lineno}: {ast.unparse(n)}'

def test_notebooks_read_no_private_name_of_another_room():
    for path in sorted(nbs.rglob('*.ipynb')):
        for s in sources(path):
            assert not re.search(r'^\s*from distill_nb\.?[\w.]* import [^\n]*\b_[a-z]', s, re.M), path.name

# one file that runs alone on a device; and the commands, which list their options
roomy = {'infer': 500, 'cli': 505}
@pytest.mark.parametrize('path', modules, ids=name)
def test_a_module_is_one_room(path):
    lines = [l for l in path.read_text(encoding='utf-8').splitlines() if l.strip() and not l.startswith('# %%')]
    assert len(lines) <= roomy.get(path.stem, 360)

@pytest.mark.parametrize('path', rooms, ids=lambda p: p.stem)
def test_an_exported_cell_is_read_at_a_glance(path):
    for s in exported(path): assert len(s.strip().splitlines()) <= 42, s.splitlines()[1][:80]

def test_all_has_every_room_that_a_user_types_from():
    "`distill_nb.all` is written by hand: a room that it forgets is missing in every notebook of a user"
    known = {there for there,_ in imports(ast.parse((lib/'all.py').read_text(encoding='utf-8')), 'all')}
    assert set(order) - known - {None} == {'core','files','identity','cli'}
