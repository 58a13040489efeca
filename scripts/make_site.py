"""Make the documentation site from the notebooks:

    pip install -e '.[docs]' && python scripts/make_site.py

Nothing is executed: pages show the outputs stored in the notebooks. A cell that exports something becomes its signature
and the table of its arguments, made from the docments, with the source folded away. Chapters are the folders of `nbs`,
pages are in the order of their numbers. MathJax and what saved widgets need are fetched from npm's registry once and
kept in the user's cache; the site itself loads nothing from elsewhere. `_docs/html` is what is published."""
import argparse, json, shutil, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
here = root/'scripts'/'website'
sys.path[:0] = [str(root), str(root/'scripts')]
from website.api import symbols # noqa: E402
from website.changelog import changelog # noqa: E402
from website.convert import convert, md # noqa: E402
from website.front import front # noqa: E402
from website.gallery import write_pictures # noqa: E402
from website.machines import write_markdown # noqa: E402
from website.pages import chapters, folders, notebooks, opening, repo # noqa: E402
from website.search import without_index # noqa: E402
from website.vendor import vendor # noqa: E402

def toctree(names): return '```{toctree}\n:hidden:\n\n' + '\n'.join(names) + '\n```\n'

def chapter_page(title, names, pages):
    "The page that lists a chapter"
    rows = [f'- **[{head}]({n}.ipynb).** {line}' for n in names for head,line in [opening(pages[n])]]
    if title == 'Library': rows.append('- **{ref}`Index <genindex>`.** Every public name, command and option')
    return f'# {title}\n\n' + '\n'.join(rows) + '\n\n' + toctree(names)

def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')

def write_sources(src, with_vendor=True):
    "Everything that Sphinx reads"
    from distill_nb import __version__
    pages,names = notebooks(),symbols()
    shutil.rmtree(src, ignore_errors=True)
    shutil.copytree(root/'nbs'/'images', src/'images')
    write_pictures(src)
    for name,p in pages.items():
        nb = front(p, names, pages) if name == 'index' else convert(p, names, pages)
        if name == 'index': nb['cells'].append(md(toctree([*(c.lower() for c in folders), 'changelog'])))
        write(src/f'{name}.ipynb', json.dumps(nb))
    write(src/'changelog.md', changelog(__version__, names, pages))
    for c,ps in chapters().items(): write(src/f'{c.lower()}.md', chapter_page(c, ps, pages))
    static,widgets = src/'_static',{}
    shutil.copytree(here/'static', static)
    if with_vendor:
        vendor(static/'vendor')
        widgets = {'vendor/requirejs/require.js': {},
                   'vendor/html-manager/dist/embed-amd.js': {'data-jupyter-widgets-cdn-only': 'false'}}
    conf = (here/'conf.txt').read_text(encoding='utf-8')
    write(src/'conf.py', conf.format(version=__version__, widgets=widgets, repo=repo))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=root/'_docs', help='where the site goes')
    ap.add_argument('--no-vendor', action='store_true', help='without MathJax and widgets, where there is no network')
    a = ap.parse_args()
    shutil.rmtree(a.out/'html', ignore_errors=True)
    write_sources(a.out/'src', not a.no_vendor)
    cmd = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', str(a.out/'src'), str(a.out/'html')]
    code = subprocess.run(cmd).returncode
    if code: raise SystemExit(code)
    without_index(a.out/'html')
    write_markdown(a.out/'src', a.out/'html', chapters())

if __name__ == '__main__': main()
