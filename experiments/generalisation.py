"""Do SAM, upsampling and augmentation generalise better (claims B and C): where, by how much, and where not?"""

from experiments.experiment import Experiment
from icl_theory.verification import generalisation

EXPERIMENT = Experiment.of_claim(
    generalisation.CLAIM,
    "Do SAM, upsampling and augmentation generalise better (claims B and C): where, by how much, and where not?",
)
