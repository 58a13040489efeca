"What a picture shows, in words, for those who do not see it"
import re

def plain(text):
    "Markdown as one line of plain words"
    text = re.sub(r'^(#+|>|[-*]|\|.*\|)\s*', '', text, flags=re.M)
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)
    text = re.sub(r'\$([^$]+)\$', lambda m: re.sub(r'\\(\w+)', r'\1', m[1]).replace('{','').replace('}',''), text)
    return re.sub(r'\s+', ' ', re.sub(r'[`*]+', '', text)).strip()

def sentences(text): return [o for o in re.split(r'(?<=[.:?!])\s+(?=[A-Z(0-9])', text) if o]

def introduced(text):
    """What the prose above a figure says of it: the sentence that ends in a colon, else the first of the last paragraph; with the one
    before if it is short"""
    paragraphs = [o for o in re.split(r'\n\s*\n', text.strip()) if not re.match(r'#|\||```', o)]
    if not paragraphs: return ''
    said = sentences(plain(paragraphs[-1]))
    if not said: return ''
    i = len(said)-1 if said[-1].endswith(':') else 0
    short = len(said[i]) < 40 and i > 0
    return ' '.join(said[i-short:i+1]).rstrip(':. ')

def alt_text(above, heading='', directive=''):
    "The alternative text of a figure: `#| fig-alt:`, or what introduces it, under its heading if that is short; at most 240 characters"
    if directive: return directive.strip('"\'')
    said,heading = introduced(above),plain(heading)
    if len(said) < 40 and heading: said = f'{heading}: {said}' if said else heading
    return said if len(said) <= 240 else said[:240].rsplit(' ', 1)[0] + ' ...'
