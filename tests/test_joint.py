"The joint teacher: what it finds, what it must not lose, and what it refuses"
import resource
import numpy as np, pytest, torch
from sklearn.linear_model import Ridge
from distill_nb.data import image_dls
from distill_nb.items import get_images
from distill_nb.joint import fit_ridge, gaussian_logits, joint_features, joint_labels, learn_from_pool, source_axes
from distill_nb.learner import distill_learner
from distill_nb.packs import digits_dls
from distill_nb.ranking import WeightedSources
from distill_nb.sources import Source
from distill_nb.teach import Hints, Joint, Probes, SourceClasses
from distill_nb.zoo import Zoo

quiet = dict(store=False, progress=False)

@pytest.fixture(scope='module')
def digits():
    dls,pool = digits_dls(n=3, seed=0)
    return dls,pool[:120],[Zoo.embedded()[o] for o in ('digits','objects')]

def clouds(n=400, c=4, d=24, apart=1., shares=None, seed=0):
    "(rows with a mean square length of 1, classes): Gaussians of one shape that is not round"
    rng = np.random.default_rng(seed)
    y = rng.choice(c, n, p=shares)
    x = apart*rng.standard_normal((c,d))[y] + rng.standard_normal((n,d))*np.linspace(.3, 3, d)
    x = x - x.mean(0)
    return torch.tensor(x/np.sqrt((x**2).sum(1).mean())).float(),y

def split(y, per, seed=0):
    rng = np.random.default_rng(seed)
    few = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:per] for c in np.unique(y)])
    return few,np.setdiff1d(np.arange(len(y)), few)

def right(z, y, rows, w, b): return ((z[rows]@w + b).argmax(1).numpy() == y[rows]).mean()

def both(z, y, few, rest):
    "Accuracy on the pool by the labels alone, and with the pool"
    ridge = fit_ridge(z[few], y[few])
    return [right(z, y, rest, *o) for o in (ridge, learn_from_pool(z[few], y[few], z[rest], *ridge))]

# joint features

def test_a_source_in_other_units_says_the_same():
    x = [torch.randn(30, 8), torch.randn(30, 50)]
    z = joint_features(x)
    torch.testing.assert_close(joint_features([1e3*x[0] + 5, x[1]]), z, atol=1e-3, rtol=1e-3)
    assert z.square().sum().item() == pytest.approx(30, rel=1e-4)

def test_distances_add_up_by_weight():
    x = [torch.randn(20, 5), torch.randn(20, 7)]
    a,b,both = joint_features(x[:1]),joint_features(x[1:]),joint_features(x, [.8,.2])
    gram = lambda z: z@z.T
    torch.testing.assert_close(gram(both), .8*gram(a) + .2*gram(b), atol=1e-4, rtol=1e-3)

def test_axes_serve_images_that_had_no_part():
    x = torch.randn(40, 6)
    middle,axes = source_axes(x[:30], .5, k=3)
    assert axes.shape == (6,3)
    assert ((x[:30]-middle)@axes).square().sum().item() == pytest.approx(15, rel=1e-4)
    assert ((x[30:]-middle)@axes).isfinite().all()

def test_features_that_do_not_vary():
    assert (joint_features([torch.ones(5, 4), torch.randn(5, 4)])[:,:4] == 0).all()

# the labels

def test_classes_count_alike_however_many_labels():
    z,y = clouds(300, 2, shares=[.9,.1])
    w,b = fit_ridge(z, y)
    few = np.concatenate([np.flatnonzero(y == 0)[:(y == 1).sum()], np.flatnonzero(y == 1)])
    assert abs(right(z, y, y == 0, w, b) - right(z, y, y == 1, w, b)) < .15
    even = fit_ridge(z[few], y[few])
    assert abs((z@w + b).softmax(1)[:,1].mean() - (z@even[0] + even[1]).softmax(1)[:,1].mean()) < .1

def test_even_labels_are_an_ordinary_ridge():
    z,y = clouds(40, 2)
    few,_ = split(y, 6)
    w,b = fit_ridge(z[few], y[few], ridge=2., sure=1.)
    fit = Ridge(2.).fit(z[few].numpy(), np.eye(2)[y[few]])
    np.testing.assert_allclose(w.numpy(), fit.coef_.T, atol=1e-5)
    np.testing.assert_allclose(b.numpy(), fit.intercept_, atol=1e-5)

# the pool

@pytest.mark.parametrize('shares', [None, [.55,.25,.15,.05]], ids=['even','uneven'])
def test_clusters_are_found(shares):
    gain = []
    for seed in range(5):
        z,y = clouds(shares=shares, seed=seed)
        labels,pool = both(z, y, *split(y, 2, seed))
        gain.append(pool-labels)
    assert np.mean(gain) > .05 and min(gain) > -.02

def test_nothing_is_lost_where_there_are_none():
    "One direction of many tells the classes apart, without a gap, and one class is rare"
    gain = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((500,40))
        y = (z[:,0] + .5*rng.standard_normal(500) > 1).astype(int)
        z = torch.tensor(z/np.sqrt(40)).float()
        labels,pool = both(z, y, *split(y, 5, seed))
        gain.append(pool-labels)
    assert np.mean(gain) > -2*np.std(gain)/np.sqrt(len(gain))

def test_labels_that_say_nothing_stay_chance():
    z,_ = clouds(300, 3)
    y = np.random.default_rng(99).integers(0, 3, 300)
    assert both(z, y, *split(y, 5))[1] < .45

def test_it_is_discriminant_analysis():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    z,y = clouds(300, 3, d=6)
    one = torch.nn.functional.one_hot(torch.tensor(y)).float()
    w,b = gaussian_logits(one.sum(0), one.T@z, z.T@z, shrink=0.)
    lda = LinearDiscriminantAnalysis(solver='lsqr').fit(z.numpy(), y)
    np.testing.assert_allclose((z@w + b).softmax(1).numpy(), lda.predict_proba(z.numpy()), atol=.02)

@pytest.mark.parametrize('n', [0, 1, 3])
def test_a_pool_of_hardly_any_images(n):
    z,y = clouds(60, 3)
    few,rest = split(y, 2)
    w,b = learn_from_pool(z[few], y[few], z[rest[:n]], *fit_ridge(z[few], y[few]))
    assert w.isfinite().all() and b.isfinite().all()
    assert right(z, y, few, w, b) > .6

@pytest.mark.parametrize('seed', range(4))
def test_more_directions_than_images(seed):
    "As with several sources and a small pool: most directions are empty"
    rng = np.random.default_rng(seed)
    x = [torch.tensor(rng.standard_normal((90,d))*.9**np.arange(d)).float() for d in (256,64,256,128,64,64)]
    z,y = joint_features(x),np.arange(90)%10
    w,b = learn_from_pool(z[:30], y[:30], z[30:], *fit_ridge(z[:30], y[:30]))
    assert w.isfinite().all() and b.isfinite().all() and w.abs().max() < 1e3

def test_one_image_alone_has_no_directions():
    assert (joint_features([torch.randn(1, 4)]) == 0).all()

def test_order_and_blocks_do_not_matter():
    z,y = clouds(200, 3)
    few,rest = split(y, 3)
    ridge = fit_ridge(z[few], y[few])
    w,b = learn_from_pool(z[few], y[few], z[rest], *ridge)
    for other in (learn_from_pool(z[few], y[few], z[rest].flip(0), *ridge), learn_from_pool(z[few], y[few], z[rest], *ridge, rows=17)):
        torch.testing.assert_close(other[0], w, atol=1e-2, rtol=1e-2)

def test_a_hundred_thousand_images_of_a_thousand_classes_need_little_memory():
    "Beside the features themselves, a block at a time: the answers of all would be 400 MB"
    z = torch.randn(100_000, 32)/32**.5
    y = np.arange(1000)
    few = z[:1000].clone()
    ridge = fit_ridge(few, y)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    learn_from_pool(few, y, z, *ridge, steps=1, k=16)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000 # KB

# from sources

def alike(*sources): return WeightedSources(list(sources), [1.]*len(sources))

def test_a_class_without_a_label_gets_none(digits):
    dls,pool,sources = digits
    images,y = get_images(dls),np.array([0,0,0,3,3,3])
    small = image_dls(list(images[:6]), y, list(images[:6]), y, bs=2)
    small.c = 4 # of a vocabulary with more classes
    p = joint_labels(sources, [1,1], small, pool, **quiet)
    assert p.shape == (120,4) and (p[:,2:] == 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(120))

def test_one_class_alone_is_refused(digits, monkeypatch):
    dls,pool,sources = digits
    monkeypatch.setattr('distill_nb.joint.item_labels', lambda dls: np.zeros(len(get_images(dls)), int))
    with pytest.raises(ValueError, match='`dls`: all labelled images are of one class'): joint_labels(sources, [1,1], dls, pool, **quiet)

def test_images_that_are_asked_about_have_no_part_in_the_fit(digits):
    dls,pool,sources = digits
    p = joint_labels(sources, [1,1], dls, pool[:80], asked=pool[80:], **quiet)
    q = joint_labels(sources, [1,1], dls, pool[:80], asked=pool[80:100], **quiet)
    torch.testing.assert_close(p[:20], q, atol=1e-3, rtol=1e-3)

def test_labelled_images_in_the_pool_are_there_once(digits):
    dls,pool,sources = digits
    p = joint_labels(sources, [1,1], dls, pool, **quiet)
    q = joint_labels(sources, [1,1], dls, pool + get_images(dls), **quiet)
    torch.testing.assert_close(q[:120], p, atol=1e-3, rtol=1e-3)
    labels = np.concatenate([[int(o[1])] for o in dls.train_ds])
    assert (q[120:].argmax(1).numpy() == labels).mean() > .9

def test_arrays_are_sources_too(digits):
    dls,pool,_ = digits
    images = list(get_images(dls)) + list(pool)
    arrays = Source.from_arrays('table', images, torch.randn(len(images), 16))
    p = Joint()(alike(arrays), dls, pool, store=False, progress=False).probs
    assert p.shape == (120,10) and p.isfinite().all()

def test_temperature_makes_surer(digits):
    dls,pool,sources = digits
    p,q = (joint_labels(sources, [1,1], dls, pool, T=T, **quiet) for T in (1.,.2))
    assert q.max(1).values.mean() > p.max(1).values.mean()

def test_steps_zero_is_the_labels_alone(digits):
    dls,pool,sources = digits
    kw = dict(asked=pool[100:], steps=0, **quiet)
    p = joint_labels(sources, [1,1], dls, pool[:100], **kw)
    assert p.isfinite().all() and not torch.allclose(p, joint_labels(sources, [1,1], dls, pool[:100], **(kw | dict(steps=10))), atol=1e-2)

def test_a_learner_learns_from_it_alone_or_in_company(digits):
    dls,pool,sources = digits
    for teach in (Joint(), Joint() + Hints(.1)):
        learn = distill_learner(dls, pool, sources, 'resnet10t', pretrained=False, teach=teach, p=0, **quiet)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        assert np.isfinite(learn.recorder.losses[-1].item())

def test_answers_of_ways_to_teach(digits):
    dls,pool,sources = digits
    for teach in (Joint(), Probes(), Joint() + Hints()):
        assert teach.answers(alike(*sources), dls, pool[:100], pool[100:], store=False, progress=False).shape == (20,10)
    with pytest.raises(ValueError, match='does not teach'): SourceClasses().answers(alike(*sources), dls, pool, store=False)
