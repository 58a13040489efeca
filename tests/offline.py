"A Python environment without network and without the packages that the machine of `gpu_run.py` lacks"
import importlib.metadata, os, shutil, subprocess, sys, sysconfig
from pathlib import Path

lacking = 'fastai fastcore fastprogress fasttransform fastdownload plum-dispatch ipywidgets ipython nbdev distill_nb'.split()

def hidden(names):
    "Top-level files and folders of these distributions in the environment's packages"
    files = [f for n in names for f in importlib.metadata.distribution(n).files or []]
    return {f.parts[0] for f in files if f.parts[0] != '..'}

def bare_environment(folder, lacking=lacking):
    "A new environment that sees every installed package but those in `lacking` and whatever is installed in place; return its Python"
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    site = next(Path(folder).glob('lib/python*/site-packages'))
    hide = hidden(lacking)
    for p in Path(sysconfig.get_path('purelib')).iterdir():
        if p.name not in hide and p.suffix != '.pth' and not p.name.startswith('__editable__') and p.name != '__pycache__':
            (site/p.name).symlink_to(p)
    return Path(folder)/'bin'/'python'

def cut_off():
    "Words that, before a command, take its network away; empty where this is not allowed"
    cmd = ['unshare', '--net', '--map-root-user']
    return cmd if shutil.which('unshare') and subprocess.run([*cmd, 'true'], capture_output=True).returncode == 0 else []

def offline_env(**more):
    "Variables without a way to this checkout or to the network"
    dead = 'http://127.0.0.1:9'
    keep = {k: v for k,v in os.environ.items() if k not in ('PYTHONPATH','DISTILL_NB_DATA','PYTEST_CURRENT_TEST')}
    return {**keep, **{k: dead for k in ('http_proxy','https_proxy','HTTP_PROXY','HTTPS_PROXY','ALL_PROXY')}, 'HF_HUB_OFFLINE': '1', **more}
