"Names and arguments in code that is shown but not run: do they exist?"
import ast, builtins, importlib, inspect
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def namespace():
    "What `from distill_nb.all import *` gives, and what the examples of the guide call their data"
    import distill_nb.all as everything
    return {k: v for k,v in vars(everything).items() if not k.startswith('_')}

def instance_of(cls):
    "An object of `cls` without state, for the names of its attributes alone"
    return cls.__new__(cls)

def imported(tree):
    "Names that a cell imports itself"
    res = {}
    for n in ast.walk(tree):
        if isinstance(n, ast.Import): res |= {a.asname or a.name: importlib.import_module(a.name) for a in n.names}
        if isinstance(n, ast.ImportFrom):
            m = importlib.import_module(n.module)
            for a in n.names: res |= vars(m) if a.name == '*' else {a.asname or a.name: getattr(m, a.name)}
    return res

def of(node, names):
    "The object that `a.b.c` stands for, or None; an example's variable stands for an object of its class"
    if isinstance(node, ast.Name): return names.get(node.id)
    if isinstance(node, ast.Call): return of(node.func, names) if inspect.isclass(of(node.func, names)) else None
    if isinstance(node, ast.Attribute):
        owner = of(node.value, names)
        return None if owner is None else getattr(owner, node.attr)     # AttributeError: the name does not exist

def check_call(call, names):
    "Raises `TypeError` if a function does not take these arguments"
    f = of(call.func, names)
    if f is None or not callable(f): return
    try: sig = inspect.signature(f)
    except (TypeError,ValueError): return
    method = isinstance(call.func, ast.Attribute) and inspect.isclass(of(call.func.value, names)) and inspect.isfunction(f)
    unbound = next(iter(sig.parameters), '') == 'self'                   # fastcore's signatures of a class may have it
    args = [None]*(len(call.args) + (method or unbound))
    sig.bind(*args, **{k.arg: None for k in call.keywords if k.arg})

def check_code(code, names):
    "Raises if a name, an attribute or an argument in `code` does not exist"
    tree = ast.parse(code)
    names = names | imported(tree)
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound = assigned | {a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in n.args}
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and n.id not in names and n.id not in bound and not hasattr(builtins, n.id):
            raise NameError(f'{n.id} does not exist')
        if isinstance(n, ast.Attribute): of(n, names)
        if isinstance(n, ast.Call): check_call(n, names)
