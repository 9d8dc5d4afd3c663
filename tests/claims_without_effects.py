"""Data of claims as they would be without an effect, and the statements that must then fail."""

import numpy as np
import xarray as xr


def never(values):
    return xr.full_like(values, np.inf)


def unknown(values):
    return xr.full_like(values, np.nan)


def nothing_learned(data):
    """Runs from random starts that never learn a feature; of aligned starts nothing changes."""
    changed = {}
    for name, values in data.items():
        if name.startswith("aligned"):
            continue
        if name.endswith("learning_time"):
            changed[name] = never(values)
        elif name.endswith(("rank_agreement", "learning_time_ratio", "progress")):
            changed[name] = unknown(values)
    return changed


def drives_alone(data):
    """No brake on the values of softmax attention, a feature for each head, and merged heads that are balanced."""
    times, merged = data.predicted_softmax_learning_time, data.predicted_merged_learning_time
    linear = times.sel(scores="linear").values
    softmax = linear * (1.0 + 1.0 / data.context.values[:, None, None]) ** 2
    return {
        "predicted_softmax_learning_time": times.copy(data=np.stack([softmax, linear], axis=1)),
        "most_held": xr.ones_like(data.most_held),
        "predicted_merged_learning_time": merged.copy(data=np.repeat(merged.values[:, :1], 2, axis=1)),
    }


# Each claim's data without the effect, and the statements that must then fail.
NO_EFFECT = {
    "never learned from random starts": (
        "random_initialisation",
        nothing_learned,
        "learned_in_the_order_of_their_drives still_simple_first_from_a_larger_start",
    ),
    "never learned under SAM": (
        "sam_simplicity_bias",
        nothing_learned,
        "medians_agree_with_the_notes_rho_0 sam_lowers_learning_time_ratios slow_features_are_further_on "
        "merged_bias_does_not_fall merged_bias_hardly_changes",
    ),
    "nothing learned, any rank": (
        "low_rank",
        lambda data: {"learning_time": never(data.learning_time)},
        "full_heads_wait_longer_at_rank_2 full_heads_wait_longer_at_rank_4 higher_ranks_learn_the_sixth_sooner "
        "higher_ranks_lower_simplicity_bias",
    ),
    "rank does not matter": (
        "low_rank",
        lambda data: {"learning_time": data.learning_time.sel(rank=8).broadcast_like(data.learning_time)},
        "full_heads_wait_longer_at_rank_2 full_heads_wait_longer_at_rank_4 higher_ranks_learn_the_sixth_sooner "
        "higher_ranks_lower_simplicity_bias",
    ),
    "lengths do not matter": (
        "context_lengths",
        lambda data: {"difference": 0 * data.difference},
        "training_lengths_change_the_loss_on_short_contexts training_lengths_change_the_loss_on_long_contexts",
    ),
    "losses only fall": (
        "in_weight_learning",
        lambda data: {"test_loss": data.test_loss.copy(data=np.minimum.accumulate(data.test_loss.values, axis=-1))},
        "in_context_learning_is_best_midway weights_know_the_fixed_task_midway",
    ),
    "no share of any feature": (
        "softmax",
        nothing_learned,
        "simple_features_come_first_gd simple_features_come_first_sam sam_lowers_learning_time_ratios",
    ),
    "nothing learned beyond rank one": (
        "random_starts_beyond",
        nothing_learned,
        "softmax_is_slower_by_the_brake softmax_comes_to_linear_attention cascade_predicts_first_features_at_rank_2 "
        "cascade_predicts_first_features_at_rank_4 cascade_predicts_all_features_at_rank_2 "
        "cascade_predicts_all_features_at_rank_4 error_of_the_balanced_head_falls_with_the_scale "
        "error_of_the_effective_head_falls_faster effective_head_is_nearer",
    ),
    "drives alone beyond rank one": (
        "random_starts_beyond",
        drives_alone,
        "softmax_is_slower_by_the_brake one_head_takes_as_many_features_as_its_rank_2 "
        "one_head_takes_as_many_features_as_its_rank_4 error_of_the_effective_head_falls_faster "
        "effective_head_is_nearer",
    ),
    "no heads on features": (
        "weights",
        lambda data: {"head_share": xr.full_like(data.head_share, 0.5)},
        "heads_end_on_one_feature",
    ),
    "32 features never learned": (
        "many_features",
        lambda data: {
            name: never(values) if name.endswith("learning_time") else unknown(values)
            for name, values in data.items()
            if not name.startswith("predicted") and name not in ("drive", "time")
        },
        "gd_learns_when_the_map_says sam_learns_when_the_map_says sam_lowers_aligned_learning_time_ratios "
        "order_of_learning_follows_drives_gd order_of_learning_follows_drives_sam sam_lowers_learning_time_ratios "
        "learning_times_go_as_inverse_drives",
    ),
    "upsampling does nothing": (
        "adaptive_optimizers",
        lambda data: {
            name: data[name].isel({factor: 0}, drop=True).broadcast_like(data[name])
            for name, factor in (("learning_time", "factor"), ("row_time", "row_factor"), ("plane_time", "end"))
        },
        "gradient_descent_has_one_law_at_all_batch_sizes sign_descent_moves_when_a_batch_has_an_example "
        "adam_in_batches_follows_the_map_often adam_in_batches_follows_the_map_seldom adam_has_the_exponent_of_the_map "
        "adam_has_the_exponent_of_the_map_at_other_shares "
        "muon_in_batches_follows_the_map muon_feels_upsampling_in_small_batches "
        "signal_and_noise_of_examples_predict_adam weights_in_sampling_act",
    ),
    "upsampling acts in full batches, and the loss's weights do": (
        "adaptive_optimizers",
        lambda data: {
            **{
                name: data[name] * (1.0 + (data.feature == 2) / data.full_odds**0.5)
                for name in ("adam_time", "sign_time", "muon_time")
            },
            "row_time": data.row_time.sel(weighting="sampling", drop=True).broadcast_like(data.row_time),
            "short_learning_time": data.root_learning_time.broadcast_like(data.short_learning_time),
        },
        "sign_descent_learns_at_the_closed_form adam_follows_the_reduced_map muon_follows_the_reduced_map "
        "upsampling_does_nothing_in_full_batches_adam upsampling_does_nothing_in_full_batches_sign "
        "muon_changes_the_ratio_in_full_batches_as_the_map_says weights_in_the_loss_do_nothing "
        "adam_with_a_short_memory_follows_its_law law_without_memory_is_too_low",
    ),
    "plain least squares": (
        "principal_components",
        lambda data: {"difference": data.difference.isel(regression=1).broadcast_like(data.difference)},
        "predictions_are_those_of_the_fixed_point",
    ),
}
