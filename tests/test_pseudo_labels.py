"Tables of pseudo-labels: what the notebook shows, on any sources"
import numpy as np, pytest, torch
from torch import nn
from distill_nb.images import ImageView
from distill_nb.outputs import get_outputs
from distill_nb.pseudo_labels import *
from distill_nb.sources import Source
from distill_nb.store import Store

rng = np.random.default_rng(0)
imgs = list(rng.integers(0, 255, (20,8,8,3), dtype=np.uint8))

def linear(c):
    torch.manual_seed(c)
    return Source.from_module(nn.Sequential(nn.Flatten(), nn.Linear(192,c)), .5, .5, 8, name=f'{c} classes')

sources = [linear(c) for c in (3,7)]

@pytest.mark.parametrize('memory', [0, 2**30])
@pytest.mark.parametrize('top_k', [None, 2, 99])
def test_rows_are_those_of_the_outputs(memory, top_k, tmp_path):
    store = Store(tmp_path)
    labels = pseudo_labels(sources, imgs, store=store, top_k=top_k, memory=memory, progress=False)
    want = torch.cat([get_outputs(s, imgs, store, progress=False).probs() for s in sources], 1)
    idx = torch.tensor([19,3,3])
    got = labels[idx]
    assert labels.mapped == (memory == 0) and got.dtype == torch.float32
    torch.testing.assert_close(got.sum(1), torch.full((3,), 2.), atol=2e-3, rtol=0)
    if top_k != 2: torch.testing.assert_close(got, want[idx], atol=1e-3, rtol=0)
    else:
        for part,p in zip(got.split([3,7], 1), want[idx].split([3,7], 1)):
            torch.testing.assert_close(part.topk(2).values, p.topk(2).values, atol=1e-3, rtol=0)

def test_a_mapped_table_is_made_once(tmp_path, monkeypatch):
    first = pseudo_labels(sources, imgs, store=tmp_path, memory=0, progress=False)[:]
    monkeypatch.setattr('distill_nb.pseudo_labels.source_rows', lambda *a, **kw: pytest.fail('filled again'))
    assert torch.equal(pseudo_labels(sources, imgs, store=tmp_path, memory=0, progress=False)[:], first)

def test_what_makes_no_sense():
    for kw in (dict(top_k=0), dict(T=0)):
        with pytest.raises(ValueError, match=f'`{next(iter(kw))}` must be'): pseudo_labels(sources, imgs, store=False, **kw)
    mute = Source.from_module(nn.Flatten(), .5, .5, 8, classifier=False, name='mute')
    with pytest.raises(ValueError, match='mute has no classifier'): pseudo_labels([mute], imgs, store=False)

def test_a_view_has_pseudo_labels_of_its_own():
    a,b = (pseudo_labels(sources, o, store=False, progress=False)[:] for o in (imgs, [ImageView(o, 'hflip') for o in imgs]))
    c = pseudo_labels(sources, [o[:,::-1].copy() for o in imgs], store=False, progress=False)[:]
    torch.testing.assert_close(b, c, atol=1e-3, rtol=0)
    assert (a-b).abs().max() > .05

def test_softmax_of_segments():
    z = torch.tensor([[1.,2,1000,1001,1002],[-1000,-1001,0,0,0]])
    want = torch.cat([z[:,:2].softmax(1), z[:,2:].softmax(1)], 1)
    torch.testing.assert_close(softmax_segments(z, [2,3]), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(logsumexp_segments(z, [2,3]), torch.stack([z[:,:2].logsumexp(1), z[:,2:].logsumexp(1)], 1))
