"""Rows of a small fine-tuning set, and what they are when upsampled."""

import csv
import io
import json

import numpy as np

ROWS = [
    {"id": "007", "question": "one,\n two?", "answer": '"3"; é'},
    {"id": "8", "question": "", "answer": "\t5"},
    {"id": "x", "question": "six", "answer": "1e5"},
]
COPIES = np.array([2, 0, 3])
UPSAMPLED = [row for row, often in zip(ROWS, COPIES, strict=True) for _ in range(often)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def table(delimiter, end="\n"):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()
