"Any name stays a name in Markdown"
import re
from html import unescape
import pytest
from distill_nb.publish import escape_markdown

names = ('<img src=x onerror=alert(1)>', 'a|b', '[x](javascript:1)', '---', '$x$', '# x', '1. x', '100) x', '=', '`x`', '**x**',
         '&lt;', 'http://x.org', 'www.x.org', '~~x~~', '@x', '\\', '', 7)

@pytest.mark.parametrize('name', names)
def test_a_name_shows_as_it_is(name):
    text = escape_markdown(name)
    assert unescape(text) == str(name)
    assert not set(text) & set('<>|[]`*$\\@') and not re.match(r'[-+=#\d]+[-+=.) ]', text)
