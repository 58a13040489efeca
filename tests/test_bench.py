"Benches: killed and restarted, failing cells, foreign settings, any string as a name"
import json, signal, subprocess, sys, time
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, pytest
from distill_nb import bench
from distill_nb.bench import *
from distill_nb.zoo import Zoo
from fastai.vision.all import Callback, GradientClip, RMSProp

@pytest.fixture()
def quick():
    s = digits_suite()
    s.recipe.update(n_epoch=1, epoch_len=25)
    return s

script = """
import sys
from distill_nb.zoo import Zoo
from distill_nb.bench import *
s = digits_suite(); s.recipe.update(n_epoch=1, epoch_len=25)
run_suite(s, sys.argv[1], methods=['probe','transfer','scratch'], store=sys.argv[2], progress=False)
"""

def test_killed_and_restarted(quick, tmp_path):
    p = subprocess.Popen([sys.executable, '-c', script, tmp_path/'out', tmp_path/'store'], stderr=subprocess.DEVNULL)
    runs,end = tmp_path/'out'/'runs.csv',time.time()+300
    while not runs.exists() and time.time() < end: time.sleep(.05)
    time.sleep(.3)
    p.send_signal(signal.SIGKILL)
    p.wait()
    first = read_runs(tmp_path/'out')
    assert 1 <= len(first) < 9                                                        # killed on the way, and what is there is whole
    rows = run_suite(quick, tmp_path/'out', methods=['probe','transfer','scratch'], store=tmp_path/'store', progress=False)
    assert len(rows) == 9 and not rows.duplicated(['target','budget','seed','method']).any()
    pd.testing.assert_frame_equal(rows.iloc[:len(first)].reset_index(drop=True), first)   # not made again: even the seconds are the same
    assert not [p for p in (tmp_path/'out').iterdir() if p.name.startswith('.tmp')]

def test_a_cell_is_repeated_by_its_coordinates(quick, tmp_path):
    cell = dict(target='digits', budget=5, seed=1, method='transfer')
    a,b = (run_cell(quick, **cell, store=tmp_path) for _ in range(2))
    assert {k: v for k,v in a.items() if k != 'seconds'} == {k: v for k,v in b.items() if k != 'seconds'}

def test_processes_give_the_same(quick, tmp_path):
    kw = dict(methods=['probe','transfer'], seeds=[0], store=tmp_path/'store', progress=False)
    one,two = run_suite(quick, tmp_path/'a', **kw),run_suite(quick, tmp_path/'b', n_jobs=2, **kw)
    acc = lambda r: r.set_index('method').accuracy.sort_index()
    np.testing.assert_allclose(acc(one), acc(two), atol=.02)

def test_settings_are_kept_apart(quick, tmp_path):
    run_suite(quick, tmp_path/'out', methods=['probe'], seeds=[0], store=tmp_path/'store', progress=False)
    quick.methods['late'] = quick.methods['transfer']                # a method that comes later changes nothing,
    run_suite(quick, tmp_path/'out', methods=['probe'], seeds=[0], store=tmp_path/'store', progress=False)
    late = quick.methods.pop('late')
    quick.recipe['lr'] = {m: 1e-3 for m in quick.methods}             # nor does it where every method has its own rate
    run_suite(quick, tmp_path/'rates', methods=['probe'], seeds=[0], store=tmp_path/'store', progress=False)
    quick.methods['late'] = late
    quick.recipe['lr'] = {m: 1e-3 for m in quick.methods}
    run_suite(quick, tmp_path/'rates', methods=['probe'], seeds=[0], store=tmp_path/'store', progress=False)
    with pytest.raises(ValueError, match=r'`rates` \(\w+\).*differ'):
        quick.recipe['lr'] = {m: 1e-2 for m in quick.methods}
        run_suite(quick, tmp_path/'rates', progress=False)
    quick.recipe['lr'] = digits_suite().recipe['lr']
    quick.methods['equal'] = partial(quick.methods['equal'], lam=.1)                                      # one that changes is refused
    with pytest.raises(ValueError, match=r'`methods` \(equal\) differ'): run_suite(quick, tmp_path/'out', progress=False)
    quick.methods = digits_suite().methods
    quick.metric = 'parc'
    with pytest.raises(ValueError, match='`metric` differ.*suite.json'): run_suite(quick, tmp_path/'out', progress=False)

def test_variants_are_methods(quick, tmp_path):
    rows = run_suite(quick, tmp_path, methods=['weighted','weighted:lam=1','transfer'], seeds=[0], store=tmp_path/'store', progress=False)
    acc = rows.set_index('method').accuracy
    assert acc['weighted:lam=1'] == acc['transfer']
    assert set(suite_table(rows).index.get_level_values(1)) == {'weighted','weighted:lam=1','transfer'}
    with pytest.warns(UserWarning, match='nonsense'):
        run_suite(quick, tmp_path, methods='weighted:nonsense=1', seeds=[0], store=tmp_path/'store', progress=False)
    with pytest.raises(ValueError, match='no magic:p=1'): run_suite(quick, tmp_path, methods='magic:p=1', progress=False)

def test_table_pairs_what_both_have():
    rows = pd.DataFrame([dict(target=t, budget=5, seed=s, method=m, accuracy=a) for t,s,m,a in
                         [('x',0,'transfer',.5),('x',1,'transfer',.6),('x',0,'other',.7),('y',0,'transfer',.1),
                          ('y',1,'transfer',.1),('y',1,'other',.2)]])
    t = suite_table(rows)
    assert t.loc[(5,'other'),'runs'] == 2 and np.isclose(t.loc[(5,'other'),'gap'], .15)
    assert np.isnan(t.loc[(5,'other'),'gap_sem'])                                     # one seed each: no error to be had
    assert target_table(rows).loc[(5,'transfer'),'x'] == .55

def references(**acc):
    "Runs of one budget; `acc`: target -> accuracies of transfer, distill, teacher"
    return pd.DataFrame([dict(target=t, budget=.2, seed=s, method=m, accuracy=a[i][s]) for t,a in acc.items()
                         for i,m in enumerate(('transfer','distill','teacher')) for s in range(len(a[i]))])

def test_kept_is_a_share_of_the_way():
    rows = references(x=([.4,.5], [.5,.6], [.6,.7]), y=([.8,.7], [.6,.5], [.809,.709]))
    t = kept_table(rows, references='teacher').loc[(.2,'teacher')]
    assert np.isclose(t.x, .5) and np.isnan(t.y)                       # nothing to keep on y: nine tenths of a point are noise,
    assert np.isclose(t['mean'], (.1-.2)/(.2+.009)) and t['sem'] < 1e-9  # but what is lost there counts
    assert np.isclose(kept_table(rows, references='teacher', least=.005).loc[(.2,'teacher'),'y'], -.2/.009)
    lower = kept_table(rows, method='teacher', references='distill', least=0).loc[(.2,'distill')]
    assert np.isnan(lower['mean']) and np.isnan(lower.y) and np.isclose(lower.x, 2)   # a reference below the start is none

def test_kept_has_the_error_of_its_seeds():
    rows = references(x=([.4,.4,.4], [.5,.6,.7], [.8,.8,.8]), y=([.1,.1,.1], [.3,.3,.3], [.5,.5,.5]))
    t = kept_table(rows, references='teacher').loc[(.2,'teacher')]
    assert np.isclose(t['mean'], .5) and np.isclose(t['sem'], .1/3**.5/2/.4)
    rows = rows[~((rows.method == 'teacher') & (rows.seed == 2))]       # a run without its reference does not count
    assert np.isclose(kept_table(rows, references='teacher').loc[(.2,'teacher'),'x'], .15/.4)
    assert list(kept_table(rows).index) == [(.2,'teacher')]             # the other reference has not run
    for kw in (dict(references='all_labels'), dict(method='weighted'), dict(start='probe')):
        with pytest.raises(ValueError, match='`references`: none of .* has run beside'): kept_table(rows, **kw)

# Names and settings, without any training

@pytest.fixture()
def untrained(monkeypatch):
    "Runs cost nothing, and are counted"
    made = []
    def run(suite, target, budget, seed, method, store=None, threads=None):
        made.append((target, budget, seed, method))
        return dict(target=target, budget=budget, seed=seed, method=method, accuracy=1/3, valid_loss=float('nan'), seconds=.1)
    monkeypatch.setattr(bench, 'run_cell', run)
    return made

def learner(dls, pool, rank, k=1, **kw): pass
def small(targets=('t',), methods=None, sources=None, metric='cka', **recipe):
    targets = targets if isinstance(targets, dict) else {t: lambda budget, seed: None for t in targets}
    return Suite('s', targets, sources or Zoo.embedded()[:1], methods or dict(transfer=learner), recipe,
                 budgets=(5,.1+.2), seeds=(0,1), metric=metric)

names = ['7','07','NA','nan','None','','1e3','1e400','inf','True','a,b','"',"it's",'a\nb','a\rb','a\r\nb',' a ','a\tb',
         ';','#','é','日本','\u2028','weighted:p=1','a:b',':','-','-3','0.5','1_000','caf\udce9']

def test_any_string_is_a_name(untrained, tmp_path):
    for axis,s in dict(target=small(names), method=small(['t'], {n: learner for n in ('transfer',*names)})).items():
        out,before = tmp_path/axis,len(untrained)
        kw = dict(seeds=[0,1], budgets=.1+.2, progress=False) if axis == 'method' else dict(seeds=1, progress=False)
        first = run_suite(s, out, **kw)
        n = len(untrained)
        again = run_suite(s, out, **kw)
        assert len(untrained) == n and n-before == len(again) == len(first)
        rows = read_runs(out)
        assert set(rows[axis]) - {'transfer'} == set(names)
        assert .1+.2 in set(rows.budget) and 1 in set(rows.seed) and rows.accuracy.eq(1/3).all() and rows.valid_loss.isna().all()
        assert len(suite_table(rows)) and target_table(rows).size == rows.groupby(['target','budget','method']).ngroups
    for bad in ({7: learner}, {None: learner}):
        with pytest.raises(TypeError, match='`targets`.*text'): small(bad)
        with pytest.raises(TypeError, match='`methods`.*text'): small(methods=bad)

class Own(Callback):
    def __init__(self, k): self.k,self.seen = k,0

def scaled(k): return lambda budget, seed: k
def settings(k):
    "Suites that differ in one thing each: what, the suite"
    return {'recipe.*cbs': small(cbs=[GradientClip(k)]), 'recipe.*opt_func': small(opt_func=partial(RMSProp, mom=k)),
            'recipe.*f': small(f=lambda x: x*k), 'recipe.*own': small(own=Own(k)),
            'recipe.*start': small(start=Path(__file__) if k == 1 else Path(bench.__file__)),
            'recipe.*p': small(p=k), 'recipe.*views': small(views=('hflip',)*int(k)),
            'recipe.*more': small(**{'more': 1} if k == 1 else {}), 'rates.*transfer': small(lr=dict(transfer=k)),
            'recipe.*lr': small(lr=k),
            'targets.*t': small(dict(t=scaled(k))), 'sources.*t': small(sources=Zoo.embedded()[:int(k)]),
            'sources': small(sources=lambda t: Zoo.embedded()[:int(k)]), 'metric': small(metric='cka' if k == 1 else 'parc'),
            'methods.*m': small(methods=dict(m=partial(learner, k=k), other=learner)),
            'methods.*f': small(methods=dict(f=(lambda k: lambda *args, **kw: k)(k)))}

@pytest.mark.parametrize('what', settings(1.))
def test_a_changed_setting_is_refused_by_name_and_the_same_is_not(what, untrained, tmp_path):
    run_suite(settings(1.)[what], tmp_path, progress=False)
    n = len(untrained)
    run_suite(settings(1.)[what], tmp_path, progress=False)
    with pytest.raises(ValueError, match=f'holds runs of other settings.*{what}.*differ'):
        run_suite(settings(2.)[what], tmp_path, progress=False)
    assert len(untrained) == n == len(read_runs(tmp_path))
    assert ' at 0x' not in (tmp_path/'suite.json').read_text()

def test_a_method_that_was_left_out_is_still_known(untrained, tmp_path):
    one = lambda k: small(methods=dict(a=partial(learner, k=k), b=learner))
    run_suite(one(1), tmp_path, progress=False)
    run_suite(small(methods=dict(b=learner)), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r'`methods` \(a\) differ'): run_suite(one(2), tmp_path, progress=False)
    run_suite(small(['t','later'], methods=dict(b=learner, c=learner)), tmp_path, progress=False)      # what comes later is welcome

script_settings = """
import sys; sys.path.insert(0, sys.argv[1])
import json, test_bench as t
for k,s in t.settings(1.).items():
    if k != 'recipe.*start': print(json.dumps(s.settings(), sort_keys=True))
"""
def test_settings_are_those_of_another_process(request):
    said = subprocess.run([sys.executable, '-W', 'ignore', '-c', script_settings, request.path.parent],
                          capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [json.dumps(s.settings(), sort_keys=True) for k,s in settings(1.).items() if k != 'recipe.*start']

def test_what_cannot_be_digested_is_refused_before_any_run(untrained, tmp_path):
    with pytest.raises(TypeError, match='`suite`.*recipe.*f.*`key`'): run_suite(small(f=(i for i in range(3))), tmp_path, progress=False)
    assert not untrained

@pytest.mark.parametrize('data', [b'', b'\n', b'a,b\n1,2\n', b'\xff\xfe\n',
                                  b'target,budget,seed,method,accuracy\nt,5,0,transfer,.5\nt,5,1,tra',
                                  b'target,budget,seed,method,accuracy\nt,5,0,transfer\n',
                                  b'target,budget,seed,method,accuracy\nt,five,0,transfer,.5\n',
                                  b'target,budget,seed,method,accuracy\nt,5,0,transfer,.5\n"t,5,1'])
def test_a_broken_table_is_named(data, untrained, tmp_path):
    (tmp_path/'runs.csv').write_bytes(data)
    for use in (lambda: run_suite(small(), tmp_path, progress=False), lambda: read_runs(tmp_path), lambda: read_runs(tmp_path/'runs.csv')):
        with pytest.raises(ValueError, match=r'(?s)the table of runs .*runs\.csv.*cannot be read'): use()
    assert not untrained and (tmp_path/'runs.csv').read_bytes() == data and not (tmp_path/'suite.json').exists()

@pytest.mark.parametrize('data', [b'', b'[]', b'{}', b'{"settings": 3}', b'\xff', b'{"settings": {"digests": []}}', b'{"settings'])
def test_broken_settings_are_named(data, untrained, tmp_path):
    (tmp_path/'suite.json').write_bytes(data)
    with pytest.raises(ValueError, match=r'(?s)the settings of the suite .*suite\.json.*cannot be read'):
        run_suite(small(), tmp_path, progress=False)

def test_files_of_older_versions_can_be_read_but_not_continued(untrained, tmp_path):
    bench = Path(__file__).resolve().parent.parent/'benchmarks'
    for path in bench.glob('*/suite.json'):
        rows = read_runs(path.parent)
        assert len(suite_table(rows)) and json.loads(path.read_text())['settings']['suite']
        assert rows.seed.dtype.kind == 'i' and rows.accuracy.dtype.kind == 'f' and rows.budget.dtype.kind in 'if'
    (tmp_path/'suite.json').write_text((bench/'eight_small'/'suite.json').read_text())
    with pytest.raises(ValueError, match='made by an older version.*read_runs'): run_suite(small(), tmp_path, progress=False)

@pytest.mark.parametrize('method,words', [('distill:teach=Probes(C=-1)', '`C` must be'), ('distill:teach=open("x")', 'name=value'),
    ('weighted:p', 'name=value'), ('weighted:p=1=2', 'name=value'), ('weighted:p=1+x', 'name=value'),
    ('magic', "suite 'digits' has no magic")])
def test_arguments_that_are_none(method, words):
    with pytest.raises(ValueError, match=words): digits_suite().cells(methods=method)
