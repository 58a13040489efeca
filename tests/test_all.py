"What `from distill_nb.all import *` brings"
import importlib

def test_all_hides_nothing_of_fastai_and_nothing_twice():
    import fastai.vision.all as fastai_all
    mods = ('data labeled tasks sources catalogue outputs similarity weights distill fixmatch recipe learner quality advice calibrate '
            'folds deploy export runtimes publish plots report train demo bench suites').split()
    names = [n for m in mods for n in importlib.import_module(f'distill_nb.{m}').__all__]
    assert [n for n in names if hasattr(fastai_all, n) and getattr(fastai_all, n).__module__.startswith('fastai')] == []
    assert [n for n in names if names.count(n) > 1] == []
    space = {}
    exec('from distill_nb.all import *', space)
    assert not [n for n in names if n not in space]
    assert {'ImageDataLoaders','load_task','Zoo','rank_sources','distill_learner','nearest_learner','transfer_learner',
            'compare','to_onnx','suggested_lr','write_report','train_student'} <= set(space)
