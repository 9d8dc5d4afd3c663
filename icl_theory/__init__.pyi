"""The public names, by stage. Each is imported where it is first used."""

# Tasks: what is asked
from .tasks.features import (
    Features as Features,
    GroupFeatures as GroupFeatures,
    find_features as find_features,
    find_group_features as find_group_features,
)
from .tasks.mixture import TaskDistribution as TaskDistribution, TaskMixture as TaskMixture
from .tasks.prompts import (
    Prompts as Prompts,
    at_context_lengths as at_context_lengths,
    concatenate_prompts as concatenate_prompts,
)
from .tasks.sampling import sample_prompt_chunks as sample_prompt_chunks, sample_prompts as sample_prompts
from .tasks.spectra import (
    linear_spectrum as linear_spectrum,
    power_law_spectrum as power_law_spectrum,
    random_basis as random_basis,
    white_spectrum as white_spectrum,
)

# Models
from .models.attention import MergedAttention as MergedAttention, SeparateAttention as SeparateAttention
from .models.cubic_features import cubic_features as cubic_features
from .models.cubic_mlp import CubicFeatureMLP as CubicFeatureMLP
from .models.parameters import (
    aligned_parameters as aligned_parameters,
    merge_model as merge_model,
    split_model as split_model,
    widen_parameters as widen_parameters,
)
from .models.zsls25 import from_zsls25 as from_zsls25

# Moments: what linear attention sees of data
from .moments.compressed_prompts import CompressedPrompts as CompressedPrompts, compress as compress
from .moments.empirical import (
    Moments as Moments,
    load_moments as load_moments,
    moment_sums as moment_sums,
    prompt_moments as prompt_moments,
)
from .moments.estimated_features import estimate_features as estimate_features
from .moments.mixture_moments import MomentsMixture as MomentsMixture, mixture_moments as mixture_moments
from .moments.precision import PrecisionWarning as PrecisionWarning
from .moments.population import (
    population_force as population_force,
    population_loss as population_loss,
    population_moments as population_moments,
)
from .moments.population_full import full_population_moments as full_population_moments

# Training
from .training.sam import perturb as perturb, sam as sam, unnormalised_sam as unnormalised_sam
from .training.losses import MomentsLoss as MomentsLoss, PromptsLoss as PromptsLoss, make_loss as make_loss
from .training.gradient_descent import gd as gd
from .training.minibatches import Minibatches as Minibatches, make_minibatch_loss as make_minibatch_loss
from .training.muon import muon as muon
from .training.run import Run as Run
from .training.tracked import (
    EffectiveMatrix as EffectiveMatrix,
    EffectiveTensor as EffectiveTensor,
    FeatureStrength as FeatureStrength,
)
from .training.train import train as train, train_many as train_many

# Analysis: what was learned when
from .analysis.intervals import median_interval as median_interval
from .analysis.learning_times import learning_times as learning_times
from .analysis.plateaus import find_plateaus as find_plateaus
from .analysis.simplicity_bias import SimplicityBias as SimplicityBias, simplicity_bias as simplicity_bias
from .analysis.trajectory import (
    Comparison as Comparison,
    Dynamics as Dynamics,
    Trajectory as Trajectory,
    compare as compare,
)

# Theory: what should be learned when
from .theory.adaptive_speeds import group_speed as group_speed, upsampling_exponent as upsampling_exponent
from .theory.aligned_adam import AlignedAdam as AlignedAdam
from .theory.aligned_dynamics import (
    AlignedClosedForm as AlignedClosedForm,
    AlignedDescent as AlignedDescent,
    AlignedFlow as AlignedFlow,
    Ascent as Ascent,
)
from .theory.aligned_muon import AlignedMuon as AlignedMuon
from .theory.fixed_points import nested_plateau_losses as nested_plateau_losses, plateau_loss as plateau_loss
from .theory.head_escape import escape_time as escape_time
from .theory.hitting_time import hitting_time as hitting_time
from .theory.merged_dynamics import MergedFlow as MergedFlow, MergedLogistic as MergedLogistic
from .theory.moment_flow import MomentFlow as MomentFlow
from .theory.random_start_cascade import RandomStartCascade as RandomStartCascade
from .theory.upsampling import (
    path_matched_factors as path_matched_factors,
    two_phase_factor as two_phase_factor,
    upsampled_learning_times as upsampled_learning_times,
    upsampled_loss as upsampled_loss,
)

# Upsampling: teach sooner what is learned late
from .upsampling.factor import (
    early_group as early_group,
    example_copies as example_copies,
    example_weights as example_weights,
    excess_factor as excess_factor,
    learning_time_ratio as learning_time_ratio,
    random_group as random_group,
    ratio_factor as ratio_factor,
    sam_equivalent_factor as sam_equivalent_factor,
    secant_factor as secant_factor,
)
from .upsampling.lateness import (
    example_learning_times as example_learning_times,
    late_by_clustering as late_by_clustering,
    late_by_quantile as late_by_quantile,
    late_by_threshold as late_by_threshold,
    relative_losses as relative_losses,
    trajectory_clusters as trajectory_clusters,
)
from .upsampling.loss_record import LossRecord as LossRecord
from .upsampling.ratio_clusters import late_by_loss_ratios as late_by_loss_ratios, loss_ratios as loss_ratios
from .upsampling.record_comparison import LossComparison as LossComparison, compare_losses as compare_losses
from .upsampling.noise_scale import (
    NoiseScale as NoiseScale,
    load_noise_scale as load_noise_scale,
    save_noise_scale as save_noise_scale,
)
from .upsampling.record_files import (
    LossRecorder as LossRecorder,
    load_loss_record as load_loss_record,
    save_loss_record as save_loss_record,
)
from .upsampling.rule import Upsampling as Upsampling, upsample as upsample

# Simulation and sweeps: runs from settings
from .simulation.config import GroupConfig as GroupConfig, RunConfig as RunConfig
from .simulation.simulate import simulate as simulate
from .simulation.simulation import Simulation as Simulation
from .sweeps.folder import open_sweep as open_sweep
from .sweeps.run_sweep import sweep as sweep
from .sweeps.specification import Sweep as Sweep

# Errors
from . import llm as llm
from .errors import DivergenceError as DivergenceError, IclTheoryError as IclTheoryError, InputError as InputError

__version__: str
