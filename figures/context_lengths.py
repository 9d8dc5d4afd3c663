"""Training over many context lengths: its plateaus, and the loss at lengths that were and were not trained on."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, draw_levels, feature_colour, new_figure, styled

TRAINED = {
    "one_length": ("trained at N = 31", feature_colour(0), "o"),
    "many_lengths": ("trained at 1 … 31", feature_colour(1), "s"),
}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Loss curves with the plateaus of the mixture; loss against context length; their difference."""
    figure, ((loss, lengths, difference),) = new_figure(13.5, 4.3, 1, 3)
    one, many = (data.sel(trained=trained) for trained in TRAINED)
    for curve in many.loss:
        loss.plot(data.time[1:], curve[1:], color=GD, linewidth=0.7, alpha=0.5)
    loss.plot([], [], color=GD, label=f"simulation, {data.sizes['seed']} seeds")
    draw_levels(loss, many.plateau_loss)
    loss.set(title="Trained over lengths 1 to 31", xscale="log", xlim=(100, None), ylim=(0.2, 1.06))
    loss.set(xlabel="time (learning rate × step)", ylabel="mean over lengths of the loss")
    loss.legend(loc="lower left")
    for trained, (label, colour, marker) in zip((one, many), TRAINED.values(), strict=True):
        lengths.plot(data.length, trained.predicted_end_loss, "--", color=colour, linewidth=1.3)
        lengths.errorbar(
            data.length,
            trained.fresh_loss,
            yerr=4.0 * trained.fresh_loss_error,
            fmt=marker,
            color=colour,
            markersize=5,
            capsize=2.5,
            label=label,
        )
        lengths.axhline(float(trained.endless_loss), color=colour, linewidth=0.9, linestyle=":")
    lengths.plot([], [], "--", color="#555555", linewidth=1.3, label="predicted")
    lengths.plot([], [], ":", color="#555555", linewidth=0.9, label="predicted, N → ∞")
    lengths.set(title="Loss at other context lengths", yscale="log", ylabel="loss on fresh prompts")
    lengths.legend(loc="upper right")
    predicted = many.predicted_end_loss - one.predicted_end_loss
    difference.axhline(0.0, color="#999999", linewidth=0.8)
    difference.plot(data.length, predicted, "k--", linewidth=1.3, label="predicted")
    difference.errorbar(
        data.length,
        data.difference,
        yerr=4.0 * data.difference_error,
        fmt="o",
        color=feature_colour(2),
        markersize=5,
        capsize=2.5,
        label="measured, same prompts",
    )
    difference.set(title="Loss, trained at 1 … 31 − trained at 31", ylabel="difference of losses", yscale="symlog")
    difference.set_yscale("symlog", linthresh=0.01)
    difference.legend(loc="lower right")
    for axis in (lengths, difference):
        axis.set(xscale="log", xlabel="context length N of the prompts asked")
        axis.set_xticks([1, 4, 16, 64, 256, 1024], labels=["1", "4", "16", "64", "256", "1024"])
        axis.minorticks_off()
    return figure


FIGURE = FigureSpec(
    "context_lengths",
    "Context lengths, trained and not",
    "Rank-one attention (D = 4, H = 5). Left: trained on the mean over lengths 1 to 31, it rests on the plateaus "
    "predicted for that mixture. Middle: the loss on 20 000 fresh prompts of each length (bars: 4 standard errors) is "
    "the predicted one, for lengths never trained on too. Right: short contexts in training buy a lower loss on short "
    "contexts and cost loss on long ones: one matrix serves all lengths, and W shrinks where contexts are short.",
    ("context_lengths",),
    draw,
)
