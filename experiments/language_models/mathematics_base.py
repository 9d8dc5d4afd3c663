"""Decoders that read digits and signs, for the study of mathematical problems: new ones, and pretrained bases.

`python -m experiments.language_models.mathematics_base SIZE FILE` trains a decoder from scratch on problems that no
study tests on, most of them of the first level, and saves its weights. All seeds of a study that starts from FILE start
from them, as from a pretrained model. A few thousand problems are too few to learn arithmetic from scratch; a base has
seen hundreds of thousands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import jax
import numpy as np
from flax import nnx

from experiments.language_models.families import PLAIN_FAMILIES
from experiments.language_models.mathematics import draw_freely
from experiments.language_models.mathematics_arms import steady
from experiments.language_models.packed_trainer import PackedTrainer, Training, record_steps
from experiments.language_models.symbols import SYMBOLS, Symbols
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.progress import ProgressReport
from icl_theory.results import UNREADABLE, load_arrays, save_arrays, writing

SIZES = {"0.4M": (128, 2), "1.6M": (256, 2)}  # width and number of layers
BASE = ".npz"  # ending of files of bases
LEVELS = (0.8, 0.15, 0.05)  # share of each level in the problems of a base
SEED = 10_000  # of the problems of bases, far from those of studies
LENGTH = 64  # tokens of a row
FOLLOWED = 1000  # examples whose losses are shown along the run


def reads_symbols(model: str) -> bool:
    """Return whether a study's model reads symbols: a size in `SIZES`, or the file of a base."""
    return model in SIZES or model.endswith(BASE)


def start_of(model: str, seed: int) -> Decoder:
    """Return the decoder that a seed starts from: a new one of a size in `SIZES`, or a base, the same for all seeds."""
    return a_decoder(*SIZES[model], seed) if model in SIZES else load_base(Path(model))


def a_decoder(width: int, layers: int, seed: int) -> Decoder:
    """Return a decoder with four heads and an MLP four times as wide as the decoder."""
    config = DecoderConfig(len(SYMBOLS), width, 4 * width, layers, 4, 4, width // 4, gated=False)
    return Decoder(config, rngs=nnx.Rngs(seed))


def save_base(path: Path, model: Decoder) -> None:
    """Write the weights of a decoder, completely or not at all."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    with writing(path) as unfinished:
        save_arrays(unfinished, {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in leaves})


def load_base(path: Path) -> Decoder:
    """Read a decoder that `save_base` wrote.

    Raises:
        InputError: there is no such file, or it holds no base of a size in `SIZES`.
    """
    try:
        arrays = load_arrays(path)
    except UNREADABLE:
        raise InputError("MODEL", str(path), "it cannot be read; train a base with mathematics_base") from None
    for width, layers in SIZES.values():
        model = a_decoder(width, layers, 0)
        graph, state = nnx.split(model, nnx.Param)
        leaves, tree = jax.tree_util.tree_flatten_with_path(state)
        found = [arrays.get(jax.tree_util.keystr(place)) for place, _ in leaves]
        if all(one is not None and one.shape == leaf.shape for one, (_, leaf) in zip(found, leaves, strict=True)):
            return nnx.merge(graph, jax.tree_util.tree_unflatten(tree, [jax.numpy.asarray(one) for one in found]))
    raise InputError("MODEL", str(path), f"it holds no base of {' or '.join(SIZES)}; train one with mathematics_base")


@click.command()
@click.argument("size", type=click.Choice(list(SIZES)))
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--problems", default=200_000, show_default=True, type=click.IntRange(100), help="problems to train on")
@click.option("--steps", default=3000, show_default=True, type=click.IntRange(1), help="steps of training")
@click.option("--batch-size", default=128, show_default=True, type=click.IntRange(1), help="examples of a step")
@click.option("--rate", default=2.5e-3, show_default=True, type=click.FloatRange(0, min_open=True), help="its peak")
def main(size: str, path: Path, problems: int, steps: int, batch_size: int, rate: float) -> None:
    """Train a decoder of SIZE from scratch, and save its weights as FILE (`.npz`)."""
    if path.suffix != BASE or path.exists():
        raise InputError("FILE", str(path), f"give a new file that ends in {BASE}")
    text = Symbols()
    with ProgressReport() as report:
        report("drawing problems", 0, problems)
        rows = draw_freely(
            SEED, PLAIN_FAMILIES, LEVELS, problems, lambda row: len(text.tokenized(row).tokens) <= LENGTH
        )
        examples = [text.tokenized(row) for row in np.random.default_rng(SEED).permutation(np.array(rows, object))]
        training = Training("muon", rate, batch_size, LENGTH, steps, max(steps // 30, 1))
        trainer = PackedTrainer(training, (SEED,), [examples], [a_decoder(*SIZES[size], SEED)])
        found = trainer.run(
            [steady(np.arange(len(examples)))],
            steps,
            record_steps(steps, 24),
            followed=min(FOLLOWED, len(examples)),
            at_record=lambda step, _: report("training", step, steps),
        )
    save_base(path, trainer.model(found.params, 0))
    means: Any = found.losses[0].mean(axis=1)
    for step, loss in zip(found.steps.tolist(), means.tolist(), strict=True):
        click.echo(f"step {step:6}: loss {loss:.3f}")


if __name__ == "__main__":
    run(main, "mathematics-base")
