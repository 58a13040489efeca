"Which images to label: what is chosen, and what is left out"
import numpy as np, pytest, torch
from PIL import Image
from distill_nb.choose import choose_from, choose_images, cosine_similarity, doubt, facility_location, probe_answers
from distill_nb.items import get_images
from distill_nb.packs import digits_dls
from distill_nb.sources import Source
from distill_nb.zoo import Zoo

quiet = dict(store=False, progress=False)

@pytest.fixture(scope='module')
def digits():
    dls,pool = digits_dls(n=3, seed=0)
    return dls,pool[:80],[Zoo.embedded()[o] for o in ('digits','objects')]

def blobs(sizes, d=8, seed=0):
    "Features of groups of images, and the group of each"
    rng = np.random.default_rng(seed)
    middles = 5*np.eye(len(sizes), d)
    return np.concatenate([m + .3*rng.standard_normal((n,d)) for m,n in zip(middles, sizes)]),np.repeat(np.arange(len(sizes)), sizes)

def test_each_group_gets_its_label_before_any_gets_two():
    x,group = blobs([40,20,10,5])
    first = facility_location(cosine_similarity(x - x.mean(0)), 4)
    assert sorted(group[first]) == [0,1,2,3]

def test_the_sum_is_what_the_greedy_step_maximises():
    s = cosine_similarity(np.random.default_rng(1).standard_normal((30,4)))
    w = np.random.default_rng(2).random(30)
    def value(chosen): return (w*s[:,chosen].max(1)).sum()
    order = facility_location(s, 4, labeled=[7], demand=w).tolist()
    for k,i in enumerate(order):
        before = [7,*order[:k]]
        assert value([*before, i]) >= max(value([*before, j]) for j in range(30)) - 1e-4

def test_a_copy_is_chosen_last():
    x,_ = blobs([10,10,10])
    x = np.concatenate([x, x[:1]])
    order = facility_location(cosine_similarity(x), 30, labeled=[0])
    assert order[-1] == 30 or np.allclose(x[order[-1]], x[0])

def test_doubt_moves_the_choice_to_the_doubtful():
    x,group = blobs([30,30,30])
    s = cosine_similarity(x - x.mean(0))
    labeled = np.array([0,30,60])
    unsure = np.where(group == 2, 1., .01)
    assert (group[facility_location(s, 5, labeled, unsure)] == 2).all()

def test_probes_know_no_class_that_no_label_has():
    x,_ = blobs([10,10,10])
    p = probe_answers([torch.tensor(x)], np.array([0,1,10,11]), [0,0,2,2], 3)
    assert p.shape == (1,30,3) and (p[0,:,1] == 0).all()
    np.testing.assert_allclose(p.sum(2), 1)
    assert p[0,:10].argmax(1).tolist() == [0]*10

def test_doubt_follows_from_the_number_of_labels():
    x,group = blobs([20,20])
    few,many = np.array([0,1,20,21]),np.array([0,1,2,20,21,22])
    def why(labeled): return choose_from([torch.tensor(x)], 3, labeled, [f'class {o}' for o in group[labeled]])
    typical,_,_,p = why(few)
    assert p is not None and np.array_equal(typical, choose_from([torch.tensor(x)], 3, few, list('aabb'), how='typical')[0])
    assert np.array_equal(why(many)[0], choose_from([torch.tensor(x)], 3, many, list('aaabbb'), how='doubtful')[0])

def test_labelled_images_are_left_out(digits):
    dls,pool,sources = digits
    first = choose_images(pool, sources, 6, **quiet)
    given = [pool[int(i)] for i in first.order],list('aabbab')
    then = choose_images(pool, sources, 6, labeled=given, **quiet)
    assert len(then.images) == len(pool)-6 and then.vocab == ['a','b']
    keys = set(get_images(given[0]).keys)
    assert not keys & set(get_images(list(then.chosen)).keys)

def test_a_large_pool_is_sampled_by_its_seed(digits):
    _,pool,sources = digits
    def chosen(seed): return get_images(list(choose_images(pool, sources, 4, most=30, seed=seed, **quiet).chosen)).keys
    assert chosen(1) == chosen(1) != chosen(2)
    assert len(choose_images(pool, sources, 4, most=30, **quiet).images) == 30

def test_a_way_of_ones_own(digits):
    _,pool,sources = digits
    def last(x, n, labeled, probs):
        assert x.shape[0] == len(pool) and probs is None
        return np.arange(len(x))[-n:]
    assert choose_images(pool, sources, 3, how=last, **quiet).order.tolist() == [77,78,79]

def test_a_source_of_arrays_takes_part(digits):
    _,pool,sources = digits
    arrays = Source.from_arrays('numbers', pool, np.random.default_rng(0).standard_normal((80,5)).astype('float32'))
    assert len(choose_images(pool, [*sources, arrays], 5, **quiet)) == 5

def test_more_than_there_are(digits):
    _,pool,sources = digits
    assert len(choose_images(pool[:5], sources, 9, **quiet)) == 5

def test_doubt_of_one_class_is_whole():
    assert doubt(np.ones((3,1))).tolist() == [1,1,1]

def test_files_are_called_by_folder_and_name(tmp_path, digits):
    for i in range(4): Image.fromarray(np.full((32,32,3), 60*i, np.uint8)).save(tmp_path/f'{i}.png')
    c = choose_images(tmp_path, digits[2], 2, **quiet)
    assert set(c.to_frame().image) <= {f'{tmp_path.name}/{i}.png' for i in range(4)}
    assert 'stands for' in c._repr_html_() and repr(c) == 'Choice of 2 images from 4'
