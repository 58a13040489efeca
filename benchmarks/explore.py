"""How long `Ranking.explore` takes to answer, with 28 sources and 500 probe images: in the kernel, and from the key
to the changed page in Chromium (served by Voila). Writes explore.csv"""
import json, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd
from common import here, write
sys.path.insert(0, str(here.parent/'tests'))

setup = """
import numpy as np
from distill_nb.data import image_dls
from distill_nb.sources import Source
from distill_nb.zoo import Zoo
from distill_nb.similarity import rank_sources
import distill_nb.explore
rng = np.random.default_rng(0)
y = np.arange(500)%10
images = rng.integers(0, 255, (500,8,8), dtype=np.uint8)
dls = image_dls(images, y, images[:10], y[:10])
def features(i): return np.eye(10)[y]@rng.normal(size=(10,512))*i/28 + rng.normal(size=(500,512))
zoo = Zoo([Source.from_arrays(f'a_source_with_a_long_name_{i}', list(images), features(i)) for i in range(28)])
rank = rank_sources(dls, zoo, store=False, progress=False)
ex = rank.explore()
"""

def kernel(n=40):
    scope = {}
    exec(setup, scope)
    ex,res = scope['ex'],{}
    moves = {'power': (ex.p, [1,2,3,4,6,8,12,16]), 'best only': (ex.top, range(5,28)),
             'source off and on': (ex.on[ex.names[0]], [False,True]), 'scores': (ex.norm, ['minmax','clip'])}
    for name,(w,values) in moves.items():
        ms = []
        for i in range(n):
            start = time.perf_counter()
            w.value = values[i%len(values)]
            ms.append(1000*(time.perf_counter()-start))
        res[name] = ms
    start = time.perf_counter()
    ex.metric.value = 'parc'
    res['another metric, first time (28 sources scored, with intervals)'] = [1000*(time.perf_counter()-start)]
    return res

def page(n=40):
    from browser import browser, chromium, serve
    cells = [dict(cell_type='code', id=f'c{i}', metadata={}, source=s, outputs=[], execution_count=None) for i,
             s in enumerate([setup, 'ex'])]
    with tempfile.TemporaryDirectory() as d:
        (Path(d)/'nb.ipynb').write_text(json.dumps(dict(cells=cells,
                                                        metadata=dict(kernelspec=dict(display_name='python3',
                language='python', name='python3')), nbformat=4, nbformat_minor=5)))
        with serve('voila', 'nb.ipynb', '--Voila.ip=127.0.0.1', cwd=d) as url, browser(chromium()) as b:
            p = b.new_page(viewport=dict(width=1280, height=1000))
            p.set_default_timeout(300_000)
            p.goto(url, wait_until='commit')
            p.wait_for_selector('.dnb-readout')
            p.wait_for_timeout(3000)
            p.evaluate("""() => { window.ms = []; let t = 0;
                document.addEventListener('keydown', () => { t = performance.now() }, true);
                new MutationObserver(() => { if (t) { window.ms.push(performance.now()-t); t = 0 } })
                    .observe(document.querySelector('.dnb-code'),
                    {subtree: true, childList: true, characterData: true}) }""")
            p.locator('.dnb-explore .widget-hslider:has-text("power p") .noUi-handle').focus()
            for i in range(n):
                p.keyboard.press('ArrowRight' if i%10 < 5 else 'ArrowLeft')
                p.wait_for_timeout(400)
            return {'power, key to changed page': p.evaluate('window.ms')}

if __name__ == '__main__':
    rows = []
    for where,f in (('kernel',kernel),('Chromium',page)):
        try: rows += [dict(where=where, what=k, n=len(v), median_ms=np.median(v), p95_ms=np.quantile(v,.95)) for k,v in f().items()]
        except BaseException as e:
            if type(e).__name__ != 'Skipped': raise
            print(e)
    write(pd.DataFrame(rows).round(1), 'explore', None)
