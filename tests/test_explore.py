"What the explorers of rankings and runs answer, move by move, without a page"
import math, re
from functools import partial
import numpy as np, pytest
from browser import browser, chromium
from distill_nb.compare import Comparison
from distill_nb.explore import RankExplorer, explore_runs
from distill_nb.learner import distill_learner
from distill_nb.packs import digits_dls
from distill_nb.ranking import Ranking
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo

@pytest.fixture(scope='module')
def digits(): return digits_dls(n=5, seed=0)

@pytest.fixture(scope='module')
def store(tmp_path_factory): return tmp_path_factory.mktemp('store')

@pytest.fixture(scope='module')
def rank(digits, store): return rank_sources(digits[0], Zoo.embedded(), store=store, progress=False)

def words(ex): return re.sub('<[^>]+>', '', ex.readout.value)

def test_controls(rank):
    ex = rank.explore()
    assert 'almost certainly' in ex.to_html() and ex.to_html().count('<svg') == 8
    ex.p.value = 0
    assert words(ex).startswith('All 8 sources weigh the same')
    ex.p.value = math.inf
    assert words(ex).startswith('digits carries 100% of the weight')
    ex.p.value,ex.top.value,ex.on['digits'].value = 4,2,False
    assert (ex.weights > 0).sum() == 2 and ex.weights.sum() == pytest.approx(1)
    assert sorted(ex.selected.names) == sorted(o for o in rank.names if o != 'digits')
    for w in ex.on.values(): w.value = False
    assert (words(ex), ex.take.disabled, ex.weights.sum()) == ('No source is switched on.', True, 0)

@pytest.mark.browser
def test_the_saved_state_fits_a_phone(rank, tmp_path):
    "Where no kernel runs, as on the site: a name and a bar in two lines on a phone, in one on a desk"
    (tmp_path/'a.html').write_text(f'<body>{rank.explore().to_html()}')
    with browser(chromium()) as chrome:
        page = chrome.new_page()
        page.goto((tmp_path/'a.html').as_uri())
        def bars(width):
            "(right edge, height of the row) of each bar"
            page.set_viewport_size(dict(width=width, height=844))
            return page.evaluate("[...document.querySelectorAll('.dnb-row')].map(o => "
                                 "[o.querySelector('svg').getBoundingClientRect().right, o.getBoundingClientRect().height])")
        assert len(bars(390)) == 8 and all(right <= 390 and height > 34 for right,height in bars(390))
        assert all(height < 30 for _,height in bars(1280))

def test_another_metric(rank):
    ex,other = rank.explore(),rank.by('parc', progress=False)
    before = ex.bars['letters'].value
    ex.metric.value = 'parc'
    assert ex.bars['letters'].value != before and ex.selected.metric == 'parc' and ex.names == [s.name for s in other]
    for k in ('replicates','null'): np.testing.assert_array_equal(getattr(ex.ranking, k), getattr(other, k)) # though source by source
    assert ex.progress.layout.visibility == 'hidden' and ex.ranking.probe is rank.probe
    assert Ranking(['a','b'], [2,1]).explore().metric.disabled

class Interrupted(Ranking):
    "Whose owner interrupts the kernel at the sixth source"
    asked,patience = [],5
    def only(self, names):
        if len(names) == 1: # on its own: its intervals are wanted
            if len(self.asked) >= self.patience: raise KeyboardInterrupt
            self.asked.append(names)
        return super().only(names)

def test_an_interrupt_leaves_the_intervals_out(rank):
    halted = Interrupted(rank.zoo, rank.scores, 'cka', rank.n_probe, rank.replicates, rank.null)
    halted.probe,other = rank.probe,rank.by('parc', progress=False)
    ex = RankExplorer(halted)
    ex.metric.value = 'parc'
    np.testing.assert_array_equal(ex.rankings['parc'].scores, other.scores)
    assert 'there are none' in words(ex) and len(ex.parts['parc']) == 5
    Interrupted.patience = 99                       # asked again, only the other three are computed
    ex.metric.value = 'cka'
    ex.metric.value = 'parc'
    assert len(halted.asked) == 8
    np.testing.assert_array_equal(ex.rankings['parc'].replicates, other.replicates)

def test_a_metric_that_fails_is_told(rank, monkeypatch):
    ex = rank.explore()
    def fail(*args, **kwargs): raise ValueError('undefined <here>')
    monkeypatch.setattr(Ranking, 'by', fail)
    ex.metric.value = 'rsa'
    assert ex.metric.value == 'cka' and 'undefined &lt;here&gt;' in ex.readout.value and 'rsa' not in ex.rankings

def test_the_line_of_code_makes_the_same_choice(rank):
    ex = rank.explore()
    ex.on['textures'].value,ex.p.value = False,8
    assert ex.call == "learn = distill_learner(dls, unlabeled, rank.only([n for n in rank.names if n not in ['textures']]), p=8)"
    code = ex.call.removeprefix('learn = ').replace('distill_learner(dls, unlabeled, ', 'weigh(')
    alpha = eval(code, dict(rank=rank, weigh=lambda r, p: r.weights(p)))
    np.testing.assert_allclose(alpha.reindex(ex.weights.index).fillna(0), ex.weights)
    assert set(alpha.index) == set(rank.names)-{'textures'}
    ex.p.value,ex.top.value,ex.norm.value = math.inf,2,'minmax'
    assert ex.call.endswith(".choose(p=math.inf, top=2, norm='minmax'))")
    assert set(ex.chosen['sources'].names) == set(ex.weights[ex.weights > 0].index)

def test_the_button(rank, digits, store):
    plain = rank.explore()
    plain.take.click()
    assert 'chosen' in plain.taken.value
    ex = rank.explore(partial(distill_learner, digits[0], digits[1][:100], start=rank.zoo['objects'], store=store, progress=False))
    ex.take.click()
    assert type(ex.learn).__name__ == 'Learner' and ex.taken.value == 'ready: <code>ex.learn</code>'

def test_runs():
    means = dict(transfer=.7, fixmatch=.75, weighted=.8)
    rows = [dict(target=t, method=m, seed=s, accuracy=a+.01*s, seconds=1.) for t in 'xy' for m,a in means.items() for s in range(2)]
    ex = explore_runs(rows)
    picture = ex.picture.value
    ex.reference.value = 'fixmatch'
    assert ex.picture.value != picture and 'gap to fixmatch' in ex.html.value
    ex.targets.value = ()
    assert ex.html.value == 'no run is left' and ex.table is None
    one = Comparison([r for r in rows if r['target'] == 'x']).explore()
    assert one.table.loc['weighted','gap'] == pytest.approx(.1)
