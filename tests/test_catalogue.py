"The catalogue: current with the installed timm, diverse, within its limits, and nothing downloaded"
import re
import pytest, timm, torch
from distill_nb import catalogue as room
from distill_nb.catalogue import catalogue, catalogue_text
from distill_nb.sources import Source
from distill_nb.zoo import Zoo

tiers = 'small','medium','large'

def names(): return [n for *_,line in room._lines for n in line.split()]

def test_every_entry_is_in_the_installed_timm():
    have = set(timm.list_pretrained())
    assert not [n for n in names() if n not in have] and len(set(names())) == len(names())

def test_what_is_derived_is_filled():
    t = catalogue(None, None)
    assert t.index.tolist() == names()
    assert (t.drop(columns=['classes','license']) == t.drop(columns=['classes','license'])).all(axis=None)
    assert t.license.isna().sum() <= 1 and t.why.str.len().min() > 15
    assert t.parameters.between(1e6, 4e8).all() and t.features.between(64, 4096).all() and t['size'].between(160, 400).all()
    assert set(t[t.classes.isna()].kind) <= {'self-supervised','language','supervised'} and (t.classes.dropna() >= 1000).all()
    assert t.download_mb.equals(t.parameters*4e-6) or (t.download_mb == 0).any()

@pytest.mark.parametrize('size', tiers)
def test_a_tier_is_diverse(size):
    t = catalogue(size)
    assert {'supervised','self-supervised','language'} <= set(t.kind) and 6 <= len(t) <= 10 and t.task.nunique() >= 6
    assert all(t.index.str.contains(o).any() for o in ('dinov2','dinov3','clip','resnet','convnext','vit_'))
    assert t.parameters.max() <= dict(small=35e6, medium=120e6, large=350e6)[size] and t.download_mb.sum() < 12_000
    assert Zoo.recommended(size).names == t.index.tolist()

def test_lines_go_from_small_to_large():
    n = catalogue(None, None).parameters
    for *_,line in room._lines: assert n[line.split()].is_monotonic_increasing, line

def test_features_are_those_of_a_source():
    for name in ('mobilenetv4_conv_small.e3600_r256_in1k','vit_xsmall_patch16_clip_224.tinyclip_yfcc15m','tiny_vit_5m_224.dist_in22k'):
        s = Source.from_timm(name, pretrained=False)
        f,_ = s.load()(torch.rand(1,3,s.size,s.size))
        assert catalogue(None, None).features[name] == f.shape[1]

def test_a_number_is_a_limit():
    assert catalogue(13e6).parameters.max() <= 13e6 and len(catalogue(13e6)) == 3
    assert len(catalogue(1e12)) == len(catalogue('large'))
    for bad in (0, -1, float('nan'), 1000, True, 'huge', [1], 10**400):
        with pytest.raises(ValueError, match='`size`'): catalogue(bad)

def test_domains():
    fine,aerial,natural = (Zoo.recommended('large', o).names for o in ('fine-grained','aerial','natural'))
    assert set(fine)-set(natural) == {'resnet50.bamboo'} and set(natural)-set(fine) == {'resnet152.a1h_in1k'}
    assert set(aerial)-set(natural) == {'vit_large_patch16_dinov3.sat493m'} and not set(natural)-set(aerial)
    with pytest.warns(UserWarning, match="size='large' has it") as w: Zoo.recommended('small', 'aerial')
    assert w[0].filename == __file__
    for f in (catalogue, catalogue_text, Zoo.recommended):
        with pytest.raises(ValueError, match='medicine.*hf-hub:user/model'): f('small', 'medical')

def test_weights_that_another_timm_lacks(monkeypatch):
    have = [n for n in timm.list_pretrained() if 'dinov3' not in n]
    monkeypatch.setattr(room.timm, 'list_pretrained', lambda *a, **kw: have)
    with pytest.warns(UserWarning, match='has no weights vit_small_patch16_dinov3.*left out of the catalogue') as w:
        zoo = Zoo.recommended('small')
    assert len(w) == 1 and zoo.names and not any('dinov3' in n for n in zoo.names)
    monkeypatch.setattr(room.timm, 'list_pretrained', lambda *a, **kw: [])
    with pytest.raises(ValueError, match='no model of the catalogue'), pytest.warns(UserWarning): Zoo.recommended('small')

def test_nothing_is_downloaded(monkeypatch):
    real = timm.create_model
    def create(name, pretrained=False, **kw):
        assert not pretrained, 'downloads'
        return real(name, pretrained=False, **kw)
    monkeypatch.setattr(timm, 'create_model', create)
    zoo = Zoo.recommended('small')
    assert repr(zoo) and zoo._repr_html_() and catalogue_text('small')

def test_another_size_in_pixels():
    zoo = Zoo.recommended('small', px=112)
    assert {s.size for s in zoo} == {112}
    s = Source.from_timm('vit_small_patch14_reg4_dinov2.lvd142m', pretrained=False, size=112)
    assert s.load()(torch.rand(1,3,112,112))[0].shape == (1,384)
    with pytest.raises(ValueError, match='`px`'): Zoo.recommended('small', px=0)

def test_text():
    text = catalogue_text('small')
    head,*rows = text.partition('\n\n')[0].splitlines()
    assert head.split() == ['name','parameters','MB','px','kind','trained','on','licence'] and len(rows) == len(catalogue('small'))
    assert all(re.match(r'\S+ +[\d.]+ M +[\d,]+ +\d+  \S', o) for o in rows)
    assert re.search(r'8 models; to download: about [\d.]+ GB', text) and not re.search(r'\b(nan|None)\b', text)

def test_sources_of_the_catalogue_say_why_they_are_here():
    s = Zoo.recommended('small')['vit_small_patch16_dinov3.lvd1689m']
    assert s.meta['kind'] == 'self-supervised' and 'DINOv3' in s.meta['why'] and s.meta['license'] == 'dinov3-license'
    assert s.meta['task'] == 'LVD-1689M' and Zoo.recommended('small')['vit_pe_core_small_patch16_384.fb'].meta['task'] == 'image-text pairs'
