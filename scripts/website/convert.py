"A notebook as the site shows it"
import ast, itertools, re
from website.api import api, arguments, defined, link_names
from website.examples import is_test, without_tests
from website.figures import alt_text
from website.gallery import with_cards
from website.live import alive
from website.pages import edit_link, links, load, page_name, source

ids = itertools.count()
def md(text): return dict(cell_type='markdown', id=f'm{next(ids)}', metadata={}, source=text)

def directives(text): return {m[1].strip(): m[2].strip() for m in re.finditer(r'^#\|\s*([\w-]+):?(.*)$', text, re.M)}
def without_code(text): return re.sub(r'^```.*?^```', '', text, flags=re.S|re.M)
def only_imports(code): return all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(code).body)

def tags_of(flags):
    "Tags that hide the input of a cell, as its directives ask"
    if flags.get('echo') == 'false': return ['remove-input']
    return ['hide-input'] if flags.keys() & {'code-fold','hide_input','export','exports','exporti'} else []

def folded(label): return dict(code_prompt_show=label, code_prompt_hide=label)

def shown_code(body, flags, outputs):
    "(code, tags, what folds it is called) of a cell: one that is there for its tests is folded, others go without theirs"
    if flags.keys() & {'export','exports','exporti'}: return body, tags_of(flags), 'Source'
    if is_test(body, bool(outputs)): return body, ['hide-input'], 'Tests'
    return without_tests(body), tags_of(flags), 'Code'

def convert(path, names, pages):
    "A notebook as the site shows it"
    nb = load(path)
    cells,level,module,seen,above,heading = [],1,None,set(),'',''
    for c in nb['cells']:
        src = source(c)
        flags = directives(src)
        if 'default_exp' in flags: module = f"distill_nb.{flags['default_exp']}"
        if not src.strip() or {'hide','default_exp'} & flags.keys(): continue
        if c['cell_type'] == 'markdown':
            src = with_cards(src, path)
            for m in re.finditer(r'^(#+) (.*)$', without_code(src), re.M): level,heading = len(m[1]),m[2]
            above = without_code(src)
            cells.append(md(links(link_names(src, names, module=module), path, pages)))
            continue
        body = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n')
        if {'export','exports'} & flags.keys() and module:
            for n in defined(body):
                if n not in names or n in seen: continue
                seen.add(n)
                text = api(n, module, f'{module}.{n}'.lower(), min(level+1, 6), names)
                if text: cells.append(md(link_names(text, names, (n, *arguments(n, module)), module)))
        if {'export','exports','exporti'} & flags.keys() and only_imports(body): continue
        shown = [linked(p, path, pages) for o in c['outputs'] for p in alive(o, outputs(dict(outputs=[o])), path)]
        code,tags,label = shown_code(body, flags, shown)
        alt = alt_text(above, heading, flags.get('fig-alt', ''))
        how = dict(**folded(label), image=dict(alt=alt.replace('"', "'")))
        cells.append({**c, 'source': code, 'metadata': dict(tags=tags, mystnb=how), 'outputs': shown})
    here = page_name(path).rpartition('/')[2]
    cells.append(md(f'---\n[Edit this page]({edit_link(path)}): it is a notebook, and runs as it is. '
                    f'<a href="{here}.html.md">The page as Markdown</a>'))
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
