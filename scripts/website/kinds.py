"Types of arguments and results as a reader would say them"
import inspect, types, typing

nothing = (None, type(None), inspect.Parameter.empty)
usual = {'Callable': 'callable', 'Any': 'any', 'MutableSequence': 'list', 'Iterator': 'iterator', 'SimpleNamespace': 'namespace'}
plain = (bool, int, float, str, tuple, list, dict)

def parts(anno):
    "The members of a union, one by one"
    if typing.get_origin(anno) in (typing.Union, types.UnionType): return [o for a in typing.get_args(anno) for o in parts(a)]
    return [anno]

def word(anno):
    "One type in words; '' where there is none"
    if anno is type(None): return 'None'
    if any(anno is o for o in nothing): return ''
    if isinstance(anno, str): return anno.strip().strip('\'"').replace('|', ' or ')
    if typing.get_origin(anno) is typing.Annotated: return f'{word(typing.get_args(anno)[0])}, one or more'
    if anno is object: return 'any'
    if typing.get_origin(anno) in (None, type): return getattr(anno, '__name__', None) or str(anno)
    outer = getattr(typing.get_origin(anno), '__name__', str(anno)).lower()
    inner = ', '.join(filter(None, map(kind, (o for o in typing.get_args(anno) if isinstance(o, type)))))
    return f'{outer} of {inner}' if inner and outer in ('list','tuple','set') else 'callable' if outer == 'callable' else outer

def guess(default):
    "The type that a default speaks for: that of a plain value, 'callable' of a function or class"
    if default is inspect.Parameter.empty: return ''
    if type(default) in plain: return type(default).__name__
    return 'callable' if inspect.isfunction(default) or inspect.isclass(default) else ''

def kind(anno, default=inspect.Parameter.empty):
    "The type of an argument: its annotation, or what its default says; 'int or None' where the default is None"
    words = [guess(default)] if any(anno is o for o in nothing) else [usual.get(w := word(o), w) for o in parts(anno)]
    words = list(dict.fromkeys(filter(None, words)))
    if words and default is None and not {'None','any'} & {*words}: words.append('None')
    return ' or '.join(sorted(words, key='None'.__eq__))
