"""Cards with pictures in place of a list of figures. An entry of the list is `- **title** code on [page](notebook): description.`
(with the code in backticks); the picture is the one that the notebook stores under the line of code"""
import base64, re
from website.pages import load, notebooks, page_name, source

form = re.compile(r'^- \*\*(?P<title>[^*]+)\*\* `(?P<code>[^`]+)` on \[(?P<page>[^\]]+)\]\((?P<path>[^)]+\.ipynb)\): (?P<alt>.+)$', re.M)

def entries(path):
    "Figures that a notebook lists: title, code, page, path, alt"
    return [m.groupdict() for c in load(path)['cells'] if c['cell_type'] == 'markdown' for m in form.finditer(source(c))]

def is_line(code, text):
    "Does a cell have this line? `...` in `code` stands for what is left out"
    return re.search('.*'.join(re.escape(o) for o in code.split('...')), text) is not None

def picture(path, code):
    "(name, PNG) of what `code` drew in a notebook. Raises `ValueError` if no cell has such a line and a picture"
    for c in load(path)['cells']:
        if c['cell_type'] != 'code' or not is_line(code, source(c)): continue
        for o in c['outputs']:
            if png := (o.get('data') or {}).get('image/png'):
                return f"{page_name(path).replace('/','_')}_{c['id']}.png",base64.b64decode(''.join(png))
    raise ValueError(f"{path.name} has no picture of `{code}`")

def found(entry, path):
    "The picture of an entry in the notebook at `path`"
    return picture((path.parent/entry['path']).resolve(), entry['code'])

def card(m, path):
    "An entry as MyST shows it"
    e = m.groupdict()
    alt = e['alt'][0].upper() + e['alt'][1:]
    return (f":::{{container}} figure-card\n[![{alt}](/_gallery/{found(e, path)[0]})]({e['path']})\n\n**{e['title']}**\n\n`{e['code']}`\n\n"
            f"[{e['page']}]({e['path']})\n:::\n")

def with_cards(text, path):
    "`text` of a notebook, with cards in place of its list of figures"
    if not form.search(text): return text
    first,last = form.search(text).start(),[m.end() for m in form.finditer(text)][-1]
    cards = form.sub(lambda m: card(m, path), text[first:last])
    return f'{text[:first]}::::{{container}} figure-cards\n{cards}::::\n{text[last:]}'

def write_pictures(src):
    "The pictures of all cards, where the cards look for them"
    (src/'_gallery').mkdir(parents=True, exist_ok=True)
    for path in notebooks().values():
        for e in entries(path):
            name,png = found(e, path)
            (src/'_gallery'/name).write_bytes(png)
