"Every name that Linux allows and every string that can be printed, from folder to outputs, list, page and figure; nothing of a name is run"
import csv, io, os, subprocess, sys, warnings
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
from distill_nb import infer
from distill_nb.demo import write_demo
from distill_nb.calibrate import coverage_table, reliability
from distill_nb.explore import RankExplorer, explore_runs
from distill_nb.browse import LabelBrowser
from distill_nb.images import path_keys
from distill_nb.compare import Comparison
from distill_nb.outputs import get_outputs
from distill_nb.pseudo_labels import PseudoLabels
from distill_nb.plots import *
from distill_nb.ranking import Ranking
from distill_nb.sources import Source
from distill_nb.zoo import Zoo
from distill_nb.bench import plot_suite

file_names = [b'caf\xe9.png', 'café.png'.encode(), b'a\nb.png', b'a\rb.png', b'-x.png', b' .png', b'a"b,c.png',
              '图\u202e.png'.encode(), b'$x$\\.png', b'<b>.png', b'%s{}.png', b'x'*251+b'.png', b'\xff\xfe.PNG']

@pytest.fixture()
def folder(tmp_path):
    d = tmp_path/'in'
    d.mkdir()
    for i,n in enumerate(file_names):
        Image.new('RGB', (9,9), (i*9,0,0)).save(f := io.BytesIO(), 'png')
        Path(os.fsdecode(os.path.join(os.fsencode(d), n))).write_bytes(f.getvalue())
    os.mkfifo(d/'pipe.png')
    return d

def test_file_names_in_a_store(folder, tmp_path):
    src,files = Zoo.embedded()['digits'],infer.find_images(folder)
    assert sorted(os.fsencode(o.name) for o in files) == sorted(file_names)
    want = get_outputs(src, [o.read_bytes() for o in files], False, progress=False)
    for _ in range(2):
        path_keys.clear()
        assert torch.equal(get_outputs(src, files, tmp_path/'store', progress=False).features, want.features)
    with pytest.raises(ValueError, match='regular'): get_outputs(src, [folder/'pipe.png'], False, progress=False)

class Predictor:
    "Stands for a graph"
    labels = ['é','\ud800"\r']
    def __init__(self, *_): pass
    def prepare(self, f): return np.zeros(2)
    def run(self, x): return np.tile([.3,.7], (len(x),1))

def listed(data):
    return [os.fsencode(os.path.basename(r[0])) for r in csv.reader(io.StringIO(data.decode('utf-8','surrogateescape'), newline=''))][1:]

def test_file_names_in_a_list(folder, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setattr(infer, 'Predictor', Predictor)
    infer.main(['x.onnx', str(folder), '--csv', str(tmp_path/'o.csv')])
    data = (tmp_path/'o.csv').read_bytes()
    assert sorted(listed(data)) == sorted(file_names) and b'\r\n' not in data
    infer.main(['x.onnx', str(folder)])
    assert capsysbinary.readouterr().out == data

@pytest.mark.parametrize('encoding', ['utf-8','ascii','latin-1'])
def test_file_names_on_a_screen_that_cannot_show_them(encoding, folder, monkeypatch):
    monkeypatch.setattr(infer, 'Predictor', Predictor)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding))
    infer.main(['x.onnx', str(folder)])
    sys.stdout.flush()
    assert sys.stdout.errors == 'strict' and raw.getvalue().count(b'0.7') == len(file_names) and b'caf\xe9.png' in raw.getvalue()

@pytest.mark.parametrize('how', ['/dev/stdout | cat','/dev/stdout > o.csv','pipe & cat pipe; wait'])
def test_list_into_a_pipe(how, folder, tmp_path):
    os.mkfifo(tmp_path/'pipe')
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); " \
           "from unittest import mock; from distill_nb import infer; import numpy as np\n" \
           "class P:\n  labels = ['a','b']\n  def __init__(s, *_): pass\n  def prepare(s, f): return np.zeros(2)\n" \
           "  def run(s, x): return np.tile([.3,.7], (len(x),1))\n" \
           f"infer.Predictor = P; infer.main(['x', {str(folder)!r}, '--csv', sys.argv[1]])"
    (tmp_path/'s.py').write_text(code)
    out = subprocess.run(['bash','-c',f"{sys.executable} s.py {how}"], cwd=tmp_path, stdout=subprocess.PIPE, timeout=900).stdout
    if how.endswith('o.csv'): out = (tmp_path/'o.csv').read_bytes()
    assert sorted(listed(out)) == sorted(file_names)
    assert sorted(o.name for o in tmp_path.iterdir()) == sorted(['in','pipe','s.py'] + ['o.csv']*how.endswith('o.csv'))

# Figures

odd = [r'$\foo$','a_b^c','','_hidden','$','x'*300,'两行\nשלום','\\$',r'\alpha','%s{}','caf\udce9','\x00\t\x1b']

def shown(name): return plain_label(name).replace(r'\$','$')

def test_labels():
    assert [shown(o) for o in (r'$\foo$','a_b^c','','_hidden','a\nb','caf\udce9')] == [r'$\foo$','a_b^c',' ',' _hidden','a b','caf\ufffd']
    assert len(shown('x'*300)) == 81

rng = np.random.default_rng(0)
def ranking(names, metric='cka'):
    return Ranking(names, np.linspace(.5, .1, len(names)), metric, 50, rng.uniform(0, 1, (20,len(names))),
                   rng.uniform(0, .1, (20,len(names))))
def runs(names):
    return [dict(target=t, budget=1, method=m, seed=s, accuracy=.5+.01*i+.01*s, seconds=1.) for t in names[:2] for i,
            m in enumerate(names) for s in (0,1)]
def trust(): return rng.dirichlet([.4]*5, 50),rng.integers(0,5,50)
def recorder(names):
    return SimpleNamespace(recorder=SimpleNamespace(metric_names=['epoch','train_loss','valid_loss',*names,'time'],
                                                    losses=[2.,1.], iters=[1,2], values=[[1,2,*[.5]*len(names)]]*2))
table = lambda names: pd.DataFrame({'accuracy': np.linspace(.1,.9,len(names)), 'CPU ms': np.arange(1, len(names)+1),
                                    r'$\bar$': np.arange(1, len(names)+1)}, names)

figures = dict(
    plot_ranking=lambda n: plot_ranking(ranking(n, n[0])), plot_weights=lambda n: plot_weights(ranking(n)),
    plot_check=lambda n: plot_check(ranking(n, n[0]), np.linspace(.3,.9,len(n))),
    plot_estimators=lambda n: plot_estimators({m: ranking(n) for m in n}),
    plot_similarity=lambda n: plot_similarity(pd.DataFrame(np.eye(len(n)), n, n)),
    plot_entropy=lambda n: plot_entropy(PseudoLabels(torch.full((5,2*len(n)), .5), [2]*len(n)), n),
    plot_features=lambda n: plot_features(rng.normal(size=(50,4)), np.arange(50)%len(n), n),
    plot_training=lambda n: plot_training(recorder(n)), plot_cost=lambda n: plot_cost(table(n), r'$\bar$'),
    plot_comparison=lambda n: plot_comparison(Comparison([r for r in runs(n) if r['target']==n[0]], n[0])),
    plot_reliability=lambda n: plot_reliability({o: reliability(*trust()) for o in n}),
    plot_coverage=lambda n: plot_coverage({o: coverage_table(*trust()) for o in n}),
    plot_suite=lambda n: np.ravel(plot_suite(pd.DataFrame(runs(n)), n[0]))[0])

def test_no_figure_is_forgotten():
    import distill_nb.plots as p
    assert {o for o in p.__all__ if o.startswith('plot_')} <= set(figures)

@pytest.mark.parametrize('figure', figures)
def test_names_in_figures(figure):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing')                    # whatever fonts there are
        ax = figures[figure](odd)
        ax.figure.savefig(io.BytesIO(), format='svg')
        ax.figure.savefig(io.BytesIO(), format='png', dpi=20)
    texts = [t.get_text() for t in ax.figure.findobj(plt.Text)]
    for o in odd[:7] if figure in ('plot_weights','plot_training') else odd[:9] if figure in ('plot_reliability','plot_coverage') else odd:
        assert any(plain_label(o) in t for t in texts), o
    plt.close('all')

def test_text_stays_in_pythons_strings():
    "pandas keeps it in Arrow where pyarrow is installed, and Arrow holds nothing but UTF-8"
    code = "import pandas as pd; assert pd.get_option('mode.string_storage') == 'auto'\nimport distill_nb.{}\n" \
           "t = pd.DataFrame(dict(image=['caf\\udce9', 'b'], n=[1, 2])).set_index('image')\n" \
           "assert t.index.dtype.storage == 'python' and t.loc['caf\\udce9', 'n'] == 1\n" \
           "assert len(t.reset_index().groupby('image').n.sum()) == 2"
    for module in ('core','ranking'):
        subprocess.run([sys.executable, '-c', code.format(module)], check=True)

# Pages

evil = ['<img src=x onerror=alert(1)>','"><script>alert(2)</script>','--><svg onload=alert(3)>',"'&lt;"]
def harmless(html): return not any(o in html for o in ('<img src=x','<script>alert','<svg onload'))

def test_names_in_a_report(tmp_path):
    c = Comparison([r for r in runs(evil) if r['target']==evil[0]], evil[0])
    page = write_demo(tmp_path, ranking(evil, evil[0]), c, title=evil[0], about=evil[1], again=evil[2])
    assert harmless(page.read_text()) and pd.read_csv(tmp_path/'ranking.csv').source.tolist() == evil
    assert pd.read_csv(tmp_path/'table.csv').method.tolist() == evil

def test_names_in_tables_and_widgets():
    r,c = ranking(evil, evil[0]),Comparison([r for r in runs(evil) if r['target']==evil[0]], evil[1])
    r.failed = {evil[0]: evil[1]}
    r.eliminated = pd.DataFrame(dict(source=evil))
    zoo = Zoo([Source(o, None, lambda: 'k', size=32, mean=.5, std=.5, meta=dict(arch=o, task=o, weights=o)) for o in evil])
    n = len(evil)
    browser = LabelBrowser([np.zeros((8,8,3), np.uint8)]*2, evil, np.full(n, 1/n), [torch.eye(4)[:2]]*n,
                           torch.full((n,2,4), .25), [evil]*n, evil)
    parts = [r._repr_html_(), c._repr_html_(), zoo._repr_html_(), browser.to_html()]
    for w in (RankExplorer(r), explore_runs(c.rows, evil[1])):
        parts += [w.to_html(), *(o.value for o in vars(w).values() if type(o).__name__ == 'HTML')]
    assert all(map(harmless, parts)) and all('&lt;' in o for o in parts[:4])

@pytest.mark.parametrize('figure', figures)
def test_names_in_drawings(figure):
    ax = figures[figure](evil)
    for kind in ('path','none'):
        with plt.rc_context({'svg.fonttype': kind}): ax.figure.savefig(f := io.StringIO(), format='svg')
        assert harmless(f.getvalue())
    plt.close('all')
