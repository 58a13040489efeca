"""What is a ranking worth before any label? `python experiments/before_labels.py DATA OUT.csv [--store FOLDER]`

Thirteen sources (the five models of DATA at 128 px and the eight that come with the package) are ordered without a label, on 400 training
images of each target: by agreement (the mean debiased CKA of a source's features with those of the others), by the number of dimensions
that its features use (the participation ratio of their spectrum), and by parameters. Beside them CKA with five labels a class. The truth
is the test accuracy of a linear probe on all training labels. A row for each target and order: Spearman's correlation with the truth, and
how many points of accuracy the first source is below the best one; among all thirteen, and among the five models of DATA alone. `random`
is the mean source."""
import argparse, sys, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from scipy.stats import spearmanr
from distill_nb.data import few_labels
from distill_nb.estimators.kernels import cka
from distill_nb.estimators.probes import fit_probe
from distill_nb.items import get_images
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.packs import load_pack
from distill_nb.ranking import static_order
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']

def agreement(features):
    "Mean debiased CKA of each source with the others"
    n = len(features)
    c = np.array([[1. if i == j else cka(features[i], features[j], debiased=True) for j in range(n)] for i in range(n)])
    return (c.sum(1) - 1)/(n-1)

def dimensions(x):
    "(Σλ)²/Σλ² of the spectrum of features"
    s = torch.linalg.svdvals(x.double() - x.double().mean(0))**2
    return float(s.sum()**2/(s**2).sum())

def truth(train, y, test, t):
    "Test accuracy of a probe on all labels"
    w,b = fit_probe(train.double(), y, .1)
    return float(((test.double()@w + b).argmax(1).numpy() == t).mean())

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    a = ap.parse_args()
    torch.set_num_threads(1)
    zoo = Zoo.checkpoints(a.data/'weights', size=128) + Zoo.embedded()
    sizes,rows,n_own = static_order(zoo).scores,[],len(zoo) - len(Zoo.embedded())
    for target in targets:
        pack = load_pack(a.data/'targets'/f'{target}.npz')
        train,test = get_images(pack.train[0]),get_images(pack.test[0])
        compute_outputs(list(zoo), train + test, a.store, progress=False)
        f,g = [[get_outputs(s, o, a.store, progress=False).features for s in zoo] for o in (train,test)]
        y,t = np.asarray(pack.train[1]),np.asarray(pack.test[1])
        right = np.array([truth(x, y, z, t) for x,z in zip(f, g)])
        some = np.random.default_rng(0).permutation(len(train))[:400]
        few = few_labels(y, n=5, seed=0)[0]
        for among,n in (('all',len(f)),('models of DATA',n_own)):
            seen = [x[some] for x in f[:n]]
            orders = dict(agreement=agreement(seen), dimensions=list(map(dimensions, seen)), parameters=sizes[:n],
                          labels=[cka(x[few], y[few]) for x in f[:n]])
            regret = right[:n].max() - right[:n]
            for name,score in orders.items():
                rows.append(dict(target=target, among=among, order=name, spearman=round(spearmanr(score, right[:n]).statistic, 3),
                                 regret=round(regret[int(np.argmax(score))], 4), **machine()))
            rows.append(dict(target=target, among=among, order='random', spearman=0., regret=round(regret.mean(), 4), **machine()))
        pd.DataFrame(rows).to_csv(a.out, index=False)
        print(target, flush=True)
    print(pd.DataFrame(rows).groupby(['among','order'])[['spearman','regret']].mean().round(3))
