"""Schematic of the theory: a prompt, a head that reads it, the features, and the staircase of losses that follows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from figures.figure import FigureSpec
from icl_theory.plotting import GD, THEORY, draw_levels, feature_colour, new_panels, styled, text_colour
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.theory.aligned_dynamics import AlignedClosedForm
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.hitting_time import hitting_time

EIGENVALUES, NUM_CONTEXT, START = (2.0, 1.0), 31, 0.05
ANGLE = np.deg2rad(30.0)  # of the first feature
KEY, QUERY = np.deg2rad(75.0), np.deg2rad(-10.0)  # directions of the head that is drawn
REACH = 3.6  # of the drawn plane


@styled
def draw() -> Figure:
    """Draw the four steps from left to right, or from top to bottom in a column."""
    figure, panels = new_panels(4, 4, height=2.1)
    basis = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    mixture = TaskMixture.single(EIGENVALUES, num_context=NUM_CONTEXT, basis=basis)
    features, prompts = find_features(mixture), sample_prompts(mixture, 1, key=jax.random.key(0))
    _prompt(panels[0], prompts)
    _head(panels[1], prompts)
    _features(panels[2], prompts, features)
    _staircase(panels[3], features)
    for axis in panels[:3]:
        axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])
        axis.set(xlabel="input, coordinate 1", ylabel="input, coordinate 2")
    panels[3].set_box_aspect(1.0)
    beside = figure.get_figwidth() > figure.get_figheight()
    if beside:
        figure.get_layout_engine().set(wspace=0.12)  # type: ignore[call-arg, union-attr]  # room for arrows
        for axis in panels[1:3]:
            axis.set_ylabel("")
    for axis in panels[1:]:
        _step(axis, beside)
    return figure


def _step(axis: Axes, beside: bool) -> None:
    """Draw an arrow to a panel from the one before, which is beside it or above."""
    left = -0.32 if axis.get_ylabel() else -0.07
    tip, start = ((left, 0.5), (-15, 0)) if beside else ((0.9, 1.05), (0, 26))
    style = {"arrowstyle": "-|>", "color": THEORY, "linewidth": 1.5, "mutation_scale": 10}
    axis.annotate("", tip, start, "axes fraction", "offset points", arrowprops=style)


def _arrow(axis: Axes, tip: Any, colour: str, name: str, width: float = 1.3) -> None:
    """Draw an arrow from the origin, with its name beyond the tip."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0.0, "shrinkB": 0.0}
    axis.annotate("", tip, (0.0, 0.0), arrowprops=style)
    _write(axis, tip * (1.0 + 0.5 / np.linalg.norm(tip)), name, colour)


def _write(axis: Axes, place: Any, text: str, colour: str) -> None:
    axis.text(place[0], place[1], text, color=text_colour(colour), ha="center", va="center")


def _line(axis: Axes, start: Any, end: Any, **style: Any) -> None:
    axis.plot([start[0], end[0]], [start[1], end[1]], color=GD, **style)


def _prompt(axis: Axes, prompts: Prompts) -> None:
    x, y = np.asarray(prompts.x[0]), np.asarray(prompts.y[0])
    axis.scatter(x[:, 0], x[:, 1], c=y, cmap="Greys", s=16, edgecolors="black", linewidths=0.5)
    _query(axis, prompts)
    axis.set_title("Prompt: examples (x, y)\nand a query")


def _query(axis: Axes, prompts: Prompts) -> np.ndarray:
    query = np.asarray(prompts.x_query[0])
    axis.plot(*query, "*", color="white", markeredgecolor="black", markersize=9)
    _write(axis, query - [0.0, 0.65], "$x_q$", "black")
    return query


def _head(axis: Axes, prompts: Prompts) -> None:
    beta, query = np.asarray(prompts.beta[0]), _query(axis, prompts)
    _arrow(axis, beta, "black", "β")
    for vector, angle, name, product, aside in (
        (beta, KEY, "$k$", r"$β\cdot k$", (0.95, 0.1)),
        (query, QUERY, "$q$", r"$q\cdot x_q$", (0.0, 0.5)),
    ):
        direction = np.array([np.cos(angle), np.sin(angle)])
        shadow = direction * (direction @ vector)
        _line(axis, -REACH * direction, REACH * direction, linewidth=0.8)
        _line(axis, vector, shadow, linewidth=0.8, linestyle=":")
        _line(axis, np.zeros(2), shadow, linewidth=2.6, solid_capstyle="butt")
        _write(axis, shadow / 2.0 + aside, product, GD)
        _write(axis, 0.9 * REACH * direction + [0.3, -0.3], name, GD)
    axis.set_title("Head: adds its\n" r"$v\,(β\cdot k)(q\cdot x_q)$")


def _features(axis: Axes, prompts: Prompts, features: Features) -> None:
    x, spreads = np.asarray(prompts.x[0]), np.sqrt(EIGENVALUES)
    axis.scatter(x[:, 0], x[:, 1], color="#CCCCCC", s=6, linewidths=0)
    axis.add_patch(Ellipse((0.0, 0.0), *(4.0 * spreads), angle=np.rad2deg(ANGLE), fill=False, color="#999999"))
    for d, (direction, spread, drive) in enumerate(zip(features.directions.T, spreads, features.drive, strict=True)):
        _arrow(axis, 2.0 * spread * direction * np.sign(direction[1]), feature_colour(d), f"$e_{d + 1}$", 1.8)
        words = f"drive $a_{d + 1}$ = {drive:g}"
        axis.text(
            0.98, 0.14 - 0.11 * d, words, color=text_colour(feature_colour(d)), transform=axis.transAxes, ha="right"
        )
    axis.set_title("Features: directions\nof the inputs")


def _staircase(axis: Axes, features: Features) -> None:
    times = hitting_time(0.5, drive=features.drive, optimum=features.optimum, start=START)
    flow = AlignedClosedForm(features, np.full(2, START)).predict(np.linspace(0.0, 1.35 * times[-1], 200))
    levels = nested_plateau_losses(features)
    axis.plot(flow.time, flow.loss, color=GD)
    draw_levels(axis, levels)
    for level, words in zip(levels, ("nothing learned", "1 learned", "both"), strict=True):
        axis.text(flow.time[-1], level + 0.05, words, ha="right", va="bottom", fontsize=7)
    axis.set(xlim=(0.0, flow.time[-1]), ylim=(0.0, 3.4), xticks=times, xticklabels=["$t_1$", "$t_2$"], yticks=range(4))
    for d, label in enumerate(axis.get_xticklabels()):
        label.set_color(text_colour(feature_colour(d)))
    axis.set(xlabel="time (learning rate × step)", ylabel="mean square error")
    axis.set_title("Staircase: features\nlearned one by one")


FIGURE = FigureSpec(
    "schematic",
    "From a prompt to a staircase: why features are learned one by one",
    "The argument in four drawings, for inputs in two dimensions whose covariance has the eigenvalues 2 and 1. a: a "
    "prompt has 31 examples (x, y) with y = w·x, here from white (small y) to black (large), and a query (star) whose "
    "y is asked for. b: a head projects β, the mean of y x over the examples, on its direction k, and the query on its "
    "direction q. It adds v (β·k)(q·x_q) to the prediction. c: the features are the main directions of the inputs, "
    "e_1 and e_2. Heads grow along the feature with the largest drive a = λ²γ first (γ is the variance of w). d: so "
    "the loss falls in steps, at times t_1 and t_2 and to levels (dashed) that follow in closed form.",
    (),
    draw,
)
