"""How should `fit_probe` scale the columns of few images? `python experiments/study_probe.py DATA [STORE]`

On three tasks that are nobody's target here (dogs6 with 5 labels a class, caltech101 and gtsrb43 with 2), drawn from
their training images, the five real sources of DATA/weights at 128 px:
the mean opinion of their probes on the images without a label, by each column's own deviation (as `linear_probe`
scales) and as `fit_probe` scales, C = 0.1. Writes `benchmarks/probe_scale.csv`."""
import sys, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from sklearn.linear_model import LogisticRegression
from distill_nb.data import few_labels
from distill_nb.packs import load_pack
from distill_nb.estimators.probes import fit_probe
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.zoo import Zoo

def own(x, y, few):
    m,s = x[few].mean(0),x[few].std(0)
    z = (x-m)/np.where(s > 1e-6*np.abs(x).max(), s, np.inf)
    return LogisticRegression(C=.1, max_iter=300).fit(z[few], y[few]).predict_proba(z)

def ours(x, y, few):
    w,b = fit_probe(x[few], y[few])
    return (torch.from_numpy(x)@w + b).softmax(1).numpy()

if __name__=='__main__':
    data,store = Path(sys.argv[1]),sys.argv[2] if len(sys.argv) > 2 else None
    zoo,rows = Zoo.checkpoints(data/'weights', size=128),[]
    for task,n,labels,seeds in (('dogs6',400,5,3), ('caltech101',600,2,2), ('gtsrb43',500,2,2)):
        items,y = load_pack(data/'sources'/f'{task}.npz').train
        i = np.random.default_rng(0).permutation(len(y))[:n]
        i = i[np.isin(y[i], [c for c,k in zip(*np.unique(y[i], return_counts=True)) if k >= 3])]
        y = np.unique(y[i], return_inverse=True)[1]
        images = [items[int(j)] for j in i]
        compute_outputs(zoo, images, store)
        features = [get_outputs(s, images, store, progress=False).features.double().numpy() for s in zoo]
        for seed in range(seeds):
            few,rest = few_labels(y, n=labels, seed=seed)
            for how,f in dict(own=own, ours=ours).items():
                p = sum(f(x, y, few) for x in features)
                rows.append(dict(task=task, labels=labels, seed=seed, scaled=how, accuracy=(p[rest].argmax(1) == y[rest]).mean()))
    df = pd.DataFrame(rows)
    df.round(4).to_csv(Path(__file__).resolve().parent.parent/'benchmarks'/'probe_scale.csv', index=False)
    print(df.groupby(['task','scaled'], sort=False).accuracy.agg(['mean','sem','count']).round(4).to_string())
