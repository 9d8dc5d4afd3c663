"""The step of fine-tuning: gradients against their definitions, the optimizer of each leaf, accumulation."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers import assert_close
from optax.contrib import muon

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.block import _fused
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.stacking import by_layer
from icl_theory.llm.optimizers import adamw_muon
from icl_theory.llm.optimizers.adamw_muon import build_optimizer, muon_labels, orthogonalised, preconditioned
from icl_theory.llm.optimizers.sam import loss_and_gradient, perturbation
from icl_theory.llm.training.losses import row_losses, row_pulls
from icl_theory.llm.training.step import (
    batch_loss,
    in_parts,
    learning_rate_at,
    make_example_losses,
    make_step,
    model_of,
    stages_of,
    start,
    token_total,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
FAMILIES = ("llama", "qwen3", "gemma3_text", "phi")


def a_batch(rows=4, length=10, seed=0):
    random = np.random.default_rng(seed)
    learned = np.zeros((rows, length), bool)
    for row in range(rows):
        learned[row, 3 : 5 + row] = True
    tokens = jnp.asarray(random.integers(3, 40, (rows, length)))
    return Batch(tokens, jnp.asarray(learned), jnp.asarray(random.uniform(0.5, 2.0, rows), jnp.float32))


@pytest.mark.parametrize("sharpness", ["none", "sam", "fsam"])
def test_gradients_of_a_decoder_are_those_by_its_whole_logits(sharpness, monkeypatch):
    """Against the Jacobian's product with all logits held at once; the output layer in pieces or not."""
    model, batch, rho = load_decoder(GOLDENS / "phi"), a_batch(), 0.3
    graph, learner = start(model, "adamw")
    total = token_total(batch)

    def logits_of(theta):
        return model_of(graph, theta)(batch.tokens)

    def loss_of(logits):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], batch.tokens[:, 1:])
        return (losses * batch.learned[:, 1:] * batch.weight[:, None]).sum() / total

    @jax.jit
    def expected(params):
        logits, back = jax.vjp(logits_of, params)
        (gradient,) = back(jax.grad(loss_of)(logits))
        moved = optax.apply_updates(params, perturbation(gradient, rho))
        if sharpness == "none":
            return gradient
        others, back = jax.vjp(logits_of, moved)
        return back(jax.grad(loss_of)(logits if sharpness == "fsam" else others))[0]

    wanted = expected(learner.params)
    for piece in (2**26, 4 * model.config.vocab_size * 3):
        monkeypatch.setattr("icl_theory.llm.training.losses.PIECE", piece)
        stages, parts = stages_of(graph, total), in_parts(batch, 1)
        found = jax.jit(lambda params: loss_and_gradient(sharpness, stages, params, parts, rho=rho)[1])  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found(learner.params), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_blocks_is_under_muon_and_nothing_else(family):
    _, learner = start(load_decoder(GOLDENS / family), "muon")
    labels = flatten_dict(muon_labels(learner.params))
    flat = flatten_dict(learner.params).items()
    under = {path for path, label in labels.items() if label == "muon"}
    matrices = {path for path, _ in flat if path[0] == "blocks" and path[-1] == "kernel"}
    assert under == matrices
    per_block = 4 + (2 if family == "phi" else 3)
    assert len(matrices) == per_block
    rest = {path[-1] for path, _ in flat if path not in matrices}
    assert rest <= {"embedding", "scale", "bias", "kernel"}
    assert ("blocks", "attention_norm", "scale") not in under
    assert {path for path, leaf in flat if path[-1] == "kernel" and path not in matrices} <= {("head", "kernel")}


def _at(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def test_muon_makes_updates_of_one_singular_value():
    """And AdamW's of the rest move each entry by the learning rate at first."""
    _, learner = start(load_decoder(GOLDENS / "llama"), "muon")
    gradient = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(size=leaf.shape), leaf.dtype), learner.params
    )
    updates, _ = jax.jit(build_optimizer("muon").update)(gradient, learner.optimizer, learner.params)
    up = updates["blocks"]["mlp"]["up"]["kernel"]
    assert up.ndim == 3
    values = np.linalg.svd(up, compute_uv=False) / (0.2 * np.sqrt(max(up.shape[1:])))
    assert values.min() > 0.5
    assert values.max() < 1.4
    np.testing.assert_allclose(np.abs(updates["embedding"]), 1.0, rtol=1e-3)
    np.testing.assert_allclose(np.abs(updates["final_norm"]["scale"]), 1.0, rtol=1e-3)


@pytest.mark.parametrize("together", [2**26, 2000])
def test_muon_by_shape_makes_the_updates_of_optax(together, monkeypatch):
    """Whose `muon` takes one matrix after the other; all of a shape at once, or two at most."""
    monkeypatch.setattr(adamw_muon, "TOGETHER", together)
    shapes = {"a": (2, 24, 40), "b": (2, 40, 24), "c": (2, 24, 40), "d": (2, 24, 40)}
    random = np.random.default_rng(0)
    params = {"blocks": {name: jnp.asarray(random.normal(size=shape)) for name, shape in shapes.items()}}
    expected = muon(1.0, beta=0.9, weight_decay=0.1, consistent_rms=0.2)
    optimizer = build_optimizer("muon", momentum=0.9, weight_decay=0.1, dtype=jnp.float64)
    states = [optimizer.init(params), expected.init(by_layer(params))]
    update = [jax.jit(one.update) for one in (optimizer, expected)]
    for size in (1.0, 100.0, 0.01):
        gradient = jax.tree.map(lambda leaf: jnp.asarray(size * random.normal(size=leaf.shape)), params)  # noqa: B023
        ours, states[0] = update[0](gradient, states[0], params)
        theirs, states[1] = update[1](by_layer(gradient), states[1], by_layer(params))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), by_layer(ours), theirs)


def test_muon_in_bfloat16_is_off_by_its_rounding():
    """Five steps of products with 8 bits: the singular values stay those that Muon allows."""
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(32, 64)), jnp.float32)
    found = orthogonalised({"w": matrix[None] / jnp.linalg.norm(matrix)}, jnp.bfloat16)["w"][0]
    assert found.dtype == jnp.float32
    values = np.linalg.svd(found, compute_uv=False) / (0.2 * 8)
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_decay_is_on_matrices_only(optimizer):
    _, learner = start(load_decoder(GOLDENS / "phi"), optimizer, weight_decay=0.1)
    none = jax.tree.map(jnp.zeros_like, learner.params)
    updates, _ = jax.jit(build_optimizer(optimizer, weight_decay=0.1).update)(none, learner.optimizer, learner.params)
    for path, update in flatten_dict(updates).items():
        weight = _at(learner.params, path)
        np.testing.assert_allclose(update, -0.1 * weight if path[-1] in ("kernel", "embedding") else 0.0, atol=1e-6)


@pytest.mark.parametrize("sharpness", ["none", "fsam"])
def test_a_step_is_the_optimizer_on_the_gradient(sharpness):
    model, batch = load_decoder(GOLDENS / "llama"), a_batch()
    graph, learner = start(model, "adamw", weight_decay=0.1)
    params = learner.params
    stages, parts = stages_of(graph, token_total(batch)), in_parts(batch, 1)
    loss, gradient = jax.jit(lambda params: loss_and_gradient(sharpness, stages, params, parts, rho=0.05))(params)
    decayed = lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", tree)  # noqa: E731
    adam = optax.adamw(0.01, weight_decay=0.1, mask=decayed)
    expected = optax.apply_updates(params, adam.update(gradient, adam.init(params), params)[0])
    step = make_step(graph, "adamw", sharpness=sharpness, clip=None, weight_decay=0.1)
    after, seen = step(learner, batch, 0.01, 0.05)
    assert_close(seen["loss"], loss, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert after.step == 1


def test_numbers_do_not_recompile():
    graph, learner = start(load_decoder(GOLDENS / "qwen3"), "adamw")
    step = make_step(graph, "adamw", sharpness="fsam", preconditioner="past")
    for number in range(3):
        learner, _ = step(learner, a_batch(seed=number), 0.01 / (number + 1), 0.05 * number)
    assert step._cache_size() == 1


def test_accumulation_changes_nothing_without_a_perturbation():
    batch = a_batch()
    results = []
    for parts in (1, 4):
        graph, learner = start(load_decoder(GOLDENS / "llama"), "adamw")
        after, seen = make_step(graph, "adamw", accumulate=parts)(learner, batch, 0.01, 0.0)
        results.append((seen["loss"], seen["gradient_norm"], after.params["embedding"]))
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


def test_weights_of_rows_are_copies_of_them():
    model, batch = load_decoder(GOLDENS / "llama"), a_batch()
    copied = jax.tree.map(lambda x: jnp.concatenate([x, x[:1], x[:1]]), batch)._replace(weight=jnp.ones(6))
    weighted = batch._replace(weight=jnp.array([3.0, 1.0, 1.0, 1.0]))
    loss = nnx.jit(lambda model, batch: batch_loss(model, model.hidden(batch.tokens), batch, token_total(batch)))
    losses = [loss(model, b) for b in (copied, weighted)]
    assert_close(*losses, rtol=1e-5)


def test_only_learned_tokens_count():
    model, batch = load_decoder(GOLDENS / "llama"), a_batch()
    graph, learner = start(model, "adamw")
    losses = make_example_losses(graph)
    changed = batch._replace(tokens=batch.tokens.at[:, 9].set(7))  # behind the last learned token
    assert_close(losses(learner.params, changed), losses(learner.params, batch), rtol=1e-5)
    before = batch._replace(tokens=batch.tokens.at[:, 0].add(1) % 40)  # the prompt is seen, though not learned
    assert not np.allclose(losses(learner.params, before), losses(learner.params, batch), rtol=1e-5)
    logits = nnx.jit(lambda model, tokens: model(tokens))(model, batch.tokens)
    alone = optax.softmax_cross_entropy_with_integer_labels(logits[0, 2:4], batch.tokens[0, 3:5])
    assert_close(losses(learner.params, batch)[0], alone.mean(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["loss", "pull"])
def test_a_large_vocabulary_needs_no_logits_of_all_tokens(kind):
    """As the compiler lays out loss and gradient for Gemma's words and 8 × 1024 tokens, whose logits take 8 GiB."""
    words, size = 262_144, 8
    shapes = [(8, 1024, size), (words, size), (8, 1024, size), (words, size)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    tokens, learned = (jax.ShapeDtypeStruct((8, 1024), dtype) for dtype in (jnp.int32, bool))

    def loss(hidden, output, held_hidden, held, tokens, learned):
        logits_of, held_of = (lambda x: x @ output.T), (lambda x: x @ held.T)
        if kind == "loss":
            return row_losses(logits_of, hidden, tokens, learned, vocab_size=words).sum()
        return row_pulls(logits_of, hidden, held_of, held_hidden, tokens, learned, vocab_size=words).sum()

    laid_out = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arrays, tokens, learned).compile().memory_analysis()
    assert laid_out.temp_size_in_bytes < 2**30


def test_a_preconditioned_perturbation_is_not_all_on_tokens_met_first():
    """Their second moment was zero until now; the blocks take part."""
    graph, learner = start(load_decoder(GOLDENS / "phi"), "adamw")
    plain = make_step(graph, "adamw")
    known = a_batch(seed=1)
    known = known._replace(tokens=known.tokens % 20)
    for _ in range(3):
        learner, _ = plain(learner, known, 1e-3, 0.0)
    fresh = known._replace(tokens=known.tokens + 20)
    stages = stages_of(graph, token_total(fresh))
    gradient = loss_and_gradient("none", stages, learner.params, in_parts(fresh, 1))[1]
    found = perturbation(preconditioned("current", learner.optimizer, gradient), 1.0)
    assert optax.tree.norm(found["blocks"]) > 0.1


def test_training_learns():
    graph, learner = start(load_decoder(GOLDENS / "llama"), "muon")
    step, losses = make_step(graph, "muon", sharpness="fsam"), []
    for _ in range(30):
        learner, seen = step(learner, a_batch(), 0.01, 0.01)
        losses.append(float(seen["loss"]))
    assert losses[-1] < 0.2 * losses[0]


def test_settings_that_exclude_each_other():
    graph, _ = start(load_decoder(GOLDENS / "llama"), "adamw")
    for optimizer, sharpness in (("muon", "sam"), ("adamw", "none")):
        with pytest.raises(InputError, match="preconditioner"):
            make_step(graph, optimizer, sharpness=sharpness, preconditioner="past")
    with pytest.raises(InputError, match="give one of adamw, muon"):
        make_step(graph, "sgd")
    with pytest.raises(InputError, match="give one of none, sam, fsam"):
        make_step(graph, "adamw", sharpness="asam")(
            start(load_decoder(GOLDENS / "llama"), "adamw")[1], a_batch(), 0.1, 0.1
        )


def test_schedules():
    settings = {"peak": 2.0, "warmup": 4, "total": 14}
    assert [learning_rate_at(step, **settings) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert learning_rate_at(9, **settings) == pytest.approx(1.0)
    assert learning_rate_at(14, **settings) == pytest.approx(0.0)
    assert learning_rate_at(9, **settings, schedule="linear") == pytest.approx(1.0)
    assert learning_rate_at(9, **settings, schedule="constant") == 2.0


@pytest.mark.parametrize(
    ("capability", "entries", "expected"),
    [("7.5", 64, None), ("8.0", 128, "cudnn"), ("8.9", 256, None), ("9.0", 256, "cudnn"), ("9.0", 60, None)],
)
def test_the_fused_kernel_is_used_where_there_is_one(monkeypatch, capability, entries, expected):
    """By generation of the GPU and entries of a head, and for half precision alone."""
    client = SimpleNamespace(platform_version="cuda 12090")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(client=client, compute_capability=capability)])
    query = jax.ShapeDtypeStruct((1, 8, 2, entries), jnp.bfloat16)
    assert _fused(query) == expected
    assert _fused(jax.ShapeDtypeStruct(query.shape, jnp.float32)) is None
    client.platform_version = "rocm"
    assert _fused(query) is None


@pytest.mark.parametrize("sharpness", ["sam", "fsam"])
def test_a_loss_that_is_not_finite_gives_no_gradient(sharpness):
    graph, learner = start(load_decoder(GOLDENS / "llama"), "adamw")
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), learner.params)
    stages = stages_of(graph, token_total(a_batch()))
    value, gradient = jax.jit(
        lambda params: loss_and_gradient(sharpness, stages, params, in_parts(a_batch(), 1), rho=0.1)
    )(params)
    assert not np.isfinite(value)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(gradient))
