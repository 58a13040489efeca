"""Is this checkout slower than another revision? `python benchmarks/against.py REV [--rounds 5]`

A worktree of REV is made beside, and the same work is timed in processes of both in turn, one round after the other:
steps of `distill_learner` with looked-up and with live teachers, a pass of images through
four sources, the same pass read back from the store, and a ranking with its intervals. A row says how long REV takes,
how long this checkout, and the median of the rounds' ratios with the least and the most.
Weights are random and images drawn: neither changes the time."""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
import pandas as pd

root = Path(__file__).resolve().parents[1]

work = '''
import json, sys, tempfile, time, warnings
warnings.simplefilter('ignore')
from distill_nb.all import *
rng = np.random.default_rng(0)
def least(f, n=3):
    res = []
    for _ in range(n):
        t = time.perf_counter(); f(); res.append(time.perf_counter()-t)
    return min(res)
class Clock(Callback):
    order = 1000
    def before_fit(self): self.at = []
    def after_batch(self):
        if self.training: self.at.append(time.perf_counter())
names = 'resnet18','resnet10t','mobilenetv3_large_100','lcnet_050'
zoo = Zoo([Source.from_timm(n, pretrained=False, size=128) for n in names])
x,y = rng.integers(0, 256, (256,96,96,3), dtype=np.uint8),np.arange(256)%8
dls = image_dls(x[:128], y[:128], size=96, bs=32)
res = {}
with tempfile.TemporaryDirectory() as d:
    try: ways = {'step, looked up': dict(teach=Both()), 'step, live': dict(teach=SourceClasses(live=True))}
    except NameError: # before teachers were objects
        ways = {'step, looked up': dict(pseudo='both'), 'step, live': dict(pseudo='source', live=True)}
    for name,kw in ways.items():
        clock = Clock()
        learn = distill_learner(dls, list(x), Ranking(zoo, [.4,.3,.2,.1]), 'mobilenetv3_small_050', pretrained=False, store=d,
                                cache=False, progress=False, p=1, epoch_len=32*12, cbs=clock, **kw)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        res[name] = float(np.median(np.diff(clock.at)[3:]))
    n = iter(range(99))
    res['pass'] = least(lambda: compute_outputs(zoo, list(x), Store(f'{d}/{next(n)}'), progress=False))
    res['read back'] = least(lambda: [get_outputs(s, list(x), Store(f'{d}/0'), progress=False) for s in zoo])
    res['ranking'] = least(lambda: rank_sources(dls, zoo, store=f'{d}/0', progress=False))
    res['ranking by parc'] = least(lambda: rank_sources(dls, zoo, metric='parc', store=f'{d}/0', progress=False))
print(json.dumps(res))
'''

def timed(folder):
    "Seconds of each piece of work, by the code in `folder`"
    with tempfile.TemporaryDirectory() as d:
        env = {**os.environ, 'PYTHONPATH': str(folder), 'DISTILL_NB_CACHE': d}
        out = subprocess.run([sys.executable, '-c', work], cwd=d, env=env, capture_output=True, text=True)
        if out.returncode: raise SystemExit(out.stderr)
        return json.loads(out.stdout.splitlines()[-1])

def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('rev', help='the other revision')
    ap.add_argument('--rounds', type=int, default=5)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as d:
        there = Path(d)/'there'
        subprocess.run(['git','worktree','add','--detach','-q',there,a.rev], cwd=root, check=True)
        try: rounds = [(timed(there), timed(root)) for _ in range(a.rounds)]
        finally: subprocess.run(['git','worktree','remove','--force',there], cwd=root, check=True)
    rows = []
    for k in rounds[0][0]:
        was,now = (pd.Series([r[i][k] for r in rounds]) for i in (0,1))
        rows.append({'work': k, a.rev: was.median(), 'here': now.median(), 'ratio': (now/was).median(),
                     'least': (now/was).min(), 'most': (now/was).max()})
    print(pd.DataFrame(rows).round(4).to_string(index=False))

if __name__=='__main__': main()
