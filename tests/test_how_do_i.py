"The page of common tasks: enough of them, short, each with a page behind it; what is not run there calls what exists"
import json, re
from pathlib import Path
import pytest
from guide_code import check_code, instance_of, namespace

root = Path(__file__).resolve().parent.parent
page = root/'nbs'/'guide'/'02_how_do_i.ipynb'
cells = [(c['cell_type'], ''.join(c['source'])) for c in json.loads(page.read_text(encoding='utf-8'))['cells']]
questions = [(s.splitlines()[0].removeprefix('### '), i) for i,(kind,s) in enumerate(cells) if kind == 'markdown' and s.startswith('### ')]
def code_of(i): return cells[i+1][1] if cells[i+1][0] == 'code' and not cells[i+1][1].startswith('#| hide') else ''

def test_at_least_twenty_questions_in_their_groups():
    assert len(questions) >= 20 and len({q for q,_ in questions}) == len(questions)
    groups = [s.removeprefix('## ') for kind,s in cells if kind == 'markdown' and s.startswith('## ')]
    assert groups == ['Sources','Data','Ranking and weights','Training','Labelling','Deploying','Machines']

@pytest.mark.parametrize('question,i', questions, ids=[q for q,_ in questions])
def test_a_question_is_answered_shortly(question, i):
    answer = re.sub(r'```.*?```', '', cells[i][1].partition('\n\n')[2], flags=re.S)
    assert question.endswith('?') and len(re.findall(r'[.?!:](?=\s|$)', re.sub(r'`[^`]*`', '', answer))) <= 5
    links = re.findall(r'\]\(([^)]+\.ipynb)\)', answer)
    assert links and all((page.parent/o).exists() for o in links)
    assert len([l for l in code_of(i).splitlines() if not l.startswith('#|')]) <= 4

unrun = [(q, code_of(i)) for q,i in questions if code_of(i).startswith('#| eval: false')]
@pytest.fixture(scope='module')
def names():
    from fastai.vision.all import DataLoaders, Learner
    ours = namespace()
    data = dict(dls=DataLoaders, pool=list, zoo=ours['Zoo'], rank=ours['Ranking'], learn=Learner, small=dict)
    return ours | {k: instance_of(v) for k,v in data.items()}

@pytest.mark.parametrize('code', [c for _,c in unrun], ids=[q for q,_ in unrun])
def test_what_is_not_run_calls_what_exists(code, names): check_code(code, names)

commands = [l for _,i in questions for block in re.findall(r'```bash\n(.*?)```', cells[i][1], re.S) for l in block.splitlines()]
@pytest.mark.parametrize('line', commands)
def test_a_command_has_its_options(line):
    "Its files are not looked at"
    from distill_nb.cli import parser
    name,*rest = line.split()
    assert name == 'distill_nb' and parser().parse_args(rest).command == rest[0]
    with pytest.raises(SystemExit): parser().parse_args([*rest, '--nothing'])

def test_only_what_needs_hardware_or_a_service_is_not_run():
    assert len(unrun) <= 7 and len(unrun) < len(questions)/4
