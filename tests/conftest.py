"""What all tests share: one thread per worker of pytest-xdist, a cache of their own, no deadlines, and the rows of the page `sturdy`."""
import csv, os
from collections import Counter

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported: on small networks a second thread costs more than it brings, and much more where others have the cores

import pytest
from hypothesis import HealthCheck, settings
from promises import promises

# Examples may take any time: other jobs may have the cores
settings.register_profile('distill_nb', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('distill_nb')

@pytest.fixture(scope='session', autouse=True)
def cache(tmp_path_factory):
    "Outputs of sources are kept in a folder of this run, never in the user's cache; one for all workers"
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: folder = folder.parent
    with pytest.MonkeyPatch.context() as m:
        m.setenv('DISTILL_NB_CACHE', str(folder/'cache'))
        yield

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
