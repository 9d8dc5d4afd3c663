"""One step of any optax transformation, given whatever it asks for beside the gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from icl_theory.errors import IclTheoryError, InputError, error_text

OptimizerFactory = Callable[..., optax.GradientTransformation]


def initial_state(optimizer: OptimizerFactory, hyperparameters: Mapping[str, Any], params: PyTree) -> PyTree:
    """Return the state of the optimizer before the first step.

    Raises:
        InputError: The factory does not make a transformation, or the transformation refuses the parameters.
    """
    with errors_named("optimizer", optimizer):
        return transformation(optimizer, **hyperparameters).init(params)


def optimizer_step(
    optimizer: OptimizerFactory, hyperparameters: Mapping[str, Any], loss: Any, params: PyTree, state: PyTree
) -> tuple[Any, PyTree, PyTree]:
    """Take one step, and return the loss before it, the parameters and the optimizer's state after it.

    A transformation may ask for `value`, `grad`, `value_fn` (line searches), `grad_fn` (SAM) and `obj_fn` (Hessian
    estimates). What it does not use costs nothing in a compiled program.

    Raises:
        InputError: The transformation asks for anything else, gives updates of other shapes than the parameters', or
            changes the structure of its state.
    """
    value, grads = jax.value_and_grad(loss)(params)

    def value_fn(params: PyTree, grad_fn: Any = None, obj_fn: Any = None) -> Any:
        return loss(params)  # optax's line searches hand all further arguments on to it

    offered = {
        "value": value,
        "grad": grads,
        "value_fn": value_fn,
        "grad_fn": lambda params, *_: jax.grad(loss)(params),  # optax's SAM also gives the number of the inner step
        "obj_fn": loss,
    }
    with errors_named("optimizer", optimizer):
        made = optax.with_extra_args_support(transformation(optimizer, **hyperparameters))
        asked = inspect.signature(made.update).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in asked.values()):
            offered = {name: one for name, one in offered.items() if name in asked}
        updates, after = made.update(grads, state, params, **offered)
        if _shapes(updates) != _shapes(params):  # else they would be broadcast
            raise TypeError("its updates do not have the shapes of the parameters")
        moved = optax.apply_updates(params, updates)
        if _shapes(after, types=True) != _shapes(state, types=True):
            raise TypeError("its state changes its structure or its types in a step")
    return value, moved, after


def transformation(factory: Any, /, *arguments: Any, **hyperparameters: Any) -> optax.GradientTransformation:
    """Return the transformation that a factory makes.

    Raises:
        TypeError: It is no factory, or its result is no transformation.
    """
    made = factory(*arguments, **hyperparameters)
    if not isinstance(made, optax.GradientTransformation):
        remedy = "; add .gradient_transformation()" if hasattr(made, "gradient_transformation") else ""
        raise TypeError(f"its result is of type {type(made).__name__}, not an optax.GradientTransformation{remedy}")
    return made


@contextmanager
def errors_named(field: str, factory: Any, remedy: str = "") -> Iterator[None]:
    """Turn an exception of the factory, or of what it makes, into one line that names both; a remedy ends the line."""
    try:
        yield
    except IclTheoryError:
        raise
    except Exception as error:
        reason = error_text(error)
        if isinstance(error, jax.errors.ConcretizationTypeError):
            reason = "it needs one of the hyperparameters as a plain number; fix that one with functools.partial"
        function = getattr(factory, "func", factory)  # of functools.partial
        name = getattr(function, "__name__", type(function).__name__)
        raise InputError(field, name, "; ".join(filter(None, (reason, remedy)))) from error


def _shapes(tree: PyTree, *, types: bool = False) -> Any:
    """Return the structure of a pytree and the shape of every leaf, and its dtype too if asked for."""
    leaves, structure = jax.tree.flatten(tree)
    found = [jax.typeof(leaf) for leaf in leaves]
    return structure, [(leaf.shape, leaf.dtype if types else None) for leaf in found]
