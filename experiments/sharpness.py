"""Does SAM lower simplicity bias (claim A), from aligned and random starts, and in the merged model?"""

from experiments.experiment import Experiment
from icl_theory.verification import sharpness

EXPERIMENT = Experiment.of_claim(
    sharpness.CLAIM,
    "Does SAM lower simplicity bias (claim A), from aligned and random starts, and in the merged model?",
)
