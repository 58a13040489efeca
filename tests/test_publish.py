"Any name stays a name, in Markdown, in the app and in a browser; the app gives the student's answers"
import json, os, re, subprocess, sys
from html import unescape
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from browser import browser, chromium, free_port, started
from distill_nb.infer import Predictor
from distill_nb.publish import escape_markdown, save_hub
from distill_nb.student import create_student

names = ('<img src=x onerror=alert(1)>', 'a|b', '[x](javascript:1)', '---', '$x$', '# x', '1. x', '100) x', '=', '`x`', '**x**',
         '&lt;', 'http://x.org', 'www.x.org', '~~x~~', '@x', '\\', '', 7)

@pytest.mark.parametrize('name', names)
def test_a_name_shows_as_it_is(name):
    text = escape_markdown(name)
    assert unescape(text) == str(name)
    assert not set(text) & set('<>|[]`*$\\@') and not re.match(r'[-+=#\d]+[-+=.) ]', text)

# The app

title = '<script>document.title="run"</script> *Flowers* {of} spring'
labels = ['<img src=x onerror=document.title="run">', 'a|b & "c"', '<b>bold</b>', 'tulip', "}''' {title}"]

@pytest.fixture(scope='module')
def space(tmp_path_factory):
    "A folder with an app, and a picture whose greys a conversion would change"
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    net = create_student('test_efficientnet', len(labels), pretrained=False)
    with torch.no_grad(): net.head.weight.mul_(1000)
    d = tmp_path_factory.mktemp('hub')/'space'
    save_hub(net, d, app=True, title=title, labels=labels, mean=[.5]*3, std=[.5]*3, input_size=[3,64,64])
    x,y = np.mgrid[:90,:120]
    Image.fromarray(np.stack([x*2, y*2, x+y, 255-x], -1).astype(np.uint8), 'RGBA').save(d.parent/'picture.png')
    (d.parent/'broken.png').write_bytes(b'no picture')
    return d

def answers(space): return dict(zip(labels, Predictor(space/'student.onnx')([space.parent/'picture.png'])[0].tolist()))

stub = """
import json, sys
class Thing:
    def __init__(self, *args, **kwargs): shown.append([args, {k: str(v) for k,v in kwargs.items()}])
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def change(self, f, *_): self.f = f
shown = []
class Error(Exception): pass
class Image(Thing):
    def change(self, f, *_): Image.f = staticmethod(f)
Blocks = Row = HTML = Label = Thing
"""

def test_the_app_runs_with_the_folder_alone(space, tmp_path):
    (tmp_path/'gradio.py').write_text(stub)
    code = ("import sys, json; sys.modules.update(torch=None, fastai=None, distill_nb=None); "
            f"sys.path[:0] = [{str(space)!r}, {str(tmp_path)!r}]; "
            "import app, gradio; app.page(); f = gradio.Image.f; d = '../'\n"
            "try: f('broken.png')\n"
            "except gradio.Error as e: said = str(e)\n"
            "print(json.dumps([f('picture.png'), f(None), said, gradio.shown]))")
    env = {**os.environ, 'PYTHONPATH': ''}
    done = subprocess.run([sys.executable, '-c', code], cwd=space.parent, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    got,nothing,said,shown = json.loads(done.stdout)
    assert got == answers(space) and max(got, key=got.get) == list(got)[-1] and nothing == {} and 'picture' in said
    heading, = [args[0] for args,_ in shown if args]
    assert unescape(heading).endswith(f'>{title}</h1>') and '<script' not in heading

def test_what_a_user_types_becomes_no_code(space, tmp_path):
    other = create_student('test_efficientnet', 2, pretrained=False)
    plain = save_hub(other, tmp_path/'plain', app=True, labels=['a','b'], mean=[.5]*3, std=[.5]*3, input_size=[3,32,32])
    for f in ('app.py','infer.py','requirements.txt'): assert (plain/f).read_bytes() == (space/f).read_bytes()
    assert json.loads((space/'app.json').read_text()) == dict(title=title)

def test_an_app_is_asked_for_and_then_kept(tmp_path):
    net,meta = create_student('test_efficientnet', 2, pretrained=False),dict(mean=[.5]*3, std=[.5]*3, input_size=[3,32,32])
    d = save_hub(net, tmp_path/'hub', onnx=False, **meta)
    assert not (d/'app.py').exists() and 'sdk' not in (d/'README.md').read_text()
    (d/'app.py').write_text('mine')
    save_hub(net, d, onnx=False, **meta)
    assert (d/'app.py').read_text() == 'mine'
    with pytest.raises(ValueError, match='`app`'): save_hub(net, d, onnx=False, app=True, **meta)
    assert (d/'app.py').read_text() == 'mine'

@pytest.mark.browser
@pytest.mark.parametrize('width', [1280,390])
def test_the_app_in_a_browser(space, width, tmp_path):
    pytest.importorskip('gradio', reason='the app needs gradio: pip install gradio')
    port = free_port()
    env = dict(GRADIO_SERVER_PORT=str(port), GRADIO_ANALYTICS_ENABLED='False', GRADIO_TEMP_DIR=str(tmp_path), PYTHONPATH='')
    with started('app.py', cwd=space, port=port, **env) as url, browser(chromium()) as b:
        page = b.new_page(viewport=dict(width=width, height=900))
        page.set_default_timeout(300_000)
        page.route(lambda u: not u.startswith(url), lambda r: r.abort())                   # fonts
        page.goto(url)
        assert page.inner_text('h1') == title
        page.set_input_files('input[type=file]', space.parent/'picture.png')
        page.wait_for_selector('[data-testid=label-output-value]')
        expected = sorted(answers(space).items(), key=lambda o: -o[1])
        assert page.inner_text('[data-testid=label-output-value]').strip() == expected[0][0]
        shown = page.evaluate("[...document.querySelectorAll('.confidence-set')].map(o => o.innerText.split('\\n').filter(t => t.trim()))")
        assert [(o[0].strip(), o[-1].strip()) for o in shown] == [(k, f'{p:.0%}') for k,p in expected]
        assert not page.locator('img[src=x]').count() and page.title() == title
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        if folder := os.environ.get('DISTILL_NB_SHOTS'): page.screenshot(path=Path(folder)/f'app_{width}.png')
