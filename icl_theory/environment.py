"""The sources, versions and machine that a result was made with."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import resource
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


@lru_cache
def code_version(*extra_folders: Path) -> str:
    """Return the package version and a digest of its sources (and of further folders), e.g. `0.1.0+5f3a9c01`."""
    digest = hashlib.sha256()
    for folder in (PACKAGE, *extra_folders):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{version('icl-theory')}+{digest.hexdigest()[:8]}"


def machine() -> dict[str, Any]:
    """Return the machine and the versions that a result is made with."""
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        **{name: version(name) for name in ("jax", "flax", "optax", "diffrax", "numpy")},
    }


@lru_cache
def commit() -> str:
    """Return the git commit of the sources, with `+changed` if they differ from it; empty outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changed" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def memory_bytes() -> float:
    """Return the memory of this machine, infinite if the system does not tell."""
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    return float(os.sysconf(names[0]) * os.sysconf(names[1])) if hasattr(os, "sysconf") else math.inf


def process_bytes(*, peak: bool = False) -> float:
    """Return the memory that this process takes now, or its peak so far.

    On Linux both are read from `/proc`, because the peak of `getrusage` may be that of a larger parent process. Other
    systems only have `getrusage`, so there the peak is returned in either case.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return 1024.0 * int(found["VmHWM" if peak else "VmRSS"].split()[0])
    except (OSError, KeyError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


PROCESSORS = "NPROC"  # the environment variable that tells XLA how many threads to use


def cores() -> int:
    """Return the number of cores that this process may use: `NPROC` if it is set, as in XLA."""
    given = os.environ.get(PROCESSORS, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
