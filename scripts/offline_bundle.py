"""Packs one folder for a machine with a GPU and no network: `python scripts/offline_bundle.py OUT`

OUT holds this package, `gpu_run.py` with all it runs, the pure-Python packages that such a machine lacks (as they are
installed here), eight targets and seven source models. On the machine, type `python OUT/scripts/gpu_run.py --out RESULTS`.
It must have torch, torchvision, timm, numpy, pandas, scikit-learn, scipy, seaborn, safetensors, joblib, accelerate, pytest and
hypothesis; to export, also onnx, onnxruntime and onnxscript.

Weights are half precision, compressed without loss; EfficientNet-Lite1 and Lite2 are fetched with pip. OUT is kept below
`--limit` MiB by the first of these that suffices: images as they are (128 px), 128 px at a lower quality, 96 px, 96 px at a
lower quality; then the same without EfficientNet-Lite2; then without Lite1 as well. `OUT/bundle.json` says which it was.

`--tiny` packs a few images of each target, and two embedded models in place of the seven, for a rehearsal; it fetches
nothing."""
import argparse, importlib.metadata, io, json, lzma, os, shutil, tarfile, tempfile, time
from pathlib import Path
import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

root = Path(__file__).resolve().parents[1]
scripts = 'gpu_run','gpu_common','gpu_checks','gpu_ratios','gpu_suite'
benchmarks = 'common','step','outputs','grouped'
there = ('torch torchvision timm numpy pandas scikit-learn scipy seaborn safetensors joblib accelerate pytest hypothesis '
         'onnx onnxruntime onnxscript pyyaml requests rich').split()
wanted = ('fastai fastcore safetensors scikit-learn scipy joblib filelock pandas matplotlib seaborn ipywidgets '
          'cloudpickle').split()
# needed for texts, or to type into a notebook: never imported by this package
never = 'spacy jedi prompt-toolkit widgetsnbextension jupyterlab-widgets'.split()
small = 'objects','printed_digits' # embedded models of a tiny bundle
compiled = '.so','.pyd','.dylib','.dll','.pyc'
levels = [dict(px=128, quality=None), dict(px=128, quality=85), dict(px=96, quality=85), dict(px=96, quality=75)]
drops = [(),('imagenet_lite2',),('imagenet_lite1','imagenet_lite2')]

# Packages

def closure(names, skip=()):
    "The installed distributions that `names` need, name -> distribution"
    todo,res = list(names),{}
    while todo:
        name = canonicalize_name(todo.pop())
        if name in res or name in skip: continue
        try: res[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError: continue
        needs = [Requirement(r) for r in res[name].requires or []]
        todo += [r.name for r in needs if r.marker is None or r.marker.evaluate({'extra': ''})]
    return res

def lacking():
    "Distributions that this package needs and such a machine lacks"
    return {k: d for k,d in closure(wanted, never).items() if k not in closure(there)}

def pure_files(dist):
    "(name, path) of the files of an installed distribution; ValueError where it does not run without its compiled ones"
    own = [f for f in dist.files or [] if '__pycache__' not in f.parts and f.parts[0] != '..']
    files = {str(f): Path(dist.locate_file(f)) for f in own}
    names = {k.split('.')[0] for k in files if k.endswith('.py')}
    built = [k for k in files if k.endswith(compiled)]
    # mypyc compiles a module that is there as Python as well, with one helper for all of them
    if bad := [k for k in built if k.split('.')[0] not in names and '__mypyc' not in k]:
        raise ValueError(f"{dist.name} {dist.version} is not pure Python ({bad[0]}): a machine with another Python cannot "
                         "run it. Add it to `there`, or to `never`")
    return {k: p for k,p in files.items() if k not in built and p.is_file()}

def pack_packages(out):
    "Write OUT/packages.tar.xz; return name -> version"
    dists = lacking()
    with tarfile.open(out/'packages.tar.xz', 'w:xz') as tar:
        for _,d in sorted(dists.items()):
            for name,path in sorted(pure_files(d).items()): tar.add(path, name, recursive=False)
    return {k: d.version for k,d in sorted(dists.items())}

# Weights

def planes(raw): return raw[0::2] + raw[1::2]

def pack_weights(raw, path):
    "Write `raw` compressed without loss: as it is, or all low bytes before all high ones, whichever is smaller"
    made = {'.xz': lzma.compress(raw), '.planes.xz': lzma.compress(planes(raw))}
    end = min(made, key=lambda k: len(made[k]))
    path.with_name(path.name + end).write_bytes(made[end])

def read_models(folder):
    "The models of a folder: name -> (manifest entry, bytes)"
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    return {k: (e, (folder/f'{k}.safetensors').read_bytes()) for k,e in manifest.items()}

def lites():
    "EfficientNet-Lite1 and Lite2 of PyPI: name -> (manifest entry, bytes)"
    from make_sources import lite
    with tempfile.TemporaryDirectory() as tmp:
        for k in (1,2): lite(k, Path(tmp))
        return read_models(Path(tmp))

def write_manifest(entries, out): (out/'manifest.json').write_text(json.dumps(entries), encoding='utf-8')

def pack_sources(models, out):
    "Write OUT/manifest.json and the compressed weights"
    out.mkdir(parents=True)
    write_manifest({k: e for k,(e,_) in models.items()}, out)
    for k,(_,raw) in models.items(): pack_weights(raw, out/f'{k}.safetensors')

# Images

def encoded(jpeg, px, quality):
    "One image at another size or quality, as WebP"
    with Image.open(io.BytesIO(jpeg)) as im:
        im = im.convert('RGB')
        if im.size != (px,px): im = im.resize((px,px), Image.LANCZOS)
        buf = io.BytesIO()
        im.save(buf, 'WEBP', quality=quality, method=4)
    return buf.getvalue()

def few(labels, is_test, classes=3, train=10, test=4):
    "Which images a tiny target keeps"
    pick = lambda k,n: [i for c in range(classes) for i in np.flatnonzero((labels == c) & (is_test == k))[:n]]
    return np.array(sorted(pick(False, train) + pick(True, test)))

def pack_target(source, path, px, quality=None, tiny=False):
    "Write a target with smaller images; `quality` None leaves them as they are"
    arrays = 'jpeg','offsets','labels','is_test','classes'
    with np.load(source, allow_pickle=False) as z: d = {k: z[k] for k in arrays}
    raw,offsets = d['jpeg'].tobytes(),d['offsets'].tolist()
    images = [raw[a:b] for a,b in zip(offsets, offsets[1:])]
    keep = few(d['labels'], d['is_test']) if tiny else np.arange(len(images))
    images = [images[i] if quality is None else encoded(images[i], px, quality) for i in keep]
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum([0] + [len(o) for o in images])
    np.savez(path, jpeg=np.frombuffer(b''.join(images), np.uint8), offsets=offsets, labels=d['labels'][keep],
             is_test=d['is_test'][keep], classes=d['classes'][:3] if tiny else d['classes'])

def pack_targets(data, out, **kw):
    for p in sorted((data/'targets').glob('*.npz')): pack_target(p, out/p.name, **kw)

# The whole

def size(path): return sum(p.stat().st_size for p in Path(path).rglob('*') if p.is_file())

def copy_code(out):
    skip = shutil.ignore_patterns('__pycache__', *[f'*{o}' for o in compiled])
    shutil.copytree(root/'distill_nb', out/'distill_nb', ignore=skip)
    for folder,names in dict(scripts=scripts, benchmarks=benchmarks).items():
        (out/folder).mkdir()
        for o in names: shutil.copy(root/folder/f'{o}.py', out/folder)
    shutil.copy(root/'LICENSE', out)

def first_fit(fixed, weights, images, limit):
    """(level, drop) of the first that keeps below `limit` bytes, or None.

    `weights` is name -> bytes, `images` a function level -> bytes."""
    for drop in drops:
        for level in range(len(levels)):
            if fixed + images(level) + sum(v for k,v in weights.items() if k not in drop) <= limit: return level,drop

def bundle(data, out, limit=50, tiny=False):
    "Fill the empty folder `out`; return what it holds"
    copy_code(out)
    about = dict(made=time.strftime('%Y-%m-%d'), tiny=tiny, limit_mib=limit, packages=pack_packages(out))
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        if tiny: models = {k: v for k,v in read_models(root/'distill_nb'/'zoo').items() if k in small}
        else: models = {**read_models(data/'weights'), **lites()}
        pack_sources(models, tmp/'weights')
        weights = {k: sum(p.stat().st_size for p in (tmp/'weights').glob(f'{k}.safetensors.*')) for k in models}
        def images(level):
            if not (tmp/str(level)).exists(): pack_targets(data, tmp/str(level), **levels[level], tiny=tiny)
            return size(tmp/str(level))
        fixed = size(out) + 2**16 + (tmp/'weights'/'manifest.json').stat().st_size     # bundle.json is small
        fit = first_fit(fixed, weights, images, limit*2**20)
        if fit is None:
            least = fixed + images(len(levels)-1) + sum(v for k,v in weights.items() if k not in drops[-1])
            raise SystemExit(f'--limit: {least/2**20:.1f} MiB is the least that this takes, not {limit:g}. Raise --limit')
        level,drop = fit
        shutil.copytree(tmp/str(level), out/'data'/'targets')
        shutil.copytree(tmp/'weights', out/'data'/'weights', ignore=shutil.ignore_patterns(*[f'{k}.*' for k in drop]))
        write_manifest({k: e for k,(e,_) in models.items() if k not in drop}, out/'data'/'weights')
    left = [f'{k}: left out' for k in drop]
    px,quality = levels[level].values()
    if level: left.append(f'images: {px} px, WebP of quality {quality}, in place of the originals')
    targets = sorted(p.stem for p in (out/'data'/'targets').glob('*.npz'))
    about.update(px=px, quality=quality, targets=targets, sources=[k for k in models if k not in drop], for_size=left)
    (out/'bundle.json').write_text(json.dumps(about, indent=1), encoding='utf-8')
    return about

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('out', type=Path, help='the folder to make')
    data = Path(os.environ.get('DISTILL_NB_DATA', root.parent/'shared'/'data'))
    ap.add_argument('--data', type=Path, default=data, help='folder with targets/ and weights/')
    ap.add_argument('--limit', type=float, default=50, help='MiB')
    ap.add_argument('--tiny', action='store_true', help='a few images and two small models, for a rehearsal')
    return ap

def main(argv=None):
    ap = parser()
    a = ap.parse_args(argv)
    if not a.limit > 0: ap.error(f'--limit: a number of MiB above 0, not {a.limit:g}')
    if not any((a.data/'targets').glob('*.npz')):
        ap.error(f'--data: there is no targets/*.npz in {a.data}; name the folder with --data or $DISTILL_NB_DATA')
    if a.out.exists() and any(a.out.iterdir()): ap.error(f'out: {a.out} is not empty; name a new folder')
    part = a.out.with_name(a.out.name + '.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        about = bundle(a.data, part, a.limit, a.tiny)
        if a.out.exists(): a.out.rmdir()
        part.rename(a.out)
    finally: shutil.rmtree(part, ignore_errors=True)
    sources = ', '.join(about['sources'])
    print(f"{a.out}: {size(a.out)/2**20:.1f} MiB; {len(about['targets'])} targets at {about['px']} px; sources {sources}")
    for o in about['for_size']: print(f'for size: {o}')

if __name__=='__main__': main()
