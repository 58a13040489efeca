"Weights against the formula in exact arithmetic, and what must hold for any scores"
import math, numpy as np, pandas as pd, pytest, warnings
from fractions import Fraction
from hypothesis import given, settings, assume, strategies as st
from distill_nb.weights import *

def exact(scores, p):
    e = [max(Fraction(s), Fraction(0)) for s in scores]
    tot = sum(o**p for o in e)
    return [float(o**p/tot) for o in e]

scores = st.lists(st.floats(-1,1).map(lambda x: round(x,3)), min_size=1, max_size=30)
positive = st.lists(st.floats(.01,1), min_size=1, max_size=30)

@settings(max_examples=100, deadline=None)
@given(e=scores, p=st.integers(0,60))
def test_formula(e, p):
    assume(max(e)>0)
    np.testing.assert_allclose(source_weights(e, p), exact(e, p) if p else [1/len(e)]*len(e), atol=1e-12)

@settings(max_examples=100, deadline=None)
@given(e=scores, p=st.floats(0,1e6), norm=st.sampled_from(['clip','minmax']), data=st.data())
def test_properties(e, p, norm, data):
    top = data.draw(st.none() | st.integers(1, len(e)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore' if max(e)<=0 else 'error')
        a = source_weights(e, p, norm, top)
        n = normalize_scores(e, norm)
    assert a.dtype==np.float64 and (a>=0).all() and np.isfinite(a).all() and a.sum()==pytest.approx(1)
    assert n.min()>=0 and n.max()==1
    assert (a>0).sum() <= (top or len(e))
    if max(e)>0 or norm=='minmax': assert a[np.argmax(e)]==a.max()
    assert 1-1e-9 <= effective_sources(a) <= (top or len(e))+1e-9
    pr = prune_weights(a)
    assert pr.sum()==pytest.approx(1) and ((pr>0)<=(a>0)).all() and (pr>0).any()

@settings(max_examples=50, deadline=None)
@given(e=positive, p=st.floats(0,50), q=st.floats(0,50))
def test_fewer_sources_as_p_grows(e, p, q):
    p,q = sorted((p,q))
    assert effective_sources(source_weights(e, q)) <= effective_sources(source_weights(e, p))+1e-9

@settings(max_examples=50, deadline=None)
@given(e=positive, p=st.floats(0,50), scale=st.floats(.01,100), more=positive)
def test_clip_ignores_scale_and_company(e, p, scale, more):
    a = source_weights(e, p)
    np.testing.assert_allclose(source_weights(np.array(e)*scale, p), a, rtol=1e-6, atol=1e-12)
    b = source_weights(e+more, p)[:len(e)]
    assume(b.sum()>1e-6)
    np.testing.assert_allclose(b/b.sum(), a, rtol=1e-6, atol=1e-9)

def test_ends():
    e = [.3,-.2,.3,.1]
    np.testing.assert_array_equal(source_weights(e, 0), [.25]*4)
    np.testing.assert_array_equal(source_weights(e, math.inf), [.5,0,.5,0])
    np.testing.assert_array_equal(source_weights(e, math.inf, top=1), [1,0,0,0])
    np.testing.assert_array_equal(source_weights(e, 0, top=3), [1/3,0,1/3,1/3])
    np.testing.assert_allclose(source_weights(e, 1e4), [.5,0,.5,0], atol=1e-12)
    assert source_weights([-5.], 12, 'minmax').tolist() == [1]

def test_normalize():
    assert normalize_scores([.3,.3], 'minmax').tolist() == [1,1]
    with pytest.warns(UserWarning, match='no source scores above 0'): assert normalize_scores([-.1,0]).tolist() == [1,1]
    with pytest.raises(ValueError, match='at least one'): normalize_scores([])
    with pytest.raises(ValueError, match="'clip' or 'minmax'"): normalize_scores([.1,.2], 'softmax')

def test_large_powers():
    e = [.42, .40, .25, .05, -.02]
    np.testing.assert_allclose(source_weights(e, 0), [.2]*5, atol=1e-12)
    assert source_weights([-.4,-.2], math.inf).tolist() == [0,1]
    np.testing.assert_allclose(source_weights(e, 1e6), [1,0,0,0,0], atol=1e-12)
    near = source_weights([.4,.4*(1-1e-9)], 1e9)[1]
    assert near == pytest.approx(math.exp(-1)/(1+math.exp(-1)), abs=1e-6)
    with pytest.raises(ValueError, match='from 1 to 5'): source_weights(e, top=6)

def test_none_positive():
    with pytest.warns(UserWarning, match='no source scores above 0'): assert source_weights([-.1,-.2,0]).tolist() == [1/3]*3
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for p in (0,math.inf): source_weights([-.1,-.2], p)

@pytest.mark.parametrize('args,word', [
    (dict(scores=[.1,.2], p=-1), '`p`'), (dict(scores=[.1,.2], p=math.nan), '`p`'),
    (dict(scores=[.1,math.nan]), 'NaN'), (dict(scores=[.1,math.inf]), 'infinity'),
    (dict(scores=[]), 'at least one'), (dict(scores=[[.1,.2]]), 'one number per source'), (dict(scores=[.1,.2], norm='max'), '`norm`'),
    (dict(scores=[.1,.2], top=0), '`top`'), (dict(scores=[.1,.2], top=3), '`top`')])
def test_bad_input(args, word):
    with pytest.raises(ValueError, match=word): source_weights(**args)

def test_prune():
    np.testing.assert_allclose(prune_weights([.6,.395,.005]), [.6/.995,.395/.995,0])
    np.testing.assert_allclose(prune_weights([1/300]*300), [1/300]*300)
    for bad in (-.1, 1.1, 2, math.nan):
        with pytest.raises(ValueError, match='`min_weight`'): prune_weights([.5,.5], bad)
    for f in (prune_weights, effective_sources):
        with pytest.raises(ValueError, match='`alpha`'): f([0,0])

def test_share():
    a = source_weights([.42,.40,.25])
    rng = np.random.default_rng(0)
    k = np.exp(-rng.uniform(.3, 2, (3,3)))
    k = np.maximum(k, k.T)
    np.fill_diagonal(k, 1)
    for q in (.5,4,16): np.testing.assert_allclose(share_weights(a, k, q), (a/(k**q).sum(1))/(a/(k**q).sum(1)).sum())
    np.testing.assert_allclose(share_weights(a, np.eye(3)), a)
    np.testing.assert_allclose(share_weights(a, np.ones((3,3))), a)
    copies = [0,1,2,2,2]
    b = share_weights(a[copies]/a[copies].sum(), np.eye(3)[copies][:,copies])
    np.testing.assert_allclose([b[0],b[1],b[2:].sum()], a)
    np.testing.assert_allclose(share_weights(a, pd.DataFrame(k)), share_weights(a, k))
    with pytest.raises(ValueError, match='`alike`'): share_weights(a, np.eye(2))
    with pytest.raises(ValueError, match='1 on the diagonal'): share_weights(a, -np.eye(3))
    with pytest.raises(ValueError, match='`q`'): share_weights(a, np.eye(3), -1)
