"Make README.md from nbs/index.ipynb; `--check` only compares them, `--command NAME` prints the line under `# NAME`"
import argparse, json, re
from html import unescape
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def fenced(lang, text): return f'```{lang}\n{text.rstrip()}\n```'

def table(html):
    "A data frame's HTML as a Markdown table; the name of its index goes into the heading"
    rows = [[unescape(re.sub('<.*?>', '', c)).strip() for c in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', r, re.S)]
            for r in re.findall(r'<tr.*?</tr>', html, re.S)]
    head,*rows = rows
    if rows and not any(rows[0][1:]): head = [rows.pop(0)[0], *head[1:]]
    return '\n'.join(f"| {' | '.join(r)} |" for r in (head, ['---']*len(head), *rows))

def outputs(cell):
    for o in cell.get('outputs', []):
        if o.get('name') == 'stderr': continue
        data = o.get('data', {})
        text = o.get('text') or data.get('text/plain')
        if 'text/markdown' in data: yield ''.join(data['text/markdown'])
        elif 'class="dataframe"' in (html := ''.join(data.get('text/html', ''))): yield table(html)
        elif text: yield fenced('', ''.join(text))

def index():
    """The front page as pieces of Markdown: Markdown cells as they are, code cells with their output (folded ones with their
    output alone), hidden cells left out"""
    for c in json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']:
        src = ''.join(c['source'])
        if src.startswith(('#| hide', '#| default_exp')) or not src.strip(): continue
        if c['cell_type'] == 'markdown': yield src
        elif re.search(r'^#\| *(code-fold: true|echo: false)', src, re.M): yield from outputs(c)
        else: yield from [fenced('python', '\n'.join(l for l in src.splitlines() if not l.startswith('#|'))), *outputs(c)]

def from_root(text):
    "A piece of the front page in the folder above: its links, and no mark for the site"
    text = text.removeprefix('<!-- cards -->\n\n')
    text = re.sub(r'\]\((?!https?:|#|\.\./)', '](nbs/', text)
    return text.replace('](../', '](')

def readme():
    parts = [from_root(text) for text in index()]
    return '<!-- Made from nbs/index.ipynb by scripts/make_readme.py: edit the notebook -->\n\n' + '\n\n'.join(parts) + '\n'

def command(name):
    lines = readme().splitlines()
    return lines[lines.index(f'# {name}')+1]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--check', action='store_true')
    p.add_argument('--command')
    args = p.parse_args()
    file = root/'README.md'
    if args.command: print(command(args.command))
    elif args.check:
        same = file.read_text(encoding='utf-8') == readme()
        raise SystemExit(None if same else 'README.md differs from nbs/index.ipynb: run scripts/make_readme.py')
    else: file.write_text(readme(), encoding='utf-8')
