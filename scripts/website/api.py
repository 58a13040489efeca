"What the site says of a public name: its signature, docstring and arguments, and the links to it"
import ast, functools, importlib, inspect, re, textwrap
from website import commands
from website.kinds import kind
from website.names import where
from website.pages import load, notebooks, repo, source

# Names of the library, and where they are explained

def exporting(path): return [source(c) for c in load(path)['cells'] if re.search(r'^#\|\s*exports?\s*$', source(c), re.M)]

def patched(name):
    "(name, name of its section) for each class that a method was patched into: '(A, B).f' is A.f and B.f, explained as A.f"
    m = re.fullmatch(r'\((.+)\)\.(\w+)', name)
    owners = m[1].split(', ') if m else []
    return [(f'{o}.{m[2]}', f'{owners[0]}.{m[2]}') for o in owners] or [(name, name)]

def symbols():
    "name -> (label of its section, module) of everything public; a method is 'Class.method'"
    from distill_nb._modidx import d
    explained = {n for p in notebooks().values() for s in exporting(p) for n in defined(s)}
    res,aliases = {},{}
    for module,names in d['syms'].items():
        public = getattr(importlib.import_module(module), '__all__', [])
        for name,first in (o for full in names for o in patched(full[len(module)+1:])):
            if name != first: aliases[name] = first
            owner = name.split('.')[0]
            if name in explained and (owner in public or '.' in name): label = name
            elif owner in public and owner in explained: label = owner # a method without a section of its own
            else: continue
            res.setdefault(name, (f'{module}.{label}'.lower(), module))
    return {**{k: res[v] for k,v in aliases.items() if v in res}, **res}

def link_names(text, names, here=(), module=None):
    "`name` in prose becomes a link to its section; code blocks, headings and links stay as they are"
    def sub(m):
        to = None if m[1] else where(m[2], names, here, module)
        return f'[`{m[2]}`]({to})' if to else m[0]
    parts = re.split(r'(^```.*?^```|^#+ .*?$|\[[^\[\]]*\]\([^)]*\))', text, flags=re.S|re.M)
    return ''.join(p if i%2 else re.sub(r'(``)?`([^`\n]+)`(?!`)', sub, p) for i,p in enumerate(parts))

# One exported cell

def patched_class(node):
    "Name of the class that a `@patch`ed function belongs to, or None"
    if not isinstance(node, ast.FunctionDef) or not any('patch' in ast.unparse(d) for d in node.decorator_list): return
    cls = node.args.args[0].annotation if node.args.args else None
    if cls is not None: return ast.unparse(cls.elts[0] if isinstance(cls, ast.Tuple) else cls) # of several classes the first

def defined(code):
    "Public names that a cell defines, in order; a patched method is 'Class.method'"
    nodes = [n for n in ast.parse(code).body if isinstance(n, (ast.FunctionDef,ast.ClassDef)) and not n.name.startswith('_')]
    return [f'{cls}.{n.name}' if (cls := patched_class(n)) else n.name for n in nodes]

def show_cell(v): return re.sub(r'\s+', ' ', show_default(v)).replace('|', r'\|')
def code_types(s): return re.sub(r'\b(?!None\b)[A-Z]\w*', r'`\g<0>`', s) # names of classes, which become links
def show_default(v): return 'inf' if v == float('inf') else getattr(v, '__name__', None) or repr(v)
def no_html(s): return ''.join(p if i%2 else re.sub(r'<(/?\w+)>', r'\\<\1>', p) for i,p in enumerate(re.split(r'(`[^`]*`)', s)))
def literal(s):
    "Words of a comment in which stars and dashes are what they look like: options and patterns as code"
    s = re.sub(r"'([^'`\s]*\*[^'`\s]*)'|(?<![\w`-])(--[a-z][\w-]*)", lambda m: f'`{m[1] or m[2]}`', s)
    return ''.join(p if i%2 else p.replace('*', r'\*') for i,p in enumerate(re.split(r'(`[^`]*`)', s)))

def table_cell(s): return literal(no_html(re.sub(r'\s+', ' ', str(s)))).replace('|', r'\|')

def argument(p):
    "A parameter as it stands in a signature"
    star = {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')
    return star + p.name + ('' if p.default is p.empty else f'={show_default(p.default)}')

def signature(obj, name):
    "The call as one would write it, with lines of at most 96 characters"
    try: params = [p for n,p in inspect.signature(obj).parameters.items() if shown(n, obj)]
    except (TypeError,ValueError): return name
    args = [argument(p) for p in params]
    keywords = [i for i,p in enumerate(params) if p.kind == p.KEYWORD_ONLY]
    if keywords and not any(a.startswith('*') for a in args): args.insert(keywords[0], '*')
    one = f"{name}({', '.join(args)})"
    if len(one) <= 96: return one
    joined = ', '.join(a.replace(' ', '\0') for a in args) # no break within an argument
    how = dict(initial_indent='    ', subsequent_indent='    ', break_long_words=False, break_on_hyphens=False)
    return f'{name}(\n' + textwrap.fill(joined, 92, **how).replace('\0', ' ') + ')'

@functools.cache
def events():
    "The events of fastai, which every callback takes as arguments"
    from fastai.callback.core import event
    return frozenset(n for n in vars(event) if not n.startswith('_'))

def shown(name, obj): return name not in ('self','cls') and not (name in events() and inspect.isclass(obj))

def argument_table(rows):
    "Rows of (name, type, default, words) as a Markdown table, without a column that is empty; [] without rows"
    if not rows: return []
    head = ('','type','default','')
    kept = [i for i in range(4) if i in (0,3) or any(r[i] for r in rows)]
    lines = [head, ['---']*4, *rows]
    return ['{.arguments}', *('| ' + ' | '.join(r[i] for i in kept) + ' |' for r in lines), '']

def arguments(name, module):
    "Names of the arguments of a public name, which are links nowhere in its section"
    try: return [*inspect.signature(find(name, module)).parameters]
    except (TypeError,ValueError): return []

def argument_rows(obj):
    "The table of arguments, from the docments"
    from fastcore.docments import docments
    try: ds,params = docments(obj, full=True, returns=True),inspect.signature(obj)
    except Exception: return []
    rows,none = [],inspect.Parameter.empty
    for n,o in ds.items():
        if not o or not shown(n, obj): continue
        p = params.parameters.get(n)
        default = none if n == 'return' else o.get('default', none)
        anno = p.annotation if p else params.return_annotation if n == 'return' and not inspect.isclass(obj) else o.get('anno', none)
        typ,text = code_types(kind(anno, default)),o.get('docment') or ''
        if not text and (not typ or n == 'return' and typ == 'None'): continue
        name = '**returns**' if n == 'return' else f'`{n}`'
        rows.append((name, table_cell(typ), '' if default is none else f'`{show_cell(default)}`', table_cell(text)))
    return argument_table(rows)

def own_methods(cls):
    "Name, with parentheses unless it is a property -> call, of the documented public methods and properties of a class"
    res = {}
    for n,m in vars(cls).items():
        f = getattr(m, '__func__', m)
        if n.startswith('_') or not (inspect.isfunction(f) or isinstance(m, property)) or not inspect.getdoc(m): continue
        res.update({n: n} if isinstance(m, property) else {f'{n}()': signature(f, n)})
    return res

def methods(cls):
    "Documented public methods and properties of a class, as a list"
    res = [f"- `{call}`: {table_cell(inspect.getdoc(vars(cls)[call.partition('(')[0]]))}" for call in own_methods(cls).values()]
    return [*res, ''] if res else []

def indexed(entries): return '\n'.join(f'```{{index}} {o}\n```\n' for o in entries)

def index_entries(obj, name, names):
    "Entries of the index for a name and, if it is a class, its public methods without a section of their own"
    owner,_,method = name.rpartition('.')
    if name.startswith('_'): return []
    if owner: return [f'pair: {owner}; {method}' + '()'*(not is_property(name, names))]
    if not inspect.isclass(obj): return [f'single: {name}()']
    def apart(call): return (own := names.get(f"{name}.{call.removesuffix('()')}")) and own[0] != names.get(name, own)[0]
    return [f'single: {name} (class)', *(f'pair: {name}; {n}' for n in own_methods(obj) if not apart(n))]

def is_property(name, names):
    "Is 'Class.name' a property?"
    owner,_,attr = name.rpartition('.')
    module = names[name][1] if name in names else None
    return bool(module) and isinstance(inspect.getattr_static(find(owner, module), attr, None), property)

def find(name, module):
    "The object of a public name; of a property its function"
    obj = importlib.import_module(module)
    for part in name.split('.'):
        own = inspect.getattr_static(obj, part, None)
        obj = own.fget if isinstance(own, property) else getattr(obj, part, None)
    return getattr(obj, '__func__', obj)

def api(name, module, label, level, names={}):
    "Heading, signature, docstring and table of arguments of one public name, in Markdown; '' if it cannot be found"
    obj = find(name, module)
    if obj is None or not callable(obj): return ''
    code = f"\n[Source on GitHub]({repo}/blob/main/{module.replace('.', '/')}.py)\n"
    if parser := commands.of_function(obj): return commands.section(parser, label, level, lambda rows: argument_table(
        [(n, t, d, table_cell(w)) for n,t,d,w in rows]), indexed) + code
    lines = [f'({label})=', f'{"#"*level} {name}', '', indexed(index_entries(obj, name, names)),
             f'```python\n{signature(obj, name)}\n```', '']
    doc = inspect.getdoc(obj) or ''
    if doc and (inspect.isclass(obj) or not doc.startswith('Initialize')): lines += [no_html(doc), '']
    lines += argument_rows(obj)
    if inspect.isclass(obj): lines += methods(obj)
    return '\n'.join(lines) + code
