"""Is one scale per channel worth it in 8 bits? `python experiments/int8_channels.py DATA`

EfficientNet-Lite0 (DATA/weights/imagenet_lite0, batch norm, depthwise convolutions, ReLU6) with a linear probe for a head, fitted on all
training images of a target at 128 px. The graph is quantized with one scale per tensor and one per channel, ranges from 100
training images by each method. Writes `benchmarks/int8_channels.csv`: the share of the test images on which the 8-bit graph
predicts the class of the float graph, the accuracy of both, and the size of the file."""
import sys, tempfile, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import numpy as np, pandas as pd, torch
from distill_nb.estimators.probes import fit_probe
from distill_nb.export import quantize_onnx, to_onnx
from distill_nb.infer import Predictor
from distill_nb.outputs import get_outputs
from distill_nb.packs import load_pack
from distill_nb.student import create_student
from distill_nb.zoo import Zoo

def student(source, pack, size=128):
    items,y = pack.train
    x = get_outputs(source, list(items), store=False, progress=False).features.double().numpy()
    w,b = fit_probe(x, y)
    net = create_student(source.meta['arch'], len(pack.classes), start=source)
    with torch.no_grad():
        net.head.weight.copy_(w.T)
        net.head.bias.copy_(b)
    return net.eval()

if __name__=='__main__':
    data,rows = Path(sys.argv[1]),[]
    source = Zoo.checkpoints(data/'weights', size=128)['imagenet_lite0']
    for target in ('pets','flowers','birds'):
        pack = load_pack(data/'targets'/f'{target}.npz')
        (train,_),(test,y) = pack.train,pack.test
        test = list(test)
        some = [train[int(i)] for i in np.random.default_rng(0).permutation(len(train))[:100]]
        with tempfile.TemporaryDirectory() as d:
            graph,small = Path(d)/'s.onnx',Path(d)/'s8.onnx'
            to_onnx(student(source, pack), graph, size=128, mean=source.mean, std=source.std)
            p = Predictor(graph)(test).argmax(1)
            for method in ('minmax','entropy','percentile'):
                for per_channel in (False,True):
                    quantize_onnx(graph, small, some, method, per_channel=per_channel)
                    q = Predictor(small)(test).argmax(1)
                    rows.append(dict(target=target, method=method, per_channel=per_channel, agreement=(p==q).mean(),
                                     accuracy=(q==y).mean(), accuracy_float=(p==y).mean(), n=len(y), MB=small.stat().st_size/1e6))
                    print(rows[-1], flush=True)
    pd.DataFrame(rows).round(4).to_csv(Path(__file__).parent.parent/'benchmarks'/'int8_channels.csv', index=False)
