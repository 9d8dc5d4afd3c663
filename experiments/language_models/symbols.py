"""Decoders that are trained on mathematical problems from scratch, and what they read: digits, signs, a few words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.language_models.arithmetic_study import a_decoder
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.model.decoder import Decoder

SYMBOLS = ("$", *"0123456789+-*/=.,:()?x", "gcd", "lcm", "simplify", "to", "minutes", "seconds")  # "$" ends an answer
END = 0
SIZES = {"0.1M": 64, "0.4M": 128, "1.6M": 256}  # width of a decoder
LAYERS = 2  # of width 128, Muon taught two layers sums that five of width 80 did not learn in as many draws
PLACES = {symbol: place for place, symbol in enumerate(SYMBOLS)}
PARTS = re.compile(r"[A-Za-z]+|\S")
NUMBER = re.compile(r"[\d.]+")


class Symbols:
    """Tokenization of prompt, completion and end, without blanks; it has what `Prompting` has for rows of text.

    Numbers of completions are written from their last digit, in which order they can be worked out; `decode` turns them
    back.
    """

    stop = (END,)

    def tokenized(self, row: Mapping[str, Any]) -> Tokenized:
        """Tokenize a row: the completion and its end are learned.

        Raises:
            InputError: a symbol that has no token.
        """
        asked, answered = self.asked(row), [*_tokens(turned(row["completion"])), END]
        return Tokenized(np.array(asked + answered, np.int32), np.arange(len(asked) + len(answered)) >= len(asked))

    def asked(self, row: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a row's prompt."""
        return _tokens(row["prompt"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the completion that tokens write."""
        return turned("".join(SYMBOLS[token] for token in tokens)).replace(",", ", ")


def new_decoder(size: str, seed: int) -> Decoder:
    """Return a decoder of a size in `SIZES`."""
    return a_decoder(seed, SIZES[size], LAYERS, len(SYMBOLS))


def turned(text: str) -> str:
    """Return a text with the characters of each number in the opposite order.

    Examples:
        >>> turned("-3.625, 0.0"), turned(turned("7/23"))
        ('-526.3, 0.0', '7/23')
    """
    return NUMBER.sub(lambda found: found[0][::-1], text)


def _tokens(text: str) -> list[int]:
    parts = PARTS.findall(text)
    unknown = [part for part in parts if PLACES.get(part, END) == END]
    if unknown:
        raise InputError("text", unknown[0], "a decoder from scratch does not read it; leave out stories")
    return [PLACES[part] for part in parts]
