"Training by cross-validation: nothing that is held out is learned from, what was stopped goes on, and wrong input is refused first"
import json
import numpy as np, pytest, torch
from fastai.vision.all import Callback
from distill_nb import folds, train
from distill_nb.items import image_items, item_labels
from distill_nb.packs import digits_dls
from distill_nb.files import disk_size
from distill_nb.report import size_words
from distill_nb.folds import Clock, Run, StopAfter, held_out_folds
from distill_nb.train import make_run, train_student
from distill_nb.teach import Probes
from distill_nb.zoo import Zoo

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Thirty scans of three digits, sixty without a label, two sources, a store"
    dls,pool = digits_dls(n=10, seed=1)
    y = item_labels(dls.train_ds)
    x = [o for o,c in zip(image_items(dls.train_ds), y) if c < 3]
    held,truth = zip(*[(o, f'd{c}') for o,c in zip(image_items(dls.valid_ds), item_labels(dls.valid_ds)) if c < 3])
    zoo = Zoo.embedded(names=['digits','objects'])
    return dict(few=(x, [f'd{c}' for c in y if c < 3]), pool=list(pool[:60]), valid=(list(held[:40]), list(truth[:40])), zoo=zoo,
                store=tmp_path_factory.mktemp('store'))

def trained(data, out, labeled=None, pool=None, **kwargs):
    kwargs = dict(folds=2, n_epoch=2, bs=10, size=32, baselines=False) | kwargs
    return train_student(labeled or data['few'], pool or data['pool'], data['zoo'], start=data['zoo']['objects'], out=out,
                         store=data['store'], progress=False, **kwargs)

def a_run(data, out, labels=None):
    x,y = data['few']
    run,_ = make_run((x, labels or y), data['pool'], data['zoo'], None, out, None, 32, 2, 10, dict(start=data['zoo']['objects']),
                     dict(metric='cka'), 'raise', lambda s: None, distil=dict(lam=.5, teach=Probes()), store=data['store'], progress=False)
    run.clock = Clock(1000)
    return run

def test_labels_that_are_held_out_are_not_learned_from(data, tmp_path):
    "Other labels of the held-out images change no answer of any candidate for them"
    x,y = data['few']
    first = held_out_folds(np.array([int(o[1]) for o in y]), 3)[0]
    other = list(y)
    for i in first[1]: other[i] = f'd{(int(y[i][1])+1)%3}'
    answers = []
    for name,labels in dict(own=y, other=other).items():
        run = a_run(data, tmp_path/name, labels)
        held = run.images[first[1]],run.labels[first[1]]
        answers.append(run.fold(first[0], held, 'fold', 'digits'))
    (_,z,others),(_,z2,others2) = answers
    assert np.array_equal(z, z2)
    assert others.keys() == others2.keys() and all(np.array_equal(others[k], others2[k]) for k in others)

def test_a_class_with_one_label_is_always_learned_from(data, tmp_path):
    x,y = data['few']
    keep = [i for i,o in enumerate(y) if o != 'd2'] + [y.index('d2')]
    res = trained(data, tmp_path/'run', labeled=([x[i] for i in keep], [y[i] for i in keep]), n_epoch=1)
    assert len(res.findings.labels) == len(keep)-1 and 2 not in res.findings.labels and res.findings.vocab == ['d0','d1','d2']

def test_validation_images_of_your_own(data, tmp_path):
    "One fit on all labels, which ends with its best epoch"
    said = []
    res = trained(data, tmp_path/'run', valid=data['valid'], folds=None, say=said.append)
    assert res.findings.folds == 0 and res.findings.held_out == '40 validation images'
    assert len([o for o in said if 'distilling' in o]) == 1 and not any('all 30 labels' in o for o in said)
    with res.learn.no_bar(), res.learn.no_logging(): p,y = res.learn.get_preds()
    right = (p.argmax(1) == y).float().mean().item()
    t = res.findings.table
    assert right == pytest.approx(t.accuracy['student'], abs=1e-6)

def test_a_share_is_held_out_once(data, tmp_path):
    res = trained(data, tmp_path/'run', valid=.2, folds=None)
    assert res.findings.held_out == '6 of 30 labelled images, held out once' and len(res.learn.dls.train_ds) == 30
    told,f = json.loads((res.out/'run.json').read_text()),res.findings.forecast
    assert told['forecast'] == f.numbers | dict(words=str(f)) and f.more == 20
    assert sum(str(f) in o and "the sources' probes, not for the student" in o and '`distill_nb next`' in o for o in told['advice']) == 1

def test_labelled_images_in_the_pool_are_left_out_there(data, tmp_path):
    said = []
    res = trained(data, tmp_path/'run', pool=data['pool'] + data['few'][0][:5], n_epoch=1, say=said.append)
    assert '5 of the 65 images without labels are labelled images as well, and are left out there' in said
    assert res.findings.n_pool == 60

def test_a_run_that_was_stopped_goes_on(data, tmp_path, monkeypatch):
    "To the same student, without a fit that has ended being repeated"
    whole = trained(data, tmp_path/'whole')
    fit,seen = Run.fit,[]
    def stopped(self, make, kind, name, *cbs, **kwargs):
        seen.append(name)
        if len(seen) == 2: raise KeyboardInterrupt
        return fit(self, make, kind, name, *cbs, **kwargs)
    with monkeypatch.context() as m:
        m.setattr(Run, 'fit', stopped)
        with pytest.raises(KeyboardInterrupt): trained(data, tmp_path/'run')
    assert json.loads((tmp_path/'run'/'run.json').read_text()) == {}
    res = trained(data, tmp_path/'run')
    for k,p in whole.findings.probs.items(): assert np.array_equal(p, res.findings.probs[k]), k
    for a,b in zip(whole.learn.model.parameters(), res.learn.model.parameters()): assert torch.equal(a, b)

def test_the_disk_that_a_run_took(data, tmp_path, monkeypatch):
    "Its folder and what the store grew by; the state of a run that could have gone on does not count"
    few,pool,store = data['few'],data['pool'],tmp_path/'store'
    monkeypatch.setattr(train, 'HF_HUB_CACHE', tmp_path/'hub')                       # others may be downloading
    kw = dict(folds=2, n_epoch=1, bs=10, size=32, baselines=False, start=data['zoo']['objects'], store=store, progress=False)
    first,again = (train_student(few, pool, data['zoo'], out=tmp_path/o, **kw) for o in ('first','again'))
    kept = sum(o.stat().st_size for o in first.out.iterdir() if o.name not in ('report.html','run.json'))
    assert 0 <= again.findings.bytes - kept < 2000                                   # the page is not written yet
    grown = disk_size(store)
    assert 0 <= first.findings.bytes - kept - grown < 2000
    assert f'{size_words(first.findings.bytes)}B of disk' in (first.out/'report.html').read_text()
    assert json.loads((first.out/'run.json').read_text())['bytes'] == first.findings.bytes
    nothing = train_student(few, pool, data['zoo'], out=tmp_path/'third', **kw | dict(store=False))
    assert 0 <= nothing.findings.bytes - kept < 2000

def test_a_folder_is_not_overwritten(data, tmp_path):
    trained(data, tmp_path/'run', n_epoch=1)
    with pytest.raises(ValueError, match='has ended.*force=True'): trained(data, tmp_path/'run', n_epoch=1)
    assert trained(data, tmp_path/'run', n_epoch=1, lr=.01, force=True).learn.opt.hypers[0]['lr'] < .01
    with pytest.raises(TypeError, match='`metrics` is not an argument of train_student'): trained(data, tmp_path/'other', metrics=[])

def test_the_start_is_kept_where_training_harms(data, tmp_path):
    "At a rate that ruins it the student is the linear probe of its start, and the page says so"
    res = trained(data, tmp_path/'run', lr=5.)
    assert res.findings.facts['epochs'] == '0 of 2' and any('lower rate' in o for o in res.findings.warnings)
    assert res.findings.table.accuracy['student'] == pytest.approx(res.findings.table.accuracy['linear probe of the start'])

class Count(Callback):
    seen = 0
    def after_epoch(self): Count.seen += 1

def test_stop_after_keeps_the_schedule(data):
    from distill_nb.learner import transfer_learner
    dls,_ = digits_dls(n=2)
    zoo = data['zoo']
    def rates(*cbs):
        learn = transfer_learner(dls, start=zoo['objects'])
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(4, 1e-3, cbs=cbs)
        return learn.recorder.lrs
    assert rates(StopAfter(2)) == rates()[:2*len(rates())//4]

def test_clock():
    "The time left follows from the images that have gone through"
    class Dl(list): bs = 10
    class Fake: pass
    now = iter([0.,10.,10.,20.,20.,25.,25.])
    said = []
    clock = Clock(400, said.append, now=lambda: next(now))
    clock.learn = Fake()
    clock.learn.dls,clock.learn.cbs,clock.learn.n_epoch,clock.learn.epoch = Fake(),[],2,0
    clock.learn.dls.train = Dl(range(5))
    assert clock.left == ''
    clock.before_fit()
    clock.after_epoch()
    assert said == ['about 70 seconds for the whole run'] and clock.left == '70 seconds'
    clock.end(clock.learn)
    assert clock.left == '2 minutes'                            # an epoch was skipped

@pytest.mark.parametrize('wrong,words', [
    (dict(labeled=([np.zeros((8,8), np.uint8)]*3, ['a']*3)), "all images are of class 'a'"),
    (dict(valid=.9), '`valid`'), (dict(valid=([np.zeros((8,8), np.uint8)], ['zebra'])), "`valid`: class 'zebra'"),
    (dict(rank=dict(metric='ckaa')), 'Nearest: cka'), (dict(folds=1), '`folds`'), (dict(n_epoch=0), '`n_epoch`'),
    (dict(arch='resnet5o'), 'resnet50'),
    (dict(stages=99), '`stages`')])
def test_what_is_wrong_is_refused_first(data, tmp_path, monkeypatch, wrong, words):
    def ran(*args, **kwargs): raise AssertionError('too late')
    monkeypatch.setattr(folds, 'rank_sources', ran)
    with pytest.raises((ValueError,TypeError), match='(?s)' + words.replace('(', r'\(')): trained(data, tmp_path/'run', **wrong)
    assert not list(tmp_path.rglob('*.json'))

def test_all_of_the_pool_is_labelled(data, tmp_path):
    with pytest.raises(ValueError, match='all of its images are labelled images'): trained(data, tmp_path/'run', pool=data['few'][0])
