"""`python -m experiments.language_models.mathematics_report FOLDER`: what a study of mathematical problems shows.

Arms are compared seed by seed, over the seeds that both have. The verdicts are those of the protocol (PROTOCOL.md).
With `--save FILE`, all that is printed can be made again from that file alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import ttest_1samp

import icl_theory as icl
from experiments.language_models.mathematics_arms import NAMES, PLAIN
from experiments.language_models.mathematics_mediation import mediation, mediation_lines
from experiments.language_models.mathematics_noise import law_lines
from experiments.language_models.mathematics_runs import known, slug
from experiments.language_models.mathematics_verdicts import how, overall, single
from icl_theory.cli.one_line import run
from icl_theory.environment import machine
from icl_theory.errors import InputError
from icl_theory.llm.evaluation.study import paired
from icl_theory.results import writing

LEVEL = 0.05
MEASURED = ("accuracy", "cut", "loss", "factors", "R")
PRIMARY = (
    ("late", PLAIN),
    ("late", "random"),
    ("recipe", PLAIN),
    ("recipe", "recipe, random"),
    ("recipe, equal epochs", "plain, longer"),
    ("fresh late", "late"),
)
SECONDARY = (
    ("fresh late", "fresh random"),
    ("late, first half", "late, second half"),
    ("late, first half", "random"),
    ("late, second half", "random"),
    ("late, by weight", PLAIN),
    ("late, by weight", "late"),
    ("recipe", "late"),
    ("early", "random"),
    ("plain, longer", PLAIN),
    ("fsam", PLAIN),
    ("fsam, half the steps", PLAIN),
)
Arms = dict[str, dict[str, Any]]


def gathered(folder: Path) -> Arms:
    """Return the finished arms of a folder, with the seeds of each in `seeds` and R and contrast with plain by seed.

    Raises:
        InputError: no plain run is finished, or an arm holds a seed twice.
    """
    arms: Arms = {}
    for name in NAMES:
        for path in sorted(folder.glob(f"{slug(name)}-[0-9]*.json")):
            saved = json.loads(path.read_text())
            if saved["name"] != name:
                continue
            arm = arms.setdefault(
                name, {key: [] for key in ("seeds", *MEASURED, "contrast", "exponent")} | {"by_kind": {}}
            )
            if again := sorted(set(arm["seeds"]) & set(saved["seeds"])):
                raise InputError(
                    "FOLDER", str(folder), f"{name} is there twice for seed {again[0]}; remove {path.name}"
                )
            arm["seeds"] += saved["seeds"]
            for key in MEASURED:
                arm[key] += saved["arm"][key]
            noise = saved["arm"].get("noise") or [{"exponent": None}] * len(saved["seeds"])
            arm["exponent"] += [one["exponent"] for one in noise]
            for kind, values in saved["arm"]["by_kind"].items():
                arm["by_kind"].setdefault(kind, []).extend(values)
            arm["contrast"] += known(contrasts(folder, name, saved["seeds"]))
    if PLAIN not in arms:
        raise InputError("FOLDER", str(folder), "it holds no finished plain run")
    return arms


def contrasts(folder: Path, name: str, seeds: list[int]) -> list[float]:
    """Return the contrast of an arm with plain (`compare_losses`) for seeds that were trained together, NaN for none.

    It is the mean over the records that both have after step 0 and before the end, in tenths of both runs. Above 0 the
    arm has the lower simplicity bias.
    """
    ends = "-".join(map(str, seeds))
    plain, own = (folder / f"{slug(one)}-{ends}.npz" for one in (PLAIN, name))
    if name == PLAIN or not plain.exists():
        return [np.nan] * len(seeds)
    a, b = np.load(plain), np.load(own)
    found = []
    for first, second in zip(a["losses"], b["losses"], strict=True):
        if np.array_equal(first, second):  # κ = 1: the arm is plain
            found.append(0.0)
            continue
        if not np.isfinite([*first, *second]).all():
            found.append(np.nan)
            continue
        compared = icl.compare_losses(icl.LossRecord(a["steps"], first), icl.LossRecord(b["steps"], second))
        inside = (compared.steps > 0) & (compared.steps < a["steps"][-1])
        values = compared.contrast.value[inside, compared.rankings.index("both")]
        found.append(float(np.mean(values)) if inside.any() else np.nan)
    return found


def difference(arms: Arms, name: str, other: str, measured: str = "accuracy") -> np.ndarray:
    """Return differences of two arms in what was measured, of the seeds that both have."""
    one, two = (dict(zip(arms[arm]["seeds"], arms[arm][measured], strict=True)) for arm in (name, other))
    return np.array([one[seed] - two[seed] for seed in one if seed in two], float)


def holm(chances: list[float], level: float = LEVEL) -> list[bool]:
    """Return which of several hypotheses are rejected by Holm's procedure."""
    order, rejected = np.argsort(chances), [False] * len(chances)
    for place, index in enumerate(order):
        if not chances[index] <= level / (len(chances) - place):
            break
        rejected[index] = True
    return rejected


def comparisons(arms: Arms, seeds: int) -> list[dict[str, Any]]:
    """Return all comparisons that the finished arms allow, the primary ones with p and verdict.

    A primary comparison that has fewer than `seeds` seeds is not made yet.

    A comparison holds `arm`, `other`, `primary`, the `differences` of accuracy by seed, their `mean` and the `half`
    width of its 95 % interval. Holm's procedure counts the primary ones that are missing too.
    """
    found: list[dict[str, Any]] = []
    for pair in PRIMARY + SECONDARY:
        if set(pair) <= set(arms):
            differences = difference(arms, *pair)
            mean, half = paired(differences)
            names: dict[str, Any] = {"arm": pair[0], "other": pair[1], "primary": pair in PRIMARY}
            found.append(names | {"differences": differences.round(5).tolist(), "mean": mean, "half": half})
    made = [one for one in found if one["primary"] and len(one["differences"]) >= seeds]
    for one in made:
        one["p"] = float(ttest_1samp(one["differences"], 0).pvalue)
    missing = [1.0] * (len(PRIMARY) - len(made))
    for one, rejected in zip(made, holm([*(one["p"] for one in made), *missing]), strict=False):
        one["verdict"] = single(one["mean"], one["half"], rejected)
    return found


def lines(arms: Arms, seeds: int) -> list[str]:
    """Return the report."""
    told = [f"{'arm':22} seeds  accuracy  cut off   loss       R  contrast"]
    for name, arm in arms.items():
        ratio, contrast = np.exp(_mean(np.log(np.array(arm["R"], float)))), _mean(np.array(arm["contrast"], float))
        told.append(
            f"{name:22} {len(arm['seeds']):5} {np.mean(arm['accuracy']):9.3f} {np.mean(arm['cut']):8.3f} "
            f"{np.mean(arm['loss']):6.3f} {ratio:7.2f} {contrast:+9.4f}"
        )
    told += ["", f"primary comparisons (Holm's procedure over all {len(PRIMARY)})"]
    found = comparisons(arms, seeds)
    told += [f"{_told(one)}  {_judged(one)}" for one in found if one["primary"]]
    told += ["", "secondary comparisons", *(_told(one) for one in found if not one["primary"])]
    mediated = mediation(arms)
    told += ["", *mediation_lines(mediated), *law_lines(arms), ""]
    told += [
        f"a gain of {name}: {overall(found, arm)}" for arm, name in (("late", "our rule"), ("recipe", "the recipe"))
    ]
    told += [f"how our rule helps: {how(found, mediated)}"]
    return [*told, "", *families(arms)]


def families(arms: Arms) -> list[str]:
    """Return a table of accuracies by family, each the plain mean over its levels."""
    names = list(dict.fromkeys(kind.split()[0] for kind in arms[PLAIN]["by_kind"]))
    told = [f"{'accuracy by family':22}" + "".join(f"{name:>12}" for name in names)]
    for arm, found in arms.items():
        cells = (
            np.mean([np.mean(values) for kind, values in found["by_kind"].items() if kind.split()[0] == name])
            for name in names
        )
        told.append(f"{arm:22}" + "".join(f"{cell:12.3f}" for cell in cells))
    return told


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _judged(one: dict[str, Any]) -> str:
    return f"p = {one['p']:.4f}: {one['verdict']}" if "verdict" in one else "not made: seeds are missing"


def _told(one: dict[str, Any]) -> str:
    words = f"{one['arm']} minus {one['other']}"
    return f"{words:44} {one['mean']:+.3f} ± {one['half']:.3f} ({len(one['differences'])} seeds)"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--save", type=click.Path(path_type=Path), help="write the arms to this file")
@click.option("--seeds", default=16, show_default=True, type=click.IntRange(2), help="seeds of the protocol")
def main(folder: Path, save: Path | None, seeds: int) -> None:
    """Show what the finished runs in FOLDER, or a saved file, say."""
    if folder.is_file():
        arms = json.loads(folder.read_text())["arms"]
    else:
        arms = gathered(folder)
        if save is not None:
            settings = json.loads((folder / "settings.json").read_text())
            with writing(save) as unfinished:
                found = {
                    "machine": machine(),
                    "settings": settings,
                    "comparisons": comparisons(arms, seeds),
                    "arms": arms,
                }
                unfinished.write_text(json.dumps(found) + "\n")
    click.echo("\n".join(lines(arms, seeds)))


if __name__ == "__main__":
    run(main, "mathematics-report", cache=False)
