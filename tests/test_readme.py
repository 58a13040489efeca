"The lines of the README run as they are typed, on a folder of pictures and with stand-ins for what a hub would send"
import re
from importlib import resources
from pathlib import Path
import shutil
import numpy as np, pytest, timm
from PIL import Image
from distill_nb import networks

root = Path(__file__).resolve().parent.parent
blocks = re.findall(r'```python\n(.*?)```', (root/'README.md').read_text(encoding='utf-8'), re.S)
create = timm.create_model

def random_weights(name, pretrained=False, **kwargs):
    "What timm makes, without a download"
    return create(name, pretrained=False, **kwargs)

@pytest.fixture()
def place(tmp_path, monkeypatch):
    "A folder with pictures of three classes, a pool, and a zoo"
    rng = np.random.default_rng(0)
    def picture(i): return Image.fromarray((rng.random((40,48,3))*120 + 60*np.eye(3)[i%3]).astype(np.uint8))
    for i in range(15):
        file = tmp_path/'photos'/f'kind{i%3}'/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
    (tmp_path/'more').mkdir()
    for i in range(12): picture(i).save(tmp_path/'more'/f'{i}.png')
    shutil.copytree(resources.files('distill_nb')/'zoo', tmp_path/'zoo')
    monkeypatch.setenv('DISTILL_NB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(networks.timm, 'create_model', random_weights)
    monkeypatch.setattr(networks, 'hub_answers', lambda *a, **kw: True)
    monkeypatch.chdir(tmp_path)
    return tmp_path

def test_the_lines_of_the_readme(place):
    lines = dict(path=place/'photos', unlabeled=place/'more')
    long, = [b for b in blocks if b.startswith('from distill_nb.all import *')]
    exec(long, lines)
    assert (place/'student.onnx').stat().st_size > 100_000 and (lines['path']/'student.pkl').exists() or (place/'student.pkl').exists()
    assert len(lines['learn'].recorder.values) == 20 and lines['learn'].lr == pytest.approx(9e-4, rel=.1)
    assert len(lines['rank']) == 10

def test_the_lines_of_the_cards(place):
    lines = dict(unlabeled=place/'more')
    exec('from distill_nb.all import *', lines)
    dls = lines['ImageDataLoaders'].from_folder(place/'photos', valid_pct=.2, item_tfms=lines['Resize'](64))
    lines |= dict(dls=dls, zoo=lines['Zoo'].checkpoints('zoo/'))
    for b in blocks[:3]:
        *first,last = b.strip().splitlines()
        exec('\n'.join(first), lines)
        lines['shown'] = eval(last.replace('20', '1'), lines)
    assert len(lines['learn'].recorder.values) == 1 and isinstance(lines['shown'], lines['Labeler'])
