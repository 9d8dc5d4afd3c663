"""Sources of rows for fine-tuning and evaluation: files, and generators of problems with answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_theory.errors import InputError
from icl_theory.upsampling.data_files import open_data

GENERATOR = "reasoning-gym:"
Row = Mapping[str, Any]


def load_rows(source: str) -> list[Row]:
    """Load all rows of a source.

    Args:
        source: a file of JSON lines or Parquet; or `reasoning-gym:NAME,size=500,seed=0,...`, which is a generator of
            that package with its settings. Several generators are joined by `+`. Generated rows have the fields
            question, answer and kind (NAME).

    Raises:
        InputError: a file that cannot be read or holds no rows; a generator that is not installed, is unknown, or
            refuses its settings.
    """
    if not source.startswith(GENERATOR):
        rows: list[Row] = list(open_data(source).rows())
        if not rows:
            raise InputError("data", source, "it holds no rows")
        return rows
    return [row for part in source.split("+") for row in _generated(part.strip())]


def _generated(source: str) -> list[Row]:
    try:
        import reasoning_gym
    except ImportError:
        raise InputError("data", source, "install it: pip install 'icl-theory[generators]'") from None
    name, *settings = source.removeprefix(GENERATOR).split(",")
    given = {"size": 500, "seed": 0, **dict(map(_setting, settings))}
    try:
        made = reasoning_gym.create_dataset(name, **given)
        return [{"question": one["question"], "answer": str(one["answer"]), "kind": name} for one in made]
    except (ValueError, TypeError, AssertionError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("data", source, f"the generator refuses ({reason})") from None


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise InputError("data", text, "settings of a generator are NAME=VALUE, parted by commas")
    for kind in (int, float):
        try:
            return key.strip(), kind(value)
        except ValueError:
            continue
    return key.strip(), {"true": True, "false": False}.get(value.strip().lower(), value.strip())
