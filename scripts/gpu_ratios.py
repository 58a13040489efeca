"""What a step, a pass over a pool and several teachers cost beside their floors, on a GPU: step.csv, outputs.csv and grouped.csv. A part of `gpu_run.py`.

The functions of `benchmarks/step.py`, `outputs.py` and `grouped.py`, in mixed precision."""
import traceback, warnings
from types import SimpleNamespace
warnings.simplefilter('ignore')
from gpu_common import Table, begin, conditions, parser

def step_rows(a, kind, half):
    import step
    opts = SimpleNamespace(device=a.device, half=half, steps=2 if a.small else 10, rounds=1 if a.small else 2)
    arch,px,bs = ('test_efficientnet',64,8) if a.small else ('mobilenetv3_small_100',160,32)
    teachers = ['test_efficientnet'] if a.small else ['resnet18','mobilenetv3_large_100','resnet26','tf_efficientnet_lite0']
    rows = step.looked_up(arch, px, bs, opts, peers=False) if kind == 'looked up' else step.live(arch, teachers*(28//len(teachers)), px, bs, opts, peers=False)
    yield from (dict(bench=kind, half=half, **r) for r in rows)

def outputs_rows(a):
    import outputs
    archs,px,n = (['test_efficientnet'],64,64) if a.small else (['mobilenetv3_large_100','resnet18','resnet26','tf_efficientnet_lite0'],224,2048)
    yield from outputs.cases(archs, px, n, SimpleNamespace(device=a.device, rounds=1 if a.small else 2, compile=False), peers=False)

def grouped_rows(a, compiled):
    "Compiling needs a compiler and half a minute for each architecture, so a small run has `eager`, a backend that changes nothing"
    import grouped
    opts = SimpleNamespace(device=a.device, small=a.small, compile=compiled and ('eager' if a.small else True))
    for case in [('test_efficientnet',64,8)] if a.small else [('resnet18',128,32),('mobilenetv3_large_100',128,32)]:
        yield from (r for r in grouped.case(*case, opts) if r['how'].startswith('compiled') == compiled)

def main(argv=None):
    a = begin(parser(__doc__), argv)
    half = a.device != 'cpu'
    where,tables = conditions(a),{}
    # what may take longest comes last
    for name,rows in (('step',step_rows(a, 'looked up', half)), ('step',step_rows(a, 'live', half)), ('outputs',outputs_rows(a)), ('grouped',grouped_rows(a, False)), ('grouped',grouped_rows(a, True))):
        if name not in tables: tables[name] = Table(a.out/f'{name}.csv', **where)
        try:
            for r in rows:
                tables[name].add(**r)
                print(name, r, flush=True)
        except Exception: traceback.print_exc()              # the log has it; the others go on

if __name__=='__main__': main()
