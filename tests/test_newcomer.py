"A newcomer finds the answers to ten questions: in at most three clicks, or by one search, from the front page"
from urllib.parse import urldefrag
import pytest
pytest.importorskip('myst_nb')
from browser import visit
from newcomer_tasks import tasks

def test_ten_tasks_of_three_clicks_or_one_search():
    assert len(tasks) == 10 == len({t['task'] for t in tasks})
    for t in tasks: assert ('clicks' in t) != ('search' in t) and len(t.get('clicks', [])) <= 3, t['task']

def follow(page, text):
    "Click the first link that can be seen and reads `text`"
    page.get_by_role('link', name=text, exact=True).locator('visible=true').first.click()
    page.wait_for_load_state()

def search(page, word, wanted, first=8):
    "Type `word` into the search box, and open `wanted` if it is among the `first` that were found"
    page.keyboard.press('Control+k')
    page.keyboard.type(word)
    page.keyboard.press('Enter')
    page.wait_for_selector('#search-results .search-summary:has-text("Search finished")', timeout=300_000)
    links = page.locator('#search-results li a')
    found = links.evaluate_all('as => as.map(a => new URL(a.href).pathname.slice(1))')[:first]
    assert wanted in found
    links.nth(found.index(wanted)).click()
    page.wait_for_load_state()

@pytest.mark.browser
@pytest.mark.parametrize('task', tasks, ids=lambda t: t['task'])
def test_the_answer_is_near(served, task):
    chrome,base = served
    said = []
    page = visit(chrome.new_context(viewport=dict(width=1280, height=900)), base, said)
    page.goto(base+'index.html')
    wanted,section = urldefrag(task['page'])
    if 'search' in task: search(page, task['search'], wanted)
    for text in task.get('clicks', []): follow(page, text)
    assert urldefrag(page.url)[0] == base+wanted
    assert task['words'] in page.locator(f'#{section}').inner_text() and said == []
