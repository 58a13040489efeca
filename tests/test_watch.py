"What the widgets do outside of a notebook"
from fastai.vision.all import accuracy
from distill_nb.packs import digits_dls
from distill_nb.watch import Watch, _notebook
from distill_nb.learner import distill_learner
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo

def test_watch_in_a_terminal(capsys, tmp_path):
    "A line an epoch: what each source still has to teach, and less of it in the end"
    assert not _notebook()
    dls,pool = digits_dls(n=5, seed=0)
    zoo = Zoo.embedded()
    rank = rank_sources(dls, zoo, store=tmp_path, times=0, progress=False)
    learn = distill_learner(dls, pool, rank, start=zoo['objects'], pseudo='source', top=2, epoch_len=200, freeze_stats=False, metrics=accuracy, store=tmp_path, progress=False, cbs=Watch())
    with learn.no_bar(): learn.fit(3, 4e-3)
    lines = [l for l in capsys.readouterr().out.splitlines() if 'still to learn' in l]
    assert len(lines) == 3
    first,last = (float(l.split(f'{rank.best.name} ')[1].split(',')[0]) for l in (lines[0], lines[-1]))
    assert last < first
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=20, show_plot=False)
    assert 'still to learn' not in capsys.readouterr().out
