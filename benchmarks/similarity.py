"""How fast are the estimators, beside the formulas written out densely with NumPy and SciPy? `python
benchmarks/similarity.py [--small]`

Each pair is timed in one process on the same data, ours and the dense form in turn; the best of some runs counts.
Memory is the peak of a fresh process above what
it held when the call began. A ranking and the passes of as many models are timed in turn, in core-seconds: `ratio` is
the median of the rounds, `least` and `most` are their ends.
Writes `nbs/estimators/bench.csv`, which the notebook `09_speed` of that folder reads; `--only` measures one part
again and keeps the rest."""
import argparse, resource, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from scipy.stats import spearmanr
from common import here, machine, write
from distill_nb.similarity import cka, h_score, logme, null_scores, parc, replicate_scores
from distill_nb.estimators.core import metrics

def data(n, d, c, seed=0):
    r = np.random.default_rng(seed)
    y = r.permutation(np.arange(n)%c)
    # not negative, as pooled features are
    return np.maximum(r.standard_normal((n,d), np.float32) + .3*r.standard_normal((c,d), np.float32)[y], 0), y

# ---- the dense forms ----
def dense_cka(x, y):
    "HSIC of n by n Gram matrices, centred with the n by n matrix H, three times"
    x,y = x.astype(np.float64),np.eye(y.max()+1)[y]
    n = len(x)
    h = np.eye(n)-1/n
    def hsic(k, l): return np.sum((h@k@h)*(h@l@h))
    k,l = x@x.T,y@y.T
    return hsic(k, l)/np.sqrt(hsic(k, k)*hsic(l, l))

def dense_parc(x, y):
    x = x.astype(np.float64)
    x = (x-x.mean(0))/x.std(0)
    i = np.triu_indices(len(x), 1)
    # what is tied on paper stays tied
    return spearmanr((1-np.corrcoef(x))[i].round(12), (1-np.corrcoef(np.eye(y.max()+1)[y]))[i].round(12))[0]

def dense_logme(x, y):
    "A full singular value decomposition, then MacKay's fixed point class by class, as in algorithm 1 of the paper (at most 11 rounds)"
    x = x.astype(np.float64)
    n,d = x.shape
    u,s,vt = np.linalg.svd(x, full_matrices=True)
    s2,out = np.zeros(d),[]
    s2[:len(s)] = s**2
    for c in range(y.max()+1):
        t = (y==c).astype(np.float64)
        uy = (u.T@t)[:len(s)]
        alpha = beta = 1.
        for _ in range(11):
            was = alpha/beta
            gamma = (beta*s2/(alpha+beta*s2)).sum()
            m = vt[:len(s)].T@(beta*s/(alpha+beta*s**2)*uy)
            res = ((x@m-t)**2).sum()
            alpha,beta = gamma/(m@m),(n-gamma)/res
            if abs(alpha/beta-was)<=1e-3*was: break
        out.append((d*np.log(alpha) + n*np.log(beta) - n*np.log(2*np.pi) - beta*res - alpha*(m@m) - np.log(alpha+beta*s2).sum())/2/n)
    return np.mean(out)

def dense_h_score(x, y):
    "The shrinkage H-score with scikit-learn's Ledoit-Wolf and a pseudo-inverse of the d by d covariance"
    from sklearn.covariance import ledoit_wolf
    x = x.astype(np.float64)
    x = x-x.mean(0)
    cov,a = ledoit_wolf(x, assume_centered=True)
    g = np.zeros_like(x)
    for c in range(y.max()+1): g[y==c] = x[y==c].mean(0)
    return np.trace(np.linalg.pinv(cov, rcond=1e-15)@((1-a)*np.cov(g, rowvar=False, bias=True)))

def best(f, times):
    out = []
    for _ in range(times):
        t = time.perf_counter()
        v = f()
        out.append(time.perf_counter()-t)
    return min(out),v

def ratios(n, d, c):
    x,y = data(n, d, c)
    for f,dense,times in ((cka,dense_cka,1), (parc,dense_parc,1), (h_score,dense_h_score,1), (logme,dense_logme,1)):
        f(x[:300,:64], y[:300]%3)                 # imports and warm-up
        t,v = best(lambda: f(x, y), 3)
        dt,dv = best(lambda: dense(x, y), times)
        yield dict(what=f.__name__, n=n, d=d, classes=c, seconds=t, dense_seconds=dt, ratio=dt/t, value=v, dense_value=dv)

def peak(n, d, c):
    "Seconds and peak memory (MB above the start of the call) of PARC in this process"
    x,y = data(n, d, c)
    x = torch.from_numpy(x)
    now = lambda: int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()/1e6
    held,t = now(),time.perf_counter()
    Path('/proc/self/clear_refs').write_text('5')             # the peak counts from here
    parc(x, y)
    t = time.perf_counter()-t
    high = next(int(l.split()[1])/1e3 for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmHWM'))
    print(f'{t},{high-held}')

def once(f):
    "Seconds of the processor for a call, and its value"
    t = time.process_time()
    v = f()
    return time.process_time()-t,v

def ranked(f, x, y, sources):
    "Seconds of the scores alone and of everything that a ranking asks for, for `sources` times the same features"
    t,s = once(lambda: [f(x, y) for _ in range(sources)])
    xs,times = [x]*sources,metrics[f.__name__].times
    return t, t + once(lambda: (replicate_scores(f, xs, y, s, times), null_scores(f, xs, y, -(-times//5))))[0]

def one_by_one(f):
    "The metric without its shortcuts: each half and each shuffling is scored by itself"
    def plain(x, y): return f(x, y)
    plain.__name__,plain.rotation = f.__name__,f.rotation
    return plain

def share(n, sources, rounds, d=1280, c=30):
    """Seconds of scoring `sources` sources with intervals and null, and of the forward passes of as many models; each
    round times some sources and one batch of each model. In one thread and by the processor's clock: other
    programs of the machine count for nothing"""
    import timm
    torch.set_num_threads(1)
    x,y = data(n, d, c)
    batch = torch.randn(32, 3, 224, 224).to(memory_format=torch.channels_last)
    nets = {o: timm.create_model(o, pretrained=False).eval().to(memory_format=torch.channels_last)
            for o in ('mobilenetv3_large_100','resnet50')}
    ways = {k: metrics[k] for k in ('cka','parc')} | {'parc, one by one': one_by_one(parc)}
    some,got,passes = max(1, sources//rounds),{k: [] for k in ways},{k: [] for k in nets}
    with torch.inference_mode():
        for net in nets.values():
            net(batch)
            net(batch)
        for _ in range(rounds):
            for k,net in nets.items(): passes[k].append(once(lambda: net(batch))[0]/32*n*sources)
            for k,f in ways.items(): got[k].append(np.array(ranked(f, x, y, some))*sources/some)
    for k,v in got.items():
        plain,full = np.array(v).T
        for arch,forward in passes.items():
            ratio = full/np.array(forward)
            yield dict(what=f'{k}: ranking {sources} sources', n=n, d=d, classes=c, seconds=np.median(full),
                       score_seconds=np.median(plain), forward=arch, forward_seconds=np.median(forward),
                       ratio=np.median(ratio), least=ratio.min(), most=ratio.max(), rounds=rounds)

def memory(shapes):
    for n,d,c in shapes:
        t,mb = map(float, subprocess.run([sys.executable, __file__, '--peak', str(n), str(d), str(c)],
                                         capture_output=True, text=True, check=True).stdout.split(','))
        yield dict(what='parc: memory', n=n, d=d, classes=c, seconds=t, peak_mb=mb)

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--peak', nargs=3, type=int, help=argparse.SUPPRESS)
    ap.add_argument('--only', choices=('formulas','memory','ranking'), help='one part')
    ap.add_argument('--rounds', type=int, default=14, help='of a ranking and the passes in turn')
    a = ap.parse_args()
    if a.peak:
        peak(*a.peak)
        sys.exit()
    parts = dict(formulas=lambda: ratios(*((600,128,10) if a.small else (5000,2048,100))),
                 memory=lambda: memory([(1000,64,10)] if a.small else [(20000,512,100), (20000,2048,100)]),
                 ranking=lambda: share(100, 4, 2) if a.small else share(500, 28, a.rounds))
    df = pd.concat([pd.DataFrame(f()).assign(part=k, **machine()) for k,f in parts.items() if a.only in (None,k)], ignore_index=True)
    keep = (lambda was: was.part != a.only) if a.only else None
    write(df, 'bench', a, keep=keep, sort=dict(by='part'), folder=here.parent/'nbs'/'estimators')
