"""All estimators of the register on the same grounds, `Ranking`, and `rank_sources` on made-up sources. What is
particular to one estimator is in test_est_*.py."""
import numpy as np, pytest, torch, warnings, weakref
from hypothesis import given, settings, strategies as st
from distill_nb.ranking import *
from distill_nb.similarity import *

pytestmark = pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
def onehot(y): return np.eye(int(max(y))+1)[y]

def data(n, d, c=4, seed=0):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, r.integers(0, c, n-c)]
    return r.normal(size=(n,d)) + 2*r.normal(size=(c,d))[y],y

def softmax(x):
    e = np.exp(x-x.max(1, keepdims=True))
    return e/e.sum(1, keepdims=True)
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
        with pytest.raises(ValueError, match='one class per image'): f(given_to(f, x), onehot(y))

@every
def test_noise_scores_less(name):
    f,(x,y) = metrics[name],data(80, 8)
    noise = np.random.default_rng(1).normal(size=x.shape)
    assert f(given_to(f, x), y) > f(given_to(f, noise), y)

@every
def test_renumbering_classes(name):
    f,(x,y) = metrics[name],data(50, 6)
    want = f(given_to(f, x), y)
    for l in (y.tolist(), torch.tensor(y), y.astype(np.uint8), np.array(list('dbca'))[y], 3-y, y*10-7):
        assert f(given_to(f, x), l) == pytest.approx(want, rel=1e-8, abs=1e-10)

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
        np.testing.assert_array_equal(a, x)
        np.testing.assert_array_equal(b, y)
    x.setflags(write=False)
    y.setflags(write=False)
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
def spoil(v):
    x = X.copy()
    x[7,2] = v
    return x
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
    from distill_nb.sources import Source
    from distill_nb.zoo import Zoo
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
    strict = dict(store=False, progress=False, on_error='raise')
    with pytest.raises(ValueError, match="'flat' cannot be scored by cka: features are constant"): rank_sources(dls, zoo+[flat], **strict)
    with pytest.raises(ValueError, match="'noise'.*returned nan"): rank_sources(dls, zoo, lambda x,y: float('nan'), **strict)
    with pytest.raises(ValueError, match='Nearest: cka'): rank_sources(dls, zoo, 'ckaa', store=False)
    with pytest.raises(ValueError, match='empty'): rank_sources(dls, [], store=False)
    with pytest.raises(ValueError, match="two sources of one name: noise"): rank_sources(dls, [zoo[0], zoo[0]], store=False)
    with pytest.raises(ValueError, match="`on_error` must be"): rank_sources(dls, zoo, store=False, on_error='ignore')
    with pytest.raises(TypeError, match='debised'): rank_sources(dls, zoo, store=False, progress=False, debised=True)
    @register_metric(needs='probs')
    def width(probs, labels): return probs.shape[1]
    try:
        assert rank_sources(dls, zoo[1:], 'width', store=False, progress=False).scores.tolist()==[4]
        with pytest.raises(ValueError, match="'noise' has no classifier"): rank_sources(dls, zoo, 'width', **strict)
        with pytest.warns(UserWarning, match=r'1 of 2 sources: noise \(has no classifier'):
            r = rank_sources(dls, zoo, 'width', store=False, progress=False)
        assert r.names==['good'] and list(r.failed)==['noise']
    finally: metrics.pop('width')

# A source that fails, among others

class Net(torch.nn.Module):
    "Features: the mean colour, turned, and noise from the image; a classifier of three"
    def __init__(self, seed=0, scale=1.):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.turn,self.fc = torch.nn.Linear(3, 6),torch.nn.Linear(6, 3)
        self.turn.weight.data *= scale
    def forward(self, x): return self.fc(self.turn(x.mean((2,3))))

def live(name, make=Net, size=8):
    from distill_nb.sources import Source
    return Source(name, build=make, size=size, n_classes=3)

def fail(message, error=RuntimeError):
    def build(): raise error(message)
    return build

def test_a_source_that_fails_is_left_out():
    dls,zoo,good,y,Source,imgs = world()
    bad = [live('unreachable', fail('no route to host\nTraceback and so on')),
           Source.from_arrays('flat', imgs, np.ones((60,4))), live('nan', lambda: Net(scale=float('nan'))),
           live('odd', fail('layer', KeyError)), Source.from_arrays('other images', imgs[:30], good[:30])]
    with pytest.warns(UserWarning) as w: r = rank_sources(dls, bad[:2]+list(zoo)+bad[2:], store=False, progress=False, seed=3)
    assert len([o for o in w if 'failed' in str(o.message)])==1
    assert '5 of 7 sources: unreachable (no route to host); flat (cannot' in str(w[0].message)
    assert r.names==['noise','good'] and list(r.failed)==[s.name for s in bad]
    assert r.failed['unreachable']=='no route to host'
    assert r.failed['odd']=="KeyError: 'layer'" and 'NaN' in r.failed['nan'] and 'no row for 30' in r.failed['other images']
    alone = rank_sources(dls, zoo, store=False, progress=False, seed=3)
    for a in ('scores','replicates','null'): np.testing.assert_array_equal(getattr(r, a), getattr(alone, a))
    assert 'unreachable' in r._repr_html_() and 'no route' in r._repr_html_() and 'failed: unreachable' in repr(r)
    assert not alone.failed and 'failed' not in alone._repr_html_()+repr(alone)

def test_if_all_fail_the_first_reason_is_told():
    dls,*_ = world()
    with pytest.raises(ValueError, match='of 2; the first that failed: no route to host') as e:
        rank_sources(dls, [live('a', fail('no route to host')), live('b', fail('x'))], store=False, progress=False)
    assert isinstance(e.value.__cause__, RuntimeError)
    with pytest.raises(RuntimeError, match='no route'):
        rank_sources(dls, [live('a', fail('no route to host'))], store=False, progress=False, on_error='raise')

def test_hundreds_of_sources_one_broken():
    dls,*_ = world()
    built,alive = [],[]
    def make(i):
        def build():
            assert not any(o() is not None for o in alive), 'two networks in memory at once'
            built.append(i)
            net = Net(i)
            alive[:] = [weakref.ref(net)]
            return net
        return build
    zoo = [live(f's{i}', fail('torn file') if i==123 else make(i)) for i in range(300)]
    with pytest.warns(UserWarning, match=r'1 of 300 sources: s123 \(torn file\)$'):
        r = rank_sources(dls, zoo, n=12, times=5, store=False, progress=False)
    assert len(r)==299
    assert sorted(built)==sorted(2*[i for i in range(300) if i!=123]) and r.replicates.shape==(5,299) and 's123' not in r.names

def test_a_run_that_is_broken_off_goes_on(tmp_path):
    dls,*_ = world()
    from safetensors.torch import save_file
    from distill_nb.sources import Source
    import timm
    net = timm.create_model('test_resnet', num_classes=3)
    save_file(net.state_dict(), tmp_path/'net.safetensors')
    loads = []
    def source(i, interrupt=False):
        s = Source.from_checkpoint(tmp_path/'net.safetensors', 'test_resnet', num_classes=3, size=32+8*i, name=str(i))
        build = s.build
        def counted():
            if interrupt: raise KeyboardInterrupt
            loads.append(i)
            return build()
        s.build = counted
        return s
    kw = dict(store=tmp_path/'store', progress=False, times=0, n=30)
    with pytest.raises(KeyboardInterrupt): rank_sources(dls, [source(0), source(1), source(2, True), source(3)], **kw)
    assert loads==[0,1]
    r = rank_sources(dls, [source(i) for i in range(4)], **kw)
    assert loads==[0,1,2,3] and len(r)==4

def test_one_bar_for_all(monkeypatch):
    import distill_nb.outputs as module
    dls,zoo,*_ = world()
    bars = []
    class Bar:
        def __init__(self, gen, total, leave):
            self.gen,self.total,self.comment,self.seen = gen,total,'',[]
            bars.append(self)
        def __iter__(self):
            for o in self.gen:
                self.seen.append(self.comment)
                yield o
    monkeypatch.setattr(module, 'progress_bar', Bar)
    with pytest.warns(UserWarning): rank_sources(dls, [live('a', fail('x')), live('b'), live('c')], store=False)
    assert [(b.total, sorted(set(b.seen)), len(b.seen)) for b in bars]==[(120, ['b','c'], 120)]

def crowd(s=20, n=200, d=8):
    "Sources that are arrays, each with more noise than the one before: source 0 is the best"
    from distill_nb.data import image_dls
    from distill_nb.sources import Source
    from distill_nb.zoo import Zoo
    r = np.random.default_rng(0)
    imgs,y = list(r.integers(0, 255, (n,8,8), dtype=np.uint8)),r.permutation(np.arange(n)%4)
    shape = r.normal(size=(4,d))*2
    zoo = Zoo([Source.from_arrays(f's{i}', imgs, shape[y] + r.normal(size=(n,d))*(.5+i)) for i in range(s)])
    return image_dls(imgs, y, imgs[:6], y[:6], bs=16),zoo,y

def test_halving_finds_the_winner_of_the_full_ranking():
    dls,zoo,y = crowd()
    kw = dict(store=False, progress=False, n=150, times=20)
    full = rank_sources(dls, zoo[::-1], **kw)
    for halving,keep in ((30,4), (100,8), (10,1)):
        r = rank_sources(dls, zoo[::-1], halving=halving, keep=keep, **kw)
        assert r.best.name==full.best.name=='s0' and len(r)>=keep and r.n_probe==150
        at = [full.names.index(k) for k in r.names]
        np.testing.assert_array_equal(r.scores, full.scores[at])
        np.testing.assert_array_equal(r.replicates, full.replicates[:,at])
        np.testing.assert_array_equal(r.null, full.null[:,at])
        assert sorted(r.names+r.eliminated.source.tolist())==sorted(full.names)
        plan = halving_plan(20, 150, halving, keep)
        assert len(r)*150+r.eliminated.images.sum()==n_passes(plan) and len(r)==plan[-1][0]
        for _,g in r.eliminated.groupby('images'): assert g.score.is_monotonic_decreasing
        assert r.eliminated.images.is_monotonic_decreasing and 'eliminated' in r._repr_html_() and 'eliminated' in repr(r)

def test_halving_that_has_nothing_to_halve():
    dls,zoo,y = crowd(6)
    kw = dict(store=False, progress=False, times=10)
    full = rank_sources(dls, zoo, n=100, **kw)
    for o in (dict(n=100, halving=20, keep=6), dict(n=100, halving=20), dict(n=100, halving=100, keep=1), dict(n=100, halving=500, keep=1)):
        r = rank_sources(dls, zoo, **o, **kw)
        np.testing.assert_array_equal(r.scores, full.scores)
        assert not len(r.eliminated) and list(r.eliminated)==['source','score','images'] and 'eliminated' not in r._repr_html_()
    assert rank_sources(dls, zoo, n=1000, halving=200, keep=1, **kw).n_probe==200         # as many as there are: one round
    with pytest.raises(ValueError, match='`halving` must'): rank_sources(dls, zoo, halving=2, **kw)
    with pytest.raises(ValueError, match='`keep` must'): rank_sources(dls, zoo, halving=20, keep=0, **kw)

def test_ties_at_the_cut_stay():
    dls,zoo,y = crowd(8)
    @register_metric()
    def level(x, labels):
        return float(next(i for i,s in enumerate(zoo) if (s.arrays['features']==x[0]).all(1).any()) >= 6)     # 1 for the last two, else 0
    try:
        r = rank_sources(dls, zoo, 'level', halving=20, keep=1, n=40, store=False, progress=False, times=0)
        assert r.names==[s.name for s in zoo]
        assert not len(r.eliminated)       # six at nought, of which two would have had to go by their place alone
        r = rank_sources(dls, zoo[3:], 'level', halving=20, keep=1, n=40, store=False, progress=False, times=0)
        assert len(r)==5
        r = rank_sources(dls, zoo[5:], 'level', halving=20, keep=1, n=40, store=False, progress=False, times=0)
        assert r.names==['s6','s7'] and r.eliminated.source.tolist()==['s5'] and r.eliminated.images.tolist()==[20]
    finally: metrics.pop('level')

def test_halving_with_sources_that_fail():
    dls,zoo,y = crowd(12)
    broken = [live('torn', fail('torn file'))]
    with pytest.warns(UserWarning) as w: r = rank_sources(dls, broken+list(zoo), halving=20, keep=2, n=100, store=False, progress=False)
    assert r.best.name=='s0' and r.failed=={'torn':'torn file'} and len([o for o in w if 'torn' in str(o.message)])==1
    assert len(r)+len(r.eliminated)==12

def test_halving_keeps_passes_of_earlier_rounds(tmp_path):
    "An image goes through a source once, with a store and without, and without one nothing is left"
    dls,*_ = world()
    for store in (False, tmp_path):
        seen = []
        class Counting(Net):
            def forward(self, x):
                seen.append(len(x))
                return super().forward(x)
        rank_sources(dls, [live(f's{i}', lambda i=i: Counting(i)) for i in range(6)], n=50, halving=10, keep=1,
                         store=store, progress=False, times=0)
        assert sum(seen)==n_passes(halving_plan(6, 50, 10, 1))==6*10+3*10+2*20+10
    assert list(tmp_path.iterdir())

@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1,40), min_size=2, max_size=9), first=st.integers(3,40), seed=st.integers(0,99))
def test_nested_probes(counts, first, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    sizes = [first, 2*first, 4*first]
    probes = nested_probes(y, sizes, seed)
    assert [len(p) for p in probes]==[min(n, len(y)) for n in sizes]
    assert set(probes[0])<=set(probes[1])<=set(probes[2])
    np.testing.assert_array_equal(probes[-1], probe_set(y, sizes[-1], seed))
    for p,q in zip(probes, probes[1:]):
        assert (np.diff(p)>0).all()
        if len(p)>=2*len(set(y[q])): assert set(y[p])==set(y[q])

@settings(max_examples=100, deadline=None)
@given(s=st.integers(1,2000), n=st.integers(3,1000), halving=st.integers(3,300), keep=st.integers(1,50))
def test_halving_plan(s, n, halving, keep):
    plan = halving_plan(s, n, halving, keep)
    assert plan[0][0]==s and plan[-1][1]==n and plan[-1][0]>=min(s, keep)
    assert all(b[1]>a[1] and a[0]>b[0]>=a[0]/2 for a,b in zip(plan, plan[1:]))
    assert n_passes(plan)<=s*n

def test_sizes_that_are_too_small():
    with pytest.raises(ValueError, match='at least 3'): halving_plan(9, halving=2)
    with pytest.raises(ValueError, match='`keep` must be a whole number of at least 1'): halving_plan(9, keep=0)
    with pytest.raises(ValueError, match='at least 3'): probe_set([0,1]*9, 2)

def test_another_metric_on_the_same_images(monkeypatch):
    "Images and labels are asked for once"
    import distill_nb.similarity as module
    dls,zoo,*_ = world()
    asked,items = [],module.image_items
    monkeypatch.setattr(module, 'image_items', lambda o: asked.append(o) or items(o))
    kw = dict(n=40, seed=3, store=False, progress=False)
    r = rank_sources(dls, zoo, **kw)
    other = r.top(1).by('parc', progress=False)
    assert len(asked)==1 and other.probe is r.probe and (r.probe.dls,r.probe.n,r.probe.seed,r.probe.store)==(dls,40,3,False)
    want = rank_sources(dls, zoo, 'parc', **kw).only(['good'])
    for k in ('scores','replicates','null','n_probe'): np.testing.assert_array_equal(getattr(other, k), getattr(want, k))
    assert other.metric=='parc' and r.by('cka', debiased=True, progress=False).metric=='cka(debiased=True)'
    with pytest.raises(ValueError, match='Rank again'): Ranking(['a','b'], [1,2]).by('parc')

def test_checks_of_a_ranking():
    r = Ranking(list('abcd'), [4,3,2,1], n_probe=10, replicates=np.random.default_rng(0).normal(size=(9,4)))
    with pytest.raises(ValueError, match='one per source'): r.check([1,2])
    with pytest.raises(ValueError, match='lack b, c, d'): r.check({'a':1})
    with pytest.raises(ValueError, match='`accuracies` of b are not finite'): r.check([1,np.nan,2,3])
    with pytest.raises(ValueError, match='no order'): r.check([.5]*4)
    with pytest.raises(ValueError, match='has one'): r.top(1).stability()

def test_warnings_name_the_caller():
    dls,zoo,*_ = world()
    zoo = list(zoo)+[live('torn', fail('torn file'))]
    with pytest.warns(UserWarning, match='torn file') as w: r = rank_sources(dls, zoo, store=False, progress=False)
    assert w[0].filename==__file__
    r.zoo = zoo
    with pytest.warns(UserWarning, match='torn file') as w: r.by('parc', progress=False)
    assert w[0].filename==__file__
