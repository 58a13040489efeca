"Cards of images with what sources take them for"
import numpy as np, torch
from PIL import Image
from distill_nb.browse import LabelBrowser

def browser(images, classes=None, vocab=('cat','dog')):
    n = len(images)
    probes = torch.tensor([[[.8,.2]]*n, [[.4,.6]]*n])
    own = [torch.eye(3)[:1].repeat(n, 1), None]
    return LabelBrowser(images, ['a','b'], np.array([.75,.25]), own, probes, [classes,None], list(vocab))

def test_a_file_goes_by_its_name(tmp_path):
    (tmp_path/'birds').mkdir()
    Image.new('RGB', (30,10)).save(tmp_path/'birds'/'jay 1.png')
    html = browser([tmp_path/'birds'/'jay 1.png', np.zeros((8,8,3), np.uint8)]).to_html()
    assert 'birds/jay 1.png' in html and 'image 1' in html and 'image 0' not in html

def test_classes_have_their_names(tmp_path):
    pixels = [np.zeros((8,8,3), np.uint8)]
    long = 'n02123045 tabby, tabby cat, and more words than a card is wide'
    html = browser(pixels, [long,'b','c']).to_html()
    assert f'title="{long} 100%"' in html and f'>{long}</span><span>100%</span>' in html    # the share is not shortened
    assert 'class 0' in browser(pixels).to_html() and 'together: <b>cat 70%</b>' in browser(pixels).to_html()
