"Make README.md from nbs/index.ipynb; `--check` only compares them, `--command NAME` prints the line under `# NAME`"
import argparse, json, re
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def fenced(lang, text): return f'```{lang}\n{text.rstrip()}\n```'

def outputs(cell):
    for o in cell.get('outputs', []):
        if o.get('name') == 'stderr': continue
        data = o.get('data', {})
        text = o.get('text') or data.get('text/plain')
        if 'text/markdown' in data: yield ''.join(data['text/markdown'])
        elif text: yield fenced('', ''.join(text))

def readme():
    "Markdown cells as they are, code cells with their text output (folded ones with their output alone), hidden cells left out"
    parts = []
    for c in json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']:
        src = ''.join(c['source'])
        if src.startswith(('#| hide', '#| default_exp')) or not src.strip(): continue
        if c['cell_type'] == 'markdown': parts.append(src.replace('](images/', '](nbs/images/'))
        elif re.search(r'^#\| *(code-fold: true|echo: false)', src, re.M): parts += outputs(c)
        else: parts += [fenced('python', '\n'.join(l for l in src.splitlines() if not l.startswith('#|'))), *outputs(c)]
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
