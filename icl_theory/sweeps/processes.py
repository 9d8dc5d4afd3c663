"""Several processes that share one sweep: their numbers, and locks on the folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from icl_theory.errors import InputError
from icl_theory.sweeps.folder import LOCK, OWN, cannot_write


class Process(NamedTuple):
    """The number of this process among several; each runs its own units, independently of the others."""

    number: int = 0
    total: int = 1


ALONE = Process()


@contextmanager
def hold(path: Path, process: Process) -> Iterator[None]:
    """Lock a folder against other sweeps; the system releases the lock however the process ends.

    A single process locks the folder for itself. Several share that lock, and each locks its own number.

    Raises:
        InputError: Another process holds the lock, or the folder cannot be written.
    """
    together = process.total > 1
    wanted = [(LOCK, fcntl.LOCK_SH if together else fcntl.LOCK_EX)]
    wanted += [(f"{LOCK}-{process.number}", fcntl.LOCK_EX)] if together else []
    with ExitStack() as handles:
        try:
            for name, kind in wanted:
                handle = os.open(path / OWN / name, os.O_RDWR | os.O_CREAT, 0o644)
                handles.callback(os.close, handle)
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "another sweep is running in it; wait for it or give another --out"
            raise InputError("folder", str(path), remedy) from None
        except OSError as error:
            raise cannot_write(path, error) from error
        yield
