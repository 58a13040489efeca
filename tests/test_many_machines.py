"The pass over images through joblib's backends: processes of this machine, and a Dask cluster that loses a worker"
import ast, subprocess, sys
from pathlib import Path
import joblib, numpy as np, pytest, torch
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.sources import Source

@pytest.mark.slow
def test_dask_with_a_worker_killed(tmp_path):
    pytest.importorskip('distributed')
    p = subprocess.run([sys.executable, '-W', 'ignore', str(Path(__file__).parent/'dask_script.py'), str(tmp_path)],
        capture_output=True, text=True, timeout=900)
    assert p.returncode==0, p.stderr[-3000:]
    assert ast.literal_eval(p.stdout.splitlines()[-1])==dict(killed=1, failed={}, there=[120,120], computed_again=0, same=True, here=False)

def test_processes_of_this_machine(tmp_path):
    imgs = list(np.random.default_rng(0).integers(0, 255, (30,16,16,3), dtype=np.uint8))
    sources = [Source.from_timm('test_resnet', pretrained=False, num_classes=c, size=32, seed=c, name=str(c)) for c in (3,5)]
    sources.append(Source.from_timm('test_resnet', pretrained=False, num_classes=7, size=48, name='broken'))
    sources[2].build,sources[2].weights_hash = _fails,lambda: 'known'
    with joblib.parallel_config(backend='loky', n_jobs=2):
        failed = compute_outputs(sources, imgs, Store(tmp_path/'a'), bs=5, block=10, on_error='skip', progress=False)
    assert list(failed)==['broken'] and 'no such weights' in str(failed['broken'])
    for s in sources[:2]:
        a,b = get_outputs(s, imgs, Store(tmp_path/'a'), progress=False),get_outputs(s, imgs, Store(tmp_path/'b'), bs=5, progress=False)
        torch.testing.assert_close(a.logits, b.logits, atol=1e-3, rtol=1e-3)
        assert len(Store(tmp_path/'a').index(s))==30

def _fails(): raise RuntimeError('no such weights')
