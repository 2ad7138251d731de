"""Raw rows out of one file: JSONL, JSON, CSV, Parquet, plain text; the first three and text also gzipped.

A row that cannot be decoded is given as a `RawRow` with a problem, and reading goes on, so that one bad line never
loses the others. Only a file whose frame is broken (a truncated archive, a damaged JSON array) raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_pipeline.errors import DataError, StorageError
from rlhf_pipeline.records import shown

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt")
_JSON_CELLS = ("messages", "completions", "ranks", "finished", "facts")
"""CSV columns whose cells hold JSON; every other cell is text."""
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class RawRow:
    """One row as its file has it: `value` where it could be decoded, else the `problem`; `raw` is the text seen."""

    where: str
    raw: str
    value: dict[str, Any] | None = None
    problem: str = ""


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


def _jsonl(file: BinaryIO, name: str) -> Iterator[RawRow]:
    for number, line in enumerate(file, start=1):
        raw, problem = _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        if problem or raw.strip():
            yield (
                RawRow(f"{name}:{number}", raw.rstrip("\r\n"), problem=problem)
                if problem
                else _parsed(raw, name, number)
            )


def _parsed(line: str, name: str, number: int) -> RawRow:
    where, raw = f"{name}:{number}", line.rstrip("\r\n")
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        return RawRow(where, raw, problem=f"malformed JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RawRow(where, raw, problem="malformed JSON: nested too deeply")
    return _object(value, where, raw)


def _object(value: Any, where: str, raw: str) -> RawRow:
    if isinstance(value, dict):
        return RawRow(where, raw, value)
    return RawRow(where, raw, problem=f"the row is {shown(value)}; expected an object {{...}}")


def _decode(line: bytes) -> tuple[str, str]:
    """Give the text of a line, and the problem if its bytes are not UTF-8."""
    try:
        return line.decode(), ""
    except UnicodeDecodeError as error:
        problem = f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8"
        return line.decode(errors="backslashreplace"), problem


def _json(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Read an array of objects, one by one, so that each has its line."""
    text, problem = _decode(file.read().removeprefix(b"\xef\xbb\xbf"))
    if problem:
        raise DataError(f"{name}: {problem}; save the file as UTF-8")
    at = _skip_space(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        raise DataError(
            f"{name}: begins with {text[at]!r}; a .json file holds an array [...], rows line by line are .jsonl"
        )
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = _skip_space(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _malformed(name, text, error.pos, error.msg) from None
        except RecursionError:
            raise _malformed(name, text, at, "nested too deeply") from None
        yield _object(value, f"{name}:{line}", text[at:end])
        at = _skip_space(text, end)
        more = text[at : at + 1] == ","
        at = _skip_space(text, at + 1) if more else at
    if text[at : at + 1] != "]":
        raise _malformed(name, text, at, "expected `,` or `]` after a row")
    if _skip_space(text, at + 1) != len(text):
        raise _malformed(name, text, _skip_space(text, at + 1), "something follows the closing `]`")


def _malformed(name: str, text: str, at: int, problem: str) -> DataError:
    line = 1 + text.count("\n", 0, at)
    return DataError(f"{name}:{line}: malformed JSON: {problem}; fix the file")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _csv(file: BinaryIO, name: str) -> Iterator[RawRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        header: list[str] = []
        while True:
            where = f"{name}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRow(where, "", problem=f"malformed CSV: {error}")
                continue
            if not header:
                header = cells
            elif cells:
                yield _csv_row(header, cells, where)


def _csv_row(header: list[str], cells: list[str], where: str) -> RawRow:
    raw = ",".join(cells).encode(errors="surrogateescape").decode(errors="backslashreplace")
    if len(cells) != len(header):
        return RawRow(where, raw, problem=f"{len(cells)} cells; the header has {len(header)}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return RawRow(where, raw, problem="not UTF-8")
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            if cell:
                row[name] = json.loads(cell) if name in _JSON_CELLS else cell
        except (json.JSONDecodeError, RecursionError):
            return RawRow(where, raw, problem=f"`{name}` is {shown(cell)}; expected JSON in this column")
    return RawRow(where, raw, row)


def _text(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Give one document for each block between blank lines; in a file without blank lines, for each line."""
    lines = [_decode(line) for line in file.read().removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)]
    blocks = any(not text.strip() for text, _ in lines[:-1])
    start, block = 1, ""
    for number, (text, problem) in enumerate([*lines, ("", "")], start=1):
        if problem:
            yield RawRow(f"{name}:{number}", text.rstrip("\r\n"), problem=problem)
        if block and (not blocks or not text.strip()):
            yield RawRow(f"{name}:{start}", block, {"text": block.strip()})
            block = ""
        if text.strip() and not problem:
            start, block = (start, block + text) if block else (number, text)


def _parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        values = (value for batch in batches for value in batch.to_pylist())
        for number, value in enumerate(values, start=1):
            yield RawRow(f"{path}:row {number}", repr(value), value)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: damaged Parquet file ({str(error).splitlines()[0]}); write it again") from None


_READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".txt": _text}
