"NCE, LEEP and NLEEP against formulas written out in NumPy and scikit-learn, their invariances, bad input."
import numpy as np, pytest, torch, warnings
from hypothesis import given, settings, strategies as st
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from distill_nb.estimators.core import metrics, SmallProbeWarning
from distill_nb.estimators.counts import nce, leep, nleep

def naive_nce(p, y):
    "Tran et al. 2019, image by image, class by class"
    n,joint = len(y),{}
    for row,l in zip(np.asarray(p, float), y):
        top = np.flatnonzero(row==row.max())
        for z in top: joint[l,z] = joint.get((l,z), 0) + 1/len(top)/n
    return sum(v*np.log(v/sum(w for (_,b),w in joint.items() if b==z)) for (l,z),v in joint.items())

def naive_leep(p, y):
    "Nguyen et al. 2020, equations (1) and (2)"
    p = np.asarray(p, float)
    p = p/p.sum(1, keepdims=True)
    n,Z = p.shape
    joint = {(c,z):sum(p[i,z] for i in range(n) if y[i]==c)/n for c in set(y) for z in range(Z)}
    marginal = [sum(joint[c,z] for c in set(y)) for z in range(Z)]
    return np.mean([np.log(sum(joint[y[i],z]/marginal[z]*p[i,z] for z in range(Z) if marginal[z]>0)) for i in range(n)])

def naive_nleep(x, y, per_class=5, energy=.8, seed=0):
    "Li et al. 2021 in the order of images that nleep documents: sorted by principal components, mean variance 1"
    s = PCA(energy if energy<1 else None, svd_solver='full').fit_transform(x)
    s /= np.sqrt((s**2).mean())
    order = np.lexsort(s.round(9).T[::-1])
    k = min(per_class*len(set(y)), len(y)//2)
    g = GaussianMixture(k, random_state=seed).fit(s[order])
    # posteriors from the fitted parameters, by the formula
    def log_density(a, w, m, c): return np.log(w) - .5*np.linalg.slogdet(2*np.pi*c)[1] - .5*(a-m)@np.linalg.solve(c, a-m)
    logs = np.array([[log_density(a, *o) for o in zip(g.weights_, g.means_, g.covariances_)] for a in s])
    return naive_leep(softmax(logs, axis=1), y)

def labels(n, c, r): return np.r_[0:c, r.integers(0, c, n-c)]
def probs(kind, n, z, seed=0):
    r = np.random.default_rng(seed)
    p = softmax(3*r.normal(size=(n,z)), axis=1)
    if kind=='tied':
        p = r.integers(0, 3, (n,z))+1.
        p /= p.sum(1, keepdims=True)
    if kind=='twins': p[n//2:] = p[:n-n//2]
    if kind=='onehot': p = np.eye(z)[np.r_[0,1%z,r.integers(0, z, n-2)]]
    if kind=='dead':
        p[:,2::3] = 0
        p /= p.sum(1, keepdims=True)
    if kind=='tiny':
        p[:,0] = 1e-310
        p[:,1:] /= p[:,1:].sum(1, keepdims=True)
    return p,labels(n, min(4,n), r)

kinds = ['random','tied','twins','onehot','dead','tiny']
@pytest.mark.parametrize('n,z', [(40,8),(30,200),(60,3),(5,4)])
@pytest.mark.parametrize('kind', kinds)
def test_formulas(kind, n, z):
    p,y = probs(kind, n, z)
    assert nce(p, y) == pytest.approx(naive_nce(p/p.sum(1, keepdims=True), y), abs=1e-12)
    assert leep(p, y) == pytest.approx(naive_leep(p, y), abs=1e-12)

def test_by_hand():
    p = [[.5,.5],[1,0],[0,1],[0,1]]
    assert nce(p, [0,0,1,1]) == pytest.approx(.25/2*np.log(1/5)*1 + 2/4*np.log(4/5), abs=1e-12)    # one half of a vote in five halves
    assert leep(p, [0,0,1,1]) == pytest.approx((np.log(.5*1+.5*.2) + 0 + 2*np.log(.8))/4, abs=1e-12)
    assert nce(np.eye(4), range(4)) == leep(np.eye(4), range(4)) == 0
    two = np.eye(2)[[0,1,0,1]]
    assert nce(two, [0,0,1,1]) == pytest.approx(-np.log(2)) == leep(two, [0,0,1,1])

small = st.integers(0, 10**6)
@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(6,40), z=st.integers(2,50), kind=st.sampled_from(kinds[:-1]))
def test_what_does_not_matter(seed, n, z, kind):
    r = np.random.default_rng(seed)
    p,y = probs(kind, n, z, seed)
    if (p==p[0]).all(): return
    chance = sum(q*np.log(q) for q in np.bincount(y)/n if q)
    order,cols = r.permutation(n),r.permutation(z)
    for f in (nce,leep):
        s = f(p, y)
        same = [(p, r.permutation(50)[:4][y]), (p, np.array(list('wxyz'))[y]), (p[order], y[order]), (p[:,cols], y)]
        for a,b in [*same, (np.pad(p, ((0,0),(0,5))), y)]: assert f(a, b) == pytest.approx(s, rel=1e-9, abs=1e-12)
        assert chance-1e-9 <= s <= 0

def gauss(kind, n, d, seed=0, c=3):
    r = np.random.default_rng(seed)
    y = labels(n, c, r)
    x = r.normal(size=(n,d)) + 3*r.normal(size=(c,d))[y]
    if kind=='twins': x[n//2:] = x[:n-n//2]
    if kind=='tied': x = x.round()
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d)
    if kind=='dead': x[:,::3] = 5
    if kind=='onehot': x = np.eye(d)[r.choice(d, n, p=np.arange(1,d+1)/np.arange(1,d+1).sum())]
    return x,y

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
@pytest.mark.filterwarnings('ignore::sklearn.exceptions.ConvergenceWarning')
@pytest.mark.parametrize('n,d', [(80,6),(40,60),(60,1),(35,35)])
@pytest.mark.parametrize('kind', ['random','twins','tied','scaled','dead','onehot'])
def test_nleep(kind, n, d):
    x,y = gauss(kind, n, d)
    if (x==x[0]).all(): pytest.skip('constant')
    got = nleep(x, y)
    assert got == nleep(x, y) and np.isfinite(got) and got<=0
    if kind!='onehot' or d<30:
        assert got == pytest.approx(naive_nleep(x, y), abs=1e-6)
        assert nleep(x, y, per_class=2, seed=3) == pytest.approx(naive_nleep(x, y, per_class=2, seed=3), abs=1e-6)
    assert nleep(x, y, energy=1., per_class=1) <= 0

@settings(max_examples=15, deadline=None)
@given(seed=small, d=st.integers(2,12), scale=st.floats(1e-3,1e3), shift=st.floats(-10,10))
def test_nleep_what_does_not_matter(seed, d, scale, shift):
    r = np.random.default_rng(seed)
    x,y = gauss('random', 60, d, seed)
    want,order = nleep(x, y, per_class=2),r.permutation(60)
    same = [(x, r.permutation(50)[:3][y]), (x, np.array(list('abc'))[y]), (x[order], y[order]), (x[:,r.permutation(d)], y)]
    for a,b in [*same, (x*scale+shift, y)]:
        assert nleep(a, b, per_class=2) == pytest.approx(want, abs=1e-6)

def test_nleep_small():
    x,y = gauss('random', 20, 5)
    with pytest.warns(SmallProbeWarning, match='cut to 10'): assert np.isfinite(nleep(x, y, per_class=20))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        nleep(x, y, per_class=3)
        nleep(np.repeat(x[:5], 4, 0), y, per_class=3, n_dims=2)      # five distinct images, nine components
        nleep(x.astype(np.float16), torch.tensor(y), per_class=1)
        nleep(x*1e40, y, per_class=1)
        nleep(x*1e-40, y, per_class=1)

@pytest.mark.parametrize('kw', [dict(per_class=0), dict(energy=0), dict(energy=80), dict(n_dims=1)])
def test_nleep_bad_options(kw):
    x,y = gauss('random', 20, 5)
    with pytest.raises(ValueError, match=f'`{next(iter(kw))}` must'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        nleep(x, y, **kw)

def test_inputs():
    p,y = probs('random', 30, 6)
    keep,same = p.copy(),y.copy()
    p.setflags(write=False)
    y.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for f in (nce,leep):
            s = f(p, y)
            assert isinstance(s, float) and f(p.tolist(), y.tolist())==s
            assert f(torch.tensor(keep, requires_grad=True), torch.tensor(same)) == pytest.approx(s, abs=1e-12)
            assert f(p.astype(np.float32), y) == pytest.approx(s, abs=1e-5)
            assert f(torch.tensor(keep).half(), y) == pytest.approx(s, abs=1e-2)
            t = torch.tensor(keep)
            f(t, y)
            np.testing.assert_array_equal(t, keep)
            assert f(np.eye(3, dtype=bool)[same%3], same) <= 0
        x = p*5
        nleep(x, y, per_class=1)
        np.testing.assert_array_equal(x, p*5)
    np.testing.assert_array_equal(p, keep)
    np.testing.assert_array_equal(y, same)

P,Y = probs('random', 20, 5)
@pytest.mark.parametrize('p,y,words', [
    (P, Y[:-1], '20 rows and labels 19'), (P*2, Y, 'sum to 1'), (P*9, Y, 'sum to 1'),
    (np.log(P), Y, 'softmax of logits'), (np.where(P>.5, np.nan, P), Y, 'NaN'), (P, Y*0, 'one class only'),
    (P, np.eye(4)[Y], 'one class per image'), (P, Y/2, 'integer class indices'), (np.full((20,5), .2), Y, 'probs are constant')])
def test_bad_input(p, y, words):
    for f in (nce,leep):
        with pytest.raises(ValueError, match=words): f(p, y)

def test_named_and_dead_classes():
    p,y = probs('random', 30, 6)
    chance = -sum(q*np.log(1/q) for q in np.bincount(y)/30)
    assert nce(np.eye(2)[y%2], y) == pytest.approx(chance - sum(q*np.log(q) for q in np.bincount(y%2)/30), abs=1e-12)
    dead = np.pad(p, ((0,0),(0,3)))                     # classes of probability zero
    assert leep(dead, y) == pytest.approx(leep(p, y), abs=1e-12)
    assert leep(p, np.array(list('qwer'))[y]) == pytest.approx(leep(p, y), abs=1e-12)
    with pytest.raises(ValueError, match='nce is defined for one class'): nce(p, np.eye(4)[y])
    with pytest.raises(ValueError, match='nleep is defined for one class'): nleep(p, np.eye(4)[y])

def test_register():
    for f in (nce,leep):
        assert metrics[f.__name__] is f and f.needs=='probs' and f.range==(None,0.) and not f.multi_label
    assert metrics['nleep'].needs=='features' and metrics['nleep'].times==5
    with pytest.raises(ValueError, match='one class per image'): nleep(P, np.eye(4)[Y])
