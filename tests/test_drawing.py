"""Small files and words beside curves: what figures draw with, and how pictures are written."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from figures.light_marks import draw_dots, few_of
from icl_theory.plotting import STYLE, label_end, new_panels, save_picture, styled


@styled
def panel():
    figure, (axis,) = new_panels(1, 1)
    axis.set(xlim=(0.0, 10.0), ylim=(0.0, 10.0), title="$a_{d}^{2}$")
    return figure, axis


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_svg_is_lighter_and_the_same_to_a_hundredth_of_a_point(tmp_path):
    figure, axis = panel()
    axis.plot(np.linspace(0.0, 10.0, 100), 5.0 + np.sin(np.arange(100.0)))
    save_picture(figure, tmp_path / "light.svg")
    light = (tmp_path / "light.svg").read_text()
    with matplotlib.rc_context(STYLE):
        figure.savefig(tmp_path / "heavy.svg", metadata={"Date": None})
    heavy = (tmp_path / "heavy.svg").read_text()
    assert len(light) < 0.9 * len(heavy)
    np.testing.assert_allclose(numbers(light), numbers(heavy), atol=0.01)
    scales = r"scale\([^)]*\)"  # of glyphs: a hundredth would be a lot
    assert re.findall(scales, light) == re.findall(scales, heavy)


def test_dots_are_round_marks_in_one_path_without_those_that_are_not_known():
    figure, axis = panel()
    axis.set_axis_off()
    x, y = np.array([2.0, 5.0, np.nan, 8.0]), np.array([5.0, np.inf, 5.0, 5.0])
    draw_dots(axis, x, y, "#FF0000", size=4.0)
    (dots,) = axis.patches
    assert len(dots.get_path().vertices) == 2 * 2
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 80)
    rows, columns = np.nonzero(red)
    wide = np.ptp(columns[columns < columns.mean()]) + 1
    assert wide == pytest.approx(np.ptp(rows) + 1, abs=1)
    assert red.sum() == pytest.approx(2 * np.pi / 4 * (4.0 / 72 * figure.dpi) ** 2, rel=0.3)


def test_few_samples_are_even_in_the_logarithm_of_time_and_reach_the_end():
    time = np.arange(0.0, 1001.0)
    few = few_of(time, 7, start=1.0)
    assert few[-1] == 1000
    np.testing.assert_allclose(np.log10(time[few]), np.linspace(0.0, 3.0, 7), atol=0.15)


@pytest.mark.parametrize(("side", "before"), [("left", True), ("right", False)])
def test_a_name_stands_beside_the_end(side, before):
    figure, axis = panel()
    label_end(axis, 5.0, 5.0, "SAM", "#FF0000", side=side)
    figure.canvas.draw()
    (text,) = axis.texts
    box, end = text.get_window_extent(), axis.transData.transform((5.0, 5.0))
    assert (box.x1 < end[0]) == before
    assert (box.x0 > end[0]) != before
    assert box.y0 < end[1] < box.y1
