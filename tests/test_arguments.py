"""Every parameter of every public signature: it has a rule, which refuses all that breaks it; or `test_entries` hands it
what cannot be meant; or there is a reason why anything may be given."""
import importlib, inspect, pkgutil
import pytest
import distill_nb
from distill_nb.core import rules
from test_entries import elsewhere, entries, ours

def public():
    "(name, function) of all that is exported, constructors and public methods included; each once"
    seen = set()
    for o in pkgutil.walk_packages(distill_nb.__path__, 'distill_nb.'):
        if o.name.rpartition('.')[2] in ('all','_modidx'): continue
        mod = importlib.import_module(o.name)
        for n in getattr(mod, '__all__', ()):
            f = getattr(mod, n)
            if id(f) in seen or getattr(f, '__module__', None) != o.name: continue
            seen.add(id(f))
            if inspect.isfunction(f): yield n,f
            if not inspect.isclass(f) or issubclass(f, BaseException): continue
            if '__init__' in vars(f): yield n,f.__init__
            for k,v in vars(f).items():
                # of `classmethod`, and of fastcore's `patch(cls_method=True)`
                v = getattr(v, '__func__', None) or getattr(v, 'f', v)
                if not k.startswith('_') and inspect.isfunction(v): yield f'{n}.{k}',v

functions = dict(public())
ruled = [(n,p) for n,f in functions.items() for p in getattr(f, 'rules', ())]

@pytest.mark.parametrize('name,param', ruled, ids=[f'{n}, {p}' for n,p in ruled])
def test_a_rule_refuses_what_breaks_it(name, param):
    f = functions[name]
    rule,given = f.rules[param],inspect.signature(f).parameters
    first = [None]*(next(iter(given)) in ('self','cls'))
    for case,v in rule.bad.items():
        if v is None and given[param].default is None: continue
        with pytest.raises((ValueError,TypeError), match=f'`{param}` must be') as e: f(*first, **{param: v})
        assert ours(e.value), case

def own(f):
    "Names of the parameters that a function itself takes, without those of `kwargs` and `self`"
    code = inspect.unwrap(f).__code__
    return [n for n in code.co_varnames[:code.co_argcount+code.co_kwonlyargcount] if n not in ('self','cls')]

tried = {} # function -> parameters that `test_entries` hands what cannot be meant
for n,entry in entries.items(): tried.setdefault(n.partition(',')[0], set()).update(entry()[2])
excused = {n for o in elsewhere.values() for n in o.split()}

free = { # why a parameter has neither
    'how an error calls what was given': 'get_images.name labeled_images.name labeled_parts.name opened_as.name pool_images.name '
                                         'load_strict.what Store.drop.why',
    'fastai looks at its own: transforms, data sets, optimizers': 'item_tfms batch_tfms params lr closure',
    'a name, of which those that a table cannot hold are refused (other tests)': 'HandLabels.label.label',
    'looked at by the function that it is handed on to, which is tried': 'Joint.answers.sources Joint.answers.dls Joint.answers.pool '
                                                                         'Joint.answers.asked Joint.answers.store '
                                                                         'Joint.answers.progress Ranking.label.pool '
                                                                         'Ranking.label.path Ranking.label.vocab '
                                                                         'Ranking.label.labeled Zoo.label.path Zoo.label.vocab '
                                                                         'Zoo.label.labeled Ranking.review.path Zoo.review.path '
                                                                         'TargetTeacher.check.dls TargetTeacher.alpha '
                                                                         'SourceClasses.choose.sources '
                                                                         'Both.choose.sources image_dls.valid_items '
                                                                         'image_dls.valid_labels where_kept.dl '
                                                                         'opened_as.items parse_zoo.size '
                                                                         'weigh_sources.dls nearest_learner.arch '
                                                                         'compare.arch compare.start '
                                                                         'create_student.size '
                                                                         'student_learner.arch_kwargs '
                                                                         'Ranking.browse.images Ranking.browse.dls '
        'RankExplorer.learner Ranking.explore.learner Ranking.by.metric preprocessing.size paper_suite.start '
        'few_labels.classes find_classifier.classifier SourceNet.classifier Resume.path quantize_onnx.out to_onnx.path '
        'to_export.path to_openvino.path to_litert.path save_hub.folder Store.path load_student.backbone calibrate.dl',
    'a part of the loss or of a step, handed over by the training': 'softmax_segments.logits distill_loss.logits '
                                                                    'distill_loss.targets distill_loss.alpha '
                                                                    'StoredTeachers.to.device LiveTeachers.to.device '
                                                                    'student z idx weight bias SourceTeacher.to.device '
                                                                    'TargetTeacher.to.device HintTeacher.to.device '
                                                                    'SourceTeacher.loss.features SourceTeacher.loss.x '
                                                                    'TargetTeacher.loss.features TargetTeacher.loss.x '
                                                                    'HintTeacher.loss.features HintTeacher.loss.x '
                                                                    'Teacher.to.device Teacher.loss.features '
                                                                    'Teacher.loss.x PseudoLabels.to.device '
                                                                    'PoolCallback.pool_loss.x Distill.pool_loss.x '
                                                                    'FixMatch.views.x FixMatch.pool_loss.x '
                                                                    'Flex.begin.n_pool Flex.begin.n_out '
                                                                    'Flex.begin.device Free.begin.n_pool '
                                                                    'Free.begin.n_out Free.begin.device Free.extra.strong Free.extra.mask '
        'SourceNet.train.mode SourceNet.forward.x Predictor.run.x Predictor.prepare.item',
    'other tests hand over tables of the wrong length or width': 'Ranking.replicates Ranking.null '
                                                                 'Ranking.check.accuracies Ranking.only.names '
                                                                 'FixMatch.align fixmatch_learner.align PseudoLabels.classes '
                                                                 'held_out_ridge.groups find_suspects.labeled',
    'parts of the store and of the cache, which hand each other what they wrote; their files are fuzzed':
        'Store.folder.source Store.drop.path Store.place.path Store.widths.source Store.widths.outlines '
        'Store.write.source Store.write.keys Store.write.features Store.write.logits Store.write.sizes '
        'Store.index.source Store.read.path Store.rows.source Store.rows.keys '
        'Store.clear.source Store.image_keys.images KeptImages.file.item KeptImages.file.view KeptImages.read.item '
        'KeptImages.read.view KeptImages.write.item KeptImages.write.view KeptImages.write.img KeptImages.keep.item '
        'KeptImages.keep.halves KeptImages.keep.views KeptImages.open.item KeptImages.open.view KeptImages.open.opener '
        'compute_outputs.keep',
    'shown as it is': 'SourceTeacher.names TargetTeacher.names Ranking.failed Ranking.eliminated save_hub.results '
                      'save_hub.title save_hub.license plot_features.classes class_table.vocab plot_confusion.vocab '
                      'plot_candidates.subject',
    'a function or an array of yours, whose own errors say more than ours could': 'replicate_scores.f '
                                                                                  'replicate_scores.xs '
                                                                                  'replicate_scores.scores null_scores.f null_scores.xs',
    'None, true or false, each with a meaning of its own': 'save_hub.onnx SourceNet.mute',
    'a list of names, of which unknown ones are named (other tests)': 'Zoo.timm.exclude Zoo.checkpoints.names '
                                                                      'Zoo.parc.path Zoo.parc.exclude '
                                                                      'plot_suite.methods compare.reference '
                                                                      'Predictor.providers profile.accuracy',
    'a column or a folder of a table, of which unknown ones are named (other tests)':
        'get_images.path get_images.root labeled_images.label labeled_images.path labeled_images.root labeled_parts.label '
        'labeled_parts.path labeled_parts.root',
    'matplotlib and joblib look at their own': 'plot_suite.axs compare.n_jobs',
}
anything = {p for o in free.values() for p in o.split()}

def test_no_parameter_is_left_out():
    left = [f'{n}({p})' for n,f in functions.items() if n.partition('.')[0] not in excused for p in own(f)
            if p not in getattr(f, 'rules', ()) and p not in tried.get(n, ()) and p not in anything and f'{n}.{p}' not in anything]
    assert not left, f'{len(left)}: neither a rule, nor tried, nor excused: ' + ', '.join(left)

def test_no_excuse_is_left_over():
    taken = {p for n,f in functions.items() for p in own(f)}
    assert not (anything - taken - {f'{n}.{p}' for n,f in functions.items()
                                    for p in own(f)}), 'excuses for parameters that there are none of'
    assert not (set(rules) - taken), 'rules for parameters that there are none of'
