"""In-context against in-weight learning: both test losses over training, and where least squares says they end."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import feature_colour, new_figure, ordered_colours, styled

TESTS = {
    "in_context": "in-context test: random task vectors",
    "in_weight": "in-weight test: fixed task, context of noise",
    "fixed": "the fixed task vector, context of its own",
}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Three test losses over training for each share of random tasks; their ends against prediction."""
    figure, axes = new_figure(12.0, 8.2, 2, 2)
    colours = ordered_colours(data.sizes["share"])
    for axis, (test, title) in zip(axes.flat, TESTS.items(), strict=False):
        for share, colour in zip(data.share, colours, strict=True):
            curves = data.test_loss.sel(test=test, share=share)
            axis.plot(data.time[1:], np.median(curves, axis=0)[1:], color=colour, label=f"{share:g}")
        axis.set(title=title[0].upper() + title[1:], xscale="log", xlim=(1.0, None), ylim=(0, None))
        axis.set(xlabel="time (learning rate × step)", ylabel="loss, median over seeds")
    axes[0, 0].legend(title="share of prompts with\nrandom task vectors", title_fontsize=9, loc="center right", ncols=2)
    ends = axes[1, 1]
    for index, (test, title) in enumerate(TESTS.items()):
        of_test = data.sel(test=test)
        ends.plot(data.share, of_test.predicted_test_loss, "--", color=feature_colour(index), linewidth=1.3)
        ends.plot(
            np.repeat(data.share, data.sizes["seed"]),
            of_test.test_loss[:, :, -1].values.ravel(),
            "o",
            color=feature_colour(index),
            markersize=4.5,
            label=title,
        )
    ends.plot([], [], "--", color="#555555", linewidth=1.3, label="least squares on the cubic features")
    ends.set(
        title="Where training ends", xlabel="share of prompts with random task vectors", ylabel="loss", ylim=(0, None)
    )
    ends.legend(loc="upper center", fontsize=8.5)
    return figure


FIGURE = FigureSpec(
    "in_weight_learning",
    "In-context and in-weight learning",
    "Merged attention with all its entries (D = 4, H = 8, N = 31, white inputs), trained on prompts of which a share "
    "has a random task vector and the rest one fixed vector. Upper right: with a share between 0 and 1 weights know "
    "the fixed task for a while (the loss after contexts of noise falls) and lose it again as contexts are used; at "
    "the end it is 2 to 6 % above saying zero. Upper left: in-context learning is best on the way and 3 to 18 % worse "
    "at the end. Lower left: with contexts of its own the fixed task ends better than a random one, the better the "
    "more prompts have it. Lower right: the ends of every seed lie where least squares on the cubic features puts "
    "them (dashed).",
    ("in_weight_learning",),
    draw,
)
