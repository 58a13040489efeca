"""Which estimator predicts transfer best? The study of `nbs/estimators/08_study.ipynb`, as CSV files that the
notebook reads.

For each target of DATA/targets: a probe set of at most 250 training images. The truth, for each source: accuracy on
the target's test images of
(a) a linear probe fitted on the source's features of the probe set, (b) the source itself, fine-tuned on the probe
set for 96 steps of 16 images.
The estimators see the probe set alone. Every row is written the moment it is there; what is there is not computed
again.

    # once: further source models (EfficientNet-Lites, and one trained on each source task)
    python scripts/make_sources.py DATA SOURCES
    # study_truth.csv, linear probes: minutes
    python experiments/study_similarity.py DATA truth --sources SOURCES
    # and fine-tuning: half a minute a cell on two idle cores
    python experiments/study_similarity.py DATA truth --sources SOURCES --finetune
    python experiments/study_similarity.py DATA scores --sources SOURCES                # study_scores.csv"""
import argparse, time, warnings
from pathlib import Path
import pandas as pd, torch
from fastai.vision.all import accuracy, aug_transforms, set_seed
from sklearn.linear_model import LogisticRegression
from distill_nb.data import image_dls
from distill_nb.packs import load_pack
from distill_nb.zoo import Zoo
from distill_nb.outputs import get_outputs
from distill_nb.similarity import probe_set
from distill_nb.estimators.core import metrics
from distill_nb.learner import transfer_learner

TARGETS = 'birds pets skin chestxray aerial corn textures flowers'.split()
VARIANTS = {'parc (32 dims)':('parc',dict(n_dims=32)), 'cka (debiased)':('cka',dict(debiased=True)), 'cka (RBF)':('cka',dict(kernel='rbf'))}
N,SEED,SIZE = 250,0,128

class Table:
    "A CSV file that grows by a row at a time; a row that is there (by its `keys`) is done"
    def __init__(self, path, keys):
        self.path,self.keys = path,keys
        self.done = {tuple(r) for r in pd.read_csv(path)[keys].values} if path.exists() else set()
    def __contains__(self, key): return tuple(key) in self.done
    def add(self, **row):
        pd.DataFrame([row]).to_csv(self.path, mode='a', header=not self.path.exists(), index=False)
        self.done.add(tuple(row[k] for k in self.keys))

def target(data, name):
    "(probe items, labels, test items, labels, classes)"
    pack = load_pack(data/'targets'/f'{name}.npz')
    (items,labels),(test,test_labels) = pack.train,pack.test
    probe = probe_set(labels, N, SEED)
    return items[probe.tolist()], labels[probe], test, test_labels, list(pack.classes)

def probed(x, y, test_x, test_y):
    "Accuracy of a linear classifier on standardised features; C = 0.01 throughout"
    mean,std = x.mean(0),x.std(0)+1e-6
    fit = LogisticRegression(C=0.01, max_iter=1000).fit((x-mean)/std, y)
    return fit.score((test_x-mean)/std, test_y)

def finetuned(source, items, y, test, test_y, classes):
    "Accuracy of the source after 96 steps of 16 images, one-cycle, peak rates 2e-4 (backbone) and 2e-3 (head), batch-norm statistics kept"
    set_seed(SEED, reproducible=True)
    dls = image_dls(items, y, test, test_y, vocab=classes, size=SIZE, bs=16, batch_tfms=aug_transforms(max_warp=0))
    learn = transfer_learner(dls, start=source, epoch_len=96*16, metrics=accuracy)
    learn.model.to(memory_format=torch.channels_last)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, slice(2e-4, 2e-3))
    return float(learn.recorder.values[-1][-1])

def truth(data, zoo, out, names):
    table = Table(out/'study_truth.csv', ['target','source','truth'])
    for name in TARGETS:
        items,y,test,test_y,classes = target(data, name)
        for s in zoo:
            if (name,s.name,'linear probe') not in table:
                x,test_x = [get_outputs(s, o, progress=False).features.numpy() for o in (items,test)]
                table.add(target=name, source=s.name, truth='linear probe',
                          accuracy=round(probed(x, y, test_x, test_y), 4), n_test=len(test_y))
            if s.name in names and (name,s.name,'fine-tuned') not in table:
                t = time.time()
                acc = finetuned(s, items, y, test, test_y, classes)
                table.add(target=name, source=s.name, truth='fine-tuned', accuracy=round(acc, 4), n_test=len(test_y))
                print(f'{name} {s.name} {acc:.3f} {time.time()-t:.0f} s', flush=True)

def scores(data, zoo, out, only=None):
    table = Table(out/'study_scores.csv', ['target','source','metric'])
    for name in TARGETS:
        items,y,*_ = target(data, name)
        for s in zoo:
            o = get_outputs(s, items, progress=False)
            for m,(f,kw) in ({k:(k,{}) for k in metrics}|VARIANTS).items():
                if (name,s.name,m) in table or only and m not in only: continue
                f,t = metrics[f],time.perf_counter()
                with warnings.catch_warnings():
                    # 250 images are fewer than the features, which some estimators mind; the study is to show it
                    warnings.simplefilter('ignore')
                    score = f(o.probs() if f.needs=='probs' else o.features, y, **kw)
                table.add(target=name, source=s.name, metric=m, score=score, seconds=round(time.perf_counter()-t, 4))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('what', choices=['truth','scores'])
    ap.add_argument('--sources', type=Path, help='folder of further source models')
    ap.add_argument('--finetune', nargs='*', help='also fine-tune these sources (all of them without names)')
    ap.add_argument('--metrics', nargs='*', help='only these')
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'nbs'/'estimators')
    a = ap.parse_args()
    zoo = Zoo.checkpoints(a.data/'weights', size=SIZE)
    if a.sources: zoo = zoo + Zoo.checkpoints(a.sources, size=SIZE)
    if a.what=='truth': truth(a.data, zoo, a.out, [] if a.finetune is None else a.finetune or zoo.names)
    else: scores(a.data, zoo, a.out, a.metrics)
