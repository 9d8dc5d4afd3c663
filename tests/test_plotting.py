"""Panels, labels and titles that figures share."""

import matplotlib
import numpy as np
import pytest

from icl_theory.plotting import (
    EARLY,
    FEATURE_COLOURS,
    FUNCTIONAL_SAM,
    RANDOM,
    SAM,
    _order_text,
    contrast_with_white,
    label_end,
    label_ends,
    new_panels,
    ordered_colours,
    text_colour,
)


def test_only_panels_that_are_used_have_letters():
    figure, panels = new_panels(4, 3)
    letters = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert letters == [["a"], ["b"], ["c"], ["d"], [], []]
    assert len(panels) == 4


def test_a_column_has_one_panel_a_row():
    with matplotlib.rc_context({"figure.figsize": (3.3, 3.3)}):
        figure, _ = new_panels(2, 2, width_ratios=(1, 2))
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 1


@pytest.mark.parametrize(("width", "count", "height"), [(3.3, 2, 4.0), (3.3, 6, 8.8), (6.8, 6, 6.0)])
def test_a_figure_is_no_higher_than_a_page(width, count, height):
    with matplotlib.rc_context({"figure.figsize": (width, width)}):
        figure, _ = new_panels(count, 2, height=2.0)
    assert figure.get_size_inches() == pytest.approx((width, height))


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


@pytest.mark.parametrize(
    ("colour", "contrast"),
    [("#FFFFFF", 1.0), ("#000000", 21.0), ("#777777", 4.48), ("#FF0000", 4.0), ("#0000FF", 8.59)],
)
def test_contrast_is_that_of_the_guidelines(colour, contrast):  # figures of public contrast checkers
    assert contrast_with_white(colour) == pytest.approx(contrast, abs=0.005)


@pytest.mark.parametrize("colour", [*FEATURE_COLOURS, SAM, FUNCTIONAL_SAM, EARLY, RANDOM, *ordered_colours(6)])
def test_coloured_words_can_be_read_and_keep_their_hue(colour):
    found = text_colour(colour)
    assert contrast_with_white(found) >= 4.7
    dim = contrast_with_white([0.92 * part for part in matplotlib.colors.to_rgb(found)])  # as on a dark page
    assert dim / contrast_with_white([0.92] * 3) >= 4.5
    if contrast_with_white(colour) >= 4.7:
        assert found == matplotlib.colors.to_hex(colour)
    else:
        assert contrast_with_white(found) < 4.9
        rgb, darker = (np.array(matplotlib.colors.to_rgb(each)) for each in (colour, found))
        np.testing.assert_allclose(darker / darker.max(), rgb / rgb.max(), atol=0.01)


def test_names_of_curves_are_in_colours_that_can_be_read():
    _, (axis,) = new_panels(1, 1)
    label_ends(axis, {"A": ([0, 1], [0.0, 1.0], FEATURE_COLOURS[3]), "B": ([0, 1], [0.5, 0.0], FEATURE_COLOURS[5])})
    label_end(axis, 0.5, 0.5, "C", FEATURE_COLOURS[4])
    assert all(contrast_with_white(text.get_color()) >= 4.5 for text in axis.texts[-3:])
