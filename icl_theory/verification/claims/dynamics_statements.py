"""Statements about training and its reduced systems, flows and closed forms."""

from __future__ import annotations

import numpy as np
import xarray as xr

from icl_theory.models.cubic_mlp import CubicFeatureMLP
from icl_theory.tasks.features import find_features
from icl_theory.theory.aligned_dynamics import AlignedDescent, AlignedFlow
from icl_theory.theory.hitting_time import fraction_at_time, hitting_time
from icl_theory.theory.merged_dynamics import MergedFlow, MergedLogistic
from icl_theory.verification.statements import Statements

table = Statements("dynamics", source="notes §5")


@table.at_most(
    "Aligned, balanced rank-one attention under GD follows the reduced system (largest relative deviation)",
    bound=1e-12,
    predictor=AlignedDescent,
    figure="feature_strengths",
)
def gd_follows_the_reduced_system(data: xr.Dataset) -> xr.DataArray:
    return data.deviation.sel(optimizer="gd")


@table.at_most(
    "Aligned, balanced rank-one attention under normalised SAM follows the reduced system until the first "
    "feature has 95 % of its optimum",
    bound=1e-12,
    source="notes §6",
    predictor=AlignedDescent,
    figure="feature_strengths",
)
def sam_follows_the_reduced_system(data: xr.Dataset) -> xr.DataArray:
    return data.deviation.sel(optimizer="sam")


@table.at_most(
    "Aligned, balanced rank-one attention under unnormalised SAM follows the reduced system along the whole trajectory",
    bound=1e-12,
    source="notes §6",
    predictor=AlignedDescent,
)
def unnormalised_sam_follows_the_reduced_system(data: xr.Dataset) -> xr.DataArray:
    return data.deviation.sel(optimizer="unnormalised_sam")


@table.agrees(
    "The distance between GD and its flow falls with slope 1 in η (log-log)", atol=0.05, predictor=AlignedFlow
)
def distance_to_the_flow_falls_with_slope_one(data: xr.Dataset) -> tuple[float, float]:
    return 1.0, np.polyfit(np.log(data.learning_rate.values), np.log(data.distance_to_flow.values), 1)[0]


@table.at_most(
    "The closed form F(z) solves the flow (largest relative deviation from the ODE solver)",
    bound=1e-7,
    predictor=fraction_at_time,
)
def closed_form_solves_the_flow(data: xr.Dataset) -> xr.DataArray:
    return data.closed_form_deviation


@table.agrees("GD at η = 0.01 learns every feature at the closed-form hitting time", rtol=5e-3, predictor=hitting_time)
def learned_at_the_hitting_time(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.hitting_time, data.learning_time


@table.agrees("From a small start t_2/t_1 = a_1/a_2", rtol_of_largest=0.01, predictor=find_features)
def small_start_ratio_is_that_of_drives(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.drive_ratio, data.small_start_ratio


@table.at_most(
    "Merged attention from small random heads, white inputs, follows the logistic curve (no fitted number)",
    bound=0.02,
    predictor=MergedLogistic,
    figure="merged_model",
)
def merged_follows_the_logistic_curve(data: xr.Dataset) -> xr.DataArray:
    return data.merged_deviation.sel(spectrum="white")


@table.at_most(
    "Merged attention, default spectrum, follows the D+1 scalar equations (no fitted number)",
    bound=0.02,
    predictor=MergedFlow,
    figure="merged_model",
)
def merged_follows_the_scalar_equations(data: xr.Dataset) -> xr.DataArray:
    return data.merged_deviation.sel(spectrum="linear")


@table.at_most(
    "Merged attention (on moments) and the network on vec(β x_qᵀ) (on prompts) have the same W along all of training",
    bound=1e-12,
    source="notes §2; ZSLS25",
    predictor=CubicFeatureMLP,
    figure="merged_model",
)
def cubic_network_trains_alike(data: xr.Dataset) -> xr.DataArray:
    return data.network_deviation
