"Checks of inputs, ranks, moments, and the register of estimators."
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from distill_nb.estimators.core import *

eye = np.eye(3)

@pytest.mark.parametrize('features,labels,words', [
    ([1,2,3], eye, 'swapped'), (eye, [0,1], '3 rows and labels 2'), (eye, [1,1,1], 'one class only'),
    (eye, [0,1,2.], 'integer class indices'), ([[1,np.nan],[0,1],[1,1]], [0,1,0], 'row 0'), (np.ones((3,2)), [0,1,0], 'constant'),
    (eye[None], [0,1,0], 'pool or flatten'), (eye*1e60, [0,1,0], 'overflow or underflow'), (eye, [0,None,'a'], 'lack a class in 1 of 3'),
    (eye, ['a',1,2.], 'one class per image|text'), (eye[:2], [0,1], 'at least 3'), (eye, np.zeros((3,1,1)), 'class indices')])
def test_inputs_refused(features, labels, words):
    labels = np.array(labels, dtype=object) if isinstance(labels, list) and {type(o) for o in labels}&{str,type(None)} else labels
    with pytest.raises(ValueError, match=words): check_inputs(features, labels)

def test_a_matrix_of_labels():
    x,y = check_inputs(eye, eye)
    assert x.dtype==y.dtype==torch.float64
    with pytest.raises(ValueError, match='nce is defined for one class per image'): check_inputs(eye, eye, classes_for='nce')

@pytest.mark.parametrize('labels', [['owl','wren','owl'], [3,7,3], torch.tensor([-1,0,-1])])
def test_class_codes(labels): assert check_inputs(eye, labels)[1].tolist()==[0,1,0]

def test_probabilities():
    p,y = check_probs(eye*.999, [0,1,0], 'nce')
    assert p.sum(1).tolist()==[1,1,1]
    with pytest.raises(ValueError, match='softmax of logits'): check_probs(eye-1, [0,1,0], 'nce')
    with pytest.raises(ValueError, match='probs must be numbers'): check_probs(eye.astype(str), [0,1,0], 'nce')

def test_inputs_are_not_copied_or_changed():
    x = torch.tensor(np.random.default_rng(0).normal(size=(9,2)))
    assert check_matrix(x, 'features') is x or check_matrix(x, 'features').data_ptr()==x.data_ptr()
    x = np.random.default_rng(0).normal(size=(9,2))
    check_matrix(x, 'features').zero_()
    assert x.any()

@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0,10**6), n=st.integers(3,60), ties=st.booleans())
def test_spearman(seed, n, ties):
    "Pearson's correlation of average ranks"
    r = np.random.default_rng(seed)
    x,y = r.normal(size=(2,n))
    if ties: y = (y>np.median(y)).astype(float)
    want = np.corrcoef(rankdata(x), rankdata(y))[0,1]
    assert spearman(x, y) == pytest.approx(want, abs=1e-12)
    assert spearman(torch.tensor(x), list(y)) == pytest.approx(want, abs=1e-12)

def test_spearman_refuses():
    for x,y,words in [([1,2,3.], [7,7,7.], 'y is constant'), ([1,2], [1,2,3], 'pairs'), ([1,np.nan], [1,2], 'x must be a list')]:
        with pytest.raises(ValueError, match=words): spearman(x, y)
    assert spearman(torch.tensor([1,2,4.], dtype=torch.bfloat16), [1,2,3])==1

@pytest.mark.parametrize('n,d', [(50,3),(20,300),(30,600)])
def test_moments(n, d):
    x = np.random.default_rng(0).normal(size=(n,d))*np.logspace(-3, 3, d) + 5
    x[:,1] = 7
    z = standardise(torch.tensor(x))
    np.testing.assert_allclose(z, StandardScaler().fit_transform(x), atol=1e-9)
    y = np.arange(n)%3
    sums,counts = class_sums(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(sums, [x[y==c].sum(0) for c in range(3)])
    assert counts.tolist()==np.bincount(y).tolist()

def test_principal_components():
    x = np.random.default_rng(0).normal(size=(50,3))*[10,1,.1]
    pca = PCA(svd_solver='full').fit_transform(x)
    np.testing.assert_allclose(principal_components(torch.tensor(x)), pca, atol=1e-9)
    wide = torch.tensor(x)@torch.randn(3, 9, dtype=torch.float64)
    assert principal_components(wide).shape==(50,3) and principal_components(wide, n_dims=2).shape==(50,2)
    assert principal_components(torch.tensor(x), energy=.9).shape==(50,1)

def test_register():
    try:
        @register_metric(name='ten', range=(None,10.), caution='a toy')
        def constant(features, labels): return 10.
        assert metrics['ten'] is constant and constant.times==100
        assert list_metrics().loc['ten'].tolist()==['features','-∞ to 10',False,'a toy']
    finally: del metrics['ten']
    with pytest.raises(ValueError, match="'features' or 'probs'"): register_metric(len, needs='pixels')

def test_small_probe_sets_warn():
    def estimator(x): warn_small(x, 'estimator', 'another')
    with pytest.warns(SmallProbeWarning, match='estimator of 3 images with 3 features.*use another'): estimator(eye)

def test_digit_sources():
    a,b = digit_sources(max_iter=2),digit_sources(max_iter=2)
    assert list(a.sees)==list(a.says)==['reads digits','odd or even','amount of ink','leans left or right']
    assert len(set(a.probe)|set(a.rest))==597 and (a.labels==a.digit[a.probe]).all()
    for k in a.sees:
        assert a.sees[k].shape==(200,32) and a.hidden[k].shape==(1797,32)
        np.testing.assert_array_equal(a.sees[k], b.hidden[k][b.probe])
