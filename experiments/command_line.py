"""A command of this folder, ended in one line where it fails on purpose."""

from __future__ import annotations

import sys

import click

from icl_theory.errors import IclTheoryError


def run(command: click.Command, name: str) -> None:
    """Call it with the words of the command line; errors made on purpose, and files that cannot be used, are one line each."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        sys.exit(f"{name}: error: {' '.join(error.format_message().split())}")
    except (IclTheoryError, OSError) as error:
        sys.exit(f"{name}: error: {error}")
    except (KeyboardInterrupt, click.Abort):
        sys.exit(f"{name}: error: interrupted")
