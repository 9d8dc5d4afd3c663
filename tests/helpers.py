"""What several tests use: commands run in this process, compilations counted, numbers compared."""

from contextlib import contextmanager

import jax
import numpy as np
import pytest

from icl_theory.cli import main


@contextmanager
def compilations():
    """The names of the programs that are compiled inside, one entry for each compilation."""
    programs = []

    def note(event, duration_secs, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def run_command(*arguments):
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def refused(capsys, *arguments):
    """The one line printed for bad input."""
    assert run_command(*arguments) == 2
    return one_line(capsys)


def one_line(capsys):
    """What stands on standard error, which has to be one line of the command's own."""
    error = capsys.readouterr().err.strip()
    assert error.startswith("icl-theory: error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    return error


def assert_close(actual, desired, *, rtol=None):
    """Equal up to a few rounding errors of the coarser dtype, relative to the largest entry."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    dtype = np.result_type(actual, desired)
    rtol = rtol if rtol is not None else 200 * np.finfo(dtype).eps
    scale = max(float(np.max(np.abs(desired), initial=0.0)), np.finfo(dtype).tiny)
    np.testing.assert_allclose(actual / scale, desired / scale, rtol=0, atol=rtol)
