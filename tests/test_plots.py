"""Figures with two, six and twenty-eight sources of long names, on light and dark pages: no text lies on another or is
cut off, and all of it can be read"""
import itertools, warnings
from types import SimpleNamespace
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from matplotlib.colors import to_rgb
from distill_nb.calibrate import coverage_table, reliability
from distill_nb.compare import Comparison
from distill_nb.pseudo_labels import PseudoLabels
from distill_nb.plots import *
from distill_nb.ranking import Ranking

archs = ['tf_efficientnet_lite0','mobilenetv3_large_100.ra_in1k','vit_small_patch14_dinov2.lvd142m','resnet50.a1_in1k',
         'convnext_tiny.fb_in22k_ft_in1k','swin_tiny_patch4_window7_224.ms_in1k']

def names(n): return [archs[i%6] + (f'_{i//6}' if i >= 6 else '') for i in range(n)]
def ranking(n, seed=0, metric='cka'):
    rng = np.random.default_rng(seed)
    s = np.sort(rng.beta(2,5,n)*.7)[::-1] + .02
    return Ranking(names(n), s if seed == 0 else rng.permutation(s), metric, 135, s + rng.normal(0,.02,(100,n)), rng.normal(.05,.01,(20,n)))
def accuracies(n): return np.clip(.3 + ranking(n).scores + np.random.default_rng(1).normal(0,.06,n), 0, 1)

def similarity(n):
    x = np.random.default_rng(0).normal(size=(n,8))
    return plot_similarity(pd.DataFrame(np.corrcoef(x)**2, names(n), names(n)))
def cost(n):
    rng = np.random.default_rng(0)
    return plot_cost(pd.DataFrame({'accuracy': accuracies(n), 'parameters': rng.uniform(1e6,9e7,n),
                                   'CPU ms': 10**rng.uniform(.5,2.2,n), 'kind': ['student']+['source']*(n-1)}, names(n)))
def entropy(n):
    sizes = [10+i for i in range(n)]
    return plot_entropy(PseudoLabels(torch.cat([(torch.randn(50,c)*c/10).softmax(1) for c in sizes], 1), sizes), names(n))
def comparison(n):
    methods = ['transfer','probe','lp_ft','fixmatch','nearest','equal','weighted','distill','scratch'][:min(n, 9)]
    return plot_comparison(Comparison([dict(method=m, seed=s, accuracy=.5+.04*i+.01*s, seconds=1.) for i,
                                       m in enumerate(methods) for s in range(3)]))
def training(n):
    rec = SimpleNamespace(metric_names=['epoch','train_loss','valid_loss','accuracy','distill_loss','time'],
                          losses=list(3*np.exp(-np.arange(100)/40)+.5), iters=[20,40,60,80,100],
                          values=[[1,2-.3*k,.4+.1*k,1.5-.2*k] for k in range(5)])
    return plot_training(SimpleNamespace(recorder=rec))
def features(n):
    y = np.arange(400)%n
    return plot_features(np.random.default_rng(0).normal(size=(400,16)), y, [f'class number {i}' for i in range(n)])

def trust(n): return np.random.default_rng(0).dirichlet([.4]*5, 200),np.random.default_rng(1).integers(0,5,200)

figures = dict(reliability=lambda n: plot_reliability({k: reliability(*trust(n)) for k in names(n)[:9]}),
               coverage=lambda n: plot_coverage({k: coverage_table(*trust(n)) for k in names(n)[:9]}),
               ranking=lambda n: plot_ranking(ranking(n)), weights=lambda n: plot_weights(ranking(n)),
               check=lambda n: plot_check(ranking(n), accuracies(n)), similarity=similarity, cost=cost, entropy=entropy,
               estimators=lambda n: plot_estimators([ranking(n, i, m) for i,
                                                     m in enumerate('cka parc rsa dds logme nce leep nleep h_score '
                                                                    'transrate gbc sfda knn linear_probe'.split())]),
               comparison=comparison, training=training, features=features)

def luminance(c):
    r,g,b = (o/12.92 if o <= .04045 else ((o+.055)/1.055)**2.4 for o in to_rgb(c))
    return .2126*r + .7152*g + .0722*b
def contrast(a, b):
    hi,lo = sorted((luminance(a), luminance(b)), reverse=True)
    return (hi+.05)/(lo+.05)

@pytest.mark.parametrize('style', ['default','dark_background'])
@pytest.mark.parametrize('n', [2,6,28])
@pytest.mark.parametrize('figure', figures)
def test_every_text_can_be_read(figure, n, style):
    with plt.style.context(style), warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)              # a layout that does not fit
        ax = figures[figure](n)
        fig = ax.figure
        fig.canvas.draw()
        texts = [t for t in fig.findobj(plt.Text) if t.get_visible() and t.get_text().strip() and t.get_window_extent().width]
        unseen = {id(o) for a in fig.axes for axis in (a.xaxis, a.yaxis)
                  for tick in axis.get_major_ticks() + axis.get_minor_ticks() for o in (tick.label1, tick.label2)
                  if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())}
        boxes = [(t, plt.Text.get_window_extent(t)) for t in texts if id(t) not in unseen
                 and not t.get_rotation() % 90] # without the arrow of an annotation; boxes of slanted names overlap, the names do not
        for t,b in boxes:
            assert b.x0 >= -1 and b.y0 >= -1 and b.x1 <= fig.bbox.x1+1 and b.y1 <= fig.bbox.y1+1, f'{t.get_text()!r} is cut off'
        for (s,a),(t,b) in itertools.combinations(boxes, 2):
            w,h = min(a.x1,b.x1)-max(a.x0,b.x0), min(a.y1,b.y1)-max(a.y0,b.y0)
            assert min(w,h) < 2, f'{s.get_text()!r} lies on {t.get_text()!r}'
        page = plt.rcParams['figure.facecolor']
        for t in texts:
            if figure not in ('estimators','similarity') or t.axes is not ax or t not in ax.texts:
                assert contrast(t.get_color(), page) > 3, t.get_text()
        plt.close('all')

def test_axes_are_taken():
    fig,axs = plt.subplots(1, 3)
    for ax,f in zip(axs, (lambda a: plot_ranking(ranking(6), ax=a), lambda a: plot_weights(ranking(6), ax=a),
                          lambda a: plot_check(ranking(6), accuracies(6), ax=a))):
        assert f(ax) is ax
    plt.close('all')

@pytest.mark.parametrize('pair', [(i,i+1) for i in range(7)])
def test_neighbouring_colours_differ_for_the_colour_blind(pair):
    "Simulated deuteranopia and protanopia (Viénot et al. 1999, in linear RGB)"
    lin = lambda c: np.array([o/12.92 if o <= .04045 else ((o+.055)/1.055)**2.4 for o in to_rgb(c)])
    lms = np.array([[17.8824,43.5161,4.11935],[3.45565,27.1554,3.86714],[.0299566,.184309,1.46709]])
    deuter,protan = np.array([[1,0,0],[.494207,0,1.24827],[0,0,1]]),np.array([[0,2.02344,-2.52581],[0,1,0],[0,0,1]])
    for m in (deuter,protan):
        a,b = (np.clip(np.linalg.inv(lms)@m@lms@lin(palette[i]), 0, 1) for i in pair)
        assert np.abs(a**(1/2.2)-b**(1/2.2)).max() > .1

def test_umap_is_asked_for_by_name():
    x,y = np.random.default_rng(0).normal(size=(60,8)),np.arange(60)%3
    try: import umap # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match='umap-learn'): plot_features(x, y, method='umap')
    else: assert sum(len(c.get_offsets()) for c in plot_features(x, y, method='umap').collections) == 60

def test_each_box_of_entropies_has_its_name():
    torch.manual_seed(0)
    p = torch.cat([(torch.randn(50,4)*k).softmax(1) for k in (1,9,3)], 1)
    ax = plot_entropy(PseudoLabels(p, [4,4,4]), ['unsure','sure','between'])
    middle = [np.median(l.get_xdata()) for l in ax.lines if len(l.get_xdata()) == 2 and np.ptp(l.get_xdata()) == 0
              and np.ptp(l.get_ydata()) > .5]
    assert [t.get_text() for t in ax.get_yticklabels()] == ['sure','between','unsure'] and len(middle) == 3 and middle == sorted(middle)
    plt.close('all')
