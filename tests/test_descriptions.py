"""What a file says of a model is checked field by field, nothing else is opened, and nothing is built before its shapes
are known; what is written is whole, or nothing"""
import functools, json, os
import numpy as np, pytest, timm, torch
from torch import nn
from fastai.vision.all import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, L1LossFlat,
                               LabelSmoothingCrossEntropyFlat, Learner, MSELossFlat)
import distill_nb.checkpoints, distill_nb.export, distill_nb.student
from distill_nb.publish import escape_markdown
from distill_nb.data import image_dls
from distill_nb.deploy import *
from distill_nb.export import *
from distill_nb.publish import *
from distill_nb.student import check_student, create_student
from distill_nb.infer import Predictor, model_fields, read_graph
from distill_nb.teach import SourceClasses
from distill_nb.learner import distill_learner
from distill_nb.compare import compare
from distill_nb.sources import Source
from distill_nb.networks import sketching
from distill_nb.checkpoints import read_weights
from distill_nb.zoo import Zoo
from safetensors.torch import save_file

def student(seed=0, labels=('cat','dog'), **kw):
    torch.manual_seed(seed)
    m = create_student('test_efficientnet', len(labels), pretrained=False, **kw).eval()
    m.meta = dict(mean=[.5]*3, std=[.5]*3, input_size=[3,32,32], labels=list(labels))
    return m

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "One student, as each kind of file that describes itself"
    d = tmp_path_factory.mktemp('files')
    save_student(student(), d/'s.safetensors')
    to_onnx(student(), d/'s.onnx')
    entry = student_meta(d/'s.safetensors')
    (d/'manifest.json').write_text(json.dumps({'s': {k:v for k,v in entry.items() if k != 'layout'}}))
    return d

def say_header(files, tmp, **change):
    data = (files/'s.safetensors').read_bytes()
    n = int.from_bytes(data[:8], 'little')
    head = json.loads(data[8:8+n])
    head['__metadata__']['distill_nb'] = json.dumps({**json.loads(head['__metadata__']['distill_nb']), **change})
    new = json.dumps(head).encode()
    (tmp/'x.safetensors').write_bytes(len(new).to_bytes(8, 'little') + new + data[8+n:])
    return load_student(tmp/'x.safetensors')

def say_entry(files, tmp, **change):
    (tmp/'s.safetensors').write_bytes((files/'s.safetensors').read_bytes())
    (tmp/'manifest.json').write_text(json.dumps({'s': {**json.loads((files/'manifest.json').read_text())['s'], **change}}))
    return Zoo.checkpoints(tmp)[0].load()

def say_graph(files, tmp, **change):
    onnx = pytest.importorskip('onnx')
    m = onnx.load(files/'s.onnx')
    props = {**{o.key: o.value for o in m.metadata_props}, **{k: json.dumps(v) for k,v in change.items()}}
    del m.metadata_props[:]
    onnx.helper.set_model_props(m, props)
    onnx.save(m, tmp/'x.onnx')
    return Predictor(tmp/'x.onnx')

readers = dict(header=(say_header, 'x.safetensors'), manifest=(say_entry, 'manifest.json'), graph=(say_graph, 'x.onnx'))
wrong = {int: ['3', 1.5, True, -1, 10**12, [3]], float: ['half', True, -1e9, 1e9, [.5]], str: [5, ['x'], 'x'*10**5],
         bool: [1, 'yes', 'true']}

def bad_values(field):
    "Values that a line of `model_fields` does not allow"
    if isinstance(field[0], str): return [3, 'no such word', [field[0]], {}]
    kind,least,most,*length = field
    if not length: return wrong[kind]
    n = length[0] or 2
    return [5, 'ab', {}, [None]*n, *([v]*n for v in wrong[kind])] + ([[least]*(n-1), []] if length[0] else [])

@pytest.mark.parametrize('kind', readers)
@pytest.mark.parametrize('field', [k for k in model_fields if k not in ('library','task','license','origin','layout')])
def test_each_field_of_each_file_has_a_type_and_a_range(kind, field, files, tmp_path):
    say,name = readers[kind]
    for v in bad_values(model_fields[field]):
        with pytest.raises(ValueError, match=name.replace('.', r'\.')) as e: say(files, tmp_path, **{field: v})
        assert field in str(e.value)

def test_what_is_right_passes(files, tmp_path):
    for say,_ in readers.values():
        say(files, tmp_path, labels=['a','a'], crop_pct=1, std=[1e-3,.5,2], interpolation='bicubic', something='else')

@pytest.mark.parametrize('kind', ['header','manifest'])
@pytest.mark.parametrize('kwargs', [dict(start='private.pth'), dict(start=None), dict(n_out=5), dict(arch='resnet18'),
                                    dict(size=3), dict(name='x'), dict(seed=1), dict(meta={}), dict(num_classes=3),
                                    dict(pretrained=True), dict(pretrained=False), dict(checkpoint_path='/etc/passwd'),
    dict(pretrained_cfg={'file': '/etc/passwd'}), dict(pretrained_cfg_overlay={}), dict(cache_dir='/tmp'),
    dict(pretrained_filter_fn='x'), dict(model_cfg={}), dict(features_only=True), dict(act_layer='zzz'),
    dict(act_layer={'a': 1}), dict(no_such='x'), dict(stem_size=10**12),
    dict(stem_size=10_000), dict(stem_size=-3), dict(drop_rate=1e300), dict(drop_rate='x'*101),
    dict(drop_rate=[[[[[1]]]]]), dict(channel_multiplier=5000.), dict(depth_multiplier=5000.), [1], 'x'], ids=str)
def test_arguments_of_a_network_and_nothing_else(kind, kwargs, files, tmp_path, monkeypatch):
    opened = []
    for mod in (distill_nb.checkpoints, distill_nb.student): monkeypatch.setattr(mod, 'read_weights', lambda f: opened.append(f) or {})
    with pytest.raises(ValueError, match='safetensors|manifest.json'): readers[kind][0](files, tmp_path, kwargs=kwargs)
    assert not opened

def test_sizes_are_known_before_memory_is_asked_for(files, tmp_path, monkeypatch):
    class Built(Exception): pass
    def build(*a, **kw):
        if torch.empty(1).device.type != 'meta': raise Built()
        return timm_create(*a, **kw)
    timm_create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', build)
    with pytest.raises(ValueError, match='Built'): say_header(files, tmp_path)          # the right one does get there
    for say in (say_header, say_entry):
        for change in (dict(num_classes=10**6, labels=None), dict(num_classes=3, labels=None), dict(arch='resnet18'),
                       dict(kwargs=dict(channel_multiplier=100.))):
            with pytest.raises(ValueError) as e: say(files, tmp_path, **change)
            assert 'Built' not in str(e.value)

def test_a_header_may_not_lie_about_the_images_of_a_transformer(tmp_path):
    p = save_student(create_student('test_vit3', 2, pretrained=False, size=32), tmp_path/'s.safetensors', input_size=[3,32,32])
    assert load_student(p).arch_kwargs == dict(img_size=32)
    (tmp_path/'in').mkdir()
    with pytest.raises(ValueError, match='x.safetensors'): say_header(tmp_path, tmp_path/'in', input_size=[3,64,64])
    with pytest.raises(ValueError, match='x.safetensors'): say_header(tmp_path, tmp_path/'in', kwargs=dict(img_size=4096))

def test_duplicate_and_odd_json(files, tmp_path):
    entry = (files/'manifest.json').read_text()
    for text in ('{"s": 1, "s": 2}', entry.replace('"crop_pct": 1.0', '"crop_pct": NaN'),
                 entry.replace('"mean"', '"std": [1,1,1], "mean"'), '['*10**5, '9'*10**5, '"s"', '1e999'):
        (tmp_path/'manifest.json').write_text(text)
        with pytest.raises(ValueError, match='manifest.json'): Zoo.checkpoints(tmp_path)
    os.mkfifo(tmp_path/'pipe.json')
    with pytest.raises(ValueError, match='pipe'): Zoo.checkpoints(tmp_path/'pipe.json')

def test_each_student_that_is_written_can_be_read(tmp_path):
    "Also those whose keywords no header may hold"
    for kw in (dict(drop_rate=.1), dict(bn_eps=1e-3), dict(act_layer='relu'), dict(stages=2), dict(in_chans=3), dict(act_layer=nn.ReLU)):
        m = create_student('test_efficientnet', 2, pretrained=False, **kw).eval()
        p = save_student(m, tmp_path/'s.safetensors', input_size=(3,32,32), labels=np.array(['a','b']))
        x = torch.rand(1,3,32,32)
        assert torch.equal(load_student(p, *([m] if student_meta(p)['arch'] is None else []))(x), m(x)), kw

# Graphs

def graph(**kw):
    "A network that is nothing but a mean, as an ONNX graph with the metadata of `to_onnx`"
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), *([nn.Softmax(1)] if kw.get('ends') else []))
    return net

def test_a_graph_that_names_other_files_is_refused_wherever_it_does(tmp_path):
    onnx = pytest.importorskip('onnx')
    from onnx import TensorProto, helper
    inside = helper.make_tensor('w', TensorProto.FLOAT, [2], [1,2])
    outside = TensorProto(name='w', data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key='location', value='secret.bin')
    sparse = lambda t: onnx.SparseTensorProto(values=t, indices=helper.make_tensor('i', TensorProto.INT64, [2], [0,1]), dims=[4])
    branch = lambda t: helper.make_graph([], 'g', [], [helper.make_tensor_value_info('y', 1, [2])], initializer=[t])
    const = lambda t: helper.make_node('Constant', [], ['y'], value=t)
    at = dict(initializer=lambda m,t: m.graph.initializer.append(t), sparse=lambda m,
              t: m.graph.sparse_initializer.append(sparse(t)), constant=lambda m,t: m.graph.node.append(const(t)),
              branch=lambda m,t: m.graph.node.append(helper.make_node('If', ['c'], ['y'], then_branch=branch(t), else_branch=branch(t))),
              function=lambda m,t: m.functions.append(helper.make_function('d', 'f', [], ['y'], [const(t)], [])),
              list=lambda m,t: m.graph.node.append(onnx.NodeProto(op_type='X',
            attribute=[onnx.AttributeProto(name='v', type=onnx.AttributeProto.TENSORS, tensors=[t])])),
              training=lambda m,t: m.training_info.append(onnx.TrainingInfoProto(initialization=branch(t))))
    for where,put in at.items():
        for t in (inside, outside):
            m = helper.make_model(helper.make_graph([], 'secret.bin location', [], []))
            put(m, t)
            (tmp_path/'x.onnx').write_bytes(m.SerializeToString())
            if t is inside: assert read_graph(tmp_path/'x.onnx') == m.SerializeToString()
            else:
                for f in (read_graph, Predictor, lambda p: quantize_onnx(p, tmp_path/'out.onnx', [np.zeros((4,4,3), np.uint8)])):
                    with pytest.raises(ValueError, match='other files'): f(tmp_path/'x.onnx')
    assert not (tmp_path/'out.onnx').exists()

@pytest.mark.parametrize('data', [b'', b'\x08', b'\xff'*40, b'\x18\0\0\0ORTM' + b'\0'*64,
                                  b'\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f', b'text'*9])
def test_bytes_that_are_no_graph(data, tmp_path):
    (tmp_path/'x.onnx').write_bytes(data)
    with pytest.raises(ValueError, match='x.onnx'): Predictor(tmp_path/'x.onnx')

def test_probabilities_are_probabilities(tmp_path):
    pytest.importorskip('onnxscript')
    x = np.random.default_rng(0).random((5,3,8,8), np.float32)
    for ends,says in ((False,True),(True,False)):
        to_onnx(graph(ends=ends), tmp_path/'x.onnx', size=8, normalize=False, mean=0, std=1)
        p = Predictor(tmp_path/'x.onnx')
        p.meta['softmax'] = says
        with pytest.raises(ValueError, match='x.onnx.*gives ' + ('logits' if says else 'probabilities')): p.run(x)
    to_onnx(graph(), tmp_path/'x.onnx', size=8, normalize=False, mean=0, std=1, softmax=True)
    np.testing.assert_allclose(Predictor(tmp_path/'x.onnx').run(x).sum(1), 1, atol=1e-5)

# Writers

def far(monkeypatch):
    monkeypatch.setattr(distill_nb.export, 'largest_difference', lambda got, want, path, tol: largest(got, want+1, path, tol))
largest = distill_nb.export.largest_difference

def test_what_is_refused_leaves_the_old_file(files, tmp_path, monkeypatch):
    writers = {'s.onnx': to_onnx, 's.pt2': to_export}
    kw = dict(size=8, mean=0, std=1)
    for name,f in writers.items(): f(graph(), tmp_path/name, **kw)
    old = {n: (tmp_path/n).read_bytes() for n in writers}
    far(monkeypatch)
    for name,f in writers.items():
        with pytest.raises(RuntimeError, match='nothing was written'): f(graph(), tmp_path/name, **kw)
        with pytest.raises(RuntimeError, match='nothing was written'): f(graph(), tmp_path/'new'/name, **kw)
    assert {n: (tmp_path/n).read_bytes() for n in writers} == old and sorted(os.listdir(tmp_path)) == sorted(writers)

@pytest.mark.parametrize('method', ['minmax','entropy','percentile'])
def test_eight_bits_of_any_number_of_images(method, files, tmp_path):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (33,32,32,3), dtype=np.uint8))
    for n in (1, 17, 33):
        assert 0 <= quantize_onnx(files/'s.onnx', tmp_path/'q.onnx', images[:n], method) <= 1
        assert Predictor(tmp_path/'q.onnx').labels == ['cat','dog']

def test_a_folder_for_a_hub_holds_one_student(tmp_path, monkeypatch):
    hub = save_hub(student(), tmp_path/'hub')
    (hub/'mine.txt').write_text('stays')
    assert sorted(os.listdir(hub)) == ['README.md','config.json','mine.txt','model.safetensors','student.onnx']
    before = {p.name: p.read_bytes() for p in hub.iterdir()}
    far(monkeypatch)
    with pytest.raises(RuntimeError): save_hub(student(1, ('oak','elm')), hub)
    with pytest.raises(ValueError): save_hub(student(1, ('oak','elm')), hub, labels='oak')
    assert {p.name: p.read_bytes() for p in hub.iterdir()} == before
    save_hub(student(1, ('oak','elm'), stages=2), hub, onnx=False)                     # a cut student has no config.json either
    assert sorted(os.listdir(hub)) == ['README.md','mine.txt','model.safetensors']
    assert load_student(hub/'model.safetensors').meta['labels'] == ['oak','elm']

nasty = ['<img src=x onerror=alert(1)>', 'a|b', '', '[x](javascript:1)', 'two\nlines', '---', '$x$', 'a: b\n---\nc: [',
         '`code`', '# head', '1. one', '<!--', 'https://x.org', '**b**', '\udcff', '\u202eevil', '\\|', '&lt;', '- x',
         '| |', "'", '"', '_x_']

def test_nothing_of_the_users_reaches_the_card_unescaped(tmp_path):
    yaml = pytest.importorskip('yaml')
    from html import unescape
    for name in nasty:
        m = student(labels=[name, 'other'])
        m.source_heads = None
        card = (save_hub(m, tmp_path/'hub', title=name, license=name, results={name: name}, onnx=False)/'README.md').read_text()
        front,body = card.split('---\n', 2)[1:]
        front = yaml.safe_load(front)
        assert set(front) <= {'library_name','pipeline_tag','tags','license'} and front['library_name'] == 'timm'
        plain = escape_markdown(name)
        assert not set(plain) & set('<>|[]`*$\\\n') and '<' not in body.replace('\\<', '')
        assert f'| {plain} | {plain} |' in body
        assert f'\n{plain}, other\n' in body and len([l for l in body.splitlines() if l.startswith('## Results')]) == 1
        if name.isprintable(): assert unescape(plain) == name

def test_escaped_names_show_as_they_are():
    md = pytest.importorskip('markdown_it')
    import re
    from html import unescape
    render = md.MarkdownIt('commonmark').enable('table').render
    for name in filter(str.isprintable, nasty):
        name = ' '.join(name.split())
        assert unescape(re.sub('<.*?>', '', render(f'{escape_markdown(name)}\n'))).strip() == name
        assert render(f'{escape_markdown(name)}\n') in ('', f'<p>{render("x " + escape_markdown(name))[5:]}')

# Students that follow the size of the images

def shots(tmp, size, n=8):
    rng = np.random.default_rng(0)
    x,y = rng.integers(0, 256, (n,size,size,3), dtype=np.uint8),np.arange(n)%2
    return image_dls(x, y, x[:4], y[:4], bs=4, vocab=['a','b'], size=size),list(x)

small = ['test_vit','test_vit2','test_vit3','test_vit_relpos',
         'test_vit_relpos_rot' if timm.is_model('test_vit_relpos_rot') else 'test_vit','test_maxvit',
         'test_efficientnet','test_convnext','test_byobnet','test_resnet','test_mambaout','levit_128s',
         'efficientvit_m0','shvit_s1','xcit_nano_12_p8_224','tiny_vit_5m_224','visformer_tiny']

@pytest.mark.parametrize('arch', sorted(set(small)))
def test_a_student_follows_the_size(arch, tmp_path):
    m = create_student(arch, 2, pretrained=False, size=64).eval()
    x = torch.rand(2,3,64,64)
    with torch.no_grad(): want = m(x)
    assert want.shape == (2,2)
    p = save_student(m, tmp_path/'s.safetensors', input_size=[3,64,64], labels=['a','b'])
    with torch.no_grad(): torch.testing.assert_close(load_student(p)(x), want)
    again = create_student(arch, 3, start=p, size=64).eval()
    with torch.no_grad(): torch.testing.assert_close(again.backbone(x), m.backbone(x))

def test_families_of_timm_follow_the_size_or_names_both():
    from timm.models._registry import _module_to_models
    import re
    made = refused = 0
    for mod,archs in sorted(_module_to_models.items())[::4]:
        arch = min(archs, key=lambda a: (not a.startswith('test_'),
                                         not re.search('atto|femto|pico|nano|micro|xxs|tiny|small|_s$|050|18', a), len(a), a))
        try:
            check_student(arch, 2, size=64)
            made += 1
        except ValueError as e:
            assert re.search(rf'64×64 px, and {arch}, made for \d+ px', str(e)) or 'square' in str(e), (arch, e)
            refused += 1
    assert made > 20 and refused < 5

@pytest.mark.parametrize('arch', ['test_vit3','test_maxvit','test_vit_relpos'])
def test_a_start_of_another_size(arch):
    native = create_student(arch, 2, pretrained=False)
    m = create_student(arch, 2, start=native.state_dict(), size=64).eval()
    assert m(torch.rand(1,3,64,64)).shape == (1,2)
    key = next(k for k,v in m.backbone.state_dict().items() if k.endswith('qkv.weight'))
    assert torch.equal(m.backbone.state_dict()[key], native.backbone.state_dict()[key])

def test_no_source_runs_for_a_student_that_cannot_be(tmp_path, monkeypatch):
    dls,pool = shots(tmp_path, 32)
    src = Zoo.embedded(names=['digits'])
    monkeypatch.setattr(Source, 'load', lambda *a, **k: pytest.fail('a source ran'))
    kw = dict(progress=False, store=False, pretrained=False)
    save_file({'w': torch.zeros(2)}, tmp_path/'w.safetensors')
    for bad,match in ((dict(arch='inception_v4'), '32×32 px, and inception_v4, made for 299 px'),
                      (dict(arch='test_eficientnet'), 'Nearest'),
                      (dict(arch='test_vit3', start=tmp_path/'w.safetensors'), 'does not fit'),
                      (dict(arch='test_vit3', stages=99), 'stages'), (dict(), '`arch`')):
        with pytest.raises(ValueError, match=match): distill_learner(dls, pool, src, **bad, **kw)
    with pytest.raises(ValueError, match='inception_v4'):
        compare((dls,pool), src, 'inception_v4', methods=['distill'], seeds=[0], store=False, pretrained=False)

def test_the_check_draws_and_changes_nothing(tmp_path):
    dls,pool = shots(tmp_path, 32)
    before = torch.get_rng_state()
    check_student('test_vit3', 2, size=32)
    assert torch.equal(before, torch.get_rng_state())
    with sketching(): assert timm.create_model('resnet18').fc.weight.is_meta
    assert not timm.create_model('test_resnet').fc.weight.is_meta

# What is no softmax over classes

def test_image_towers_have_no_classes():
    names = timm.list_pretrained()
    odd = {n: Source.from_timm(n, size=224).n_classes for n in names
           if any(o in n for o in ('clip','siglip','_pe_','_mci')) and '_ft_in' not in n}
    assert len(odd) > 100 and {k: v for k,v in odd.items() if v not in (None, 1000)} == {}
    assert all(Source.from_timm(n, size=224).n_classes for n in names if 'volo' not in n
               and timm.get_pretrained_cfg(n).num_classes in (1000, 11821, 21841, 21843, 19168, 115217))
    tower = Source.from_timm('vit_xsmall_patch16_clip_224', pretrained=False, size=32)
    feats,logits = tower.load()(torch.rand(1,3,32,32))
    assert logits is None and feats.shape == (1,256)
    assert Source.from_timm('vit_xsmall_patch16_clip_224', pretrained=False, num_classes=5).n_classes == 5

class Smooth(nn.Module):
    def forward(self, z, y): return -(torch.log_softmax(z, 1) * (.9*nn.functional.one_hot(y, z.shape[1]) + .1/z.shape[1])).sum(1).mean()
class Hinge(nn.Module):
    def forward(self, z, y): return (1 - z.gather(1, y[:,None])).clamp_min(0).mean()

def contrastive(z, y): return ((nn.functional.normalize(z, dim=1) @ nn.functional.normalize(z, dim=1).T) * (y[:,None]==y)).mean()

@pytest.mark.parametrize('loss,classes', [(CrossEntropyLossFlat(), 3), (LabelSmoothingCrossEntropyFlat(), 3),
                                          (FocalLossFlat(), 3), (nn.CrossEntropyLoss(weight=torch.tensor([1.,2,3])),
        3), (nn.functional.cross_entropy, 3), (nn.NLLLoss(), 3), (Smooth(), 3),
    (functools.partial(nn.functional.cross_entropy, label_smoothing=.1), 3), (BCEWithLogitsLossFlat(), None),
    (MSELossFlat(), None), (L1LossFlat(), None), (nn.BCEWithLogitsLoss(), None), (Hinge(), None), (contrastive, None),
    (nn.TripletMarginLoss(), None)], ids=lambda o: type(o).__name__ if not callable(getattr(o, '__name__', None)) else o)
def test_a_learner_is_a_classifier_if_its_loss_is_a_softmax(loss, classes):
    dls,_ = shots(None, 16)
    src = Source.from_learner(Learner(dls, nn.Sequential(nn.Conv2d(3,5,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                                         nn.Linear(5,3)), loss_func=loss), size=16)
    feats,logits = src.load()(torch.rand(2,3,16,16))
    assert src.n_classes == classes and feats.shape == (2,5) and (logits is None) == (classes is None)

def test_features_alone_are_another_source():
    net = nn.Sequential(nn.Conv2d(3,5,3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5,2))
    dls,_ = shots(None, 16)
    a,b = (Source.from_learner(Learner(dls, net, loss_func=o), size=16) for o in (CrossEntropyLossFlat(), BCEWithLogitsLossFlat()))
    assert a.key != b.key and a.classes == ['a','b'] and b.classes is None

# A checkpoint of one's own

@pytest.mark.filterwarnings('ignore:.*validation images are in the pool')
@pytest.mark.parametrize('with_opt', [True, False])
def test_a_learners_own_checkpoint_is_a_start(with_opt, tmp_path):
    dls,pool = shots(tmp_path, 16)
    learn = distill_learner(dls, pool, Zoo.embedded(names=['digits']), 'test_efficientnet', pretrained=False,
                            store=False, progress=False, teach=SourceClasses(), path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    path = learn.save('mine', with_opt=with_opt)
    assert any(k.startswith('source_heads') for k in read_weights(path))
    m = create_student('test_efficientnet', 3, start=path)
    assert torch.equal(m.backbone.conv_stem.weight, learn.model.backbone.conv_stem.weight.cpu())

def test_no_class_but_lists_and_numbers_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'trace'),)
    torch.save(dict(model=dict(a=torch.zeros(1)), opt=Trap()), tmp_path/'x.pth')
    with pytest.raises(ValueError, match='with_opt=False'): read_weights(tmp_path/'x.pth')
    assert not (tmp_path/'trace').exists()
