"""Tokenized fine-tuning examples, and batches of them with padding or packing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_theory.errors import InputError, check_number


class Tokenized(NamedTuple):
    """One tokenized example.

    Attributes:
        tokens: (T,) tokens of all that is given and learned.
        learned: (T,) True for tokens that are learned; never the first, which nothing predicts.
    """

    tokens: Int[Any, " T"]
    learned: Bool[Any, " T"]


def fitting(examples: Sequence[Tokenized], length: int) -> np.ndarray:
    """Return (P,) True for examples that fit into `length` tokens and have something to learn.

    The caller leaves out the others and counts them.
    """
    check_number("length", length, minimum=2, integer=True)
    return np.array([len(example.tokens) <= length and example.learned.any() for example in examples], bool)


def pad(
    examples: Sequence[Tokenized], length: int, *, weight: Sequence[float] | None = None, rows: int | None = None
) -> Batch:
    """Batch one example per row, padded with zeros; rows are added up to `rows`, with weight 0 and nothing to learn.

    Raises:
        InputError: an example that is longer than `length`.
    """
    count = len(examples) if rows is None else rows
    tokens, learned = np.zeros((count, length), np.int32), np.zeros((count, length), bool)
    weights = np.zeros(count, np.float32)
    weights[: len(examples)] = 1.0 if weight is None else weight
    for place, example in enumerate(examples):
        size = len(example.tokens)
        if size > length:
            raise InputError(f"examples[{place}]", f"{size} tokens", f"at most {length} fit")
        tokens[place, :size] = example.tokens
        learned[place, :size] = example.learned
    return Batch(tokens, learned, weights)


def groups(sizes: Sequence[int], names: Iterable[Any], length: int) -> list[list[Any]]:
    """Group whole examples into rows, in order: a new row starts when the next example does not fit.

    Args:
        sizes: number of tokens of each example, at most `length`.
        names: object that represents each example in the result.
        length: number of tokens of a row.
    """
    found: list[list[Any]] = []
    used = length
    for size, name in zip(sizes, names, strict=True):
        if used + size > length:
            found.append([])
            used = 0
        found[-1].append(name)
        used += size
    return found


def pack(examples: Sequence[Tokenized], length: int) -> Batch:
    """Pack whole examples into rows, several per row.

    Raises:
        InputError: an example that is longer than `length`.
    """
    for place, example in enumerate(examples):
        if len(example.tokens) > length:
            raise InputError(f"examples[{place}]", f"{len(example.tokens)} tokens", f"at most {length} fit")
    sizes = [len(example.tokens) for example in examples]
    return stack([pack_row(row, length) for row in groups(sizes, examples, length)])


def pack_row(examples: Sequence[Tokenized], length: int) -> Batch:
    """Pack examples that fit together into one row.

    Segments are numbered from 1, and padding is 0. No example is predicted from the one before it, as the first token
    of an example is never learned.
    """
    tokens, segments = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    learned = np.zeros((1, length), bool)
    begin = 0
    for number, example in enumerate(examples, start=1):
        end = begin + len(example.tokens)
        tokens[0, begin:end], segments[0, begin:end] = example.tokens, number
        learned[0, begin:end] = example.learned
        begin = end
    return Batch(tokens, learned, np.ones(1, np.float32), segments)


def stack(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches of rows of one length."""
    return Batch(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*batches, strict=True)))


class Batch(NamedTuple):
    """Rows of tokens.

    Attributes:
        tokens: (B, T) token ids, with padding at the end.
        learned: (B, T) True for tokens that count in the loss; never the first token of an example.
        weight: (B,) weight of each row in the loss: 1, or its upsampling weight.
        segments: (B, T) number of the example that each token belongs to, if rows are packed; else None.
    """

    tokens: Int[Any, "B T"]
    learned: Bool[Any, "B T"]
    weight: Float[Any, " B"]
    segments: Int[Any, "B T"] | None = None
