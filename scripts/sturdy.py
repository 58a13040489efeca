"""Makes benchmarks/sturdy.csv, the table of the page `sturdy`: a hundred kills of each kind of work, all bad input, all promises of
`tests/promises.py`, a minute of fuzzing for each reader.

    pip install atheris        # without it fuzzing is left out, and its old rows stay
    python scripts/sturdy.py --kills 100 --seconds 60"""
import argparse, csv, os, subprocess, sys
from importlib.util import find_spec
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(root/'tests'), str(root/'benchmarks')]

def pytest(new, kills):
    "Run the tests whose outcomes become rows of `new`"
    from promises import promises
    env = {**os.environ, 'DISTILL_NB_STURDY': str(new), 'DISTILL_NB_KILLS': str(kills), 'OMP_NUM_THREADS': '1'}
    kept = sorted({f"tests/test_{k.partition('::')[0]}.py" for k in promises})
    files = ['tests/test_crash.py', 'tests/test_bad_input.py', 'tests/test_entries.py', *kept]
    subprocess.run([sys.executable, '-m', 'pytest', '-n', '0', '-m', '', *files], cwd=root, env=env, check=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--kills', type=int, default=100, help='of each kind of work')
    ap.add_argument('--seconds', type=int, default=60, help='of fuzzing for each reader')
    a = ap.parse_args()
    out = root/'benchmarks'/'sturdy.csv'
    new = out.with_suffix('.new')
    new.unlink(missing_ok=True)
    pytest(new, a.kills)
    if find_spec('atheris'):
        subprocess.run([sys.executable, 'scripts/fuzz.py', '--seconds', str(a.seconds), '--csv', str(new)], cwd=root, check=True)
    from common import machine
    columns = machine()
    with new.open(newline='', encoding='utf-8') as f: rows = [[*r, *columns.values()] for r in csv.reader(f)]
    if out.exists() and not find_spec('atheris'):
        with out.open(newline='', encoding='utf-8') as f: rows += [r for r in csv.reader(f) if r[0] == 'fuzz']
    with out.open('w', newline='', encoding='utf-8') as f:
        csv.writer(f, lineterminator='\n').writerows([['kind','case','outcome','tried',*columns], *rows])
    new.unlink()

if __name__=='__main__': main()
