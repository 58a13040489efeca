"What the site says of a public name: its signature, docstring and arguments, and the links to it"
import ast, importlib, inspect, re, textwrap
from website.pages import load, notebooks, repo, source

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
