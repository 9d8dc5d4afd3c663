"""Figures of a comparison: their titles say what was found, and rounding errors look like agreement."""

import numpy as np
import pytest
import xarray as xr

from icl_theory.plotting import PAGE
from icl_theory.sweeps.comparison import draw_comparison


def compared(error, **coordinates):
    """A sweep whose measurements of two features exceed the predictions, from 1 on, by a share `error`."""
    coordinates |= {"feature": [1, 2]}
    shape = [len(values) for values in coordinates.values()]
    predicted = 1.0 + np.arange(np.prod(shape)).reshape(shape)
    errors = np.broadcast_to(np.asarray(error)[..., None], shape)
    name = "learning_time"
    values = {name: predicted * (1 + errors), f"predicted_{name}": predicted, f"{name}_error": errors}
    return xr.Dataset({key: (tuple(coordinates), value) for key, value in values.items()}, coords=coordinates)


@pytest.mark.parametrize(("error", "title", "end"), [(1e-12, "They agree to rounding", 1.0), (-0.03, None, 3.0)])
def test_rounding_errors_are_drawn_pale_and_small(error, title, end):
    title = title or "They differ by at most 3 %"
    errors = np.full((3, 4), error)
    curves, _ = draw_comparison(compared(errors[0], rho=[0.0, 0.1, 0.2, 0.3]), "learning_time")
    maps, _ = draw_comparison(compared(errors, seed_scale=[1.0, 2.0, 3.0], rho=[0.0, 0.1, 0.2, 0.3]), "learning_time")
    right, difference = curves.axes[1], maps.axes[2]
    assert right.get_title(loc="left") == title
    assert " ".join(difference.get_title(loc="left").split()) == title
    if error > 0:
        assert right.get_ylim() == (-1.0, 1.0)
    assert difference.collections[0].get_clim() == pytest.approx((-end, end))
    assert max(figure.get_size_inches()[0] for figure in (curves, maps)) <= PAGE


def test_the_largest_difference_is_that_of_the_medians_drawn():
    errors = np.array([[0.01, 0.02, 0.5], [0.04, 0.05, 0.9]])  # (rho, seed)
    figure, _ = draw_comparison(compared(errors, rho=[0.0, 0.1], seed=[0, 1, 2]), "learning_time")
    assert figure.axes[1].get_title(loc="left") == "They differ by at most 5 %"
