"""Every parameter of every public signature: it has a rule, which refuses all that breaks it; or `test_entries` hands it what cannot be meant; or there is a reason why anything may be given."""
import importlib, inspect, pkgutil
import pytest
import distill_nb
from distill_nb.checks import rules
from test_entries import elsewhere, entries, ours

def public():
    "(name, function) of all that is exported, constructors and public methods included; each once"
    seen = set()
    for o in pkgutil.walk_packages(distill_nb.__path__, 'distill_nb.'):
        if o.name.rpartition('.')[2] in ('all','_modidx'): continue
        mod = importlib.import_module(o.name)
        for n in getattr(mod, '__all__', ()):
            f = getattr(mod, n)
            if id(f) in seen or getattr(f, '__module__', None) != o.name: continue
            seen.add(id(f))
            if inspect.isfunction(f): yield n,f
            if not inspect.isclass(f) or issubclass(f, BaseException): continue
            if '__init__' in vars(f): yield n,f.__init__
            for k,v in vars(f).items():
                v = getattr(v, '__func__', v)
                if not k.startswith('_') and inspect.isfunction(v): yield f'{n}.{k}',v

functions = dict(public())
ruled = [(n,p) for n,f in functions.items() for p in getattr(f, 'rules', ())]

@pytest.mark.parametrize('name,param', ruled, ids=[f'{n}, {p}' for n,p in ruled])
def test_a_rule_refuses_what_breaks_it(name, param):
    f = functions[name]
    rule,given = f.rules[param],inspect.signature(f).parameters
    first = [None]*(next(iter(given)) in ('self','cls'))
    for case,v in rule.bad.items():
        with pytest.raises(ValueError, match=f'`{param}` must be') as e: f(*first, **{param: v})
        assert ours(e.value), case

def own(f):
    "Names of the parameters that a function itself takes, without those of `kwargs` and `self`"
    code = inspect.unwrap(f).__code__
    return [n for n in code.co_varnames[:code.co_argcount+code.co_kwonlyargcount] if n not in ('self','cls')]

tried = {} # function -> parameters that `test_entries` hands what cannot be meant
for n,entry in entries.items(): tried.setdefault(n.partition(',')[0], set()).update(entry()[2])
excused = {n for o in elsewhere.values() for n in o.split()}

free = { # why a parameter has neither
}
anything = {p for o in free.values() for p in o.split()}

def test_no_parameter_is_left_out():
    left = [f'{n}({p})' for n,f in functions.items() if n.partition('.')[0] not in excused for p in own(f)
            if p not in getattr(f, 'rules', ()) and p not in tried.get(n, ()) and p not in anything and f'{n}.{p}' not in anything]
    assert not left, f'{len(left)}: neither a rule, nor tried, nor excused: ' + ', '.join(left)

def test_no_excuse_is_left_over():
    taken = {p for n,f in functions.items() for p in own(f)}
    assert not (anything - taken - {f'{n}.{p}' for n,f in functions.items() for p in own(f)}), 'excuses for parameters that there are none of'
    assert not (set(rules) - taken), 'rules for parameters that there are none of'
