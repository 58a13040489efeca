"What the search of the site looks through"
import json

def without_index(html):
    "Leave the entries of the index out of the search: they come before pages and sections, and lead to places without text"
    file = html/'searchindex.js'
    text = file.read_text(encoding='utf-8')
    call,end = text.index('(')+1,text.rindex(')')
    found = json.loads(text[call:end])
    found['indexentries'] = {}
    file.write_text(text[:call] + json.dumps(found, separators=(',',':')) + text[end:], encoding='utf-8')
