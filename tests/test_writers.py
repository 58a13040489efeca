"""Every file that the package writes is complete and new, or as it was: on a full disk, and when its writer is killed.
The code is searched for writers, so that none is forgotten"""
import ast, json, os, resource, signal, subprocess, sys, tempfile, warnings
from contextlib import closing
from pathlib import Path
import matplotlib
matplotlib.use('Agg')
import numpy as np, pytest, torch
import distill_nb
from distill_nb import infer
from distill_nb.demo import write_demo
from distill_nb.files import whole_file, write_whole
from distill_nb.kept import KeptImages, ResizeView
from distill_nb.compare import Comparison
from distill_nb.store import Store
from distill_nb.outputs import get_outputs
from distill_nb.pseudo_labels import pseudo_labels
from distill_nb.ranking import Ranking
from distill_nb.sources import Source

# All of them

writing = '''write_text write_bytes to_csv to_parquet to_json to_pickle savefig open_memmap replace rename renames
    link symlink copy copy2 copyfile move save savez savez_compressed dump save_file save_model export extractall tofile
    savetxt urlretrieve'''.split()
modes = 'w wb a ab x xb r+ r+b w+ w+b'.split()
tables_of_pandas = 'to_csv to_parquet to_json to_pickle'.split()
modules_that_write = 'os shutil np torch pickle json joblib safetensors onnx'.split()

def calls_that_write(module):
    "(function, what it calls) of calls that write a file by its path"
    def name(f): return ast.unparse(f)
    res = []
    for top in ast.parse(module.read_text()).body:
        for n in ast.walk(top):
            if not isinstance(n, ast.Call): continue
            f,args = name(n.func),[ast.unparse(a) for a in n.args] + [ast.unparse(k.value) for k in n.keywords]
            last = f.split('.')[-1]
            opened = last == 'open' and any(a.strip("'") in modes or a == 'mode' for a in args)
            method = last in ('write_text','write_bytes','savefig','tofile') or last in tables_of_pandas and n.args
            function = last in writing and '.' in f and f.split('.')[0] in modules_that_write
            if opened or method or function: res.append((getattr(top, 'name', '?'), f))
    return res

known = { # what else writes, and why it may
    'files': {('_new_part','open'), ('whole_file','open'), ('whole_file','os.replace'), ('whole_folder','os.replace')},
    # into the part of a `whole_folder`
    'to_label': {('_put','shutil.copyfile')},
    # runs without the package
    'infer': {('whole_file','open'), ('whole_file','os.replace'), ('_screen','open')},
    # into the part of a `whole_file`
    'pseudo_labels': {('_new_table','np.lib.format.open_memmap')},
    # into a `whole_file`
    'suites': {('write_summary','plot_suite(rows, reference).flat[0].figure.savefig')},
    # into memory
    'demo': {('_png','ax.figure.savefig')},
    'deploy': {('save_student','safetensors.torch.save')},
    'kept': {('write','np.save')},
    'plots': {('figure_png','fig.savefig')},
    'resume': {('write_state','torch.save')},
    # into memory, or a temporary folder
    'export': {('onnx_graph','torch.onnx.export'), ('to_export','torch.export.save'), ('to_export','torch.export.export'),
               ('_eight_bits',"(Path(d) / 'graph.onnx').write_bytes"), ('_file_mb','safetensors.torch.save_model')},
}

def test_no_writer_is_forgotten():
    for module in Path(distill_nb.__file__).parent.glob('*.py'):
        if module.stem == '_modidx': continue
        unknown = set(calls_that_write(module)) - known.get(module.stem, set())
        assert not unknown, f"{module.stem}: {unknown} should write through `files.write_whole` or `files.whole_file`"

def test_the_search_finds_writers(tmp_path):
    lines = ["open(p,'w')", "p.open('wb')", "p.write_text('')", "df.to_csv(p)", "fig.savefig(p)", "np.save(p, a)",
             "torch.save(a, p)", "os.replace(a, b)", "shutil.copy(a, b)", "json.dump(a, f)"]
    (tmp_path/'m.py').write_text('\n'.join(lines))
    assert len(calls_that_write(tmp_path/'m.py')) == len(lines)
    (tmp_path/'m.py').write_text("open(p)\nopen(p,'rb')\ndf.to_csv()\ns.replace('a','b')\nx.copy()")
    assert calls_that_write(tmp_path/'m.py') == []

# Each of them, full disk and kill

@pytest.fixture(autouse=True, scope='module')
def stand_in():
    global pictures
    with pytest.MonkeyPatch.context() as m, tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        m.setattr(infer, 'Predictor', Predictor)
        yield

class Predictor:
    labels = ['a','b']
    def __init__(self, *_): pass
    def prepare(self, f): return np.zeros(2)
    def run(self, x): return np.tile([.3,.7], (len(x),1))

def data(k, n=40): return list(np.random.default_rng(0).integers(0, 255, (n,16,16,3), dtype=np.uint8))

def report(d, k):
    rank = Ranking([f'source {i}' for i in range(3)], np.linspace(.5,.1,3)+.01*k, 'cka', 50)
    runs = [dict(method=m, seed=s, accuracy=.5+.1*k+.01*s, seconds=1.) for m in ('transfer','b') for s in (0,1)]
    write_demo(d, rank, Comparison(runs), title=str(k))
def answers(d, k):
    images = pictures/str(k)
    images.mkdir(exist_ok=True)
    for i in range(30+k): (images/f"{i}{'x'*100}.png").touch()
    infer.main(['x', str(images), '--csv', str(d/'o.csv')])
def source():
    "One whose outputs are exact, in whatever order they are added up"
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 200))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(768)[:200])
        net[1].bias.zero_()
    return Source.from_module(net, .5, .5, 16, name='exact')
def store(d, k): get_outputs(source(), data(k)[:20+k], Store(d, chunk=8), bs=4, progress=False)
def tables(d, k): pseudo_labels([source()], data(k), store=d, memory=0, T=1.+k, progress=False)
def kept(d, k): [KeptImages(d).open(o, ResizeView((40,40), True, False, 2)) for o in data(k)[:10+k]]
def text(d, k): write_whole(d/'a.txt', f'{k}'*9000)
writers = dict(report=report, answers=answers, store=store, tables=tables, kept=kept, text=text)

def content(d):
    files = [p for p in d.rglob('*') if p.is_file() and not p.name.startswith(('files.sqlite','.tmp-'))]
    return {p.relative_to(d): p.read_bytes() for p in files}

@pytest.fixture(scope='module', params=writers)
def writer(request, tmp_path_factory):
    "A writer, and what its first and second call leave"
    f,d = writers[request.param],tmp_path_factory.mktemp('w')/'d'
    d.mkdir()
    f(d, 0)
    first = content(d)
    f(d, 1)
    return f,first,content(d)

class Children:
    "Processes that write, each forked from one without threads, which has all imports done"
    def __init__(self):
        env = {**os.environ, 'OMP_NUM_THREADS': '1'}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.server = subprocess.Popen([sys.executable, __file__], text=True, env=env, **pipes)
    def __call__(self, how, f, d, n):
        "Exit status of a child that writes into `d`: 0 if nothing was raised"
        print(json.dumps([how, f.__name__, str(d), str(pictures), n]), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())
    def close(self):
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()

@pytest.fixture(scope='module')
def in_a_child():
    with closing(Children()) as c: yield c

def full(f, d, room):
    "No file may grow beyond `room` bytes"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    f(d, 1)

def killed(f, d, n):
    "At the moment when file number `n` is about to be put in place"
    put,left = os.replace,n
    def replace(a, b):
        nonlocal left
        if not left: os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        put(a, b)
    os.replace = replace
    f(d, 1)

def serve():
    global pictures
    torch.set_num_threads(1)
    infer.Predictor = Predictor
    said = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        how,name,d,pictures,n = json.loads(line)
        pictures = Path(pictures)
        if not (pid := os.fork()):
            for fd in (1,2): os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
            warnings.simplefilter('ignore')
            try: dict(full=full, killed=killed)[how](writers[name], Path(d), n)
            except SystemExit: os._exit(3)
            except BaseException: os._exit(2)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=said, flush=True)

def as_it_should_be(d, first, second):
    now = content(d)
    for p,b in now.items(): assert b in (first.get(p), second.get(p)), f'{p} is neither as it was nor new'
    assert set(first) <= set(now)
    return now

def start(f, first, tmp_path):
    d = tmp_path/'d'
    d.mkdir()
    for p,b in first.items():
        (d/p).parent.mkdir(parents=True, exist_ok=True)
        (d/p).write_bytes(b)
    return d

@pytest.mark.parametrize('room', [0,1000])
def test_full_disk(writer, room, tmp_path, in_a_child):
    f,first,second = writer
    d = start(f, first, tmp_path)
    rc = in_a_child('full', f, d, room)
    assert rc in ((0,) if f is kept else (2,3) if room == 0 else (0,2,3))         # images need not be kept
    as_it_should_be(d, first, second)
    assert not list(d.rglob('.tmp-*'))
    f(d, 1)
    assert content(d) == second

def test_killed(writer, tmp_path, in_a_child):
    f,first,second = writer
    d,n = start(f, first, tmp_path),0
    while (rc := in_a_child('killed', f, d, n)) == -signal.SIGKILL and n < 3:
        as_it_should_be(d, first, second)
        assert len(list(d.rglob('.tmp-*'))) == 1
        n += 1
    assert rc in (0,-signal.SIGKILL) and (n or f is kept)
    f(d, 1)
    assert content(d) == second                                 # and nothing that the dead have left

def test_ctrl_c_leaves_a_file_as_it_was(tmp_path):
    for whole in (whole_file, infer.whole_file):
        (tmp_path/'a').write_text('was')
        with pytest.raises(KeyboardInterrupt), whole(tmp_path/'a'): raise KeyboardInterrupt
        assert (tmp_path/'a').read_text() == 'was' and [o.name for o in tmp_path.iterdir()] == ['a']

def test_the_two_writers_spare_each_other(tmp_path):
    "A live part of either is not cleared by the other; a dead one is"
    for a,b in ((whole_file,infer.whole_file), (infer.whole_file,whole_file)):
        (tmp_path/'.tmp-dead').touch()
        with a(tmp_path/'a'), b(tmp_path/'b'): pass
        assert sorted(o.name for o in tmp_path.iterdir()) == ['a','b']

if __name__ == '__main__': serve()
