"""Rows of a fine-tuning set, a third of them learned late, and `icl-theory upsample` on files of them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from helpers import run_command

COUNT = 12
STEPS = np.arange(0.0, 101.0, 10.0)
HALF_TIMES = np.where(np.arange(COUNT) % 3 == 0, 80.0, 20.0)  # every third is late
LATE = HALF_TIMES == 80.0
LOSSES = np.clip(1.0 - STEPS[:, None] / (2 * HALF_TIMES), 0, None)
IDS = [f"example-{row}" for row in range(COUNT)]
SHAPES = {
    "instruction": lambda row: {"instruction": f"Add {row} and 1.", "input": "", "output": str(row + 1)},
    "question": lambda row: {"question": f"What is {row} + 1? It costs $5 and $x_1$.", "answer": f"#### {row + 1}"},
    "prompt": lambda row: {"prompt": f"{row} + 1 =", "completion": f" {row + 1}"},
    "messages": lambda row: {
        "messages": [{"role": "user", "content": f"{row} + 1?"}, {"role": "assistant", "content": str(row + 1)}]
    },
    "unknown": lambda row: {"left": row, "right": {"ü": [1, row]}},
}


def rows(shape="question", ids=True):
    return [({"id": IDS[row]} if ids else {}) | SHAPES[shape](row) for row in range(COUNT)]


def write_data(path, entries):
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(entries).replace_schema_metadata({"huggingface": '{"info": 1}'})
        pa.parquet.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    return path


def read_data(path):
    if path.suffix == ".parquet" or path.is_dir():
        return pa.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


def upsample(folder, *options, data="train.jsonl", losses="losses.npz"):
    return run_command("upsample", folder / data, folder / losses, "--quiet", "--no-picture", *options)


def printed_by(capsys):
    """Lines on standard output, single blanks between words."""
    return "".join(" ".join(line.split()) + "\n" for line in capsys.readouterr().out.splitlines())


def expected(entries, often):
    return [entry for entry, late in zip(entries, LATE, strict=True) for _ in range(often if late else 1)]
