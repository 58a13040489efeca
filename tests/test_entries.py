"""Every public function against arguments that cannot be meant, one at a time, the others good: it is refused by an
error of our own, which names what is wrong, or there is a reason why it is right to take it. `entries` holds a call
of each that works, `bad` what may be wrong with an argument of each kind, `fine` the reasons."""
import importlib, inspect, math, pkgutil, signal, tempfile, traceback, warnings
from functools import lru_cache
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from fastai.vision.all import L, Learner
import distill_nb
from distill_nb.images import *
from distill_nb.kept import *
from distill_nb.items import *
from distill_nb.labeled import *
from distill_nb.hand_labels import *
from distill_nb.data import *
from distill_nb.pool import *
from distill_nb.packs import *
from distill_nb.items import own_opener
from distill_nb.kept import KeptImages
from distill_nb.core import *
from distill_nb.sources import *
from distill_nb.networks import *
from distill_nb.checkpoints import *
from distill_nb.zoo import *
from distill_nb.catalogue import *
from distill_nb.images import *
from distill_nb.store import *
from distill_nb.outputs import *
from distill_nb.pseudo_labels import *
from distill_nb.ranking import *
from distill_nb.similarity import *
from distill_nb.weights import *
from distill_nb.ranking import *
from distill_nb.items import *
from distill_nb.data import *
from distill_nb.pseudo_labels import *
from distill_nb.joint import *
from distill_nb.teachers import *
from distill_nb.teach import *
from distill_nb.student import *
from distill_nb.callbacks import *
from distill_nb.distill import *
from distill_nb.callbacks import *
from distill_nb.fixmatch import *
from distill_nb.teachers import *
from distill_nb.teach import *
from distill_nb.learner import *
from distill_nb.compare import *
from distill_nb.preprocess import *
from distill_nb.optimizer import FusedAdam
from distill_nb.quality import *
from distill_nb.suspects import *
from distill_nb.choose import *
from distill_nb.report import *
from distill_nb.plots import *
from distill_nb.deploy import *
from distill_nb.export import *
from distill_nb.runtimes import *
from distill_nb.publish import *
from distill_nb.plots import *
from distill_nb.explore import *
from distill_nb.browse import *
from distill_nb.labeler import *
from distill_nb.watch import *
from distill_nb.bench import *
from distill_nb.suites import *
from distill_nb.resume import Resume
from distill_nb.recipe import *
from distill_nb.folds import *
from distill_nb.similarity import check_metric
from distill_nb import calibrate as cal, cli, infer, kept, pseudo_labels as pseudo, resume, similarity, tasks
from distill_nb.estimators import core, counts, covariances, kernels, pairs, probes, trust

_tmp = tempfile.TemporaryDirectory()
tmp = Path(_tmp.name)
rng = np.random.default_rng(0)
X,Y = rng.normal(size=(24,5)),np.arange(24)%3
P = rng.dirichlet(np.ones(3), 24)
Z = np.log(P)
pics = rng.integers(0, 256, (24,16,16,3), dtype=np.uint8)
def t(o): return torch.tensor(np.asarray(o)).float()
def hole(v): return np.where(np.arange(24)[:,None]==7, v, X[:,:3])

bad = { # kind of argument -> what is handed over
    'number':   dict(nan=math.nan, negative=-1., text='three', inf=math.inf, large=1e308, tiny=1e-308, beyond=10**400),
    'count':    dict(zero=0, negative=-1, half=1.5, nan=math.nan, text='three', inf=math.inf, bool=True),
    'share':    dict(negative=-.5, above=2.5, nan=math.nan, text='half', beyond=10**400, tiny=1e-308),
    'choice':   dict(unknown='nonsense', number=3),
    'matrix':   dict(empty=X[:0], vector=X[:,0], cube=X[None], nan=hole(math.nan), inf=hole(math.inf),
                     text=X.astype(str), none=None, number=3, large=X*1e200, tiny=X*1e-200,
                     mixed=np.array([[1,'a',None]]*24, dtype=object)),
    'vector':   dict(empty=[], nan=[math.nan]*3, inf=[math.inf]*3, beyond=[10**400]*3, mixed=[1,'a',None],
                     matrix=np.ones((3,3)), text=['a']*3, none=None, number=3),
    'labels':   dict(empty=[], few=Y[:5], nan=[math.nan]*24, hole=np.where(Y==1, None, Y), mixed=[0,'a',None]*8,
                     floats=Y+.5, none=None, number=3),
    'images':   dict(empty=[], missing=['/nowhere/1.png'], numbers=[1,2], none=None, number=3),
    'folder':   dict(missing='/nowhere', file=__file__, number=3, none=None),
    'file':     dict(missing='/nowhere/a.safetensors', folder='/tmp', text=__file__, number=3, none=None),
    'dls':      dict(none=None, number=3, text='dls', list=[1]),
    'learn':    dict(none=None, number=3, text='learn'),
    'sources':  dict(empty=[], none=None, number=3, text='sources', numbers=[1,2]),
    'zoo':      dict(none=None, number=3, text='sources', numbers=[1,2]),
    'source':   dict(none=None, number=3, text='source'),
    'sizes':    dict(empty=[], nan=[math.nan], text=['a','b'], nil=[0,3]),
    'weights':  dict(number=3, text='weights', list=[1]),
    'paths':    dict(number=3, none=None),
    'rows':     dict(none=None, number=3, other=pd.DataFrame(dict(a=[1])), empty=pd.DataFrame()),
    'module':   dict(none=None, number=3, text='resnet')}

@lru_cache
def zoo(): return Zoo.embedded()
@lru_cache
def one(): return zoo()['digits']
@lru_cache
def dls(): return image_dls(pics, Y, valid_pct=.4, bs=6)
@lru_cache
def learn(): return Learner(dls(), create_student('test_efficientnet', 3, pretrained=False, stages=None))
@lru_cache
def graph():
    to_onnx(learn(), tmp/'graph.onnx', size=16)
    return tmp/'graph.onnx'
@lru_cache
def fitted():
    l = student_learner(dls(), 'test_efficientnet', pretrained=False)
    l.fit(1)
    return l
def store(): return Store(tmp/'store')
@lru_cache
def ranking(): return Ranking(zoo(), [.1*(i+1) for i in range(len(zoo()))])
@lru_cache
def runs():
    return pd.DataFrame([dict(target=a, budget=5., seed=s, method=m, accuracy=.5+.1*s, balanced_accuracy=.5,
                              valid_loss=1., seconds=1) for a in 'ab' for s in (0,1) for m in ('transfer','distill')])
@lru_cache
def apart(): return runs().assign(accuracy=runs().accuracy + .1*(runs().method=='distill'))
@lru_cache
def labels_(): return pseudo_labels(list(zoo()), pics, store=False, progress=False)
@lru_cache
def compared():
    return Comparison([dict(seed=s, method=m, accuracy=.5+.1*s, valid_loss=1., seconds=1.) for s in (0,1) for m in ('transfer','weighted')])
def curve(): return cal.reliability(P, Y)
def picture():
    f = tmp/'pictures'/'1.png'
    if not f.exists():
        f.parent.mkdir()
        open_image(pics[0]).save(f)
    return f.parent
def sims(): return similarity.source_similarity(list(zoo()), pics, store=False, progress=False)

small = dict(store=False, progress=False)
quiet = dict(arch='test_efficientnet', pretrained=False)
# name -> what gives (function, good arguments, the kind of those that are put to the test)
def call(f, kinds, /, **kw): return f, kw, kinds
m = dict(features='matrix', labels='labels')
entries = {
 # images
 'KeptImages': lambda: call(KeptImages, dict(path='paths'), path=tmp/'kept'),
 'pixel_size': lambda: call(kept.pixel_size, dict(item='file'), item=picture()/'1.png'),
 'pays': lambda: call(kept.pays, dict(items='images'), items=[picture()/'1.png'], view=kept.ResizeView((4,4), True, False, 2)),
 'kept_beside': lambda: call(kept_beside, dict(store='paths'), store=tmp/'store'),
 # data
 'where_kept': lambda: call(where_kept, dict(cache='paths'), cache=tmp/'kept'),
 'few_labels': lambda: call(few_labels, dict(labels='labels', n='count', frac='share'), labels=Y, n=2),
 'open_image': lambda: call(open_image, dict(item='file'), item=pics[0]),
 'check_images': lambda: call(check_images, dict(items='images'), items=list(pics)),
 'image_items': lambda: call(image_items, dict(ds='dls'), ds=dls().train_ds),
 'own_opener': lambda: call(own_opener, dict(ds='dls'), ds=dls()),
 'opened_as': lambda: call(opened_as, dict(dls='dls'), dls=dls(), items=L(*pics)),
 'pool_images': lambda: call(pool_images, dict(dls='dls', unlabeled='images', on_error='choice'), dls=dls(),
                             unlabeled=list(rng.integers(0, 256, (3,8,8,3), dtype=np.uint8))),
 'check_labels': lambda: call(check_labels, dict(dls='dls'), dls=dls()),
 'epoch_size': lambda: call(epoch_size, dict(dls='dls'), dls=dls()),
 'item_labels': lambda: call(item_labels, dict(ds='dls'), ds=dls().train_ds),
 'get_images': lambda: call(get_images, dict(x='folder'), x=list(pics)),
 'image_dls': lambda: call(image_dls, dict(items='images', labels='labels', valid_pct='share', size='count',
                                           bs='count', vocab='vector'), items=pics, labels=Y, valid_pct=.4),
 'held_out_folds': lambda: call(held_out_folds, dict(labels='labels', folds='count'), labels=Y, folds=3),
 'check_metric': lambda: call(check_metric, dict(metric='choice'), metric='cka'),
 'suggested_lr': lambda: call(suggested_lr, dict(student='module'), student=create_student('test_efficientnet', 3, pretrained=False)),
 'suggested_epochs': lambda: call(suggested_epochs, dict(n_batches='count', steps='count'), n_batches=10),
 'suggested_size': lambda: call(suggested_size, dict(images='images', native='count', most='count'), images=list(pics)),
 'few_label_dls': lambda: call(few_label_dls, dict(dls='dls', n='count', frac='share', bs='count'), dls=dls(), n=2),
 'unlabeled_dl': lambda: call(unlabeled_dl, dict(dls='dls', items='images', bs='count'), dls=dls(), items=pics),
 'repeat_dls': lambda: call(repeat_dls, dict(dls='dls', n='count', bs='count'), dls=dls(), n=3),
 'load_pack': lambda: call(load_pack, dict(path='folder'), path='/nowhere'),
 'pack_dls': lambda: call(pack_dls, dict(pack='folder', n='count', size='count'),
                          pack=Pack(L(*pics), Y, np.arange(24)<9, L('a','b','c')), n=2, size=16),
 'digits_dls': lambda: call(digits_dls, dict(n='count', size='count', bs='count'), n=2),
 # sources
 'find_classifier': lambda: call(find_classifier, dict(model='module'), model=learn().model),
 'SourceNet': lambda: call(SourceNet, dict(model='module'), model=create_student('test_efficientnet', 3, pretrained=False)),
 'read_weights': lambda: call(read_weights, dict(path='file'), path='/nowhere'),
 'load_strict': lambda: call(load_strict, dict(model='module', weights='weights'), model=torch.nn.Linear(2,2),
                             weights=torch.nn.Linear(2,2).state_dict()),
 'Source.from_module': lambda: call(Source.from_module, dict(module='module', mean='vector', std='vector',
                                                             size='count'), module=torch.nn.Sequential(torch.nn.Flatten(
        ), torch.nn.Linear(3*16*16, 4)), mean=.5, std=.5, size=16),
 'Source.from_timm': lambda: call(Source.from_timm, dict(arch='choice', size='count'), arch='test_efficientnet', pretrained=False),
 'Source.from_checkpoint': lambda: call(Source.from_checkpoint, dict(path='file', arch='choice'), path='/nowhere', arch='resnet10t'),
 'Source.from_export': lambda: call(Source.from_export, dict(path='file'), path='/nowhere'),
 'preprocessing': lambda: call(preprocessing, dict(dls='dls'), dls=dls()),
 'image_shape': lambda: call(image_shape, dict(dls='dls'), dls=dls()),
 'image_channels': lambda: call(image_channels, dict(dls='dls'), dls=dls()),
 'timm_network': lambda: call(timm_network, dict(arch='choice'), arch='test_efficientnet', pretrained=False),
 'Source.from_learner': lambda: call(Source.from_learner, dict(learn='learn'), learn=learn()),
 'Zoo.checkpoints': lambda: call(Zoo.checkpoints, dict(path='folder'), path='/nowhere'),
 'Zoo': lambda: call(Zoo, dict(sources='zoo'), sources=list(zoo())),
 'check_download': lambda: call(check_download, dict(sources='zoo'), sources=list(zoo())),
 'catalogue': lambda: call(catalogue, dict(size='choice', domain='choice'), size=5e6),
 'catalogue_text': lambda: call(catalogue_text, dict(size='choice', domain='choice'), size=5e6),
 'Zoo.recommended': lambda: call(Zoo.recommended, dict(size='choice', domain='choice'), size=5e6),
 # outputs
 'image_key': lambda: call(image_key, dict(item='file'), item=pics[0]),
 'Store': lambda: call(Store, dict(chunk='count', dtype='choice'), path=tmp/'store'),
 'compute_outputs': lambda: call(compute_outputs, dict(sources='sources', images='images', bs='count', block='count',
                                                       on_error='choice'), sources=list(zoo()), images=pics, store=store()),
 'get_outputs': lambda: call(get_outputs, dict(source='source', images='images', bs='count'), source=one(), images=pics, **small),
 'PseudoLabels': lambda: call(PseudoLabels, dict(probs='matrix', sizes='vector', top_k='count'), probs=t(P), sizes=[3]),
 'pseudo_labels': lambda: call(pseudo_labels, dict(sources='sources', images='images', T='number', top_k='count'),
                               sources=list(zoo()), images=pics, **small),
 # similarity
 **{n: (lambda f: lambda: call(f, dict(probs='matrix', labels='labels'), probs=P, labels=Y) if f.needs == 'probs'
        else call(f, m, features=X, labels=Y))(f) for n,f in core.metrics.items()},
 'nleep, its options': lambda: call(counts.nleep, dict(per_class='count', energy='share', n_dims='count'), features=X, labels=Y),
 'transrate, its options': lambda: call(covariances.transrate, dict(eps='number'), features=X, labels=Y),
 'gbc, its options': lambda: call(covariances.gbc, dict(n_dims='count', covariance='choice'), features=X, labels=Y),
 'sfda, its options': lambda: call(covariances.sfda, dict(a='number', shrinkage='share'), features=X, labels=Y),
 'cka, its options': lambda: call(kernels.cka, dict(kernel='choice', sigma='number'), features=X, labels=Y),
 'dds, its options': lambda: call(kernels.dds, dict(f='choice', sigma='number'), features=X, labels=Y),
 'parc, its options': lambda: call(pairs.parc, dict(n_dims='count'), features=X, labels=Y),
 'knn, its options': lambda: call(probes.knn, dict(k='count', distance='choice'), features=X, labels=Y),
 'linear_probe, its options': lambda: call(probes.linear_probe, dict(folds='count', C='number', score='choice'), features=X, labels=Y),
 'fit_probe': lambda: call(probes.fit_probe, dict(features='matrix', labels='labels', C='number'), features=X, labels=Y),
 'spearman': lambda: call(core.spearman, dict(x='vector', y='vector'), x=[1.,2.,3.], y=[1.,3.,2.]),
 'replicate_scores': lambda: call(trust.replicate_scores, dict(labels='labels', times='count'), f=kernels.cka, xs=[X], labels=Y, times=2),
 'null_scores': lambda: call(trust.null_scores, dict(labels='labels', times='count'), f=kernels.cka, xs=[X], labels=Y, times=2),
 'dissimilarity': lambda: call(pairs.dissimilarity, dict(x='matrix'), x=X),
 'h_score_plain': lambda: call(covariances.h_score_plain, m, features=X, labels=Y),
 'half_samples': lambda: call(trust.half_samples, dict(labels='labels', times='count'), labels=Y, times=3),
 'probe_set': lambda: call(similarity.probe_set, dict(labels='labels', n='count'), labels=Y, n=9),
 'nested_probes': lambda: call(similarity.nested_probes, dict(labels='labels', sizes='vector'), labels=Y, sizes=[6,12]),
 'halving_plan': lambda: call(similarity.halving_plan, dict(n_sources='count', n='count', halving='count', keep='count'), n_sources=20),
 'Ranking': lambda: call(Ranking, dict(zoo='sources', scores='vector', metric='choice'), zoo=list(zoo()), scores=[.1]*len(zoo())),
 'WeightedSources': lambda: call(WeightedSources, dict(sources='zoo', alpha='vector'), sources=list(zoo()),
                                 alpha=[1/len(zoo())]*len(zoo())),
 'rank_sources': lambda: call(rank_sources, dict(dls='dls', zoo='sources', metric='choice', n='count', times='count',
                                                 halving='count', keep='count', on_error='choice', bs='count'),
                              dls=dls(), zoo=zoo(), times=2, **small),
 'source_similarity': lambda: call(similarity.source_similarity, dict(sources='sources', images='images'),
                                   sources=list(zoo()), images=pics, **small),
 'held_out_r2': lambda: call(similarity.held_out_r2, m, features=X, labels=Y),
 'held_out_weights': lambda: call(similarity.held_out_weights, dict(features='vector', labels='labels'), features=[X,X[:,:2]], labels=Y),
 # weights
 'normalize_scores': lambda: call(normalize_scores, dict(scores='vector', how='choice'), scores=[.1,.2,.3]),
 'source_weights': lambda: call(source_weights, dict(scores='vector', p='number', norm='choice', top='count'), scores=[.1,.2,.3]),
 'effective_sources': lambda: call(effective_sources, dict(alpha='vector'), alpha=[.2,.3,.5]),
 'share_weights': lambda: call(share_weights, dict(alpha='vector', alike='matrix', q='number'), alpha=[.2,.3,.5], alike=np.eye(3)),
 'prune_weights': lambda: call(prune_weights, dict(alpha='vector', min_weight='share'), alpha=[.2,.3,.5]),
 # distill
 'create_student': lambda: call(create_student, dict(arch='choice', n_out='count', start='file', stages='count'),
                                arch='test_efficientnet', n_out=3, pretrained=False),
 'softmax_segments': lambda: call(pseudo.softmax_segments, dict(T='number', sizes='sizes'), logits=t(Z), sizes=[2,1]),
 'distill_loss': lambda: call(distill_loss, dict(T='number', sizes='sizes'), logits=t(Z), targets=t(P), sizes=[3], alpha=torch.ones(1)),
 'StoredTeachers': lambda: call(StoredTeachers, dict(labels='rows', T='number'), labels=labels_()),
 'LiveTeachers': lambda: call(LiveTeachers, dict(sources='sources', T='number'), sources=list(zoo())),
 'SourceTeacher': lambda: call(SourceTeacher, dict(teachers='module', alpha='vector', T='number'), teachers=StoredTeachers(labels_()),
                              alpha=[1/len(zoo())]*len(zoo())),
 'TargetTeacher': lambda: call(TargetTeacher, dict(probs='module', T='number'), probs=t(P)),
 'HintTeacher': lambda: call(HintTeacher, dict(hints='module'), hints=t(X)),
 'Joint': lambda: call(Joint, dict(k='count', steps='count', T='number')),
 'Probes': lambda: call(Probes, dict(C='number', T='number')),
 'SourceClasses': lambda: call(SourceClasses, dict(T='number', top_k='count')),
 'Hints': lambda: call(Hints, dict(weight='number', k='count')),
 'Both': lambda: call(Both, dict(mix='share', probes='choice', classes='choice')),
 'Distill': lambda: call(Distill, dict(pool='images', teacher='module', lam='share', bs='count'), pool=pics, teacher=TargetTeacher(t(P))),
 'LabelsLast': lambda: call(LabelsLast, dict(start='share')),
 # fixmatch
 'strong_augment': lambda: call(strong_augment, dict(x='matrix', n_ops='count', magnitude='number', cutout='share'), x=torch.rand(2,3,8,8)),
 'weak_augment': lambda: call(weak_augment, dict(x='matrix', shift='share'), x=torch.rand(2,3,8,8)),
 'Fixed': lambda: call(Fixed, dict(threshold='share')),
 'Flex': lambda: call(Flex, dict(threshold='share')),
 'Free': lambda: call(Free, dict(decay='share', fairness='number')),
 'FixMatch': lambda: call(FixMatch, dict(pool='images', threshold='share', mu='count', lam_u='number'), pool=pics),
 'EMA': lambda: call(EMA, dict(decay='share')),
 'ema_decay': lambda: call(ema_decay, dict(decay='share'), t=3),
 # learners
 'set_probe_head': lambda: call(set_probe_head, dict(learn='learn', C='number'), learn=learn()),
 'student_learner': lambda: call(student_learner, dict(dls='dls', arch='choice', start='file', stages='count',
                                                       epoch_len='count'), dls=dls(), **quiet),
 'transfer_learner': lambda: call(transfer_learner, dict(dls='dls', arch='choice', epoch_len='count'), dls=dls(), **quiet),
 'pool_epoch': lambda: call(pool_epoch, dict(dls='dls', pool='images', bs_u='count'), dls=dls(), pool=pics),
 'weigh_sources': lambda: call(weigh_sources, dict(sources='sources', p='number'), sources=ranking()),
 'probe_labels': lambda: call(probe_labels, dict(sources='sources', alpha='vector', dls='dls', images='images',
                                                 C='number', T='number'), sources=list(zoo()),
                              alpha=[1/len(zoo())]*len(zoo()), dls=dls(), images=pics, **small),
 'joint_labels': lambda: call(joint_labels, dict(sources='sources', alpha='vector', dls='dls', images='images', asked='images', k='count',
                                                 steps='count', T='number'), sources=list(zoo()),
                              alpha=[1/len(zoo())]*len(zoo()), dls=dls(), images=pics, **small),
 'feature_hints': lambda: call(feature_hints, dict(sources='sources', alpha='vector', images='images', k='count'),
                               sources=list(zoo()), alpha=[1/len(zoo())]*len(zoo()), images=pics, k=4, **small),
 'distill_learner': lambda: call(distill_learner, dict(dls='dls', unlabeled='images', sources='sources', arch='choice',
                                                       p='number', lam='share', teach='module', bs_u='count',
                                                       ema='share', epoch_len='count'),
    dls=dls(), unlabeled=pics, sources=ranking(), **quiet, **small),
 'nearest_learner': lambda: call(nearest_learner, dict(dls='dls', unlabeled='images', sources='sources',
                                                       teach='module'), dls=dls(), unlabeled=pics, sources=ranking(), **quiet, **small),
 'fixmatch_learner': lambda: call(fixmatch_learner, dict(dls='dls', unlabeled='images', arch='choice',
                                                         threshold='share', mu='count', lam_u='number', ema='share'),
                                  dls=dls(), unlabeled=pics, **quiet),
 'Comparison': lambda: call(Comparison, dict(rows='rows', reference='choice'),
                            rows=compared().rows if hasattr(compared(), 'rows') else runs()),
 'compare': lambda: call(compare, dict(data='rows', sources='sources', methods='choice', seeds='vector',
                                       n_epoch='count', lr='number', metric='choice'), data=lambda s: (dls(), pics) ,
                         sources=ranking(), methods=('transfer',), seeds=[0], n_epoch=1, **quiet, **small),
 # after the training
 'reliability': lambda: call(cal.reliability, dict(probs='matrix', labels='labels', bins='count'), probs=P, labels=Y),
 'expected_calibration_error': lambda: call(cal.expected_calibration_error,
                                            dict(probs='matrix', labels='labels', bins='count'), probs=P, labels=Y),
 'calibration_floor': lambda: call(cal.calibration_floor, dict(probs='matrix', bins='count', times='count'), probs=P),
 'fit_temperature': lambda: call(cal.fit_temperature, dict(logits='matrix', labels='labels'), logits=Z, labels=Y),
 'calibrate': lambda: call(cal.calibrate, dict(learn='learn', bins='count', folds='count'), learn=learn(), folds=2),
 'coverage_table': lambda: call(cal.coverage_table, dict(probs='matrix', labels='labels', level='share'), probs=P, labels=Y),
 'answer_threshold': lambda: call(cal.answer_threshold, dict(probs='matrix', labels='labels', accuracy='share',
                                                             level='share'), probs=P, labels=Y),
 'save_student': lambda: call(save_student, dict(learn='learn', path='paths'), learn=learn(), path=tmp/'s.safetensors'),
 'load_student': lambda: call(load_student, dict(path='file'), path='/nowhere'),
 'to_onnx': lambda: call(to_onnx, dict(learn='learn', size='count', mean='vector', std='vector'), learn=learn(),
                         path=tmp/'s.onnx', size=16),
 'to_export': lambda: call(to_export, dict(learn='learn', size='count', mean='vector', std='vector'), learn=learn(),
                           path=tmp/'s.pt2', size=16),
 'to_openvino': lambda: call(to_openvino, dict(learn='learn', size='count', mean='vector', std='vector'), learn=learn(),
                             path=tmp/'s.xml', size=16),
 'quantize_onnx': lambda: call(quantize_onnx, dict(path='file', images='images', method='choice'), path=graph(),
                               out=tmp/'q.onnx', images=list(pics)),
 'save_hub': lambda: call(save_hub, dict(learn='learn', sources='sources'), learn=learn(), folder=tmp/'hub', onnx=False),
 'profile': lambda: call(profile, dict(learn='learn', sources='sources', size='count', n='count', bs='count'),
                         learn=learn(), size=16, n=2, bs=2),
 'Predictor': lambda: call(infer.Predictor, dict(path='file', threads='count'), path=graph()),
 'read_rgb': lambda: call(infer.read_rgb, dict(item='file'), item='/nowhere'),
 'find_images': lambda: call(infer.find_images, dict(folder='folder'), folder=picture()),
 'read_state': lambda: call(resume.read_state, dict(path='file'), path='/nowhere'),
 'Resume': lambda: call(Resume, dict(every='count')),
 # pictures
 'FusedAdam': lambda: call(FusedAdam, dict(mom='share', sqr_mom='share', eps='number', wd='number'),
                           params=[torch.nn.Parameter(torch.ones(3))], lr=1e-3),
 'plot_ranking': lambda: call(plot_ranking, dict(rank='rows', p='number'), rank=ranking()),
 'plot_weights': lambda: call(plot_weights, dict(rank='rows', p='number', norm='choice'), rank=ranking()),
 'rank_table': lambda: call(rank_table, dict(rankings='rows'), rankings=dict(a=ranking(), b=ranking())),
 'plot_estimators': lambda: call(plot_estimators, dict(rankings='rows'), rankings=dict(a=ranking(), b=ranking())),
 'plot_similarity': lambda: call(plot_similarity, dict(similarity='rows'), similarity=sims()),
 'plot_check': lambda: call(plot_check, dict(rank='rows', accuracies='vector'), rank=ranking(),
                            accuracies={n: .5+.1*i for i,n in enumerate(ranking().names)}),
 'plot_entropy': lambda: call(plot_entropy, dict(labels='rows', names='vector'), labels=labels_(), names=[s.name for s in zoo()]),
 'plot_features': lambda: call(plot_features, dict(features='matrix', labels='labels', method='choice'), features=X, labels=Y),
 'plot_training': lambda: call(plot_training, dict(learn='learn'), learn=fitted()),
 'plot_cost': lambda: call(plot_cost, dict(table='rows', cost='choice'),
                           table=profile(learn(), size=16, n=2, bs=2, accuracy=dict(student=.5))),
 'plot_comparison': lambda: call(plot_comparison, dict(comparison='rows'), comparison=compared()),
 'plot_reliability': lambda: call(plot_reliability, dict(tables='rows'), tables=curve()),
 'plot_coverage': lambda: call(plot_coverage, dict(tables='rows'), tables=cal.coverage_table(P, Y)),
 # labels given by hand, and explorers
 'HandLabels': lambda: call(HandLabels, dict(path='paths', vocab='vector'), path=tmp/'by_hand.csv'),
 'HandLabels.name': lambda: call(HandLabels(tmp/'by_hand.csv').name, dict(item='file'), item=picture()/'1.png'),
 'HandLabels.label': lambda: call(HandLabels(tmp/'by_hand.csv').label, dict(item='file'), item=picture()/'1.png', label='cat'),
 'HandLabels.reject': lambda: call(HandLabels(tmp/'by_hand.csv').reject, dict(item='file'), item=picture()/'1.png'),
 'HandLabels.skip': lambda: call(HandLabels(tmp/'by_hand.csv').skip, dict(item='file'), item=picture()/'1.png'),
 'Zoo.label': lambda: call(zoo().label, dict(pool='folder'), pool=picture(), path=tmp/'by_hand_zoo.csv', store=tmp/'store', progress=False),
 'static_order': lambda: call(static_order, dict(zoo='sources'), zoo=list(zoo())),
 'ranking_legend': lambda: call(ranking_legend, dict(rank='rows'), rank=ranking()),
 'ranking_words': lambda: call(ranking_words, dict(rank='rows', alpha='vector'), rank=ranking(), alpha=[1/len(zoo())]*len(zoo())),
 'RankExplorer': lambda: call(RankExplorer, dict(rank='rows'), rank=ranking()),
 'Watch': lambda: call(Watch, dict(every='number', n='count')),
 'explore_runs': lambda: call(explore_runs, dict(rows='rows', reference='choice'), rows=runs()),
 # quality and report
 'accuracy_summary': lambda: call(accuracy_summary, dict(probs='matrix', labels='labels', level='share'), probs=P, labels=Y),
 'confusion_counts': lambda: call(confusion_counts, dict(probs='matrix', labels='labels'), probs=P, labels=Y),
 'class_table': lambda: call(class_table, dict(probs='matrix', labels='labels', level='share'), probs=P[Y.argsort()], labels=np.sort(Y)),
 'surest_mistakes': lambda: call(surest_mistakes, dict(probs='matrix', labels='labels', k='count'), probs=P, labels=Y),
 'suspect_labels': lambda: call(suspect_labels, dict(labels='labels', least='share', probs='paths'), probs=[P,P], labels=Y),
 'held_out_ridge': lambda: call(held_out_ridge, dict(x='matrix', labels='labels'), x=X, labels=Y),
 'facility_location': lambda: call(facility_location, dict(similarity='matrix', n='count', labeled='vector', demand='vector'),
                                   similarity=np.eye(24), n=2, labeled=[0,1,2], demand=np.ones(24)),
 'choose_images': lambda: call(choose_images, dict(pool='images', sources='sources', n='count', how='choice', most='count',
                               labeled='paths'), pool=pics, sources=list(zoo()), n=2, **small),
 'find_suspects': lambda: call(find_suspects, dict(sources='sources', pool='images', least='share', far='number'),
                               labeled=(pics, [f'class {o}' for o in Y]), sources=list(zoo()), **small),
 'most_disputed': lambda: call(most_disputed, dict(weights='weights', k='count', probs='weights'), probs=dict(a=P, b=P[::-1])),
 'paired_comparison': lambda: call(paired_comparison, dict(first='matrix', second='matrix', labels='labels', level='share',
                                                           margin='share'), first=P, second=P[::-1], labels=Y),
 'images_for_width': lambda: call(images_for_width, dict(accuracy='share', half='share'), accuracy=.5),
 'plot_candidates': lambda: call(plot_candidates, dict(table='rows', enough='share'),
                                 table=Findings(labels=Y, probs=dict(a=P, b=P[::-1])).table),
 'plot_confusion': lambda: call(plot_confusion, dict(counts='matrix', most='count'), counts=confusion_counts(P, Y)),
 'plot_history': lambda: call(plot_history, dict(history='rows'), history=pd.DataFrame(dict(train_loss=[2.,1.]))),
 # suites
 'read_runs': lambda: call(read_runs, dict(out='paths'), out='/nowhere'),
 'suite_table': lambda: call(suite_table, dict(rows='rows', reference='choice', value='choice'), rows=runs()),
 'kept_table': lambda: call(kept_table, dict(rows='rows', method='choice', start='choice', references='choice', least='share',
                                               value='choice'), rows=apart(), references='distill'),
 'target_table': lambda: call(target_table, dict(rows='rows', value='choice'), rows=runs()),
 'plot_suite': lambda: call(plot_suite, dict(rows='rows', reference='choice', value='choice'), rows=runs()),
 'eight_suite': lambda: call(eight_suite, dict(data='folder', sources='folder', tier='choice', size='count'),
                             data='/nowhere', sources='/nowhere'),
 'paper_suite': lambda: call(paper_suite, dict(data='folder', sources='folder'), data='/nowhere', sources='/nowhere'),
 'load_task': lambda: call(tasks.load_task, dict(name='choice', path='folder'), name='eurosat', path='/nowhere'),
 **{n: (lambda f: lambda: call(f, dict(path='folder'), path='/nowhere'))(f) for n,f in tasks.paper_tasks.items()},
 'labeled_images': lambda: call(labeled_images, dict(x='folder', on_error='choice'), x='/nowhere'),
 'labeled_parts': lambda: call(labeled_parts, dict(x='folder', on_error='choice'), x='/nowhere'),
 'parse_zoo': lambda: call(cli.parse_zoo, dict(s='choice'), s='embedded'),
}

extreme = 'inf','large','tiny' # numbers that somebody may mean: refused, or the result is finite

fine = { # (names, argument, case) -> why it is right to take it; a star stands for any case
    ('HandLabels','vocab','empty'): 'classes are named on the way', ('HandLabels','vocab','none'): 'the same',
    ('HandLabels','vocab','text'): 'one class, named three times',
    ('HandLabels.name','item','*'): 'a file need not be there to have a name',
    ('HandLabels.label|HandLabels.reject|HandLabels.skip','item','text'): 'any file; whoever shows it finds that it is no image',
    ('check_images','items','*'): 'it lists what cannot be read', ('WeightedSources','alpha','none'): 'equal weights',
    ('KeptImages|kept_beside|where_kept','path','none'): 'the default cache',
    ('kept_beside','store','none'): 'the default store', ('where_kept','cache','none'): 'the default cache',
    ('pixel_size','item','*'): 'None says that it cannot be read', ('pays','items','*'): 'what cannot be read does not '
                                                                                         'pay', ('image_key','item',
        'text'): 'any file has a key', ('half_samples|probe_set|nested_probes|plot_features','labels',
                                        'floats'): 'they only group images',
        ('half_samples|probe_set|nested_probes','labels','few'): 'there are so many images, then',
    ('half_samples|replicate_scores|null_scores|rank_sources','times','zero'): 'none are asked for',
    ('Joint|joint_labels','steps','zero'): 'the labels alone', ('joint_labels','asked','none'): 'the pool',
    ('strong_augment','n_ops','zero'): 'none', ('Watch','n','zero'): 'none are shown',
    ('Source.from_module|to_onnx|to_openvino','mean','number'): 'the same for all colours',
    ('Source.from_module','std','number'): 'the same for all colours',
    ('to_onnx|to_export|to_openvino','mean','none'): "the Learner's",
    ('to_onnx|to_export|to_openvino','std','none'): "the Learner's",
    ('to_export','mean','number'): 'the same for all colours',
    ('to_onnx|to_export|to_openvino','std','number'): 'the same for all colours',
    ('pool_images','unlabeled','missing'): 'files are opened in the loop, and named there',
    ('image_dls','vocab','mixed'): 'names of any kind', ('image_dls','vocab','none'): 'from the labels',
    ('create_student|student_learner','start','none'): '`pretrained` decides',
    ('weigh_sources|distill_learner','alpha','none'): 'from the ranking', ('save_hub','sources','none'): 'unknown teachers',
    ('save_hub','sources','empty'): 'unknown teachers', ('profile','sources','empty'): 'the student alone',
    ('profile','sources','none'): 'the student alone', ('unlabeled_dl','items','missing'): 'files are opened in the '
                                                                                           'loop, and named there',
                                                                                           ('FixMatch','pool',
        'missing'): 'files are opened in the loop, and named there',
    ('pool_epoch','pool','missing'): 'it only counts', ('fixmatch_learner','unlabeled','missing'): 'files are opened '
                                                                                                   'in the loop, and '
                                                                                                   'named there',
                                                                                                   ('Ranking','metric',
        '*'): 'it is but a title', ('compare','metric','*'): 'a ranking was given',
    ('read_state','path','*'): 'no state: training begins', ('suggested_size','images','missing'): 'what cannot be read has no size',
    ('held_out_folds','labels','few'): 'there are so many images, then', ('nested_probes','sizes','beyond'): 'all images',
    ('find_suspects','pool','none'): 'there is none', ('facility_location','labeled','empty'): 'there is none yet',
    ('facility_location','demand','none'): 'all need the same', ('choose_images','labeled','none'): 'there is none yet',
    ('Zoo|check_download','sources','empty'): 'a zoo to be filled',
    ('ranking_words','alpha','none'): 'those at p=4', ('dissimilarity','x','empty'): 'no pair of images'}

def reason(*key):
    "Why it is right to take what is wrong"
    return next((why for (names,arg,case),why in fine.items() if key[0] in names.split('|') and key[1] == arg
                 and case in ('*',key[2])), None)

def finite(o):
    if isinstance(o, (float,np.floating)): return math.isfinite(o)
    if isinstance(o, pd.DataFrame): return finite(o.select_dtypes('number').to_numpy(float))
    if isinstance(o, np.ndarray) and o.dtype.kind == 'f' or isinstance(o, torch.Tensor):
        return bool(np.isfinite(np.asarray(o.detach() if isinstance(o, torch.Tensor) else o)).all())
    return all(map(finite, o)) if isinstance(o, (tuple,list)) else True

def ours(e):
    "Was it raised by us, on purpose? Or by pathlib, which says well enough what a path is"
    last = traceback.extract_tb(e.__traceback__)[-1]
    return isinstance(e, (ValueError,TypeError,FileNotFoundError)) and len(str(e)) > 15 and (
            Path(distill_nb.__file__).parent in Path(last.filename).parents and 'raise ' in last.line or 'os.PathLike' in str(e))

def attempt(f, kw, seconds=300):
    "What `f` gives, quietly, and before long"
    def late(*_): raise TimeoutError(f'still at it after {seconds} s')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return f(**kw)
    finally:
        signal.alarm(0)
        plt.close('all')

@pytest.mark.parametrize('name', entries)
def test_entry(name, record_fault):
    f,kw,kinds = entries[name]()
    if '/nowhere' not in map(str, kw.values()): assert finite(attempt(f, kw)), 'the good call'
    assert set(kinds) <= set(inspect.signature(f).parameters), 'a test of an argument that is not there'
    wrong,tried,took = [],0,[]
    for arg,kind in kinds.items():
        for case,v in bad[kind].items():
            tried += 1
            try: res = attempt(f, {**kw, arg: v})
            except Exception as e:
                if not ours(e): wrong.append(f'{arg}={case}: {type(e).__name__}: {str(e)[:200]}')
            else:
                why = 'it gives numbers' if case in extreme else reason(name, arg, case)
                if why is None: wrong.append(f'{arg}={case}: taken, gives {type(res).__name__}')
                elif not finite(res): wrong.append(f'{arg}={case}: gives NaN or infinity')
                elif case not in extreme: took.append(f'{arg}={case}: {why}')
    assert not wrong, '\n'.join(wrong)
    record_fault('entry', name, 'refused' + (f", but {'; '.join(took)}" if took else ''), tried)

elsewhere = { # why a public name is not in `entries`
    'there is nothing to get wrong': 'cache_folder digest file_digest clear_parts whole_file whole_folder seal unseal reading '
                                     'identity parts_of is_installed Unidentified is_encoded opener_at opening_at '
                                     'opens fastai_class image_types program_formats bare_item item_name images_in '
                                     'grey_bits path_keys write_whole FreezeStats SyncNorms OpenImage sync_norms CheckFit '
                                     'student_splitter epoch_seed kept_attrs training_facts n_passes list_metrics '
                                     'SmallProbeWarning metrics palette faint either_page powers asked_for sketch '
                                     'agree differences file_stamp plain_label FitCallback '
        'compare_methods eight_methods paper_tasks recipe ema_decay',
    'a part of a loss, which callbacks hand tensors that fit': 'logsumexp_segments fixmatch_loss flex_thresholds '
                                                               'fairness_loss align_logits disagreement source_distance segments',
    'plain data, made and looked at by others': 'Teacher SeveralTeachers Teach Together source_teacher Threshold '
                                                'Halves HeldImages KeptDL ResizeView halves_for open_batches '
                                                'resize_view Pack Suite Outputs Student ImageView OpenedBy Opener '
                                                'OpenByOwn RepeatDL PoolCallback write_state student_meta '
                                                'load_backbone cut_stages feature_hints Findings Suspects Choice',
    'its packages ask for an environment of their own; it does as `to_openvino`, see `test_runtimes`': 'to_litert',
    'what `test_arguments` is about': 'rules Range Count OneOf Maybe Kind Each Flag checked',
    'what the tests of the command line are about': 'check_hub check_place hub_answers is_downloaded',
    'what other tests are about, in `test_fits` and `test_fixmatch`': 'check_one_class',
    'what estimators begin with, which all refuse bad input; and a set-up of notebooks': 'check_matrix check_labels class_codes '
        'check_inputs check_probs warn_small standardise class_sums principal_components digit_sources',
    'made by a function that looks at its arguments': 'RunsExplorer LabelBrowser Labeler Reviewer',
    'elements of pages': 'key_listener label_style forecast_curve key_button lab_html open_for_screen',
    'parts of `choose_images`': 'joint_features cosine_similarity probe_answers doubt ways few_per_class choose_from',
    'what tests of labelling by hand are about': 'row_name class_keys',
    'what other tests are about': 'advice findings_json wilson_interval fit_warnings train_student alone_in zoo native_size write_demo '
                                  'open_encoded grey_to_8_bits Source register_metric write_report rank train demo '
                                  'next_ Forecast forecast_accuracy get_features write_to_label '
        'bench main parser command commands predict predict_files prepare digits run_digits '
                                  'run_cell run_suite digits_suite '
        'crop_modes interpolations check_geometry height_width fit_image prepare_item ValidView read_transform '
        'read_transforms seen_in_validation per_channel input_channels '
        'all_labels teacher probe_best '
        'best_learner beside_fixmatch labels_last reranked checkpoints check_count check_number check_type check_table '
        'escape_markdown model_fields check_fields strict_json read_graph sketching weight_shapes check_shapes '
        'check_build check_arguments check_student student_args check_args'}

def test_no_entry_is_forgotten():
    mods = [importlib.import_module(o.name) for o in pkgutil.walk_packages(distill_nb.__path__, 'distill_nb.')
            if o.name.rpartition('.')[2] not in ('all','_modidx')]
    public = {n for o in mods for n in getattr(o, '__all__', [])}
    known = {n.partition(',')[0].partition('.')[0] for n in entries} | {n for o in elsewhere.values() for n in o.split()}
    assert not (public - known), f'neither tried nor excused: {sorted(public - known)}'
