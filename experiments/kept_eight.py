"""What the student could keep: how often the teachers of `distill` are right on the test images of the suite `eight`,
at its own splits: `python experiments/kept_eight.py DATA SOURCES`

For each target and split, linear probes on the sources' features, fitted to the same labels that the student has: the
best source by the ranking, the plain mean of all, and the mean by weight,
which is what `distill` is taught. Nothing is chosen by these figures. Writes `OUT/kept.csv`, by default into
`benchmarks/eight_small_again`; what is there is not computed again."""
import argparse, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import pandas as pd
from distill_nb.suites import eight_suite
from tune_eight import teachers

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('sources', type=Path)
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'benchmarks'/'eight_small_again')
    ap.add_argument('--budgets', nargs='+', type=float, default=[5,.2])
    ap.add_argument('--seeds', nargs='+', type=int, default=[0])
    ap.add_argument('--targets', nargs='*')
    a = ap.parse_args()
    suite,path = eight_suite(a.data, a.sources),a.out/'kept.csv'
    rows = pd.read_csv(path).to_dict('records') if path.exists() else []
    done = {(r['target'],r['budget'],r['seed']) for r in rows}
    for target in a.targets or suite.targets:
        for budget,seed in [(b,s) for b in a.budgets for s in a.seeds if (target,b,s) not in done]:
            row = teachers(suite, target, budget, seed, store=a.sources/'outputs', progress=False)
            rows.append(dict(budget=budget, seed=seed, **row))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).round(4).to_csv(path, index=False)
