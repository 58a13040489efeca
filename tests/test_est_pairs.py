"PARC and RSA against SciPy's dense formulas: ties, blocks, invariances, memory."
import subprocess, sys
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from distill_nb.estimators.pairs import dissimilarity, parc, rsa, _spearman_classes, _unit_rows

def onehot(y): return np.eye(int(max(y))+1)[y]
def rdm(x): return (1-np.corrcoef(x)).round(11)[np.triu_indices(len(x), 1)]
def scipy_rsa(x, y): return spearmanr(rdm(x), rdm(onehot(y) if np.ndim(y)==1 else y))[0]
def scipy_parc(x, y, n_dims=None):
    x = np.asarray(x, dtype=np.float64)
    if n_dims: x = PCA(n_dims, svd_solver='full').fit_transform(x)
    return scipy_rsa(StandardScaler().fit_transform(x), y)

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

@pytest.mark.parametrize('n,d,k', [(60,20,5),(30,64,8),(30,64,29)])
def test_parc_pca(n, d, k):
    x,y = data('random', n, d)
    assert parc(x, y, n_dims=k) == pytest.approx(scipy_parc(x, y, k), abs=1e-9)

def test_pca_never_beyond_the_rank():
    x,y = data('random', 40, 6)
    wide = x @ np.random.default_rng(3).normal(size=(6,50))      # 50 columns that span 6
    assert parc(wide, y, n_dims=30) == pytest.approx(scipy_parc(wide, y, 6), abs=1e-7)
    with pytest.raises(ValueError, match='n_dims'): parc(x, y, n_dims=1)

@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0,10**6), n=st.integers(4,60), d=st.integers(2,12), c=st.integers(2,4), room=st.integers(1,400),
    kind=st.sampled_from(kinds))
def test_in_pieces(seed, n, d, c, room, kind):
    "Whatever the number of pieces, the dense formula's value, ties included"
    x,y = data(kind, n, max(d, 4), min(c, n-1), seed)
    x = torch.tensor(StandardScaler().fit_transform(x))
    try: want = scipy_rsa(x.numpy(), y)
    except ValueError: return
    try: z = _unit_rows(x.clone(), 'x')
    except ValueError: return
    if not np.isfinite(want):
        with pytest.raises(ValueError): _spearman_classes(z, torch.tensor(y), room)
    else: assert _spearman_classes(z, torch.tensor(y), room) == pytest.approx(want, abs=1e-9)

def test_all_tied_but_few():
    "A value that fills many ranges is counted, not held"
    y = np.arange(300)%3
    x = np.eye(5)[np.arange(300)%5]
    x[:7] += np.random.default_rng(0).normal(size=(7,5))
    z = _unit_rows(torch.tensor(x), 'x')
    for room in (10, 1000, 10**6):
        assert _spearman_classes(z, torch.tensor(y), room) == pytest.approx(scipy_rsa(x, y), abs=1e-10)

def test_multi_label():
    r = np.random.default_rng(0)
    x,y = r.normal(size=(40,10)),r.random((40,6))<.4
    y[:,0],y[:,1] = True,False                     # no row all true or all false
    assert parc(x, y) == pytest.approx(scipy_parc(x, y.astype(float)), abs=1e-9)
    y[3] = False
    with pytest.raises(ValueError, match=r'labels .*row 3.*leave these images out'): parc(x, y)

@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0,10**6), n=st.integers(8,30), d=st.integers(3,20))
def test_scale_and_shift(seed, n, d):
    "PARC ignores scale and shift of a feature, RSA those of an image"
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, c=3, seed=seed)
    assert parc(x*r.uniform(.1,9,d)+r.normal(size=d), y) == pytest.approx(parc(x, y), abs=1e-9)
    assert rsa(x*r.uniform(.1,9,(n,1))+r.normal(size=(n,1)), y) == pytest.approx(rsa(x, y), abs=1e-9)

def test_few_distinct_features_in_pieces():
    "Pairs take two values, all are tied"
    y = np.arange(200)%10
    few = torch.eye(4, dtype=torch.float64)[torch.arange(200)%4]
    got = _spearman_classes(_unit_rows(few.clone(), 'few'), torch.tensor(y), room=1000)
    assert got == pytest.approx(scipy_rsa(few.numpy(), y), abs=1e-12)

def test_noise_and_dead_features():
    r = np.random.default_rng(1)
    noise,y = r.normal(size=(200,32)),np.arange(200)%10
    assert abs(parc(noise, y))<0.05
    assert parc(np.pad(noise, ((0,0),(0,1))), y) == pytest.approx(parc(np.c_[noise, np.full(200, 7.)], y), abs=1e-12)

X,Y = data('random', 20, 5)
@pytest.mark.parametrize('x,y,words', [
    (Y, X, 'swapped'), (X, Y[:-1], '20 rows and labels 19'), (X, Y*0, 'one class only'),
    (X, Y.astype(float), 'integer class indices'), (np.where(X>2, np.nan, X), Y, 'NaN'), (X*0+1, Y, 'constant'),
    (X[:2], Y[:2], 'at least 3'), (X[:5], range(5), 'no two images share a class')])
def test_bad_input(x, y, words):
    for f in (parc,rsa):
        with pytest.raises(ValueError, match=words): f(x, y)

def test_one_class_has_no_dissimilarity():
    with pytest.raises(ValueError, match='one class only'): dissimilarity([3,3,3])

def test_undefined():
    x,y = data('random', 20, 5)
    with pytest.raises(ValueError, match='one column'): parc(x[:,:1], y)
    with pytest.raises(ValueError, match='no two images share a class'): parc(x, np.arange(20))
    with pytest.raises(ValueError, match='features.*equally alike'): parc(np.eye(20), y)
    with pytest.raises(ValueError, match='row 4'): rsa(np.where(np.arange(20)[:,None]==4, 3., x), y)

@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='peak memory is read from /proc')
def test_memory():
    "6,000 images have 18 million pairs; n by n would be 288 MB a matrix, and the usual way holds several"
    code = """
import numpy as np, torch
from distill_nb.estimators.pairs import parc
y = np.arange(6000)%7
x = torch.randn(6000, 64, generator=torch.manual_seed(0)) + torch.tensor(y)[:,None]*.05
parc(x[:99], y[:99])
peak = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1e3
before = peak(); parc(x, y); print(peak()-before)"""
    mb = float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
    assert mb < 800
