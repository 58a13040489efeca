"What a name in prose stands for, and where that is explained: here, or on fastai's site"
import functools, re

# What the notebooks call their objects
objects = {'rank': 'Ranking', 'ranking': 'Ranking', 'zoo': 'Zoo', 'src': 'Source', 'source': 'Source', 'store': 'Store', 'choice': 'Choice',
           'suspects': 'Suspects', 'comparison': 'Comparison', 'predictor': 'Predictor', 'findings': 'Findings', 'forecast': 'Forecast',
           'student': 'Student', 'learn': 'Learner', 'dls': 'DataLoaders'}
homonyms = {'zoo','predict','train','demo','bench','main','parser','rank','prepare','metrics'} # mostly something else in prose

@functools.cache
def fastai_names():
    "Name -> address, of everything that fastai documents; a method is 'Class.method'"
    try: from fastai._modidx import d
    except ImportError: return {}
    host = d['settings']['doc_host'].rstrip('/')
    return {full[len(module)+1:]: f'{host}/{where}' for module,names in d['syms'].items() for full,(where,_) in names.items()}

def is_telling(name):
    "Is a name by itself more than a word? It has a capital or an underscore inside"
    return not name.startswith('_') and bool(re.search(r'.[_A-Z]|^[A-Z]', name))

def spelled(text):
    "The dotted name that code in prose begins with, if the code is that name or a call of it, else None"
    m = re.fullmatch(r'@?([A-Za-z_]\w*(?:\.\w+)*)\s*(\(.*\)\S*)?', text.strip())
    return m and m[1]

def candidates(name):
    "The full names that a name may stand for"
    first,_,rest = name.partition('.')
    if not rest: return [name]
    return [name, *([f'{objects[first]}.{rest}'] if first in objects else []), *([rest] if first.islower() and '.' not in rest else [])]

def where(text, names, here=(), module=None):
    """Address of what `text`, code in prose, names, or None. `names`: as of `symbols`; `here`: names whose section this is, so that
    their methods may go without the class; `module`: that of the page, whose methods with a section may too"""
    if (m := re.match(r'distill_nb (\w+)', text)) and (o := names.get(m[1], names.get(f'{m[1]}_'))): return '#' + o[0]
    name = spelled(text)
    if name is None or name in here or name in homonyms: return None
    for o in here[:1]:
        if (own := names.get(f'{o}.{name}')) and own[0] != names.get(o, own)[0]: return '#' + own[0]
    known = [o for o in candidates(name) if o in names]
    if '.' in name: known = [o for o in known if '.' in o or name.split('.')[0] in {m.rpartition('.')[2] for _,m in names.values()}]
    if known: return '#' + names[known[0]][0]
    if module and '.' not in name and ('(' in text or '_' in name): # a method explained on this page
        own = {label for full,(label,m) in names.items() if m == module and full.endswith(f'.{name}') and label.endswith(full.lower())}
        if len(own) == 1: return '#' + own.pop()
    theirs = fastai_names()
    if '.' in name: return next((theirs[o] for o in candidates(name)[:2] if '.' in o and o in theirs), None)
    if not is_telling(name): return None
    return theirs.get(name) or theirs.get(f'Learner.{name}')
