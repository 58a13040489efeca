"A student for OpenVINO and LiteRT gives the network's answers, and its metadata come back"
import json, zipfile
import numpy as np, pytest, timm, torch
from torch import nn
from distill_nb.runtimes import *
from distill_nb.student import create_student

labels = ['<a> & "b"', 'größe\n', "it's"]
how = dict(mean=[.4,.5,.6], std=[.2,.3,.4], size=(32,48))

def student(**kwargs):
    torch.manual_seed(0)
    return create_student('test_efficientnet', len(labels), pretrained=False, **kwargs).eval()

def expected(net, x):
    mean,std = (torch.tensor(how[k])[:,None,None] for k in ('mean','std'))
    with torch.no_grad(): return net((x-mean)/std)

def named(net):
    net.meta = dict(labels=labels)
    return net

def run_openvino(path, x):
    ov = pytest.importorskip('openvino')
    core = ov.Core()
    graph = core.read_model(path)
    meta = json.loads(graph.get_rt_info(['distill_nb']).value)
    return meta,core.compile_model(graph, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})({'image': x.numpy()})[0]

def run_litert(path, x):
    from ai_edge_litert.interpreter import Interpreter
    run = Interpreter(str(path)).get_signature_runner()
    said = [next(iter(run(image=o.permute(1,2,0)[None].contiguous().numpy()).values())) for o in x]
    return json.loads(zipfile.ZipFile(path).read('meta.json')),np.concatenate(said)

formats = {'openvino': (to_openvino, run_openvino, '.xml', ('openvino','onnxscript')),
           'litert': (to_litert, run_litert, '.tflite', ('litert_torch','ai_edge_litert'))}

@pytest.fixture(params=list(formats))
def format(request):
    "(function, how to run its file, extension), where the packages are installed"
    *res,packages = formats[request.param]
    for o in packages: pytest.importorskip(o, reason=f"pip install 'distill_nb[{request.param}]'")
    return res

def test_the_answers_and_the_metadata(format, tmp_path, capsys):
    write,run,end = format
    net,x = named(student()),torch.rand(3, 3, 32, 48)
    assert write(net, tmp_path/f'a{end}', **how) < 1e-4
    assert ''.join(capsys.readouterr()) == ''
    meta,got = run(tmp_path/f'a{end}', x)
    np.testing.assert_allclose(got, expected(net, x), atol=1e-4)
    assert meta['labels'] == labels and meta['input_size'] == [3,32,48] and meta['arch'] == 'test_efficientnet'
    assert meta['mean'] == how['mean'] and meta['normalize'] is True and meta['softmax'] is False
    assert write(net, tmp_path/f'a{end}', softmax=True, **how) < 1e-4                       # in place of the first
    meta,got = run(tmp_path/f'a{end}', x)
    np.testing.assert_allclose(got, expected(net, x).softmax(1), atol=1e-4)
    assert meta['softmax'] is True
    assert sorted(o.suffix for o in tmp_path.iterdir()) == sorted({end, '.bin'} if end == '.xml' else {end})

def test_an_image_without_colours(format, tmp_path):
    write,run,end = format
    net,x = student(in_chans=1),torch.rand(2, 1, 32, 32)
    assert write(net, tmp_path/f'a{end}', size=32, normalize=False, mean=[.5], std=[.5]) < 1e-4
    meta,got = run(tmp_path/f'a{end}', x)
    with torch.no_grad(): np.testing.assert_allclose(got, net(x), atol=1e-4)
    assert meta['input_size'] == [1,32,32] and meta['normalize'] is False

def test_a_graph_that_differs_is_not_written(format, tmp_path):
    write,run,end = format
    write(student(), tmp_path/f'a{end}', **how)
    before = {o.name: o.read_bytes() for o in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match='nothing was written'): write(student(), tmp_path/f'a{end}', tol=0, softmax=True, **how)
    assert {o.name: o.read_bytes() for o in tmp_path.iterdir()} == before

def test_half_the_size(tmp_path):
    pytest.importorskip('openvino', reason="pip install 'distill_nb[openvino]'")
    for half in (False,True): to_openvino(student(), tmp_path/f'{half}.xml', half=half, tol=.1, **how)
    assert (tmp_path/'True.bin').stat().st_size < .55*(tmp_path/'False.bin').stat().st_size
    x = torch.rand(3, 3, 32, 48)
    np.testing.assert_allclose(run_openvino(tmp_path/'True.xml', x)[1], expected(student(), x), atol=.1)

@pytest.mark.parametrize('name', list(formats))
def test_what_is_refused(name, tmp_path, monkeypatch):
    write,_,end,packages = formats[name]
    with pytest.raises(ValueError, match=f'`path`.*{end}'): write(student(), tmp_path/'a.onnx', **how)
    monkeypatch.setattr('distill_nb.export.find_spec', lambda n: None)
    needs = rf"{write.__name__} needs {packages[0]}.*pip install 'distill_nb\[{name}\]'"
    with pytest.raises(ImportError, match=needs): write(student(), tmp_path/f'a{end}')
    monkeypatch.setattr('distill_nb.export.find_spec', lambda n: True)
    with pytest.raises(ValueError, match='`size`'): write(timm.create_model('test_efficientnet'), tmp_path/f'a{end}')
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(ValueError, match='`normalize=False`'): write(net, tmp_path/f'a{end}', size=4)
    assert not list(tmp_path.iterdir())
