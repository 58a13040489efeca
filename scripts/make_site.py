"""The documentation site, out of the notebooks, with one command:

    pip install -e '.[docs]' && python scripts/make_site.py

Nothing is executed: pages show the outputs that the notebooks hold. For each cell that exports something the page has its signature and the table of its arguments, made from the
docments, with the source folded away. MathJax and what saved widgets need come from npm's registry once, and are kept in the user's cache; the site itself asks nobody for anything.
`_docs/html` is what is published."""
import argparse, ast, importlib, inspect, itertools, json, os, re, shutil, subprocess, sys, tarfile, textwrap, urllib.request
from pathlib import Path

root = Path(__file__).resolve().parent.parent
repo = 'https://github.com/distill-nb/distill_nb'
vendored = {'mathjax': ('3.2.2', ['es5/tex-mml-chtml.js', 'es5/output/chtml/fonts']),
            'requirejs': ('2.3.7', ['require.js']), '@jupyter-widgets/html-manager': ('1.0.15', ['dist/embed-amd.js'])}

# Pages and their order

def page_name(path):
    "nbs/20_similarity.ipynb -> similarity, nbs/pages/01_method.ipynb -> method, nbs/tutorials/02_explore.ipynb -> tutorials/explore"
    p = Path(path).relative_to(root/'nbs').with_suffix('')
    folder = '' if p.parts[0] == 'pages' else p.parent
    return str(Path(folder)/re.sub(r'^\d+_', '', p.name))

def notebooks():
    "Name of the page -> notebook, in the order of the numbers"
    return {page_name(p): p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts}

folders = {'Tutorials': 'tutorials', 'Reference': 'pages', 'Library': '.', 'Estimators': 'estimators'}
def chapters():
    "Chapter -> names of its pages, as the folders and the numbers of the files have them"
    return {c: [n for n,p in notebooks().items() if p.parent == (root/'nbs'/f).resolve() and n != 'index'] for c,f in folders.items()}

def load(path): return json.loads(path.read_text(encoding='utf-8'))

# Names of the library, and where they are told of

def symbols():
    "name -> (label of its place, module) of everything public; a method by 'Class.method'"
    from distill_nb._modidx import d
    told = {n for p in notebooks().values() for c in load(p)['cells']
            if re.search(r'^#\|\s*exports?\s*$', ''.join(c['source']), re.M) for n in defined(''.join(c['source']))}
    res = {}
    for module,names in d['syms'].items():
        public = getattr(importlib.import_module(module), '__all__', [])
        for name in (full[len(module)+1:] for full in names):
            owner = name.split('.')[0]
            if name in told and (owner in public or '.' in name): res.setdefault(name, (f'{module}.{name}'.lower(), module))
            elif owner in public and owner in told:
                res.setdefault(name, (f'{module}.{owner}'.lower(), module)) # a method that is told of where its class is
    return res

_homonyms = {'predict','train','demo','bench','main','parser','rank','prepare','metrics'} # more often something else in prose
def link_names(text, names, here=()):
    "`name` in prose becomes a link to where it is explained; code blocks and what is a link already stay as they are"
    def sub(m):
        if m[1]: return m[0]
        name = m[2].split('(')[0].strip()
        return f'[`{m[2]}`](#{names[name][0]})' if name in names and name not in {*here, *_homonyms} else m[0]
    parts = re.split(r'(^```.*?^```|\[`[^`]+`\]\([^)]*\))', text, flags=re.S|re.M)
    return ''.join(p if i%2 else re.sub(r'(``)?`([^`\n]+)`(?!`)', sub, p) for i,p in enumerate(parts))

# One exported cell

def defined(source):
    "Names that a cell defines, in order; a patched method as 'Class.method'"
    res = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef,ast.ClassDef)):
            patched = [d for d in node.decorator_list if 'patch' in ast.unparse(d)]
            if patched and node.args.args and node.args.args[0].annotation:
                res.append(f'{ast.unparse(node.args.args[0].annotation)}.{node.name}')
            else: res.append(node.name)
    return [n for n in res if not n.split('.')[-1].startswith('_')]

def _show_default(v): return 'inf' if v == float('inf') else getattr(v, '__name__', None) or repr(v)
def _cell(s): return re.sub(r'\s+', ' ', str(s)).replace('|', r'\|')

def signature(obj, name):
    "The call as one would write it, a line as long as it may be"
    try: sig = inspect.signature(obj)
    except (TypeError,ValueError): return name
    args = [('*' if p.kind==p.VAR_POSITIONAL else '**' if p.kind==p.VAR_KEYWORD else '') + n
            + ('' if p.default is p.empty else f'={_show_default(p.default)}')
            for n,p in sig.parameters.items() if n not in ('self','cls')]
    if any(p.kind==p.KEYWORD_ONLY for p in sig.parameters.values()) and not any(a.startswith('*') for a in args):
        at = next(i for i,(n,p) in enumerate((n,p) for n,p in sig.parameters.items() if n not in ('self','cls')) if p.kind==p.KEYWORD_ONLY)
        args.insert(at, '*')
    one = f"{name}({', '.join(args)})"
    return one if len(one)<=96 else f'{name}(\n' + textwrap.fill(', '.join(a.replace(' ', '\0') for a in args), 92,
            initial_indent='    ', subsequent_indent='    ', break_long_words=False, break_on_hyphens=False).replace('\0', ' ') + ')'

def api(name, module, label, level):
    "Heading, signature, docstring and table of arguments of one public name, in Markdown; '' if it cannot be found"
    from fastcore.docments import docments
    obj = importlib.import_module(module)
    for part in name.split('.'):
        own = inspect.getattr_static(obj, part, None)
        obj = own.fget if isinstance(own, property) else getattr(obj, part, None)
    obj = getattr(obj, '__func__', obj)
    if obj is None or not callable(obj): return ''
    file = module.replace('.', '/') + '.py'
    lines = [f'({label})=', f'{"#"*level} {name}', '', f'```python\n{signature(obj, name)}\n```', '']
    if doc := inspect.getdoc(obj): lines += [doc if inspect.isclass(obj) or not doc.startswith('Initialize') else '', '']
    try: ds = docments(obj, full=True, returns=True)
    except Exception: ds = {}
    rows = []
    for n,o in ds.items():
        if n in ('self','cls') or not o or not (o.get('docment') or o.get('anno') not in (None, inspect._empty)): continue
        default = o.get('default', inspect._empty)
        kind = o.get('anno')
        kind = '' if kind in (None, inspect._empty) else getattr(kind, '__name__', None) or str(kind).replace('typing.', '')
        rows.append(f"| {'**returns**' if n=='return' else f'`{n}`'} | {_cell(kind)} | "
                    f"{'' if default is inspect._empty or n=='return' else f'`{_cell(_show_default(default))}`'} | "
                    f"{_cell(o.get('docment') or '')} |")
    if rows: lines += ['| | type | default | |', '|---|---|---|---|', *rows, '']
    if inspect.isclass(obj):
        own = [(n,m) for n,m in vars(obj).items() if not n.startswith('_')
               and (inspect.isfunction(m) or isinstance(m, (property,classmethod))) and inspect.getdoc(m)]
        if own:
            lines += [*(f"- `{signature(getattr(m, '__func__', m), n) if not isinstance(m, property) else n}`: {_cell(inspect.getdoc(m))}" for n,m in own), '']
    return '\n'.join(lines) + f'\n[Source]({repo}/blob/main/{file})\n'

# One notebook

_ids = itertools.count()
def md(source): return dict(cell_type='markdown', id=f'm{next(_ids)}', metadata={}, source=source)

def convert(path, names, pages):
    "A notebook as the site shows it"
    nb = load(path)
    cells,level,module,seen = [],1,None,set()
    for c in nb['cells']:
        src = ''.join(c['source'])
        flags = {m[1].strip(): m[2].strip() for m in re.finditer(r'^#\|\s*([\w-]+):?(.*)$', src, re.M)}
        if 'default_exp' in flags: module = f"distill_nb.{flags['default_exp']}"
        if not src.strip() or {'hide','default_exp'} & flags.keys(): continue
        if c['cell_type'] == 'markdown':
            for m in re.finditer(r'^(#+) ', re.sub(r'^```.*?^```', '', src, flags=re.S|re.M), re.M): level = len(m[1])
            cells.append(md(links(link_names(src, names), path, pages)))
            continue
        body = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n')
        if {'export','exports','exporti'} & flags.keys():
            if module:
                for n in defined(body) if 'exporti' not in flags else []:
                    if n in names and n not in seen:
                        seen.add(n)
                        if text := api(n, module, f'{module}.{n}'.lower(), min(level+1, 6)):
                            cells.append(md(link_names(text, names, here=(n,))))
            if all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(body).body): continue
            cells.append({**c, 'source': body, 'metadata': dict(tags=['hide-input']), 'outputs': outputs(c)})
        else:
            tags = ['remove-input'] if flags.get('echo') == 'false' else [
                    'hide-input'] if 'code-fold' in flags or 'hide_input' in flags else []
            cells.append({**c, 'source': body, 'metadata': dict(tags=tags), 'outputs': outputs(c)})
    cells.append(md(f'---\n[Edit this page]({repo}/edit/main/{path.relative_to(root).as_posix()}): it is a notebook, and can be run as it is.'))
    return {**nb, 'cells': cells}

def outputs(cell):
    """What a page shows of the outputs: not what went to the error stream, nor bars that have run out; of a widget
    with saved state only the widget; fastai's tables as the others"""
    res = []
    for o in cell.get('outputs', []):
        data = o.get('data') or {}
        html = ''.join(data.get('text/html', ''))
        if o.get('name') == 'stderr' or 'text/html' in data and not re.sub(r'<style.*?</style>', '', html, flags=re.S).strip(): continue
        if 'application/vnd.jupyter.widget-view+json' in data and html:
            data = {k:v for k,v in data.items() if not k.startswith('application/vnd')}
        if 'class="fastprogress"' in html: data = {**data, 'text/html': html.replace('class="fastprogress"', 'class="dataframe"')}
        res.append({**o, 'data': data} if data else o)
    return res

def opening(path):
    "Title and first line of a notebook"
    text = '\n'.join(''.join(c['source']) for c in load(path)['cells'] if c['cell_type']=='markdown')
    return tuple(m[1] if (m := re.search(rf'^{mark} (.+)$', text, re.M)) else '' for mark in '#>')

def links(text, path, pages):
    "Links to notebooks and names of notebooks in backticks lead to pages"
    at = os.path.dirname(page_name(path))
    where = {}
    for name,p in pages.items():
        rel = p.relative_to(root/'nbs').with_suffix('').as_posix()
        for key in (rel, f'nbs/{rel}.ipynb', name): where.setdefault(key, name)
    to = lambda name: os.path.relpath(name, at or '.') + '.ipynb'
    text = re.sub(r'\]\((?!https?:|#)([^)#]+)\.(?:ipynb|html)(#[^)]*)?\)',
                  lambda m: f']({to(page_name((path.parent/(m[1]+".ipynb")).resolve()))})', text)
    return re.sub(r'(?<!\[)`((?:nbs/)?[\w/]+(?:\.ipynb)?)`(?!\])',
                  lambda m: f'[`{m[1]}`]({to(where[m[1]])})' if m[1] in where
                  and ('/' in m[1] or m[1][:2].isdigit() or m[1] in chapters()['Reference']) else m[0], text)

# The whole

conf = '''
project,author,copyright = 'distill_nb','the distill_nb authors','the distill_nb authors'
version = release = {version!r}
extensions = ['myst_nb','sphinx_copybutton','sphinx.ext.mathjax']
myst_enable_extensions = ['dollarmath','amsmath','colon_fence','attrs_inline','attrs_block','deflist','html_image']
myst_heading_anchors = 4
nb_execution_mode = 'off'
nb_output_stderr = 'remove'
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {widgets}
mathjax_path = 'vendor/mathjax/es5/tex-mml-chtml.js'
html_theme = 'pydata_sphinx_theme'
html_title = 'distill_nb'
html_static_path = ['_static']
html_css_files = ['site.css']
html_js_files = [('hub.js', dict(priority=1))]
html_show_sourcelink = False
html_favicon = '_static/icon.svg'
html_context = dict(default_mode='auto')
html_theme_options = dict(show_prev_next=True, navigation_with_keys=False, secondary_sidebar_items=['page-toc'], show_toc_level=2, header_links_before_dropdown=6, navbar_align='left',
    logo=dict(text='distill_nb {version}'), icon_links=[dict(name='GitHub', url={repo!r}, icon='fa-brands fa-github')], footer_start=['copyright'], footer_end=[], navbar_end=['theme-switcher','navbar-icon-links'])
html_sidebars = {{'index': []}}
pygments_style,pygments_dark_style = 'friendly','monokai'
suppress_warnings = ['mystnb.unknown_mime_type']
copybutton_exclude = '.linenos, .gp, .go'
'''

css = '''
.bd-main .bd-content .bd-article-container { max-width: 62em }
.cell_output img, .bd-article img { max-width: 100%; height: auto }
html[data-theme=dark] .cell_output img { background: #fff; border-radius: 4px }
html[data-theme=dark] .bd-content .cell_output .text_html:not(:has(.dnb)) table { color: var(--pst-color-text-base); background: none }
.cell_output .output.text_html { overflow-x: auto }
.cell_output pre, .highlight pre { overflow-x: auto; font-size: .82em }
table.docutils td, table.docutils th { vertical-align: top; padding: .25em .6em }
.bd-article .cell details.hide summary { opacity: .75 }
.bd-article .cell_output table.dataframe th, .bd-article .cell_output table.dataframe td { text-align: left; padding: .25em .6em }
.bd-article .cell_output table { margin-bottom: 1.2em }
@media (min-width: 960px) { .bd-sidebar-primary { flex: 0 0 15rem } .bd-sidebar-secondary { width: 13rem } }
'''

# the widgets' html-manager calls MathJax as it was in version 2
hub = 'addEventListener("load", () => { if (window.MathJax && !MathJax.Hub) MathJax.Hub = {Queue: a => MathJax.typesetPromise && MathJax.typesetPromise([a[2]])} })'
icon = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="#3b7dbd"><circle cx="6" cy="6" r="5"/><circle cx="16" cy="6" r="4"/><circle cx="26" cy="6" r="3"/></g><path d="M6 11 16 23 26 9M16 10v13" stroke="#3b7dbd" stroke-width="2" fill="none"/><circle cx="16" cy="26" r="5" fill="#e07b39"/></svg>'

def vendor(to):
    "Files of npm packages, out of the user's cache or npm's registry"
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'distill_nb'/'site'
    cache.mkdir(parents=True, exist_ok=True)
    for name,(v,wanted) in vendored.items():
        short = name.split('/')[-1]
        tgz = cache/f'{short}-{v}.tgz'
        if not tgz.exists():
            registry = os.environ.get('NPM_CONFIG_REGISTRY', '').rstrip('/')
            if shutil.which('npm'):
                part = cache/subprocess.run(['npm', 'pack', f'{name}@{v}', '--silent'], cwd=cache, check=True,
                                            capture_output=True, text=True).stdout.split()[-1]
            else:
                part = tgz.with_suffix('.part')
                urllib.request.urlretrieve(f"{registry or 'https://registry.npmjs.org'}/{name}/-/{short}-{v}.tgz", part)
            part.replace(tgz)
        with tarfile.open(tgz) as t:
            for m in t.getmembers():
                inside = m.name.partition('/')[2]
                if m.isfile() and any(inside == w or inside.startswith(w+'/') for w in wanted):
                    file = to/short/inside
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(t.extractfile(m).read())

def write_sources(src, with_vendor=True):
    "Everything that Sphinx reads"
    sys.path.insert(0, str(root))
    from distill_nb import __version__
    pages,names = notebooks(),symbols()
    shutil.rmtree(src, ignore_errors=True)
    (src/'_static').mkdir(parents=True)
    shutil.copytree(root/'nbs'/'images', src/'images')
    for name,p in pages.items():
        nb = convert(p, names, pages)
        if name == 'index': nb['cells'][-1:] = [md('```{toctree}\n:hidden:\n\n' + '\n'.join(c.lower() for c in folders) + '\n```')]
        file = src/f'{name}.ipynb'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(nb), encoding='utf-8')
    for c,ps in chapters().items():
        (src/f'{c.lower()}.md').write_text(f'# {c}\n\n' + '\n'.join(f'- **[{title}]({p}.ipynb).** {what}' for p in ps
                for title,what in [opening(pages[p])]) + '\n\n```{toctree}\n:hidden:\n\n' + '\n'.join(ps) + '\n```\n', encoding='utf-8')
    (src/'_static'/'site.css').write_text(css, encoding='utf-8')
    (src/'_static'/'hub.js').write_text(hub, encoding='utf-8')
    (src/'_static'/'icon.svg').write_text(icon, encoding='utf-8')
    if with_vendor: vendor(src/'_static'/'vendor')
    widgets = {'vendor/requirejs/require.js': {}, 'vendor/html-manager/dist/embed-amd.js': {
            'data-jupyter-widgets-cdn-only': 'false'}} if with_vendor else {}
    (src/'conf.py').write_text(conf.format(version=__version__, widgets=widgets, repo=repo), encoding='utf-8')

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=root/'_docs')
    ap.add_argument('--no-vendor', action='store_true', help='without MathJax and widgets, where there is no network')
    a = ap.parse_args()
    shutil.rmtree(a.out/'html', ignore_errors=True)
    write_sources(a.out/'src', not a.no_vendor)
    raise SystemExit(subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html',
                                     str(a.out/'src'), str(a.out/'html')]).returncode)

if __name__ == '__main__': main()
