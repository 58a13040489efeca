"The front page: the README's text, its opening in two columns and its cards side by side; no cell of code"
import re
from make_readme import index
from website.api import link_names
from website.convert import md
from website.pages import links, load

def opening_columns(text):
    "Title; then what the library is and how to install it, beside the picture"
    title,line,body,picture = re.fullmatch(r'(# .+?)\n\n> (.+?)\n\n(.*)\n\n(!\[.*\]\(.*\))', text.strip(), re.S).groups()
    return f'''{title}

:::::{{grid}} 1 1 2 2
:class-container: front-opening

::::{{grid-item}}
:columns: 12 12 5 5

{{.front-line}}
{line}

{body}
::::

::::{{grid-item}}
:columns: 12 12 7 7

{picture}
::::
:::::
'''

def cards(text):
    "Sections `## Title` that end with a link, as cards"
    _,*sections = re.split(r'^## (.+)$', text.strip(), flags=re.M)
    made = []
    for title,section in zip(sections[::2], sections[1::2]):
        body,_,link = section.strip().rpartition('\n')
        made.append(f'::::{{grid-item-card}} {title}\n:class-card: front-card\n\n{body.strip()}\n\n{link}\n::::\n')
    return ':::::{grid} 1 1 3 3\n:class-container: front-cards\n:gutter: 3\n\n' + '\n'.join(made) + ':::::\n'

def front(path, names, pages):
    "The front page as a notebook without a cell of code"
    def linked(text): return links(link_names(text, names), path, pages)
    opening,*rest = [linked(text) for text in index()]
    cells = [opening_columns(opening), *(cards(t) if t.startswith('<!-- cards -->') else t for t in rest)]
    return {**load(path), 'cells': [md(t) for t in cells]}
