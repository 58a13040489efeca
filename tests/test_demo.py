"The demonstration: what it leaves, and what it refuses before anything runs"
import inspect, re, shlex
import numpy as np, pytest, timm
from browser import faults_on_a_phone
from distill_nb.cli import parser
from distill_nb.compare import Comparison
from distill_nb.demo import demo, own_images, run_digits, write_demo
from distill_nb.ranking import Ranking

def written(out):
    "A page as the demonstration leaves it, from made-up numbers"
    rank = Ranking([f'source {i}' for i in range(3)], np.linspace(.5,.1,3), 'cka', 50)
    runs = [dict(method=m, seed=s, accuracy=.5+.1*k+.01*s, seconds=1.) for k,m in enumerate(('transfer','weighted')) for s in (0,1)]
    return write_demo(out, rank, Comparison(runs), np.zeros((12,8,8,3), np.uint8), about='a & b', again='distill_nb demo',
                      own={'distill_nb rank A B': 'a < b'})

def test_the_page_holds_its_figures(tmp_path):
    page = written(tmp_path/'out')
    assert {o.name for o in page.parent.iterdir()} == {'index.html','ranking.csv','runs.csv','table.csv','images.png','ranking.png',
                                                       'weights.png','comparison.png'}
    text = page.read_text()
    assert text.count('data:image/png;base64,') == 4 and 'http' not in text
    assert all(o in text for o in ('<b>weighted</b> reaches 60.5 ± 0.5 % accuracy, <b>transfer</b> 50.5 ± 0.5 %: 10.0',
                                   '10.0 ± 0.0 points apart', 'a &amp; b', '<code>distill_nb demo</code>', 'class="results"',
                                   '<a href="ranking.csv">', '# a &lt; b\ndistill_nb rank A B',
                                   'fine-tuned from the start', "<b>weighted</b> is the paper's"))
    assert not re.search(r'<(h1|h2|p|b|code)[^>]*></\1>', text.replace('<p class="big"></p>', ''))

@pytest.mark.parametrize('kwargs,words', [(dict(seeds=0), '`seeds`'), (dict(seeds=1.5), '`seeds`'), (dict(n_epoch=0), '`n_epoch`'),
                                          (dict(out='page'), '`out`'), (dict(out='page/deeper'), '`out`')])
def test_refused(kwargs, words, tmp_path):
    (tmp_path/'page').touch()
    out = tmp_path/kwargs.pop('out', 'none')
    with pytest.raises((ValueError,TypeError,OSError), match=words): demo(out, say=lambda *o: None, **kwargs)
    assert not (tmp_path/'none').exists()

def test_the_next_step_is_a_line_that_works():
    "What the demonstration ends with parses, and names models that timm has weights of"
    lines = [parser().parse_args(shlex.split(o)[1:]) for o in own_images]
    assert [o.command for o in lines] == ['rank','train','predict'] and lines[1].out == lines[2].student
    assert all(timm.list_pretrained(f'{o}*') for o in [*lines[0].zoo.split(','), *lines[1].zoo.split(','), lines[1].arch])

def test_the_default_recipe_is_among_the_methods():
    assert {'transfer','weighted','distill'} <= set(inspect.signature(run_digits).parameters['methods'].default)

def test_no_split():
    with pytest.raises(ValueError, match='`seeds`'): run_digits(seeds=())

@pytest.mark.browser
def test_the_page_fits_a_phone_and_is_readable_in_the_dark(tmp_path): assert faults_on_a_phone(written(tmp_path)) == []

def test_a_figure_leads_to_its_file(tmp_path):
    "On a phone a figure is small; a tap shows it at its size"
    page = written(tmp_path)
    linked = re.findall(r'<a href="(\w+)\.png"><img alt="([^"]+)" src="data:', page.read_text())
    assert [o for o,_ in linked] == ['images','ranking','weights','comparison'] and all(' ' in alt for _,alt in linked)
    assert all((page.parent/f'{o}.png').exists() for o,_ in linked)
