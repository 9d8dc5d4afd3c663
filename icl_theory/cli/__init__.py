"""The command line, one module per command: `icl-theory simulate`, `sweep`, `compare`, `upsample`, `compare-losses`,
`finetune` and `verify`.

A command's module is imported only when the command is called, so that `icl-theory --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click

from icl_theory.cli.one_line import run

COMMANDS = {
    "simulate": "Train one model; draw its loss with the predicted plateaus, and say when each feature was learned.",
    "sweep": "Run every combination of settings and keep what is measured as one labelled data set.",
    "compare": "Draw analytic against empirical over a sweep, with their difference, and print the largest one.",
    "upsample": "Find the examples of DATA that are learned late by LOSSES, and write DATA with them upsampled.",
    "compare-losses": "Say which of two runs has less simplicity bias, by the losses of the same examples.",
    "finetune": "Fine-tune MODEL on DATA.",
    "verify": "Hold every prediction against its measurement and print the table.",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called, and lists commands from `COMMANDS` without importing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it, or None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        return getattr(import_module(f"icl_theory.cli.{name}"), f"{name}_command")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="icl-theory")
def cli() -> None:
    """Predict, and test by simulation, the order in which linear attention learns features, under GD and SAM."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `icl-theory`."""
    run(cli, "icl-theory", arguments)
