"A timm network by its name: the weights that were asked for, or an error"
import numpy as np, pytest, timm, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from distill_nb import networks
from distill_nb.networks import *
from distill_nb.sources import Source

rng = np.random.default_rng(0)

def picture(w, h): return Image.fromarray(rng.integers(0, 255, (h,w,3), dtype=np.uint8))

@pytest.mark.parametrize('error', [OSError('no route to host'), RuntimeError('No pretrained weights exist')])
def test_unreachable_hub_is_an_error_with_remedies(monkeypatch, error):
    src = Source.from_timm('resnet18')
    def fail(arch, pretrained=False, **kw):
        assert pretrained
        raise error
    monkeypatch.setattr(timm, 'create_model', fail)
    monkeypatch.setattr(networks, 'check_hub', lambda names: None)
    for use in (lambda: src.load(), lambda: src.key):
        with pytest.raises(RuntimeError, match='from_checkpoint.*pretrained=False') as e: use()
        assert str(error) in str(e.value)

def test_hub_weights_are_the_ones_asked_for(monkeypatch):
    seen = []
    real = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda arch, pretrained=False, **kw: (seen.append((arch, pretrained)), real(arch, **kw))[1])
    monkeypatch.setattr(networks, 'check_hub', lambda names: None)
    src = Source.from_timm('test_resnet.r160_in1k')
    src.load()
    assert seen == [('test_resnet.r160_in1k', True)] and src.meta['weights'] == 'hub: timm/test_resnet.r160_in1k'

@pytest.mark.parametrize('arch,n', [('resnet18', 10), ('vit_small_patch14_dinov2', 10)])
def test_trained_weights_with_another_head_are_refused(arch, n):
    with pytest.raises(ValueError, match='would be random'): Source.from_timm(arch, num_classes=n)
    assert Source.from_timm(arch, num_classes=0).n_classes is None
    assert Source.from_timm(arch, pretrained=False, num_classes=n).n_classes == n

def test_random_weights_repeat_and_leave_the_random_state_alone():
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    a,b = (Source.from_timm('test_resnet', pretrained=False).load() for _ in range(2))
    assert torch.equal(torch.rand(3), want)
    assert all(torch.equal(p, q) for p,q in zip(a.parameters(), b.parameters()))
    assert a is not b

@settings(max_examples=15, deadline=None)
@given(w=st.integers(20,300), h=st.integers(20,300),
    arch=st.sampled_from(['resnet18', 'tf_efficientnet_lite0', 'vit_base_patch16_siglip_224', 'mobilenetv3_small_100']))
def test_tfm_is_timms_own(w, h, arch):
    cfg = timm.models.get_pretrained_cfg(arch).to_dict()
    img,want = picture(w, h),create_transform(**resolve_data_config({}, pretrained_cfg=cfg), is_training=False)
    assert torch.equal(Source.from_timm(arch).tfm(img), want(img))

def test_sources_without_classes():
    assert Source.from_timm('vit_small_patch14_dinov2').n_classes is None
    assert Source.from_timm('vit_base_patch16_clip_224.openai_ft_in1k').n_classes == 1000

def test_weights_that_are_not_here_are_named(monkeypatch):
    monkeypatch.setattr(networks, 'hub_answers', lambda: False)
    monkeypatch.setattr(networks, 'try_to_load_from_cache', lambda *a, **kw: None)
    with pytest.raises(ConnectionError, match='resnet18.a1_in1k, resnet50.a1_in1k'): check_hub(['resnet18.a1_in1k', 'resnet50.a1_in1k'])
    assert not is_downloaded('resnet18.a1_in1k') and not is_downloaded('hf-hub:nobody/nothing')

def test_sketches_have_no_memory():
    with sketching(): net = networks.create_network('test_vit')
    assert all(p.device.type == 'meta' for p in net.parameters())
