"The page `sturdy` tells of the cases that are tested, no more and no less; the same seed gives the same result, with workers and without"
import csv
from pathlib import Path
import torch
from fastai.vision.all import accuracy, aug_transforms, set_seed
import test_bad_input as t
import test_crash, test_entries
from promises import promises
from distill_nb.packs import digits_dls
from distill_nb.learner import distill_learner
from distill_nb.zoo import Zoo

def test_the_table_is_that_of_the_tests():
    with (Path(__file__).resolve().parents[1]/'benchmarks'/'sturdy.csv').open(encoding='utf-8') as f: rows = list(csv.DictReader(f))
    told = {(r['kind'], r['case']) for r in rows}
    tested = {(k,c) for k,cs in {'image': [*t.images, *t.items], 'name': t.names, 'labels': t.labels,
                                 'features': t.matrices(t.X), 'labels of a score': t.targets, 'scores': t.scores,
                                 'file': [*(f'student: {c}' for c in t.student_files),
                                          *(f'manifest: {c}' for c in t.manifests)], 'killed': test_crash.jobs,
                                 'entry': test_entries.entries}.items() for c in cs}
    tested |= {row[:2] for row in promises.values()}
    assert tested - told == set(), 'run scripts/sturdy.py'
    assert len(rows) == len(told) and all(int(r['tried']) >= 1 for r in rows)
    assert all(int(r['tried']) >= 100 for r in rows if r['kind'] == 'killed')

def test_behind_each_promise_is_a_test():
    for k in promises:
        file,test = k.split('::')
        assert f'def {test}(' in (Path(__file__).parent/f'test_{file}.py').read_text(encoding='utf-8'), k
    assert len({row[:2] for row in promises.values()}) == len(promises)

def student(workers):
    set_seed(3)
    dls,pool = digits_dls(n=5, seed=0, bs=16, num_workers=workers, batch_tfms=aug_transforms(size=32))
    learn = distill_learner(dls, pool, Zoo.embedded()['digits'], 'test_efficientnet', pretrained=False, store=False,
                            progress=False, epoch_len=64, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 4e-3)
    return torch.cat([p.flatten() for p in learn.model.state_dict().values()])

def test_same_seed_same_student():
    one = student(0)
    assert torch.equal(student(0), one)
    two = student(2)
    assert torch.equal(student(2), two) and torch.equal(two, one) # transforms of whole batches do not care who opened the images
