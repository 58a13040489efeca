"`Ranking` and `WeightedSources`: what they refuse, their ends, and weights that equal the formula"
import math, pickle, warnings
import numpy as np, pytest
from distill_nb.plots import plot_ranking, plot_weights
from distill_nb.core import rough
from distill_nb.ranking import Ranking, WeightedSources, ranking_legend, ranking_words, static_order
from distill_nb.sources import Source
from distill_nb.weights import alpha_array, prune_weights, source_weights
from distill_nb.zoo import Zoo

def source(name): return Source.from_arrays(name, [np.full((4,4), i, np.uint8) for i in range(3)], np.eye(3))

@pytest.mark.parametrize('args,word', [
    (dict(scores=[1]), 'one score per source'), (dict(scores={'a':1}), "differ in \\['b'\\]"), (dict(scores=[1,np.nan]), 'scores of b'),
    (dict(scores=['x','y']), 'one number per source'), (dict(zoo=[], scores=[]), 'empty'),
    (dict(zoo=['a','a'], scores=[1,2]), 'two sources of one name: a'),
    (dict(null=[[1]]), 'one column per source'), (dict(replicates=[1,2]), 'one column per source')])
def test_bad_input(args, word):
    with pytest.raises(ValueError, match=word): Ranking(**{**dict(zoo=['a','b'], scores=[1,2]), **args})

def test_parts():
    r = Ranking(list('abcd'), [.1,.4,.3,.2], replicates=np.random.default_rng(0).normal(size=(20,4)))
    assert r.best=='b' and list(r)==list('bcda') and r.top(2).names==['b','c'] and r.only(['d','a']).scores.tolist()==[.2,.1]
    np.testing.assert_allclose(r.top(2).interval(), r.interval()[[1,2]])
    with pytest.raises(ValueError, match='from 1 to 4'): r.top(5)
    with pytest.raises(ValueError, match='no e, f in the ranking'): r.only(['a','e','f'])
    with pytest.raises(ValueError, match='above 0 and below 1'): r.interval(90)

def test_without_replicates():
    r = Ranking(['a','b'], [1,2])
    assert np.isnan(r.p_first).all() and np.isnan(r.interval()).all() and r.to_frame().columns.tolist()==['source','score']

def test_weights():
    e = np.array([.1,.4,-.3])
    r,before = Ranking(['a','b','c'], e),e.copy()
    w = r.weights(p=2)
    assert w.index.tolist()==['a','b','c'] and w.name=='weight'
    np.testing.assert_allclose(w, source_weights(before, 2))
    prune_weights(e.clip(0))
    np.testing.assert_array_equal(e, before)
    assert 'weight' in r._repr_html_() and Ranking(['a'], [-.1])._repr_html_()

@pytest.mark.parametrize('metric,scores,norm', [
    ('leep', [-2.,-1,-3], 'minmax'), ('logme', [.5,-.2,.1], 'minmax'), ('cka(debiased=True)', [.5,-.2,.1], 'clip'),
    ('my own', [.5,-.2,.1], 'clip')])
def test_metrics_without_a_zero(metric, scores, norm):
    r = Ranking(list('abc'), scores, metric)
    assert r.default_norm==norm
    np.testing.assert_allclose(r.weights(p=3).values, source_weights(scores, 3, norm))
    plot_ranking(r)
    plot_weights(r)

def test_ranking_survives_pickle():
    r = Ranking(['a','b'], [.1,.2], n_probe=9)
    r.probe = object()
    s = pickle.loads(pickle.dumps(r))
    assert s.best=='b' and s.n_probe==9 and s.names==['a','b'] and s.probe is None and r.top(1).probe is r.probe

@pytest.mark.parametrize('n', [1,5,30])
@pytest.mark.parametrize('p', [0,1,4,12.5,math.inf])
def test_choose_is_the_pruned_weights(n, p):
    "To the last bit"
    rng = np.random.default_rng(n)
    zoo = Zoo([source(f's{i}') for i in range(n)])
    for top in {None, 1, (n+1)//2}:
        for min_weight in (0, .01, .1):
            r = Ranking(zoo, rng.uniform(-.1, 1, n))
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')                  # no score may be positive
                alpha = prune_weights(alpha_array(r.weights(p, None, top), n), min_weight)
                chosen = r.choose(p, top=top, min_weight=min_weight)
            np.testing.assert_array_equal(chosen.alpha, alpha[alpha>0])
            assert chosen.names==[k for k,a in zip(zoo.names, alpha) if a>0] and chosen.alpha.dtype==np.float64

def test_weighted_sources():
    zoo = Zoo([source(k) for k in 'abcd'])
    w = WeightedSources(zoo, [4,3,2,1])
    np.testing.assert_allclose(w.alpha, [.4,.3,.2,.1])
    assert w[0] is zoo[0] and w['b'] is zoo['b']
    for i in (slice(1,3), [1,2], ['b','c'], [False,True,True,False], np.array([1,2])):
        assert type(w[i]) is WeightedSources and w[i].names==['b','c']
        np.testing.assert_allclose(w[i].alpha, [.6,.4])
    assert WeightedSources(zoo).alpha.tolist()==[.25]*4 and WeightedSources(zoo[0]).alpha.tolist()==[1]
    assert type(w+zoo[:0]) is Zoo and type(Ranking(w, [1,2,3,4]).zoo) is Zoo
    assert w.prune(.25).names==['a','b'] and w.prune(1).names==['a'] and 'a 40%' in repr(w) and '40.0%' in w._repr_html_()
    for bad in ([1,2], [1,1,1,-1], [0]*4, [1,1,1,np.nan], 'abcd'):
        with pytest.raises(ValueError, match='`alpha`'): WeightedSources(zoo, bad)
    with pytest.raises(ValueError, match='`alpha`'): WeightedSources(zoo, [1,1,0,0])[2:]
    with pytest.raises(TypeError, match='must be Sources'): Ranking(['a','b'], [1,2]).choose()

def test_words():
    noise = np.random.default_rng(0).normal(0, .02, (200,3))
    close = Ranking(['a','b','c'], [.5,.49,.1], n_probe=100, replicates=np.array([.5,.49,.1])+noise, null=np.full((20,3), .2))
    said = ' '.join(ranking_words(close, close.weights()))
    assert "a and b can't be told apart with 100 labelled images" in said and 'c scores no more than shuffled labels might' in said
    assert 'All 3 sources weigh the same' in ranking_words(close, [1/3]*3)[0]
    assert 'nothing here is known to help' in ranking_words(Ranking(['a','b'], [.1,.1], null=np.full((9,2), .3)), [.5,.5])[-1]
    assert ranking_words(Ranking(['a'], [1.]), [1.]) == ['a carries 100% of the weight.']
    for names,listed in (('ab','a and b'), ('abcd','a, b, c and d'), ('abcdef','a, b, c and 3 more')):
        poor = Ranking(['best',*names], [1.]+[.1]*len(names), null=np.full((9,len(names)+1), .3))
        assert ranking_words(poor, poor.weights())[-1] == f'{listed} score no more than shuffled labels might.'

def test_words_without_weights():
    "What the command line prints needs no weights, and has names"
    assert ranking_words(Ranking(['a','b'], [-.1,-.2])) == ['How sure that is, only intervals would tell: there are none.']
    sure = Ranking(['a','b'], [.5,.4], n_probe=40, replicates=np.array([.5,.4]) + np.random.default_rng(0).normal(0, .2, (50,2)))
    s = sure.stability()
    assert ranking_words(sure)[1] == (f"a and b can't be told apart with 40 labelled images ({s.p:.0%} for the first); "
                                      f"about {rough(s.n_needed)} would tell.")
    assert rough(s.n_needed) != f'{s.n_needed:,}'

def test_size_alone():
    zoo = Zoo.timm('resnet18.a1_in1k', 'resnet50.a1_in1k')
    assert not any('size alone' in o for o in ranking_words(Ranking(zoo, [.1,.5])))       # the largest is the first
    assert 'resnet50.a1_in1k would be first (2.2 times' in ranking_words(Ranking(zoo, [.5,.1]))[-1]
    static = static_order(zoo)
    assert static.best.name == 'resnet50.a1_in1k' and static.scores.max() == 1 and static.metric == 'parameters'
    assert static.scores[0] == pytest.approx(11.69/25.56, rel=1e-3)
    with pytest.raises(TypeError, match='Source'): static_order(['a'])

def test_legend_explains_each_column():
    full = Ranking(Zoo.embedded(), range(1,9), n_probe=50, replicates=np.ones((4,8)), null=np.ones((4,8)))
    legend = ranking_legend(full)
    assert list(legend) == ['source','task','score','low','high','first','null','weight']
    assert 'cka' in legend['score'] and '50' in legend['low'] and all('{' not in o for o in legend.values())
    assert list(ranking_legend(full, ['weight','parameters','mine'])) == ['weight','parameters']
