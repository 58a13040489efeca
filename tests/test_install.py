"The page of the installation lists the extras of settings.ini, each with the packages that it brings, and the versions that CI tries"
import json, re, sys
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'scripts'))
from website.pages import repo

page = root/'nbs'/'guide'/'01_install.ipynb'
text = '\n'.join(''.join(c['source']) for c in json.loads(page.read_text(encoding='utf-8'))['cells'])
settings = ConfigParser()
settings.read(root/'settings.ini')
settings = settings['DEFAULT']
def packages(text): return {re.split('[<>=]', o)[0] for o in text.split()}
extras = {k.removesuffix('_requirements'): packages(v) for k,v in settings.items() if k.endswith('_requirements')}
rows = {m[1]: m[2] for m in re.finditer(r'^\| `(\w+)` \| ([^|]+) \|', text, re.M)}

def test_every_extra_and_its_packages():
    assert set(rows) == set(extras)
    assert all(set(rows[k].split(', ')) == extras[k] - {'torch'} for k in extras if k != 'dev')
    assert all(o in extras['dev'] for o in ('nbdev','pytest','ruff','jupyterlab','voila'))

def test_the_check_looks_for_a_package_of_each_extra():
    asked = dict(re.findall(r"(\w+)='(\w+)'", re.search(r'extras = dict\((.*?)\)', text, re.S)[1]))
    assert set(asked) == set(extras) - {'dev'}
    assert all(v.replace('_','-') in extras[k] for k,v in asked.items())

def test_versions_and_address():
    ci = re.search(r'python-version: \[(.*)\]', (root/'.github'/'workflows'/'test.yml').read_text())[1]
    versions = re.findall(r"'([\d.]+)'", ci)
    assert f'Python {settings["min_python"]} or later' in text and f'{versions[0]} to {versions[-1]}' in text
    assert f'git+{repo}' in text
