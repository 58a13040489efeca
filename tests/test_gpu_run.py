"A rehearsal of `scripts/gpu_run.py`: from a small bundle, where nothing else is installed and no network is there, on a CPU"
import ast, importlib.metadata, io, json, lzma, os, signal, subprocess, sys, tarfile, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from offline import bare_environment, cut_off, offline_env

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'scripts'))
import gpu_run, offline_bundle

names = 'aerial birds chestxray corn flowers pets skin textures'.split()
methods = {'transfer','lp_ft','fixmatch','weighted','distill','all_labels'}

def pack(path, seed, classes=4, n=16, px=32):
    "A target of coloured noise, a colour for each class"
    r,jpegs = np.random.default_rng(seed),[]
    for i in range(classes*n):
        b = io.BytesIO()
        Image.fromarray(r.normal(40+50*(i%classes), 25, (px,px,3)).clip(0,255).astype(np.uint8)).save(b, 'JPEG', quality=95)
        jpegs.append(b.getvalue())
    np.savez(path, jpeg=np.frombuffer(b''.join(jpegs), np.uint8), offsets=np.cumsum([0]+[len(j) for j in jpegs]),
             labels=(np.arange(classes*n)%classes).astype(np.int16),
             is_test=np.arange(classes*n) >= classes*(n-5), classes=np.array([f'c{i}' for i in range(classes)]))

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    (folder/'targets').mkdir()
    for i,t in enumerate(names): pack(folder/'targets'/f'{t}.npz', i)
    return folder

@pytest.fixture(scope='module')
def bundle(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('bundle')/'gpu'
    offline_bundle.main([str(out), '--tiny', '--data', str(data)])
    return out

@pytest.fixture(scope='module')
def python(tmp_path_factory): return bare_environment(tmp_path_factory.mktemp('bare')/'env')

def command(python, bundle, out, *more):
    return [*cut_off(), str(python), str(bundle/'scripts'/'gpu_run.py'), '--device', 'cpu', '--small', '--out',
            str(out), '--steps', '2', '3', '--seeds', '1', '--jobs', '2', '--targets', 'birds', '--minutes', '200', *more]

def inside(bundle):
    "All file names of a bundle, those in its archive too"
    with tarfile.open(bundle/'packages.tar.xz') as tar: packed = tar.getnames()
    return [str(p.relative_to(bundle)) for p in bundle.rglob('*') if p.is_file()] + packed

# The bundle

def test_bundle_is_whole_and_pure(bundle):
    about,files = json.loads((bundle/'bundle.json').read_text()),inside(bundle)
    assert about['targets'] == names and about['sources'] == ['printed_digits','objects'] and about['for_size'] == []
    assert {'fastai','fastcore','fastprogress','fasttransform','fastdownload','plum-dispatch','ipywidgets',
            'ipython'} <= set(about['packages'])
    assert not [f for f in files if f.endswith(('.so','.pyd','.dll','.dylib','.pyc')) or '.so.' in f]
    assert {'distill_nb/all.py','scripts/gpu_run.py','scripts/gpu_suite.py','benchmarks/step.py','fastai/vision/all.py',
            'plum/__init__.py','LICENSE'} <= set(files)
    text = '\n'.join(p.read_text(encoding='utf-8') for p in [*bundle.glob('scripts/*.py'), bundle/'bundle.json'])
    assert str(Path.home()) + '/' not in text and str(root) not in text
    assert offline_bundle.size(bundle) < 12*2**20

def test_weights_come_back_as_they_were(bundle, tmp_path):
    _,data = gpu_run.unpack(bundle, tmp_path)
    for name in ('printed_digits','objects'):
        assert (data/'weights'/f'{name}.safetensors').read_bytes() == (root/'distill_nb'/'zoo'/f'{name}.safetensors').read_bytes()
    for raw in (b'', b'a', b'abc', b'abcd'*99, os.urandom(1001)):
        for end,packed in (('.xz', raw), ('.planes.xz', offline_bundle.planes(raw))):
            (tmp_path/f'x{end}').write_bytes(lzma.compress(packed))
            assert gpu_run.original(tmp_path/f'x{end}') == raw

def test_bundle_keeps_its_limit_and_says_what_it_cost(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(offline_bundle, 'levels', [dict(px=32, quality=None), dict(px=16, quality=60)])
    monkeypatch.setattr(offline_bundle, 'pack_packages', lambda out: {})
    monkeypatch.setattr(offline_bundle, 'drops', [(),('printed_digits',)])
    def made(limit, name):
        offline_bundle.main([str(tmp_path/name), '--tiny', '--data', str(data), '--limit', str(limit)])
        assert offline_bundle.size(tmp_path/name) <= limit*2**20
        return json.loads((tmp_path/name/'bundle.json').read_text()), capsys.readouterr().out
    whole,_ = made(50, 'whole')
    mib = offline_bundle.size(tmp_path/'whole')/2**20
    assert whole['for_size'] == [] and whole['px'] == 32
    smaller,said = made(mib, 'smaller')                # bundle.json is reckoned larger than it is
    assert (smaller['px'],smaller['quality']) == (16,60)
    assert len(smaller['for_size']) == 1 and 'for size: images: ' in said and smaller['sources'] == whole['sources']
    source, = (tmp_path/'smaller'/'data'/'weights').glob('printed_digits*')
    least,said = made((offline_bundle.size(tmp_path/'smaller') + 2**16 - source.stat().st_size/2)/2**20, 'least')
    assert least['sources'] == ['objects'] and 'for size: printed_digits: left out' in said
    assert not [*(tmp_path/'least'/'data'/'weights').glob('printed_digits*')]
    assert list(json.loads((tmp_path/'least'/'data'/'weights'/'manifest.json').read_text())) == ['objects']
    with pytest.raises(SystemExit, match='--limit: .* MiB is the least'): made(1, 'none')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['least','smaller','whole']      # nothing half made is left
    with pytest.raises(SystemExit): made(50, 'whole')
    assert 'not empty' in capsys.readouterr().err
    with pytest.raises(SystemExit): offline_bundle.main([str(tmp_path/'x'), '--tiny', '--data', str(tmp_path/'nowhere')])
    assert '--data' in capsys.readouterr().err

def test_what_fits_first():
    "Images shrink first, then Lite2 goes, then Lite1"
    weights,images = dict(imagenet_lite0=8, imagenet_lite1=9, imagenet_lite2=10),[50,40,25,15].__getitem__
    fit = lambda limit: offline_bundle.first_fit(5, weights, images, limit)
    assert fit(82) == (0, ()) and fit(81) == (1, ()) and fit(57) == (2, ()) and fit(47) == (3, ())
    assert fit(46) == (3, ('imagenet_lite2',)) and fit(30) == (3, ('imagenet_lite1','imagenet_lite2')) and fit(27) is None

def test_compiled_packages_are_refused():
    with pytest.raises(ValueError, match='numpy .* is not pure Python'): offline_bundle.pure_files(importlib.metadata.distribution('numpy'))
    assert not {'torch','numpy','pandas'} & set(offline_bundle.lacking())

# The run

def whole(path):
    df = pd.read_csv(path)
    assert len(df) and {'machine','cores','threads','torch',
                        'date'} <= set(df) and df.machine.notna().all() and df.date.str.match(r'\d{4}-\d\d-\d\d$').all(), path
    return df

def shown(bench):
    "What the page `speed` shows of the tables in BENCH/gpu: the last value of each cell of that section"
    cells = [(c['id'], ''.join(c['source'])) for c in json.loads(
            (root/'nbs'/'pages'/'06_speed.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    space,res = {},[]
    for id,source in cells:
        if id == '9e526c50':
            exec(source, space)
            space['bench'] = bench
        if not id.startswith('9a7c'): continue
        *first,last = ast.parse(source).body
        if not isinstance(last, ast.Expr): first,last = [*first,last],None
        exec(compile(ast.Module(first, []), 'page', 'exec'), space)
        if last: res.append(eval(compile(ast.Expression(last.value), 'page', 'eval'), space))
    return res

def test_page_without_a_gpu(tmp_path):
    assert [o.split(':')[0] for o in shown(tmp_path)] == ['No GPU has measured this yet']*5

@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_rehearsal(bundle, python, tmp_path):
    "Every part, its tables and their contents"
    lost = subprocess.run([*cut_off(), python, '-c', 'import fastai'], env=offline_env(), capture_output=True, text=True)
    assert 'ModuleNotFoundError' in lost.stderr                       # the bundle alone brings it
    out = tmp_path/'out'
    p = subprocess.run(command(python, bundle, out), env=offline_env(), capture_output=True, text=True, timeout=12_000, cwd=tmp_path)
    log = (out/'log.txt').read_text()
    assert p.returncode == 0, p.stderr + log
    assert sorted(f.name for f in out.iterdir()) == ['checks.csv','grouped.csv','log.txt','outputs.csv','parts.csv','runs.csv','step.csv']
    parts = whole(out/'parts.csv')
    assert list(parts.part) == ['checks','ratios','suite'] and (parts.ended == 'done').all(), log
    checks = whole(out/'checks.csv')
    assert checks.ok.dropna().astype(str).eq('True').all(), checks[['check','error']].to_string()
    assert (checks.ok.isna() == ((checks.check == 'export: onnx') & checks.error.astype(str).str.startswith("left out"))).all()
    assert {'train: fp16','train: bf16','train: fp16, channels last','train: live teachers','strong augmentation',
            'resume','export: safetensors','memory peak, MiB','estimator: cka'} <= set(checks.check)
    step = whole(out/'step.csv')
    assert set(step.what) >= {'student alone','looked up, 1 source','looked up, 28 sources','live, 1 source',
                              'live, 28 sources'} and (step.ratio > 0).all(), log
    assert {'bare models','compute_outputs'} == set(whole(out/'outputs.csv').how), log
    assert {'one after the other','vmap','compiled, one after the other'} == set(whole(out/'grouped.csv').how), log
    runs = whole(out/'runs.csv')
    assert runs.error.isna().all(), runs.error.dropna().tolist()
    assert not runs.duplicated(['target','budget','seed','method','steps']).any()
    assert set(runs.px) == {32} and set(runs.steps) == {2,3} and not runs.half.any()
    (tmp_path/'gpu').symlink_to(out)
    tables = shown(tmp_path)
    assert all(isinstance(o, pd.DataFrame) and len(o) for o in tables) and set(tables[-1].index.get_level_values('method')) == methods
    assert set(zip(runs.budget, runs.method)) == {(b,m) for b in (.2,5) for m in methods} and runs.accuracy.between(0,1).all()

@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_killed_half_way(bundle, python, tmp_path):
    "What was there is whole, and nothing goes on"
    out = tmp_path/'out'
    p = subprocess.Popen(command(python, bundle, out, '--parts', 'suite', '--seeds', '9'), env=offline_env(),
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path, start_new_session=True)
    end = time.time()+900
    while not ((out/'runs.csv').exists() and len(pd.read_csv(out/'runs.csv')) > 2) and time.time() < end: time.sleep(.05)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()                        # the driver; its parts are in groups of their own
    time.sleep(2)
    runs = whole(out/'runs.csv')
    assert 3 <= len(runs) < 9*12 and runs.error.isna().all()
    time.sleep(2)
    assert len(whole(out/'runs.csv')) == len(runs)

def test_a_part_that_overruns_is_ended(tmp_path, monkeypatch):
    "With the processes that it has started"
    (tmp_path/'gpu_slow.py').write_text("import subprocess, sys, time\nopen('child', "
                                        "'w').write(str(subprocess.Popen([sys.executable, '-c', 'import time; "
                                        "time.sleep(99)']).pid))\ntime.sleep(99)\n")
    (tmp_path/'gpu_bad.py').write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(gpu_run, 'here', tmp_path)
    monkeypatch.chdir(tmp_path)
    start = time.time()
    assert gpu_run.run_part('slow', [], 1.5, dict(os.environ), subprocess.DEVNULL) == 'stopped at its limit' and time.time()-start < 60
    assert gpu_run.run_part('bad', [], 60, dict(os.environ), subprocess.DEVNULL) == 'failed: exit status 3'
    child = Path('/proc')/(tmp_path/'child').read_text()/'stat'
    for _ in range(1000):
        if not child.exists() or child.read_text().split()[2] == 'Z': break
        time.sleep(.05)
    else: pytest.fail('a process of the part lives on')

def test_time_is_shared():
    assert [gpu_run.time_for(o, 9, 500) for o in gpu_run.limits] == [75,90,500]
    assert gpu_run.time_for('ratios', 9, 40) == 40 and gpu_run.time_for('checks', 3, 500) == 25

def test_arguments_that_make_no_sense(tmp_path, capsys):
    (tmp_path/'runs.csv').write_text('x\n1\n')
    for args,said in ((['--out', tmp_path], '--out'), (['--out', tmp_path/'a', '--minutes', '0'], '--minutes'),
                      (['--out', tmp_path/'a', '--data', tmp_path], '--data')):
        with pytest.raises(SystemExit): gpu_run.main([str(o) for o in args])
        assert said in capsys.readouterr().err

@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu(tmp_path):
    with pytest.raises(SystemExit, match='checks failed: see .*log.txt'): gpu_run.main(['--out', str(tmp_path), '--parts', 'checks'])
    assert '--device: there is no GPU here' in (tmp_path/'log.txt').read_text()
    assert pd.read_csv(tmp_path/'parts.csv').ended.tolist() == ['failed: exit status 2']

# The checks themselves can fail

@pytest.fixture()
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def test_checks_fail_where_something_is_wrong(monkeypatch, one_thread):
    monkeypatch.syspath_prepend(str(root/'benchmarks'))
    import gpu_checks
    from distill_nb.estimators.core import metrics
    row = gpu_checks.check('x', lambda: gpu_checks.below(2., 1.))
    assert row['ok'] is False and 'AssertionError: 2 is more than 1' in row['error'] and row['value'] is None
    assert gpu_checks.check('x', lambda: 3.)['ok'] is True
    def absent(): raise gpu_checks.LeftOut('no onnx')
    assert gpu_checks.check('x', absent)['ok'] is None
    calls = iter([1., 1.01])
    fake = lambda x,y: next(calls)
    fake.needs = 'features'
    monkeypatch.setitem(metrics, 'fake', fake)
    assert not gpu_checks.check('x', lambda: gpu_checks.estimator('fake', SimpleNamespace(device='cpu'), 12, 4, 3))['ok']
    assert gpu_checks.falling([2,2,2,1,1]) == .5
    with pytest.raises(AssertionError, match='does not fall'): gpu_checks.falling([1,1,1,1,1])
    with pytest.raises(AssertionError, match='1 of 5 losses are not finite'): gpu_checks.falling([2,2,float('nan'),1,1])
    learn = gpu_checks.distilled(2)
    loss = learn.loss_func
    learn.loss_func = lambda *o: loss(*o)*float('nan')
    assert 'not finite' in gpu_checks.check('x', lambda: gpu_checks.fall(learn))['error']

def test_half_precision_needs_its_check(tmp_path):
    import gpu_suite
    table = lambda ok: pd.DataFrame(dict(check=['train: fp32','train: fp16, channels last'],
                                         ok=[True,ok])).to_csv(tmp_path/'checks.csv', index=False)
    assert not gpu_suite.half_is_finite(tmp_path)
    table(True)
    assert gpu_suite.half_is_finite(tmp_path)
    table(False)
    assert not gpu_suite.half_is_finite(tmp_path)
    table(None)
    assert not gpu_suite.half_is_finite(tmp_path)

def test_seeds_are_outermost():
    import gpu_suite
    from distill_nb.bench import Suite
    from distill_nb.suites import eight_methods
    from distill_nb.zoo import Zoo
    suite = Suite('x', dict(a=None, b=None), Zoo.embedded(), eight_methods, {}, (5,.2))
    cells = [c for n,c in gpu_suite.jobs(suite, 3) if n == 200]
    assert len(cells) == 3*2*2*6 and [c['seed'] for c in cells] == sorted(c['seed'] for c in cells)
    assert [(c['seed'],c['budget']) for c in cells[::12]] == [(s,b) for s in range(3) for b in (.2,5)]

def test_more_steps_within_a_seed():
    "All methods with the first number of steps, a few with the next, before the next seed"
    import gpu_suite
    from distill_nb.bench import Suite
    from distill_nb.suites import eight_methods
    from distill_nb.zoo import Zoo
    suite = Suite('x', dict(a=None), Zoo.embedded(), eight_methods, {}, (5,.2))
    jobs = gpu_suite.jobs(suite, 2, steps=(2,9))
    assert [n for n,_ in jobs] == [2]*12 + [9]*6 + [2]*12 + [9]*6
    assert [c['method'] for n,c in jobs[12:18]] == list(gpu_suite.patient)*2

def test_an_earlier_run_goes_on(tmp_path):
    "Its rows without an error are not made again"
    import gpu_suite
    cell = dict(target='a', budget=.2, seed=0, method='transfer')
    rows = [cell | dict(budget=b, steps=2, accuracy=.5, error=e) for b,e in ((.2,''), (5,'ValueError: no'))]
    pd.DataFrame(rows).to_csv(tmp_path/'runs.csv', index=False)
    before = gpu_suite.ended(tmp_path)
    assert [r['budget'] for r in before] == [.2] and gpu_suite.ended(None) == []
    made = {gpu_suite.key(r['steps'], r) for r in before}
    assert gpu_suite.key(2, cell) in made
    assert not made & {gpu_suite.key(2, cell | dict(budget=5)), gpu_suite.key(3, cell), gpu_suite.key(2, cell | dict(seed=1))}

def test_processes_keep_to_their_threads(tmp_path, monkeypatch):
    "NumPy too"
    import gpu_suite
    for o in ('OMP','MKL','OPENBLAS','NUMEXPR'): monkeypatch.delenv(f'{o}_NUM_THREADS', raising=False)
    gpu_suite.limit_threads(1)
    assert [r for _,r in gpu_suite.in_processes(tmp_path, [(blas_threads, [0])], 1)] == [1]

def blas_threads(a, item):
    from threadpoolctl import threadpool_info
    import numpy as np
    np.ones((2,2))@np.ones((2,2))
    return max(o['num_threads'] for o in threadpool_info())

def die(a, item):
    os._exit(1) if item == 'bad' else None
    return item
def died(a, item):
    "Dies the first time"
    if not (a/'done').exists():
        (a/'done').touch()
        os._exit(1)
    return item

def test_a_process_that_dies_costs_its_runs_only(tmp_path):
    import gpu_suite
    assert sorted(r for _,r in gpu_suite.in_processes(tmp_path, [(died, 'abc')], 2)) == ['a','b','c']
    assert len([r for _,r in gpu_suite.in_processes(tmp_path, [(die, ['x','bad'])], 2)]) <= 1     # and one that always does ends it
