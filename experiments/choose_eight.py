"""Which images to label first and next, on eight targets: `python experiments/choose_eight.py DATA OUT.csv [--store FOLDER]`

From no label to ten a class, in six batches (1, 2, 3, 5, 7 and 10 labels a class in all, as long as that is under 60 % of the training
images), each chosen by what is known until then. After each batch every one of the five models of DATA has a linear probe (`fit_probe`,
C=.1), and the mean of their answers is tried on the rest of the training images (`pool`) and on the test images (`test`). Classes that no
label has shown yet cannot be answered. `stratified` knows the classes beforehand and takes as many of each; it is what a benchmark does,
and no person can.

Each seed draws four fifths of the training images, the same for all ways, which choose among these; so a way that draws nothing has its
spread, too. TypiClust, ProbCover and CoreSet are scikit-activeml's, and run where that is installed. Runs that are in OUT.csv are not
made again."""
import argparse, sys, time, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans
from distill_nb.choose import cosine_similarity, doubt, facility_location, probe_answers
from distill_nb.items import get_images
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.packs import load_pack
from distill_nb.quality import disagreement
from distill_nb.joint import joint_features
from distill_nb.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
from common import machine # noqa: E402
try: from skactiveml import pool as activeml
except ImportError: activeml = None

targets = ['textures','flowers','birds','pets','aerial','corn','skin','chestxray']
budgets = 1,2,3,5,7,10

def rest(x, labeled): return np.setdiff1d(np.arange(len(x)), labeled)

def largest(score, n, labeled):
    "The `n` of the greatest score that have no label"
    score = score.copy()
    score[labeled] = -np.inf
    return np.argsort(-score, kind='stable')[:n]

def doubtful_groups(x, n, labeled, probs, seed, of=10):
    "The middles of `n` groups of the `of*n` most doubtful images (Zhdanov 2019; as Cluster-Margin, Citovsky et al. 2021)"
    some = largest(doubt(probs.mean(0)), of*n, labeled)[:len(x) - len(labeled)]
    km = KMeans(min(n, len(some)), n_init=1, random_state=seed).fit(x[some], sample_weight=1e-6+doubt(probs.mean(0))[some])
    return np.unique(some[((x[some][:,None] - km.cluster_centers_)**2).sum(2).argmin(0)])

def by_class(y, n, seed):
    "`n` of each class, or all where there are fewer; more of them are the same and others"
    order = np.random.default_rng(seed).permutation(len(y))
    return np.concatenate([order[y[order] == c][:n] for c in np.unique(y)])

def by_activeml(name):
    "A strategy of scikit-activeml"
    def choose(x, n, labeled, probs, seed, y=None, **kwargs):
        marks = np.full(len(x), np.nan)
        marks[labeled] = y[labeled]
        return getattr(activeml, name)(random_state=seed, missing_label=np.nan, **kwargs).query(x, marks, batch_size=n)
    return choose

after_typical = 'doubtful','margin','disagreement','groups'
def ways():
    "name -> function (features [N,K], n, labeled, probs [S,N,C], seed)"
    def typical(x, n, labeled, *_): return facility_location(cosine_similarity(x), n, labeled)
    def medians(x, n, labeled, *_): return facility_location(-squareform(pdist(x)), n, labeled)
    res = dict(typical=typical, medians=medians,
               random=lambda x, n, labeled, probs, seed: np.random.default_rng(seed).permutation(rest(x, labeled))[:n],
               doubtful=lambda x, n, labeled, probs, seed: facility_location(cosine_similarity(x), n, labeled, doubt(probs.mean(0))),
               margin=lambda x, n, labeled, probs, seed: largest(doubt(probs.mean(0)), n, labeled),
               disagreement=lambda x, n, labeled, probs, seed: largest(disagreement(probs, np.ones(len(probs))/len(probs)), n, labeled),
               groups=doubtful_groups)
    return res | ({o: by_activeml(o) for o in ('TypiClust','ProbCover','CoreSet')} if activeml else {})

def until(how):
    "'typical>3:doubtful' -> (typical, 3, doubtful): the first up to three labels a class, then the second"
    first,_,then = how.partition('>')
    most,_,second = then.partition(':')
    return first,int(most or 99),second or first

def run(features, tests, y, truth, target, how, seed):
    "A row for each budget"
    some = np.sort(np.random.default_rng(1000+seed).permutation(len(y))[:round(.8*len(y))])
    features,y = [o[some] for o in features],y[some]
    x,c,labeled,probs,rows = joint_features(features).numpy(),int(y.max())+1,np.array([], int),None,[]
    known = ways()
    for per in budgets:
        n = per*c - len(labeled)
        if per*c > .6*len(x): break
        began = time.perf_counter()
        if how == 'stratified': labeled = by_class(y, per, seed)
        else:
            first,most,second = until(how)
            name = first if per <= most or probs is None else second
            more = dict(y=y) if name in ('TypiClust','ProbCover','CoreSet') else {}
            labeled = np.concatenate([labeled, known[name](x, n, labeled, probs, seed, **more)]).astype(int)
        seconds = time.perf_counter() - began
        if len(np.unique(y[labeled])) < 2 or len(labeled) < 3: continue             # no probe yet
        both = probe_answers([torch.cat(o) for o in zip(features, tests)], labeled, y[labeled], c)
        probs,answers,others = both[:,:len(x)],both.mean(0).argmax(1),rest(x, labeled)
        rows.append(dict(target=target, how=how, seed=seed, per_class=per, labels=len(labeled), seen=round(len(np.unique(y[labeled]))/c, 4),
                         pool=round((answers[others] == y[others]).mean(), 4), test=round((answers[len(x):] == truth).mean(), 4),
                         seconds=round(seconds, 2), **machine()))
    return rows

first = 'typical','typical>3:doubtful','random','stratified','TypiClust','medians','typical>3:margin'
second = ('typical>1:doubtful','typical>5:doubtful','medians>3:doubtful','typical>3:disagreement','typical>3:groups',
          'ProbCover','CoreSet')
rounds = [[(how,seed) for seed in range(5) for how in hows] for hows in (first,second)]

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('out', type=Path)
    ap.add_argument('--store', default=None, help='folder where outputs of sources are kept')
    ap.add_argument('--targets', nargs='+', default=targets)
    a = ap.parse_args()
    torch.set_num_threads(1)
    zoo = Zoo.checkpoints(a.data/'weights', size=128)
    rows = pd.read_csv(a.out).to_dict('records') if a.out.exists() else []
    for target,hows in [(t, hows) for hows in rounds for t in a.targets]:
        done = {(r['how'],r['seed']) for r in rows if r['target'] == target}
        todo = [o for o in hows if o not in done and (activeml or o[0].lower() == o[0])]
        if not todo: continue
        path = next(a.data/o/f'{target}.npz' for o in ('targets','sources') if (a.data/o/f'{target}.npz').exists())
        pack = load_pack(path)
        train,test = get_images(pack.train[0]),get_images(pack.test[0])
        compute_outputs(list(zoo), train + test, a.store, progress=False)
        features,tests = [[get_outputs(s, o, a.store, progress=False).features for s in zoo] for o in (train,test)]
        for how,seed in todo:
            rows += run(features, tests, np.asarray(pack.train[1]), np.asarray(pack.test[1]), target, how, seed)
            pd.DataFrame(rows).to_csv(a.out, index=False)
        d = pd.DataFrame(rows)
        mine = d[d.target == target].pivot_table(index='how', columns='per_class', values='test')
        print(target, (100*mine).round(1), sep='\n', flush=True)
