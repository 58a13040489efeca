"Students: what cannot be built or started is refused by name"
import pytest, timm, torch
from fastai.vision.all import resnet18
from distill_nb.student import create_student

start = timm.create_model('test_efficientnet', num_classes=37).state_dict()

@pytest.mark.parametrize('kwargs,words', [
    (dict(arch='test_efficientnet', start='nowhere.safetensors'), 'no checkpoint'),
    (dict(arch='test_eficientnet', pretrained=False), 'Nearest: test_efficientnet'),
    (dict(arch='tf_efficientnet_lite0', pretrained=False, stages=6), '1 to 5'),
    (dict(arch=resnet18, pretrained=False, stages=2), 'stages'),
    (dict(arch='tf_efficientnet_lite0', start=start, stages=4), 'start'),
    (dict(arch='inception_v4', pretrained=False, size=32), '32×32 px, and inception_v4, made for 299 px')])
def test_refused(kwargs, words):
    with pytest.raises(Exception, match=words): create_student(n_out=10, **kwargs)

def test_a_classifier_that_is_no_plain_layer():
    student = create_student('efficientvit_m0', 3, pretrained=False, size=64)
    assert student(torch.rand(2, 3, 64, 64)).shape == (2,3)
