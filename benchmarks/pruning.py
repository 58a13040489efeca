"""What do savings cost in accuracy? `python benchmarks/pruning.py [--small]`

On scikit-learn's digits (the recipe of `distill_nb demo`, p = 4, eight sources): sources below a weight are never run
over the pool (`min_weight`), only the largest pseudo-labels
of each source are kept (`top_k`), and the pool is seen in cached crops as well (`views`). All on the same splits;
gaps are paired with nothing saved. Writes `benchmarks/pruning.csv`."""
import argparse, warnings
from functools import partial
warnings.simplefilter('ignore')
from common import write
from distill_nb.demo import digits, digits_recipe
from distill_nb.teachers import source_teacher
from distill_nb.teach import SourceClasses
from distill_nb.compare import compare, compare_methods
from distill_nb.zoo import Zoo

def count(row, learn): row.update(sources=len(learn.distill.names), classes=sum(source_teacher(learn.distill.teacher).sizes))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--seeds', type=int, default=6)
    a = ap.parse_args()
    methods = {'all sources': dict(min_weight=0), **{f'min_weight={w}': dict(min_weight=w) for w in (.05,.15)},
               **{f'top_k={k}': dict(min_weight=0, teach=SourceClasses(top_k=k)) for k in (1,)},
               'with two crops': dict(min_weight=0, teach=SourceClasses(views=('crop0','crop1')))}
    if a.small: methods = {k: methods[k] for k in ('all sources','top_k=1')}
    zoo = Zoo.embedded()
    c = compare(digits, zoo, start=zoo['objects'], methods={k: partial(compare_methods['weighted'], **kw) for k,
                                                            kw in methods.items()},
                seeds=range(1 if a.small else a.seeds), n_jobs=2, progress=False,
                reference='all sources', after_run=count, **{**digits_recipe, **(dict(n_epoch=1) if a.small else {})})
    df = c.table().join(c.rows.groupby('method').sources.mean()).reset_index()
    write(df.drop(columns='seconds').assign(n_epoch=digits_recipe['n_epoch']), 'pruning', a)
