"""Run a command so that whatever goes wrong on purpose ends in one line and an exit code, never in a traceback."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from icl_theory import compilation_cache
from icl_theory.errors import IclTheoryError


def run(
    command: click.Command,
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    interrupted: str = "interrupted; nothing was left half written",
    cache: bool = True,
) -> None:
    """Run a command with these words, or with those of the command line, and exit.

    The exit code is 2 for input that cannot be used, 130 after Ctrl-C or SIGTERM, else the command's own.

    Args:
        command: what to run.
        name: of the program, which opens the line.
        arguments: words after the name; default those of the command line.
        interrupted: what to say after Ctrl-C or SIGTERM.
        cache: whether compiled programs are kept on disk for the next process.
    """
    if cache:
        compilation_cache.enable()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(name, " ".join(error.format_message().split()), 2)
    except IclTheoryError as error:
        _fail(name, str(error), 2)
    except OSError as error:
        _fail(name, " ".join(str(error).split()), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail(name, interrupted, 130)
    except MemoryError:
        _fail(name, "out of memory: less data, fewer snapshots or a smaller model would fit", 2)


def _stop(number: int, frame: Any) -> None:
    """Be stopped by a batch system as by a person: what is half written is cleared away."""
    raise KeyboardInterrupt


def _fail(name: str, message: str, code: int) -> None:
    click.echo(f"{name}: error: {message}", err=True)
    sys.exit(code)
