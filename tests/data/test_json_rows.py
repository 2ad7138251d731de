"""JSON read piece by piece: the same rows whatever the pieces are, in the memory of one."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest

from rlhf_pipeline.data import json_rows
from rlhf_pipeline.data.json_rows import RawRow, array, decode, lines
from rlhf_pipeline.errors import DataError

VALUES: list[Any] = [
    {"text": 'a "quoted" \\ back\\slash é 😀', "n": -1.5e-7, "deep": [[{"x": [True, None, "]"]}]]},
    {},
    {"big": 12345678901234567890, "nan": float("-inf"), "empty": "", "list": []},
    {"text": "x" * 300},
    7,
    "text",
    None,
    {"last": "\n"},
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
def test_pieces_of_any_size_give_the_same_rows(monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None) -> None:
    monkeypatch.setattr(json_rows, "_PIECE", piece)
    text = json.dumps(VALUES, ensure_ascii=False, indent=indent)
    found = list(array(io.BytesIO(b"\xef\xbb\xbf" + text.encode()), "f"))
    assert [json.loads(row.raw) for row in found] == VALUES
    assert [row.value for row in found] == [value if isinstance(value, dict) else None for value in VALUES]
    begins = [text.count("\n", 0, text.index(row.raw)) + 1 for row in found[:2]]
    assert [row.where for row in found[:2]] == [f"f:{line}" for line in begins]


def test_numbers_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_PIECE", 1)
    assert [row.problem for row in array(io.BytesIO(b"[123, 4e5]"), "f")] == [
        "the row is 123; expected an object {...}",
        "the row is 400000.0; expected an object {...}",
    ]


def test_a_long_array_takes_the_memory_of_a_piece() -> None:
    rows = b"[" + b",".join([b'{"text": "' + b"x" * 1000 + b'"}'] * 5000) + b"]"
    tracemalloc.start()
    assert sum(1 for _ in array(io.BytesIO(rows), "f")) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(rows) / 5


@pytest.mark.parametrize("piece", [4, 1 << 16])
def test_a_row_of_an_array_that_is_not_utf8_does_not_lose_the_others(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(json_rows, "_PIECE", piece)
    found = list(array(io.BytesIO(b'[{"a": 1},\n{"a": "caf\xe9"}, {"a": 2}]'), "f"))
    assert [row.value for row in found] == [{"a": 1}, None, {"a": 2}]
    assert found[1] == RawRow("f:2", '{"a": "caf\\xe9"}', problem="byte 0xe9 in the row is not UTF-8")


HUGE = '{"n": ' + "9" * 5000 + "}"


def test_a_number_that_python_does_not_read_is_one_bad_row() -> None:
    problem = "malformed JSON: a number has too many digits"
    in_array = list(array(io.BytesIO(f'[{{"a": 1}}, {HUGE}, {{"a": 2}}]'.encode()), "f"))
    in_lines = list(lines(io.BytesIO(f'{{"a": 1}}\n{HUGE}\n{{"a": 2}}'.encode()), "f"))
    for found in (in_array, in_lines):
        assert [row.value for row in found] == [{"a": 1}, None, {"a": 2}]
        assert (found[1].problem, found[1].raw) == (problem, HUGE)


def test_a_text_that_never_ends_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_PIECE", 8)
    with pytest.raises(DataError, match="f:2: malformed JSON: Unterminated string starting at; fix the file"):
        list(array(io.BytesIO(b'[{"a": 1},\n{"a": "never closed}]'), "f"))


def test_lines_may_end_as_on_windows_and_be_blank() -> None:
    found = list(lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}'), "f"))
    assert [(row.where, row.value) for row in found] == [("f:1", {"a": 1}), ("f:4", {"a": 2})]


def test_decode() -> None:
    assert decode("é".encode()) == ("é", "")
    assert decode(b"a\xff") == ("a\\xff", "byte 0xff at position 2 is not UTF-8")
