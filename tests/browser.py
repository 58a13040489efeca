"A page served by a program, such as Voila or JupyterLab, and a headless Chromium that looks at it"
import contextlib, functools, http.server, os, shutil, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path
import pytest

def chromium():
    "Path of a Chromium, or skip"
    pytest.importorskip('playwright', reason='browser tests need playwright: pip install -e ".[dev]"')
    path = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)
    if path is None: pytest.skip('browser tests need Chromium: apt-get install chromium, or name one in $CHROMIUM')
    return path

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@contextlib.contextmanager
def started(*args, cwd, port, **env):
    "`python ARGS`, until it has opened the port; yields its address"
    with tempfile.TemporaryDirectory() as d:
        log = Path(d)/'log'
        with open(log, 'w') as f:
            p = subprocess.Popen([sys.executable, *args], cwd=cwd, env={**os.environ, **env}, stdout=f, stderr=f)
        try:
            for _ in range(6000):
                if p.poll() is not None: raise RuntimeError(f'{args} has ended:\n{log.read_text()[-2000:]}')
                with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1): break
                time.sleep(.1)
            yield f'http://127.0.0.1:{port}'
        finally:
            p.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired): p.wait(60)
            p.kill()

@contextlib.contextmanager
def serve(app, *args, cwd):
    "`python -m app ARGS` on a port of its own, in folders of its own; yields its address"
    with tempfile.TemporaryDirectory() as d:
        port = free_port()
        env = {k: f'{d}/{k}' for k in ('JUPYTER_CONFIG_DIR','JUPYTER_DATA_DIR','JUPYTER_RUNTIME_DIR','IPYTHONDIR')}
        with started('-m', app, *args, f'--port={port}', '--no-browser', cwd=cwd, port=port, **env) as url: yield url

def run_in_lab(page, url, name):
    "Open the notebook `name` in JupyterLab and run all its cells"
    page.goto(f'{url}/lab/tree/{name}', wait_until='commit')
    page.wait_for_selector('.jp-Notebook .jp-Cell')
    page.wait_for_function("""document.querySelector('.jp-KernelName')?.innerText.startsWith('Python') &&
        document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'""")
    if page.get_by_role('button', name='No', exact=True).count():
        page.get_by_role('button', name='No', exact=True).click() # news of JupyterLab?
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_text('Run All Cells', exact=True).click()

@contextlib.contextmanager
def serve_lab(cwd):
    "JupyterLab without a password; yields its address"
    pytest.importorskip('jupyterlab', reason='browser tests need jupyterlab: pip install -e ".[dev]"')
    with serve('jupyterlab', '--ip=127.0.0.1', '--IdentityProvider.token=', '--allow-root',
               '--ServerApp.disable_check_xsrf=True', cwd=cwd) as url: yield url

@contextlib.contextmanager
def browser(path):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=path, args='--no-sandbox --disable-gpu --disable-dev-shm-usage '
                                                          '--disable-quic --no-first-run '
                                                          '--disable-background-networking --disable-component-update '
                                                          '--disable-sync'.split())
        try: yield b
        finally: b.close()

@contextlib.contextmanager
def serve_files(folder):
    "The files of a folder; yields the address"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{s.server_port}/'
    finally: s.shutdown()

def visit(context, base, said):
    "A page that notes in `said` every error, and every request to anybody but `base`"
    page = context.new_page()
    page.on('console', lambda m: said.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: said.append(str(e)))
    page.on('response', lambda r: said.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    page.on('requestfailed', lambda r: said.append(f'failed {r.url}') if 'ERR_ABORTED' not in (r.failure or '')
            else None) # the page was left before its icon had come
    page.on('request', lambda r: said.append(f'outside {r.url}') if not r.url.startswith((base,'data:','blob:')) else None)
    return page

def too_wide(page):
    "What reaches beyond the right edge of the window and cannot be scrolled to within a box: (element, its right edge)"
    return page.evaluate("""() => {
        const within = e => e.getBoundingClientRect().right <= innerWidth+1;
        const boxed = e => {
            for (let p = e.parentElement; p; p = p.parentElement)
                if (getComputedStyle(p).overflowX != 'visible' && within(p) && p !== document.body) return true;
            return false;
        };
        const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().width && !within(e) && !boxed(e));
        const page = document.documentElement.scrollWidth;
        return wide.map(e => [e.tagName + '.' + (e.getAttribute('class') || ''), Math.round(e.getBoundingClientRect().right)])
            .concat(page > innerWidth+1 ? [['page', page]] : []);
    }""")

def hard_to_read(page, least=4.5, within='body'):
    "(text, contrast) of texts whose contrast with what is behind them, as Chromium computes the colours, is below `least` (WCAG AA)"
    return page.evaluate("""([least, within]) => {
        const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const rgba = color => {
            paint.clearRect(0, 0, 1, 1);
            paint.fillStyle = color;
            paint.fillRect(0, 0, 1, 1);
            const [r,g,b,a] = paint.getImageData(0, 0, 1, 1).data;
            return [r, g, b, a/255];
        };
        const over = (top, under) => top.slice(0, 3).map((v, i) => v*top[3] + under[i]*(1-top[3]));
        const light = c => {
            const [r,g,b] = c.map(v => v/255).map(v => v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4);
            return .2126*r + .7152*g + .0722*b;
        };
        const line = e => e ? [e, ...line(e.parentElement)] : [];
        const paper = matchMedia('(prefers-color-scheme: dark)').matches ? [18,18,18] : [255,255,255];
        const behind = e => line(e).reverse().reduce((under, p) => over(rgba(getComputedStyle(p).backgroundColor), under), paper);
        const found = [], texts = document.createTreeWalker(document.querySelector(within), NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const text = texts.currentNode.data.trim(), e = texts.currentNode.parentElement;
            if (!text || e.matches('style,script,noscript') || !e.getClientRects().length) continue;
            const ink = rgba(getComputedStyle(e).color), under = behind(e);
            ink[3] *= line(e).reduce((o, p) => o*getComputedStyle(p).opacity, 1);
            const [a,b] = [light(over(ink, under)), light(under)];
            const contrast = (Math.max(a, b)+.05)/(Math.min(a, b)+.05);
            if (contrast < least) found.push([text.slice(0, 40), Math.round(100*contrast)/100]);
        }
        return found;
    }""", [least, within])

def faults_on_a_phone(file):
    "(width, theme, what `too_wide` and `hard_to_read` find) of a page on disk, in windows as wide as phones; empty if it is sound"
    found = []
    with browser(chromium()) as chrome:
        for width,scheme in ((390,'light'), (390,'dark'), (320,'dark')):
            page = chrome.new_context(viewport=dict(width=width, height=844), color_scheme=scheme).new_page()
            page.goto(Path(file).absolute().as_uri())
            if wrong := too_wide(page) + hard_to_read(page): found.append((width, scheme, wrong))
    return found
