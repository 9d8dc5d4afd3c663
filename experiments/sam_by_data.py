"""Does gradient descent on upsampled data, with the factor derived from ρ, do what SAM does, and at what cost?"""

from experiments.experiment import Experiment
from icl_theory.verification import sam_by_data

EXPERIMENT = Experiment.of_claim(
    sam_by_data.CLAIM,
    "Does gradient descent on upsampled data, with the factor derived from ρ, do what SAM does, and at what cost?",
)
