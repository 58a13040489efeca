"""Make the documentation site from the notebooks:

    pip install -e '.[docs]' && python scripts/make_site.py

Nothing is executed: pages show the outputs stored in the notebooks. A cell that exports something becomes its signature
and the table of its arguments, made from the docments, with the source folded away. Chapters are the folders of `nbs`,
pages are in the order of their numbers. MathJax and what saved widgets need are fetched from npm's registry once and
kept in the user's cache; the site itself loads nothing from elsewhere. `_docs/html` is what is published."""
import argparse, ast, importlib, inspect, itertools, json, os, re
import shutil, subprocess, sys, tarfile, textwrap, urllib.request
from pathlib import Path

root = Path(__file__).resolve().parent.parent
repo = 'https://github.com/distill-nb/distill_nb'
vendored = {'mathjax': ('3.2.2', ['es5/tex-mml-chtml.js','es5/output/chtml/fonts']),
            'requirejs': ('2.3.7', ['require.js']),
            '@jupyter-widgets/html-manager': ('1.0.15', ['dist/embed-amd.js'])}

# Pages and their order

def page_name(path):
    "nbs/24_similarity.ipynb -> similarity, nbs/pages/01_method.ipynb -> method, nbs/tutorials/02_explore.ipynb -> tutorials/explore"
    p = Path(path).relative_to(root/'nbs').with_suffix('')
    folder = '' if p.parts[0] == 'pages' else p.parent
    return str(Path(folder)/re.sub(r'^\d+_', '', p.name))

def notebooks():
    "Name of the page -> notebook, in the order of the numbers"
    return {page_name(p): p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts}

folders = {'Tutorials': 'tutorials', 'Reference': 'pages', 'Library': '.', 'Estimators': 'estimators'}

def chapters():
    "Chapter -> names of its pages, in the order of the numbers"
    def inside(p, folder): return p.parent == (root/'nbs'/folder).resolve()
    return {c: [n for n,p in notebooks().items() if inside(p, f) and n != 'index'] for c,f in folders.items()}

def load(path): return json.loads(path.read_text(encoding='utf-8'))
def source(cell): return ''.join(cell['source'])

# Names of the library, and where they are explained

def exporting(path): return [source(c) for c in load(path)['cells'] if re.search(r'^#\|\s*exports?\s*$', source(c), re.M)]

def symbols():
    "name -> (label of its section, module) of everything public; a method is 'Class.method'"
    from distill_nb._modidx import d
    explained = {n for p in notebooks().values() for s in exporting(p) for n in defined(s)}
    res = {}
    for module,names in d['syms'].items():
        public = getattr(importlib.import_module(module), '__all__', [])
        for name in (full[len(module)+1:] for full in names):
            owner = name.split('.')[0]
            if name in explained and (owner in public or '.' in name): label = name
            elif owner in public and owner in explained: label = owner # a method without a section of its own
            else: continue
            res.setdefault(name, (f'{module}.{label}'.lower(), module))
    return res

homonyms = {'predict','train','demo','bench','main','parser','rank','prepare','metrics'} # mostly something else in prose

def link_names(text, names, here=()):
    "`name` in prose becomes a link to its section; code blocks and links stay as they are"
    def sub(m):
        if m[1]: return m[0]
        name = m[2].split('(')[0].strip()
        return f'[`{m[2]}`](#{names[name][0]})' if name in names and name not in {*here, *homonyms} else m[0]
    parts = re.split(r'(^```.*?^```|\[`[^`]+`\]\([^)]*\))', text, flags=re.S|re.M)
    return ''.join(p if i%2 else re.sub(r'(``)?`([^`\n]+)`(?!`)', sub, p) for i,p in enumerate(parts))

# One exported cell

def patched_class(node):
    "Name of the class that a `@patch`ed function belongs to, or None"
    if not isinstance(node, ast.FunctionDef) or not any('patch' in ast.unparse(d) for d in node.decorator_list): return
    if node.args.args and (cls := node.args.args[0].annotation): return ast.unparse(cls)

def defined(code):
    "Public names that a cell defines, in order; a patched method is 'Class.method'"
    nodes = [n for n in ast.parse(code).body if isinstance(n, (ast.FunctionDef,ast.ClassDef)) and not n.name.startswith('_')]
    return [f'{cls}.{n.name}' if (cls := patched_class(n)) else n.name for n in nodes]

def show_default(v): return 'inf' if v == float('inf') else getattr(v, '__name__', None) or repr(v)
def no_html(s): return ''.join(p if i%2 else re.sub(r'<(/?\w+)>', r'\\<\1>', p) for i,p in enumerate(re.split(r'(`[^`]*`)', s)))
def table_cell(s): return no_html(re.sub(r'\s+', ' ', str(s))).replace('|', r'\|')

def argument(p):
    "A parameter as it stands in a signature"
    star = {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')
    return star + p.name + ('' if p.default is p.empty else f'={show_default(p.default)}')

def signature(obj, name):
    "The call as one would write it, with lines of at most 96 characters"
    try: params = [p for n,p in inspect.signature(obj).parameters.items() if n not in ('self','cls')]
    except (TypeError,ValueError): return name
    args = [argument(p) for p in params]
    keywords = [i for i,p in enumerate(params) if p.kind == p.KEYWORD_ONLY]
    if keywords and not any(a.startswith('*') for a in args): args.insert(keywords[0], '*')
    one = f"{name}({', '.join(args)})"
    if len(one) <= 96: return one
    joined = ', '.join(a.replace(' ', '\0') for a in args) # no break within an argument
    how = dict(initial_indent='    ', subsequent_indent='    ', break_long_words=False, break_on_hyphens=False)
    return f'{name}(\n' + textwrap.fill(joined, 92, **how).replace('\0', ' ') + ')'

def argument_rows(obj):
    "Rows of the table of arguments, from the docments"
    from fastcore.docments import docments
    try: ds = docments(obj, full=True, returns=True)
    except Exception: return []
    rows,none = [],inspect._empty
    for n,o in ds.items():
        if n in ('self','cls') or not o: continue
        kind,default,text = o.get('anno'),o.get('default', none),o.get('docment') or ''
        kind = '' if kind in (None, none) else getattr(kind, '__name__', None) or str(kind).replace('typing.', '')
        if not text and not kind: continue
        name = '**returns**' if n == 'return' else f'`{n}`'
        default = '' if default is none or n == 'return' else f'`{table_cell(show_default(default))}`'
        rows.append(f'| {name} | {table_cell(kind)} | {default} | {table_cell(text)} |')
    return ['| | type | default | |', '|---|---|---|---|', *rows, ''] if rows else []

def methods(cls):
    "Documented public methods and properties of a class, as a list"
    res = []
    for n,m in vars(cls).items():
        f = getattr(m, '__func__', m)
        if n.startswith('_') or not (inspect.isfunction(f) or isinstance(m, property)) or not inspect.getdoc(m): continue
        res.append(f"- `{n if isinstance(m, property) else signature(f, n)}`: {table_cell(inspect.getdoc(m))}")
    return [*res, ''] if res else []

def find(name, module):
    "The object of a public name; of a property its function"
    obj = importlib.import_module(module)
    for part in name.split('.'):
        own = inspect.getattr_static(obj, part, None)
        obj = own.fget if isinstance(own, property) else getattr(obj, part, None)
    return getattr(obj, '__func__', obj)

def api(name, module, label, level):
    "Heading, signature, docstring and table of arguments of one public name, in Markdown; '' if it cannot be found"
    obj = find(name, module)
    if obj is None or not callable(obj): return ''
    lines = [f'({label})=', f'{"#"*level} {name}', '', f'```python\n{signature(obj, name)}\n```', '']
    doc = inspect.getdoc(obj) or ''
    if doc and (inspect.isclass(obj) or not doc.startswith('Initialize')): lines += [no_html(doc), '']
    lines += argument_rows(obj)
    if inspect.isclass(obj): lines += methods(obj)
    return '\n'.join(lines) + f"\n[Source]({repo}/blob/main/{module.replace('.', '/')}.py)\n"

# One notebook

ids = itertools.count()
def md(text): return dict(cell_type='markdown', id=f'm{next(ids)}', metadata={}, source=text)

def directives(text): return {m[1].strip(): m[2].strip() for m in re.finditer(r'^#\|\s*([\w-]+):?(.*)$', text, re.M)}
def without_code(text): return re.sub(r'^```.*?^```', '', text, flags=re.S|re.M)
def only_imports(code): return all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(code).body)

def tags_of(flags):
    "Tags that hide the input of a cell, as its directives ask"
    if flags.get('echo') == 'false': return ['remove-input']
    return ['hide-input'] if flags.keys() & {'code-fold','hide_input','export','exports','exporti'} else []

def convert(path, names, pages):
    "A notebook as the site shows it"
    nb = load(path)
    cells,level,module,seen = [],1,None,set()
    for c in nb['cells']:
        src = source(c)
        flags = directives(src)
        if 'default_exp' in flags: module = f"distill_nb.{flags['default_exp']}"
        if not src.strip() or {'hide','default_exp'} & flags.keys(): continue
        if c['cell_type'] == 'markdown':
            for m in re.finditer(r'^(#+) ', without_code(src), re.M): level = len(m[1])
            cells.append(md(links(link_names(src, names), path, pages)))
            continue
        body = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n')
        if {'export','exports'} & flags.keys() and module:
            for n in defined(body):
                if n not in names or n in seen: continue
                seen.add(n)
                text = api(n, module, f'{module}.{n}'.lower(), min(level+1, 6))
                if text: cells.append(md(link_names(text, names, here=(n,))))
        if {'export','exports','exporti'} & flags.keys() and only_imports(body): continue
        shown = [linked(o, path, pages) for o in outputs(c)]
        cells.append({**c, 'source': body, 'metadata': dict(tags=tags_of(flags)), 'outputs': shown})
    edit = f'{repo}/edit/main/{path.relative_to(root).as_posix()}'
    cells.append(md(f'---\n[Edit this page]({edit}): it is a notebook, and runs as it is.'))
    return {**nb, 'cells': cells}

def outputs(cell):
    """What a page shows of the outputs: neither the error stream nor finished progress bars; of a widget with saved state
    only the widget; fastai's tables in the style of the others"""
    res = []
    for o in cell.get('outputs', []):
        data = o.get('data') or {}
        html = ''.join(data.get('text/html', ''))
        empty = 'text/html' in data and not re.sub(r'<style.*?</style>', '', html, flags=re.S).strip()
        if o.get('name') == 'stderr' or empty: continue
        if 'application/vnd.jupyter.widget-view+json' in data and html:
            data = {k:v for k,v in data.items() if not k.startswith('application/vnd')}
        if 'class="fastprogress"' in html: data = {**data, 'text/html': html.replace('class="fastprogress"', 'class="dataframe"')}
        res.append({**o, 'data': data} if data else o)
    return res

def linked(output, path, pages):
    "An output whose Markdown leads to pages"
    data = output.get('data') or {}
    if 'text/markdown' not in data: return output
    return {**output, 'data': {**data, 'text/markdown': links(''.join(data['text/markdown']), path, pages)}}

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

# The site

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
html_theme_options = dict(
    show_prev_next=True, navigation_with_keys=False, show_toc_level=2, header_links_before_dropdown=6, navbar_align='left',
    secondary_sidebar_items=['page-toc'], footer_start=['copyright'], footer_end=[],
    navbar_end=['theme-switcher','navbar-icon-links'], logo=dict(text='distill_nb {version}'),
    icon_links=[dict(name='GitHub', url={repo!r}, icon='fa-brands fa-github')])
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
hub = '''addEventListener("load", () => {
  if (window.MathJax && !MathJax.Hub)
    MathJax.Hub = {Queue: a => MathJax.typesetPromise && MathJax.typesetPromise([a[2]])}
})
'''

icon = '''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<g fill="#3b7dbd"><circle cx="6" cy="6" r="5"/><circle cx="16" cy="6" r="4"/><circle cx="26" cy="6" r="3"/></g>
<path d="M6 11 16 23 26 9M16 10v13" stroke="#3b7dbd" stroke-width="2" fill="none"/>
<circle cx="16" cy="26" r="5" fill="#e07b39"/></svg>
'''

def fetch(name, version, to):
    "The archive of an npm package, with npm if there is one"
    if shutil.which('npm'):
        cmd = ['npm','pack',f'{name}@{version}','--silent']
        made = subprocess.run(cmd, cwd=to.parent, check=True, capture_output=True, text=True).stdout.split()[-1]
        part = to.parent/made
    else:
        registry = os.environ.get('NPM_CONFIG_REGISTRY', '').rstrip('/') or 'https://registry.npmjs.org'
        part = to.with_suffix('.part')
        urllib.request.urlretrieve(f"{registry}/{name}/-/{name.split('/')[-1]}-{version}.tgz", part)
    part.replace(to)

def vendor(to):
    "Files of npm packages, from the user's cache or npm's registry"
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'distill_nb'/'site'
    cache.mkdir(parents=True, exist_ok=True)
    for name,(version,wanted) in vendored.items():
        short = name.split('/')[-1]
        archive = cache/f'{short}-{version}.tgz'
        if not archive.exists(): fetch(name, version, archive)
        with tarfile.open(archive) as t:
            for m in t.getmembers():
                inside = m.name.partition('/')[2]
                if not m.isfile() or not any(inside == w or inside.startswith(w+'/') for w in wanted): continue
                file = to/short/inside
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(t.extractfile(m).read())

def toctree(names): return '```{toctree}\n:hidden:\n\n' + '\n'.join(names) + '\n```\n'

def chapter_page(title, names, pages):
    "The page that lists a chapter"
    rows = [f'- **[{head}]({n}.ipynb).** {line}' for n in names for head,line in [opening(pages[n])]]
    return f'# {title}\n\n' + '\n'.join(rows) + '\n\n' + toctree(names)

def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')

def write_sources(src, with_vendor=True):
    "Everything that Sphinx reads"
    sys.path.insert(0, str(root))
    from distill_nb import __version__
    pages,names = notebooks(),symbols()
    shutil.rmtree(src, ignore_errors=True)
    shutil.copytree(root/'nbs'/'images', src/'images')
    for name,p in pages.items():
        nb = convert(p, names, pages)
        if name == 'index': nb['cells'][-1:] = [md(toctree(c.lower() for c in folders))]
        write(src/f'{name}.ipynb', json.dumps(nb))
    for c,ps in chapters().items(): write(src/f'{c.lower()}.md', chapter_page(c, ps, pages))
    static,widgets = src/'_static',{}
    for file,text in (('site.css', css), ('hub.js', hub), ('icon.svg', icon)): write(static/file, text)
    if with_vendor:
        vendor(static/'vendor')
        widgets = {'vendor/requirejs/require.js': {},
                   'vendor/html-manager/dist/embed-amd.js': {'data-jupyter-widgets-cdn-only': 'false'}}
    write(src/'conf.py', conf.format(version=__version__, widgets=widgets, repo=repo))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=root/'_docs', help='where the site goes')
    ap.add_argument('--no-vendor', action='store_true', help='without MathJax and widgets, where there is no network')
    a = ap.parse_args()
    shutil.rmtree(a.out/'html', ignore_errors=True)
    write_sources(a.out/'src', not a.no_vendor)
    cmd = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', str(a.out/'src'), str(a.out/'html')]
    raise SystemExit(subprocess.run(cmd).returncode)

if __name__ == '__main__': main()
