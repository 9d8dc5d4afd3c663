"""Errors that name the field, the value given and what would be accepted, and checks that raise them."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from icl_theory.numerics.tracing import is_traced


class IclTheoryError(Exception):
    """Base of every error this package raises on purpose (the command line prints it as one line)."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self))  # an error of a worker process arrives with its fields


class InputError(IclTheoryError, ValueError):
    """A value that cannot be used; the message is `field = value: remedy`."""

    def __init__(self, field: str, value: Any, remedy: str):
        self.field, self.value, self.remedy = field, value, remedy
        super().__init__(" ".join(f"{field} = {_short(value)}: {remedy}".split()))


class Interrupted(IclTheoryError):
    """Ctrl-C or SIGTERM; the message says from where the same command goes on."""


class DivergenceError(IclTheoryError, FloatingPointError):
    """Training left the finite range; carries `step`, `loss`, `settings`, `last_step` and the last finite `params`."""

    def __init__(self, *, step: int, loss: float, settings: dict[str, Any], last_step: int, params: Any):
        self.step, self.loss, self.settings = step, loss, settings
        self.last_step, self.params = last_step, params
        shown = ", ".join(f"{name} = {value:g}" for name, value in settings.items())
        super().__init__(
            f"training diverged at step {step} (loss = {loss:g}) with {shown}: lower {' or '.join(settings)} or the "
            f"initial scale; the state of step {last_step} is the last good one"
        )


def _restored(kind: type[IclTheoryError], args: tuple[Any, ...], fields: dict[str, Any]) -> IclTheoryError:
    """Return an error as it was raised in another process."""
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


def _is_array(value: Any) -> bool:
    """Return True for an array of numpy or jax, without importing jax."""
    return hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape")


def _short(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    text = np.array2string(np.asarray(value), threshold=8) if _is_array(value) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def error_text(error: BaseException) -> str:
    """Return the message of another library's error on one line, with its type if the message is a word or nothing."""
    words = str(error).split()
    return " ".join(words)[:300] if len(words) > 1 else ": ".join([type(error).__name__, *words])[:300]


def check_number(
    field: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    below: float = math.inf,
    exclusive: bool = False,
    integer: bool = False,
) -> None:
    """Raise `InputError` unless `value` is a finite number in range (tracers pass unchecked).

    `exclusive` makes the *minimum* exclusive. `maximum` is a largest number that is accepted, `below` one that is not.
    """
    if is_traced(value):
        return
    wanted = _describe(minimum, maximum, below, exclusive, integer)
    if (_is_array(value) or isinstance(value, np.generic)) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(field, value, f"give {wanted}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(field, value, f"give {wanted}")
    if integer and number != int(number):
        raise InputError(field, value, f"give {wanted}")
    if number < minimum or (exclusive and number == minimum) or number > maximum or number >= below:
        raise InputError(field, value, f"give {wanted}")


def _describe(minimum: float, maximum: float, below: float, exclusive: bool, integer: bool) -> str:
    kind = "a whole number" if integer else "a finite number"
    bounds = []
    if minimum > -math.inf:
        bounds.append(f"{'greater than' if exclusive else 'at least'} {minimum:g}")
    if maximum < math.inf:
        bounds.append(f"at most {maximum:g}")
    if below < math.inf:
        bounds.append(f"less than {below:g}")
    return " ".join([kind, " and ".join(bounds)]).strip()


def as_floats(field: str, value: Any) -> np.ndarray:
    """Return the value as a float array; raise `InputError` if it holds anything but real numbers."""
    try:
        values = np.asarray(value)
        if values.dtype.kind in "fiub":
            return values.astype(float, copy=False)
    except (TypeError, ValueError):
        pass
    raise InputError(field, value, "give real numbers, in a shape without gaps")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(field, value, "give one of " + ", ".join(choices))


def check_shape(field: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless the array has exactly this shape."""
    if np.shape(value) != shape:
        raise InputError(field, f"shape {np.shape(value)}", f"give shape {shape}")


def check_finite(field: str, value: Any) -> None:
    """Raise `InputError` when a concrete array holds NaN or infinity."""
    if not is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
        raise InputError(field, value, "every entry must be finite")
