"What few labels tell: intervals against scipy's, classes without images, findings that do not fit"
import math
import numpy as np, pandas as pd, pytest
from scipy.stats import binomtest
from distill_nb.quality import (Findings, accuracy_summary, called, class_table, confusion_counts, disagreement, headline, images_for_width,
                                most_disputed, paired_comparison, surest_mistakes, wilson_interval)

def onehot(answers, c): return np.eye(c)[np.asarray(answers)]

@pytest.mark.parametrize('k,n', [(0,1), (1,1), (0,50), (41,50), (50,50), (820,1000)])
@pytest.mark.parametrize('level', [.8,.95,.99])
def test_wilson_is_scipys(k, n, level):
    there = binomtest(k, n).proportion_ci(level, 'wilson')
    assert np.allclose(wilson_interval(k, n, level), (there.low, there.high), atol=1e-12)

def test_all_right_or_all_wrong_still_has_a_width():
    y = np.arange(30)%3
    for answers in (y, (y+1)%3):
        s = accuracy_summary(onehot(answers, 3), y)
        assert s.high-s.low > .05 and np.allclose(s[['low','high']].tolist(), s[['balanced_low','balanced_high']].tolist())

@pytest.mark.parametrize('k,n', [(3,2), (-1,5), ('three',5), (math.nan,5), ([1,2],[3,4,5]), (None,5)])
def test_counts_that_are_refused(k, n):
    with pytest.raises(ValueError, match='`right`'): wilson_interval(k, n)

def test_rare_classes_widen_the_balanced_interval():
    "As many images, more unevenly"
    def width(sizes):
        y = np.repeat(np.arange(len(sizes)), sizes)
        s = accuracy_summary(onehot(np.where(np.arange(len(y))%5 == 0, (y+1)%len(sizes), y), len(sizes)), y)
        return s.balanced_high-s.balanced_low
    assert width([20,20,20]) < width([50,5,5])

def test_classes_without_images_do_not_count():
    s,t = accuracy_summary(onehot([0,1], 5), [0,1]),class_table(onehot([0,1], 5), [0,1])
    assert s.balanced == 1 and t.n.tolist() == [1,1,0,0,0] and t.recall[2:].isna().all() and (t.confused == '').all()

def test_confusion():
    y,a = np.array([0,0,0,1,2,2]),np.array([0,1,1,1,0,2])
    assert confusion_counts(onehot(a, 3), y).tolist() == [[1,2,0],[0,1,0],[1,0,1]]
    t = class_table(onehot(a, 3), y, ['x','y','z'])
    assert t.confused.tolist() == ['y','','x'] and t.times.tolist() == [2,0,1]
    assert np.allclose(t.precision, [.5,1/3,1]) and np.allclose(t.recall, [1/3,1,.5])

def test_paired_is_not_two_intervals_apart():
    "Nearly the same errors: the difference is known far better than each accuracy"
    y,a = np.zeros(200, int),np.r_[np.zeros(120), np.ones(80)].astype(int)
    b = a.copy()
    b[:9] = 1
    c = paired_comparison(onehot(a, 2), onehot(b, 2), y)
    s = accuracy_summary(onehot(a, 2), y)
    assert c.verdict == 'better than' and c.high-c.low < .5*(s.high-s.low)
    assert c.p == binomtest(9, 9).pvalue and (c.only_first, c.only_second) == (9,0)
    back = paired_comparison(onehot(b, 2), onehot(a, 2), y)
    assert back.verdict == 'worse than' and np.allclose([back.low, back.high], [-c.high, -c.low])

def test_the_same_candidate_twice():
    c = paired_comparison(onehot([0]*50, 2), onehot([0]*50, 2), [0]*50)
    assert c.difference == 0 and c.needed == math.inf and c.p == 1 and c.low == -c.high
    assert paired_comparison(onehot([0]*500, 2), onehot([0]*500, 2), [0]*500).verdict == 'no worse than'

@pytest.mark.parametrize('share', [.2,.5,.8,.97])
def test_images_for_width_gives_the_width(share):
    n = images_for_width(share, .04)
    low,high = wilson_interval(share*n, n)
    assert .038 < (high-low)/2 <= .0402

def test_mistakes_are_wrong_and_sorted():
    rng = np.random.default_rng(0)
    p,y = rng.dirichlet([.5]*4, 100),rng.integers(0, 4, 100)
    t = surest_mistakes(p, y, 20)
    assert len(t) == 20 and (t.given != t.answered).all() and (np.diff(t.confidence) <= 0).all()
    assert not len(surest_mistakes(onehot(y, 4), y))

def test_disagreement_in_nats():
    p = np.array([[[1.,0,0]],[[0,1.,0]],[[0,0,1.]]])
    assert np.allclose(disagreement(p, [1/3]*3), math.log(3)) and np.allclose(disagreement(p, [.5,.5,0]), math.log(2))
    assert most_disputed(dict(a=p[0], b=p[1]), dict(b=1, a=1)).tolist() == [0] and not len(most_disputed(dict(a=p[0])))

@pytest.mark.parametrize('weights', [dict(a=-1, b=1), dict(a=0, b=0), dict(a=math.nan, b=1)])
def test_weights_that_are_refused(weights):
    with pytest.raises(ValueError, match='`weights`'): most_disputed(dict(a=[[1,0]], b=[[0,1]]), weights)

def test_findings_that_do_not_fit():
    p = onehot([0,1], 2)
    for kw,words in ((dict(probs=dict(student=p)), '`labels`'), (dict(probs=dict(student=p), labels=[0,1,1]), '`labels`'),
                     (dict(probs=dict(student=p), labels=[0,1], vocab='abc'), '`vocab`'),
                     (dict(probs=dict(student=p), labels=[0,1], images=['a.png']), '`images`'),
                     (dict(probs=dict(student=p*2), labels=[0,1]), 'add up to 1'),
                     (dict(disputed=['a.png'], disputed_probs=dict(a=p)), '`disputed_probs`')):
        with pytest.raises(ValueError, match=words): Findings(**kw).check()

def test_headline_orders_the_others():
    y = np.zeros(100, int)
    def right(k): return onehot(np.r_[np.zeros(k), np.ones(100-k)].astype(int), 2)
    f = Findings(labels=y, held_out='100 images of valid/', probs={
        'student': right(80), 'fine-tuning': right(60), 'linear probe of the start': right(81), 'best source: <x>': right(95)})
    said = headline(f)
    assert said.startswith('The student is right on 80 % of 100 held-out images (95 % interval 71 to 87 %; 100 images '
                           'of valid/): it is better than')
    places = [said.index(o) for o in ('better than fine-tuning by 20', 'not to be told apart from the linear probe of the start',
                                      'worse than the best source with a probe (<x>) by 15')]
    assert places == sorted(places)
    assert f.table.loc['fine-tuning'].verdict == 'better than' and called('mine') == 'mine'

def test_costs_join_by_name():
    f = Findings(costs=pd.DataFrame(dict(MB=[3.]), ['student']))
    assert f.table.MB.tolist() == [3.]
