"""From random starts, are features learned simple first, and at the predicted plateau losses?"""

from experiments.experiment import Experiment
from icl_theory.verification import random_initialisation

EXPERIMENT = Experiment.of_claim(
    random_initialisation.CLAIM,
    "From random starts, are features learned simple first, and at the predicted plateau losses?",
)
