"""Batches of whole examples packed into rows, as places in one flat array of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from icl_theory.llm.data.batches import Tokenized

MULTIPLE = 2  # numbers of rows are multiples of this, so that few shapes are compiled


class Flat(NamedTuple):
    """Examples one after the other.

    Attributes:
        tokens: (N,) tokens of all examples.
        learned: (N,) True for tokens that are learned.
        begins: (P,) place of each example's first token.
        sizes: (P,) number of tokens of each example.
    """

    tokens: np.ndarray
    learned: np.ndarray
    begins: np.ndarray
    sizes: np.ndarray


class Layout(NamedTuple):
    """Packed batches of S steps, each with R rows of T tokens.

    Attributes:
        places: (S, R, T) place of each token in the flat array; 0 for padding, which holds no learned token.
        segments: (S, R, T) number of the example in its row, from 1; 0 for padding.
        weights: (S, R) weight of each row in the loss.
    """

    places: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


def flat(examples: Sequence[Tokenized]) -> Flat:
    """Concatenate examples."""
    sizes = np.array([len(example.tokens) for example in examples])
    return Flat(
        np.concatenate([example.tokens for example in examples]),
        np.concatenate([example.learned for example in examples]),
        np.cumsum(sizes) - sizes,
        sizes,
    )


def packed(batches: np.ndarray, weights: np.ndarray, examples: Flat, length: int) -> Layout:
    """Pack each batch of examples into rows; only examples of one weight share a row.

    Args:
        batches: (S, B) examples of each step.
        weights: (P,) weight of each example in the loss.
        examples: all examples, none longer than `length`.
        length: T.
    """
    filled = [_rows(batch, weights, examples.sizes, length) for batch in batches]
    count = -(-max(map(len, filled)) // MULTIPLE) * MULTIPLE
    shape = (len(batches), count, length)
    found = Layout(np.zeros(shape, np.int32), np.zeros(shape, np.int8), np.zeros(shape[:2], np.float32))
    for step, rows in enumerate(filled):
        for row, members in enumerate(rows):
            found.weights[step, row] = weights[members[0]]
            end = 0
            for number, example in enumerate(members, start=1):
                begin, end = end, end + examples.sizes[example]
                first = examples.begins[example]
                found.places[step, row, begin:end] = np.arange(first, first + examples.sizes[example])
                found.segments[step, row, begin:end] = number
    return found


def _rows(batch: np.ndarray, weights: np.ndarray, sizes: np.ndarray, length: int) -> list[list[int]]:
    """Return the examples of each row: the longest first, each in the first row with room and of its weight."""
    rows: list[list[int]] = []
    room: list[tuple[int, float]] = []
    for example in batch[np.argsort(-sizes[batch], kind="stable")].tolist():
        size, weight = int(sizes[example]), float(weights[example])
        row = next((row for row, (left, own) in enumerate(room) if own == weight and left >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append((length, weight))
        rows[row].append(example)
        room[row] = (room[row][0] - size, weight)
    return rows
