"H-score, TransRate, GBC and SFDA against formulas written with NumPy, SciPy and scikit-learn; invariances, degenerate data."
import numpy as np, pytest, torch, warnings
from hypothesis import given, settings, strategies as st
from scipy.linalg import eigh
from scipy.special import log_softmax, softmax
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from distill_nb.estimators.core import SmallProbeWarning, metrics
from distill_nb.estimators.covariances import *
from distill_nb.estimators.covariances import _gram, _root, _span

names = ['h_score','h_score_plain','transrate','gbc','sfda']
def score(name, x, y, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', SmallProbeWarning)
        return metrics[name](x, y, **kw)

def means(x, y): return np.stack([x[y==c].mean(0) for c in range(y.max()+1)])
def cov(x): return np.atleast_2d(np.cov(x.T, bias=True))

def literal_h(x, y, shrinkage):
    x = x-x.mean(0)
    cov_f,alpha = ledoit_wolf(x) if shrinkage else (cov(x), 0.)
    return np.trace(np.linalg.pinv(cov_f, rcond=1e-12) @ ((1-alpha)*cov(means(x, y)[y])))

def projector_h(x, y):
    "The plain H-score as tr(P Pi), with columns of size 1"
    x = x-x.mean(0)
    x = x/np.where(x.std(0)>1e-10, x.std(0), np.inf)
    u,s,_ = np.linalg.svd(x, full_matrices=False)
    u = u[:,s>1e-11*s[0]]
    p = (y[:,None]==y[None])/np.bincount(y)[y]
    return np.trace(p@u@u.T)

def literal_transrate(x, y, eps=1e-4, centre=False):
    z = x-x.mean(0)
    def rate(z): return np.log1p(np.linalg.svd(z, compute_uv=False)**2/(len(z)*eps)).sum()/2
    return rate(z) - sum((y==c).mean()*rate(z[y==c] - (z[y==c].mean(0) if centre else 0)) for c in set(y))

def literal_gbc(x, y, n_dims=64, diagonal=False):
    "Pair by pair, full matrices; the conventions of gbc where a variance is missing or 0"
    x = x[:,x.std(0)>1e-12*abs(x).max(0)]
    x = x-x.mean(0)
    x = x-x.mean(0)
    if n_dims:
        s = np.linalg.svd(x, compute_uv=False)
        x = PCA(min(n_dims, int((s>s[0]*max(x.shape)*2.3e-16).sum())), svd_solver='full').fit_transform(x)
    k,m,n = x.shape[1],means(x, y),np.bincount(y)
    pooled = sum(((x[y==c]-m[c])**2).sum(0) for c in set(y) if n[c]>1)/n[n>1].sum()
    var = np.stack([x[y==c].var(0) if n[c]>1 else pooled for c in range(len(n))])
    least = 1e-6*x.var(0)
    if not diagonal: var,least = var.mean(1, keepdims=True)*np.ones(k), least.mean()
    var,total = np.maximum(var, least),0
    for i in range(len(n)):
        for j in range(len(n)):
            if i==j: continue
            s = np.diag(var[i]+var[j])/2
            d = (m[i]-m[j])@np.linalg.solve(s, m[i]-m[j])/8 + (np.linalg.slogdet(s)[1] - (np.log(var[i]).sum()+np.log(var[j]).sum())/2)/2
            total -= np.exp(-d)
    return total

def literal_fda(x, y, lam):
    "Log posteriors through C-1 generalised eigenvectors in all d dimensions, as the paper has it"
    q,m = np.bincount(y)/len(y),means(x, y)
    sw = (x-m[y]).T@(x-m[y])/len(x)
    if lam is None: lam = max(1e-10, np.exp(-5*np.linalg.eigvalsh(sw)[-1]))
    sb = sum(p*np.outer(o-x.mean(0), o-x.mean(0)) for p,o in zip(q, m))
    u = eigh(sb, (1-lam)*sw + lam*np.eye(x.shape[1]))[1][:,::-1][:,:len(q)-1]
    f,m_u = x@u,m@u
    return np.stack([f@m_u[c] - m_u[c]@m_u[c]/2 + np.log(q[c]) for c in range(len(q))], 1), m, lam

def literal_sfda(x, y, lam=None, soften=True):
    x = x-x.mean(0)
    delta,m,lam = literal_fda(x, y, lam)
    p = softmax(delta, 1)
    if soften: p = softmax(p, 1)
    p = p[np.arange(len(y)),y]
    outer = np.stack([np.delete(m, c, 0).mean(0) for c in range(len(m))])
    mixed = p[:,None]*x + (1-p)[:,None]*outer[y]
    delta = literal_fda(mixed-mixed.mean(0), y, lam)[0]
    return log_softmax(delta, 1)[np.arange(len(y)),y].mean()

def data(kind, n, d, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, 0:c, r.integers(0, c, n-2*c)]
    x = r.normal(size=(n,d)) + r.normal(size=(c,d))[y]
    if kind=='tied': x = x.round()                              # many equal entries
    if kind=='twins': x[n//2:] = x[:n-n//2]                     # duplicated images
    if kind=='onehot': x = np.eye(d)[r.integers(0, d, n)]
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d)
    if kind=='shifted': x = x+1e3
    if kind=='dead': x[:,::3] = .1
    if kind=='single':
        y[:] = np.where(y==c-1, 0, y)
        y[n//3] = c-1     # a class of one image
    if kind=='copied': x[:,d//2:] = x[:,:d-d//2]                # linearly dependent features
    return x,y

kinds = ['random','tied','twins','onehot','scaled','shifted','dead','single','copied']
shapes = [(60,8),(40,90),(30,30),(14,2),(30,1)]
each = pytest.mark.parametrize('kind,n,d', [(k,n,d) for k in kinds for n,d in shapes if not (d==1 and k in ('onehot','dead','copied'))])

@each
def test_h_score(kind, n, d):
    x,y = data(kind, n, d)
    if kind=='scaled' and d<n:      # the literal inverse loses its small directions: solve with columns of size 1 instead
        z = x-x.mean(0)
        cov_f,alpha = ledoit_wolf(z)
        s = z.std(0)
        want = (1-alpha)*np.trace(np.linalg.solve(cov_f/np.outer(s, s), cov((means(z, y)/s)[y])))
    else: want = literal_h(x, y, True)
    assert h_score(x, y) == pytest.approx(want, rel=1e-6, abs=1e-6)

@each
def test_h_score_plain(kind, n, d):
    x,y = data(kind, n, d)
    got = score('h_score_plain', x, y)
    assert got == pytest.approx(projector_h(x, y), abs=1e-6)
    if kind!='scaled': assert got == pytest.approx(literal_h(x, y, False), abs=1e-6)
    assert got == score('h_score', x, y, shrinkage=False)

@each
def test_transrate(kind, n, d):
    x,y = data(kind, n, d)
    assert transrate(x, y) == pytest.approx(literal_transrate(x, y), rel=1e-6, abs=1e-6)
    assert transrate(x, y, eps=.3) == pytest.approx(literal_transrate(x, y, .3), rel=1e-6, abs=1e-6)
    assert transrate(x, y, centre_classes=True) == pytest.approx(literal_transrate(x, y, centre=True), rel=1e-6, abs=1e-6)
    z = (x-x.mean(0))/x.var(0).mean()**.5
    assert transrate(x, y, normalise=True) == pytest.approx(literal_transrate(z, y), rel=1e-6, abs=1e-6)

@pytest.mark.parametrize('covariance', ['spherical','diagonal'])
@each
def test_gbc(kind, n, d, covariance):
    x,y = data(kind, n, d)
    assert gbc(x, y, None, covariance) == pytest.approx(literal_gbc(x, y, None, covariance=='diagonal'), rel=1e-6, abs=1e-12)
    if kind=='onehot' : return                  # tied variances: which components come first is arbitrary
    if kind in ('tied','dead','copied','twins') and covariance=='diagonal' and d<3: return
    assert gbc(x, y, covariance=covariance) == pytest.approx(literal_gbc(x, y, 64, covariance=='diagonal'), rel=1e-6, abs=1e-12)
    assert gbc(x, y, 5, covariance) == pytest.approx(literal_gbc(x, y, 5, covariance=='diagonal'), rel=1e-6, abs=1e-12)

@pytest.mark.parametrize('lam', [None,.01,.5,1])
@each
def test_sfda(kind, n, d, lam):
    x,y = data(kind, n, d)
    if lam is None and kind=='scaled': x = x*1e-3           # else lambda is at its least, next to numbers of 1e6
    if lam is None and (n<=d or kind in ('dead','copied','onehot')): x = x*.1        # lambda above its least: see test_sfda_saturates
    for soften in (True,False):
        assert score('sfda', x, y, shrinkage=lam, soften=soften) == pytest.approx(literal_sfda(x, y, lam, soften), rel=1e-6, abs=1e-6)

def test_roots():
    r = np.random.default_rng(0)
    a = torch.tensor(r.normal(size=(40,9))*10.**r.uniform(-7, 7, 9))
    for ridge in (1e-10,1.,1e3):
        root = _root(a, ridge)
        np.testing.assert_allclose(root.T@root, a.T@a+ridge*torch.eye(9).double(), rtol=1e-9, atol=1e-9*ridge)
    wide = a.T.contiguous()
    np.testing.assert_allclose(_span(wide)@_span(wide).T, wide@wide.T, rtol=1e-9)
    np.testing.assert_allclose(_gram(wide), wide.T@wide)

def test_h_score_of_noise():
    "The plain form is C-1 of whatever has n-1 features or more"
    r = np.random.default_rng(0)
    y = np.arange(60)%5
    x = r.normal(size=(60,59))
    assert h_score_plain(x, y) == pytest.approx(4, abs=1e-9) and h_score(x, y) < 1
    for d in (60,80,300):
        x = r.normal(size=(60,d))
        with pytest.warns(SmallProbeWarning, match='use h_score'): assert h_score_plain(x, y) == pytest.approx(4, abs=1e-9)
        with pytest.warns(SmallProbeWarning, match='shrinkage=True'): h_score(x, y, shrinkage=False)
        assert h_score(x, y) < 1

def test_h_score_of_one_variance():
    "Ledoit and Wolf's weight is 0/0 there: no shrinkage"
    x,y = np.array([[1,0],[-1,0],[0,1],[0,-1.]]),np.array([0,1,0,1])
    assert h_score(x, y) == pytest.approx(literal_h(x, y, False))
    x = np.array([[1,0],[1,0],[-1,0],[-1,0.]])          # no weight either, and no inverse
    assert h_score(x, np.array([0,0,1,1])) == pytest.approx(1)

def test_transrate_never_negative():
    r = np.random.default_rng(0)
    x,y = np.r_[r.normal(size=(290,4))*.1, r.normal(size=(10,4))*10],np.repeat([0,1], [290,10])
    assert transrate(x, y)>0
    assert transrate(np.tile(x[:50], (2,1)), np.repeat([0,1], 50)) == pytest.approx(0, abs=1e-9)       # classes alike
    with pytest.raises(ValueError, match='`eps` must'): transrate(x, y, eps=-1)

def test_transrate_of_two_classes():
    "Blind as published where two classes have one size and opposite means"
    x = np.random.default_rng(0).normal(size=(50,2))
    for apart in (0,1,100):
        z,y = np.r_[x+[apart,0], -x-[apart,0]],np.repeat([0,1], 50)
        assert transrate(z, y) == pytest.approx(0, abs=1e-6)
        assert (transrate(z, y, centre_classes=True)>1) == (apart>3)

def test_gbc_bounds():
    r = np.random.default_rng(0)
    x = r.normal(size=(20,3))
    assert gbc(np.tile(x, (3,1)), np.repeat([0,1,2], 20)) == pytest.approx(-6)      # classes coincide
    assert gbc(np.eye(3)[np.arange(30)%3], np.arange(30)%3) == pytest.approx(0)     # and do not vary
    with pytest.raises(ValueError, match="`covariance` must be"): gbc(x, np.arange(20)%2, covariance='full')
    with pytest.raises(ValueError, match='`n_dims` must'): gbc(x, np.arange(20)%2, n_dims=1)

def test_gbc_components():
    "By eigenvectors of the smaller product, unless squaring would harm"
    r = np.random.default_rng(0)
    y = np.arange(100)%4
    for n,d in [(100,70),(100,300)]:
        x = r.normal(size=(n,d)) + r.normal(size=(4,d))[y]
        for spread in (0,10):
            z = x*np.logspace(0, -spread, d)
            assert gbc(z, y) == pytest.approx(literal_gbc(z, y), rel=1e-6)

def test_sfda_saturates():
    "With no more images than features lambda is at its least, and everything separable scores 0: with a warning"
    r = np.random.default_rng(0)
    x,y = r.normal(size=(60,100))*3,np.arange(60)%4
    with pytest.warns(SmallProbeWarning, match='sfda of 60 images'): assert -1e-6 < sfda(x, y) <= 0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert sfda(x, y, shrinkage=.9) < -1e-3
    for kw in (dict(shrinkage=0),dict(shrinkage=1.5),dict(a=0)):
        with pytest.raises(ValueError, match=next(iter(kw))): sfda(x, y, **kw)

def test_sfda_beyond_one():
    "Differences between probabilities that all round to 1 are not lost"
    r = np.random.default_rng(0)
    y = np.arange(200)%2
    got = [sfda(r.normal(size=(200,2)) + apart*y[:,None], y, shrinkage=.01) for apart in (10,14,18)]
    assert got[0]<got[1]<got[2]<0 and got[2]>-1e-12

def test_gbc_scaled_and_shifted():
    x,y = data('random', 80, 6)
    assert gbc(x*1e5+7, y) == pytest.approx(gbc(x, y), abs=1e-9)

def test_sfda_of_repeated_features():
    "Twenty copies of the features are the features times the root of twenty"
    x,y = data('random', 80, 6)
    assert sfda(x, y)<0
    more = np.c_[x*20**.5, np.zeros((80,1))]
    assert sfda(np.tile(x, 20), y, shrinkage=.5) == pytest.approx(sfda(more, y, shrinkage=.5), abs=1e-9)

def test_sfda_knows_nothing():
    x,y = data('random', 200, 5)
    assert sfda(x*1e-4, y) == pytest.approx((np.bincount(y)/200*np.log(np.bincount(y)/200)).sum(), abs=1e-3)

@pytest.mark.parametrize('name', names)
def test_bad_input(name):
    x,y = data('random', 20, 3)
    f = metrics[name]
    with pytest.raises(ValueError, match=f'{name} is defined for one class per image'): f(x, np.eye(4)[y])
    with pytest.raises(ValueError, match=f'20 classes for 20 images: {name}'): f(x, np.arange(20))
    with pytest.raises(ValueError, match='one class only'): f(x, y*0)
    with pytest.raises(ValueError, match='constant'): f(x*0, y)
    with pytest.raises(ValueError, match='NaN'): f(np.where(x>1, np.nan, x), y)

@pytest.mark.parametrize('name', names)
def test_kinds_of_input(name):
    x,y = data('tied', 40, 6)
    want = score(name, x, y)
    arrays = [x.tolist(), x.astype(np.float32), x.astype(np.float16), x.astype(int), x[::-1][::-1], np.asfortranarray(x)]
    for z in (*arrays, torch.tensor(x), torch.tensor(x).half(), torch.tensor(x, requires_grad=True)):
        assert score(name, z, y) == pytest.approx(want, rel=1e-9)
    for l in (y.tolist(), torch.tensor(y), y.astype(np.uint8), np.array(list('abcd'))[y], y*10-7):
        assert score(name, x, l) == pytest.approx(want, rel=1e-9)
    assert score(name, x>0, y) == pytest.approx(score(name, (x>0).astype(float), y), rel=1e-9)
    for o in (x, torch.tensor(x)):
        kept,labels = o.clone() if isinstance(o, torch.Tensor) else o.copy(),y.copy()
        score(name, o, labels)
        assert (o==kept).all() and (labels==y).all()

@pytest.mark.parametrize('name', names)
@each
def test_always_finite_within_range_and_silent(name, kind, n, d):
    x,y = data(kind, n, d)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.simplefilter('ignore', SmallProbeWarning)
        got = metrics[name](x, y)
    low,high = metrics[name].range
    assert type(got) is float and np.isfinite(got) and (low is None or got>=low-1e-9) and (high is None or got<=high+1e-9)

small = st.integers(0, 10**6)
@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(12,40), d=st.integers(1,50))
def test_what_does_not_matter(seed, n, d):
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, c=3, seed=seed)
    x = x*.2                                    # SFDA: lambda well above its least
    order,cols = r.permutation(n),r.permutation(d)
    new = r.permutation(50)[:3][y]
    for name in names:
        want = pytest.approx(score(name, x, y), rel=1e-9, abs=1e-12)
        assert score(name, x, new) == want                      # class renumbering, with gaps
        assert score(name, x, np.array(['owl','wren','kite'])[y]) == want
        want = pytest.approx(score(name, x, y), rel=1e-7, abs=1e-9)
        assert score(name, x[order], y[order]) == want                                          # order of images
        assert score(name, x[:,cols], y) == want                                                # order of features
        assert score(name, x+10, y) == pytest.approx(score(name, x, y), rel=1e-6, abs=1e-8)     # shift

@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(12,40), d=st.integers(1,50), scale=st.floats(1e-3,1e3))
def test_rotation_and_scale(seed, n, d, scale):
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, c=3, seed=seed)
    x = x*.2
    q = np.linalg.qr(r.normal(size=(d,d)))[0]
    for name in names: assert score(name, x@q, y) == pytest.approx(score(name, x, y), rel=1e-6, abs=1e-8)
    free = [('h_score',{}), ('h_score_plain',{}), ('gbc',{}), ('gbc',dict(covariance='diagonal'))]
    for name,kw in [*free, ('transrate',dict(normalise=True))]:
        assert score(name, x*scale, y, **kw) == pytest.approx(score(name, x, y, **kw), rel=1e-6, abs=1e-8)
    assert score('h_score_plain', x*r.uniform(.1, 9, d), y) == pytest.approx(score('h_score_plain', x, y), rel=1e-6)
    assert transrate(x*scale, y, eps=1e-4*scale**2) == pytest.approx(transrate(x, y), rel=1e-6, abs=1e-8)
    if d>1: assert all(metrics[o].rotation for o in names if o not in ('gbc','h_score'))

def test_needs_pairs_for_gbc_single():
    "A class of one image takes the pooled variance of the others"
    r = np.random.default_rng(0)
    x,y = np.r_[r.normal(size=(40,3)), [[9.,9,9]]],np.r_[np.arange(40)%2, 2]
    assert gbc(x, y) == pytest.approx(literal_gbc(x, y))
    assert gbc(x, y) < gbc(x[:-1], y[:-1])

def test_rounding_noise_is_dead():
    "A feature that differs in its last digits only is one that never changes"
    x,y = data('random', 40, 3)
    col = 1e3*(1+2.3e-16*np.random.default_rng(0).integers(0, 4, 40))
    assert len(set(col))>1
    for name,kw in [('h_score_plain',{}), ('gbc',dict(n_dims=None)), ('gbc',dict(n_dims=None, covariance='diagonal'))]:
        assert score(name, np.c_[x,col], y, **kw) == pytest.approx(score(name, x, y, **kw), rel=1e-9)
