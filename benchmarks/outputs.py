"""How near does the pass over a pool come to the bare models? `python benchmarks/outputs.py [--small] [--device cuda]
[--images 512]`

JPEG files of 256 by 256 pixels go through `compute_outputs`: opened, resized, computed, copied, written to a new
store. Beside it, in the same run, the bare models on
ready tensors (channels last, inference mode, mixed precision on a GPU, the same batch), and a loop as people write
it: a DataLoader for each source with its
transforms, outputs collected in memory. `ratio` is throughput over that of the bare models in the
same round: the median of the rounds, with the least and the most. Weights are random. Writes
`benchmarks/outputs.csv`."""
import argparse, io, tempfile, time, warnings
import numpy as np, pandas as pd, torch
warnings.simplefilter('ignore')
from PIL import Image
from common import write
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs
from distill_nb.sources import Source
from distill_nb.images import open_image

def jpegs(n, px):
    r = np.random.default_rng(0)
    for i in range(n):
        img = Image.fromarray(r.integers(0, 256, (px//8,px//8,3), dtype=np.uint8)).resize((px,px), Image.BICUBIC)
        buf = io.BytesIO()
        img.save(buf, 'JPEG', quality=90)
        yield buf.getvalue()

def bare(sources, n, bs, device, half):
    "Seconds of the bare forward passes over `n` images, one source after the other"
    total = 0
    for s in sources:
        net,x = s.load(device).to(memory_format=torch.channels_last),torch.randn(bs, 3, s.size, s.size,
                device=device).to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=half):
            net(x)
            if device!='cpu': torch.cuda.synchronize()
            t = time.perf_counter()
            for _ in range(n//bs): net(x)
            if device!='cpu': torch.cuda.synchronize()
            total += time.perf_counter()-t
    return total

def ours(sources, items, bs, device, **kw):
    with tempfile.TemporaryDirectory() as d:
        t = time.perf_counter()
        compute_outputs(sources, items, Store(d), bs=bs, device=device, progress=False, **kw)
        return time.perf_counter()-t

class Items(torch.utils.data.Dataset):
    def __init__(self, items, tfm): self.items,self.tfm = items,tfm
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.tfm(open_image(self.items[i]))

def loop(sources, items, bs, device, workers=2):
    t,out = time.perf_counter(),[]
    for s in sources:
        net = s.load(device)
        with torch.no_grad():
            out.append([[o.cpu() for o in net(x.to(device))]
                        for x in torch.utils.data.DataLoader(Items(items, s.tfm), bs, num_workers=workers)])
    return time.perf_counter()-t

def cases(archs, px, n, a, peers=True):
    "Rows for one source, a larger one, and all, the rows of each together; `n` images; without `peers` no plain loop"
    items,half,bs = list(jpegs(n, 256)),a.device!='cpu',64
    make = lambda archs: [Source.from_timm(o, pretrained=False, size=px, name=f"{o} {i}") for i,o in enumerate(archs)]
    for what,names in {'one source': archs[:1], 'one larger source': archs[2:3], f'{len(archs)} sources': archs}.items():
        sources = make(names)
        if not sources: continue
        for s in sources: s.crop_pct,s.interpolation = .875,'bicubic'        # the same preprocessing for all, as most of timm's have
        got = {}
        for _ in range(a.rounds):
            for k,f in {'bare models': lambda: bare(sources, n, bs, a.device, half),
                        'compute_outputs': lambda: ours(sources, items, bs, a.device),
                        **({'a DataLoader for each source': lambda: loop(sources, items, bs, a.device)} if peers else {}),
                        **({'compute_outputs, compiled': lambda: ours(sources, items, bs, a.device, compile=True)}
                           if a.compile else {})}.items():
                got.setdefault(k, []).append(f())
        for k,v in got.items():
            t,ratios = float(np.median(v)),np.divide(got['bare models'], v)
            yield dict(what=what, how=k, sources=', '.join(names), images=n, seconds=t, images_per_second=len(sources)*n/t,
                       ratio=float(np.median(ratios)), least=ratios.min(), most=ratios.max(), rounds=a.rounds)

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--device', default='cpu')
    ap.add_argument('--images', type=int, default=512)
    ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--compile', action='store_true', help='torch.compile as well')
    a = ap.parse_args()
    if a.small: a.images,a.rounds = 64,1
    archs = ['mobilenetv3_small_050'] if a.small else ['mobilenetv3_large_100','resnet18','resnet26','tf_efficientnet_lite0']
    write(pd.DataFrame(cases(archs, 128 if a.small else 224, a.images, a)).assign(device=a.device), 'outputs', a)
