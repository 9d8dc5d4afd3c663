"""See and check what linear attention learns first, under gradient descent and sharpness-aware minimization.

The public face: everything below is importable from `icl_theory`; predictions live in `icl_theory.theory`, the
verification table in `icl_theory.verification`. Importing never changes jax's precision.
"""

from importlib.metadata import version

from icl_theory.analysis import (
    SimplicityBias,
    example_learning_times,
    find_plateaus,
    learning_times,
    median_interval,
    simplicity_bias,
)
from icl_theory.attention import (
    CubicFeatureMLP,
    MergedAttention,
    SeparateAttention,
    aligned_parameters,
    merge_model,
    split_model,
)
from icl_theory.config import GroupConfig, RunConfig
from icl_theory.cubic import cubic_features, num_features
from icl_theory.errors import DivergenceError, IclTheoryError, InputError
from icl_theory.examples import Examples, compress
from icl_theory.features import Features, find_features
from icl_theory.losses import (
    EffectiveMatrix,
    EffectiveTensor,
    MomentsLoss,
    MomentsMixture,
    PromptsLoss,
    make_loss,
    mixture_moments,
)
from icl_theory.moments import Moments, PrecisionWarning, load_moments, moment_sums, prompt_moments
from icl_theory.prompts import (
    PromptKeys,
    Prompts,
    at_context_lengths,
    concatenate_prompts,
    sample_prompt_chunks,
    sample_prompts,
)
from icl_theory.run import Run, snapshot_schedule
from icl_theory.sharpness import gd, perturb, sam, unnormalised_sam
from icl_theory.simulate import Simulation, simulate
from icl_theory.spectra import linear_spectrum, power_law_spectrum, random_basis, white_spectrum
from icl_theory.tasks import TaskDistribution, TaskMixture
from icl_theory.theory.aligned import AlignedClosedForm, AlignedDescent, AlignedFlow, Ascent
from icl_theory.theory.fixed_points import nested_plateau_losses, plateau_loss
from icl_theory.theory.gaussian_moments import full_population_moments
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.theory.merged import MergedFlow, MergedLogistic
from icl_theory.theory.population import population_force, population_loss, population_moments
from icl_theory.training import train, train_many
from icl_theory.trajectory import Comparison, Dynamics, Trajectory, compare

__version__ = version("icl-theory")

__all__ = [
    "AlignedClosedForm",
    "AlignedDescent",
    "AlignedFlow",
    "Ascent",
    "Comparison",
    "CubicFeatureMLP",
    "DivergenceError",
    "Dynamics",
    "EffectiveMatrix",
    "EffectiveTensor",
    "Examples",
    "Features",
    "GroupConfig",
    "IclTheoryError",
    "InputError",
    "MergedAttention",
    "MergedFlow",
    "MergedLogistic",
    "Moments",
    "MomentsLoss",
    "MomentsMixture",
    "PrecisionWarning",
    "PromptKeys",
    "Prompts",
    "PromptsLoss",
    "Run",
    "RunConfig",
    "SeparateAttention",
    "SimplicityBias",
    "Simulation",
    "TaskDistribution",
    "TaskMixture",
    "Trajectory",
    "__version__",
    "aligned_parameters",
    "at_context_lengths",
    "compare",
    "compress",
    "concatenate_prompts",
    "cubic_features",
    "example_learning_times",
    "find_features",
    "find_plateaus",
    "full_population_moments",
    "gd",
    "hitting_time",
    "learning_times",
    "linear_spectrum",
    "load_moments",
    "make_loss",
    "median_interval",
    "merge_model",
    "mixture_moments",
    "moment_sums",
    "nested_plateau_losses",
    "num_features",
    "perturb",
    "plateau_loss",
    "population_force",
    "population_loss",
    "population_moments",
    "power_law_spectrum",
    "prompt_moments",
    "random_basis",
    "sam",
    "sample_prompt_chunks",
    "sample_prompts",
    "simplicity_bias",
    "simulate",
    "snapshot_schedule",
    "split_model",
    "train",
    "train_many",
    "unnormalised_sam",
    "white_spectrum",
]
