"Every notebook runs, the library is what the notebooks export, and nothing in them is unclean."
import multiprocessing, os, shutil, subprocess, sys
from pathlib import Path
import pytest
from nbdev.test import test_nb as run_nb

root = Path(__file__).resolve().parent.parent
nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

# A notebook patches the library's classes, so each runs in a process of its own, forked from one that has everything imported
forks = multiprocessing.get_context('forkserver')
forks.set_forkserver_preload(['distill_nb.all', 'nbdev.test', 'nbdev.showdoc', 'sklearn.datasets', 'seaborn', 'ipywidgets'])

def _run(nb, out):
    "Run a notebook; what it prints goes to the file `out`"
    with open(out, 'w') as f:
        for std in (1, 2): os.dup2(f.fileno(), std)
    os.environ.update(DISTILL_NB_CACHE=str(out.parent/'cache'), MPLBACKEND='agg')
    os.chdir(nb.parent)
    sys.exit(not run_nb(nb, skip_flags=['notest', 'slow'], basepath=root)[0])

@pytest.mark.parametrize('nb', nbs, ids=lambda p: str(p.relative_to(root/'nbs')))
def test_notebook_runs(nb, tmp_path):
    child = forks.Process(target=_run, args=(nb, tmp_path/'out.txt'))
    child.start()
    child.join(1800)
    if child.is_alive(): child.kill()
    assert child.exitcode == 0, (tmp_path/'out.txt').read_text()[-4000:]

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
