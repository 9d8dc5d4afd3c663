"""Do the closed forms of the population loss, its gradient and E[ββᵀ] agree with Monte Carlo and autodiff?"""

from experiments.experiment import Experiment
from icl_theory.verification import closed_forms

EXPERIMENT = Experiment.of_claim(
    closed_forms.CLAIM,
    "Do the closed forms of the population loss, its gradient and E[ββᵀ] agree with Monte Carlo and autodiff?",
)
