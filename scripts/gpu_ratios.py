"""Costs beside their floors on a GPU: a step, a pass over a pool, several teachers. A part of `gpu_run.py`.

The functions of `benchmarks/step.py`, `outputs.py` and `grouped.py`, in mixed precision."""
import traceback, warnings
from types import SimpleNamespace
warnings.simplefilter('ignore')
from gpu_common import Table, begin, conditions, parser

def step_rows(a, kind, half):
    import step
    opts = SimpleNamespace(device=a.device, half=half, steps=2 if a.small else 10, rounds=1 if a.small else 2)
    arch,px,bs = ('test_efficientnet',64,8) if a.small else ('mobilenetv3_small_100',160,32)
    four = ['resnet18','mobilenetv3_large_100','resnet26','tf_efficientnet_lite0']
    teachers = ['test_efficientnet']*28 if a.small else four*7
    if kind == 'looked up': rows = step.looked_up(arch, px, bs, opts, peers=False)
    else: rows = step.live(arch, teachers, px, bs, opts, peers=False)
    yield from (dict(bench=kind, half=half, **r) for r in rows)

def outputs_rows(a):
    import outputs
    four = ['mobilenetv3_large_100','resnet18','resnet26','tf_efficientnet_lite0']
    archs,px,n = (['test_efficientnet'],64,64) if a.small else (four,224,2048)
    opts = SimpleNamespace(device=a.device, rounds=1 if a.small else 2, compile=False)
    yield from outputs.cases(archs, px, n, opts, peers=False)

def grouped_rows(a, compiled):
    """Four teachers one after the other and together, or `compiled`.

    Compiling needs a compiler and half a minute for each architecture: a small run has the backend `eager`, which changes
    nothing."""
    import grouped
    opts = SimpleNamespace(device=a.device, small=a.small, compile=compiled and ('eager' if a.small else True))
    for case in [('test_efficientnet',64,8)] if a.small else [('resnet18',128,32),('mobilenetv3_large_100',128,32)]:
        yield from (r for r in grouped.case(*case, opts) if r['how'].startswith('compiled') == compiled)

def main(argv=None):
    a = begin(parser(__doc__), argv)
    half = a.device != 'cpu'
    where,tables = conditions(a),{}
    # what may take longest comes last
    measured = [('step', step_rows(a, 'looked up', half)), ('step', step_rows(a, 'live', half)),
                ('outputs', outputs_rows(a)), ('grouped', grouped_rows(a, False)), ('grouped', grouped_rows(a, True))]
    for name,rows in measured:
        if name not in tables: tables[name] = Table(a.out/f'{name}.csv', **where)
        try:
            for r in rows:
                tables[name].add(**r)
                print(name, r, flush=True)
        except Exception: traceback.print_exc()              # the log has it; the others go on

if __name__=='__main__': main()
