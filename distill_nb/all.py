"`from distill_nb.all import *`: fastai's vision, and what a notebook user types of this package"
from fastai.vision.all import *
from distill_nb.images import ImageView, KeptDL, KeptImages, OpenImage, check_images, image_key, open_image
from distill_nb.data import *
from distill_nb.preprocess import preprocessing
from distill_nb.tasks import *
from distill_nb.sources import *
from distill_nb.outputs import *
from distill_nb.similarity import *
from distill_nb.weights import *
from distill_nb.distill import *
from distill_nb.optimizer import FusedAdam
from distill_nb.fixmatch import *
from distill_nb.learner import *
from distill_nb.resume import Resume
from distill_nb.plots import *
from distill_nb.calibrate import *
from distill_nb.deploy import *
from distill_nb.infer import Predictor
from distill_nb.bench import *
from distill_nb.suites import *
from distill_nb.explore import *
