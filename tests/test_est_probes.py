"kNN and the linear probe against loops and scikit-learn, their invariances, ties, rare classes, bad input."
import numpy as np, pytest, torch, warnings
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_score
from distill_nb.estimators.core import metrics
from distill_nb.estimators.probes import fit_probe, knn, linear_probe, _folds, _scaled, _axes, _softmax_regression

def naive_knn(x, y, k=5, metric='cosine'):
    "One image at a time, with the three rules for ties as the notebook states them"
    x = np.asarray(x, float)
    x = x-x.mean(0)
    n,right = len(x),0
    unit = np.sqrt((x**2).sum(1).mean())
    for i in range(n):
        others = [j for j in range(n) if j!=i]
        if metric=='cosine':
            norm = lambda v: 0 if (v**2).sum()<1e-22*(x**2).sum(1).max() else np.sqrt((v**2).sum())
            s = {j:(x[i]@x[j]/(norm(x[i])*norm(x[j])) if norm(x[i])*norm(x[j]) else 0.) for j in others}
        else: s = {j:-np.sqrt(((x[i]-x[j])**2).sum())/unit for j in others}
        kth = sorted(s.values())[-k]
        near,tied = [j for j in others if s[j]>kth+1e-10],[j for j in others if abs(s[j]-kth)<=1e-10]
        voice = {j:1. for j in near} | {j:(k-len(near))/len(tied) for j in tied}
        votes = {c:(sum(v for j,v in voice.items() if y[j]==c), sum(v*s[j] for j,v in voice.items() if y[j]==c)) for c in set(y)}
        most = max(v for v,_ in votes.values())
        lead = {c:b for c,(v,b) in votes.items() if v>most-1e-9}
        winners = [c for c,b in lead.items() if b>max(lead.values())-1e-6]
        right += (y[i] in winners)/len(winners)
    return right/n

def data(kind, n, d, c=4, seed=0, rare=False):
    r = np.random.default_rng(seed)
    y = np.r_[0:c, r.integers(0, c, n-c)] if not rare else np.r_[0:c, np.zeros(n-c, int)+r.integers(0, 2, n-c)]
    x = r.normal(size=(n,d)) + r.normal(size=(c,d))[y]
    if kind=='tied': x = x.round()
    if kind=='twins': x[n//2:] = x[:n-n//2]
    if kind=='onehot': x = np.eye(d)[np.r_[0,1%d,r.integers(0, d, n-2)]]
    if kind=='scaled': x = x*10.**r.uniform(-6, 6, d)
    if kind=='shifted': x = x+1e3
    if kind=='dead': x[:,::3] = 5
    return x,y

kinds = ['random','tied','twins','onehot','scaled','shifted','dead']
@pytest.mark.parametrize('metric', ['cosine','euclidean'])
@pytest.mark.parametrize('n,d', [(40,8),(30,64),(12,2),(25,1)])
@pytest.mark.parametrize('kind', kinds)
def test_knn(kind, n, d, metric):
    if d==1 and kind in ('dead','onehot'): pytest.skip('constant')
    x,y = data(kind, n, d)
    for k in (1,2,5,n-1): assert knn(x, y, k, metric, block=7*n) == pytest.approx(naive_knn(x, y, k, metric), abs=1e-9)

def test_knn_sklearn():
    x,y = data('random', 80, 10)
    def sk(k, y): return cross_val_score(KNeighborsClassifier(k), x, y, cv=LeaveOneOut()).mean()
    assert knn(x, y, 1, 'euclidean') == pytest.approx(sk(1, y))
    two = (y>1).astype(int)         # three votes on two classes cannot tie
    assert knn(x, two, 3, 'euclidean') == pytest.approx(sk(3, two))

def test_knn_ties_by_hand():
    x = np.eye(2)[[0,0,0,1,1,1]]
    assert knn(x, [0,0,1,1,1,1], 1) == pytest.approx((.5+.5+0+3)/6)
    assert knn(np.eye(4), [0,0,1,1], 2) == pytest.approx(0)     # all equally near: 2/3 of a vote for the own class, 4/3 for the other
    assert knn([[0.],[1],[2],[9]], [0,0,1,1], 2, 'euclidean') == pytest.approx((1+.5+0+1)/4)
    assert knn(np.repeat(np.eye(3), 3, 0), np.tile([0,1,2], 3), 2) == 0

small = st.integers(0, 10**6)
@settings(max_examples=25, deadline=None)
@given(seed=small, n=st.integers(12,40), d=st.integers(2,40), kind=st.sampled_from(['random','tied','twins','onehot']),
    scale=st.floats(1e-3,1e3), shift=st.floats(-10,10))
def test_knn_what_does_not_matter(seed, n, d, kind, scale, shift):
    r = np.random.default_rng(seed)
    x,y = data(kind, n, d, seed=seed)
    order,q = r.permutation(n),np.linalg.qr(r.normal(size=(d,d)))[0]
    for m in ('cosine','euclidean'):
        want = knn(x, y, 3, m)
        same = [(x, r.permutation(50)[:4][y]), (x, np.array(list('wxyz'))[y]), (x[order], y[order]), (x[:,r.permutation(d)], y)]
        for a,b in [*same, (x@q, y), (x*scale+shift, y)]:
            assert knn(a, b, 3, m) == pytest.approx(want, abs=1e-9)
        assert 0<=want<=1

# the linear probe

def scaled_by(t, v):
    m,s = t.mean(0),t.std(0)
    dead = s<=1e-10*np.abs(t).max(0)
    f = lambda a: np.where(dead, 0, (a-m)/np.where(dead, 1, s))
    return f(t),f(v)

def sk(x, y, C=.1, folds=5, seed=0):
    "[n,classes] held-out probabilities by scikit-learn, same folds"
    fold,vocab = _folds(torch.tensor(np.unique(y, return_inverse=True)[1]), folds, seed).numpy(),np.unique(y)
    p = np.zeros((len(y),len(vocab)))
    for f in range(folds):
        t,v = scaled_by(x[fold!=f], x[fold==f])
        yt = y[fold!=f]
        if len(set(yt))==1:
            p[np.ix_(fold==f, vocab==yt[0])] = 1
            continue
        if len(set(yt))==2: # scikit-learn's two-class form has one weight vector w = w1-w0, penalty |w|^2/2 in place of |w|^2/4
            m = LogisticRegression(C=2*C, tol=1e-10, max_iter=20000).fit(t, yt)
        else: m = LogisticRegression(C=C, tol=1e-10, max_iter=20000).fit(t, yt)
        p[np.ix_(fold==f, np.isin(vocab, m.classes_))] = m.predict_proba(v)
    return p

def ours(x, y, C=.1, folds=5, seed=0):
    y = torch.tensor(np.unique(y, return_inverse=True)[1])
    x = torch.tensor(x)
    fold = _folds(y, folds, seed)
    p = torch.zeros(len(y), int(y.max())+1, dtype=torch.float64)
    for f in range(folds):
        known,code = y[fold!=f].unique(return_inverse=True)
        z = _scaled(x, fold!=f)
        t,v,s = _axes(z[fold!=f], z[fold==f])
        w = _softmax_regression(t, code, s, C)
        q = p.new_zeros(len(v), p.shape[1])
        q[:,known] = (v@w[:-1]+w[-1]).softmax(1)
        p[fold==f] = q
    return p.numpy()

@pytest.mark.parametrize('C', [.003,.1,3.])
@pytest.mark.parametrize('n,d,c', [(60,8,4),(50,90,5),(41,40,2),(30,1,3)])
def test_same_optimum(n, d, c, C):
    x,y = data('random', n, d, c)
    np.testing.assert_allclose(ours(x, y, C), sk(x, y, C), atol=1e-4)

@pytest.mark.parametrize('n,d', [(60,8),(50,90),(30,2)])
@pytest.mark.parametrize('kind', ['random','tied','twins','scaled','shifted','dead'])
def test_linear_probe(kind, n, d):
    x,y = data(kind, n, d)
    p = sk(x, y)
    best = p >= p.max(1, keepdims=True)*(1-1e-5)
    assert linear_probe(x, y) == pytest.approx(np.mean(best[range(n),y]/best.sum(1)), abs=1e-9)
    assert linear_probe(x, y, score='log_likelihood') == pytest.approx(np.log(p[range(n),y]).mean(), abs=1e-4)

def test_one_hot():
    "Rows that are the same have to get the same answer: ties are shared, not decided by rounding"
    x,y = data('onehot', 40, 6)
    a,b = linear_probe(x, y),linear_probe(x[:,::-1].copy(), y)
    assert a == pytest.approx(b, abs=1e-9) and 0<=a<=1

def test_rare_classes():
    x,y = data('random', 40, 5, c=12, rare=True)
    p = sk(x, y)
    assert (np.bincount(y)==1).sum()==10 and (p.argmax(1)==y)[2:12].sum()==0
    assert linear_probe(x, y) == pytest.approx((p.argmax(1)==y).mean()) and linear_probe(x, y)<=30/40
    with pytest.raises(ValueError, match='10 classes have one image'): linear_probe(x, y, score='log_likelihood')
    y = np.repeat(np.arange(8), 2)            # two images a class, five folds: never in the same fold
    x = np.random.default_rng(0).normal(size=(16,4))
    assert np.isfinite(linear_probe(x, y, score='log_likelihood'))
    assert linear_probe([[0.],[1],[5]], [0,0,1], folds=3) <= 2/3        # a fold whose training images are all of one class

@settings(max_examples=50, deadline=None)
@given(seed=small, counts=st.lists(st.integers(1,30), min_size=2, max_size=9), folds=st.integers(2,6))
def test_folds(seed, counts, folds):
    r = np.random.default_rng(seed)
    y = r.permutation(np.repeat(np.arange(len(counts)), counts))
    f = _folds(torch.tensor(y), folds, seed).numpy()
    np.testing.assert_array_equal(f, _folds(torch.tensor(r.permutation(len(counts))[y]), folds, seed).numpy())
    table = np.array([np.bincount(f[y==c], minlength=folds) for c in range(len(counts))])
    assert (np.ptp(table, axis=1)<=1).all() and np.ptp(table.sum(0))<=1

@settings(max_examples=20, deadline=None)
@given(seed=small, n=st.integers(12,40), d=st.integers(1,40), scale=st.floats(1e-3,1e3), shift=st.floats(-10,10))
def test_probe_what_does_not_matter(seed, n, d, scale, shift):
    r = np.random.default_rng(seed)
    x,y = data('random', n, d, seed=seed)
    y[:8] = np.arange(8)%4
    for s,tol in [('accuracy',1e-9),('log_likelihood',1e-5)]:
        want = linear_probe(x, y, score=s)
        same = [(x, r.permutation(50)[:4][y]), (x, np.array(list('wxyz'))[y]), (x[:,r.permutation(d)], y)]
        for a,b in [*same, (x*scale+shift, y), (x*r.uniform(.1,9,d), y)]:
            assert linear_probe(a, b, score=s) == pytest.approx(want, abs=tol)

def test_fit_probe():
    x,y = data('random', 60, 5)
    w,b = fit_probe(x, y)
    moved = fit_probe(3*x+7, y)                         # shift and scale of the features do not matter
    np.testing.assert_allclose(torch.tensor(3*x+7)@moved[0] + moved[1], torch.tensor(x)@w + b, atol=1e-6)
    wide,few = data('random', 20, 32)
    assert fit_probe(wide, few)[0].shape==(32,4)        # more features than images
    with pytest.raises(ValueError, match='one class'): fit_probe(x, y*0)

def test_names_and_blocks_do_not_matter():
    x,y = data('random', 60, 5)
    named = np.array(list('qwer'))[y]
    assert linear_probe(x, named)==linear_probe(x, y) and knn(x, named)==knn(x, y)
    assert knn(x, y, block=999) == pytest.approx(knn(x, y), abs=1e-12)
    assert knn(x[::-1].copy(), y[::-1].copy()) == pytest.approx(knn(x, y), abs=1e-12)
    assert knn(np.eye(3)[[0,0,1,1,2,2]], list('aabbcc'), k=1)==1
    for f in (knn,linear_probe):
        with pytest.raises(ValueError, match=f'{f.__name__} is defined for one class'): f(x, np.eye(4)[y])

def test_seed_and_folds():
    x,y = data('random', 60, 5)
    assert linear_probe(x, y, seed=1)==linear_probe(x, y, seed=1)
    assert len({linear_probe(x, y, seed=s) for s in range(8)})>1
    assert 0<=linear_probe(x, y, folds=2)<=1 and 0<=linear_probe(x[:12], y[:12], folds=12)<=1

def test_no_convergence_is_said():
    x,y = data('random', 60, 5)
    t = torch.tensor((x-x.mean(0))/x.std(0))
    t,_,s = _axes(t, t)
    with pytest.warns(UserWarning, match='did not converge'): _softmax_regression(t, torch.tensor(y), s, 1e3, max_iter=2)

# both

def test_inputs():
    x,y = data('random', 30, 6)
    keep,same = x.copy(),y.copy()
    x.setflags(write=False)
    y.setflags(write=False)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for f in (knn,linear_probe):
            s = f(x, y)
            assert isinstance(s, float) and f(x.tolist(), y.tolist())==s
            assert f(torch.tensor(keep, requires_grad=True), torch.tensor(same))==s
            h = torch.tensor(keep).half()
            assert f(h, y)==f(h.double().numpy(), y) and 0<=f(x.astype(np.float32), y)<=1 and 0<=f(x>0, y)<=1
            t = torch.tensor(keep)
            f(t, y)
            np.testing.assert_array_equal(t, keep)
            for big in (1e-40,1e40): assert f(x*big, y) == pytest.approx(s)
    np.testing.assert_array_equal(x, keep)
    np.testing.assert_array_equal(y, same)
    assert torch.equal(state, torch.get_rng_state())

X,Y = data('random', 20, 5)
@pytest.mark.parametrize('x,y,words', [
    (X, Y[:-1], '20 rows and labels 19'), (np.where(X>2, np.nan, X), Y, 'NaN'), (X*0, Y, 'constant'),
    (X, Y*0, 'one class only'), (X, np.eye(4)[Y], 'one class per image'), (X, Y/2, 'integer class indices'),
    (Y, X, 'swapped'), (X[:2], Y[:2], 'at least 3'), (X, np.arange(20), 'no two images share a class')])
def test_bad_input(x, y, words):
    for f in (knn,linear_probe):
        with pytest.raises(ValueError, match=words): f(x, y)

@pytest.mark.parametrize('f,kw,words', [
    (knn, dict(k=0), '`k` must'), (knn, dict(k=20), 'between 1 and 19'), (knn, dict(distance='l1'), "'l1'"),
    (linear_probe, dict(folds=1), '`folds` must be a whole number of at least 2'),
    (linear_probe, dict(folds=21), 'between 2 and 20'), (linear_probe, dict(C=0), '`C` must'),
    (linear_probe, dict(C=float('inf')), '`C` must'), (linear_probe, dict(score='f1'), "'f1'"), (fit_probe, dict(C=-1), '`C` must')])
def test_bad_options(f, kw, words):
    with pytest.raises(ValueError, match=words): f(X, Y, **kw)

def test_register():
    for f in (knn,linear_probe):
        assert metrics[f.__name__] is f and f.needs=='features' and f.range==(0.,1.) and not f.multi_label
    assert knn.rotation and not linear_probe.rotation
