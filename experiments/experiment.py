"""What an experiment is, and how its data are made, kept and found again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from icl_theory.errors import InputError
from icl_theory.store import (
    check_place,
    code_version,
    is_complete,
    load_arrays,
    read_manifest,
    save_arrays,
    write_result,
)
from icl_theory.verification import Claim, Data, measure_claim

RESULTS = Path("results")
REMEDY = "run `make fresh` (it sets older results aside), or remove that folder"


class Experiment(NamedTuple):
    """One question asked of the simulation.

    Attributes:
        name: module, folder and command-line name.
        question: what it asks, for the report.
        settings: frozen dataclass with every number.
        measure: `measure(settings, progress) -> dict of arrays`.
        claim: the claim of the verification table it feeds; None for data that only figures use.
    """

    name: str
    question: str
    settings: Any
    measure: Callable[[Any, Callable[[int, int], None]], Data]
    claim: Claim | None = None

    @classmethod
    def of_claim(cls, claim: Claim) -> Experiment:
        """The experiment that measures a claim of the verification table."""
        return cls(claim.name, claim.question, claim.settings, claim.measure, claim)

    @property
    def takes(self) -> str:
        """Its setting in words, as the settings' class describes it."""
        return " ".join((type(self.settings).__doc__ or "").split())

    @property
    def command(self) -> str:
        """What to type to make its data."""
        return f"python -m experiments run {self.name}"


def sources() -> str:
    """Version of everything that data depend on: the package and the experiments."""
    return code_version(Path(__file__).parent)


def run(experiment: Experiment, results: Path, progress: Callable[[str, int, int], None]) -> bool:
    """Make the data unless they are complete; True when they were made now.

    Raises:
        InputError: the folder is half written, or of another version or setting.
    """
    folder = results / experiment.name
    if is_complete(folder, config=experiment.settings, code=sources(), remedy=REMEDY):
        return False
    check_place(folder)
    began = time.monotonic()
    arrays: dict[str, Data] = {}
    if experiment.claim is not None:
        for precision in experiment.claim.precisions():
            title = f"{experiment.name} ({precision})"
            arrays[f"data_{precision}.npz"] = measure_claim(
                experiment.claim,
                float64=precision == "float64",
                progress=partial(progress, title),
            )
    else:
        with jax.enable_x64(True):
            arrays["data_float64.npz"] = experiment.measure(
                experiment.settings, lambda done, total: progress(experiment.name, done, total)
            )

    def write(folder: Path) -> None:
        for name, values in arrays.items():
            save_arrays(folder / name, values)

    write_result(
        folder,
        write,
        config=experiment.settings,
        code=sources(),
        seconds=time.monotonic() - began,
        name=experiment.name,
    )
    return True


def load(experiment: Experiment, results: Path, precision: str = "float64") -> Data:
    """Saved arrays.

    Raises:
        InputError: there are none (with the command that makes them), or they are damaged.
    """
    folder = results / experiment.name
    if not is_complete(folder, config=experiment.settings, code=sources(), remedy=REMEDY):
        where = "" if results == RESULTS else f" --results {results}"
        raise InputError("data", str(folder), f"not made yet; run `{experiment.command}{where}`")
    return load_arrays(folder / f"data_{precision}.npz")


def manifest(experiment: Experiment, results: Path) -> dict[str, Any]:
    """When, where and with what the data were made."""
    return read_manifest(results / experiment.name, remedy=REMEDY)
