"""A pass over images on a local Dask cluster of two worker processes, one of which is killed on the way; run by
test_many_machines.py with a store's folder as argument"""
import os, signal, sys, threading, time, warnings
warnings.simplefilter('ignore')
import joblib, numpy as np, torch
from torch import nn
from dask.distributed import Client, LocalCluster
from distill_nb.store import Store
from distill_nb.outputs import compute_outputs, get_outputs
from distill_nb.sources import Source

class Slow(nn.Module):
    "Takes its time, and leaves a file for each batch that says which process ran it"
    def __init__(self, folder, c):
        super().__init__()
        torch.manual_seed(c)
        self.folder,self.m = folder,nn.Sequential(nn.Flatten(), nn.Linear(192,6), nn.Linear(6,c))
    def forward(self, x):
        open(f'{self.folder}/{os.getpid()}-{time.time_ns()}', 'w').close()
        time.sleep(.1)
        return self.m(x)

def pids(folder): return [int(o.split('-')[0]) for o in os.listdir(folder)]

if __name__=='__main__':
    folder = sys.argv[1]
    seen = f'{folder}/seen'
    os.makedirs(seen)
    imgs = list(np.random.default_rng(5).integers(0, 255, (120,8,8,3), dtype=np.uint8))
    sources = [Source.from_module(Slow(seen, c), .5, .5, 8, name=f'{c} classes') for c in (3,4)]
    alone = [get_outputs(s, imgs, Store(f'{folder}/alone'), bs=6, progress=False) for s in sources]
    for o in os.listdir(seen): os.unlink(f'{seen}/{o}')
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                      local_directory=f'{folder}/dask') as cluster, Client(cluster):
        victims = []
        def kill():
            while len(set(pids(seen)))<2 or len(pids(seen))<8: time.sleep(.02)
            victims.append(pids(seen)[0])
            os.kill(victims[0], signal.SIGKILL)
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        store = Store(f'{folder}/spread')
        with joblib.parallel_config(backend='dask'): failed = compute_outputs(sources, imgs, store, bs=6, block=12, progress=False)
        thread.join(1)
    there = [len(store.index(s)) for s in sources]
    for o in os.listdir(seen): os.unlink(f'{seen}/{o}')
    spread = [get_outputs(s, imgs, store, progress=False) for s in sources]
    same = all(torch.equal(a.features, b.features) and torch.equal(a.logits, b.logits) for a,b in zip(alone, spread))
    print(dict(killed=len(victims), failed=failed, there=there, computed_again=len(os.listdir(seen)), same=same,
               here=os.getpid() in victims))
