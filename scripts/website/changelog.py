"The page of changes, made from CHANGELOG.md"
import re
from website.api import link_names
from website.pages import links, repo, root

def changelog(version, names, pages):
    "The page, in Markdown: the version that the site describes, how to find another one, and what changed"
    text = (root/'CHANGELOG.md').read_text(encoding='utf-8')
    title,_,rest = text.partition('\n')
    versions = f'''This site describes version {version}, as it stands on the branch `main`. `distill_nb.__version__` is the version that
you have. The pages of another version are the notebooks of its [tag]({repo}/tags): check it out and run `python scripts/make_site.py`.'''
    rest = re.sub(r'^## \[(.+?)\]', r'## \1', rest, flags=re.M)
    at = root/'nbs'/'changelog.ipynb' # where links are seen from
    return links(link_names(f'{title}\n\n{versions}\n{rest.replace("](nbs/", "](")}', names), at, pages)
