"""Evaluation of a model on problems: replies are generated, graded, saved and split by kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from icl_theory.errors import InputError
from icl_theory.llm.data.prompting import Prompting
from icl_theory.llm.evaluation.answers import Evaluation, judge
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.generate import generate
from icl_theory.results import writing
from icl_theory.upsampling.conversations import answer_of, texts_of
from icl_theory.upsampling.row_fields import USUAL, Fields

Progress = Callable[[int, int], None]


def evaluate(
    decoder: Decoder,
    prompting: Prompting,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new: int = 256,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Generate greedy replies to the prompts of rows, and grade them by the answers of the rows.

    The keyword arguments are those of `generate`.

    Raises:
        InputError: rows without an answer.
    """
    if not rows:
        raise InputError("rows", "none", "give problems with answers")
    prompts = [prompting.asked(row) for row in rows]
    made = generate(
        decoder, prompts, max_new=max_new, stop=prompting.stop, batch_size=batch_size, mesh=mesh, progress=progress
    )
    replies = [prompting.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in made]
    answers = [prompting.reference(row) for row in rows]
    return judge(replies, answers, [len(tokens) == max_new for tokens in made])


def write_replies(path: Path, rows: Sequence[Mapping[str, Any]], found: Evaluation, fields: Fields = USUAL) -> None:
    """Write replies as JSON lines with the fields question, answer, reply, right and cut."""
    with writing(path) as partial, partial.open("w") as file:
        for row, *said in zip(rows, found.replies, found.right.tolist(), found.cut.tolist(), strict=True):
            texts = texts_of(row, fields)
            assert texts is not None
            line = {
                "question": texts.prompt,
                "answer": answer_of(row, fields),
                **dict(zip(("reply", "right", "cut"), said, strict=True)),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_replies(path: Path) -> Evaluation:
    """Read replies that `write_replies` saved."""
    try:
        lines = [json.loads(line) for line in path.read_text().split("\n") if line]
        right, cut = (np.array([line[name] for line in lines], bool) for name in ("right", "cut"))
        return Evaluation(right, [line["reply"] for line in lines], cut)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            "replies", str(path), "they cannot be read; remove the file, and they are made again"
        ) from None


def by_kind(found: Evaluation, kinds: Sequence[str]) -> dict[str, Evaluation]:
    """Split an evaluation by kind, in alphabetical order of the kinds."""
    named = np.array([str(kind) for kind in kinds])
    return {
        kind: Evaluation(
            found.right[named == kind],
            [found.replies[place] for place in np.flatnonzero(named == kind)],
            found.cut[named == kind],
        )
        for kind in sorted(set(named.tolist()))
    }
