"""Run a command so that expected errors end in one line and an exit code, not in a traceback."""

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
    """Run a command with the given arguments, or those of the command line, and exit.

    The exit code is 2 for an expected error, 130 after Ctrl-C or SIGTERM, else the command's own.

    Args:
        command: The command.
        name: Name of the program, with which an error line begins.
        arguments: The arguments after the name. The default is those of the command line.
        interrupted: The message after Ctrl-C or SIGTERM.
        cache: Whether to keep compiled programs on disk for the next process.
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
    """Treat SIGTERM like Ctrl-C, so that half-written files are removed."""
    raise KeyboardInterrupt


def _fail(name: str, message: str, code: int) -> None:
    click.echo(f"{name}: error: {message}", err=True)
    sys.exit(code)
