"The gallery has every figure of the library, from the pictures that notebooks store, each with its line of code and a description"
import importlib, re, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'scripts'))
from website import gallery
from website.pages import opening

page = root/'nbs'/'guide'/'04_gallery.ipynb'
listed = gallery.entries(page)

def figures():
    "Public names that draw: `plot_...`, and methods `plot` and `show` of public classes"
    from distill_nb._modidx import d
    for module,names in d['syms'].items():
        public = getattr(importlib.import_module(module), '__all__', [])
        for name in (full[len(module)+1:] for full in names):
            owner,_,method = name.rpartition('.')
            if not owner and name in public and name.startswith('plot_'): yield name
            if method in ('plot','show') and owner in public: yield f'.{method}'

def test_every_figure_of_the_library_is_there():
    known = set(figures())
    assert {'plot_ranking','plot_suite','plot_confusion','.plot','.show'} <= known
    assert sorted(n for n in known if not any(f'{n}(' in e['code'] for e in listed)) == []

def test_every_row_of_the_list_is_an_entry():
    rows = [l for c in gallery.load(page)['cells'] for l in gallery.source(c).splitlines() if l.startswith('- ')]
    assert len(rows) == len(listed) > 15

@pytest.mark.parametrize('entry', listed, ids=[e['title'] for e in listed])
def test_an_entry_has_its_picture_and_words(entry):
    name,png = gallery.found(entry, page)
    assert png.startswith(b'\x89PNG') and name.endswith('.png')
    assert len(entry['alt'].split()) >= 8 and not re.search(r'[\[\]]', entry['alt'])
    assert entry['page'] == opening((page.parent/entry['path']).resolve())[0]

def test_a_line_that_no_cell_has_is_an_error():
    with pytest.raises(ValueError, match='no picture of `plot_nothing'): gallery.picture(root/'nbs'/'48_plots.ipynb', 'plot_nothing(rank)')
    assert gallery.is_line('f(..., b)', 'x = f(a, b)') and not gallery.is_line('f(..., c)', 'x = f(a, b)')

def test_a_list_becomes_cards():
    text = gallery.with_cards(''.join(gallery.load(page)['cells'][1]['source']), page)
    assert text.startswith('## ') and text.count(':::{container} figure-card\n') == 7 and '- **' not in text
    assert '](/_gallery/plots_8cf660d3.png)](../48_plots.ipynb)' in text and '`plot_ranking(rank)`' in text
    assert gallery.with_cards('- **a** list\n- of words', page) == '- **a** list\n- of words'
