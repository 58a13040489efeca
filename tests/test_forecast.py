"A forecast of what more labels bring: the measured part is unbiased where it says so, the sentence says what the numbers say"
import time
import numpy as np, pandas as pd, pytest
from scipy.special import expit, logit
from distill_nb import forecast as fc
from distill_nb.forecast import Forecast, forecast_accuracy, forecast_from, held_out_curve, kernel_of, ridge_answers
from distill_nb.sources import Source
from distill_nb.zoo import Zoo
import torch

rng = np.random.default_rng(0)

def task(n, c=5, d=40, apart=1.2, seed=0):
    "Features of `n` images of `c` classes that overlap, and the classes"
    r = np.random.default_rng(seed)
    y = r.integers(0, c, n)
    return np.random.default_rng(9).normal(size=(c,d))[y]*apart*.35 + r.normal(size=(n,d)),y

def of(x): return kernel_of([torch.tensor(x)])

def test_the_ridge_is_that_of_scikit_learn():
    from sklearn.linear_model import Ridge
    x,y = task(60)
    k,train = of(x),np.arange(60) < 40
    z = (x-x.mean(0))/np.sqrt(x.var(0) + x.var(0).mean())
    z /= np.sqrt(np.square(z).sum(1).mean())
    model = Ridge(1.).fit(z[train], np.eye(5)[y[train]])
    assert (ridge_answers(k, y, train) == model.predict(z[~train]).argmax(1)).all()

@pytest.mark.parametrize('even', [True,False])
def test_the_measured_curve_is_what_other_images_show(even):
    "Mean over draws of labels: within two points and a half of the accuracy on images that were never labelled"
    at = []
    for seed in range(30):
        x,y = task(1000, seed=seed)
        few = np.concatenate([np.flatnonzero(y == c)[:8] for c in range(5)]) if even else np.arange(40)
        curve = held_out_curve(of(x[few]), y[few], times=10, seed=seed)
        half = np.concatenate([np.flatnonzero(y == c)[:4] for c in range(5)]) if even else np.arange(20)
        train = np.isin(np.arange(1000), half)
        truth = (ridge_answers(of(x), y, train) == y[~train]).mean()
        at.append((np.interp(20, curve.labels, curve.accuracy), truth))
    measured,truth = np.mean(at, 0)
    assert abs(measured-truth) < .025, (measured, truth)

def test_every_class_keeps_its_share():
    y = np.repeat(np.arange(4), 6)
    for share in fc._shares(y): assert len({int(fc._draw(y, share, rng)[y == c].sum()) for c in range(4)}) == 1

def test_more_labels_are_never_forecast_to_harm():
    x,y = task(60)
    a,b = (forecast_from(of(x), y, more) for more in (20,200))
    for f in (a,b):
        new = f.curve[~f.curve.measured]
        assert new.accuracy.is_monotonic_increasing and new.high.is_monotonic_increasing and new.labels.iloc[0] == 60
        assert f.low < f.then < f.high <= 1 and f.gain > 0 and f.now == new.accuracy.iloc[0] == new.low.iloc[0]
    assert a.then < b.then and a.now == b.now

def test_the_interval_is_that_of_the_equation():
    "At a level that is known, 80 % of what the equation draws lies within"
    b,s,s0 = fc.slopes['even']
    gain,low,high = fc._forecasts(.4, 10**7, [10**7], 'even', 0)
    draws = .4 + b*np.log(2) + np.sqrt((s*np.log(2))**2 + s0**2)*rng.standard_normal(20000)
    inside = (expit(draws)-expit(.4) > low) & (expit(draws)-expit(.4) < high)
    assert abs(inside.mean()-.8) < .02 and low[0] < gain[0] < high[0]

def test_chosen_labels_move_the_curve_up_and_have_their_own_slope():
    x,y = task(60)
    a,b = (forecast_from(of(x), y, chosen=o) for o in (False,True))
    assert abs(logit(b.now)-logit(a.now)-fc.chosen_shift) < 1e-9
    up = logit(b.curve[b.curve.measured].accuracy) - logit(a.curve[a.curve.measured].accuracy)
    assert np.allclose(up, fc.chosen_shift) and b.low < b.then < b.high
    assert abs(logit(b.then)-logit(b.now)-fc.slopes['chosen'][0]*np.log(80/60)) < 1e-9

def test_the_curve_goes_on_from_the_last_point():
    "With falling accuracies, and with those that have come to rest"
    curve = pd.DataFrame(dict(labels=[10.,20.,40.], accuracy=[.2,.3,.9], images=50))
    assert abs(expit(fc._level(curve, 50))-45.5/51) < 1e-9
    steady = curve.assign(accuracy=[.5,.62,.74])
    assert fc._level(steady, 50) > logit(.74)

def test_the_same_labels_in_another_order_and_by_name():
    x,y = task(50)
    names = np.array(list('zyxwv'))[y]
    a,b = forecast_from(of(x), y),forecast_from(of(x), names)
    assert abs(a.now-b.now) < .05 and forecast_from(of(x), y).numbers == a.numbers

few = {'one class': [0]*20, 'one alone': [0]*19+[1], 'all alone': list(range(20)), 'seven': [0,0,1,1,2,2,3]}
@pytest.mark.parametrize('labels', few.values(), ids=few)
def test_too_few_to_say(labels):
    with pytest.raises(ValueError, match='too few for a forecast') as e: forecast_from(np.eye(len(labels)), labels)
    assert '\n' not in str(e.value)

def test_sources_are_not_asked_before_the_labels_are_looked_at(monkeypatch):
    def ran(*args, **kwargs): raise AssertionError('too late')
    monkeypatch.setattr(fc, 'get_features', ran)
    pics = rng.integers(0, 256, (6,8,8,3), dtype=np.uint8)
    zoo = Zoo.embedded(names=['digits'])
    with pytest.raises(ValueError, match='too few'): forecast_accuracy(zoo, list(pics), [0,1]*3)
    with pytest.raises(ValueError, match='5 labels for 6 images'): forecast_accuracy(zoo, list(pics), [0,1,0,1,1])
    with pytest.raises(ValueError, match='`more` must be'): forecast_accuracy(zoo, list(pics), [0,1]*3, more=0)

@pytest.mark.parametrize('now,then,low,high,says', [
    (.5, .53, .51, .55, 'about 3 points (1 to 5).'), (.5, .51, .505, .52, 'about 1 point (1 to 2).'),
    (.5, .54, .49, .58, 'about 4 points, at most about 8, perhaps none.'), (.5, .504, .5, .504, 'less than a point, at most about 1.')])
def test_the_sentence(now, then, low, high, says):
    assert str(Forecast(pd.DataFrame(), now, then, low, high, 20)) == f'Another 20 labels would bring {says}'

def test_five_sources_and_a_hundred_labels_take_a_second():
    "One core of its own: .3 s; here with room for other work"
    x,y = task(100, d=1280)
    pics = rng.integers(0, 256, (100,8,8,3), dtype=np.uint8)
    zoo = Zoo([Source.from_arrays(f's{i}', list(pics), x + .1*i*rng.normal(size=x.shape)) for i in range(5)])
    start = time.process_time()
    f = forecast_accuracy(zoo, list(pics), y, progress=False, store=False)
    assert time.process_time()-start < 3 and f.now > .3
