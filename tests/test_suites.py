"The eight targets and the paper's, on small stand-ins of their layout"
import io, json, subprocess, sys
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, timm, torch
from PIL import Image
from safetensors.torch import save_file
from distill_nb.cli import main
from distill_nb.packs import load_pack
from distill_nb.deploy import save_student
from distill_nb.student import create_student
from distill_nb.zoo import Zoo
from distill_nb import suites
from distill_nb.bench import *
from distill_nb.compare import ask
from distill_nb.similarity import rank_sources
from distill_nb.suites import *
from distill_nb.teach import Probes, Teach
from distill_nb.teachers import probe_labels

def pack(path, classes=3, n=8, px=40, seed=0):
    r,jpegs = np.random.default_rng(seed),[]
    for i in range(classes*n):
        b = io.BytesIO()
        Image.fromarray((r.normal(60+60*(i%classes), 20, (px,px,3))).clip(0,255).astype(np.uint8)).save(b, 'JPEG')
        jpegs.append(b.getvalue())
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, jpeg=np.frombuffer(b''.join(jpegs), np.uint8), offsets=np.cumsum([0]+[len(j) for j in jpegs]),
             labels=np.arange(classes*n)%classes,
             is_test=np.arange(classes*n) >= classes*(n-2), classes=np.array([f'c{i}' for i in range(classes)]))

def models(folder, **names):
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for i,(name,c) in enumerate(names.items()):
        torch.manual_seed(i)
        save_file(timm.create_model('test_efficientnet', num_classes=c).state_dict(), folder/f'{name}.safetensors')
        manifest[name] = dict(arch='test_efficientnet', kwargs={}, num_classes=c, mean=[.5]*3, std=[.5]*3,
                              interpolation='bilinear', crop_pct=1., input_size=[3,32,32], min_size=32)
    (folder/'manifest.json').write_text(json.dumps(manifest))

@pytest.fixture()
def eight(tmp_path):
    for i,t in enumerate(('aerial','birds')): pack(tmp_path/'data'/'targets'/f'{t}.npz', seed=i)
    models(tmp_path/'data'/'weights', imagenet_lite0=7, inat_birds=5)
    models(tmp_path/'sources', lite0_dogs=4)
    save_student(create_student('test_efficientnet', 6, pretrained=False, stages=3), tmp_path/'sources'/'start.safetensors')
    return tmp_path

def test_eight_at_another_size(eight):
    own,other = (eight_suite(eight/'data', eight/'sources', 'full', size) for size in (None,48))
    assert (own.name,other.name) == ('eight-full','eight-full-48')     # so that no folder holds runs of both
    for s,side in ((own,160),(other,48)): assert s.targets['birds'](5, 0)[0].one_batch()[0].shape[-2:] == (side,side)
    assert eight_suite(eight/'data', eight/'sources', 'full', 160).name == 'eight-full'
    with pytest.raises(ValueError, match='`size`'): eight_suite(eight/'data', eight/'sources', size=0)
    with pytest.raises(SystemExit, match='size.*digits'): main(['bench', 'digits', '--size', '48'])

def test_rates_are_tuned_on_labelled_training_images(eight, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent/'experiments'))
    import tune_eight
    pack(eight/'data'/'targets'/'birds.npz', n=40)
    s,full = (f(eight/'data', eight/'sources', 'full', 48) for f in (tune_eight.suite, eight_suite))
    dls,pool = s.targets['birds']()
    every = full.targets['birds'](.2, 7)
    assert dls.one_batch()[0].shape[-2:] == (48,48) and len(pool) == len(every[1])
    files = lambda items: {bytes(o) for o in items}
    seen = files(dls.train.items) | files(dls.valid.items)
    assert len(seen) == len(dls.train.items) + len(dls.valid.items) and seen == files(every[0].train.items)
    assert len(dls.valid.items) and not seen & (files(pool) | files(every[0].valid.items))

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
@pytest.mark.parametrize('tier', ['small', pytest.param('full', marks=pytest.mark.slow)])
def test_eight_runs_every_method(eight, tier):
    s = eight_suite(eight/'data', eight/'sources', tier, steps=3)
    assert list(s.targets) == ['aerial','birds'] and s.sources.names == ['imagenet_lite0','inat_birds','lite0_dogs'] and s.budgets == (5,.2)
    rows = run_suite(s, eight/'out', targets='birds', budgets=.5, seeds=[0], store=eight/'store', progress=False)
    assert set(rows.method) == set(s.methods) and rows.accuracy.between(0,1).all() and rows.balanced_accuracy.between(0,1).all()
    with pytest.raises(ValueError, match='`tier`'): eight_suite(eight/'data', eight/'sources', 'huge')
    with pytest.raises(FileNotFoundError, match='targets'): eight_suite(eight/'nowhere', eight/'sources')
    alone = eight_suite(eight/'data', None, 'full', steps=3)
    assert alone.sources.names == ['imagenet_lite0','inat_birds']
    (eight/'sources'/'start.safetensors').unlink()
    if tier == 'small':
        with pytest.raises(FileNotFoundError, match='`sources`.*start.safetensors.*make_sources'):
            eight_suite(eight/'data', eight/'sources')

def test_the_small_tier_needs_no_second_folder(eight):
    s = eight_suite(eight/'data', steps=2)
    own = s.sources['imagenet_lite0']
    assert s.name == 'eight-small' and s.sources.names == ['imagenet_lite0','inat_birds']
    assert s.recipe['start'] is own and s.recipe['arch_kwargs'] == dict(stages=4)
    assert 0 <= run_cell(s, 'birds', .5, 0, 'transfer', store=False)['accuracy'] <= 1
    changed = identity_of(s) != identity_of(eight_suite(eight/'data', eight/'sources', steps=2))
    assert changed                                                      # so that no folder holds runs of both

def identity_of(suite): return suite.settings()['digests']['recipe']['start']

@pytest.fixture()
def spread(eight):
    "Targets whose probe is neither always right nor always wrong, and what a run is made of"
    pack(eight/'data'/'targets'/'birds.npz', classes=4, n=20, px=32)
    s = eight_suite(eight/'data', eight/'sources', steps=2)
    dls,pool = s.targets['birds'](2, 0)
    return s,dls,pool,rank_sources(dls, s.sources, times=0, store=False, progress=False),load_pack(eight/'data'/'targets'/'birds.npz')

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
@pytest.mark.parametrize('args', ['', ':p=0', ':teach=Probes(C=1)', ':teach=Probes(C=1)+Hints(.5)'])
def test_the_teacher_is_the_students(spread, args):
    s,dls,pool,rank,birds = spread
    said = ask(s.method(f'teacher{args}'), dict(dls=dls, pool=pool, rank=rank, store=False))
    learn = ask(s.method(f'distill{args}'), dict(dls=dls, pool=pool, rank=rank, store=False, progress=False, epoch_len=4,
                                                 **{k: s.recipe[k] for k in ('arch','arch_kwargs','start')}))
    t = learn.distill.teacher
    t = getattr(t, 'teachers', [t])[0]
    assert torch.allclose(said['pool'], t.probs[:len(pool)], atol=1e-4) and said['test'].shape == (len(dls.valid_ds), 4)
    truth = dict(zip(map(bytes, birds.train[0]), birds.train[1]))
    right = np.mean([truth[bytes(o)] == p for o,p in zip(pool, said['pool'].argmax(1).numpy())])
    row = run_cell(s, 'birds', 2, 0, f'teacher{args}', store=False)
    assert row['pool_accuracy'] == pytest.approx(right)
    assert row['accuracy'] == pytest.approx((said['test'].argmax(1).numpy() == birds.test[1]).mean())

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
def test_the_teacher_has_the_defaults_of_distill(spread, monkeypatch):
    "A better default teaches the student and is marked, without a change here"
    s,dls,pool,rank,_ = spread
    asked = []
    def other(dls, pool, rank, p=0., norm=None, top=2, min_weight=.01, teach=Probes(C=3.)): pass
    monkeypatch.setattr(suites, 'distill', other)
    monkeypatch.setattr(Teach, 'answers', lambda *args, **kw: asked.append(args) or torch.ones(len(args[-1]), 4))
    run_cell(s, 'birds', 2, 0, 'teacher', store=False)
    (teach,sources,_,images,test),about_pool = asked
    assert teach.C == 3 and len(sources) == 2 and list(sources.alpha) == [.5,.5]
    assert len(images) == len(pool) + len(dls.train.items) and len(test) == len(dls.valid_ds)
    assert len(about_pool) == 4 # the pool alone

def test_a_teacher_of_other_classes_is_refused(spread):
    with pytest.raises(ValueError, match='`teach`: SourceClasses.*does not teach'):
        run_cell(spread[0], 'birds', 2, 0, 'teacher:teach=SourceClasses()', store=False)

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
def test_the_best_source_with_a_probe(spread):
    s,dls,_,rank,birds = spread
    said = probe_labels([rank.best], [1.], dls, dls.valid_ds.items, store=False, progress=False)
    row = run_cell(s, 'birds', 2, 0, 'probe_best', store=False)
    assert row['accuracy'] == pytest.approx((said.argmax(1).numpy() == birds.test[1]).mean()) and 'pool_accuracy' not in row
    assert row['valid_loss'] == pytest.approx(-np.log(said.numpy()[range(len(said)), birds.test[1]]).mean(), rel=1e-3)

def test_all_labels_are_those_of_every_training_image(eight):
    "As many steps as the others, as many images in a batch as distillation, and none of the test set"
    pack(eight/'data'/'targets'/'birds.npz', n=40)
    s,seen = eight_suite(eight/'data', eight/'sources', 'full', steps=3),{}
    s.recipe.update(bs_u=48)
    def spy(name, f):
        @wraps(f)
        def method(**kw):
            learn = f(**kw)
            files = [bytes(o) for o in getattr(learn.dls.train.dataset, 'dataset', learn.dls.train.dataset).items]
            seen[name] = SimpleNamespace(steps=len(learn.dls.train), bs=learn.dls.train.bs, files=set(files),
                                         valid={bytes(o) for o in learn.dls.valid.items})
            return learn
        return method
    s.methods = {m: spy(m, f) for m,f in eight_methods.items() if m in ('all_labels','transfer')}
    rows = [run_cell(s, 'birds', .5, 0, m, store=False) for m in s.methods]
    every,few = seen['all_labels'],seen['transfer']
    _,pool = s.targets['birds'](.5, 0)
    birds = load_pack(eight/'data'/'targets'/'birds.npz')
    assert every.files == {bytes(o) for o in birds.train[0]} and every.valid == few.valid == {bytes(o) for o in birds.test[0]}
    assert few.files < every.files and few.files | {bytes(o) for o in pool} == every.files
    assert every.steps == few.steps == 3 and (every.bs,few.bs) == (32+48,32)
    assert [(r['method'],r['budget']) for r in rows] == [(m,.5) for m in s.methods]

def test_cli(eight, tmp_path):
    cmd = [sys.executable, '-c', 'from distill_nb.cli import main; main()', 'bench', 'eight', '--data', eight/'data',
           '--sources', eight/'sources', '--out', tmp_path/'runs', '--store', tmp_path/'store',
           '--targets', 'birds', '--budgets', '0.5', '--seeds', '0', '1', '--methods', 'probe', 'transfer', '--steps', '2']
    p = subprocess.run([str(o) for o in cmd], capture_output=True, text=True, timeout=900)
    assert p.returncode == 0, p.stderr
    assert 'transfer' in p.stdout
    assert len(read_runs(tmp_path/'runs')) == 4 and (tmp_path/'runs'/'table.csv').exists() and (tmp_path/'runs'/'gaps.png').exists()

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
def test_cli_without_a_second_folder(eight, tmp_path, capsys):
    main(['bench', 'eight', '--data', str(eight/'data'), '--sources', 'none', '--out', str(tmp_path/'runs'),
          '--store', str(tmp_path/'store'), '--targets', 'birds', '--budgets', '0.5', '--seeds', '0',
          '--methods', 'probe_best', 'teacher', '--steps', '2'])
    rows = read_runs(tmp_path/'runs')
    assert 'teacher' in capsys.readouterr().out and list(rows.method) == ['probe_best','teacher']
    assert rows.pool_accuracy.notna().tolist() == [False,True]

@pytest.mark.filterwarnings('ignore::distill_nb.estimators.core.SmallProbeWarning')
@pytest.mark.filterwarnings('ignore:.*validation images are in the pool')
def test_paper_suite_on_stand_ins(tmp_path):
    import torchvision
    from test_tasks import make_eurosat, make_oxford_pets
    make_eurosat(tmp_path/'data'/'eurosat')
    make_oxford_pets(tmp_path/'data'/'oxford_pets')
    (tmp_path/'bank'/'resnet18').mkdir(parents=True)
    for i,(t,c) in enumerate(dict(cifar10=10, oxford_pets=37).items()):
        torch.manual_seed(i)
        torch.save(torchvision.models.resnet18(num_classes=c).state_dict(), tmp_path/'bank'/'resnet18'/f'resnet18_{t}.pth')
    models(tmp_path/'start', start=6)
    s = paper_suite(tmp_path/'data', tmp_path/'bank', start=Zoo.checkpoints(tmp_path/'start')['start'], steps=2)
    assert set(s.zoo('eurosat').names) == {'resnet18.cifar10','resnet18.oxford_pets'}
    assert s.zoo('oxford_pets').names == ['resnet18.cifar10']   # never the target's own
    assert set(s.settings()['sources']) == {'resnet18.cifar10','resnet18.oxford_pets'}
    rows = run_suite(s, tmp_path/'out', targets='eurosat', budgets=.5, seeds=[0], methods=['probe','weighted'],
                     store=tmp_path/'store', progress=False)
    assert set(rows.method) == {'probe','weighted'}
