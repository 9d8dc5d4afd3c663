"""Rows of a data set as training examples, with a count of the rows that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.data.problems import Row
from icl_theory.llm.data.prompting import Prompting, Written
from icl_theory.upsampling.conversations import unused_fields
from icl_theory.upsampling.loss_record import check_unique, id_array
from icl_theory.upsampling.row_fields import NothingToLearn, names_in
from icl_theory.upsampling.summary import line

ROW = "row"
TOGETHER = 1024  # rows that are tokenized at once
OPEN, CLOSE = "⟦", "⟧"  # around what is learned, where an example is shown


class Examples:
    """Tokenized rows of a data set, without those that are too long or have nothing to learn.

    Args:
        rows: all rows of the data.
        prompting: the tokenization of the model.
        length: maximum number of tokens of an example.
        id_field: field that identifies examples in records; `row` for the row number; None for `id` if the first row
            has it, else the row number.
        progress: callback, called with the number of rows tokenized so far and the number of rows.

    Attributes:
        given: all rows of the data.
        longest: number of tokens of the longest row.
        too_long: number of rows that are too long.
        empty: number of rows with nothing to learn.
        fits: (P,) True for rows that are kept.
        places: row numbers of the rows that are kept.
        rows: rows that are kept.
        tokens: tokens of each row that is kept.

    Raises:
        InputError: fields of no known format, a text that cannot be encoded, or no example that fits.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        prompting: Prompting,
        length: int,
        id_field: str | None = None,
        progress: Callable[[int, int], None] = lambda *_: None,
    ):
        made = list(_tokenized(rows, prompting, progress))
        sizes = np.array([0 if one is None else len(one.tokens) for one in made])
        self.given, self.longest, self.prompting = rows, int(sizes.max()), prompting
        self.too_long, self.empty = int(np.sum(sizes > length)), int(np.sum(sizes == 0))
        self.fits = (sizes > 0) & (sizes <= length)
        if not self.fits.any():
            if not self.longest:
                raise InputError("data", f"{len(rows)} rows", "none has an answer to learn; give some that do")
            remedy = f"no example fits; the shortest has {sizes[sizes > 0].min()} tokens"
            raise InputError("length", length, remedy)
        self.places = np.flatnonzero(self.fits)
        self.rows = [rows[place] for place in self.places.tolist()]
        self.tokens: list[Tokenized] = [
            one for one, kept in zip(made, self.fits, strict=True) if kept and one is not None
        ]
        self.id_field = None if id_field == ROW else id_field or ("id" if "id" in rows[0] else None)

    @property
    def named_by(self) -> str:
        """Name of the field that holds the ids; `row` for row numbers."""
        return self.id_field or ROW

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of the examples, for records and weights.

        Raises:
            InputError: a row without an id, or an id that occurs twice.
        """
        if self.id_field is None:
            return id_array(ROW, self.places)
        for place, row in zip(self.places.tolist(), self.rows, strict=True):
            if row.get(self.id_field) is None:
                remedy = f"every row needs it; name another field, or --id-field {ROW}"
                raise InputError(self.id_field, f"none in row {place}", remedy)
        ids = id_array(self.id_field, [str(row[self.id_field]) for row in self.rows])
        check_unique(self.id_field, ids)
        return ids

    def lines(self) -> list[str]:
        """Return lines with the number of examples and the number of rows left out."""
        total = sum(len(example.tokens) for example in self.tokens)
        learned = sum(int(example.learned.sum()) for example in self.tokens)
        said = [line("data", f"{len(self.rows)} examples, {total} tokens, {learned} of them learned")]
        if self.too_long:
            text = f"{self.too_long} that are longer than --length; the longest has {self.longest} tokens"
            said.append(line("left out", text))
        if self.empty:
            said.append(line("left out", f"{self.empty} without an answer to learn"))
        unused = set[str]().union(*(unused_fields(row, self.prompting.fields) for row in self.given)) - {self.id_field}
        if unused:
            said.append(line("not read", f"fields {names_in(sorted(unused))}"))
        return said

    def shown(self, count: int) -> list[str]:
        """Return the first examples as the model reads them, as lines of text."""
        found = []
        for place, example in list(zip(self.places.tolist(), self.tokens, strict=True))[:count]:
            sizes = f"{len(example.tokens)} tokens, {int(example.learned.sum())} of them learned"
            found.append(line("example", f"row {place}: {sizes}, between {OPEN} and {CLOSE}"))
            found += [f"  | {text}" for text in rendered(example, self.prompting.tokenizer).split("\n")]
        return found


def _tokenized(
    rows: Sequence[Row], prompting: Prompting, progress: Callable[[int, int], None]
) -> Iterator[Tokenized | None]:
    """Yield each row with its tokens, or None if there is nothing to learn."""
    for begin in range(0, len(rows), TOGETHER):
        written = [_written(place, rows[place], prompting) for place in range(begin, min(begin + TOGETHER, len(rows)))]
        tokens = iter(prompting.tokenize([one for one in written if one is not None]))
        for one in written:
            made = None if one is None else next(tokens)
            yield made if made is not None and made.learned.any() else None
        progress(begin + len(written), len(rows))


def _written(place: int, row: Row, prompting: Prompting) -> Written | None:
    """Return a row as text; None if there is nothing to learn."""
    try:
        return prompting.written(row)
    except NothingToLearn:
        return None
    except InputError as error:
        raise InputError(f"row {place}, {error.field}", error.value, error.remedy) from None


def rendered(example: Tokenized, tokenizer: Any) -> str:
    """Return an example as text with its special tokens, and with what is learned between `OPEN` and `CLOSE`."""
    cuts = np.flatnonzero(np.diff(example.learned)) + 1
    parts = zip(np.split(example.tokens, cuts), np.split(example.learned, cuts), strict=True)
    texts = ((tokenizer.decode(tokens), learned[0]) for tokens, learned in parts)
    return "".join(f"{OPEN}{text}{CLOSE}" if learned else text for text, learned in texts)
