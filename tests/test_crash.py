"""SIGKILL at random moments, then once more without: the end is that of work which was never interrupted, to the last bit.
Two kills for each kind of work, ten with `-m slow`, as many as $DISTILL_NB_KILLS says (`scripts/sturdy.py` asks for a hundred)."""
import os, random, shutil, signal, subprocess, sys, time, warnings
from contextlib import suppress
from pathlib import Path
import pytest, torch
from distill_nb.store import Store
from distill_nb.zoo import Zoo
from distill_nb.bench import read_runs

@pytest.fixture(scope='module')
def server(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('crash')
    p = subprocess.Popen([sys.executable, str(Path(__file__).with_name('crash_jobs.py'))], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=(tmp/'err').open('w'),
                         text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert p.stdout.readline() == 'ready\n', (tmp/'err').read_text()[-2000:]
    def run(job, folder, after=None):
        "Seconds that the job took; None if it was killed `after` so many"
        folder.mkdir(parents=True, exist_ok=True)
        t = time.time()
        print(job, folder, file=p.stdin, flush=True)
        pid = int(p.stdout.readline())
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL) # unless it has ended
        rc = int(p.stdout.readline())
        assert rc == 0 or after is not None and rc == -signal.SIGKILL, (tmp/'err').read_text()[-2000:]
        return time.time()-t if rc == 0 else None
    yield run
    p.stdin.close()
    p.wait(60)

def pass_over_images(folder):
    store,zoo,res = Store(folder/'store', chunk=16),Zoo.embedded(),{}
    with warnings.catch_warnings():
        warnings.simplefilter('error')                   # a half-written file would be removed with a warning
        for n in ('digits','letters','signs'):
            for path in sorted(store.folder(zoo[n]).glob('chunk-*')):
                c = store.read(path)
                res.update({(n, bytes(k.numpy())): (f,z) for k,f,z in zip(c['keys'], c['features'], c['logits'])})
    return res

def bench(folder): return read_runs(folder/'out').drop(columns='seconds').to_dict('records')

def training(folder):
    end = torch.load(folder/'end.pt', weights_only=True)
    return {**end, 'log': [line.rsplit(',', 1)[0] for line in (folder/'history.csv').read_text().splitlines()]} # all but the time

def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(v, b[k]) for k,v in a.items())
    if isinstance(a, (list,tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b

jobs = dict(pass_over_images=pass_over_images, bench=bench, training=training)

@pytest.mark.parametrize('job', jobs)
@pytest.mark.parametrize('kills', [int(os.environ.get('DISTILL_NB_KILLS') or 2),
                                   pytest.param(10, marks=pytest.mark.slow)], ids=['few','many'])
def test_killed_at_random_moments(job, kills, server, tmp_path, record_fault):
    result = jobs[job]
    server(job, tmp_path/'warm')                         # what is kept beside the folder, and the page cache
    seconds = server(job, tmp_path/'whole')
    whole,killed,ended,rng = result(tmp_path/'whole'),0,0,random.Random(0)
    assert len(whole)
    while killed < kills:
        folder = tmp_path/f'cut-{ended}'
        while killed < kills and server(job, folder, rng.uniform(0, seconds)) is None: killed += 1
        server(job, folder)                              # goes on to the end, or finds that it was there
        assert same(result(folder), whole), f'{job} ended differently after a kill'
        ended += 1
        shutil.rmtree(folder)
    record_fault('killed', job, f'{killed} kills, {ended} times to the end, each the same to the last bit', killed)
