"""A simulation saved as files in common formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from icl_theory.plotting import GD, SAM, draw_run, save_figure
from icl_theory.results import save_arrays
from icl_theory.simulation.prediction import predicted_plateaus
from icl_theory.simulation.simulation import Simulation
from icl_theory.simulation.summary import lines, summary


def save_simulation(simulation: Simulation, folder: Path) -> None:
    """Write `summary` (`.json`, `.txt`), `trajectory` (`.csv`, `.npz`), `parameters.npz` and `run` (`.png`, `.svg`)."""
    trajectory, prediction = simulation.trajectory, simulation.prediction
    dim = trajectory.strength.shape[-1]
    columns = {"step": simulation.run.step, "time": trajectory.time, "loss": trajectory.loss}
    columns |= {f"strength_{d + 1}": trajectory.strength[:, d] for d in range(dim)}
    if prediction is not None:
        columns["predicted_loss"] = prediction.loss
        columns |= {f"predicted_strength_{d + 1}": prediction.strength[:, d] for d in range(dim)}
    with (folder / "trajectory.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    save_arrays(folder / "trajectory.npz", {**columns, "effective_matrix": simulation.run.tracked})
    save_arrays(folder / "parameters.npz", {name: np.asarray(leaf) for name, leaf in simulation.run.params.items()})
    (folder / "summary.json").write_text(json.dumps(summary(simulation), indent=2, ensure_ascii=False) + "\n")
    (folder / "summary.txt").write_text("\n".join(lines(simulation)) + "\n")
    config = simulation.config
    sharp = "sam" in config.optimizer
    figure = draw_run(
        trajectory,
        features=simulation.features,
        plateaus=predicted_plateaus(config, simulation.features),
        prediction=prediction,
        threshold=config.threshold,
        colour=SAM if sharp else GD,
        title=f"{config.model}, {config.optimizer}{f', ρ = {config.rho:g}' if sharp else ''}, {config.data}",
    )
    save_figure(figure, folder / "run")
