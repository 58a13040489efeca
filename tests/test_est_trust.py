"Halves, replicates, null; `Ranking`'s intervals from what they return."
import warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from distill_nb.similarity import *

def world(n=80, d=10, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.arange(n)%c
    return [r.normal(size=(n,d)) + k*r.normal(size=(c,d))[y] for k in (0,.5,2)],y

@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1,15), min_size=1, max_size=8), seed=st.integers(0,999))
def test_half_samples(counts, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    for o in half_samples(y, 5, seed):
        assert (np.diff(o)>0).all() and o.dtype==np.int64
        got = np.bincount(y[o], minlength=len(counts))
        assert all(max(1, k//2)<=g<=-(-k//2) for g,k in zip(got, counts))
    a,b = half_samples(y, 3, seed),half_samples(np.array(list('hgfedcba'))[y], 3, seed)
    if len(counts)==1: np.testing.assert_array_equal(a[2], b[2])

def test_half_of_a_matrix():
    o = half_samples(np.eye(9), 4)
    assert {len(i) for i in o}<={4,5} and len(o)==4

def test_replicates_are_the_delete_half_jackknife():
    "For a mean, the delete-half jackknife is known: s / sqrt(n)"
    r = np.random.default_rng(0)
    x = r.normal(size=(400,1))
    mean = lambda f,y: float(np.asarray(f).mean())
    reps = replicate_scores(mean, [x], np.zeros((400,2)), times=4000)
    assert reps.mean() == pytest.approx(x.mean(), abs=1e-12)
    assert reps.std() == pytest.approx(x.std(ddof=1)/20, rel=.05)

def test_replicates_are_paired():
    "A source and its copy differ in no replicate"
    xs,y = world()
    reps = replicate_scores(cka, [xs[1],xs[1].copy()], y, times=10)
    np.testing.assert_array_equal(reps[:,0], reps[:,1])
    r = Ranking(['a','b'], [1,1], n_probe=80, replicates=reps)
    assert r.p_first.tolist()==[.5,.5]

@pytest.mark.parametrize('metric', ['cka','parc','h_score','knn','gbc'])
def test_order_is_told_apart(metric):
    xs,y = world()
    f = metrics[metric]
    s = [f(x, y) for x in xs]
    rank = Ranking(['noise','some','much'], s, metric, 80, replicate_scores(f, xs, y, s, 40), null_scores(f, xs, y, 19))
    assert rank.p_first.argmax()==2 and rank.p_first[2]>.95
    null = np.quantile(rank.null, .95, axis=0)
    assert s[2]>null[2] and s[0]<rank.null[:,0].max()+3*rank.null[:,0].std()
    low,high = rank.interval().T
    assert (low<s).all() and (s<high).all() and np.allclose((low+high)/2, s)
    st = rank.stability()
    assert st['first']=='much' and st.p>.95 and st.n_needed<80 and st.se>0

def test_wide_features_are_narrowed_without_a_difference():
    r = np.random.default_rng(0)
    x,y = r.normal(size=(40,300)),np.arange(40)%4
    for m in [k for k in metrics if metrics[k].rotation and k!='sfda']:
        f = metrics[m]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', SmallProbeWarning)
            slow,fast = null_scores(lambda a,b: f(a, b), [x], y, 4),null_scores(f, [torch.tensor(x)], y, 4)
        np.testing.assert_allclose(fast, slow, rtol=1e-8)

def test_rank_sources_says_when_parts_are_undefined():
    from distill_nb.data import image_dls
    from distill_nb.sources import Source, Zoo
    r = np.random.default_rng(0)
    imgs,y = list(r.integers(0, 255, (12,8,8), dtype=np.uint8)),np.r_[np.arange(10),0,1]
    dls = image_dls(imgs, y, imgs[:4], y[:4], bs=4)
    zoo = Zoo([Source.from_arrays(f's{i}', imgs, r.normal(size=(12,5))) for i in range(2)])
    with pytest.warns(UserWarning, match='no intervals'): rank = rank_sources(dls, zoo, 'parc', store=False, progress=False)
    assert not len(rank.replicates) and np.isfinite(rank.scores).all() and 'low' not in rank.to_frame()
