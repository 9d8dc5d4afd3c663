"""Signal and noise measured on a decoder are those of its examples' gradients, taken one by one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.job.noise import noise_lines
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.sharding import make_mesh
from icl_theory.llm.model.stacking import by_layer
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.noise_scale import measure_noise

GOLDEN = Path(__file__).parents[1] / "goldens" / "llm" / "llama"
LATE = np.arange(8) % 2 == 1
EXAMPLES = [
    Tokenized(np.random.default_rng(row).integers(3, 40, size).astype(np.int32), np.arange(size) >= 3)
    for row, size in enumerate([6, 7, 8, 6, 7, 8, 6, 7])
]


@pytest.fixture(scope="module")
def model():
    return load_decoder(GOLDEN)


@pytest.fixture(scope="module")
def measured(model):
    return measure_noise(model, EXAMPLES, LATE, step=5, batches=4)


def test_all_examples_one_by_one_give_the_signal_and_noise_of_the_set(model, measured):
    graph, state = nnx.split(model, nnx.Param)

    def loss(params, tokens, learned):
        chances = jax.nn.log_softmax(nnx.merge(graph, params)(tokens[None])[0, :-1])
        return -jnp.sum(jnp.take_along_axis(chances, tokens[1:, None], 1)[:, 0] * learned[1:])

    tokens = np.mean([example.learned.sum() for example in EXAMPLES])
    gradient = jax.jit(jax.grad(loss))
    found = [by_layer(nnx.to_pure_dict(gradient(state, *example))) for example in EXAMPLES]
    parts = zip(*map(jax.tree.leaves, found), strict=True)
    leaves = [np.stack([np.ravel(leaf) for leaf in one]) / tokens for one in parts]
    assert measured.sizes.tolist() == [leaf.shape[1] for leaf in leaves]
    assert "blocks.0.attention.key.kernel" in measured.blocks.tolist()
    for block, leaf in enumerate(leaves):
        means = np.stack([leaf[~LATE].mean(0), leaf[LATE].mean(0)]).astype(float)
        noise = [leaf[group].var(0, ddof=1).sum() for group in (~LATE, LATE)]
        np.testing.assert_allclose(measured.signal[0, 0, block], means @ means.T, rtol=2e-4, atol=1e-9)
        np.testing.assert_allclose(measured.variance[0, 0, block], noise, rtol=2e-4)
    assert measured.signal.shape == (1, 5, len(leaves), 2, 2)
    assert (measured.steps.tolist(), measured.counts.tolist()) == ([5], [4, 4])


def test_a_mesh_and_parts_of_a_batch_change_nothing(model):
    some = [EXAMPLES[row % 8] for row in range(12)]
    late = np.arange(12) < 6
    whole = measure_noise(model, some, late, batches=3, rows=2)
    parts = measure_noise(model, some, late, batches=3, rows=2, together=1, mesh=make_mesh())
    single = measure_noise(model, some, late, batches=6)  # the same examples, in other batches
    np.testing.assert_allclose(whole.signal[0, 0, :, 0, 1], single.signal[0, 0, :, 0, 1], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-4)
    np.testing.assert_allclose(parts.signal.sum(2), whole.signal.sum(2), rtol=1e-4)


def test_a_group_that_is_too_small_is_refused(model):
    with pytest.raises(InputError, match=r"4 late examples.*at least 5 in each group"):
        measure_noise(model, EXAMPLES, LATE, batches=5)
    with pytest.raises(InputError, match="late"):
        measure_noise(model, EXAMPLES, LATE[:3])


def test_what_cannot_be_predicted_is_said(measured):
    halves = np.where(LATE, 40.0, 10.0)
    steps = np.arange(0.0, 101.0, 5.0)
    record = icl.LossRecord(steps, np.clip(1 - steps[:, None] / (2 * halves), 0, None))
    found = icl.upsample(record, factor=2.0)
    adamw, muon = (noise_lines(measured, record, found, FinetuneConfig(optimizer=name)) for name in ("adamw", "muon"))
    assert adamw[1].strip().startswith(f"step 5: early {measured.critical_batch()[0, 0, 0]:.3g} (")
    assert [line.split(":")[0].split()[-1] for line in adamw[3:]] == ["1.5", "2", "3", "5"]
    assert "no law" in muon[-1]
    unseen = noise_lines(measured._replace(signal=-measured.signal), record, found, FinetuneConfig())
    assert all("not seen" in line for line in unseen[3:])
