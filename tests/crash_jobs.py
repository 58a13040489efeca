"""Work that is worth interrupting: a pass over images, a bench, a training. A fork server, so that a hundred kills do
not cost a hundred imports: it reads lines `JOB FOLDER`, answers with the process number of a child that does the job,
then with the child's exit status."""
import os, sys, warnings
from pathlib import Path
warnings.filterwarnings('ignore')
import torch
torch.set_num_threads(1) # no thread may live when this process is forked
from fastai.vision.all import CSVLogger, accuracy, no_random
from distill_nb.packs import digits_dls
from distill_nb.callbacks import EMA
from distill_nb.learner import distill_learner
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs
from distill_nb.resume import Resume
from distill_nb.zoo import Zoo
from distill_nb.bench import digits_suite, run_suite

def pass_over_images(folder):
    "Three sources, 300 images, in chunks of 16"
    zoo = Zoo.embedded()
    compute_outputs([zoo[n] for n in ('digits','letters','signs')], digits_dls(n=5, seed=0, num_workers=0)[1][:300],
                    Store(folder/'store', chunk=16), bs=16, num_workers=1, progress=False)

def bench(folder):
    "Two methods, three seeds"
    s = digits_suite(n_epoch=1, epoch_len=25)
    run_suite(s, folder/'out', methods=['transfer','weighted'], store=folder/'store', progress=False)

def training(folder):
    "Eight epochs of three batches, with an average of the weights and a log; the weights are written at the end"
    with no_random(0):
        dls,pool = digits_dls(n=5, seed=0, bs=16, num_workers=0)
        learn = distill_learner(dls, pool, Zoo.embedded()['digits'], 'test_efficientnet', pretrained=False,
                                path=folder, store=folder.parent/'store', progress=False,
                                epoch_len=48, metrics=accuracy, cbs=[EMA(.9), CSVLogger()])
        learn.dls.valid.n = 64 # a short validation
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, 4e-3, cbs=Resume('run'))
    torch.save(dict(weights=learn.model.state_dict(), losses=torch.stack([*learn.recorder.losses]).as_subclass(
            torch.Tensor), values=[[float(o) for o in v] for v in learn.recorder.values]), folder/'end.pt')

if __name__ == '__main__':
    print('ready', flush=True)
    for line in iter(sys.stdin.readline, ''):
        job,folder = line.split()
        if not (pid := os.fork()):
            sys.stdin.close()
            globals()[job](Path(folder))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
