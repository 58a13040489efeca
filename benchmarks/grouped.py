"""Are teachers of one architecture faster together? `python benchmarks/grouped.py [--small] [--device cuda]`

Forward passes of four teachers of the same architecture on the same batch, without gradients: one after the other
(what `LiveTeachers` does); all at once by
`torch.func.vmap` over their stacked weights, which turns each convolution into a grouped one; and one after the other
compiled by `torch.compile`. In turn, round after
round; `ratio` is the time over that of one after the other in the same round, the median of the rounds with the least
and the most. Weights are random. Writes `benchmarks/grouped.csv`."""
import argparse, time, warnings
warnings.simplefilter('ignore')
import numpy as np, pandas as pd, timm, torch
from torch.func import functional_call, stack_module_state, vmap
from common import write

def variants(arch, n, device, compile):
    "name -> function of a batch, each giving logits [n,N,C]; `compile` is False, True or a backend of torch.compile"
    nets = [timm.create_model(arch).to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last) for _ in range(n)]
    weights,base = stack_module_state(nets),timm.create_model(arch).to('meta').eval()
    together = vmap(lambda p,b,x: functional_call(base, (p,b), (x,)), in_dims=(0,0,None))
    res = {'one after the other': lambda x: torch.stack([net(x) for net in nets]), 'vmap': lambda x: together(*weights, x)}
    if compile:
        fast = [torch.compile(net, backend='inductor' if compile is True else compile) for net in nets]
        res['compiled, one after the other'] = lambda x: torch.stack([net(x) for net in fast])
    return res

def seconds(f, x, n):
    got = []
    for _ in range(n):
        t = time.perf_counter()
        f(x)
        if x.device.type=='cuda': torch.cuda.synchronize()
        got.append(time.perf_counter()-t)
    return float(np.median(got))

def case(arch, px, bs, a):
    "Rows for four teachers of one architecture"
    x,fs = torch.randn(bs, 3, px, px, device=a.device).to(memory_format=torch.channels_last),variants(arch, 4, a.device, a.compile)
    with torch.inference_mode(), torch.autocast(torch.device(a.device).type, enabled=a.device!='cpu'):
        first = None
        for k,f in list(fs.items()):                               # the same answers, and warm
            try: z = f(x)
            except RuntimeError as e:                              # `vmap` has no batch norm on some devices
                if first is None: raise                            # without the first there is nothing to compare with
                print(f'{arch}, {k}: left out, {e}', flush=True)
                fs.pop(k)
                continue
            first = z if first is None else first
            assert (z-first).abs().max() < (.05*first.float().std() if a.device!='cpu' else 1e-3), k
        got = [{k: seconds(f, x, 1 if a.small else 3) for k,f in fs.items()} for _ in range(1 if a.small else 5)]
    for k in fs:
        ratios = np.array([g[k]/g['one after the other'] for g in got])
        yield dict(arch=arch, teachers=4, px=px, images=bs, how=k, seconds=np.median([g[k] for g in got]),
                   ratio=np.median(ratios), least=ratios.min(), most=ratios.max(), rounds=len(got))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--device', default='cpu')
    ap.add_argument('--no-compile', action='store_false', dest='compile')
    a = ap.parse_args()
    cases = [('resnet18',64,8)] if a.small else [('resnet18',128,8),('resnet18',128,32),('mobilenetv3_large_100',128,32)]
    rows = [r for o in cases for r in case(*o, a)]
    write(pd.DataFrame(rows).assign(device=a.device), 'grouped', a)
