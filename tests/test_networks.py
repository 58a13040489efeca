"A timm network by its name: the weights that were asked for, or an error"
import time
import numpy as np, pytest, timm, torch
from huggingface_hub import constants
from hypothesis import given, settings, strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from distill_nb import networks
from distill_nb.networks import *
from distill_nb.sources import Source
from distill_nb.student import create_student
from distill_nb.zoo import Zoo

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

# A hub on this machine

class Session:
    "A stand-in for the client of huggingface_hub, without a network"
    def __init__(self): self.asked = []
    def request(self, method, url, **kwargs):
        self.asked.append((method, url))
        raise OSError('no route')
    def __getattr__(self, method): return lambda url, **kwargs: self.request(method, url, **kwargs)

def put(cache, repo, arch='test_resnet', seed=0, **config):
    "A model in a hub's cache, as huggingface_hub lays it out"
    folder,rev = cache/('models--'+repo.replace('/','--')),f'{seed:040d}'
    torch.manual_seed(seed)
    (folder/'refs').mkdir(parents=True, exist_ok=True)
    (folder/'refs'/'main').write_text(rev)
    save_for_hf(timm.create_model(arch, num_classes=4), folder/'snapshots'/rev, model_config=config, safe_serialization=True)

@pytest.fixture()
def cache(tmp_path, monkeypatch):
    "A hub's cache and a network that is gone"
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(networks, '_answers', {})
    session = Session()
    monkeypatch.setattr(networks, 'get_session', lambda: session)
    import huggingface_hub.utils._http as http
    def sends(*args, **kwargs):
        if not constants.HF_HUB_OFFLINE: raise AssertionError('a request without a network: it would be tried six times')
        raise http.OfflineModeIsEnabled('offline')
    for name in ('http_backoff','get_session'):
        if hasattr(http, name): monkeypatch.setattr(http, name, sends)
    import huggingface_hub.file_download as files
    for name in ('http_backoff','get_session','_request_wrapper','_httpx_follow_relative_redirects'):
        if hasattr(files, name): monkeypatch.setattr(files, name, sends)
    return tmp_path,session

def test_a_model_of_the_hub_by_its_name(cache):
    folder,session = cache
    put(folder, 'owner/model', num_classes=4, label_names=['a','b','c','d'])
    start = time.perf_counter()
    zoo = Zoo.timm('hf-hub:owner/model', 'test_vit', pretrained=True)
    s = zoo['hf-hub:owner/model']
    assert (s.n_classes, s.classes, s.size, s.meta['weights']) == (4, list('abcd'), 160, 'hub: owner/model')
    frame = zoo[[s.name]].to_frame()
    assert frame.parameters.item() == sum(p.numel() for p in timm.create_model('test_resnet', num_classes=4).parameters())
    assert frame.download_mb.item() == 0 and frame.license.item() == 'apache-2.0'
    net = s.load()
    torch.manual_seed(0)
    assert torch.equal(net.model.fc.weight, timm.create_model('test_resnet', num_classes=4).fc.weight)
    assert time.perf_counter()-start < 10 and len(session.asked) == 1          # once, though it is loaded three times
    assert not constants.HF_HUB_OFFLINE

def test_what_a_model_of_the_hub_is(cache):
    "Its key follows the weights and the name"
    folder,_ = cache
    put(folder, 'owner/model')
    put(folder, 'owner/other')
    put(folder, 'owner/third', seed=1)
    a,again,other,third = (Source.from_timm(f'hf-hub:owner/{o}').key for o in ('model','model','other','third'))
    assert a == again and a != third and Source.from_timm('hf-hub:owner/model', size=96).key != a
    put(folder, 'owner/model', seed=2)                                         # another revision
    assert Source.from_timm('hf-hub:owner/model').key != a

def test_a_student_of_the_hub(cache):
    folder,session = cache
    put(folder, 'owner/model')
    student = create_student('hf-hub:owner/model', 3)
    torch.manual_seed(0)
    want = timm.create_model('test_resnet', num_classes=4).state_dict()
    assert torch.equal(dict(student.backbone.state_dict())['conv1.0.weight'], want['conv1.0.weight'])
    with pytest.raises(RuntimeError, match='does not answer'): create_student('resnet18.a1_in1k', 3)
    assert len(session.asked) == 1

def test_what_is_not_here_is_told_at_once(cache):
    folder,session = cache
    put(folder, 'owner/model')
    (folder/'models--owner--model'/'snapshots'/f'{0:040d}'/'model.safetensors').unlink()
    start = time.perf_counter()
    zoo = Zoo.timm('hf-hub:owner/model')                                       # its config.json is here, its weights are not
    assert zoo.to_frame().download_mb.item() > 0
    with pytest.raises(ConnectionError, match='hf-hub:owner/model'): check_hub(['hf-hub:owner/model'])
    with pytest.raises(RuntimeError, match='does not answer'): zoo[0].load()
    with pytest.raises(RuntimeError, match='configuration.*does not answer'): Zoo.timm('hf-hub:owner/nothing')
    assert len(session.asked) == 1 and time.perf_counter()-start < 10

def test_names_that_are_almost_of_the_hub():
    for name in ('owner/model', 'gh:owner/model', 'hf-hub:'):
        with pytest.raises(ValueError, match='hf-hub:user/model'): Zoo.timm(name)
    with pytest.raises(ValueError, match='in full'): Zoo.timm('hf-hub:timm/resnet*')

def test_offline_mode_ends_with_the_fetch(monkeypatch):
    "And is not touched where the hub answers, or was asked for"
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(networks, 'hub_answers', lambda: True)
    with networks.hub_mode(): assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(networks, 'hub_answers', lambda: False)
    with pytest.raises(KeyError), networks.hub_mode(): raise KeyError(constants.HF_HUB_OFFLINE)
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with networks.hub_mode(): assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE

def test_the_table_of_parameters():
    "It knows what the installed timm has weights for, and is right"
    cfgs = [timm.models.get_pretrained_cfg(n) for n in timm.list_pretrained()]
    known = [networks.known_parameters(c.architecture, c.num_classes) for c in cfgs]
    assert np.mean([o is not None for o in known]) > .9, 'run scripts/timm_parameters.py for this timm'
    for name in ('resnet50','mobilenetv4_conv_small','vit_small_patch16_dinov3','vit_base_patch16_clip_224','tf_efficientnet_lite0'):
        n = timm.models.get_pretrained_cfg(name).num_classes
        with sketching(): net = networks.create_network(name)
        assert networks.known_parameters(name, n) == sum(p.numel() for p in net.parameters())
