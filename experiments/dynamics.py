"""Does training follow the reduced systems, the flows and the closed-form learning times?"""

from experiments.experiment import Experiment
from icl_theory.verification import dynamics

EXPERIMENT = Experiment.of_claim(
    dynamics.CLAIM,
    "Does training follow the reduced systems, the flows and the closed-form learning times?",
)
