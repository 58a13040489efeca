"What the site brings along from npm"
import os, shutil, subprocess, tarfile, urllib.request
from pathlib import Path

vendored = {'mathjax': ('3.2.2', ['es5/tex-mml-chtml.js','es5/output/chtml/fonts']),
            'requirejs': ('2.3.7', ['require.js']),
            '@jupyter-widgets/html-manager': ('1.0.15', ['dist/embed-amd.js'])}

def fetch(name, version, to):
    "The archive of an npm package, with npm if there is one"
    if shutil.which('npm'):
        cmd = ['npm','pack',f'{name}@{version}','--silent']
        made = subprocess.run(cmd, cwd=to.parent, check=True, capture_output=True, text=True).stdout.split()[-1]
        part = to.parent/made
    else:
        registry = os.environ.get('NPM_CONFIG_REGISTRY', '').rstrip('/') or 'https://registry.npmjs.org'
        part = to.with_suffix('.part')
        urllib.request.urlretrieve(f"{registry}/{name}/-/{name.split('/')[-1]}-{version}.tgz", part)
    part.replace(to)

def vendor(to):
    "Files of npm packages, from the user's cache or npm's registry"
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'distill_nb'/'site'
    cache.mkdir(parents=True, exist_ok=True)
    for name,(version,wanted) in vendored.items():
        short = name.split('/')[-1]
        archive = cache/f'{short}-{version}.tgz'
        if not archive.exists(): fetch(name, version, archive)
        with tarfile.open(archive) as t:
            for m in t.getmembers():
                inside = m.name.partition('/')[2]
                if not m.isfile() or not any(inside == w or inside.startswith(w+'/') for w in wanted): continue
                file = to/short/inside
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(t.extractfile(m).read())
