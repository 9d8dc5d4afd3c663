"""The command line as a whole: unknown commands, help, signals."""

import gc
import signal
import time

import pytest
from helpers import refused, run_command

from icl_theory.cli import COMMANDS, cli
from icl_theory.cli.one_line import Stopper


def test_unknown_commands_and_groups(capsys):
    assert "simulat" in refused(capsys, "simulat")
    for names in ("A", "", ",", "phase_diagram"):
        assert "--only" in refused(capsys, "verify", "--only", names)
    assert "did you mean dynamics" in refused(capsys, "verify", "--only", "fixed_points,dynamcs")
    wrong = refused(capsys, "verify", "--only", "fixed_points/gain")
    assert "did you mean" in wrong
    assert "fixed_points/gain_has_a_short_formula" in wrong
    assert run_command() == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_list_of_commands_says_what_each_command_says():
    for name, text in COMMANDS.items():
        command = cli.get_command(None, name)
        assert command.help.startswith(text), name


def test_help_is_worth_reading(capsys):
    for command in ("simulate", "verify"):
        assert run_command(command, "--help") == 0
        text = capsys.readouterr().out
        assert "Examples" in text or "Groups of statements" in text
        assert len(text) > 800


def then_wait(act):
    """Act, and wait for the signal in short sleeps."""
    act()
    for _ in range(200):
        time.sleep(0.01)


def test_signals_interrupt_once_and_are_not_lost_where_exceptions_are():
    """In a callback of the garbage collector, and while an object is finalised, they would be printed and forgotten."""
    before = signal.getsignal(signal.SIGTERM)

    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def collected(phase, info):
        if phase == "start":
            signal.raise_signal(signal.SIGTERM)

    try:
        signal.signal(signal.SIGTERM, Stopper())
        gc.callbacks.append(collected)
        with pytest.raises(KeyboardInterrupt):
            then_wait(gc.collect)
        gc.callbacks.remove(collected)
        signal.signal(signal.SIGTERM, Stopper())
        with pytest.raises(KeyboardInterrupt):
            then_wait(Finalised)
        signal.raise_signal(signal.SIGTERM)  # at once again, while files are removed
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.callbacks[:] = [callback for callback in gc.callbacks if callback is not collected]
