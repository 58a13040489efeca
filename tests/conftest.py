"""What all tests share: one thread per worker of pytest-xdist, a cache of their own, no deadlines, and the rows of the page `sturdy`."""
import csv, os, shutil, subprocess, sys
from collections import Counter
from pathlib import Path

# Before torch is imported: networks as small as these run slower on two threads, and many times slower beside other work
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from browser import browser, chromium, serve_files
from filelock import FileLock
from hypothesis import HealthCheck, settings
from promises import promises

# Examples may take any time: other jobs may have the cores
settings.register_profile('distill_nb', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('distill_nb')

@pytest.fixture(scope='session')
def common(tmp_path_factory):
    "The temporary folder that all workers share"
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder

@pytest.fixture(scope='session', autouse=True)
def own_cache(common):
    "Outputs of sources are kept in a folder of this run, never in the user's cache"
    with pytest.MonkeyPatch.context() as m:
        m.setenv('DISTILL_NB_CACHE', str(common/'cache'))
        yield

@pytest.fixture(scope='session')
def once(common):
    "A function that gives the folder that `make(folder)` fills, which the first worker to ask for it calls"
    def once(name, make):
        folder,done = common/name,common/f'{name}.done'
        with FileLock(common/f'{name}.lock'):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder
    return once

@pytest.fixture(scope='module')
def site(once):
    "The folder of the documentation site, which is built once for all tests"
    for name in ('myst_nb','pydata_sphinx_theme','sphinx_design'): pytest.importorskip(name)
    scripts = Path(__file__).resolve().parents[1]/'scripts'
    sys.path.insert(0, str(scripts))
    import make_site
    def make(out):
        try: make_site.vendor(out/'tried')
        except Exception as e: pytest.skip(f'npm\'s registry cannot be reached: {e}')
        p = subprocess.run([sys.executable, '-W', 'ignore', str(scripts/'make_site.py'), '--out', str(out)],
                           capture_output=True, text=True)
        assert p.returncode == 0, p.stderr[-5000:]
    return once('site', make)/'html'

@pytest.fixture(scope='module')
def served(site):
    "A browser, and the address of the site"
    path = chromium()
    with serve_files(site) as base, browser(path) as b: yield b,base

def _row(*row):
    if path := os.environ.get('DISTILL_NB_STURDY'):
        with open(path, 'a', newline='', encoding='utf-8') as f: csv.writer(f).writerow(row)

@pytest.fixture()
def record_fault():
    "Writes one row of the page `sturdy` into the file that $DISTILL_NB_STURDY names: kind, case, what came of it, how often it was tried"
    return lambda kind, case, outcome, n=1: _row(kind, case, outcome, n)

passed = Counter() # promise -> cases

def pytest_runtest_logreport(report):
    if report.when == 'call' and report.passed:
        file,_,test = report.nodeid.partition('[')[0].partition('::')
        passed[f"{file.rpartition('/')[2].removeprefix('test_').removesuffix('.py')}::{test}"] += 1

def pytest_sessionfinish(session): # rows of the promises that were kept; reports of all workers arrive at the controller
    if hasattr(session.config, 'workerinput'): return
    for k,row in promises.items():
        if passed[k]: _row(*row, passed[k])

@pytest.fixture()
def ckpt(tmp_path):
    "A folder with a trained-looking test_resnet of three classes, and its network"
    import timm, torch
    from safetensors.torch import save_file
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3).eval()
    save_file(model.state_dict(), tmp_path/'a.safetensors')
    return tmp_path, model
