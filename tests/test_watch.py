"`Watch` in a terminal and in a notebook"
import warnings
from fastai.vision.all import accuracy, load_learner
from distill_nb.packs import digits_dls
import distill_nb.watch as module
from distill_nb.watch import Watch, in_notebook
from distill_nb.teach import SourceClasses
from distill_nb.learner import distill_learner
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo

quick = dict(epoch_len=200, freeze_stats=False, progress=False)

def test_watch_in_a_terminal(capsys, tmp_path):
    "A line an epoch: what each source still has to teach, and less of it in the end"
    assert not in_notebook()
    dls,pool = digits_dls(n=5, seed=0)
    zoo = Zoo.embedded()
    rank = rank_sources(dls, zoo, store=tmp_path, times=0, progress=False)
    learn = distill_learner(dls, pool, rank.choose(top=2), start=zoo['objects'], teach=SourceClasses(),
                            metrics=accuracy, cbs=Watch(), **quick, store=tmp_path)
    with learn.no_bar(): learn.fit(3, 4e-3)
    lines = [l for l in capsys.readouterr().out.splitlines() if 'still to learn' in l]
    assert len(lines) == 3
    first,last = (float(l.split(f'{rank.best.name} ')[1].split(',')[0]) for l in (lines[0], lines[-1]))
    assert last < first
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=20, show_plot=False)
    assert 'still to learn' not in capsys.readouterr().out

class Handle:
    "What `display` gives in a notebook"
    def __init__(self): self.pages = []
    def update(self, html): self.pages.append(html.data)

def test_watch_in_a_notebook(monkeypatch, tmp_path):
    handle = Handle()
    monkeypatch.setattr(module, 'in_notebook', lambda: True)
    monkeypatch.setattr(module, 'display', lambda *args, **kwargs: handle)
    dls,pool = digits_dls(n=5, seed=0)
    zoo = Zoo.embedded()
    rank = rank_sources(dls, zoo, store=tmp_path, times=0, progress=False)
    learn = distill_learner(dls, pool[:200], rank, start=zoo['objects'], teach=SourceClasses(), metrics=accuracy,
                            cbs=Watch(every=0), **quick, store=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 4e-3)
    page = handle.pages[-1]
    assert page.startswith('<div class="dnb-watch"><b>epoch 2 of 2, 100%</b>')
    assert page.count('<img') == 1+8 and page.count('<svg') == len(learn.distill.names)
    assert all(f'<td>{n}</td>' in page for n in learn.distill.names) and 'still to learn, nats' in page
    assert (learn.watch.distance > 0).all() and len(learn.watch.distance) == len(learn.distill.names)
    drawn = len(handle.pages)
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds()
    assert len(handle.pages) == drawn # outside of training it does nothing
    learn.export(tmp_path/'student.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert load_learner(tmp_path/'student.pkl').watch.preds == ''
