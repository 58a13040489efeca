"All estimators of the register on the same grounds, `Ranking`, and `rank_sources` on made-up sources. What is particular to one estimator is in test_est_*.py."
import numpy as np, pytest, torch, warnings
from hypothesis import given, settings, strategies as st
from distill_nb.similarity import *

pytestmark = pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
def onehot(y): return np.eye(int(max(y))+1)[y]

def data(n, d, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, r.integers(0, c, n-c)]
    return r.normal(size=(n,d)) + 2*r.normal(size=(c,d))[y],y

def softmax(x): e = np.exp(x-x.max(1, keepdims=True)); return e/e.sum(1, keepdims=True)
def given_to(f, x): return softmax(np.asarray(x, dtype=float)) if f.needs=='probs' else x
quick = [k for k in metrics if metrics[k].times>5]
every = pytest.mark.parametrize('name', list(metrics))

@every
def test_register_says_what_is_true(name):
    f = metrics[name]
    x,y = data(60, 8)
    v = f(given_to(f, x), y)
    assert isinstance(v, float) and np.isfinite(v)
    assert (f.range[0] is None or v>=f.range[0]-1e-9) and (f.range[1] is None or v<=f.range[1]+1e-9)
    assert f.caution and f.times>=1
    assert f.__doc__ and any(str(k) in f.__doc__ for k in range(1990, 2027)), 'names no paper'
    if f.multi_label: assert np.isfinite(f(given_to(f, x), np.c_[onehot(y), y%2]))
    else:
        with pytest.raises(ValueError, match='one class an image'): f(given_to(f, x), onehot(y))

@every
def test_noise_scores_less(name):
    f,(x,y) = metrics[name],data(80, 8)
    noise = np.random.default_rng(1).normal(size=x.shape)
    assert f(given_to(f, x), y) > f(given_to(f, noise), y)

@every
def test_renumbering_classes(name):
    f,(x,y) = metrics[name],data(50, 6)
    want = f(given_to(f, x), y)
    for l in (y.tolist(), torch.tensor(y), y.astype(np.uint8), np.array(list('dbca'))[y], 3-y, y*10-7): assert f(given_to(f, x), l) == pytest.approx(want, rel=1e-8, abs=1e-10)

@pytest.mark.parametrize('name', quick)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0,10**6))
def test_order_of_images_and_features(name, seed):
    f,(x,y) = metrics[name],data(40, 6, seed=seed)
    r = np.random.default_rng(seed)
    order,cols = r.permutation(40),r.permutation(6)
    want = f(given_to(f, x), y)
    if name!='nleep':              # whose mixture starts from a random draw of images
        assert f(given_to(f, x[order]), y[order]) == pytest.approx(want, rel=1e-7, abs=1e-9)
        assert f(given_to(f, x[:,cols]), y) == pytest.approx(want, rel=1e-7, abs=1e-9)
    if f.rotation:
        q = np.linalg.qr(r.normal(size=(6,6)))[0]
        assert f(x@q, y) == pytest.approx(want, rel=1e-6, abs=1e-8)

@every
def test_inputs_stay_as_they_were(name):
    f,(x,y) = metrics[name],data(40, 8)
    x = given_to(f, x)
    for g in (lambda o: o, torch.tensor):
        a,b = g(x.copy()),g(y.copy())
        f(a, b)
        np.testing.assert_array_equal(a, x); np.testing.assert_array_equal(b, y)
    x.setflags(write=False); y.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.simplefilter('ignore', SmallProbeWarning)
        f(x, y)

@every
def test_no_graph(name):
    f,(x,y) = metrics[name],data(30, 5)
    assert isinstance(f(torch.tensor(given_to(f, x), requires_grad=True), y), float)

@every
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_computes_in_float64(name, dtype):
    f,(x,y) = metrics[name],data(40, 12)
    x = torch.tensor(given_to(f, x)).to(dtype)
    assert f(x, y) == pytest.approx(f(x.double().numpy(), y), rel=1e-9, abs=1e-12)

X,Y = data(20, 5)
def spoil(v): x = X.copy(); x[7,2] = v; return x
@pytest.mark.parametrize('x,y,words', [
    (X, Y[:-1], ['features','20','19']),
    (X[:2], Y[:2], ['at least']),
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
        if m.needs=='probs': continue
        with pytest.raises(ValueError) as e: m(x, y)
        if not m.multi_label and 'is defined for one class' in str(e.value): continue
        for w in words: assert w in str(e.value)

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
    assert r.scores[1] == pytest.approx(cka(good.astype(np.float32), y), abs=1e-6)
    small = rank_sources(dls, zoo, n=20, seed=3, store=False, progress=False)
    p = probe_set(y, 20, 3)
    assert small.n_probe==20 and small.scores[1] == pytest.approx(cka(good[p].astype(np.float32), y[p]), abs=1e-6)
    np.testing.assert_array_equal(small.scores, rank_sources(dls, zoo, n=20, seed=3, store=False, progress=False).scores)
    deb = rank_sources(dls, zoo, 'cka', debiased=True, store=False, progress=False)
    assert deb.metric=='cka(debiased=True)' and deb.scores[1] == pytest.approx(cka(good, y, debiased=True), abs=1e-5)
    top = r.top(1)
    assert top.names==['good'] and top.best is zoo['good'] and top.zoo.names==['good']
    assert r.to_frame().source.tolist()==['good','noise'] and r.to_frame(x=[1,2]).x.tolist()==[2,1]
    assert 'good' in r._repr_html_() and 'cka' in repr(r)

def test_rank_sources_names_the_source():
    dls,zoo,good,y,Source,imgs = world()
    flat = Source.from_arrays('flat', imgs, np.ones((60,4)))
    with pytest.raises(ValueError, match="'flat' cannot be scored by cka: features are constant"): rank_sources(dls, zoo+[flat], store=False)
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
