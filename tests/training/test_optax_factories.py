"""Every factory of optax and optax.contrib trains, or is refused in one line that says why."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import InputError, SeparateAttention, TaskMixture, make_loss, sam, train, train_many
from icl_theory.training.optimizer_step import initial_state, optimizer_step

SGD, RMS = optax.sgd(0.1), lambda grads: jnp.sqrt(sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(grads)))
always = lambda step, **_: True  # noqa: E731
# Arguments that a factory needs beside `learning_rate`.
NEEDED = {
    "optax.adaptive_grad_clip": {"clipping": 0.1},
    "optax.add_noise": {"eta": 0.01, "gamma": 0.5, "key": 0},
    "optax.apply_if_finite": {"inner": SGD, "max_consecutive_errors": 1},
    "optax.chain": (optax.clip_by_global_norm(1.0), SGD),
    "optax.clip": {"max_delta": 0.1},
    "optax.clip_by_block_rms": {"threshold": 0.1},
    "optax.clip_by_global_norm": {"max_norm": 0.1},
    "optax.conditionally_mask": {"inner": SGD, "should_transform_fn": always},
    "optax.conditionally_transform": {"inner": SGD, "should_transform_fn": always},
    "optax.contrib.differentially_private_aggregate": {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "key": 0},
    "optax.contrib.dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0},
    "optax.contrib.mechanize": {"base_optimizer": SGD},
    "optax.contrib.sam": {"optimizer": SGD, "adv_optimizer": optax.chain(optax.contrib.normalize(), optax.sgd(0.05))},
    "optax.contrib.schedule_free": {"base_optimizer": SGD},
    "optax.contrib.split_real_and_imaginary": {"inner": SGD},
    "optax.ema": {"decay": 0.9},
    "optax.flatten": {"inner": SGD},
    "optax.freeze": {"mask": {"w": False, "b": True}},
    "optax.inject_hyperparams": {"inner_factory": optax.sgd},
    "optax.inject_stateful_hyperparams": {"inner_factory": optax.sgd},
    "optax.lookahead": {"fast_optimizer": SGD, "sync_period": 2, "slow_step_size": 0.5},
    "optax.masked": {"inner": SGD, "mask": {"w": True, "b": False}},
    "optax.measure_with_ema": {"measure": RMS, "decay": 0.9},
    "optax.monitor": {"measures": {"rms": RMS}},
    "optax.multi_transform": {"transforms": {"all": SGD}, "param_labels": {"w": "all", "b": "all"}},
    "optax.named_chain": (("sgd", SGD),),
    "optax.noisy_sgd": {"key": 0},
    "optax.partition": {"transforms": {"all": SGD}, "param_labels": {"w": "all", "b": "all"}},
    "optax.scale": {"step_size": -0.1},
    "optax.scale_by_backtracking_linesearch": {"max_backtracking_steps": 5},
    "optax.scale_by_schedule": {"step_size_fn": lambda step: -0.1 / (1 + step)},
    "optax.scale_by_zoom_linesearch": {"max_linesearch_steps": 5},
    "optax.selective_transform": {"optimizer": SGD, "freeze_mask": {"w": False, "b": True}},
    "optax.snapshot": {"measure_name": "rms", "measure": RMS},
    "optax.stateless": {"f": lambda grads, _: jax.tree.map(jnp.sign, grads)},
    "optax.stateless_with_tree_map": {"f": lambda grad, _: jnp.sign(grad)},
    "optax.trace": {"decay": 0.9},
    "optax.with_extra_args_support": {"tx": SGD},
}
REFUSED = {  # and words of the reason
    "optax.contrib.differentially_private_aggregate": "do not have the shapes",  # wants one for each example
    "optax.contrib.dpsgd": "do not have the shapes",
    "optax.contrib.scale_by_muon": "pytree structure",  # wants the parameters labelled
    "optax.inject_hyperparams": "not an optax.GradientTransformation",
    "optax.inject_stateful_hyperparams": "not an optax.GradientTransformation",
    "optax.lookahead": "has no attribute 'fast'",  # wants its own class of parameters
    "optax.measure_with_ema": "do not have the shapes",
    "optax.monitor": "its state changes its structure",
}
NO_FACTORIES = {  # functions without a declared result that make no transformation
    "optax.bias_correction",
    "optax.contrib.schedule_free_eval_params",
    "optax.matrix_inverse_pth_root",
    "optax.sigmoid_binary_cross_entropy",
    "optax.update_infinity_moment",
    "optax.update_moment",
    "optax.update_moment_per_elem_norm",
}
PARAMS = {"w": jnp.asarray([[0.3, -0.2], [0.5, 0.1]]), "b": jnp.asarray([0.4, -0.6])}


def loss(params):
    return jnp.sum((params["w"] - 1.0) ** 2) + jnp.sum((params["b"] - params["w"]) ** 2)


def factories():
    found = {}
    for module in (optax, optax.contrib):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            result = inspect.signature(function).return_annotation
            declared = "GradientTransformation" in str(result) or result is inspect.Signature.empty
            full = f"{module.__name__}.{name}"
            if declared and not name.startswith("_") and full not in NO_FACTORIES:
                found[full] = function
    return found


def made(name, function):
    """The factory with what it needs, and the hyperparameters that are left."""
    needed = NEEDED.get(name, {})
    named = needed if isinstance(needed, dict) else {}
    fixed = functools.partial(function, *(() if named or not needed else needed), **named)
    rate = "learning_rate" in inspect.signature(function).parameters
    return fixed, {"learning_rate": 0.05} if rate else {}


@pytest.mark.parametrize("name", sorted(factories()))
def test_every_factory_takes_steps_or_is_refused_in_one_line(name):
    """Two steps as `train` compiles them, with traced numbers; only the compiling is left out."""
    optimizer, hyperparameters = made(name, factories()[name])

    def two_steps(params, hyperparameters):
        state = initial_state(optimizer, hyperparameters, params)
        for _ in range(2):
            value, params, state = optimizer_step(optimizer, hyperparameters, loss, params, state)
        return value, params

    if name in REFUSED:
        with pytest.raises(InputError, match=re.escape(REFUSED[name])) as error:
            jax.eval_shape(two_steps, PARAMS, hyperparameters)
        assert error.value.field == "optimizer"
        assert name.split(".")[-1] in str(error.value)
        assert "\n" not in str(error.value)
    else:
        value, params = jax.eval_shape(two_steps, PARAMS, hyperparameters)
        assert value.shape == ()
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, PARAMS)


OPAQUE = functools.partial(optax.contrib.sam, **NEEDED["optax.contrib.sam"], opaque_mode=True)
ASKING = {  # optimizers that ask for more than the gradient
    "lbfgs": optax.lbfgs,
    "line search": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "polyak": optax.polyak_sgd,
    "plateau": lambda: optax.chain(optax.sgd(0.05), optax.contrib.reduce_on_plateau()),
    "sophia": functools.partial(optax.contrib.sophia, learning_rate=0.02),
    "opaque sam": OPAQUE,
}


@pytest.mark.parametrize("name", ASKING)
def test_what_an_optimizer_asks_for_is_there(name):
    """On moments, whose loss has its own derivative rule, for one run and for two at once."""
    model = SeparateAttention(2, 1, init_scale=0.5, rngs=nnx.Rngs(0))
    objective, params = make_loss(model, TaskMixture.single([0.7, 0.3], num_context=9))
    settings = {"optimizer": ASKING[name], "hyperparameters": {}, "num_steps": 30, "num_snapshots": 2}
    run = train(objective, params, **settings)
    assert run.loss[-1] < 0.99 * run.loss[0]
    many = train_many(objective, jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params), **settings)
    assert_close(many.loss[0], run.loss, rtol=1e-9)
    assert many.loss[1, -1] < many.loss[1, 0]


def test_sam_of_optax_is_our_sam():
    ours = train(loss, PARAMS, optimizer=sam, hyperparameters={"learning_rate": 0.1, "rho": 0.05}, num_steps=20)
    theirs = train(loss, PARAMS, optimizer=OPAQUE, hyperparameters={}, num_steps=20)
    assert_close(theirs.loss, ours.loss, rtol=1e-12)


@pytest.mark.parametrize(
    ("factory", "line"),
    [
        (
            lambda learning_rate: optax.MultiSteps(optax.sgd(learning_rate), 2),
            "its result is of type MultiSteps, not an optax.GradientTransformation; add .gradient_transformation()",
        ),
        (lambda learning_rate: 3, "its result is of type int, not an optax.GradientTransformation"),
        (lambda learning_rate: {}["x"], "KeyError: 'x'"),
    ],
)
def test_a_factory_of_something_else_is_told_what_is_wrong(factory, line):
    with pytest.raises(InputError) as error:
        train(loss, PARAMS, optimizer=factory, hyperparameters={"learning_rate": 0.1}, num_steps=2)
    assert str(error.value) == f"optimizer = '<lambda>': {line}"


def test_a_number_that_the_factory_needs_before_compiling_is_named():
    lookahead = lambda sync_period: optax.lookahead(SGD, sync_period, 0.5)  # noqa: E731
    with pytest.raises(InputError, match="as a plain number; fix that one with"):
        train(loss, PARAMS, optimizer=lookahead, hyperparameters={"sync_period": 2}, num_steps=2)
