"""Does upsampling what is learned late lower simplicity bias (claim C), by how much, and what does it cost?"""

from experiments.experiment import Experiment
from icl_theory.verification import upsampling

EXPERIMENT = Experiment.of_claim(
    upsampling.CLAIM,
    "Does upsampling what is learned late lower simplicity bias (claim C), by how much, and what does it cost?",
)
