"""A real ranking of many sources, kept for the page on which `rank.explore()` works without a kernel.
`python experiments/live_ranking.py DATA SOURCES [--target pets] [--store STORE]`

The 28 sources: five published models of DATA/weights, ImageNet's EfficientNet-Lite1 and Lite2, Lite0 after one pass over each of
seven source tasks, Lite1 after one over each of six, and the eight embedded ones. SOURCES is made by

    tasks="pacs_sketch covidxray3 pacs_cartoon pacs_photo pacs_art_painting gtsrb43"
    python scripts/make_sources.py DATA SOURCES --passes 1 --tasks $tasks dogs6
    python scripts/make_sources.py DATA SOURCES --passes 1 --tasks $tasks --archs 1

They are scored on the training images of one target (at most 500) by six metrics, with intervals and nulls.
Writes `benchmarks/live_ranking.json`."""
import argparse, json, re, sys, warnings
from datetime import date
from pathlib import Path
from fastai.vision.all import Normalize
from distill_nb.packs import load_pack, pack_dls
from distill_nb.similarity import rank_sources
from distill_nb.zoo import Zoo, n_parameters
root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'scripts'))
from website.live import kept_at, kept_ranking # noqa: E402

metrics = 'cka','parc','logme','leep','knn','linear_probe'

def in_lines(o):
    "JSON with one line per list of numbers and per source"
    return re.sub(r'[\[{][^\[\]{}]*[\]}]', lambda m: re.sub(r'\s+', ' ', m[0]), json.dumps(o, indent=1))

def about(source): return dict(name=source.name, task=source.meta.get('task') or '', parameters=int(n_parameters(source)))

def main(data, sources, target, store):
    zoo = Zoo.checkpoints(data/'weights', size=128) + Zoo.checkpoints(sources, size=128) + Zoo.embedded()
    pack = load_pack(data/'targets'/f'{target}.npz')
    dls,_ = pack_dls(pack, size=128, bs=32, batch_tfms=[Normalize.from_stats([.5]*3, [.5]*3)])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # fewer images than features, which some metrics mind
        first = rank_sources(dls, zoo, metrics[0], store=store, progress=False, on_error='raise')
        rankings = [first, *(first.by(m, progress=False, on_error='raise') for m in metrics[1:])]
    kept = kept_ranking(rankings, [about(s) for s in first.zoo], target=target, classes=len(pack.classes), date=str(date.today()),
                        made_by='experiments/live_ranking.py', size=128)
    kept_at.write_text(in_lines(kept) + '\n', encoding='utf-8')
    for r in rankings: print(r.metric, r.to_frame().round(3).head(6).to_string(), sep='\n')

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path)
    ap.add_argument('sources', type=Path)
    ap.add_argument('--target', default='pets')
    ap.add_argument('--store', help='folder of kept outputs')
    a = ap.parse_args()
    main(a.data, a.sources, a.target, a.store)
