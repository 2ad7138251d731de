"""Rows out of JSON, one by one whatever the size of the file: line by line (.jsonl), or as one array (.json).

Memory holds one row, or of an array a piece of text and one row. Left out: a key given twice in an object, of which
the last one counts, as everywhere in Python.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import shown

BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_CUT_TOKEN = 16
"""What stands so close to the end of a piece may be other than it seems, as the piece ends: `4` of `4e5`, `-Infi`."""


@dataclass(frozen=True)
class RawRow:
    """One row as its file has it: `value` where it could be decoded, else the `problem`; `raw` is the text seen.

    Rows of tables have no text of their own, and an empty `raw`.
    """

    where: str
    raw: str
    value: dict[str, Any] | None = None
    problem: str = ""


def lines(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Read an object from every line that is not blank."""
    for number, line in enumerate(file, start=1):
        raw, problem = decode(line.removeprefix(BOM) if number == 1 else line)
        where, raw = f"{name}:{number}", raw.rstrip("\r\n")
        if problem:
            yield RawRow(where, raw, problem=problem)
        elif raw.strip():
            yield _parsed(raw, where)


def decode(line: bytes) -> tuple[str, str]:
    """Give the text of a line, and the problem if its bytes are not UTF-8."""
    try:
        return line.decode(), ""
    except UnicodeDecodeError as error:
        problem = f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8"
        return line.decode(errors="backslashreplace"), problem


def _parsed(raw: str, where: str) -> RawRow:
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        return RawRow(where, raw, problem=f"malformed JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RawRow(where, raw, problem="malformed JSON: nested too deeply")
    except ValueError:
        return RawRow(where, raw, problem=_HUGE)
    return _object(value, where, raw)


_HUGE = "malformed JSON: a number has too many digits"


def _object(value: Any, where: str, raw: str) -> RawRow:
    if isinstance(value, dict):
        return RawRow(where, raw, value)
    return RawRow(where, raw, problem=f"the row is {shown(value)}; expected an object {{...}}")


def array(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Read an array of objects, one by one, each with the line it begins on. Raises DataError on a broken array."""
    text = _Text(file, name)
    if (first := text.next_character()) == "":
        return
    if first != "[":
        raise DataError(
            f"{name}: begins with {first!r}; a .json file holds an array [...], rows line by line are .jsonl"
        )
    text.skip(1)
    more = text.next_character() != "]"
    while more:
        yield text.row()
        more = text.next_character() == ","
        text.skip(1 if more else 0)
    if text.next_character() != "]":
        raise text.malformed("expected `,` or `]` after a row")
    text.skip(1)
    if text.next_character():
        raise text.malformed("something follows the closing `]`")


class _Text:
    """The text of a file from where the reader stands, a piece of it at a time, and the line of that place."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.decoder = json.JSONDecoder()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def next_character(self) -> str:
        """Go past blanks; give the character there, or "" at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.skip(match.end() - self.at if match else 0)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read(_PIECE)

    def skip(self, count: int) -> None:
        """Go on by `count` characters."""
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def row(self) -> RawRow:
        """Decode the value that begins at the next character, reading as much of the file as it takes."""
        self.next_character()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended or not self._may_be_cut(error):
                    self.skip(error.pos - self.at)
                    raise self.malformed(error.msg) from None
            except RecursionError:
                raise self.malformed("nested too deeply") from None
            except ValueError:
                return self._without_huge_numbers()
            else:
                if self.ended or end < len(self.text) - (0 if isinstance(value, dict) else _CUT_TOKEN):
                    return self._taken(value, end)
            self._read(max(_PIECE, len(self.text) - self.at))

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.pos >= len(self.text) - _CUT_TOKEN or error.msg.startswith("Unterminated string")

    def _taken(self, value: Any, end: int) -> RawRow:
        where, raw = f"{self.name}:{self.line}", self.text[self.at : end]
        self.skip(end - self.at)
        try:
            raw.encode()
        except UnicodeEncodeError as error:
            problem = f"byte 0x{ord(raw[error.start]) - 0xDC00:02x} in the row is not UTF-8"
            return RawRow(
                where, raw.encode(errors="surrogateescape").decode(errors="backslashreplace"), problem=problem
            )
        return _object(value, where, raw)

    def _without_huge_numbers(self) -> RawRow:
        """Pass over a row with an integer that Python does not read, so that the rows after it are not lost."""
        self.decoder = json.JSONDecoder(parse_int=float)
        row = self.row()
        self.decoder = json.JSONDecoder()
        return RawRow(row.where, row.raw, problem=_HUGE)

    def _read(self, size: int) -> None:
        piece = self.file.read(size)
        self.text, self.at = self.text[self.at :] + self.utf8.decode(piece, final=not piece), 0
        self.ended = not piece

    def malformed(self, problem: str) -> DataError:
        """Make the error for what stands at the next character."""
        return DataError(f"{self.name}:{self.line}: malformed JSON: {problem}; fix the file")
