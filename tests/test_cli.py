"""The command line: every mistake is reported in one line, before anything expensive runs; the folder of a run holds its complete history,
that of an interrupted one included."""
import argparse, csv, json, shlex, shutil, signal, subprocess, sys, time
from functools import partial, wraps
from importlib import resources
import pytest
from PIL import Image
from distill_nb import cli, demo, networks, outputs
from distill_nb.cli import main
from distill_nb.items import image_items, item_labels
from distill_nb.packs import digits_dls
from distill_nb.teach import Probes
from distill_nb.learner import distill_learner
from distill_nb.resume import Resume
from distill_nb.sources import Source
from distill_nb.zoo import Zoo
import distill_nb.forecast, distill_nb.suspects, distill_nb.to_label # before anything is replaced in the modules that they import from
import distill_nb.bench, distill_nb.choose, distill_nb.learner

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Two digits in folders, a pool of ten, a zoo of two, and folders and files with mistakes"
    root = tmp_path_factory.mktemp('files')
    dls,pool = digits_dls(n=12, seed=0)
    for i,(im,y) in enumerate(zip(image_items(dls), item_labels(dls))):
        if y < 2:
            (root/'labeled'/f'class{y}').mkdir(parents=True, exist_ok=True)
            Image.fromarray(im).save(root/'labeled'/f'class{y}'/f'{i}.png')
    for name in ('unlabeled','empty','eight/targets'): (root/name).mkdir(parents=True)
    for i,im in enumerate(pool[:10]): Image.fromarray(im).save(root/'unlabeled'/f'{i}.png')
    zoo = resources.files('distill_nb')/'zoo'
    (root/'zoo').mkdir()
    entries = json.loads((zoo/'manifest.json').read_text())
    (root/'zoo'/'manifest.json').write_text(json.dumps({k: entries[k] for k in ('digits','objects')}))
    for k in ('digits','objects'): shutil.copy(zoo/f'{k}.safetensors', root/'zoo')
    shutil.copytree(root/'zoo', root/'eight'/'weights')
    (root/'eight'/'targets'/'a.npz').write_bytes(b'')
    (root/'notes.txt').write_text('a file')
    shutil.copytree(root/'labeled', root/'loose')
    shutil.copy(root/'unlabeled'/'0.png', root/'loose'/'sheet.png')
    for o in ('train','valid'): shutil.copytree(root/'labeled', root/'splits'/o)
    shutil.copytree(root/'labeled', root/'more')
    shutil.copytree(root/'labeled'/'class0', root/'more'/'class9')
    shutil.copytree(root/'unlabeled', root/'broken')
    (root/'broken'/'x.jpg').write_bytes(b'not a picture')
    (root/'broken'/'y.png').write_bytes((root/'unlabeled'/'1.png').read_bytes()[:60])
    return root

def train(root, out, *more, labeled='labeled', unlabeled='unlabeled', epochs=3):
    return ['train', str(root/labeled), str(root/unlabeled), str(root/'zoo'), '--start', 'objects', '--size', '32', '--bs', '4',
            '--epochs', str(epochs), '--valid', '.5', '--out', str(out), '--store', str(root/'store'), *more]

def ends(argv, capsys):
    "Exit code, and what was written to the error stream"
    capsys.readouterr()
    code,said = 0,''
    try: main([str(o) for o in argv])
    except SystemExit as e: code,said = (e.code,'') if isinstance(e.code, int) else (1,f'{e.code}\n')
    return code,capsys.readouterr().err + said

def refused(argv, capsys, *words, late=False):
    "The one line of an error, which has all of `words`; a late one comes after lines that tell what was begun"
    code,said = ends(argv, capsys)
    if late: said = said.splitlines(keepends=True)[-1]
    assert code in (1,2) and said.count('\n') == 1 and said.startswith(f'distill_nb {argv[0]}: error: ') and 'Traceback' not in said, said
    assert all(w in said for w in words), (words, said)
    return said

def rows(out):
    with open(out/'log.csv', encoding='utf-8') as f: return list(csv.DictReader(f))

# Every option

numbers = ['x','','nan','1.5','-1','99999999999999999999']
shares = ['x','nan','-0.1','inf','1e400']
ranked = dict(
    metric=['ckaa'],
    probe=['2',*numbers],
    halving=['0',*numbers],
    size=['0','100000',*numbers],
    source_size=['0',*numbers],
    store=['{}/notes.txt','{}/notes.txt/deeper'],
    seed=numbers,
    json=[('--json=1',)],
    label=['kind'],
    path=['file'],
    device=['gpu','tpu:0','cuda:x','cpu:1',''],
    quiet=[('--quiet=1',)],
    skip_broken=[('--skip-broken=1',)])
asked = {k: v for k,v in ranked.items() if k not in ('metric','probe','halving','size')}
labeled = ['{}/nowhere','{}/empty','{}/notes.txt','{}/loose','{}/unlabeled']
zoos = ['{}/nowhere','{}/empty','{}/notes.txt','resnet5o','*resnot*','','digits.json','resnet18.no_such_tag']
long = '{}/' + 'x'*300
bad = {
    'demo': dict(out=['{}/notes.txt','{}/notes.txt/deeper'], seeds=['0',*numbers]),
    'zoo': dict(size=['tiny','0','1000',''], domain=['cats','']),
    'next': dict(labeled=[*labeled,'{0}/labeled,{0}/nowhere'], unlabeled=['{}/nowhere','{}/empty','{}/notes.txt','{}/broken'], zoo=zoos,
                 n=['0',*numbers], out=['{}/notes.txt','{}/notes.txt/deeper','{}/unlabeled'], force=[('--force=1',)], **asked),
    'rank': dict(labeled=labeled, zoo=zoos, csv=['{}/empty','{}/notes.txt/x.csv',long], out=['{}/notes.txt','{}/notes.txt/deeper'],
                 **ranked),
    'train': dict(
        labeled=[*labeled,'{}/broken'],
        unlabeled=['{}/nowhere','{}/empty','{}/notes.txt','{}/broken'],
        zoo=zoos,
        arch=['resnet5o','','resnet18.no_such_tag','resnet18'],
        stages=['0','9',*numbers],
        start=['nowhere','{}/notes.txt'],
        scratch=[('--scratch','--start','objects')],
        out=['{}/notes.txt','{}/notes.txt/deeper',long],
        force=[('--force=1',)],
        pseudo=['probes'],
        p=['x','nan','-1'],
        lam=['1.1',*shares],
        temperature=['0','1e-300','1e20',*shares],
        top=['0','3',*numbers],
        epochs=['0',*numbers],
        lr=['0',*shares],
        bs=['0','1',*numbers],
        valid=['{}/nowhere','{}/empty','{}/notes.txt','{}/more','0','.6','1','1.5','-0.2','nan','x',''],
        folds=['1',*numbers],
        no_baselines=[('--no-baselines=1',)],
        live=[('--live',)],
        **ranked),
    'predict': dict(
        student=['{}/nowhere.onnx','{}/notes.txt','{}/empty'],
        folder=['{}/nowhere','{}/empty','{}/notes.txt'],
        csv=['{}/empty','{}/notes.txt/x.csv'],
        min_prob=['2',*shares],
        top=['0','3',*numbers],
        threads=['0','x','1.5','-1'],
        json=[('--json=1',)],
        quiet=[('--quiet=1',)]),
    'bench': dict(
        suite=['nine','eight'],
        tier=['tiny'],
        size=['64','8',*numbers],
        data=[('eight','--data','{}/nowhere')],
        sources=[('eight','--data','{}/eight','--sources','{}/nowhere')],
        out=['{}/notes.txt','{}/notes.txt/deeper'],
        targets=['cats'],
        methods=['magic','weighted:3','weighted:p='],
        seeds=numbers,
        budgets=['0','2.5','x','nan','inf','-1'],
        steps=['0',*numbers],
        reference=['magic'],
        jobs=['0',*numbers],
        store=['{}/notes.txt']),
}
least = {'demo': [], 'zoo': [], 'next': ['none','b','c'],
         'rank': ['a','b'], 'train': ['a','b','c'], 'predict': ['a','b'], 'bench': ['digits']} # the least that a line needs

def subparsers():
    "Name -> parser of each command"
    return next(a for a in cli.parser()._actions if a.dest == 'command').choices

def actions(command):
    "Name -> option of a command, without fastcore's hidden ones"
    return {a.dest: a for a in subparsers()[command]._actions if a.dest != 'help' and a.help != argparse.SUPPRESS}

@pytest.mark.parametrize('command', bad)
def test_no_option_is_left_out(command): assert set(bad[command]) == set(actions(command))
def test_no_command_is_left_out(): assert set(bad) == set(subparsers()) == set(cli.commands)
def test_every_option_has_a_help_text(): assert not [(c,d) for c in bad for d,a in actions(c).items() if not a.help]

def test_predict_has_the_options_of_infer():
    from distill_nb.infer import parser
    alone = {a.dest: a for a in parser()._actions if a.dest != 'help'}
    assert {k: a.default for k,a in actions('predict').items()} == {k: a.default for k,a in alone.items()}

def test_options_are_spelt_as_before():
    "A name of an option is the name of the parameter, with hyphens"
    for c in bad: assert all(not a.option_strings or a.option_strings == [f"--{d.replace('_', '-')}"] for d,a in actions(c).items())

@pytest.fixture(scope='module')
def student(files, tmp_path_factory):
    "A run that has ended"
    out = tmp_path_factory.mktemp('out')/'run'
    main(train(files, out))
    return out

def typed(*args):
    "What `distill_nb ARGS` prints in a process of its own: exit code, stdout, stderr"
    line = [sys.executable, '-c', 'from distill_nb.cli import main; main()', *map(str, args)]
    run = subprocess.run(line, capture_output=True, text=True)
    return run.returncode,run.stdout,run.stderr

def test_predict_measures_on_a_folder_of_classes(files, student, tmp_path):
    "From the folder of a run: answers on the screen, the accuracy beside them, or both in one JSON object"
    code,out,err = typed('predict', student, files/'labeled')
    rows = list(csv.DictReader(out.splitlines()))
    right = sum(r['label'] in r['file'].split('/')[-2] for r in rows)
    assert code == 0 and len(rows) == 24 and err.startswith(f'24 images, 24 answered\naccuracy {right/24:.4f}, between 0.'), err
    assert [l.split()[0] for l in err.splitlines()[2:]] == ['class','class0','class1']
    code,out,err = typed('predict', student, files/'labeled', '--json', '--csv', tmp_path/'a.csv')
    told = json.loads(out)
    assert (code, err, len(rows)) == (0, '', len((tmp_path/'a.csv').read_text().splitlines())-1) and 'answers' not in told
    m = told['measured']
    assert m['right'] == right and sum(o['images'] for o in m['classes'].values()) == 24 and m['low'] < m['accuracy'] <= m['high']
    assert json.loads(typed('predict', student/'student.onnx', files/'labeled', '--json')[1])['answers'][0]['file'] == rows[0]['file']

def test_predict_says_which_folders_are_no_classes(files, student):
    code,out,err = typed('predict', student, files/'more')
    assert code == 0 and len(out.splitlines()) == 37 and "no accuracy: class9 is not among the student's classes, class0, class1" in err
    assert json.loads(typed('predict', student, files/'more', '--json')[1])['not_classes'] == ['class9']

def test_predict_on_one_image_and_quietly(files, student):
    code,out,err = typed('predict', student, files/'unlabeled'/'0.png', '--quiet')
    assert (code, err) == (0, '') and len(out.splitlines()) == 2
    code,out,err = typed('predict', student, files/'broken', '--quiet')
    assert (code, err) == (0, '') and out.count('cannot be read') == 2 and len(out.splitlines()) == 13
    code,out,err = typed('predict', files/'empty', files/'unlabeled')
    assert code == 1 and not out and err.count('\n') == 1 and 'student.onnx' in err

@pytest.mark.parametrize('command,dest', [(c,d) for c,o in bad.items() for d in o])
def test_bad_values(files, student, command, dest, capsys, monkeypatch, tmp_path):
    "One line that says which argument it is; no source has looked at anything by then"
    def ran(*args, **kwargs): raise AssertionError('too late')
    expensive = (outputs,'compute_outputs'),(distill_nb.learner,'compute_outputs'),(demo,'run_digits'),(distill_nb.bench,'run_cell')
    expensive += (distill_nb.choose,'choose_images'),
    for module,name in expensive: monkeypatch.setattr(module, name, ran)
    monkeypatch.setattr(networks, 'hub_answers', lambda *a: False)
    monkeypatch.setattr(networks, 'is_downloaded', lambda arch: False)
    monkeypatch.delenv('DISTILL_NB_DATA', raising=False)
    place,out = actions(command)[dest],tmp_path/'out'
    good = {'demo': [], 'next': [], 'rank': [f'{files}/labeled', f'{files}/zoo'], 'train': train(files, out)[1:],
            'predict': [f'{student}/student.onnx', f'{files}/unlabeled'], 'bench': ['digits'], 'zoo': []}[command]
    if command == 'next': good = [f'{files}/labeled', f'{files}/unlabeled', f'{files}/zoo']
    if command in ('demo','bench','next'): good += ['--out', str(out)]
    if dest == 'arch': good = [o for o in good if o not in ('--start','objects')]
    for v in bad[command][dest]:
        value = [o.format(files) for o in (v if isinstance(v, tuple) else [v])]
        argv = list(good)
        if isinstance(v, tuple): argv = value + argv[1:] if value[0] == 'eight' else argv + value
        elif place.option_strings: argv += [f'{place.option_strings[0]}={value[0]}']
        else: argv[[d for d,a in actions(command).items() if not a.option_strings].index(dest)] = value[0]
        start = time.perf_counter()
        said = refused([command, *argv], capsys)
        assert 'too late' not in said and 'Source.' not in said and time.perf_counter()-start < 5, said
        assert not (out/'student.safetensors').exists() and not (out/'run.json').exists() or dest == 'metric', said

errors = [OSError(28, 'No space left on device', 'x'), MemoryError(), ImportError('needs an extra:\npip install x'),
          RuntimeError('two\nlines'), KeyError("no source 'x'"), ZeroDivisionError('1/0'),
          UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'), AttributeError()]

def raising(command, error):
    "A command with the same options that raises `error`"
    @wraps(cli.commands[command])
    def f(**kwargs): raise error
    return f

@pytest.mark.parametrize('error', errors, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('command', bad)
def test_any_error_is_one_line(command, error, files, capsys, monkeypatch):
    monkeypatch.setitem(cli.commands, command, raising(command, error))
    argv = least[command]
    said = refused([command, *argv], capsys)
    assert '\\n' not in said and '"no source' not in said
    monkeypatch.setenv('DISTILL_NB_TRACEBACK', '1')
    with pytest.raises(type(error)): main([command, *argv])

@pytest.mark.parametrize('command', bad)
def test_interrupted(command, capsys, monkeypatch):
    monkeypatch.setitem(cli.commands, command, raising(command, KeyboardInterrupt))
    code,said = ends([command, *least[command], *['--force']*(command == 'train')], capsys)
    assert code == 130 and said.strip().count('\n') == 0 and said.strip().startswith(f'distill_nb {command}: stopped')
    assert ('same command' in said) == (command not in ('predict','zoo')) and ('without --force' in said) == (command == 'train')

def test_a_closed_pipe(monkeypatch):
    "141, as of a program that SIGPIPE ends"
    monkeypatch.setitem(cli.commands, 'demo', raising('demo', BrokenPipeError()))
    monkeypatch.setattr(cli.os, 'dup2', lambda *a: None)
    with pytest.raises(SystemExit) as e: main(['demo'])
    assert e.value.code == 141

def test_options_that_exclude_each_other(capsys):
    code,said = ends(['train', 'a', 'b', 'c', '--scratch', '--start', 'x'], capsys)
    assert code == 2 and '--scratch: not allowed with argument --start' in said

# Folders

def test_first_folder_is_the_class(files, tmp_path):
    for i,o in enumerate(sorted((files/'labeled').rglob('*.png'))):
        to = tmp_path/'by_day'/o.parent.name/f'day{i%2}'/o.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(o, to)
    out,by_day = tmp_path/'out',tmp_path/'by_day'
    main(train(files, out, '--valid', str(by_day), labeled=by_day, epochs=1))
    assert [o['class'] for o in json.loads((out/'run.json').read_text())['classes']] == ['class0','class1']

def test_messages_name_what_is_wrong(files, tmp_path, capsys):
    out = tmp_path/'out'
    refused(train(files, out, labeled='loose'), capsys, '`labeled`', 'sheet.png')
    refused(train(files, out, '--valid', str(files/'loose')), capsys, '`valid`', 'sheet.png')
    refused(train(files, out, '--valid', str(files/'more')), capsys, 'class9')
    refused(train(files, out, unlabeled='broken'), capsys, 'x.jpg', '--skip-broken')
    refused(train(files, out, unlabeled='empty'), capsys, '`unlabeled`')
    refused(train(files, out, '--lam', '2'), capsys, '--lam', "'2'")
    refused(train(files, out, '--stages', '7'), capsys, '`stages`')
    assert not out.exists()

def test_broken_images(files, tmp_path, capsys):
    (tmp_path/'pool').mkdir()
    shutil.copytree(files/'unlabeled', tmp_path/'pool'/'good')
    shutil.copy(files/'broken'/'y.png', tmp_path/'pool')                       # its header is right, so that it comes up late
    argv = train(files, tmp_path/'out', unlabeled=tmp_path/'pool', epochs=1)
    refused(argv[:-2] + ['--store', str(tmp_path/'store')], capsys, 'y.png', '--skip-broken', late=True)
    code,said = ends([*argv, '--skip-broken'], capsys)
    assert code == 0 and "note: `unlabeled`: 1 of 11 images" in said, said

@pytest.mark.parametrize('command', ['next','rank','train'])
def test_a_labelled_image_that_cannot_be_read_is_found_first(files, tmp_path, capsys, command):
    labeled = shutil.copytree(files/'labeled', tmp_path/'labeled')
    (labeled/'class0'/'x.jpg').write_bytes(b'not a picture')
    argv = train(files, tmp_path/'out', labeled=labeled) if command == 'train' else ['rank', str(labeled), str(files/'zoo')]
    if command == 'next': argv = next_line(files, labeled, tmp_path/'out')
    refused(argv, capsys, '`labeled`: 1 of 25 images cannot be read', 'x.jpg', '--skip-broken')
    assert not (tmp_path/'out').exists()

def test_parts_are_said(files, tmp_path, capsys):
    argv = train(files, tmp_path/'out', labeled='splits', epochs=1)
    at = argv.index('--valid')
    code,said = ends(argv[:at] + argv[at+2:], capsys)
    assert code == 0 and "learning from the part 'train' (24 images), validating on the part 'valid' (24)" in said

def test_only_the_result_is_printed(files, tmp_path, capsys):
    main([*train(files, tmp_path/'out', '--json', '--quiet', '--no-baselines', epochs=1)])
    out,err = capsys.readouterr()
    found = json.loads(out)
    assert found['candidates'][0]['candidate'] == 'student' and 'left)' not in err and 'distilling' not in err
    main(['rank', str(files/'labeled'), str(files/'zoo'), '--json', '--quiet', '--size', '32', '--store', str(files/'store'),
          '--out', str(tmp_path/'page')])
    out,err = capsys.readouterr()
    assert [o['source'] for o in json.loads(out)['ranking']] == ['digits','objects'] and not err
    assert (tmp_path/'page'/'report.html').stat().st_size > 10000

def test_a_ranking_explains_itself(files, capsys):
    main(['rank', str(files/'labeled'), str(files/'zoo'), '--size', '32', '--store', str(files/'store'), '--device', 'cpu'])
    out = capsys.readouterr().out
    assert 'score: how well it fits the labels' in out and 'carries' in out and 'By size alone' in out or 'labelled images' in out

# What to label next

def next_line(root, labeled, out, *more):
    return ['next', labeled, root/'unlabeled', root/'zoo', '-n', 4, '--out', out, '--store', root/'store', *more]

def test_from_no_label_to_labels(files, tmp_path, capsys):
    "Choose, fill in the table, choose again with its labels and those of a folder, and read what it says for a program"
    out = tmp_path/'next'
    code,said,err = typed(*next_line(files, 'none', out))
    assert code == 0 and 'why' in said and 'Another' not in said and f'{out}/to_label.csv' in said, err
    names = sorted(o.name for o in out.iterdir())
    assert names[-2:] == ['index.html','to_label.csv'] and 1 <= len(names)-2 <= 4 and names[0].startswith('01_')
    again = next(l.strip() for l in said.splitlines() if l.strip().startswith('distill_nb next'))
    assert shlex.split(again)[2] == f'{out}/to_label.csv' and f'--out={out}_2' in again and '--n=4' in again
    with open(out/'to_label.csv', newline='') as f: rows = list(csv.DictReader(f))
    with open(out/'to_label.csv', 'w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows({**o, 'label': f'class{i%2}'} for i,o in enumerate(rows))
    main([str(o) for o in next_line(files, f"{files/'labeled'},{out/'to_label.csv'}", tmp_path/'again', '--json', '--quiet')])
    said,err = capsys.readouterr()
    told = json.loads(said)
    assert not err and told['out'] == str(tmp_path/'again') and told['forecast_words'].startswith('Another 4 labels would bring')
    assert told['forecast']['now'] < told['forecast']['then'] and (tmp_path/'again'/told['chosen'][0]['file']).exists()

@pytest.mark.parametrize('labeled,chosen', [('{own}',True), ('{drawn}',False), ('{drawn},{own}',False)])
def test_labels_of_next_are_chosen_ones(files, tmp_path, monkeypatch, labeled, chosen):
    "Whether the forecast takes the labels for chosen"
    own,asked = tmp_path/'to_label.csv',[]
    with open(own, 'w', newline='') as f:
        csv.writer(f).writerows([('image','label'), *((o, o.parent.name) for o in sorted((files/'labeled').rglob('*.png'))[:4])])
    monkeypatch.setattr(distill_nb.forecast, 'forecast_accuracy', lambda *args, **given: asked.append(given['chosen']))
    main([str(o) for o in next_line(files, labeled.format(own=own, drawn=files/'labeled'), tmp_path/'next', '--quiet')])
    assert asked == [chosen]

def test_a_forecast_or_why_there_is_none(files, tmp_path, capsys):
    few = shutil.copytree(files/'labeled', tmp_path/'few')
    for o in sorted(few.rglob('*.png'))[::2] + sorted(few.rglob('*.png'))[1:18:2]: o.unlink(missing_ok=True)
    main([str(o) for o in next_line(files, few, tmp_path/'a')])
    assert 'too few for a forecast' in capsys.readouterr().out
    main([str(o) for o in next_line(files, files/'labeled', tmp_path/'b')])
    assert 'Another 4 labels would bring' in capsys.readouterr().out

def test_labels_are_not_written_over(files, tmp_path, capsys):
    argv = next_line(files, '-', tmp_path/'next')
    assert ends(argv, capsys)[0] == 0
    before = (tmp_path/'next'/'to_label.csv').read_bytes()
    said = refused(argv, capsys, 'holds images to label already, none of them labelled', '--force')
    assert 'force=True' not in said and (tmp_path/'next'/'to_label.csv').read_bytes() == before
    assert ends([*argv, '--force'], capsys)[0] == 0

# A run's folder

def test_the_whole_history_is_there(student):
    assert [r['epoch'] for r in rows(student)] == ['1','2','3']
    assert all(0 <= float(r['accuracy']) <= 1 and float(r['valid_loss']) > 0 and float(r['distill_loss']) > 0 for r in rows(student))
    run = json.loads((student/'run.json').read_text())
    assert run['arguments']['bs'] == 4 and run['command'].startswith('distill_nb train ') and run['headline'].startswith('The student')
    assert {o['candidate'] for o in run['candidates']} > {'student','fine-tuning','linear probe of the start','teachers together'}
    files = ['log.csv','ranking.csv','report.html','run.json','student.onnx','student.safetensors']
    assert sorted(o.name for o in student.iterdir()) == files

def test_the_command_makes_the_same_run(student, files):
    "Read again, the line of run.json means the same as the line that was typed"
    run = json.loads((student/'run.json').read_text())
    again,typed = (vars(cli.parser().parse_args(o)) for o in (shlex.split(run['command'])[1:], train(files, student)))
    assert again == typed

def test_a_run_that_has_ended_is_left_alone(files, student, capsys, tmp_path):
    out = shutil.copytree(student, tmp_path/'run')
    before = {o.name: o.read_bytes() for o in out.iterdir()}
    refused(train(files, out), capsys, 'has ended', '--force', '--out')
    assert {o.name: o.read_bytes() for o in out.iterdir()} == before
    code,_ = ends(train(files, out, '--force', '--no-baselines', '--lr', '.01', epochs=1), capsys)
    assert code == 0 and len(rows(out)) == 1 and (out/'student.onnx').read_bytes() != before['student.onnx']

@pytest.fixture()
def interrupted(files, tmp_path, capsys, monkeypatch):
    "A run that Ctrl-C ended in its third epoch"
    out,kept = tmp_path/'run',Resume.before_epoch
    def press(self):
        kept(self)
        if self.epoch == 2: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(Resume, 'before_epoch', press)
        code,said = ends(train(files, out), capsys)
    assert code == 130 and said.splitlines()[-1] == 'distill_nb train: stopped; the same command goes on after the last complete epoch'
    return out

def test_goes_on(files, student, interrupted, capsys):
    assert [o.name for o in interrupted.iterdir() if o.is_file()] == ['run.json']
    assert list(json.loads((interrupted/'run.json').read_text())) == ['command','arguments','versions']
    refused(train(files, interrupted, '--lr', '.01', '--source-size', '64'), capsys, '--lr', '--source-size', 'differ', '--force')
    code,said = ends(train(files, interrupted), capsys)
    assert code == 0 and 'note: goes on where it was stopped' in said, said
    assert rows(interrupted) == rows(student) and not (interrupted/'resume').exists()
    assert (interrupted/'student.safetensors').read_bytes() == (student/'student.safetensors').read_bytes()

def test_force_begins_anew(files, interrupted, capsys):
    code,said = ends(train(files, interrupted, '--force', '--lr', '.01', epochs=1), capsys)
    assert code == 0 and 'goes on' not in said and len(rows(interrupted)) == 1

def test_other_data_is_one_line(files, interrupted, capsys, tmp_path):
    pool = shutil.copytree(files/'unlabeled', tmp_path/'pool')
    (pool/'0.png').unlink()
    run = json.loads((interrupted/'run.json').read_text())
    run['arguments']['unlabeled'] = str(pool)
    (interrupted/'run.json').write_text(json.dumps(run))                       # the folder was changed, not the line
    code,said = ends(train(files, interrupted, unlabeled=pool), capsys)
    assert code == 1 and said.splitlines()[-1].startswith('distill_nb train: error: ') and '--force' in said.splitlines()[-1]

# The hub

class Hub:
    "A stand-in for the client of huggingface_hub"
    def __init__(self, answer): self.answer,self.asked = answer,0
    def head(self, url, timeout):
        self.asked += 1
        return self.answer()

def dead(): raise OSError('no route')

@pytest.fixture()
def hub(monkeypatch):
    def _hub(answer):
        res = Hub(answer)
        monkeypatch.setattr(networks, '_answers', {})
        monkeypatch.setattr(networks, 'get_session', lambda: res)
        monkeypatch.setattr(networks, 'try_to_load_from_cache', lambda repo, f, **kw: f if 'resnet34' in repo else None)
        return res
    def download(*args, **kwargs): raise AssertionError('downloads')
    monkeypatch.setattr(networks.timm, 'create_model', download)
    return _hub

@pytest.mark.parametrize('command', ['rank','train'])
def test_no_network(files, hub, capsys, tmp_path, command):
    gone = hub(dead)
    argv = train(files, tmp_path/'out')
    argv[3] = 'resnet18.a1_in1k,resnet50.a1_in1k,resnet34.a1_in1k'
    if command == 'rank': argv = ['rank', argv[1], argv[3]]
    else: argv[4:6] = ['--arch','test_efficientnet']
    own = ['test_efficientnet','--start','--scratch']*(command == 'train')
    said = refused(argv, capsys, 'resnet18.a1_in1k, resnet50.a1_in1k', 'does not answer', "as ZOO a folder", "'embedded'", *own)
    assert 'resnet34' not in said and 'Source' not in said and gone.asked == 1 and not (tmp_path/'out').exists()

def test_the_hub_is_asked_once(hub):
    "For the library as for the command line"
    gone,start = hub(dead),time.perf_counter()
    for s in Zoo.timm('resnet18.a1_in1k','resnet50.a1_in1k'):
        with pytest.raises(RuntimeError, match='does not answer'): s.load()
    with pytest.raises(RuntimeError, match='does not answer'): Source.from_timm('hf-hub:someone/something')
    assert gone.asked == 1 and time.perf_counter()-start < 2

def test_the_hub_is_not_asked_for_what_is_here(hub):
    there = hub(dead)
    networks.check_hub(['resnet34.a1_in1k'])
    networks.check_hub([])
    with pytest.raises(AssertionError, match='downloads'): networks.create_network('resnet34.a1_in1k')
    assert there.asked == 0

def test_a_hub_that_hangs(hub):
    hub(lambda: time.sleep(20))
    start = time.perf_counter()
    assert not networks.hub_answers(seconds=.1) and time.perf_counter()-start < 15

def test_a_download_that_fails(files, hub, capsys, monkeypatch):
    "The hub answers, but the file cannot be downloaded: the advice is for a shell"
    hub(lambda: 200)
    def refuses(*args, **kwargs): raise OSError('404')
    monkeypatch.setattr(networks.timm, 'create_model', refuses)
    said = refused(['rank', str(files/'labeled'), 'resnet18.a1_in1k', '--size', '32'], capsys, 'OSError: 404', 'as ZOO a folder', late=True)
    assert 'Source.' not in said and 'pretrained=' not in said

@pytest.mark.parametrize('answer', [200,403,503])
def test_a_hub_that_answers(hub, answer):
    hub(lambda: answer)
    networks.check_hub(['resnet18.a1_in1k'])

# The library

def test_distill_learner_looks_before_it_ranks(files, monkeypatch):
    def ran(*args, **kwargs): raise AssertionError('too late')
    for name in ('rank_sources','compute_outputs'): monkeypatch.setattr(distill_nb.learner, name, ran)
    dls,pool = digits_dls(n=2, seed=0)
    good = dict(dls=dls, unlabeled=pool[:4], sources=Zoo.embedded(names=['digits','objects']), arch='test_efficientnet', pretrained=False,
                progress=False, store=False)
    wrong = [dict(unlabeled=files/'empty'), dict(unlabeled=files/'nowhere'), dict(unlabeled=[]), dict(ema=2),
             dict(bs_u=0), dict(p=-1), dict(p=float('nan')), dict(lam=2), dict(teach='all'), dict(teach=None),
             dict(teach=Probes(views=('upside',)))]
    for kw in wrong:
        with pytest.raises((ValueError,TypeError)): distill_learner(**{**good, **kw})

# In a process of its own, as a person has it

def in_terminal(*argv, **kwargs):
    "The command line in a process, which hears Ctrl-C even where the tests do not, as in the background of a shell"
    line = [sys.executable, '-W', 'ignore', '-c', 'from distill_nb.cli import main; main()', *map(str, argv)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard, **kwargs)

def test_ctrl_c_in_a_terminal_and_on(files, tmp_path):
    "Ctrl-C while it trains ends in one line and exit code 130; the same command goes on, and predicts"
    argv = train(files, tmp_path/'run', '--no-baselines', epochs=30)
    p = in_terminal(*argv, cwd=tmp_path)
    said = []
    for line in p.stderr:
        said.append(line)
        if 'for the whole run' in line: break                                  # an epoch has ended
    time.sleep(.3)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=120)
    assert p.returncode == 130, (said, err)
    assert err.strip().splitlines()[-1] == 'distill_nb train: stopped; the same command goes on after the last complete epoch' and not out
    p = in_terminal(*argv, cwd=tmp_path)
    out,err = p.communicate(timeout=300)
    assert p.returncode == 0 and 'goes on where it was stopped' in err and out.strip().startswith('The student is right on'), err
    assert 'What to try next:' in out and str(tmp_path/'run'/'report.html') in out
    p = in_terminal('predict', tmp_path/'run', files/'labeled', cwd=tmp_path)
    out,err = p.communicate(timeout=60)
    assert p.returncode == 0 and 'accuracy 1.0000, between' in err and 'class0/' in out, (out, err)
