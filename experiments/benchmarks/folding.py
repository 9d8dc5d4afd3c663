"""Speed of folding prompts into moments, relative to reading them once and to the matrix products alone."""

from __future__ import annotations

from collections.abc import Iterator

import jax

import icl_theory as icl
from experiments.benchmarks.row import NUM_CONTEXT, Row, gemm_peak, median_seconds, memory_bandwidth, mixture
from icl_theory.models.cubic_features import num_features

COUNTS = {4: 200_000, 8: 50_000}  # prompts, by D


def folding_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure prompts of D = 4 and D = 8 with all features; moments are summed in float64 at either precision."""
    with jax.enable_x64(True):
        peak = gemm_peak()
    bandwidth = memory_bandwidth()
    yield Row("this machine", "matrix product, float64", peak / 1e9, "GFLOP/s")
    yield Row("this machine", f"sum of an array, {dtype}", bandwidth / 1e9, "GB/s")
    for dim, most in COUNTS.items():
        count = 1000 if quick else most
        prompts = icl.sample_prompts(mixture(dim), count, key=jax.random.key(0))
        seconds = median_seconds(lambda prompts=prompts: icl.prompt_moments(prompts).gram, 3)  # type: ignore[misc]
        read = prompts.x.dtype.itemsize * (NUM_CONTEXT + 1) * (dim + 1) / bandwidth
        products = 2 * num_features(dim, "full") ** 2 / peak
        setting = f"{count:,} prompts, D = {dim}"
        yield Row(setting, "full features", count / seconds / 1e6, "10⁶ prompts/s")
        yield Row(setting, "of reading the prompts once", 100 * read * count / seconds, "%")
        yield Row(setting, "of the products alone", 100 * products * count / seconds, "%")
