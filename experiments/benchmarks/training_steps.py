"""Cost of one step of training: on moments, through all prompts, and in an eager PyTorch loop.

Compilation and everything else around the steps is subtracted or reported in a row of its own.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

import icl_theory as icl
from experiments.benchmarks.row import NUM_CONTEXT, NUM_HEADS, REPEATS, Row, all_seconds, median_seconds, mixture, model

COUNTS = (10**3, 10**4, 10**5, 10**6)
THROUGH_PROMPTS = 10**4  # most prompts for a step through all of them; beyond, its time grows as P
COMPARED = {"every token": 5, "query only": 50}  # steps of the eager loop
LEARNING_RATE = 0.02


def step_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure steps at growing P, then compare with PyTorch."""
    yield from prompts_against_moments(COUNTS[:1] if quick else COUNTS)
    yield from whole_run(1000 if quick else 20_000)


def step_seconds(loss: Any, params: Any, num_steps: int, repeats: int = REPEATS) -> tuple[float, float]:
    """Return (seconds per step, seconds of compilation) of plain gradient descent.

    The time of a step comes from the difference between 2n and n steps, in which all overheads cancel.
    """
    jax.clear_caches()

    def go(steps: int) -> Any:
        rate = {"learning_rate": 1e-3}
        return icl.train(loss, params, hyperparameters=rate, num_steps=steps, num_snapshots=2).loss

    first, *others = all_seconds(partial(go, num_steps), repeats)
    once = statistics.median(others)
    return (median_seconds(partial(go, 2 * num_steps), repeats) - once) / num_steps, first - once


def prompts_against_moments(counts: tuple[int, ...]) -> Iterator[Row]:
    """Compare a step through all prompts with one on their moments, for growing P."""
    steps = []
    for count in counts:
        setting = f"P = {count:,}"
        draw = partial(icl.sample_prompt_chunks, mixture(4), count, key=jax.random.key(0))
        fast, compiled = step_seconds(*icl.make_loss(model(4), icl.prompt_moments(draw())), num_steps=20_000)
        steps.append(fast)
        yield Row(setting, "on moments", 1e6 * fast, "µs", less=True)
        yield Row(setting, "on moments: compilation", compiled, "s", less=True)
        if count <= THROUGH_PROMPTS:
            prompts = icl.concatenate_prompts(list(draw()))
            loss, params = icl.make_loss(model(4), prompts, engine="prompts")
            slow, compiled = step_seconds(loss, params, 10**5 // count, repeats=3)
            yield Row(setting, "through prompts", 1e6 * slow, "µs", less=True)
            yield Row(setting, "through prompts: compilation", compiled, "s", less=True)
            yield Row(setting, "through prompts / on moments", slow / fast, "x")
    yield Row("growing P", "slowest / fastest on moments", max(steps) / min(steps), "x", 1.25, less=True)


def whole_run(num_steps: int) -> Iterator[Row]:
    """Measure a whole run with folding and compilation; with PyTorch installed, the same model in an eager loop too."""
    count, dim = 5000, 4
    setting = f"P = {count:,}, N = {NUM_CONTEXT}, {NUM_HEADS} heads"
    prompts = icl.sample_prompts(mixture(dim), count, key=jax.random.key(0))
    jax.clear_caches()
    began = time.perf_counter()
    built = icl.prompt_moments(prompts)
    folded = time.perf_counter() - began
    loss, params = icl.make_loss(model(dim, init_scale=0.3), built)
    rate = {"learning_rate": LEARNING_RATE}
    learned = icl.train(loss, params, hyperparameters=rate, num_steps=6001, num_snapshots=601).loss
    whole = time.perf_counter() - began
    yield Row(setting, "folding, with compilation", folded, "s", less=True)
    yield Row(setting, "folding, compilation, 6001 steps, 601 snapshots", whole, "s", 2.0, less=True)
    yield Row(setting, "loss after them / before", learned[-1] / learned[0], "x", less=True)
    fast, _ = step_seconds(loss, params, num_steps)
    yield Row(setting, "on moments", 1e6 * fast, "µs", less=True)
    if importlib.util.find_spec("torch") is not None:
        yield from against_torch(setting, prompts, loss, params, fast)


def against_torch(setting: str, prompts: Any, loss: Any, params: Any, fast: float) -> Iterator[Row]:
    """Time the same model from the same weights in an eager loop, and compare its losses with ours."""
    import torch

    exact = 1e-4 if prompts.x.dtype == np.float32 else 1e-10
    for name, predict in torch_models(prompts).items():
        merged = torch.tensor(np.asarray(params["merged"]))
        value = torch.zeros(*merged.shape, dtype=merged.dtype)
        value[:, -1] = torch.tensor(np.asarray(params["value"]))
        theirs: list[float] = []
        step = eager_step(predict, [merged.requires_grad_(), value.requires_grad_()], prompts.y_query, theirs)
        compared = COMPARED[name]
        slow = median_seconds(step, compared)
        rate = {"learning_rate": LEARNING_RATE}
        ours = icl.train(loss, params, hyperparameters=rate, num_steps=compared, num_snapshots=compared + 1).loss
        apart = float(np.max(np.abs(theirs / ours - 1)))
        reach = 5e4 if name == "every token" else None
        yield Row(setting, f"eager torch, {name}", 1e6 * slow, "µs", less=True)
        yield Row(setting, f"eager torch, {name} / on moments", slow / fast, "x", reach)
        yield Row(setting, f"{name}: {compared} losses apart by at most", apart, "relative", exact, less=True)
        yield Row(setting, f"{name}: loss after them / before", ours[-1] / ours[0], "x", less=True)


def torch_models(prompts: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """Return two ways to predict for all prompts from merged and value weights."""
    import torch

    tokens = torch.tensor(np.asarray(prompts.tokens))

    def every_token(merged: Any, value: Any) -> Any:
        """Compute the whole attention output and read its last entry, as the public code does."""
        scores = torch.einsum("phqe,pne->phqn", torch.einsum("pqf,hef->phqe", tokens, merged), tokens)
        read = torch.einsum("pne,hde->phnd", tokens, value)
        return (scores @ read).sum(dim=1)[:, -1, -1] / NUM_CONTEXT

    def query_only(merged: Any, value: Any) -> Any:
        """Compute only what the loss needs."""
        turned = torch.einsum("pf,hef->phe", tokens[:, -1], merged)
        scores, read = turned @ tokens.mT, torch.einsum("pne,he->phn", tokens, value[:, -1])
        return (scores * read).sum(dim=(1, 2)) / NUM_CONTEXT

    return {"every token": every_token, "query only": query_only}


def eager_step(predict: Callable[[Any, Any], Any], weights: list[Any], target: Any, losses: list[float]) -> Any:
    """Return a function that appends the loss to `losses` and takes one step of plain gradient descent."""
    import torch

    wanted = torch.tensor(np.asarray(target))
    optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        error = torch.nn.functional.mse_loss(predict(*weights), wanted)
        losses.append(error.item())
        error.backward()
        optimizer.step()

    return step
