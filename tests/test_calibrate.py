"Calibration: what are no probabilities, no labels or no student is refused by name"
import numpy as np, pytest
from torch import nn
from fastai.vision.all import CrossEntropyLossFlat, Learner
from distill_nb.calibrate import calibrate, fit_temperature, reliability
from distill_nb.packs import digits_dls
from distill_nb.student import create_student, student_splitter

@pytest.mark.parametrize('probs,labels,words', [([.5,.5], [0], r'\[n,C\]'), ([[np.nan,1.]], [0], 'NaN'), ([[.5,.5]], [2], '2 classes'),
                                                ([[.5,.5]], ['cat'], 'class index')])
def test_no_probabilities_or_labels(probs, labels, words):
    with pytest.raises(ValueError, match=words): reliability(probs, labels)

def test_no_logits():
    with pytest.raises(ValueError, match='NaN'): fit_temperature([[np.nan,1.]], [0])

def test_no_student_and_too_few_images():
    dls,_ = digits_dls(n=5, seed=0)
    learn = Learner(dls, create_student('test_efficientnet', 10, pretrained=False), splitter=student_splitter)
    with pytest.raises(ValueError, match='too few'): calibrate(learn, folds=300)
    with pytest.raises(TypeError, match='Student'):
        calibrate(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(3*32*32,10)), loss_func=CrossEntropyLossFlat()))
