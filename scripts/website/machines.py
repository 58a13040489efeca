"""The site for programs that read it: each page as Markdown beside the HTML, `NAME.html.md`, where the docstrings of the modules lead;
`llms.txt`, the list of these pages as https://llmstxt.org has it, and `llms-full.txt`, all of them in one file"""
import json, posixpath, re
from website.pages import source

address = 'https://distill-nb.github.io/distill_nb/'

def tidy(text, at, labels):
    """Markdown without what only Sphinx reads. Links to pages lead to their Markdown, links to labels to the section on the page;
    `labels`: label -> page; `at`: folder of this page"""
    def relative(page): return posixpath.relpath(page, at or '.')
    def to_label(m):
        page,anchor = labels.get(m[2].lower()),re.sub('[^a-z0-9]+', '-', m[2].lower()).strip('-')
        return f'[{m[1]}]({relative(page)}.html#{anchor})' if page else m[1]
    text = re.sub(r'^(\([\w.-]+\)=|\{\.[\w-]+\})\n', '', text, flags=re.M)
    text = re.sub(r'^```\{(toctree|index)\}.*?^```\n*', '', text, flags=re.S|re.M)
    text = re.sub(r'^:{3,}\{grid-item-card\} (.+)$', r'## \1', text, flags=re.M)         # the cards of the front page
    text = re.sub(r'^(:{3,}(\{[\w-]+\}.*)?|:[\w-]+: .*)\n', '', text, flags=re.M)
    text = re.sub(r'\{ref\}`([^`<]*?) ?<[^`]*>`', r'\1', text)
    text = re.sub(r'\[([^\[\]]*)\]\{#[\w-]+\}', r'\1', text)
    text = re.sub(r'\[(`[^`]+`)\]\(#([\w.]+)\)', to_label, text)
    text = re.sub(r'\]\((?!\w+:)([^)#\s]+)\.(?:ipynb|md)(#[^)]*)?\)', r'](\1.html.md)', text)
    return text.strip()

def fenced(text, language=''):
    "A block of code; its fence is longer than any in it"
    fence = '`'*max(3, *(len(o)+1 for o in re.findall('`{3,}', text)), 3)
    return f'{fence}{language}\n{text.rstrip()}\n{fence}'

def shown_output(output, alt):
    "An output in words: Markdown as it is, text as a block, a picture by its alternative text"
    data = output.get('data') or {}
    if any(k.startswith('image/') for k in data): return f'*Figure: {alt}*' if alt else ''
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    text = ''.join(output.get('text') or data.get('text/plain') or '')
    text = re.sub(r'\x1b\[[0-9;]*m', '', text)
    text = '\n'.join(o.split('\r')[-1] for o in text.splitlines())
    return '' if not text.strip() or re.fullmatch(r'<[\w.]+ [^\n]*>', text.strip()) else fenced(text, 'text')

def cell_markdown(cell):
    "A cell of a converted notebook: prose, examples and their outputs; neither source that is folded away nor tests"
    if cell['cell_type'] == 'markdown': return [source(cell)]
    how = cell['metadata'].get('mystnb', {})
    hidden = {'remove-input','remove-cell'} & {*cell['metadata'].get('tags', [])} or how.get('code_prompt_show') in ('Source','Tests')
    code = [] if hidden or not source(cell).strip() else [fenced(source(cell), 'python')]
    return code + [shown_output(o, how.get('image', {}).get('alt', '')) for o in cell.get('outputs', [])]

def page_markdown(file):
    "What Sphinx reads of a page, as Markdown that is not tidied yet"
    text = file.read_text(encoding='utf-8')
    blocks = [o for c in json.loads(text)['cells'] for o in cell_markdown(c)] if file.suffix == '.ipynb' else [text]
    return '\n\n'.join(filter(None, map(str.strip, blocks)))

def title_and_line(text):
    "Title of a page, and what it is about in one line: its subtitle or first sentence"
    title = re.search(r'^# (.+)$', text, re.M)
    line = re.search(r'^> (.+)$', text, re.M) or re.search(r'^(?![#>|`\[<:{(-])(\w.+?[.:])(?:\s|$)', text, re.M)
    return (title[1] if title else '', re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', line[1]).replace('`', '') if line else '')

def listing(pages, chapters):
    "The text of `llms.txt`: `pages` name -> Markdown, `chapters` title -> names"
    title,line = title_and_line(pages['index'])
    rows = [f'# {title or "distill_nb"}', '', f'> {line}', '',
            'Each page is given as Markdown. `pip install git+https://github.com/distill-nb/distill_nb`, then '
            '`from distill_nb.all import *`; the main calls are `rank_sources`, `distill_learner` and `train_student`, and '
            '`distill_nb rank` and `distill_nb train` in a shell.']
    for chapter,names in chapters.items():
        rows += ['', f'## {chapter}', '']
        for n in (o for o in names if o in pages):
            head,about = title_and_line(pages[n])
            rows.append(f'- [{head}]({address}{n}.html.md)' + f': {about}'*bool(about))
    return '\n'.join(rows) + '\n'

def write_markdown(src, html, chapters):
    "Write the Markdown of each page of `src`, the folder that Sphinx reads, beside its HTML, and the lists; returns name -> text"
    files = {f.relative_to(src).with_suffix('').as_posix(): f for f in sorted((*src.rglob('*.ipynb'), *src.rglob('*.md')))
             if not any(o.startswith('_') for o in f.relative_to(src).parts)}
    raw = {n: page_markdown(f) for n,f in files.items()}
    labels = {m.lower(): n for n,text in raw.items() for m in re.findall(r'^\(([\w.-]+)\)=$', text, re.M)}
    pages = {n: tidy(text, posixpath.dirname(n), labels) for n,text in raw.items()}
    for n,text in pages.items(): (html/f'{n}.html.md').write_text(text + '\n', encoding='utf-8')
    (html/'llms.txt').write_text(listing(pages, chapters), encoding='utf-8')
    order = ['index', *(n for names in chapters.values() for n in names if n in pages)]
    whole = '\n\n---\n\n'.join(f'<!-- {address}{n}.html -->\n\n{pages[n]}' for n in order)
    (html/'llms-full.txt').write_text(whole + '\n', encoding='utf-8')
    return pages
