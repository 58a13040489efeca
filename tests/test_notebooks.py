"Every notebook runs, the library is what the notebooks export, and nothing in them is unclean."
import shutil, subprocess, sys
from pathlib import Path
import pytest
from nbdev.test import test_nb as run_nb

root = Path(__file__).resolve().parent.parent
nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

@pytest.mark.parametrize('nb', nbs, ids=lambda p: str(p.relative_to(root/'nbs')))
def test_notebook_runs(nb, monkeypatch, tmp_path):
    monkeypatch.setenv('DISTILL_NB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('MPLBACKEND', 'agg')
    monkeypatch.chdir(nb.parent)
    assert run_nb(nb, skip_flags=['notest', 'slow'], basepath=root)[0]
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all') # figures of fifty notebooks are gigabytes

def _copy(tmp_path):
    skip = shutil.ignore_patterns('.git', '__pycache__', '.venv', '*.egg-info', 'build', 'zoo', '_proc', '.pytest_cache')
    shutil.copytree(root, tmp_path/'repo', ignore=skip)
    return tmp_path/'repo'

def _files(folder, pattern): return {str(p.relative_to(folder)): p.read_text(encoding='utf-8') for p in sorted(folder.rglob(pattern))}

def test_export_and_clean_change_nothing(tmp_path):
    repo = _copy(tmp_path)
    before = {**_files(repo/'distill_nb', '*.py'), **_files(repo/'nbs', '*.ipynb')}
    for cmd in ('nbdev-export', 'nbdev-clean'): subprocess.run([str(Path(sys.executable).parent/cmd)], cwd=repo, check=True)
    after = {**_files(repo/'distill_nb', '*.py'), **_files(repo/'nbs', '*.ipynb')}
    assert [k for k in after if before.get(k) != after[k]] == []

def test_readme_is_the_index():
    subprocess.run([sys.executable, str(root/'scripts'/'make_readme.py'), '--check'], check=True)

def test_no_machine_paths():
    "Saved outputs name no folder of the machine that they were made on"
    home = str(Path.home())
    for nb in nbs:
        text = nb.read_text(encoding='utf-8')
        for bad in ('/work/', '/root/', home + '/', '/tmp/'): assert bad not in text, f'{nb.name} names {bad}'
