"""Data and models on which several tests of the command line start."""

import json

import pytest
from late_rows import IDS, LOSSES, STEPS, rows, write_data
from tiny_model import write_rows, write_tiny_model

import icl_theory as icl


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A set of which every third row is learned late, and the losses that say so."""
    write_data(tmp_path / "train.jsonl", rows())
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, IDS), tmp_path / "losses.npz")
    return tmp_path


@pytest.fixture
def digits(tmp_path):
    """Always the same answer, learned early; to double a digit, learned late; a row that is too long."""
    same = [{"question": f"say {letter}", "answer": "no", "kind": "same"} for letter in "abcdefghij"]
    double = [{"question": f"{digit}+{digit}=", "answer": f"{2 * digit}", "kind": "double"} for digit in range(10)]
    long = [{"question": "a" * 40, "answer": "1", "kind": "long"}]
    return write_rows(tmp_path / "digits.jsonl", same + double + long)


@pytest.fixture
def asked(tmp_path, digits):
    return write_rows(tmp_path / "asked.jsonl", [json.loads(line) for line in digits.read_text().splitlines()[:20]])


@pytest.fixture
def model(tmp_path):
    return write_tiny_model(tmp_path / "model", chat=True)
