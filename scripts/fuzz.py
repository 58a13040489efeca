"""Coverage-guided fuzzing of what reads files that others may have written: manifests, headers of students, chunks of
the store, files of `Resume`.

    pip install atheris
    python scripts/fuzz.py --seconds 60            # all readers, one after the other; a row each with --csv
    python scripts/fuzz.py manifest --seconds 600

A reader may give a result or refuse with ValueError, TypeError, FileNotFoundError; whatever else it raises ends the
run, and the input is kept in the folder `crashes`."""
import argparse, csv, json, re, subprocess, sys, tempfile, warnings
from pathlib import Path

readers = 'manifest','student','chunk','state'
allowed = ValueError,TypeError,FileNotFoundError

def seeds(reader, tmp):
    "Valid files to begin with"
    import torch
    from distill_nb.deploy import save_student
    from distill_nb.student import create_student
    from distill_nb.store import Store
    from distill_nb.resume import write_state
    from distill_nb.zoo import Zoo
    if reader == 'manifest':
        return [json.dumps(dict(good=dict(arch='test_vit', num_classes=3, mean=[.5]*3, std=[.5]*3,
                                          input_size=[3,32,32], labels=['a','b','c'], kwargs={}, crop_pct=.9))).encode()]
    if reader == 'student':
        return [save_student(create_student(torch.nn.Sequential(torch.nn.Conv2d(3,2,3)), 2), tmp/'s.safetensors',
                             labels=['a','b']).read_bytes()]
    if reader == 'state': return [write_state(tmp/'s.pt', dict(epoch=1, model=dict(w=torch.zeros(3)), rows=[[0,1.,'x']])).read_bytes()]
    return [Store(tmp).write(Zoo.embedded()['digits'], ['00'*16]*2, torch.ones(2,3), torch.ones(2,2)).read_bytes()]

def target(reader, tmp):
    "What is tried on every input"
    import torch
    if reader == 'manifest':
        from distill_nb.zoo import Zoo
        from safetensors.torch import save_file
        save_file(dict(w=torch.zeros(3)), tmp/'good.safetensors')
        def read(data):
            (tmp/'manifest.json').write_bytes(data)
            Zoo.checkpoints(tmp)
    elif reader == 'student':
        from distill_nb.deploy import student_meta
        def read(data):
            (tmp/'s.safetensors').write_bytes(data)
            student_meta(tmp/'s.safetensors')
    elif reader == 'state':
        from distill_nb.resume import read_state
        import hashlib
        def read(data):                                  # with the right checksum every other time: it must not be the only guard
            if data[:1] and data[0]%2: data = hashlib.blake2b(data[16:], digest_size=16).digest()+data[16:]
            (tmp/'s.pt').write_bytes(data)
            read_state(tmp/'s.pt')
    else:
        from distill_nb.files import digest
        from distill_nb.store import Store
        from distill_nb.zoo import Zoo
        store,src = Store(tmp),Zoo.embedded()['digits']
        folder = store.folder(src)
        folder.mkdir(parents=True, exist_ok=True)
        def read(data):
            path = folder/f'chunk-{digest(data)}.safetensors'
            path.write_bytes(data)
            for _ in store.rows(src, ['00'*16]*2): pass
            path.unlink(missing_ok=True)
    def once(data):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: read(data)
            except allowed: pass
    return once

def fuzz(reader, seconds, crashes):
    import atheris
    with atheris.instrument_imports(include=['distill_nb.outputs','distill_nb.sources','distill_nb.deploy',
                                             'distill_nb.resume','json','safetensors']):
        pass
    tmp = Path(tempfile.mkdtemp())
    (tmp/'seeds').mkdir()
    (tmp/'work').mkdir()
    for i,s in enumerate(seeds(reader, tmp/'work')): (tmp/'seeds'/str(i)).write_bytes(s)
    crashes.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], f'-max_total_time={seconds}', '-max_len=8192', '-print_final_stats=1',
                   '-rss_limit_mb=8192', f'-artifact_prefix={crashes}/{reader}-', str(tmp/'seeds')], target(reader, tmp/'work'))
    atheris.Fuzz()

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('reader', nargs='?', choices=readers)
    ap.add_argument('--seconds', type=int, default=60)
    ap.add_argument('--crashes', type=Path, default=Path('crashes'))
    ap.add_argument('--csv')
    a = ap.parse_args()
    if a.reader: fuzz(a.reader, a.seconds, a.crashes)
    for reader in () if a.reader else readers:
        p = subprocess.run([sys.executable, __file__, reader, '--seconds', str(a.seconds), '--crashes',
                            str(a.crashes)], stderr=subprocess.PIPE, text=True)
        runs = re.search(r'number_of_executed_units: (\d+)', p.stderr)
        print(reader, runs[1] if runs else '?', 'inputs', 'ok' if p.returncode == 0 else f'FAILED\n{p.stderr[-3000:]}', flush=True)
        if a.csv and p.returncode == 0:
            with open(a.csv, 'a', newline='') as f:
                csv.writer(f).writerow(['fuzz',
                                        f'reader of {reader}s: random files, led by coverage, for {a.seconds} s',
                                        'a result or a refusal, every time', runs[1]])
