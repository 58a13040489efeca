"The pages of the site: their names and order, and links between them"
import json, os, re
from pathlib import Path

root = Path(__file__).resolve().parents[2]
repo = 'https://github.com/distill-nb/distill_nb'

def page_name(path):
    "nbs/24_similarity.ipynb -> similarity, nbs/pages/01_method.ipynb -> method, nbs/tutorials/02_explore.ipynb -> tutorials/explore"
    p = Path(path).relative_to(root/'nbs').with_suffix('')
    folder = '' if p.parts[0] == 'pages' else p.parent
    return str(Path(folder)/re.sub(r'^\d+_', '', p.name))

def notebooks():
    "Name of the page -> notebook, in the order of the numbers"
    return {page_name(p): p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts}

folders = {'Guide': 'guide', 'Tutorials': 'tutorials', 'Reference': 'pages', 'Library': '.', 'Estimators': 'estimators'}

def chapters():
    "Chapter -> names of its pages, in the order of the numbers"
    def inside(p, folder): return p.parent == (root/'nbs'/folder).resolve()
    return {c: [n for n,p in notebooks().items() if inside(p, f) and n != 'index'] for c,f in folders.items()}

def load(path): return json.loads(path.read_text(encoding='utf-8'))
def source(cell): return ''.join(cell['source'])

def edit_link(path): return f'{repo}/edit/main/{path.relative_to(root).as_posix()}'

def opening(path):
    "Title and first line of a notebook"
    text = '\n'.join(source(c) for c in load(path)['cells'] if c['cell_type']=='markdown')
    return tuple(m[1] if (m := re.search(rf'^{mark} (.+)$', text, re.M)) else '' for mark in '#>')

def links(text, path, pages):
    """Links to notebooks lead to pages, and so do names of notebooks in backticks: `nbs/20_outputs.ipynb`, `20_outputs`,
    `estimators/trust`, and, of the folder `pages`, `speed`"""
    at = os.path.dirname(page_name(path))
    def to(name): return os.path.relpath(name, at or '.') + '.ipynb'
    where = {}
    for name,p in pages.items():
        rel = p.relative_to(root/'nbs').with_suffix('').as_posix()
        short = [name] if '/' in name or p.parent.name == 'pages' else [] # `outputs` alone is more often a word
        for key in (rel, f'nbs/{rel}.ipynb', *short): where.setdefault(key, name)
    def link(m): return f']({to(page_name((path.parent/(m[1]+".ipynb")).resolve()))})'
    def named(m): return f'[`{m[1]}`]({to(where[m[1]])})' if m[1] in where else m[0]
    text = re.sub(r'\]\((?!https?:|#)([^)#]+)\.(?:ipynb|html)(#[^)]*)?\)', link, text)
    return re.sub(r'(?<!\[)`((?:nbs/)?[\w/]+(?:\.ipynb)?)`(?!\])', named, text)
