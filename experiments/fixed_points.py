"""Are all 2^D predicted points fixed points of the separate model, and only two of the merged one?"""

from experiments.experiment import Experiment
from icl_theory.verification import fixed_points

EXPERIMENT = Experiment.of_claim(
    fixed_points.CLAIM,
    "Are all 2^D predicted points fixed points of the separate model, and only two of the merged one?",
)
