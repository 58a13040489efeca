"""What do photos of 12 megapixels cost? `python benchmarks/photos.py [--small] [--pool 5000] [--rounds 3]`

Photos are drawn: noise of all scales, shapes and lines with hard edges, sensor noise; JPEG at quality 88. Four
tables, all in `benchmarks/photos.csv`:
`pixels` and `scores`, how far the halving of photos moves the pixels of the final image and the scores of sources,
beside the ordinary way; `first`, seconds of everything
that opens the photos until the student has seen them once, beside opening them for each preprocessing and again for
the student; `epoch`, a training epoch, with images kept and
opened each time, beside one over arrays of the final size; `memory`, the peak of a process that ranks a pool of
photos. Weights of networks are random: they do not change the time."""
import argparse, io, subprocess, sys, tempfile, time, warnings
from functools import partial
from common import write
warnings.simplefilter('ignore')
from PIL import ImageDraw
from distill_nb.all import *
from distill_nb.images import open_image
from distill_nb.kept import Halves, KeptImages
from distill_nb.store import Store
from distill_nb.outputs import halves_for, open_batches
from distill_nb.pseudo_labels import PseudoLabels
from distill_nb.teachers import SourceTeacher, StoredTeachers
from distill_nb.distill import Distill

def draw_photo(seed, w=4000, h=3000):
    "A picture with detail at every scale, as a PIL image"
    r = np.random.default_rng(seed)
    a = np.zeros((h,w,3), np.float32) + r.uniform(60, 190, 3).astype(np.float32)
    for k in range(2, 11):
        small = r.normal(size=(max(2, 2**k*h//w), 2**k, 3)).astype(np.float32)
        for c in range(3): a[...,c] += np.asarray(Image.fromarray(small[...,c]).resize((w,h), Image.BICUBIC)) * (60/1.6**(k-2))
    img = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    d = ImageDraw.Draw(img)
    colour = lambda: tuple(r.integers(0, 256, 3).tolist())
    for _ in range(60):
        x,y,s = int(r.integers(w)),int(r.integers(h)),int(np.exp(r.uniform(2, 6.8)))
        (d.ellipse if r.random()<.5 else d.rectangle)((x, y, x+s, y+int(s*r.uniform(.3, 2))),
                                                      fill=colour() if r.random()<.6 else None, outline=colour(),
                                                      width=int(r.integers(1, 12)))
    for _ in range(200):
        x,y = int(r.integers(w)),int(r.integers(h))
        d.line((x, y, x+int(r.normal()*300), y+int(r.normal()*300)), fill=colour(), width=int(r.integers(1, 6)))
    noise = np.round(r.normal(size=(h,w,1))*4 + r.normal(size=(h,w,3))*2).astype(np.int16)
    return Image.fromarray((np.asarray(img)+noise).clip(0, 255).astype(np.uint8))

turns = [None, *Image.Transpose] # the picture as it is, mirrored and turned

def photos(folder, n, w=4000, h=3000, quality=88):
    "`n` photos as files: a few that are drawn, and these mirrored"
    for i in range(n):
        if i%len(turns)==0: img = draw_photo(i//len(turns), w, h)
        (img.transpose(turns[i%len(turns)]) if i%len(turns) else img).save(folder/f'{i:04}.jpg', quality=quality)
    return get_images(folder)

class whole_photos:
    "Every resize begins with the whole photo, as it was before there were `Halves`"
    def __enter__(self): self.was,Halves.margin = Halves.margin,math.inf
    def __exit__(self, *args): Halves.margin = self.was

def zoo(size=224):
    "Four sources of three preprocessings"
    made = [Source.from_timm(a, pretrained=False, size=size, name=f'{a} {i}') for i,
            a in enumerate(['mobilenetv3_large_100','mobilenetv3_large_100','resnet18','tf_efficientnet_lite0'])]
    for s,crop in zip(made, (.875,.875,.95,1.)): s.crop_pct,s.interpolation = crop,'bicubic'
    return made

# How near

def pixel_rows(items, sizes=((160,Image.BILINEAR),(224,Image.BILINEAR),(256,Image.BICUBIC),(146,Image.BICUBIC))):
    "Beside a resize of the whole photo: a JPEG decoded at a half or a quarter, and halving after decoding"
    def decoded(item, k):
        im = Image.open(item)
        im.draft('RGB', (im.size[0]//k, im.size[1]//k))
        im.load()
        return im
    ways = {'decoded at 1/2': lambda o,s: (decoded(o, 2),2), 'decoded at 1/4': lambda o,s: (decoded(o, 4),4),
            'halved': lambda o,s: Halves(open_image(o)).near(s)}
    for side,resample in sizes:
        for what,f in ways.items():
            off = []
            for o in items:
                whole = open_image(o)
                (w,h),scale = whole.size,min(whole.size)/side
                small,k = f(o, scale)
                size = round(w/scale),side
                off.append(np.abs(np.asarray(whole.resize(size, resample),
                                             int) - np.asarray(small.resize(size, resample, box=(0,0,w/k,h/k)), int)))
            off = np.concatenate([o.ravel() for o in off])
            yield dict(bench='pixels', what=what, size=side, filter=Image.Resampling(resample).name.lower(),
                       margin=scale/k, most=off.max(), share_over_1=(off>1).mean())

data = Path(os.environ.get('DISTILL_NB_DATA', Path(__file__).resolve().parents[2]/'shared'/'data')).expanduser()    # see tests/README.md

def trained_sources():
    "Published models, where their weights are there, else the embedded ones"
    return Zoo.checkpoints(data/'weights', size=128) if (data/'weights').is_dir() else Zoo.embedded()

def enlarged(item, seed, side=3072):
    "A small real image as a camera might have taken it: enlarged, with noise, as JPEG"
    r,f = np.random.default_rng(seed),io.BytesIO()
    noise = np.tile(r.normal(size=(side//4,side//4,3)).astype(np.float32)*5, (4,4,1))
    a = np.asarray(open_image(item).resize((side,side), Image.BICUBIC)) + noise
    Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(f, 'JPEG', quality=88)
    return f.getvalue()

def look_both_ways(items, sources):
    "geometry -> what sources see of whole photos and of halved ones, two uint8 batches"
    res = {}
    for o in items:
        halves = Halves(open_image(o))
        for s in {s.geometry: s for s in sources}.values():
            res.setdefault(s.geometry, []).append((s.pixels(halves.levels[0]), s.pixels(halves_for(halves, s))))
    return {g: [torch.stack(o) for o in zip(*v)] for g,v in res.items()}

def score_rows(what, items, y, sources):
    "Scores of trained sources by halved photos beside whole ones, and beside whole ones with every value moved by -1, 0 or 1 at random"
    r,n,scores = np.random.default_rng(0),0,{}
    seen = look_both_ways(items, sources)
    for s in sources:
        whole,halved = seen[s.geometry]
        n = len(whole)
        moved = (whole.int() + torch.from_numpy(r.integers(-1, 2, whole.shape))).clamp(0, 255).byte()
        net = s.load()
        for k,x in dict(whole=whole, halved=halved, moved=moved).items():
            with torch.inference_mode(): features = torch.cat([net(s.normalize(o))[0] for o in x.split(16)])
            for m in ('cka','parc','logme'): scores.setdefault((m,k), []).append(metrics[m](features, y))
    for m in ('cka','parc','logme'):
        off = {k: np.abs(np.subtract(scores[m,k], scores[m,'whole'])).max() for k in ('halved','moved')}
        yield dict(bench='scores', what=m, photos=what, most=off['halved'], moved=off['moved'], images=n, sources=len(sources))

def all_score_rows(items):
    sources = trained_sources()
    # a photo and its mirror images are of one class
    yield from score_rows('drawn', items, np.arange(len(items))//len(turns)%3, sources)
    if not (data/'targets'/'birds.npz').exists(): return
    birds,y = load_pack(data/'targets'/'birds.npz').train
    pick = np.random.default_rng(0).permutation(len(birds))[:240]
    yield from score_rows('birds, enlarged 24 times', (enlarged(birds[int(i)], i) for i in pick), y[pick], sources)

# How fast

def opened_apart(items, sources, store):
    "Each preprocessing opens the photos for itself, and resizes the whole of them"
    groups = {}
    for s in sources: groups.setdefault(s.geometry, []).append(s)
    with whole_photos():
        for g in groups.values(): compute_outputs(g, items, store, progress=False)

def timed(f, *args, **kwargs):
    t = time.perf_counter()
    f(*args, **kwargs)
    return time.perf_counter()-t

def open_all(items, looks, keep=None):
    "Open photos in as many threads as there are cores, for some preprocessings; no network"
    jobs = [(i, s, np.ones(len(items), bool)) for i,s in enumerate(looks)]
    for _ in open_batches(list(items), jobs, bs=8, keep=keep): pass

def once_through(dl):
    for _ in dl: pass

def first_rows(items, sources, rounds):
    "Until the student has seen the photos once: as it was, and opened once"
    labels = [str(i%3) for i in range(len(items))]
    def loader(cache): return image_dls(items, labels, items[:3], labels[:3], size=160, bs=8, cache=cache).train
    one,three = sources[:1],[sources[0],*sources[2:]]
    def apart(looks):
        with whole_photos():
            for s in looks: open_all(items, [s])
    def together(looks, dl=None): open_all(items, looks, dl.keeper() if dl else None)
    def new(looks):
        dl = loader(KeptImages(False))
        together(looks, dl)
        once_through(dl)
    def old(looks):
        apart(looks)
        once_through(loader(False))
    def passes(kept):
        with tempfile.TemporaryDirectory() as d:
            if not kept:
                opened_apart(items, sources, Store(d))
                return once_through(loader(False))
            dl = loader(KeptImages(Path(d)/'images'))
            compute_outputs(sources, items, Store(d), progress=False, keep=dl.keeper())
            once_through(dl)
    pairs = {'opened for one source': (partial(apart, one), partial(together, one)),
             'opened for three preprocessings': (partial(apart, three), partial(together, three)),
             'opened for one source and the first epoch': (partial(old, one), partial(new, one)), 'opened for three '
                                                                                                  'preprocessings and '
                                                                                                  'the first epoch': (
            partial(old, three), partial(new, three)),
             'the same with four networks running': (partial(passes, False), partial(passes, True))}
    for what,(before,after) in pairs.items():
        t = np.array([[timed(before),timed(after)] for _ in range(rounds)])
        r = t[:,1]/t[:,0]
        yield dict(bench='first', what=what, seconds=np.median(t[:,1]), floor=np.median(t[:,0]), ratio=np.median(r),
                   least=r.min(), most=r.max(), rounds=rounds, images=len(items))

def epoch_rows(items, rounds, arch='mobilenetv3_small_100', size=160):
    "Seconds of an epoch over a pool, and as many labelled photos, beside ready arrays"
    ready = np.stack([np.asarray(Resize(size)(open_image(o), split_idx=1)) for o in items])
    teachers = PseudoLabels(torch.rand(len(items), 100).half(), [100])
    def learner(x, cache):
        labels = [str(i%3) for i in range(len(x))]
        dls = image_dls(x, labels, x[:3], labels[:3], size=size, bs=8, batch_tfms=aug_transforms(), cache=False)
        l = student_learner(dls, arch, pretrained=False, cbs=Distill(x,
                SourceTeacher(StoredTeachers(teachers), torch.ones(1))), cache=cache)
        l.add_cb(NoValid())
        return l
    made = {'ready arrays': learner(ready, False), 'kept': learner(items, KeptImages(False)),
            'held on the device': learner(items, 'device'), 'opened each time': learner(items, False)}
    def fit(l):
        with l.no_bar(), l.no_logging(): return timed(l.fit, 1, 1e-3)
    fit(made['ready arrays'])
    first = {k: fit(l) for k,l in made.items()}
    t = {k: [] for k in made}
    for _ in range(rounds):
        for k,l in made.items(): t[k].append(fit(l))
    for k,v in t.items():
        r = np.divide(v, t['ready arrays'])
        yield dict(bench='epoch', what=k, first=first[k], seconds=np.median(v), floor=np.median(t['ready arrays']),
                   ratio=np.median(r), least=r.min(), most=r.max(), rounds=rounds, images=len(items))

class NoValid(Callback):
    def before_validate(self): raise CancelValidException()

# How much memory

def memory_mb(what): return int(re.search(what + r':\s+(\d+) kB', Path('/proc/self/status').read_text())[1])/1024

def memory(folder, n, network):
    """MB that a process takes up beyond what it held before, while `n` photos are opened for a source, with or without
    its network, and the student's views of them are kept"""
    items = get_images(folder)[:n]
    source = Source.from_timm('mobilenetv3_small_050', pretrained=False, size=224)
    source.crop_pct,source.interpolation = .875,'bicubic'
    dl = image_dls(items, [str(i%3) for i in range(n)], items[:3], ['0','1','2'], size=160, cache=KeptImages(False)).train
    before = memory_mb('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')                # the peak counts from here
    t = time.perf_counter()
    if network:
        with tempfile.TemporaryDirectory() as d: compute_outputs([source], items, Store(d), progress=False, keep=dl.keeper())
    else:
        for _ in open_batches(list(items), [(0, source, np.ones(n, bool))], bs=64, ahead=2, keep=dl.keeper()): pass
    once_through(dl)
    print(json.dumps(dict(peak_mb=memory_mb('VmHWM')-before, seconds=time.perf_counter()-t)))

def memory_rows(n):
    "In a process of its own; the photos differ in a few bytes behind the picture, which make each another file"
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        few = [o.read_bytes() for o in photos(d, 8, quality=50)]
        for i in range(n): (d/f'{i:04}.jpg').write_bytes(few[i%8] + i.to_bytes(4, 'little'))
        for what,network in {'opened for one source and kept': 0, 'the same with its network': 1}.items():
            out = subprocess.run([sys.executable, __file__, '--memory', d, str(n), str(network)], capture_output=True,
                                 text=True, check=True).stdout
            yield dict(bench='memory', what=what, images=n, **json.loads(out.splitlines()[-1]))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--small', action='store_true', help='a quick try, not written')
    ap.add_argument('--rounds', type=int, default=5)
    ap.add_argument('--pool', type=int, default=5000, help='photos whose memory is measured')
    ap.add_argument('--only', nargs='+', choices=('pixels','scores','first','epoch','memory'),
                    help='some of the tables; the others stay as they were measured')
    ap.add_argument('--memory', nargs=3, metavar=('FOLDER','N','NETWORK'), help='used by the script itself')
    a = ap.parse_args()
    default_device(False)
    if a.memory:
        memory(Path(a.memory[0]), *map(int, a.memory[1:]))
        raise SystemExit
    n,many,pool,rounds = (8,8,16,1) if a.small else (24,96,a.pool,a.rounds)
    only = a.only or ('pixels','scores','first','epoch','memory')
    with tempfile.TemporaryDirectory() as d:
        all_items = photos(Path(d), many if 'scores' in only else n)
        items = all_items[:n]
        sources = zoo(96 if a.small else 224)
        rows = [r for k,f in dict(pixels=lambda: pixel_rows(items[::8]), scores=lambda: all_score_rows(all_items),
                                  first=lambda: first_rows(items, sources, rounds),
                                  epoch=lambda: epoch_rows(items, rounds)).items() if k in only for r in f()]
    if 'memory' in only: rows += memory_rows(pool)
    write(pd.DataFrame(rows), 'photos', a, keep=(lambda was: ~was.bench.isin(only)) if a.only else None)
