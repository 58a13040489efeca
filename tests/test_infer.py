"""An exported student answers as the Learner does: in a bare environment with ONNX Runtime and Pillow alone, for every
kind of image, in float and in eight bits"""
from copy import deepcopy
import csv, io, json, shutil, subprocess, venv
import numpy as np, pytest, torch
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from fastai.vision.all import Learner, Normalize, PILImageBW, Resize, ToTensor, accuracy, imagenet_stats
import distill_nb.infer
from distill_nb.calibrate import calibrate
from distill_nb.images import open_image
from distill_nb.items import image_items
from distill_nb.data import image_dls
from distill_nb.pool import repeat_dls
from distill_nb.packs import digits_dls
from distill_nb.deploy import *
from distill_nb.export import *
from distill_nb.publish import *
from distill_nb.student import create_student, student_splitter
from distill_nb.infer import _share as infer_share
from distill_nb.infer import Predictor, check_fields, main, predict_files, prepare, read_rgb, strict_json
onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

rng = np.random.default_rng(0)
def picture(mode, size=(40,30)):
    x = rng.integers(0, 256, (size[1],size[0],3), dtype=np.uint8)
    return Image.fromarray(x).convert(mode)

@pytest.fixture(scope='module')
def learn():
    torch.manual_seed(0)
    dls,_ = digits_dls(n=5, seed=0)
    dls.add_tfms([Normalize.from_stats(*imagenet_stats)], 'after_batch')
    learn = Learner(repeat_dls(dls, 500), create_student('test_efficientnet', 10, pretrained=False),
                    splitter=student_splitter, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 4e-3)
    return learn

@pytest.fixture(scope='module')
def graph(learn, tmp_path_factory):
    path = tmp_path_factory.mktemp('graph')/'student.onnx'
    to_onnx(learn, path)
    return path

def encoded(im, kind, **kw):
    buf = io.BytesIO()
    im.save(buf, kind, **kw)
    return buf.getvalue()

def rotated():
    exif = Image.Exif()
    exif[274] = 6
    return encoded(picture('RGB'), 'JPEG', exif=exif)

kinds = dict(jpeg=lambda: encoded(picture('RGB'), 'JPEG'), grey=lambda: encoded(picture('L'), 'PNG'),
             bits=lambda: encoded(picture('1'), 'PNG'), alpha=lambda: encoded(picture('RGBA'), 'PNG'),
             palette=lambda: encoded(picture('P'), 'GIF'),
             grey_alpha=lambda: encoded(picture('LA'), 'PNG'), cmyk=lambda: encoded(picture('CMYK'), 'JPEG'),
             sixteen=lambda: encoded(Image.fromarray(rng.integers(0, 65536, (30,40)).astype(np.uint16)), 'PNG'),
             tiff=lambda: encoded(picture('RGB'), 'TIFF'), webp=lambda: encoded(picture('RGB'), 'WEBP'),
             animated=lambda: encoded(picture('RGB'), 'GIF', save_all=True, append_images=[picture('RGB')]*2),
             transparent=lambda: encoded(picture('P'), 'PNG', transparency=3), rotated=rotated,
             one_pixel=lambda: encoded(picture('RGB', (1,1)), 'PNG'), thin=lambda: encoded(picture('RGB', (900,3)), 'PNG'),
             array=lambda: np.asarray(picture('RGB')), grey_array=lambda: np.asarray(picture('L')), pil=lambda: picture('CMYK'))

@pytest.mark.parametrize('kind', kinds)
def test_every_kind_of_image_is_seen_as_in_training(kind):
    item = kinds[kind]()
    ours,theirs = read_rgb(item),open_image(item)
    assert ours.mode == 'RGB' and ours.size == theirs.size and np.array_equal(np.asarray(ours), np.asarray(theirs))

@pytest.mark.parametrize('item', [b'', b'no image', np.zeros((4,4), np.float32), np.zeros((4,4,3,2), np.uint8),
                                  Image.fromarray(np.zeros((3,3), np.float32)),
                                  encoded(picture('RGB', (300,300)), 'JPEG')[:900], None], ids=str)
def test_what_cannot_be_read_says_so(item):
    with pytest.raises(ValueError, match='cannot read'): read_rgb(item)

def test_a_bomb_of_pixels_is_refused():
    head = encoded(picture('L', (8,8)), 'PNG')
    import struct, zlib
    ihdr = b'IHDR' + struct.pack('>IIBBBBB', 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = head[:8] + struct.pack('>I', 13) + ihdr + struct.pack('>I', zlib.crc32(ihdr)) + head[33:]
    for f in (read_rgb, open_image):
        with pytest.raises(ValueError, match='Bomb'): f(bomb)

def test_files_of_any_size_get_the_probabilities_of_the_learner(learn, tmp_path):
    files = []
    for i,size in enumerate([(32,32), (100,40), (41,77), (5,5), (300,299)]):
        files.append(tmp_path/f'{i}.png')
        picture('RGB', size).save(files[-1])
    dls = image_dls(files, [0,1,0,1,0], files, [0,1,0,1,0], size=32)
    two = Learner(dls, create_student('test_efficientnet', 2, pretrained=False).eval())
    dls.add_tfms([Normalize.from_stats(*imagenet_stats)], 'after_batch')
    to_onnx(two, tmp_path/'s.onnx')
    with two.no_bar(): want,_ = two.get_preds()
    np.testing.assert_allclose(Predictor(tmp_path/'s.onnx')(files), want.numpy(), atol=1e-4)

@pytest.mark.parametrize('arch', ['test_efficientnet','test_vit','test_convnext','test_byobnet','resnet10t',
    *(pytest.param(o, marks=pytest.mark.slow) for o in ('mobilenetv3_small_050','tf_efficientnet_lite0'))])
def test_graph_and_program_equal_the_network(arch, tmp_path):
    torch.manual_seed(0)
    m = create_student(arch, 7, pretrained=False).eval()
    size = m.backbone.pretrained_cfg['input_size'][-1]
    m.meta = dict(mean=[.5]*3, std=[.25]*3, input_size=[3,size,size], labels=list('abcdefg'))
    assert to_onnx(m, tmp_path/'s.onnx', softmax=True) < 1e-4 and to_export(m, tmp_path/'s.pt2', softmax=True) < 1e-4
    x = np.random.default_rng(0).random((3,3,size,size), dtype=np.float32)
    with torch.no_grad(): want = m((torch.from_numpy(x)-.5)/.25).softmax(1).numpy()
    p = Predictor(tmp_path/'s.onnx')
    np.testing.assert_allclose(p.run(x), want, atol=1e-4)
    assert p.labels == list('abcdefg') and p.size == size

def test_a_bare_environment(graph, learn, tmp_path):
    "What the documentation promises: a fresh virtual environment, onnxruntime and pillow, one copied file"
    venv.create(tmp_path/'venv', with_pip=True)
    python = tmp_path/'venv'/'bin'/'python'
    if subprocess.run([python, '-m', 'pip', 'install', '-q', 'onnxruntime', 'pillow'], capture_output=True).returncode:
        pytest.skip('no package registry')
    items = image_items(learn.dls.valid)[:50]
    (tmp_path/'photos').mkdir()
    for i,o in enumerate(items): Image.fromarray(o).save(tmp_path/'photos'/f'{i:02}.png')
    shutil.copy(distill_nb.infer.__file__, tmp_path/'infer.py')
    shutil.copy(graph, tmp_path/'s.onnx')
    subprocess.run([python, 'infer.py', 's.onnx', 'photos', '--csv', 'a.csv'], cwd=tmp_path, check=True, capture_output=True)
    assert subprocess.run([python, '-c', 'import torch'], capture_output=True).returncode
    with learn.no_bar(): want = learn.get_preds()[0][:50]
    rows = list(csv.DictReader(open(tmp_path/'a.csv')))
    assert [r['label'] for r in rows] == [learn.dls.vocab[i] for i in want.argmax(1)]
    np.testing.assert_allclose([float(r['probability']) for r in rows], want.max(1)[0].numpy(), atol=2e-4)

def test_lines_of_a_folder(graph, tmp_path, capsys):
    (tmp_path/'ünter').mkdir()
    for name in ('a.png', 'ünter/数字, "2".png'): picture('RGB').save(tmp_path/name)
    (tmp_path/'note.txt').write_text('no image')
    (tmp_path/'broken.jpg').write_bytes(encoded(picture('RGB', (200,200)), 'JPEG')[:500])
    (tmp_path/'ünter'/'again').symlink_to(tmp_path)                                       # a loop
    main([str(graph), str(tmp_path), '--top', '3', '--min-prob', '0'])
    out,err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [r['file'] for r in rows] == [str(tmp_path/o) for o in ('a.png', 'broken.jpg', 'ünter/数字, "2".png')]
    assert rows[1]['label'] == '' and 'cannot be read' in rows[1]['note'] and rows[0]['label3'] and '1 not' in err
    main([str(graph), str(tmp_path), '--min-prob', '1', '--csv', str(tmp_path/'a.csv')])
    assert not any(r['label'] for r in csv.DictReader(open(tmp_path/'a.csv', encoding='utf-8')))

@pytest.mark.parametrize('n,k', [(1,0), (1,1), (7,3), (40,40), (2000,1234)])
def test_the_interval_is_wilsons(n, k):
    ours,theirs = infer_share([True]*k + [False]*(n-k)),binomtest(k, n).proportion_ci(.95, 'wilson')
    assert (ours['images'], ours['right']) == (n,k)
    np.testing.assert_allclose([ours['low'],ours['high']], theirs, atol=2e-4)

def test_what_is_counted(graph, tmp_path, capsys):
    "Images in folders of classes whose answer was not withheld; and nothing where a folder is no class"
    for k in '12':
        (tmp_path/'p'/k/'deep').mkdir(parents=True)
        for i in range(4): picture('RGB').save(tmp_path/'p'/k/'deep'/f'{i}.png')
    (tmp_path/'p'/'1'/'x.jpg').write_bytes(b'?')
    def told(*args):
        main([str(graph), str(tmp_path/'p'), '--json', *args])
        return json.loads(capsys.readouterr().out)
    res = told()
    assert (res['images'], res['answered'], res['measured']['images'], len(res['answers'])) == (9,8,8,9)
    assert res['measured']['balanced'] == pytest.approx(np.mean([o['accuracy'] for o in res['measured']['classes'].values()]), abs=1e-4)
    assert 'measured' not in told('--min-prob', '1')
    picture('RGB').save(tmp_path/'p'/'loose.png')
    assert told()['measured']['images'] == 8
    (tmp_path/'p'/'2').rename(tmp_path/'p'/'two')
    assert not {'measured','not_classes'} & set(told())
    (tmp_path/'p'/'loose.png').unlink()
    assert told()['not_classes'] == ['two']
    main([str(graph), str(tmp_path/'p'/'1'), '--csv', str(tmp_path/'a.csv'), '--quiet'])
    assert capsys.readouterr() == ('','')

@pytest.mark.parametrize('args,match', [(['none.onnx','.'], 'no file'), (['{g}','none'], 'no folder'),
                                        (['{g}','.'], 'no image'), (['{g}','{p}','--top','11'], '`top`'),
                                        (['{g}','{p}','--min-prob','80'], '`min_prob`'), (['{p}/x.txt','{p}'], 'not a graph')])
def test_mistakes_end_in_one_line(args, match, graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    p = tmp_path/'p'
    p.mkdir()
    picture('RGB').save(p/'a.png')
    (p/'x.txt').write_text('?')
    if match == 'no image': p.rename(tmp_path.parent/f'{tmp_path.name}-away')
    with pytest.raises(SystemExit, match=match): main([a.format(g=graph, p=p) for a in args])

def test_a_graph_from_elsewhere_is_refused(tmp_path):
    torch.onnx.export(nn.Flatten().eval(), (torch.zeros(1,3,4,4),), tmp_path/'x.onnx', dynamo=True, verbose=False)
    with pytest.raises(ValueError, match='not written by `to_onnx`'): Predictor(tmp_path/'x.onnx')

def test_eight_bits_keep_the_metadata_and_most_answers(graph, learn, tmp_path):
    items = image_items(learn.dls.valid)
    for method in ('minmax','percentile'):
        assert quantize_onnx(graph, tmp_path/'q.onnx', items[:80], method) > .8
        q,f = Predictor(tmp_path/'q.onnx'),Predictor(graph)
        assert q.meta == f.meta and (q(items).argmax(1) == f(items).argmax(1)).mean() > .8
        assert any('QuantizeLinear' in n.op_type for n in __import__('onnx').load(tmp_path/'q.onnx').graph.node)
    assert [o.name for o in tmp_path.iterdir()] == ['q.onnx']

def test_a_calibrated_head_is_calibrated_everywhere(learn, tmp_path):
    learn = Learner(learn.dls, deepcopy(learn.model), loss_func=learn.loss_func)
    for o in learn.model.head.parameters(): o.data.mul_(10)
    with learn.no_bar():
        before,_ = learn.get_preds()
        t = calibrate(learn).attrs['temperature']
        after,_ = learn.get_preds()
    assert t > 2 and torch.equal(before.argmax(1), after.argmax(1))
    to_onnx(learn, tmp_path/'s.onnx')
    np.testing.assert_allclose(Predictor(tmp_path/'s.onnx')(image_items(learn.dls.valid)[:30]), after[:30].numpy(), atol=1e-4)
    loaded = load_student(save_student(learn, tmp_path/'s.safetensors'))
    with torch.no_grad():
        torch.testing.assert_close(loaded(learn.dls.valid.one_batch()[0]).softmax(1)[:30].as_subclass(torch.Tensor),
                                   after[:30].as_subclass(torch.Tensor), atol=1e-4, rtol=0)

@pytest.mark.parametrize('stages', [None, 3])
def test_a_folder_for_a_hub(stages, learn, tmp_path):
    timm = pytest.importorskip('timm')
    m = create_student('test_efficientnet', 3, pretrained=False, **({} if stages is None else dict(stages=stages))).eval()
    hub = save_hub(m, tmp_path/'hub', labels=['a/b','c: d','"e"'], mean=[.5]*3, std=[.2]*3, input_size=[3,48,48], results=dict(accuracy=.5))
    x = torch.rand(2,3,48,48)
    with torch.no_grad():
        want = m((x-.5)/.2)
        torch.testing.assert_close(load_student(hub/'model.safetensors')((x-.5)/.2), want)
        np.testing.assert_allclose(Predictor(hub/'student.onnx').run(x.numpy()), want.softmax(1).numpy(), atol=1e-4)
        assert Predictor(hub/'student.onnx').labels == ['a/b','c: d','"e"']
        if stages is None:
            torch.testing.assert_close(timm.create_model(f'local-dir:{hub}', pretrained=True).eval()((x-.5)/.2), want, atol=1e-4, rtol=1e-4)
    assert (hub/'config.json').exists() == (stages is None) and 'accuracy | 0.5' in (hub/'README.md').read_text()

# What was once shown in the notebook

@pytest.mark.parametrize('shape', [(320,181), (181,320), (64,64), (37,1000)])
def test_grey_images_are_resized_as_by_fastai(shape):
    img = PILImageBW(picture('L', shape))
    want = ToTensor()(Resize((32,80))(img, split_idx=1)).numpy()/np.float32(255)
    assert np.array_equal(prepare(img, (32,80)), want)

def test_a_geometry_out_of_range():
    with pytest.raises(ValueError, match='`crop_pct`'): prepare(picture('RGB'), 64, 1.5)

@pytest.mark.parametrize('text,match', [('-Infinity','finite'), ('9'*5000,''), ('','not JSON')], ids=['infinite','long','empty'])
def test_json_that_is_refused(text, match):
    with pytest.raises(ValueError, match=match): strict_json(text)

def test_descriptions_that_are_taken_and_refused():
    check_fields(dict(crop_pct=1, mean=[0]*3, labels=['crane']*2, num_classes=2, invented='anything'), 'this file')
    with pytest.raises(ValueError, match='must be an object'): check_fields([1], 'this file')

def told(graph, tmp_path, **change):
    "The graph with another description"
    m = onnx.load(graph)
    props = {**{o.key: o.value for o in m.metadata_props}, **{k: json.dumps(v) for k,v in change.items()}}
    del m.metadata_props[:]
    onnx.helper.set_model_props(m, props)
    onnx.save(m, tmp_path/'told.onnx')
    return Predictor(tmp_path/'told.onnx')

@pytest.mark.parametrize('change', [
    dict(crop_pct=-.5), dict(std=[0,1,1]), dict(labels='0123456789'), dict(labels=['a','b']), dict(input_size=[3,64,64]), dict(softmax=1),
    dict(normalize=False, mean=None)], ids=str)
def test_a_description_that_contradicts_the_graph(change, graph, tmp_path):
    with pytest.raises(ValueError, match='told.onnx'): told(graph, tmp_path, **change)

def test_what_a_predictor_is_given(graph, tmp_path):
    predictor = Predictor(graph)
    assert predictor([]).shape == (0,10)
    (tmp_path/'broken.onnx').write_bytes(b'not a graph')
    with pytest.raises(FileNotFoundError, match='no file'): Predictor(tmp_path/'none.onnx')
    with pytest.raises(ValueError, match='not a graph'): Predictor(tmp_path/'broken.onnx')
    with pytest.raises(ValueError, match='from 0 to 1'): list(predict_files(predictor, [], min_prob=80))
