"""How much memory do many sources and a large pool take? `python benchmarks/memory.py [--small]`

Two questions, each run in a fresh process whose peak is read above what it held before. The pass: `compute_outputs`
of 1, 4 and 12 ResNet-50 (random weights, 102 MB each)
over 64 images. The table: pseudo-labels of a pool of 20,000 and of 60,000 images by 28 sources of 10 classes,
memory-mapped, from a store that was filled beforehand; then the
milliseconds of looking up a batch of 32 random images. A million images and 8,000 classes make a file 476 times as
large as the second, with rows 29 times as long;
what is held in memory does not depend on the number of classes. Writes `benchmarks/memory.csv`."""
import argparse, subprocess, sys, tempfile, threading, time, warnings
from pathlib import Path
import numpy as np, pandas as pd, torch
warnings.simplefilter('ignore')
from common import write

def peak(f):
    """(what `f` returns, seconds, MB of the process's own memory at its peak above what was held before; pages of
    mapped files, which the system drops at will, are not counted)"""
    private = lambda: sum(int(l.split()[1]) for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('RssAnon'))/1e3
    before,top,stop = private(),[0.],threading.Event()
    def watch():
        while not stop.is_set():
            top[0] = max(top[0], private())
            time.sleep(.01)
    w = threading.Thread(target=watch, daemon=True)
    w.start()
    t = time.perf_counter()
    res = f()
    t = time.perf_counter()-t
    stop.set()
    w.join()
    return res, t, max(top[0], private())-before

def the_pass(k):
    from distill_nb.outputs import compute_outputs
    from distill_nb.sources import Source
    imgs = np.random.default_rng(0).integers(0, 256, (64,64,64,3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as d:
        s = [Source.from_timm('resnet50', pretrained=False, size=64, seed=i, name=str(i)) for i in range(k)]
        _,t,mb = peak(lambda: compute_outputs(s, imgs, d, bs=16, device='cpu', progress=False))
    return dict(what=f'pass: {k} ResNet-50', images=64, sources=k, classes=1000*k, seconds=t, peak_mb=mb)

def the_table(n, k=28, c=10):
    from distill_nb.images import image_key
    from distill_nb.store import Store
    from distill_nb.pseudo_labels import pseudo_labels
    from distill_nb.sources import Source
    imgs = list(np.arange(n*12, dtype=np.uint32).view(np.uint8).reshape(n,4,4,3))
    with tempfile.TemporaryDirectory() as d:
        store,keys = Store(d, chunk=8192),[image_key(o) for o in imgs]
        sources = [Source.from_timm('test_resnet', pretrained=False, num_classes=c, seed=i, name=str(i)) for i in range(k)]
        for i,s in enumerate(sources):
            for lo in range(0, n, store.chunk):
                part = keys[lo:lo+store.chunk]
                store.write(s, part, torch.zeros(len(part), 1), torch.randn(len(part), c))
        labels,t,mb = peak(lambda: pseudo_labels(sources, imgs, store=store, memory=0, progress=False))
        idx = torch.from_numpy(np.random.default_rng(0).integers(0, n, (200,32)))
        _,look,look_mb = peak(lambda: [labels[i] for i in idx])
    return dict(what='table: build, memory-mapped', images=n, sources=k, classes=k*c, seconds=t, peak_mb=mb,
                file_mb=labels.nbytes/1e6, lookup_ms=look/len(idx)*1e3, lookup_mb=look_mb)

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--one', help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.one:
        print(eval(a.one))
        sys.exit()
    calls = ['the_pass(1)','the_pass(2)','the_table(2000)'] if a.small else ['the_pass(1)','the_pass(4)','the_pass(12)',
            'the_table(20_000)','the_table(60_000)']
    rows = [eval(subprocess.run([sys.executable, __file__, '--one', c], capture_output=True, text=True, check=True).stdout) for c in calls]
    write(pd.DataFrame(rows), 'memory', a)
