"""Options that commands share, one for each setting of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import click

from icl_theory.results import plain
from icl_theory.simulation.config import RunConfig


class NumberList(click.ParamType):  # type: ignore[type-arg]
    """Comma-separated numbers."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert `"0.5,0.3"` to `(0.5, 0.3)`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,0.3,0.2", param, ctx)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of `RunConfig`, its default in the help; only given options override the file."""
    for field in reversed(dataclasses.fields(RunConfig)):
        if field.name == "groups":
            continue
        default: Any = field.default
        kind: Any = NumberList() if isinstance(default, tuple) else type(default)
        shown = f"  [default: {default:g}]" if isinstance(default, float) else f"  [default: {default}]"
        if field.metadata["choices"]:
            kind = click.Choice(field.metadata["choices"])
        text = field.metadata["help"] + ("" if default == () else shown)
        command = click.option(f"--{field.name.replace('_', '-')}", field.name, type=kind, help=text)(command)
    return command


def short_hash(settings: Any) -> str:
    """Return a hash of settings, ten characters, for the name of a folder."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:10]
