"""Low-rank adapters: against PEFT, on golden files that PEFT wrote (make_lora_goldens.py), and in training."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adapters import GOLDENS, LORA, tokens, with_random_adapters
from flax import nnx
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch, Tokenized
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.lora import Lora, adapted, linears, lora_of, merged, set_dropout
from icl_theory.llm.model.peft_format import adapter_tensors, save_adapter
from icl_theory.llm.model.weight_places import weight_places
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.step import begin, in_parts, make_step, split, start
from icl_theory.llm.training.train import finetune

SIZES = [6 + row % 3 for row in range(10)]
EXAMPLES = [
    Tokenized(np.random.default_rng(row).integers(3, 40, size).astype(np.int32), np.arange(size) >= 3)
    for row, size in enumerate(SIZES)
]
CONFIG = FinetuneConfig(
    length=16,
    batch_size=4,
    num_steps=6,
    learning_rate=1e-2,
    weight_decay=0.01,
    packing=True,
    sharpness="fsam",
    lora_rank=2,
    lora_dropout=0.25,
)
logits_of = nnx.jit(lambda model, tokens: model(tokens))


@pytest.fixture(params=sorted(LORA))
def family(request):
    return request.param


def golden(family, kind):
    with np.load(GOLDENS / "lora.npz") as stored:
        return {name.split("/")[-1]: stored[name] for name in stored.files if name.startswith(f"{family}/{kind}")}


def close(ours, theirs, tolerance=2e-5):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def whole_loss(model):
    logits = model(jnp.asarray(tokens()))[:, :-1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens()[:, 1:]).mean()


def test_logits_and_gradients_are_those_of_peft(family):
    """Phi-3 joins query with value, and gate with up: their blocks of PEFT's gradients are ours."""
    model = with_random_adapters(family)
    close(logits_of(model, jnp.asarray(tokens())), golden(family, "logits")["logits"])
    plain = logits_of(load_decoder(GOLDENS / family), jnp.asarray(tokens()))
    assert not np.allclose(plain, golden(family, "logits")["logits"], atol=0.1)
    graph, params, frozen = split(model)
    gradients = jax.jit(jax.grad(lambda params: whole_loss(nnx.merge(graph, params, frozen))))(params)
    ours, _ = adapter_tensors(nnx.merge(graph, gradients, frozen), LORA[family])
    theirs = golden(family, "gradient")
    assert ours.keys() == theirs.keys()
    scale = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, gradient in theirs.items():
        around = (ours[name] == 0) & (("qkv_proj.lora_B" in name) | ("gate_up_proj.lora_B" in name))
        np.testing.assert_allclose(ours[name], np.where(around, 0, gradient), atol=1e-4 * scale)


def test_the_saved_adapter_is_what_peft_saves_again(family, tmp_path):
    save_adapter(with_random_adapters(family), tmp_path / "adapter", base="some/model")
    ours, theirs = load_file(tmp_path / "adapter" / "adapter_model.safetensors"), golden(family, "tensor")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "some/model"
    assert described["lora_alpha"] == LORA[family].alpha
    with pytest.raises(InputError, match="no adapters"):
        save_adapter(load_decoder(GOLDENS / family), tmp_path / "other", base="some/model")


def test_merged_weights_are_those_of_peft(family):
    adapters = with_random_adapters(family)
    whole = merged(adapters)
    assert lora_of(whole) is None
    flat, known = dict(nnx.to_flat_state(nnx.state(whole, nnx.Param))), golden(family, "merged")
    for name, tensor in known.items():
        np.testing.assert_allclose(weight_places(whole.config)[name].tensor(flat), tensor, rtol=1e-5, atol=1e-6)
    assert len(known) == len(golden(family, "tensor")) / 4  # of the second layer, for A and B together
    close(logits_of(whole, jnp.asarray(tokens())), golden(family, "logits")["logits"])
    assert lora_of(adapters) == LORA[family]


def test_merging_into_unrounded_weights():
    base = load_decoder(GOLDENS / "llama")
    rounded = load_decoder(GOLDENS / "llama", param_dtype=jnp.bfloat16)
    found = merged(adapted(rounded, Lora(2)), base)
    for ours, theirs in zip(weights(found), weights(base), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # B is zero


def test_at_the_start_adapters_change_nothing():
    """A is uniform in ±1/√24, B is zero; of every layer another A, and the given model is left alone."""
    base = load_decoder(GOLDENS / "llama")
    model = adapted(base, Lora(4, matrices=("query", "gate")), seed=1)
    assert lora_of(base) is None
    np.testing.assert_array_equal(logits_of(model, jnp.asarray(tokens())), logits_of(base, jnp.asarray(tokens())))
    made = [a for _, linear in linears(model) if linear.adapter is not None for a in linear.adapter.a[...]]
    assert len(made) == 4
    assert all(0.15 < np.abs(a).max() <= 24**-0.5 for a in made)
    assert len({float(a[0, 0]) for a in made}) == 4


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_adapters_have_gradients_and_optimizer_state(optimizer):
    """Of every weight but two for each matrix the optimizer holds nothing, and a step changes nothing."""
    lora = Lora(2, matrices=("query", "value"))
    graph, learner = begin(adapted(load_decoder(GOLDENS / "llama"), lora), optimizer)
    adapters = [(2, 2, 24), (2, 24, 2), (2, 2, 12), (2, 24, 2)]  # of two layers each
    assert sorted(leaf.shape for leaf in jax.tree.leaves(learner.params)) == sorted(adapters)
    moments = [leaf.shape for leaf in jax.tree.leaves(learner.optimizer) if leaf.ndim == 3]
    assert sorted(moments) == sorted(adapters * (2 if optimizer == "adamw" else 1))
    assert max(leaf.size for leaf in jax.tree.leaves(learner.optimizer)) <= 2 * 48
    fixed = jax.tree.map(np.asarray, learner.frozen)
    batch = Batch(jnp.asarray(tokens()), jnp.ones((2, 9), bool), jnp.ones(2))
    step = make_step(graph, optimizer, sharpness="sam")
    before = jax.tree.map(np.asarray, learner.params)
    for _ in range(2):
        learner, _ = step(learner, batch, 0.1, 0.1)
    jax.tree.map(np.testing.assert_array_equal, learner.frozen, fixed)
    changed = jax.tree.map(lambda old, new: not np.allclose(old, new), before, learner.params)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("sharpness", ["sam", "fsam"])
def test_adapters_alone_are_perturbed(sharpness):
    """By the definitions, with the base held fixed."""
    model = with_random_adapters("llama")
    graph, learner = start(model, "adamw")
    params, frozen, rho = learner.params, learner.frozen, 0.2
    given = jnp.asarray(tokens())

    def logits(params):
        return nnx.merge(graph, params, frozen)(given)[:, :-1]

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, given[:, 1:]).mean()

    @jax.jit
    def expected(params):
        gradient = jax.grad(lambda params: loss(logits(params)))(params)
        moved = jax.tree.map(lambda p, g: p + rho * g / optax.tree.norm(gradient), params, gradient)
        held, (there, pull) = logits(params), jax.vjp(logits, moved)
        return optax.tree.norm(pull(jax.grad(loss)(there if sharpness == "sam" else held))[0])

    wanted = expected(params)
    batch = Batch(given, jnp.ones((2, 9), bool).at[:, 0].set(False), jnp.ones(2))
    _, seen = make_step(graph, "adamw", sharpness=sharpness)(learner, batch, 0.1, rho)
    np.testing.assert_allclose(seen["gradient_norm"], wanted, rtol=1e-4)


def test_fixed_matrices_are_held_in_the_type_that_computes():
    """Half the memory, and the same losses: they are rounded to it in each product anyway."""
    batch = Batch(jnp.asarray(tokens()), jnp.ones((2, 9), bool), jnp.ones(2))
    losses = []
    for make in (start, begin):
        model = adapted(load_decoder(GOLDENS / "gemma3_text", dtype=jnp.bfloat16), Lora(2))
        graph, learner = make(model, "adamw")
        fixed = flatten_dict(learner.frozen)
        kinds = {leaf.dtype for path, leaf in fixed.items() if path[-1] in ("kernel", "embedding")}
        assert kinds == {jnp.dtype("float32" if make is start else "bfloat16")}
        assert {leaf.dtype for path, leaf in fixed.items() if path[-1] == "scale"} == {jnp.dtype("float32")}
        assert {leaf.dtype for leaf in jax.tree.leaves(learner.params)} == {jnp.dtype("float32")}
        step = make_step(graph, "adamw")
        for _ in range(2):
            learner, seen = step(learner, batch, 0.01, 0.0)
            losses.append(float(seen["loss"]))
    assert losses[:2] == losses[2:]


def test_dropout_is_of_inputs_of_adapters_and_the_same_in_both_passes():
    """Its mean over keys is the output without; at ρ = 0 SAM is the gradient; steps and parts differ."""
    model = with_random_adapters("llama")
    stack = next(linear.adapter for _, linear in linears(model) if linear.adapter is not None)
    graph, state = nnx.split(stack)
    state = jax.tree.map(lambda leaf: leaf[0], state)
    adapter = nnx.merge(graph, state)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 24)), jnp.float32)
    plain = adapter(x)

    def dropped(key):
        drawing = nnx.merge(graph, state)
        drawing.key = nnx.data(nnx.Variable(key))
        return drawing(x)

    drawn = jax.vmap(dropped)(jax.random.split(jax.random.key(0), 4000))
    assert drawn.std(0).min() > 0.05
    np.testing.assert_allclose(drawn.mean(0), plain, atol=5 * float(drawn.std(0).max()) / 4000**0.5)

    batch = Batch(jnp.asarray(np.tile(tokens(), (2, 1))), jnp.ones((4, 9), bool), jnp.ones(4))
    norms = []
    for sharpness in ("none", "sam", "fsam"):
        graph, learner = start(with_random_adapters("llama"), "adamw")
        step = make_step(graph, "adamw", sharpness=sharpness, accumulate=2, dropout_seed=5)
        for _ in range(2):
            learner, seen = step(learner, batch, 0.0, 0.0)
            norms.append(float(seen["gradient_norm"]))
    np.testing.assert_allclose(norms, norms[:2] * 3, rtol=1e-5)
    assert abs(norms[0] - norms[1]) > 1e-3 * norms[0]
    _, keys = in_parts(batch, 2, jax.random.key(5))
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 2
    set_dropout(model, jax.random.key(1))
    drawn = [linear.adapter.key[...] for _, linear in linears(model) if linear.adapter is not None]
    each = np.concatenate([jax.random.key_data(keys) for keys in drawn])
    assert len(np.unique(each, axis=0)) == len(each) == model.config.num_layers * len(drawn)


def test_a_stopped_run_with_adapters_ends_in_the_same_weights(tmp_path):
    """Packed, with dropout and functional SAM; the checkpoints hold no weights of the base."""
    model = load_decoder(GOLDENS / "llama", host=True)
    whole = finetune(model, EXAMPLES, CONFIG)

    def stop(done, total, loss):
        if done == 4:
            raise InterruptedError

    settings = {"folder": tmp_path / "run", "save_every": 2}
    with pytest.raises(InterruptedError):
        finetune(model, EXAMPLES, CONFIG, progress=stop, **settings)
    again = finetune(model, EXAMPLES, CONFIG, **settings)
    np.testing.assert_array_equal(again.losses, whole.losses)
    for ours, theirs in zip(weights(again.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metadata = next((tmp_path / "run" / "checkpoints" / "6").rglob("_METADATA")).read_text()
    assert "adapter" in metadata
    assert "kernel" not in metadata
    assert "embedding" not in metadata
    with pytest.raises(InputError, match="lora_rank was 2, now 3"):
        finetune(model, EXAMPLES, dataclasses.replace(CONFIG, lora_rank=3), **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_rank": -1}, "lora_rank = -1"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha = 0"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "lora_dropout = 1.0: nothing would be left"),
        ({"lora_dropout": 0.1}, "give lora_rank too"),
        ({"lora_matrices": "query"}, "give lora_rank too"),
        ({"lora_rank": 2, "lora_matrices": ""}, "give one of query, key"),
        ({"lora_rank": 2, "lora_matrices": "query,q_proj"}, "'q_proj': give one of query, key"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        FinetuneConfig(**settings)


def test_a_matrix_that_the_model_does_not_have_is_refused():
    with pytest.raises(InputError, match="lora_matrices = 'gate': the model has none; give some of query"):
        adapted(load_decoder(GOLDENS / "phi"), Lora(2, matrices=("query", "gate")))
