"""From rows of a fine-tuning set to batches: tokens, which of them are learned, padded or packed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_theory.errors import InputError, check_number
from icl_theory.upsampling.row_fields import texts_of

Encode = Callable[[str], Sequence[int]]


class Tokenized(NamedTuple):
    """One example. Attributes: tokens, of prompt and completion; prompt, how many of them are the prompt's."""

    tokens: np.ndarray
    prompt: int


def tokenize(
    row: Mapping[str, Any], encode: Encode, *, end: int, begin: int | None = None, between: str = "\n"
) -> Tokenized:
    """Prompt and completion of a row, each encoded on its own, with the token that ends a text.

    A lone text is all learned, its first token apart. A text that brings the first or last token has it once.

    Args:
        row: in one of the shapes of `texts_of`.
        encode: from text to tokens, nothing added.
        end: the token behind the completion, learned too.
        begin: the token before the prompt; None for none.
        between: what parts prompt and completion; it belongs to the prompt.

    Raises:
        InputError: fields of no known shape, a question without an answer.
    """
    texts = texts_of(row)
    if texts is None:
        known = "instruction/output, question/answer, prompt/completion, problem/solution, messages or text"
        raise InputError("fields", ", ".join(map(str, row)), f"give {known}")
    if not texts.completion and not texts.whole:
        raise InputError("completion", "empty", "there is nothing to learn; leave the row out")
    if texts.whole:
        return Tokenized(np.array(ended(begun(encode(texts.prompt), begin), end), np.int32), 1)
    prompt = begun(encode(texts.prompt + between), begin)
    return Tokenized(np.array([*prompt, *ended(encode(texts.completion), end)], np.int32), max(len(prompt), 1))


def begun(tokens: Sequence[int], begin: int | None) -> list[int]:
    """Return tokens that begin with `begin`, once; None for none."""
    return list(tokens) if begin is None or tokens[:1] == [begin] else [begin, *tokens]


def ended(tokens: Sequence[int], end: int) -> list[int]:
    """Return tokens that end with `end`, once."""
    return list(tokens) if tokens[-1:] == [end] else [*tokens, end]


def fitting(examples: Sequence[Tokenized], length: int) -> np.ndarray:
    """(P,) True for examples that fit into `length` tokens with something to learn; the rest is to be left out and
    counted.
    """
    check_number("length", length, minimum=2, integer=True)
    return np.array(
        [len(example.tokens) <= length and example.prompt < len(example.tokens) for example in examples], bool
    )


def pad(
    examples: Sequence[Tokenized], length: int, *, weight: Sequence[float] | None = None, rows: int | None = None
) -> Batch:
    """One example a row, zeros behind it; rows without one, up to `rows`, learn nothing and weigh nothing.

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
        learned[place, example.prompt : size] = True
    return Batch(tokens, learned, weights)


def groups(sizes: Sequence[int], names: Iterable[Any], length: int) -> list[list[Any]]:
    """Whole examples to rows, filled in order: a row ends where the next example does not fit.

    Args:
        sizes: tokens of each example, at most `length`.
        names: what stands for each in the result.
        length: tokens of a row.
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
    """Rows of several whole examples each.

    Raises:
        InputError: an example that is longer than `length`.
    """
    for place, example in enumerate(examples):
        if len(example.tokens) > length:
            raise InputError(f"examples[{place}]", f"{len(example.tokens)} tokens", f"at most {length} fit")
    sizes = [len(example.tokens) for example in examples]
    return stack([pack_row(row, length) for row in groups(sizes, examples, length)])


def pack_row(examples: Sequence[Tokenized], length: int) -> Batch:
    """One row of whole examples that fit.

    Segments count from 1, padding is 0; the first token of an example is never learned, so that no example is predicted
    from the one before.
    """
    tokens, segments = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    learned = np.zeros((1, length), bool)
    begin = 0
    for number, example in enumerate(examples, start=1):
        end = begin + len(example.tokens)
        tokens[0, begin:end], segments[0, begin:end] = example.tokens, number
        learned[0, begin + max(example.prompt, 1) : end] = True
        begin = end
    return Batch(tokens, learned, np.ones(1, np.float32), segments)


def stack(batches: Sequence[Batch]) -> Batch:
    """Batches of equal shapes as one."""
    return Batch(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*batches, strict=True)))


class Batch(NamedTuple):
    """Rows of tokens.

    Attributes:
        tokens: (B, T), padding at the end.
        learned: (B, T) True for tokens that are to be predicted from those before; never the first of an example.
        weight: (B,) of each row in the loss: 1, or the weights of upsampling.
        segments: (B, T) the example that each token belongs to where rows are packed, else None.
    """

    tokens: Int[Any, "B T"]
    learned: Bool[Any, "B T"]
    weight: Float[Any, " B"]
    segments: Int[Any, "B T"] | None = None
