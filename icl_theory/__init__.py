"""See and check what linear attention learns first, under gradient descent and sharpness-aware minimization.

The public face: everything below is importable from `icl_theory`; predictions and every
formula are in `icl_theory.theory`, the verification table in `icl_theory.verification`, sweeps in `icl_theory.sweeps`, the rule for
other people's trainers in `icl_theory.finetuning`, language models in `icl_theory.llm`, pictures in `icl_theory.plotting`. Importing
never changes jax's precision.
"""

from importlib.metadata import version

from icl_theory.analysis import (
    SimplicityBias,
    find_plateaus,
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
from icl_theory.features import Features, GroupFeatures, find_features, find_group_features
from icl_theory.finetuning.loss_record import LossRecord
from icl_theory.finetuning.record_files import LossRecorder, load_loss_record, save_loss_record
from icl_theory.finetuning.rule import Upsampling, upsample
from icl_theory.lateness import (
    Clusters,
    example_learning_times,
    late_by_clustering,
    late_by_quantile,
    late_by_threshold,
    learning_times,
    relative_losses,
    trajectory_clusters,
)
from icl_theory.losses import (
    EffectiveMatrix,
    EffectiveTensor,
    FeatureStrength,
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
from icl_theory.sweeps.folder import open_sweep
from icl_theory.sweeps.run import sweep
from icl_theory.sweeps.specification import Sweep
from icl_theory.tasks import TaskDistribution, TaskMixture
from icl_theory.theory.aligned import AlignedClosedForm, AlignedDescent, AlignedFlow, Ascent
from icl_theory.theory.fixed_points import nested_plateau_losses, plateau_loss
from icl_theory.theory.gaussian_moments import full_population_moments
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.theory.merged import MergedFlow, MergedLogistic
from icl_theory.theory.moment_flow import MomentFlow
from icl_theory.theory.population import population_force, population_loss, population_moments
from icl_theory.theory.upsampling import (
    path_matched_factors,
    two_phase_factor,
    upsampled_learning_times,
    upsampled_loss,
)
from icl_theory.training import train, train_many
from icl_theory.trajectory import Comparison, Dynamics, Trajectory, compare
from icl_theory.upsampling import (
    early_group,
    example_copies,
    example_weights,
    learning_time_ratio,
    random_group,
    ratio_factor,
    sam_equivalent_factor,
    secant_factor,
)

__version__ = version("icl-theory")

__all__ = [
    "AlignedClosedForm",
    "AlignedDescent",
    "AlignedFlow",
    "Ascent",
    "Clusters",
    "Comparison",
    "CubicFeatureMLP",
    "DivergenceError",
    "Dynamics",
    "EffectiveMatrix",
    "EffectiveTensor",
    "Examples",
    "FeatureStrength",
    "Features",
    "GroupConfig",
    "GroupFeatures",
    "IclTheoryError",
    "InputError",
    "LossRecord",
    "LossRecorder",
    "MergedAttention",
    "MergedFlow",
    "MergedLogistic",
    "MomentFlow",
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
    "Sweep",
    "TaskDistribution",
    "TaskMixture",
    "Trajectory",
    "Upsampling",
    "__version__",
    "aligned_parameters",
    "at_context_lengths",
    "compare",
    "compress",
    "concatenate_prompts",
    "cubic_features",
    "early_group",
    "example_copies",
    "example_learning_times",
    "example_weights",
    "find_features",
    "find_group_features",
    "find_plateaus",
    "full_population_moments",
    "gd",
    "hitting_time",
    "late_by_clustering",
    "late_by_quantile",
    "late_by_threshold",
    "learning_time_ratio",
    "learning_times",
    "linear_spectrum",
    "load_loss_record",
    "load_moments",
    "make_loss",
    "median_interval",
    "merge_model",
    "mixture_moments",
    "moment_sums",
    "nested_plateau_losses",
    "num_features",
    "open_sweep",
    "path_matched_factors",
    "perturb",
    "plateau_loss",
    "population_force",
    "population_loss",
    "population_moments",
    "power_law_spectrum",
    "prompt_moments",
    "random_basis",
    "random_group",
    "ratio_factor",
    "relative_losses",
    "sam",
    "sam_equivalent_factor",
    "sample_prompt_chunks",
    "sample_prompts",
    "save_loss_record",
    "secant_factor",
    "simplicity_bias",
    "simulate",
    "snapshot_schedule",
    "split_model",
    "sweep",
    "train",
    "train_many",
    "trajectory_clusters",
    "two_phase_factor",
    "unnormalised_sam",
    "upsample",
    "upsampled_learning_times",
    "upsampled_loss",
    "white_spectrum",
]
