"""Is accuracy on held-out labels true when these were chosen? `python experiments/chosen_held_out.py DATA OUT.csv [--store FOLDER]`

Five labels a class (two of pets), drawn at random or chosen as `choose_eight.py` does, from four fifths of the training images, three
seeds. Probes of the five models of DATA together: accuracy by five-fold cross-validation of the labels (`held_out`), and on the test
images (`test`)."""
import argparse, sys, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from choose_eight import targets
from distill_nb.choose import choose_from, probe_answers
from distill_nb.folds import held_out_folds
from distill_nb.items import get_images
from distill_nb.outputs import get_outputs
from distill_nb.packs import load_pack
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402

def labeled(how, features, y, per, seed):
    "Positions of the labelled images"
    n,chosen = per*(int(y.max())+1),np.array([], int)
    if how == 'random': return np.random.default_rng(seed).permutation(len(y))[:n]
    for k in (1,2,3,5):
        if k <= per: chosen = np.concatenate([chosen, choose_from(features, k*n//per - len(chosen), chosen, y[chosen])[0]])
    return chosen

def answers(features, few, y, asked):
    "Classes that the probes together answer for the images `asked`"
    both = [o[np.concatenate([few, asked])] for o in features]
    return probe_answers(both, np.arange(len(few)), y[few], int(y.max())+1).mean(0)[len(few):].argmax(1)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    a = ap.parse_args()
    torch.set_num_threads(1)
    zoo,rows = Zoo.checkpoints(a.data/'weights', size=128),[]
    for target in targets:
        pack = load_pack(a.data/'targets'/f'{target}.npz')
        n,y = len(pack.train[1]),np.concatenate([pack.train[1], pack.test[1]])
        images = get_images(pack.train[0]) + get_images(pack.test[0])
        features = [get_outputs(s, images, a.store, progress=False).features for s in zoo]
        for seed in range(3):
            some = np.sort(np.random.default_rng(1000+seed).permutation(n)[:round(.8*n)])
            for how in ('chosen','random'):
                few = some[labeled(how, [o[some] for o in features], y[some], 2 if target == 'pets' else 5, seed)]
                folds = [(few[i],few[j]) for i,j in held_out_folds(y[few], 5, seed)]
                right = np.concatenate([answers(features, i, y, j) == y[j] for i,j in folds])
                test = np.arange(n, len(y))
                rows.append(dict(target=target, how=how, seed=seed, labels=len(few), held_out=round(right.mean(), 4),
                                 test=round((answers(features, few, y, test) == y[test]).mean(), 4), **machine()))
        pd.DataFrame(rows).to_csv(a.out, index=False)
    print(100*pd.DataFrame(rows).groupby(['how','target'])[['held_out','test']].mean().unstack(0).round(3))
