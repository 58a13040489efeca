"""All that this project asks of a GPU, in a given time: `python scripts/gpu_run.py --minutes 9 --out DIR`

Run it from the folder that `offline_bundle.py` made, which brings what the machine lacks, or from a checkout where
everything is installed. In this order, each with a limit of its own:

    checks  `gpu_checks.py`: whether everything works there         checks.csv
    ratios  `gpu_ratios.py`: what a step and a pass cost            step.csv, outputs.csv, grouped.csv
    suite   `gpu_suite.py`: eight targets, run by run               runs.csv

Each row is in its table the moment it is known: stopping this at any time loses nothing. parts.csv says how each part
ended, log.txt what it printed.
A part that overruns is ended and the next begins; all of it ends after `--minutes`. `--device cpu --small` runs the
same code at a tiny size."""
import argparse, csv, lzma, os, signal, subprocess, sys, tarfile, tempfile, time
from pathlib import Path

here = Path(__file__).resolve().parent
root = here.parent
limits = dict(checks=75, ratios=90, suite=None) # seconds of nine minutes; None for what is left
places = 'device','machine','cores','threads','torch','date'

# The bundle

def original(path):
    "The bytes that `offline_bundle.pack_weights` compressed"
    raw = lzma.decompress(path.read_bytes())
    if not path.name.endswith('.planes.xz'): return raw
    half,res = (len(raw)+1)//2,bytearray(len(raw))
    res[0::2],res[1::2] = raw[:half],raw[half:]
    return bytes(res)

def unpack(bundle, tmp):
    "Unpack the bundle's packages and weights into `tmp`; return its (packages, data)"
    safe = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
    with tarfile.open(bundle/'packages.tar.xz') as tar: tar.extractall(tmp/'packages', **safe)
    weights = tmp/'data'/'weights'
    weights.mkdir(parents=True)
    (tmp/'data'/'targets').symlink_to(bundle/'data'/'targets')
    (weights/'manifest.json').write_bytes((bundle/'data'/'weights'/'manifest.json').read_bytes())
    for p in (bundle/'data'/'weights').glob('*.xz'):
        (weights/f"{p.name.partition('.')[0]}.safetensors").write_bytes(original(p))
    return tmp/'packages', tmp/'data'

def environment(device, small, tmp, *folders):
    "Variables of the parts: the bundle's folders first, no network, one place for compiled files, one thread if small"
    path = [str(o) for o in folders] + [o for o in os.environ.get('PYTHONPATH', '').split(os.pathsep) if o]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(path), 'PYTHONPYCACHEPREFIX': str(tmp/'compiled'),
           'PYTHONUNBUFFERED': '1', 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg'}
    env.pop('PYTHONDONTWRITEBYTECODE', None)
    if device == 'cpu': env['CUDA_VISIBLE_DEVICES'] = ''
    if small: env['OMP_NUM_THREADS'] = '1'
    return env

# The parts

def time_for(name, minutes, left, limits=limits):
    "Seconds for a part: its share of `minutes`, no more than what is left"
    return left if limits[name] is None else min(left, limits[name]*minutes/9)

def end(p):
    "End a part, and whatever it has started"
    try: os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    p.wait()

def run_part(name, args, seconds, env, log):
    "Run a part for at most so many seconds; return how it ended"
    cmd = [sys.executable, here/f'gpu_{name}.py', '--parent', str(os.getpid()), *args]
    p = subprocess.Popen(cmd, env=env, stdout=log, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp)
    try: return 'done' if p.wait(seconds) == 0 else f'failed: exit status {p.returncode}'
    except subprocess.TimeoutExpired: return 'stopped at its limit'
    finally: end(p)

def where_measured(out):
    "The columns of place and date of a table that a part has written"
    for p in sorted(out.glob('*.csv')):
        with open(p, newline='', encoding='utf-8') as f: row = next(csv.DictReader(f), {})
        if 'machine' in row: return {k: row[k] for k in places}
    return dict.fromkeys(places, '') | dict(date=time.strftime('%Y-%m-%d'))

def write_parts(rows, out):
    part = out/'.parts.csv.part'
    with open(part, 'w', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, [*rows[0], *places])
        w.writeheader()
        w.writerows({**r, **where_measured(out)} for r in rows)
    os.replace(part, out/'parts.csv')

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True, help='an empty or new folder')
    ap.add_argument('--minutes', type=float, default=9, help='for all of it')
    ap.add_argument('--device', choices=('cuda','cpu'), default='cuda')
    ap.add_argument('--small', action='store_true', help='checks and ratios at a tiny size')
    ap.add_argument('--parts', nargs='+', choices=list(limits), default=list(limits), help='some of them only')
    ap.add_argument('--data', type=Path, help='outside a bundle: folder with targets/ and weights/')
    ap.add_argument('--steps', type=int, nargs='+', default=[200,2000],
                    help='of each run of the suite; with all but the first, a few methods')
    ap.add_argument('--seeds', type=int, default=20, help='of the suite')
    ap.add_argument('--jobs', type=int, help='runs of the suite at a time; by default half as many as cores, at most 8')
    ap.add_argument('--targets', nargs='+', help='some targets of the suite only')
    ap.add_argument('--done', type=Path, help='--out of an earlier run, whose runs the suite goes on from')
    return ap

def arguments(name, a, data, store):
    args = ['--out', a.out, '--device', a.device] + ['--small']*a.small
    if name == 'suite':
        args += ['--data', data, '--store', store, '--steps', *a.steps, '--seeds', a.seeds]
        if a.jobs: args += ['--jobs', a.jobs]
        if a.targets: args += ['--targets', *a.targets]
        if a.done: args += ['--done', a.done.resolve()]
    return [str(o) for o in args]

def main(argv=None):
    start = time.monotonic()
    ap = parser()
    a = ap.parse_args(argv)
    bundled = (root/'bundle.json').is_file()
    if not a.minutes > 0: ap.error(f'--minutes: a number above 0, not {a.minutes:g}')
    if list(a.out.glob('*.csv')): ap.error(f'--out: {a.out} holds tables already; name another folder')
    data = a.data or Path(os.environ.get('DISTILL_NB_DATA', root.parent/'shared'/'data'))
    if not bundled and 'suite' in a.parts and not (data/'weights'/'manifest.json').is_file():
        ap.error(f'--data: there is no weights/manifest.json in {data}; name the folder, or leave the suite out with --parts')
    if a.done and not (a.done/'runs.csv').is_file(): ap.error(f'--done: there is no runs.csv in {a.done}')
    a.out = a.out.resolve()
    a.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = []
    with tempfile.TemporaryDirectory() as tmp, open(a.out/'log.txt', 'a', encoding='utf-8') as log:
        tmp = Path(tmp)
        packages,data = unpack(root, tmp) if bundled else (None, data)
        env = environment(a.device, a.small, tmp, root, root/'benchmarks', *([packages] if packages else []))
        for name in a.parts:
            began = time.monotonic()-start
            limit = time_for(name, a.minutes, 60*a.minutes - began - 5)           # seconds to end in
            args = arguments(name, a, data, tmp/'store')
            ended = run_part(name, args, limit, env, log) if limit > 0 else 'no time left'
            took = time.monotonic()-start-began
            rows.append(dict(part=name, began=round(began, 1), seconds=round(took, 1), limit=round(limit, 1), ended=ended))
            write_parts(rows, a.out)
            print(f"{name}: {ended}, {rows[-1]['seconds']} s", flush=True)
    if failed := [r['part'] for r in rows if r['ended'].startswith('failed')]:
        sys.exit(f"{', '.join(failed)} failed: see {a.out/'log.txt'}")

if __name__=='__main__': main()
