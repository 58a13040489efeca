"The demonstration: what it leaves, and what it refuses before anything runs"
import re
import numpy as np, pytest
from distill_nb.compare import Comparison
from distill_nb.demo import demo, run_digits, write_report
from distill_nb.ranking import Ranking

def test_the_page_holds_its_figures(tmp_path):
    rank = Ranking([f'source {i}' for i in range(3)], np.linspace(.5,.1,3), 'cka', 50)
    runs = [dict(method=m, seed=s, accuracy=.5+.1*k+.01*s, seconds=1.) for k,m in enumerate(('transfer','weighted')) for s in (0,1)]
    page = write_report(tmp_path/'out', rank, Comparison(runs), np.zeros((12,8,8,3), np.uint8), about='a & b', again='distill_nb demo')
    assert {o.name for o in page.parent.iterdir()} == {'index.html','ranking.csv','runs.csv','table.csv','images.png','ranking.png',
                                                       'weights.png','comparison.png'}
    text = page.read_text()
    assert text.count('data:image/png;base64,') == 4 and 'http' not in text
    assert all(o in text for o in ('<b>weighted</b> reaches 60.5 ± 0.5 % accuracy, <b>transfer</b> 50.5 ± 0.5 %: 10.0',
                                   '10.0 ± 0.0 points apart', 'a &amp; b', '<code>distill_nb demo</code>', 'class="results"',
                                   '<a href="ranking.csv">'))
    assert not re.search(r'<(h1|h2|p|b|code)[^>]*></\1>', text.replace('<p class="big"></p>', ''))

@pytest.mark.parametrize('kwargs,words', [(dict(seeds=0), '`seeds`'), (dict(seeds=1.5), '`seeds`'), (dict(n_epoch=0), '`n_epoch`'),
                                          (dict(out='page'), '`out`'), (dict(out='page/deeper'), '`out`')])
def test_refused(kwargs, words, tmp_path):
    (tmp_path/'page').touch()
    out = tmp_path/kwargs.pop('out', 'none')
    with pytest.raises((ValueError,TypeError,OSError), match=words): demo(out, say=lambda *o: None, **kwargs)
    assert not (tmp_path/'none').exists()

def test_no_split():
    with pytest.raises(ValueError, match='`seeds`'): run_digits(seeds=())
