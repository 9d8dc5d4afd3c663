"""The folder of a job: its saved settings, and which of them may still change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from icl_theory.errors import InputError
from icl_theory.llm.data.problems import GENERATOR
from icl_theory.llm.model.sharding import wait_for_all_hosts
from icl_theory.llm.training.run_checkpoints import CHECKPOINTS, newest_step
from icl_theory.results import exists, first_difference
from icl_theory.upsampling.data_file import check_outside
from icl_theory.upsampling.data_files import HUB

SETTINGS, REPORT, MODEL, ADAPTER, RUN = "settings.json", "report.json", "model", "adapter", "run"
BEFORE, AFTER, LOSSES, CURVE = "before.jsonl", "after.jsonl", "losses.zarr", "loss.csv"
PARTIAL = ".partial"  # suffix of settings that are being written
HALF_WRITTEN = ".*.????????"  # folders in which `results.writing` writes
WARMUP, WEIGHTS, NOISE = "warmup", "weights.csv", "noise.npz"
ASKING = (
    "model",
    "evaluation",
    "max_new",
    "chat",
    "thinking",
    "fields",
    "bfloat16",
    "files",
)  # settings on which the evaluation before training depends


def check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raise `InputError` if a folder holds another job, files that belong to no job, or lies in that of the data."""
    for source in filter(None, (settings["data"], settings["evaluation"])):
        if not source.startswith((GENERATOR, HUB)):
            check_outside(Path(source), folder)
    path = folder / SETTINGS
    try:
        if path.is_file():
            old, made_with = json.loads(path.read_text()), spent(folder, settings)
            before, now = ({name: one.get(name) for name in made_with} for one in (old, settings))
            difference = first_difference(before, now)
            if difference:
                raise InputError("--out", str(folder), f"it holds another job ({difference}); give another folder")
        elif exists(folder) and (not folder.is_dir() or any(path.suffix != PARTIAL for path in folder.iterdir())):
            raise InputError("--out", str(folder), "it holds other things; give a new or empty folder")
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("--out", str(folder), f"cannot be used ({error})") from None


def spent(folder: Path, settings: Iterable[str]) -> set[str]:
    """Return the settings that the files in a folder already depend on; the others may still change."""
    begun = [folder / WARMUP / WEIGHTS, folder / LOSSES, *(folder / RUN / CHECKPOINTS).glob("*")]
    if any(map(exists, begun)):
        return set(settings)
    if exists(folder / WARMUP / LOSSES):
        return set(settings) - {"upsampling", "noise_scale"}  # nothing was chosen yet
    return set(ASKING) if exists(folder / BEFORE) else set()


def where_it_goes_on(folder: Path) -> str:
    """Return what to say of an interrupted job: what is kept of it in its folder."""
    for run, name in ((RUN, ""), (f"{WARMUP}/{RUN}", " of the first run")):
        step = newest_step(folder / run)
        if step is not None:
            return f"interrupted; the same command goes on from step {step}{name}"
    if (folder / SETTINGS).is_file():
        return "interrupted before a checkpoint; the same command begins the run again"
    return "interrupted; nothing was written"


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a job into its folder, atomically, and remove what a killed process left half written.

    Raises:
        InputError: the folder cannot be written.
    """
    wait_for_all_hosts("checked")  # no host reads the folder while another writes into it
    if jax.process_index() == 0:
        path, text = folder / SETTINGS, json.dumps(settings, indent=1) + "\n"
        partial = path.with_suffix(PARTIAL)
        try:
            if not path.is_file() or path.read_text() != text:
                folder.mkdir(parents=True, exist_ok=True)
                partial.write_text(text)
                os.replace(partial, path)
            for left in (path for place in (folder, folder / WARMUP) for path in place.glob(HALF_WRITTEN)):
                shutil.rmtree(left)
        except OSError as error:
            raise InputError("--out", str(folder), f"cannot be written ({error.strerror}); give another") from None
    wait_for_all_hosts("folder")


def read_report(folder: Path) -> dict[str, Any] | None:
    """Read the report of a finished job; None if the job is not finished.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / REPORT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        _ = found["loss"], found["steps"], found["before"], found["after"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("report", str(path), "it is damaged; remove it, and it is written again") from None
    return found
