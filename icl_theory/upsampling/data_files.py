"""Fine-tuning sets as people have them: JSON lines or arrays, CSV, Parquet files and folders of them.

One pass reads the ids, another writes each row as often as asked. All but JSON arrays stream. Rows of text are copied
byte for byte. Parquet keeps its schema and the metadata in it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from icl_theory.errors import InputError
from icl_theory.results import exists, writing
from icl_theory.upsampling.csv_data import CsvData
from icl_theory.upsampling.data_file import FORMS, TABLES, DataFile, form_of, places
from icl_theory.upsampling.json_array import open_json
from icl_theory.upsampling.json_lines import JsonLines
from icl_theory.upsampling.parquet_data import ParquetData

HUB = "hf://"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a set on the hub, which no suffix tells from a path


def open_data(path: str | Path) -> DataFile:
    """Return the data file, of the form that the suffix says; a folder holds Parquet files.

    Raises:
        InputError: There is no such file, the suffix is another, or the content is not what it says.
    """
    path = Path(path)
    form = form_of(path)
    if str(path).startswith("hf:/"):  # a path swallows one of the slashes
        name = HUB + str(path).removeprefix("hf:/").lstrip("/")
        remedy = "only `finetune` reads from the hub; save it first, with `load_dataset(...).to_parquet(FILE)`"
        raise InputError("data", name, remedy)
    if not exists(path):
        hub = f"; of the hub, `finetune` reads {HUB}{path}" if not form and HUB_NAME.fullmatch(str(path)) else ""
        raise InputError("data", str(path), f"there is no such file{hub}")
    if path.is_dir() or form == ".parquet":
        return ParquetData(path)
    if not form:
        raise InputError("data", str(path), f"give a folder of Parquet files, or a file in {', '.join(FORMS)}")
    plain = form.removesuffix(".gz")
    if plain in TABLES:
        return CsvData(path)
    return open_json(path) if plain == ".json" else JsonLines(path)


def copy_unchanged(data: DataFile, out: Path) -> None:
    """Copy the files of a set byte for byte.

    Raises:
        InputError: `out` exists or cannot be written.
    """
    with writing(out) as partial:
        for file, place in places(data, partial):
            shutil.copyfile(file, place)
