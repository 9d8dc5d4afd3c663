"""Run a command so that expected errors end in one line and an exit code, not in a traceback."""

from __future__ import annotations

import _thread
import gc
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from icl_theory import compilation_cache
from icl_theory.errors import IclTheoryError, Interrupted

SECONDS_TO_STOP = 2.0  # in which further signals are ignored


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
        interrupted: The message after Ctrl-C or SIGTERM, unless the command raises `Interrupted` with its own.
        cache: Whether to keep compiled programs on disk for the next process.
    """
    if cache:
        compilation_cache.enable()
    stop = Stopper()
    with handled(stop):
        _run(command, name, arguments, interrupted, stop)


def _run(command: click.Command, name: str, arguments: Sequence[str] | None, interrupted: str, stop: Stopper) -> None:
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(name, " ".join(error.format_message().split()), 2)
    except Interrupted as error:
        _interrupted(name, str(error), at_once=stop.stopped and arguments is None)
    except IclTheoryError as error:
        _fail(name, str(error), 2)
    except OSError as error:
        _fail(name, " ".join(str(error).split()), 2)
    except (KeyboardInterrupt, click.Abort):
        _interrupted(name, interrupted, at_once=stop.stopped and arguments is None)
    except MemoryError:
        _fail(name, "out of memory: less data, fewer snapshots or a smaller model would fit", 2)


class Stopper:
    """A signal handler that treats SIGTERM like Ctrl-C, so that half-written files are removed.

    Signals that follow at once are ignored, as they would break off the removing. In a callback of the garbage
    collector, as jax has one, or while an object is finalised, an exception would be lost; the handler waits until that
    has ended.

    Attributes:
        stopped: True once a signal has come.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._last < SECONDS_TO_STOP:
            return
        callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
        while frame is not None:
            code = frame.f_code
            if code in callbacks or code.co_name == "__del__" or code.co_filename == weakref.__file__:
                threading.Timer(0.01, _thread.interrupt_main, [number]).start()
                return
            frame = frame.f_back
        self.stopped, self._last = True, time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def handled(stop: Stopper) -> Iterator[None]:
    """Let a handler answer Ctrl-C and SIGTERM within the block; signals reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _interrupted(name: str, message: str, *, at_once: bool) -> None:
    """End an interrupted command; a process of its own at once, as other threads may be in the middle of their work."""
    if not at_once:
        _fail(name, message, 130)
    click.echo(f"{name}: error: {message}", err=True)
    sys.stdout.flush()
    os._exit(130)


def _fail(name: str, message: str, code: int) -> None:
    click.echo(f"{name}: error: {message}", err=True)
    sys.exit(code)
