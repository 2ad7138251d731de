"""Raw rows out of one file: JSONL, JSON, CSV, Parquet, plain text; the first three and text also gzipped.

Every reader holds one row at a time, or a batch of a Parquet file. A row that cannot be decoded is given as a `RawRow`
with a problem, and reading goes on, so that one bad line never loses the others. Only a file whose frame is broken (a
truncated archive, a damaged JSON array, a header with a name twice) raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_pipeline.data import json_rows
from rlhf_pipeline.data.json_rows import BOM, RawRow, decode
from rlhf_pipeline.errors import DataError, StorageError, first_line
from rlhf_pipeline.records import shown

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt")
_JSON_CELLS = ("messages", "completions", "ranks", "finished", "facts", "scores", "margin")
"""CSV columns whose cells hold JSON; every other cell is text."""
_BATCH = 1024
"""Rows of a Parquet file in memory at a time."""


def data_suffix(path: Path) -> str | None:
    """Give the suffix that decides how a file is read, without .gz; None where no reader knows it."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in SUFFIXES else None


def rows(path: Path) -> Iterator[RawRow]:
    """Read one file as its suffix says. Raises DataError on an unknown suffix, StorageError where it does not open."""
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(f"{path}: no reader for this kind of file; expected one of {', '.join(SUFFIXES)} (or with .gz)")
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
            return
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            yield from _READERS[suffix](file, str(path))  # type: ignore[arg-type]  # GzipFile reads bytes, too
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error}); check that you may read it") from None


def _csv(file: BinaryIO, name: str) -> Iterator[RawRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f"line {line}" if reader.line_num <= line else f"lines {line} to {reader.line_num}"
                yield RawRow(f"{name}:{line}", "", problem=f"malformed CSV: {error} ({lines})")
                continue
            if not header:
                header = _header(cells, f"{name}:{line}")
            elif cells:
                yield _csv_row(header, cells, f"{name}:{line}")


def _header(cells: list[str], where: str) -> list[str]:
    twice = next((cell for cell in cells if cells.count(cell) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the header names the column {shown(twice)} twice; rename one")
    if not _is_utf8(cells):
        raise DataError(f"{where}: the header is not UTF-8; save the file as UTF-8")
    return cells


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_row(header: list[str], cells: list[str], where: str) -> RawRow:
    """Give a row whose empty cells are null, as columns of a table that say nothing."""
    raw = ",".join(cells).encode(errors="surrogateescape").decode(errors="backslashreplace")
    if len(cells) != len(header):
        return RawRow(where, raw, problem=f"{len(cells)} cells; the header has {len(header)}")
    if not _is_utf8(cells):
        return RawRow(where, raw, problem="not UTF-8")
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            row[name] = None if not cell else json.loads(cell) if name in _JSON_CELLS else cell
        except (ValueError, RecursionError):
            return RawRow(where, raw, problem=f"`{name}` is {shown(cell)}; expected JSON in this column")
    return RawRow(where, raw, row)


def _text(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Give one document for each block between blank lines; in a file without blank lines, for each line."""
    blocks = _has_blocks(file)
    file.seek(0)
    start, block = 1, list[str]()
    for number, line in enumerate(itertools.chain(file, [b""]), start=1):
        text, problem = decode(line.removeprefix(BOM) if number == 1 else line)
        text = text.replace("\r\n", "\n")
        if problem:
            yield RawRow(f"{name}:{number}", text.rstrip("\n"), problem=problem)
        if block and (not blocks or not text.strip()):
            whole = "".join(block)
            yield RawRow(f"{name}:{start}", whole, {"text": whole.strip()})
            block.clear()
        if text.strip() and not problem:
            start = start if block else number
            block.append(text)


def _has_blocks(file: BinaryIO) -> bool:
    """Say whether a blank line stands between two lines of text."""
    blank_after_text = seen_text = False
    for line in file:
        if line.removeprefix(BOM).strip():
            if blank_after_text:
                return True
            seen_text = True
        else:
            blank_after_text = seen_text
    return False


def _parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{path}: two columns have the same name, of {', '.join(names)}; rename one")
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for value in _values(batch):
                    number += 1
                    where = f"{path}:row {number}"
                    yield RawRow(where, "", value) if isinstance(value, dict) else RawRow(where, "", problem=value)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: damaged Parquet file ({first_line(error)}); write it again") from None


def _values(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Give the rows of a batch as Python sees them, or of one with text or a time that Python cannot hold, why not."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield f"a value cannot be read ({first_line(error)})"


_READERS = {
    ".jsonl": json_rows.lines,
    ".ndjson": json_rows.lines,
    ".json": json_rows.array,
    ".csv": _csv,
    ".txt": _text,
}
