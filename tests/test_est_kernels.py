"CKA and DDS against formulas written out with NumPy and scikit-learn, their invariances, and bad input."
import warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics.pairwise import cosine_similarity, laplacian_kernel
from sklearn.preprocessing import StandardScaler
from distill_nb.estimators.core import metrics
from distill_nb.estimators.kernels import cka, dds, _sq_distances

def onehot(y): return np.eye(int(max(y))+1)[y]
def rbf(x, sigma):
    d = pdist(x)
    m = np.median(d) or np.median(d[d>0])
    return np.exp(-squareform(d)**2/(2*(sigma*m)**2))

def hsic0(k, l):
    n = len(k)
    h = np.eye(n)-1/n
    return np.trace(k@h@l@h)

def hsic1(k, l):
    "Song et al. 2012, as printed"
    n = len(k)
    one = np.ones(n)
    k,l = k-np.diag(np.diag(k)),l-np.diag(np.diag(l))
    return (np.trace(k@l) + one@k@one*(one@l@one)/((n-1)*(n-2)) - 2/(n-2)*one@k@l@one)/(n*(n-3))

def hsic1_by_entries(k, l):
    n = len(k)
    r = range(n)
    k,l = [[[0. if i==j else float(m[i,j]) for j in r] for i in r] for m in (k,l)]
    tr = sum(k[i][j]*l[j][i] for i in r for j in r)
    kl = sum(k[i][j]*l[j][q] for i in r for j in r for q in r)
    return (tr + sum(map(sum,k))*sum(map(sum,l))/((n-1)*(n-2)) - 2/(n-2)*kl)/(n*(n-3))

def ratio(k, l, debiased=False, h=None):
    h = h or (hsic1 if debiased else hsic0)
    return h(k, l)/np.sqrt(h(k, k)*h(l, l))

def naive_cka(x, y, kernel='linear', sigma=1., debiased=False):
    y = onehot(y) if np.ndim(y)==1 else np.asarray(y, dtype=float)
    x = np.asarray(x, dtype=np.float64)
    if kernel=='linear': x,y = x-x.mean(0),y-y.mean(0)     # the printed form loses digits where columns are far from 0
    return ratio(*[z@z.T if kernel=='linear' else rbf(z, sigma) for z in (x,y)], debiased)

functions = {
    'cosine':lambda x,s: 1-cosine_similarity(x), 'pearson':lambda x,s: 1-np.corrcoef(x), 'euclidean':lambda x,s: squareform(pdist(x)),
    'linear':lambda x,s: x@x.T, 'rbf':rbf, 'laplacian':lambda x,s: laplacian_kernel(x)}
def naive_dds(x, y, f='cosine', zscore=True, sigma=.5, debiased=False):
    y = onehot(y) if np.ndim(y)==1 else np.asarray(y, dtype=float)
    x = np.asarray(x, dtype=float)
    if zscore: x,y = [StandardScaler().fit_transform(z) for z in (x,y)]
    return ratio(functions[f](x, sigma), functions[f](y, sigma), debiased)

def data(kind, n, d, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, r.integers(0, c, n-c)]
    x = r.normal(size=(n,d)) + r.normal(size=(c,d))[y]
    if kind=='tied': x = x.round()
    if kind=='twins': x[n//2:] = x[:n-n//2]
    if kind=='onehot': x = np.eye(d)[np.r_[0:min(d,2), r.integers(0, d, n-min(d,2))]]
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d) + 1e3
    if kind=='dead': x[:,1::3] = 5
    if kind=='single': y = np.r_[np.zeros(n-c, int), 1:c+1]        # classes of one image
    return x,y

kinds = ['random','tied','twins','onehot','scaled','dead','single']
shapes = [(40,8),(30,64),(25,25),(12,2),(30,1)]

@pytest.mark.parametrize('debiased', [False,True])
@pytest.mark.parametrize('kernel,sigma', [('linear',1.), ('rbf',1.), ('rbf',.3), ('rbf',5.)])
@pytest.mark.parametrize('n,d', shapes)
@pytest.mark.parametrize('kind', kinds)
def test_cka(kind, n, d, kernel, sigma, debiased):
    x,y = data(kind, n, d)
    if kind=='onehot' and d==1: pytest.skip('constant')
    if kind=='scaled' and kernel=='rbf': x = x-x.mean(0)
    assert cka(x, y, kernel, sigma, debiased) == pytest.approx(naive_cka(x, y, kernel, sigma, debiased), abs=1e-8)

@pytest.mark.parametrize('kernel', ['linear','rbf'])
@pytest.mark.parametrize('debiased', [False,True])
def test_cka_of_a_reference(kernel, debiased):
    for d,k in [(50,33), (5,40), (40,5), (6,3)]:
        x,y = data('random', 20, d)[0],data('random', 20, k, seed=1)[0]
        assert cka(x, y, kernel, debiased=debiased) == pytest.approx(naive_cka(x, y, kernel, debiased=debiased), abs=1e-9)
        assert cka(y, x, kernel, debiased=debiased) == pytest.approx(cka(x, y, kernel, debiased=debiased), abs=1e-12)

def test_the_formula_itself():
    x,y = data('random', 14, 5)
    l = onehot(y)@onehot(y).T
    for k in (x@x.T, rbf(x, 1.)): assert hsic1(k, l) == pytest.approx(hsic1_by_entries(k, l), rel=1e-9)

@pytest.mark.parametrize('debiased', [False,True])
def test_multi_label(debiased):
    r = np.random.default_rng(0)
    x,y = r.normal(size=(40,10)),r.random((40,6))<.4
    y[3] = False
    for kw in (dict(debiased=debiased), dict(kernel='rbf', sigma=.8, debiased=debiased)):
        assert cka(x, y, **kw) == pytest.approx(naive_cka(x, y, **kw), abs=1e-9)
    rare = np.arange(40)[:,None]<np.array([2,1])                   # most pairs of rows are identical: the median of the others
    assert cka(x, rare, 'rbf', debiased=debiased) == pytest.approx(naive_cka(x, rare, 'rbf', debiased=debiased), abs=1e-9)
    for f in functions: assert dds(x, y, f, debiased=debiased) == pytest.approx(naive_dds(x, y, f, debiased=debiased), abs=1e-9)

@pytest.mark.parametrize('debiased', [False,True])
@pytest.mark.parametrize('zscore', [False,True])
@pytest.mark.parametrize('f', functions)
@pytest.mark.parametrize('n,d', shapes)
@pytest.mark.parametrize('kind', [k for k in kinds if k!='scaled'])
def test_dds(kind, n, d, f, zscore, debiased):
    x,y = data(kind, n, d)
    if (kind=='onehot' or f=='pearson') and d==1: pytest.skip('undefined')
    if f=='pearson' and d==2: pytest.skip('all correlations are -1 or 1')
    if kind=='tied' and f=='pearson': x = x + .25*np.arange(d)     # ties make rows without variance
    if kind=='tied' and f=='cosine' and not zscore: x = x + .25
    want = naive_dds(x, y, f, zscore, debiased=debiased)
    assert dds(x, y, f, zscore, debiased=debiased) == pytest.approx(want, abs=1e-7)

def test_dds_of_badly_scaled_features():
    x,y = data('scaled', 40, 8)
    clean = (x-1e3)
    for f in functions: assert dds(clean, y, f) == pytest.approx(naive_dds(clean, y, f), abs=1e-8)
    r = np.random.default_rng(1)
    x,y = data('random', 40, 8)
    for f in functions: assert dds(x*10.**r.uniform(-6, 6, 8), y, f) == pytest.approx(dds(x, y, f), abs=1e-8)
    for f in functions: assert dds(x+1e3, y, f) == pytest.approx(dds(x, y, f), abs=1e-8)

def test_dds_is_cka():
    x,y = data('random', 40, 8)
    ref = data('random', 40, 5, seed=3)[0]
    for l in (y, ref):
        for b in (False,True):
            assert dds(x, l, 'linear', zscore=False, debiased=b) == pytest.approx(cka(x, l, debiased=b), abs=1e-12)
            assert dds(x, l, 'rbf', zscore=False, sigma=.7, debiased=b) == pytest.approx(cka(x, l, 'rbf', .7, b), abs=1e-12)

def test_distances_far_from_the_origin():
    r = np.random.default_rng(0)
    x = np.r_[r.normal(size=(30,5)), r.normal(size=(10,5))+1e8]     # inner products lose all of the small distances
    x[3] = x[7]
    d = _sq_distances(torch.tensor(x)).sqrt().numpy()
    want = squareform(pdist(x))
    np.testing.assert_allclose(d/d.max(), want/want.max(), rtol=1e-6, atol=0)
    assert d[3,7]==0
    y = np.arange(40)%3
    assert cka(x, y, 'rbf') == pytest.approx(naive_cka(x, y, 'rbf'), abs=1e-7)

@pytest.mark.parametrize('f', functions)
def test_dds_with_itself(f):
    x = data('random', 40, 8)[0]
    assert dds(x, x, f) == pytest.approx(1, abs=1e-9)

def test_more_images_than_a_block():
    x,y = data('random', 1300, 450, c=7)
    assert cka(x, y) == pytest.approx(naive_cka(x, y), abs=1e-9)
    assert cka(x, y, 'rbf', debiased=True) == pytest.approx(naive_cka(x, y, 'rbf', debiased=True), abs=1e-9)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float64(dtype):
    x,y = data('random', 50, 300)
    x = torch.tensor(x).to(dtype)
    for m,kw in calls: assert m(x, torch.tensor(y), **kw) == pytest.approx(m(x.double().numpy(), y, **kw), abs=1e-12)
    assert cka(x, torch.tensor(y)) == pytest.approx(naive_cka(x.double().numpy(), y), abs=1e-9)

calls = [(cka, kw) for kw in ({}, dict(debiased=True), dict(kernel='rbf'), dict(kernel='rbf', debiased=True))]
calls += [(dds, dict(f=f)) for f in functions] + [(dds, dict(debiased=True))]

def test_kinds_of_labels():
    x,y = data('random', 30, 5)
    for m,kw in calls:
        want = m(x, y, **kw)
        for l in (y.tolist(), torch.tensor(y), y.astype(np.uint8), np.array(list('abcd'))[y], y*10-7):
            assert m(x, l, **kw) == pytest.approx(want, abs=1e-12)
        for l in (onehot(y), torch.tensor(onehot(y)).bool(), onehot(y).tolist()): assert m(x, l, **kw) == pytest.approx(want, abs=1e-9)
        assert m((x>0).tolist(), y, **kw) == pytest.approx(m((x>0).astype(float), y, **kw), abs=1e-12)

small = st.integers(0, 10**6)
@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(8,30), d=st.integers(3,40))
def test_renumbering_and_order(seed, n, d):
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, c=3, seed=seed)
    order,cols,new = r.permutation(n),r.permutation(d),r.permutation(50)[:3]
    for m,kw in calls:
        want = m(x, y, **kw)
        assert m(x, new[y], **kw) == pytest.approx(want, rel=1e-9, abs=1e-10)
        assert m(x, np.array(['owl','wren','kite'])[y], **kw) == pytest.approx(want, rel=1e-9, abs=1e-10)
        assert m(x[order], y[order], **kw) == pytest.approx(want, rel=1e-8, abs=1e-9)
        assert m(x[:,cols], y, **kw) == pytest.approx(want, rel=1e-8, abs=1e-9)
        lo = -1 if kw.get('debiased') else 0
        assert lo-1e-9 <= want <= 1+1e-9

@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(8,30), d=st.integers(2,40), scale=st.floats(1e-3,1e3), shift=st.floats(-10,10))
def test_rotation_scale_shift(seed, n, d, scale, shift):
    x,y = data('random', n, d, c=3, seed=seed)
    r = np.random.default_rng(seed)
    q = np.linalg.qr(r.normal(size=(d,d)))[0]
    for kw in ({}, dict(debiased=True), dict(kernel='rbf'), dict(kernel='rbf', sigma=.4, debiased=True)):
        assert cka((x@q+shift)*scale, y, **kw) == pytest.approx(cka(x, y, **kw), abs=1e-7)
    each = x*r.uniform(.1, 9, d) + r.normal(size=d)
    for f in functions: assert dds(each, y, f) == pytest.approx(dds(x, y, f), abs=1e-8)       # scale and shift of each feature

@pytest.mark.parametrize('m,kw', calls)
def test_inputs_stay_as_they_were(m, kw):
    x,y = data('random', 30, 8)
    for f in (lambda o: o, torch.tensor):
        a,b,c = f(x.copy()),f(y.copy()),f(onehot(y))
        m(a, b, **kw)
        m(a, c, **kw)
        np.testing.assert_array_equal(a, x)
        np.testing.assert_array_equal(b, y)
        np.testing.assert_array_equal(c, onehot(y))
    x.setflags(write=False)
    y.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert isinstance(m(x, y, **kw), float)
        assert isinstance(m(torch.tensor(x.copy(), requires_grad=True), y, **kw), float)

def test_huge_and_tiny_numbers():
    x,y = data('random', 30, 5)
    for s in (1e-30, 1e30):
        for m,kw in calls: assert m(x*s, y, **kw) == pytest.approx(m(x, y, **kw), abs=1e-9)

X,Y = data('random', 20, 5)
def spoil(v):
    x = X.copy()
    x[7,2] = v
    return x
@pytest.mark.parametrize('x,y,words', [
    (X, Y[:-1], ['features','20','19']), (X[:2], Y[:2], ['at least 3']), (spoil(np.nan), Y, ['features','NaN','row 7']),
    (np.ones_like(X), Y, ['features','constant']), (X, np.zeros(20, int), ['labels','one class']), (Y, X, ['swapped']),
    (X, Y.astype(float), ['labels','integer class indices']), (X, np.ones((20,3)), ['labels','constant']),
])
def test_bad_input(x, y, words):
    for m,kw in calls:
        if kw.get('debiased') and len(x)==2: continue
        with pytest.raises(ValueError) as e: m(x, y, **kw)
        for w in words: assert w in str(e.value)

def test_undefined():
    for kw in ({}, dict(kernel='rbf')):
        with pytest.raises(ValueError, match='labels.*class of its own'): cka(X, np.arange(20), debiased=True, **kw)
        with pytest.raises(ValueError, match='features.*class of its own'): cka(np.eye(20), Y, debiased=True, **kw)
        with pytest.raises(ValueError, match='at least 4'): cka(X[:3], [0,0,1], debiased=True, **kw)
    with pytest.raises(ValueError, match="`kernel` must be"): cka(X, Y, 'poly')
    for s in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='sigma'): cka(X, Y, 'rbf', sigma=s)
        with pytest.raises(ValueError, match='sigma'): dds(X, Y, 'rbf', sigma=s)
    with pytest.raises(ValueError, match="`f` must be"): dds(X, Y, 'manhattan')
    with pytest.raises(ValueError, match='one column'): dds(X[:,:1], Y, 'pearson')
    zero = np.where(np.arange(20)[:,None]==4, 0., X)
    for f in ('cosine','pearson'):
        with pytest.raises(ValueError, match='features.*row 4'): dds(zero, Y, f, zscore=False)
    with pytest.raises(ValueError, match='features.*equally alike'): dds(X[:,:1]*[[1,2]]*np.sign(X[:,:1]), Y, zscore=False)

def test_register():
    assert metrics['cka'] is cka and cka.range==(0.,1.) and cka.multi_label and cka.rotation
    assert metrics['dds'] is dds and dds.multi_label and not dds.rotation
