"Labels that look wrong: the short cut equals the long way, flips are found, copies count once, images that belong nowhere are told"
import io
import numpy as np, pytest, torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.special import softmax
from distill_nb.items import get_images
from distill_nb.sources import Source
from distill_nb.suspects import Suspects, far_from_all, find_suspects, held_out_ridge, judge_labels, label_doubts, near_pairs
from distill_nb.suspects import same_picture, same_pictures, suspect_labels

def blobs(n=90, c=3, d=6, spread=1., seed=0):
    "Features and labels of `c` groups"
    rng = np.random.default_rng(seed)
    y = np.arange(n)%c
    return 4*rng.normal(size=(c, d))[y] + spread*rng.normal(size=(n, d)), y

def one_hot(y, c): return np.eye(c)[y]

def scenes(n, seed=0):
    "`n` pictures of smooth noise"
    rng = np.random.default_rng(seed)
    return [np.asarray(Image.fromarray(o).resize((48,48), Image.BICUBIC)) for o in rng.integers(0, 256, (n,6,6,3), dtype=np.uint8)]

def arrays(images, x): return [Source.from_arrays('s', images, torch.tensor(x, dtype=torch.float32))]

def ridge_without(x, y, out, lam):
    "Scores of the rows `out` by a ridge regression fitted to the others"
    x,keep,one = (x - x.mean(0)),np.setdiff1d(np.arange(len(x)), out),np.eye(y.max()+1)[y]
    x = x*np.sqrt(len(x)/np.square(x).sum())
    a,b = x[keep]-x[keep].mean(0),one[keep]-one[keep].mean(0)
    return (x[out]-x[keep].mean(0))@np.linalg.solve(a.T@a + lam*np.eye(x.shape[1]), a.T@b) + one[keep].mean(0)

@pytest.mark.parametrize('groups', [None, np.arange(30)//2, np.r_[np.zeros(4, int), np.arange(1, 27)]])
def test_the_short_cut_is_leaving_out(groups):
    x,y = blobs(30, spread=4.)
    p,g = held_out_ridge(x, y, groups),np.arange(30) if groups is None else groups
    def by_hand(l): return np.concatenate([softmax(ridge_without(x, y, np.flatnonzero(g==o), l), axis=1) for o in np.unique(g)])
    order = np.concatenate([np.flatnonzero(g==o) for o in np.unique(g)])
    assert min(abs(by_hand(l) - p[order]).max() for l in np.logspace(-3, 2, 21)) < 1e-6

def test_more_columns_than_images():
    x,y = blobs(20, d=400)
    p = held_out_ridge(x, y)
    assert np.isfinite(p).all() and (p.argmax(1)==y).mean() > .9

@pytest.mark.parametrize('share', [0., .05, .15])
def test_flipped_labels_are_found_and_no_others(share):
    x,y = blobs(120)
    given,bad = y.copy(),np.random.default_rng(1).choice(120, round(share*120), replace=False)
    given[bad] = (y[bad]+1)%3
    t = suspect_labels(held_out_ridge(x, given), given)
    assert set(t.image) == set(bad) and (t.answered.to_numpy()==y[t.image]).all()

def test_doubts_are_chances():
    rng,c = np.random.default_rng(0),5
    p = rng.dirichlet([.3]*c, 4000)
    truth = (p.cumsum(1) > rng.random((4000,1))).argmax(1)
    wrong = rng.random(4000) < .1
    given = np.where(wrong, (truth + rng.integers(1, c, 4000))%c, truth)
    doubt,_ = label_doubts(p**.5/(p**.5).sum(1, keepdims=True), given)                        # too unsure: the temperature makes up for it
    for low,high in ((0,.05),(.05,.3),(.3,.7),(.7,1)):
        some = (doubt >= low) & (doubt <= high)
        assert abs(wrong[some].mean() - doubt[some].mean()) < .06, (low, high)

def test_who_knows_nothing_contradicts_nothing():
    x,y = np.random.default_rng(0).normal(size=(60,5)),np.arange(60)%3
    assert not len(suspect_labels(held_out_ridge(x, y), y, .5))

@pytest.mark.parametrize('edit', [ImageOps.mirror, lambda im: im.resize((24,24)).resize((48,48)),
                                  lambda im: ImageEnhance.Brightness(im).enhance(.8)])
def test_one_picture_in_another_form(edit):
    a,b = scenes(2)
    assert same_picture(a, np.asarray(edit(Image.fromarray(a)))) and not same_picture(a, b)

def test_a_file_that_is_there_twice(tmp_path):
    images = scenes(4)
    with io.BytesIO() as f:
        Image.fromarray(images[0]).save(f, 'png')
        for name in ('a.png','b.png'): (tmp_path/name).write_bytes(f.getvalue())
    items = get_images([tmp_path/'a.png', tmp_path/'b.png', *images[1:]])
    assert same_pictures(items, np.eye(5), np.empty((0,2), int)).tolist() == [0,0,1,2,3]      # by content alone

def test_a_class_of_one_picture_is_not_judged():
    x,y = blobs(40)
    x,y = np.r_[x, x[:1], x[:1]],np.r_[y, 3, 3]
    doubt,p = judge_labels(x, y, np.r_[np.arange(40), 40, 40])
    assert (doubt[40:]==0).all() and p.shape == (42,4)

def test_near_pairs_in_blocks():
    x,_ = blobs(50)
    assert (near_pairs(x, .95, 7)==near_pairs(x, .95)).all() and (np.diff(near_pairs(x, .95)) > 0).all()

def test_a_stranger_is_far():
    x,_ = blobs(60, c=1)
    z = far_from_all(np.r_[x, [[90.]*6]])
    assert z[60] > 1.5 and (z[:60] <= 1.5).mean() > .9

def case(seed=0):
    """Forty pictures of two classes: number 5 has the wrong label, number 40 is number 6 mirrored with the other
    label, the pool has a stranger"""
    x,y = blobs(40, c=2, seed=seed)
    images,names = scenes(44),['cat' if o else 'dog' for o in y]
    images[40] = images[6][:,::-1].copy()
    x = np.r_[x, x[6:7], x[10:11]+.3, x[11:12]+.3, [[9.,-9.,9.,-9.,9.,-9.]]]
    names[5] = 'cat' if names[5]=='dog' else 'dog'
    names.append('cat' if names[6]=='dog' else 'dog')
    return images,x,names

def test_all_kinds_of_doubt_in_one_table():
    images,x,names = case()
    s = find_suspects((images[:41], names), arrays(images, x), images[41:], progress=False)
    t = s.to_frame()
    assert s.order.tolist()[0] in (40,6) and set(s.order) == {s.order[0], 5, 43}
    assert t.why[0].startswith('the same picture as image') and t.proposed[0]==names[6]
    five = s.order.tolist().index(5)
    assert (t.given[five],t.proposed[five]) == (names[5],names[7]) and .2 <= t.sure[five] <= 1 and 'take it for' in t.why[five]
    assert tuple(t.iloc[-1][['given','proposed','why']]) == ('','','unlike all other images') and np.isnan(t.sure.iloc[-1])
    assert np.shape(s.probs) == (44,2) and len(s.chosen)==len(t) and isinstance(s, Suspects)

def test_mending_takes_the_proposals():
    images,x,names = case()
    s = find_suspects((images[:41], names), arrays(images, x), progress=False)
    right = ['cat' if o else 'dog' for o in np.arange(40)%2]
    assert s.mended()[:40] == right and s.mended()[40]==right[6] and s.mended([]) == names

def test_nothing_is_suspect_among_good_labels():
    images,x,names = case()
    names[5] = names[7]
    s = find_suspects((images[:40], names[:40]), arrays(images, x), progress=False)
    assert not len(s.order) and not len(s.to_frame()) and s.mended()==names[:40]
    assert s.show() is None

def test_the_pool_may_hold_the_labelled_images():
    images,x,names = case()
    s = find_suspects((images[:40], names[:40]), arrays(images, x), images, progress=False)
    assert len(s.images)==44 and 5 in s.order

def test_wrong_labels_are_found_where_all_agree():
    rng,y = np.random.default_rng(1),np.arange(200)%5
    def candidate(seed): return .9*one_hot(y, 5) + .1*np.random.default_rng(seed).dirichlet([1]*5, 200)
    given = y.copy()
    bad = rng.choice(200, 7, replace=False)
    given[bad] = (y[bad]+1)%5
    assert set(suspect_labels(dict(a=candidate(1), b=candidate(2)), given).image) == set(bad)
    assert set(suspect_labels(candidate(1), given).image) == set(bad)                      # one alone
    assert not len(suspect_labels([one_hot(given, 5),one_hot((given+1)%5, 5)], given))       # they contradict one another, not the labels
