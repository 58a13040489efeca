"Widgets on a page without a kernel: one ranking that the page itself explores, and a note under those that cannot run"
import json, os
import numpy as np
from website.pages import edit_link, page_name, repo, root

kept_at = root/'benchmarks'/'live_ranking.json' # made by experiments/live_ranking.py
home = 'tutorials/explore' # the page whose `RankExplorer` is alive

# The ranking as data

def _numbers(o): return [float(f'{v:.6g}') for v in o]

def _kept_metric(rank):
    gaps = rank.replicates[:,:,None] - rank.replicates[:,None,:]
    gap_se = [_numbers(row[:i]) for i,row in enumerate(gaps.std(0))]
    return dict(norm=rank.default_norm, scores=_numbers(rank.scores), se=_numbers(rank.replicates.std(0)),
                null=_numbers(np.quantile(rank.null, .95, axis=0)), gap_se=gap_se)

def kept_ranking(rankings, sources, **said):
    """What the page needs of `rankings`, with intervals and nulls, of the same sources by several metrics, the first one shown at
    first: scores, standard errors (those of each gap: row i holds the gaps to sources 0 to i-1) and 95 % of shuffled labels;
    `sources` holds a dict per source (name, task, parameters), `said` where it comes from"""
    assert all(r.names == [s['name'] for s in sources] and len(r.replicates) and len(r.null) for r in rankings)
    return dict(said, n_probe=rankings[0].n_probe, sources=sources, metrics={r.metric: _kept_metric(r) for r in rankings})

# Pages

def live_html(kept, static):
    "An explorer of `kept`, complete but for two files in the folder `static`"
    text = json.dumps(kept, separators=(',',':')).replace('</', '<\\/')
    return (f'<link rel="stylesheet" href="{static}/explore.css">\n<div class="dnb-live">'
            f'<script type="application/json">{text}</script><noscript>This explorer needs JavaScript.</noscript></div>\n'
            f'<script src="{static}/explore.js"></script>\n')

def _said(text, name=''): return f'<p class="dnb-run-live"{name}>{text}</p>'

def _caption(kept):
    made = f'{repo}/blob/main/{kept["made_by"]}'
    return _said('<b>This one works in the page, without a kernel,</b> on a kept ranking of '
                 f'{len(kept["sources"])} sources by {kept["n_probe"]} labelled images of {kept["target"]} '
                 f'({kept["classes"]} classes; <a href="{made}">how it was made</a>). '
                 'In the notebook the same widget explores your own ranking.', ' id="live"')

def _note(path):
    to = edit_link(path).replace('/edit/', '/blob/')
    return _said('<b>Run live:</b> this widget needs a kernel, and the page shows only how it looked. '
                 f'<a href="{to}">Open the notebook</a> in Jupyter, VS Code or Voila.')

def _html(text): return dict(output_type='display_data', metadata={}, data={'text/html': text, 'text/plain': ''})

def alive(output, shown, path):
    """What a page shows of an output, `shown`, and if that is a widget which needs a kernel, a note; in place of the widget that
    the page can do without a kernel, this one"""
    data = output.get('data') or {}
    if 'application/vnd.jupyter.widget-view+json' not in data or 'text/html' not in data: return shown
    if page_name(path) != home or ''.join(data.get('text/plain', '')) != 'RankExplorer': return [*shown, _html(_note(path))]
    ranking = json.loads(kept_at.read_text(encoding='utf-8'))
    static = os.path.relpath('_static', os.path.dirname(home))
    return [_html(_caption(ranking) + live_html(ranking, static))]
