"""The command line, one module a command: `icl-theory simulate`, `sweep`, `compare`, `upsample`, `finetune` and `verify`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import click

from icl_theory import compilation_cache
from icl_theory.cli.compare import compare_command
from icl_theory.cli.finetune import finetune_command
from icl_theory.cli.simulate import simulate_command
from icl_theory.cli.sweep import sweep_command
from icl_theory.cli.upsample import upsample_command
from icl_theory.cli.verify import verify_command
from icl_theory.errors import IclTheoryError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="icl-theory")
def cli() -> None:
    """See and check what linear attention learns first, under gradient descent and under SAM."""


for command in (simulate_command, sweep_command, compare_command, upsample_command, finetune_command, verify_command):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors made on purpose are one line and exit code 2, never a traceback."""
    compilation_cache.enable()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.Abort:
        _fail("interrupted; nothing was left half written", 130)
    except click.ClickException as error:
        _fail(" ".join(error.format_message().split()), 2)
    except IclTheoryError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left half written", 130)
    except MemoryError:
        _fail("out of memory: less data, fewer snapshots or a smaller model would fit", 2)


def _stop(number: int, frame: Any) -> None:
    """Be stopped by a batch system as by a person: what is half written is cleared away."""
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    click.echo(f"icl-theory: error: {message}", err=True)
    sys.exit(code)
