"Halves, replicates, null; `Ranking`'s intervals from what they return."
import warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from distill_nb.ranking import *
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

def test_how_many_halves():
    assert len(half_samples([0]*7+[1]*5+[2], 2))==2 and half_samples([0,1], 0)==[]

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

def one_by_one(f): return lambda x,y,**kw: f(x, y, **kw)       # a function without the metric's shortcuts

def odd_data(kind, n, d, sizes, seed):
    "Features with ties, twins, features that are rarely on, large offsets; classes as large as `sizes` asks"
    r = np.random.default_rng(seed)
    y = r.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(y)
    x = r.normal(size=(n,d)) + .3*r.normal(size=(len(sizes),d))[y]
    if kind=='tied': x = x.round()
    if kind=='twins': x[n//2:] = x[:n-n//2]
    if kind=='rare': x = np.maximum(x-2, 0) + 1e-3*(np.arange(d)<3)*r.normal(size=(n,d))     # many are constant on a half
    if kind=='dead': x[:,::3] = 5
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d) + 1e3
    return x,y

@pytest.mark.parametrize('kind', ['random','tied','twins','rare','dead','scaled'])
@pytest.mark.parametrize('sizes', [(20,20,20,20),(60,9,2,1,1)])
@pytest.mark.parametrize('d', [7,40,300])
def test_shortcuts_of_parc_change_nothing(kind, sizes, d):
    x,y = odd_data(kind, sum(sizes), d, sizes, seed=d)
    for xx in (x, torch.tensor(x).float()):
        for f in (replicate_scores,null_scores):
            np.testing.assert_allclose(f(parc, [xx], y, times=6), f(one_by_one(parc), [xx], y, times=6), rtol=0, atol=1e-12)
    assert np.ptp(replicate_scores(parc, [x], y, times=6))>1e-3 and np.ptp(null_scores(parc, [x], y, times=6))>1e-3

def test_shortcuts_are_taken_or_decline(monkeypatch):
    xs,y = world()
    taken = {}
    def watched(name):
        f = getattr(parc, name)
        def g(*args, **kw):
            taken[name] = f(*args, **kw)
            return taken[name]
        monkeypatch.setattr(parc, name, g)
    for o in ('on_halves','on_shuffled'): watched(o)
    several = np.eye(4)[y] + np.eye(4)[(y+(np.arange(80)%3==0))%4]
    for labels,kw,declined in ((y, {}, False), (y, dict(n_dims=5), True), (several, {}, True)):
        taken.clear()
        def both(f): return replicate_scores(f, xs, labels, times=3, **kw),null_scores(f, xs, labels, times=3, **kw)
        got = both(parc)
        assert [o is None for o in taken.values()]==[declined]*2
        np.testing.assert_allclose(got, both(one_by_one(parc)), rtol=0, atol=1e-12)
    assert replicate_scores(parc, xs, y, times=0).shape==null_scores(parc, xs, y, times=0).shape==(0,3)

def test_many_images_are_shuffled_without_a_matrix_of_all_pairs():
    x,y = np.random.default_rng(0).normal(size=(2100,4)),np.arange(2100)%3
    assert parc.on_shuffled(x, y, [y.argsort()]) is None
    assert parc.on_shuffled(x[:2000], y[:2000], [np.arange(2000)])==[parc(x[:2000], y[:2000])]

@pytest.mark.parametrize('x,y,match', [
    (np.eye(24), np.arange(24)%3, 'equally alike'),
    (np.ones((24,3))*np.arange(24)[:,None], np.arange(24)%3, 'same number in all columns'),
    (np.random.default_rng(0).normal(size=(24,5)), np.arange(24), 'no two images share'),
    (np.full((24,3), np.nan), np.arange(24)%3, 'NaN')])
def test_shortcuts_refuse_what_parc_refuses(x, y, match):
    for f in (replicate_scores, null_scores):
        for metric in (parc, one_by_one(parc)):
            with pytest.raises(ValueError, match=match): f(metric, [x], y, **({'scores':[0]} if f is replicate_scores else {}))

def test_a_metric_of_ones_own_may_have_shortcuts():
    def mean(x, y, scale=1.): return scale*float(np.asarray(x).mean())
    def on_halves(x, y, halves, scale=1.): return [scale*x[o].mean() for o in halves]
    xs,y = world()
    try:
        register_metric(mean, on_halves=on_halves)
        quick,slow = [replicate_scores(f, xs, y, times=4, scale=2.) for f in (mean,one_by_one(mean))]
        np.testing.assert_allclose(quick, slow, atol=1e-12)
        assert np.ptp(null_scores(mean, xs, y, times=4), axis=0).max()==0
    finally: del metrics['mean']

def test_rank_sources_says_when_parts_are_undefined():
    from distill_nb.data import image_dls
    from distill_nb.sources import Source
    from distill_nb.zoo import Zoo
    r = np.random.default_rng(0)
    imgs,y = list(r.integers(0, 255, (12,8,8), dtype=np.uint8)),np.r_[np.arange(10),0,1]
    dls = image_dls(imgs, y, imgs[:4], y[:4], bs=4)
    zoo = Zoo([Source.from_arrays(f's{i}', imgs, r.normal(size=(12,5))) for i in range(2)])
    with pytest.warns(UserWarning, match='no intervals'): rank = rank_sources(dls, zoo, 'parc', store=False, progress=False)
    assert not len(rank.replicates) and np.isfinite(rank.scores).all() and 'low' not in rank.to_frame()
