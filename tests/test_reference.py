"""The reference is made of docstrings: every public name has one of its own."""

import inspect

import pytest

import icl_theory as icl


@pytest.mark.parametrize("name", [name for name in icl.__all__ if name != "__version__"])
def test_public_names_say_what_they_are(name):
    thing = getattr(icl, name)
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20
    assert not text.startswith(f"{name}("), "Python's own words for a tuple or dataclass"
    for method, function in inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else ():
        if not method.startswith("_") and function.__module__.startswith("icl_theory"):
            assert inspect.getdoc(function), method
