"""What a GPU is asked to show: `python scripts/gpu_check.py [DATA]` on a machine with one.

Runs the GPU tests and the benchmarks of `benchmarks/` (which write step_gpu.csv, outputs_gpu.csv and grouped_gpu.csv there), compares the estimators on GPU and CPU (gpu_estimators.csv), then times a distillation step of the embedded task in fp32 and fp16, looked up and live, beside the student's plain step,
and, where DATA (the folder of tests/README.md) is there, trains the tutorial's students with more epochs. Prints; writes gpu_check.csv."""
import subprocess, sys, time
from distill_nb.all import *

def seconds(learn, n=30):
    "Median seconds of a training step, after five to warm up"
    times = []
    class Timer(Callback):
        order = 1000
        def before_batch(self):
            if self.training: torch.cuda.synchronize(); self.start = time.perf_counter()
        def after_batch(self):
            if self.training: torch.cuda.synchronize(); times.append(time.perf_counter()-self.start)
            if len(times) >= n+5: raise CancelFitException()
    with learn.no_bar(), learn.no_logging(): learn.fit(100, 1e-3, cbs=Timer())
    return float(np.median(times[5:]))

def steps():
    zoo,rows = Zoo.embedded(),[]
    dls,pool = digits_dls(n=5)
    kw = dict(start=zoo['objects'], store=False, progress=False)
    for half in (False, True):
        made = {'student alone': transfer_learner(dls, start=zoo['objects'], epoch_len=2000),
                'looked up, 8 sources': distill_learner(dls, pool, zoo, p=0, pseudo='source', **kw), 'live, 8 sources': distill_learner(dls, pool, zoo, p=0, pseudo='source', live=True, **kw)}
        rows += [dict(what=k, half=half, seconds=seconds(l.to_fp16() if half else l)) for k,l in made.items()]
    return pd.DataFrame(rows)

def estimators(n=5000, d=2048, c=100, device='cuda'):
    "Every estimator on the GPU beside the CPU: the same number, and seconds of the second call (nleep fits its mixture on the CPU: left out)"
    r,rows = np.random.default_rng(0),[]
    y = r.permutation(np.arange(n)%c)
    x = torch.tensor(np.maximum(r.normal(size=(n,d)) + .3*r.normal(size=(c,d))[y], 0))
    for name,f in metrics.items():
        if name=='nleep': continue
        here,row = x.softmax(1) if f.needs=='probs' else x,dict(metric=name, n=n, d=d, classes=c)
        for where in ('cpu',device):
            o = here.to(where)
            f(o[:200], y[:200]); t = time.perf_counter()
            row |= {f'{where}_score':f(o, y), f'{where}_seconds':time.perf_counter()-t}
        rows.append(row | dict(same=bool(np.isclose(row['cpu_score'], row[f'{device}_score'], rtol=1e-6, atol=1e-9))))
    return pd.DataFrame(rows)

def tutorial(data, steps=1200):
    zoo,rows = Zoo.checkpoints(data/'weights', size=128),[]
    for name,n in dict(birds=5, pets=3).items():
        made = lambda seed: pack_dls(data/'targets'/f'{name}.npz', n=n, size=128, seed=seed, bs=16)
        c = compare(made, zoo, start=zoo['imagenet_lite0'], metric='cka', bs_u=48, n_epoch=round(steps/(len(made(0)[1])//48)), lr=1e-3)
        print(name, c, sep='\n')
        rows.append(c.rows.assign(target=name))
    return pd.concat(rows)

if __name__ == '__main__':
    import pandas as pd
    if not torch.cuda.is_available(): raise SystemExit('no GPU here: nothing to check')
    print(torch.cuda.get_device_name(), torch.__version__)
    subprocess.run([sys.executable, '-m', 'pytest', 'tests/test_distill.py', 'tests/test_fixmatch.py', 'tests/test_outputs.py'], check=True)
    for cmd in ('step.py --device cuda --half --steps 30', 'outputs.py --device cuda --images 8192 --compile', 'grouped.py --device cuda'): subprocess.run([sys.executable, *f'benchmarks/{cmd}'.split()], check=True)
    e = estimators(); print(e.to_string()); e.to_csv('gpu_estimators.csv', index=False)
    t = steps(); print(t.to_string()); t.to_csv('gpu_check.csv', index=False)
    if len(sys.argv) > 1: tutorial(Path(sys.argv[1])).to_csv('gpu_tutorial.csv', index=False)
