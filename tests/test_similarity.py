"Metrics against formulas written independently with NumPy and SciPy, their invariances, bad input, and `rank_sources` on made-up sources."
import numpy as np, pytest, torch, warnings
from hypothesis import given, settings, strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from distill_nb.similarity import *
from distill_nb.similarity import _ranks

def onehot(y): return np.eye(int(max(y))+1)[y]
def rdm(x): return (1-np.corrcoef(x)).round(12)[np.triu_indices(len(x), 1)]
def scipy_rsa(x, y): return spearmanr(rdm(x), rdm(onehot(y) if np.ndim(y)==1 else y))[0]
def scipy_parc(x, y, n_dims=None):
    x = np.asarray(x, dtype=np.float64)
    if n_dims: x = PCA(n_dims, svd_solver='full').fit_transform(x)
    return scipy_rsa(StandardScaler().fit_transform(x), y)

def naive_cka(x, y):
    y = onehot(y) if np.ndim(y)==1 else np.asarray(y, dtype=float)
    x,n = np.asarray(x, dtype=np.float64),len(x)
    h = np.eye(n)-1/n
    k,l = h@x@x.T@h,h@y@y.T@h
    return (k*l).sum()/np.sqrt((k*k).sum()*(l*l).sum())

def naive_hsic(k, l):
    "Unbiased HSIC, Song et al. 2012, entry by entry"
    n = len(k)
    k,l = [[[0. if i==j else float(m[i,j]) for j in range(n)] for i in range(n)] for m in (k,l)]
    r = range(n)
    tr = sum(k[i][j]*l[j][i] for i in r for j in r)
    kl = sum(k[i][j]*l[j][q] for i in r for j in r for q in r)
    return (tr + sum(map(sum,k))*sum(map(sum,l))/((n-1)*(n-2)) - 2/(n-2)*kl)/(n*(n-3))

def naive_debiased(x, y):
    y = onehot(y) if np.ndim(y)==1 else y
    k,l = x@x.T,y@y.T
    return naive_hsic(k,l)/np.sqrt(naive_hsic(k,k)*naive_hsic(l,l))

def data(kind, n, d, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, r.integers(0, c, n-c)]
    x = r.normal(size=(n,d)) + r.normal(size=(c,d))[y]
    if kind=='tied': x = x.round()                              # many equal entries
    if kind=='twins': x[n//2:] = x[:n-n//2]                     # duplicated images
    if kind=='onehot': x = np.eye(d)[r.integers(0, d, n)]       # pairs take two values only
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d) + 1e3
    if kind=='dead': x[:,::3] = 5
    return x,y

kinds = ['random','tied','twins','onehot','scaled','dead']
shapes = [(40,8),(30,64),(25,25),(12,2)]

@pytest.mark.parametrize('n,d', shapes)
@pytest.mark.parametrize('kind', kinds)
def test_parc(kind, n, d):
    x,y = data(kind, n, d)
    assert parc(x, y) == pytest.approx(scipy_parc(x, y), abs=1e-9)

@pytest.mark.parametrize('n,d', shapes[:-1])
@pytest.mark.parametrize('kind', ['random','tied','twins','scaled'])
def test_rsa(kind, n, d):
    x,y = data(kind, n, d)
    assert rsa(x, y) == pytest.approx(scipy_rsa(x, y), abs=1e-9)
    ref = data('random', n, 7, seed=1)[0]
    assert rsa(x, ref) == pytest.approx(scipy_rsa(x, ref), abs=1e-9)

@pytest.mark.parametrize('n,d', shapes+[(30,1)])
@pytest.mark.parametrize('kind', ['random','tied','twins','scaled'])
def test_cka(kind, n, d):
    x,y = data(kind, n, d)
    if kind=='scaled': x = x-x.mean(0)       # the naive forms lose what the shift drowns
    assert cka(x, y) == pytest.approx(naive_cka(x, y), abs=1e-8)
    assert cka(x, y, debiased=True) == pytest.approx(naive_debiased(x, y), abs=1e-8)

def test_cka_wide_reference():
    x,y = data('random', 20, 50)[0],data('random', 20, 33, seed=1)[0]
    assert cka(x, y) == pytest.approx(naive_cka(x, y), abs=1e-10)
    assert cka(x, y, debiased=True) == pytest.approx(naive_debiased(x, y), abs=1e-10)

def test_debiased_shift():
    x,y = data('random', 30, 5)
    assert cka(x+1e4, y, debiased=True) == pytest.approx(cka(x, y, debiased=True), abs=1e-8)

@pytest.mark.parametrize('n,d,k', [(60,20,5),(30,64,8),(30,64,29)])
def test_parc_pca(n, d, k):
    x,y = data('random', n, d)
    assert parc(x, y, n_dims=k) == pytest.approx(scipy_parc(x, y, k), abs=1e-9)

def test_pca_never_beyond_the_rank():
    x,y = data('random', 40, 6)
    wide = x @ np.random.default_rng(3).normal(size=(6,50))      # 50 columns that span 6
    assert parc(wide, y, n_dims=30) == pytest.approx(scipy_parc(wide, y, 6), abs=1e-7)
    with pytest.raises(ValueError, match='n_dims'): parc(x, y, n_dims=1)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float64(dtype):
    x,y = data('random', 50, 300)
    x = torch.tensor(x).to(dtype)
    assert parc(x, y) == pytest.approx(scipy_parc(x.double().numpy(), y), abs=1e-9)
    assert cka(x, torch.tensor(y)) == pytest.approx(naive_cka(x.double().numpy(), y), abs=1e-9)

def test_multi_label():
    r = np.random.default_rng(0)
    x,y = r.normal(size=(40,10)),r.random((40,6))<.4
    y[:,0],y[:,1] = True,False                     # no row all true or all false
    assert parc(x, y) == pytest.approx(scipy_parc(x, y.astype(float)), abs=1e-9)
    assert cka(x, y) == pytest.approx(naive_cka(x, y), abs=1e-9)
    y[3] = False
    with pytest.raises(ValueError, match=r'labels .*row 3.*leave these images out'): parc(x, y)
    assert 0 <= cka(x, y) <= 1

def test_kinds_of_labels():
    x,y = data('random', 30, 5)
    want = [m(x, y) for m in metrics.values()]
    for l in (y.tolist(), torch.tensor(y), y.astype(np.uint8), np.array(list('abcd'))[y], onehot(y), y*10-7, torch.tensor(onehot(y)).bool()):
        assert [m(x, l) for m in metrics.values()] == pytest.approx(want, abs=1e-12)

def test_ranks():
    r = np.random.default_rng(0)
    for x in (r.normal(size=99), r.integers(0, 5, 99).astype(float), np.zeros(4)): np.testing.assert_array_equal(_ranks(torch.tensor(x)), rankdata(x))

small = st.integers(0, 10**6)
@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(8,30), d=st.integers(3,40))
def test_renumbering_classes(seed, n, d):
    x,y = data('random', n, d, c=3, seed=seed)
    new = np.random.default_rng(seed).permutation(50)[:3][y]
    for m in metrics.values(): assert m(x, new) == pytest.approx(m(x, y), abs=1e-12)
    assert cka(x, new, debiased=True) == pytest.approx(cka(x, y, debiased=True), abs=1e-9)

@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(8,30), d=st.integers(2,20), scale=st.floats(1e-3,1e3), shift=st.floats(-10,10))
def test_cka_ignores_rotation_scale_shift(seed, n, d, scale, shift):
    x,y = data('random', n, d, c=3, seed=seed)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(d,d)))[0]
    for b in (False,True): assert cka((x@q+shift)*scale, y, debiased=b) == pytest.approx(cka(x, y, debiased=b), abs=1e-7)

@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(8,30), d=st.integers(3,20))
def test_what_else_does_not_matter(seed, n, d):
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, c=3, seed=seed)
    order,cols = r.permutation(n),r.permutation(d)
    for m in metrics.values():
        assert m(x[order], y[order]) == pytest.approx(m(x, y), abs=1e-9)                # order of images
        assert m(x[:,cols], y) == pytest.approx(m(x, y), abs=1e-9)                      # order of features
    assert parc(x*r.uniform(.1,9,d)+r.normal(size=d), y) == pytest.approx(parc(x, y), abs=1e-9)          # PARC: scale and shift of a feature
    assert rsa(x*r.uniform(.1,9,(n,1))+r.normal(size=(n,1)), y) == pytest.approx(rsa(x, y), abs=1e-9)    # RSA: scale and shift of an image
    for m in metrics.values(): assert m.range[0]-1e-9 <= m(x, y) <= m.range[1]+1e-9

@pytest.mark.parametrize('metric', [parc, rsa, cka, lambda x,y: cka(x, y, debiased=True), lambda x,y: parc(x, y, n_dims=4)])
def test_inputs_stay_as_they_were(metric):
    x,y = data('scaled', 30, 8)
    for f in (lambda o: o, torch.tensor):
        a,b,c = f(x.copy()),f(y.copy()),f(onehot(y))
        metric(a, b); metric(a, c)
        np.testing.assert_array_equal(a, x); np.testing.assert_array_equal(b, y); np.testing.assert_array_equal(c, onehot(y))
    x.setflags(write=False); y.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        metric(x, y)

def test_no_graph():
    x,y = data('random', 20, 5)
    assert isinstance(parc(torch.tensor(x, requires_grad=True), y), float)

X,Y = data('random', 20, 5)
def spoil(v): x = X.copy(); x[7,2] = v; return x
@pytest.mark.parametrize('x,y,words', [
    (X, Y[:-1], ['features','20','19']),
    (X[:2], Y[:2], ['at least 3']),
    (spoil(np.nan), Y, ['features','NaN','row 7']),
    (spoil(np.inf), Y, ['features','infinity','row 7']),
    (np.ones_like(X), Y, ['features','constant']),
    (X, np.zeros(20, int), ['labels','one class']),
    (Y, X, ['swapped']),
    (np.array(list('abcd'))[Y], X, ['swapped']),
    (X[:,:,None], Y, ['features','flatten']),
    (X, Y.astype(float), ['labels','integer class indices']),
    (X, onehot(Y)[None], ['labels']),
    (X, np.ones((20,3)), ['labels','constant']),
    (X, np.where(X>1, np.nan, X), ['labels','NaN']),
])
def test_bad_input(x, y, words):
    for m in metrics.values():
        with pytest.raises(ValueError) as e: m(x, y)
        for w in words: assert w in str(e.value)

def test_undefined():
    with pytest.raises(ValueError, match='one column'): parc(X[:,:1], Y)
    with pytest.raises(ValueError, match='no two images share a class'): parc(X, np.arange(20))
    with pytest.raises(ValueError, match='features.*equally alike'): parc(np.eye(20), Y)
    with pytest.raises(ValueError, match='class of its own'): cka(X, np.arange(20), debiased=True)
    with pytest.raises(ValueError, match='row 4'): rsa(np.where(np.arange(20)[:,None]==4, 3., X), Y)

def test_huge_and_tiny_numbers():
    for s in (1e-30, 1e30):
        for m in metrics.values(): assert m(X*s, Y) == pytest.approx(m(X, Y), abs=1e-9)

@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(1,40), min_size=2, max_size=12), n=st.integers(3,200), seed=st.integers(0,99))
def test_probe_set(counts, n, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    p = probe_set(y, n, seed)
    assert len(p) == min(n, len(y)) == len(set(p.tolist())) and (np.diff(p)>0).all()
    np.testing.assert_array_equal(p, probe_set(y, n, seed))
    if 2*len(counts) <= n < len(y):
        got = np.bincount(y[p], minlength=len(counts))
        assert got.min()>=1
        exact = 1 + (np.array(counts)-1)*(n-len(counts))/(len(y)-len(counts))
        assert (abs(got-exact)<1+1e-6).all()

def test_register():
    @register_metric(needs='probs', range=(None,0))
    def mine(probs, labels, sign=1): return sign*float(probs.mean())
    try: assert metrics['mine'] is mine and mine.needs=='probs' and mine.range==(None,0)
    finally: metrics.pop('mine')
    with pytest.raises(ValueError, match='needs'): register_metric(needs='images')(lambda a,b: 0)

# rank_sources, on sources that are arrays

def world(n=60, d=6):
    from distill_nb.data import image_dls
    from distill_nb.sources import Source, Zoo
    r = np.random.default_rng(0)
    imgs,y = list(r.integers(0, 255, (n,8,8), dtype=np.uint8)),np.arange(n)%3
    good = np.eye(3)[y]@r.normal(size=(3,d)) + r.normal(size=(n,d))*.3
    zoo = Zoo([Source.from_arrays('noise', imgs, r.normal(size=(n,d))), Source.from_arrays('good', imgs, good, probs=np.full((n,4), .25))])
    return image_dls(imgs, y, imgs[:6], y[:6], bs=16),zoo,good,y,Source,imgs

def test_rank_sources():
    dls,zoo,good,y,Source,imgs = world()
    r = rank_sources(dls, zoo, store=False, progress=False)
    assert r.names==['noise','good'] and r.best is zoo['good'] and r.n_probe==60 and [s.name for s in r]==['good','noise'] and len(r)==2
    assert r.scores[1] == pytest.approx(scipy_parc(good.astype(np.float32), y), abs=1e-6)
    small = rank_sources(dls, zoo, n=20, seed=3, store=False, progress=False)
    p = probe_set(y, 20, 3)
    assert small.n_probe==20 and small.scores[1] == pytest.approx(scipy_parc(good[p].astype(np.float32), y[p]), abs=1e-6)
    np.testing.assert_array_equal(small.scores, rank_sources(dls, zoo, n=20, seed=3, store=False, progress=False).scores)
    deb = rank_sources(dls, zoo, 'cka', debiased=True, store=False, progress=False)
    assert deb.metric=='cka(debiased=True)' and deb.scores[1] == pytest.approx(naive_debiased(good, y), abs=1e-5)
    top = r.top(1)
    assert top.names==['good'] and top.best is zoo['good'] and top.zoo.names==['good']
    assert r.to_frame().source.tolist()==['good','noise'] and r.to_frame(x=[1,2]).x.tolist()==[2,1]
    assert 'good' in r._repr_html_() and 'parc' in repr(r)

def test_rank_sources_names_the_source():
    dls,zoo,good,y,Source,imgs = world()
    flat = Source.from_arrays('flat', imgs, np.ones((60,4)))
    with pytest.raises(ValueError, match="'flat' cannot be scored by parc: features are constant"): rank_sources(dls, zoo+[flat], store=False)
    with pytest.raises(ValueError, match="'noise'.*returned nan"): rank_sources(dls, zoo, lambda x,y: float('nan'), store=False)
    with pytest.raises(ValueError, match='did you mean cka'): rank_sources(dls, zoo, 'ckaa', store=False)
    with pytest.raises(ValueError, match='empty'): rank_sources(dls, [], store=False)
    @register_metric(needs='probs')
    def width(probs, labels): return probs.shape[1]
    try:
        assert rank_sources(dls, zoo[1:], 'width', store=False).scores.tolist()==[4]
        with pytest.raises(ValueError, match="'noise' has no classifier"): rank_sources(dls, zoo, 'width', store=False)
    finally: metrics.pop('width')

def test_ranking_survives_pickle():
    import pickle
    r = pickle.loads(pickle.dumps(Ranking(['a','b'], [.1,.2], n_probe=9)))
    assert r.best=='b' and r.n_probe==9 and r.names==['a','b']
