"""Sources of rows for fine-tuning and evaluation: files, sets of the hub, and generators of problems with answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from icl_theory.errors import InputError, error_text
from icl_theory.upsampling.data_files import HUB, open_data

GENERATOR = "reasoning-gym:"
HUB_SETTINGS = ("name", "split", "revision")
Row = Mapping[str, Any]


def load_rows(source: str) -> list[Row]:
    """Load all rows of a source.

    Args:
        source: a file or folder that `open_data` reads; or `hf://NAME,name=CONFIG,split=train,revision=...`, which is
            what `datasets.load_dataset` finds under that name; or `reasoning-gym:NAME,size=500,seed=0,...`, which is a
            generator of that package with its settings. Several generators are joined by `+`. Generated rows have the
            fields question, answer and kind (NAME).

    Raises:
        InputError: a file that cannot be read or holds no rows; a set or generator whose package is not installed, that
            is unknown, or that refuses its settings.
    """
    if source.startswith(GENERATOR):
        return [row for part in source.split("+") for row in _generated(part.strip())]
    rows: list[Row] = _from_hub(source) if source.startswith(HUB) else list(open_data(source).rows())
    if not rows:
        raise InputError("data", source, "it holds no rows")
    return rows


def _from_hub(source: str) -> list[Row]:
    try:
        import datasets
    except ImportError:
        raise InputError("data", source, "install what it needs: pip install 'icl-theory[hub]'") from None
    name, *settings = source.removeprefix(HUB).split(",")
    given = {"split": "train", **{key: value for key, _, value in (text.partition("=") for text in settings)}}
    unknown = given.keys() - set(HUB_SETTINGS)
    if unknown or not name or not all(given.values()):
        raise InputError(
            "data", source, f"give {HUB}NAME, and after commas {', '.join(HUB_SETTINGS)} with = and a value"
        )
    try:
        with _quiet_hub():
            return datasets.load_dataset(name, **given).to_list()
    except ConnectionError as error:
        remedy = "where there is a network, save it with `load_dataset(...).to_parquet(FILE)`, and give FILE here"
        raise InputError("data", source, f"the hub cannot be reached ({error_text(error)}); {remedy}") from None
    except Exception as error:  # its own, of the hub's client, and of the network, of many kinds
        raise InputError("data", source, f"`datasets` cannot load it ({error_text(error)})") from None


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub's client from warning of each try to connect."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
