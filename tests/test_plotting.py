"""Panels, labels and titles that figures share."""

import matplotlib
import numpy as np
import pytest

from icl_theory.plotting import _order_text, label_ends, new_panels


def test_only_panels_that_are_used_have_letters():
    figure, panels = new_panels(4, 3)
    letters = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert letters == [["a"], ["b"], ["c"], ["d"], [], []]
    assert len(panels) == 4


def test_a_column_has_one_panel_a_row():
    with matplotlib.rc_context({"figure.figsize": (3.3, 3.3)}):
        figure, _ = new_panels(2, 2, width_ratios=(1, 2))
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 1


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ([3.0, 1.0, np.inf], "Learned in the order 2, 1; never 3"),
        ([1.0, 2.0, np.nan], "Learned in the order 1, 2"),
        ([np.inf, np.nan], "No feature is learned"),
        ([*range(9), np.inf, np.nan], "9 of 10 features are learned"),
    ],
)
def test_the_order_of_learning_is_said(times, text):
    assert _order_text(np.array(times)) == text


@pytest.mark.parametrize(("ends", "sides"), [((1.0, 0.0), ["center"] * 2), ((0.1, 0.0), ["bottom", "top"])])
def test_names_of_curves_do_not_overlap(ends, sides):
    _, (axis,) = new_panels(1, 1)
    axis.set_ylim(0, 1)
    label_ends(axis, {name: ([0, 1], [0.5, end], "black") for name, end in zip("AB", ends, strict=True)})
    assert {text.get_text(): text.get_va() for text in axis.texts} == dict(zip("AB", sides, strict=True))
