"A notebook as the site shows it"
import ast, itertools, re
from website.api import api, defined, link_names
from website.gallery import with_cards
from website.live import alive
from website.pages import edit_link, links, load, source

ids = itertools.count()
def md(text): return dict(cell_type='markdown', id=f'm{next(ids)}', metadata={}, source=text)

def directives(text): return {m[1].strip(): m[2].strip() for m in re.finditer(r'^#\|\s*([\w-]+):?(.*)$', text, re.M)}
def without_code(text): return re.sub(r'^```.*?^```', '', text, flags=re.S|re.M)
def only_imports(code): return all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(code).body)

def tags_of(flags):
    "Tags that hide the input of a cell, as its directives ask"
    if flags.get('echo') == 'false': return ['remove-input']
    return ['hide-input'] if flags.keys() & {'code-fold','hide_input','export','exports','exporti'} else []

def convert(path, names, pages):
    "A notebook as the site shows it"
    nb = load(path)
    cells,level,module,seen = [],1,None,set()
    for c in nb['cells']:
        src = source(c)
        flags = directives(src)
        if 'default_exp' in flags: module = f"distill_nb.{flags['default_exp']}"
        if not src.strip() or {'hide','default_exp'} & flags.keys(): continue
        if c['cell_type'] == 'markdown':
            for m in re.finditer(r'^(#+) ', without_code(src), re.M): level = len(m[1])
            cells.append(md(links(link_names(with_cards(src, path), names), path, pages)))
            continue
        body = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n')
        if {'export','exports'} & flags.keys() and module:
            for n in defined(body):
                if n not in names or n in seen: continue
                seen.add(n)
                text = api(n, module, f'{module}.{n}'.lower(), min(level+1, 6))
                if text: cells.append(md(link_names(text, names, here=(n,))))
        if {'export','exports','exporti'} & flags.keys() and only_imports(body): continue
        shown = [linked(p, path, pages) for o in c['outputs'] for p in alive(o, outputs(dict(outputs=[o])), path)]
        cells.append({**c, 'source': body, 'metadata': dict(tags=tags_of(flags)), 'outputs': shown})
    cells.append(md(f'---\n[Edit this page]({edit_link(path)}): it is a notebook, and runs as it is.'))
    return {**nb, 'cells': cells}

def outputs(cell):
    """What a page shows of the outputs: neither the error stream nor finished progress bars; of a widget with saved state
    only the widget; fastai's tables in the style of the others"""
    res = []
    for o in cell.get('outputs', []):
        data = o.get('data') or {}
        html = ''.join(data.get('text/html', ''))
        empty = 'text/html' in data and not re.sub(r'<style.*?</style>', '', html, flags=re.S).strip()
        if o.get('name') == 'stderr' or empty: continue
        if 'application/vnd.jupyter.widget-view+json' in data and html:
            data = {k:v for k,v in data.items() if not k.startswith('application/vnd')}
        if 'class="fastprogress"' in html: data = {**data, 'text/html': html.replace('class="fastprogress"', 'class="dataframe"')}
        res.append({**o, 'data': data} if data else o)
    return res

def linked(output, path, pages):
    "An output whose Markdown leads to pages"
    data = output.get('data') or {}
    if 'text/markdown' not in data: return output
    return {**output, 'data': {**data, 'text/markdown': links(''.join(data['text/markdown']), path, pages)}}
