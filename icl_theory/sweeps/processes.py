"""Several processes that share one sweep: which one this is, and who holds the folder."""

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
    """Number of this process among several; each does its own units and needs none of the others'."""

    number: int = 0
    total: int = 1


ALONE = Process()


@contextmanager
def hold(path: Path, process: Process) -> Iterator[None]:
    """Hold a folder against other sweeps; the system lets go of it when the process ends, however it ends.

    One process holds it alone; several hold it together, and each its number.

    Raises:
        InputError: somebody else holds it, or it may not be written.
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
