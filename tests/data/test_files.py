"""Raw rows out of JSON, CSV, text and Parquet: places, and damage of each kind."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from rlhf_pipeline.data.files import rows
from rlhf_pipeline.data.json_rows import RawRow
from rlhf_pipeline.errors import DataError


def seen(path: Path, content: str | bytes) -> list[RawRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(rows(path))


def refused(path: Path, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        seen(path, content)
    return str(caught.value).removeprefix(str(path))


def test_json_rows_have_the_line_they_begin_on(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.json", '\ufeff[\n {"n": 1},\n\n {"n":\n 2}, 3\n]\n')
    assert [row.where.rpartition(":")[2] for row in found] == ["2", "4", "5"]
    assert [row.value for row in found] == [{"n": 1}, {"n": 2}, None]
    assert found[2].problem == "the row is 3; expected an object {...}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"n": 1},\n{"n": }\n]', ":3: malformed JSON: Expecting value; fix the file"),
        (
            '[\n{"n": 1}\n{"n": 2}\n]',
            ":3: malformed JSON: expected `,` or `]` after a row; fix the file",
        ),
        ('[\n{"n": 1},\n', ":3: malformed JSON: Expecting value; fix the file"),
        ('[\n{"n": 1}\n', ":3: malformed JSON: expected `,` or `]` after a row; fix the file"),
        ("[\n" + "[" * 100_000, ":2: malformed JSON: nested too deeply; fix the file"),
        ('[\n{"n": 1},\n]', ":3: malformed JSON: Expecting value; fix the file"),
        ("[]\n[]", ":2: malformed JSON: something follows the closing `]`; fix the file"),
        ('{"n": 1}', ": begins with '{'; a .json file holds an array [...], rows line by line are .jsonl"),
        (b'[{"n": 1}, \xff]', ":1: malformed JSON: Expecting value; fix the file"),
    ],
)
def test_a_damaged_json_file_names_the_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert refused(tmp_path / "a.json", content) == message


def test_csv_cells_are_text_but_for_the_columns_of_lists(tmp_path: Path) -> None:
    found = seen(
        tmp_path / "a.csv",
        '\ufeffprompt,completions,ranks,id\r\n"Why,\r\nthen?","[""a"", ""b""]","[0, 1]",\r\n\r\n[x],,,7\r\n',
    )
    assert [row.value for row in found] == [
        {"prompt": "Why,\r\nthen?", "completions": ["a", "b"], "ranks": [0, 1], "id": None},
        {"prompt": "[x]", "completions": None, "ranks": None, "id": "7"},
    ]
    assert [row.where.rpartition(":")[2] for row in found] == ["2", "5"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"a,b,c", "3 cells; the header has 2"),
        (b"a", "1 cells; the header has 2"),
        (b"a,[1", "`ranks` is '[1'; expected JSON in this column"),
        (b"\xff,[1]", "not UTF-8"),
        (b'"a"b,[1]', "malformed CSV: ',' expected after '\"' (line 3)"),
    ],
)
def test_a_bad_csv_row_does_not_lose_the_others(tmp_path: Path, line: bytes, problem: str) -> None:
    found = seen(tmp_path / "a.csv", b"prompt,ranks\nx,[1]\n" + line + b"\ny,[2]\n")
    assert [row.value for row in found if not row.problem] == [
        {"prompt": "x", "ranks": [1]},
        {"prompt": "y", "ranks": [2]},
    ]
    assert [(row.where, row.problem) for row in found if row.problem] == [(f"{tmp_path / 'a.csv'}:3", problem)]


def test_an_open_quote_in_csv(tmp_path: Path) -> None:
    """Everything up to the end belongs to the cell, and the problem says how far that is."""
    found = seen(tmp_path / "a.csv", 'prompt\n"never closed\nx\ny\n')
    assert [row.problem for row in found] == ["malformed CSV: unexpected end of data (lines 2 to 4)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,a,prompt\n", ":1: the header names the column 'prompt' twice; rename one"),
        (b"prompt,caf\xe9\nx,y\n", ":1: the header is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert refused(tmp_path / "a.csv", content) == message


def test_a_cell_longer_than_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.csv", "text\n" + "x" * 200_000 + "\n")
    assert len(found[0].value["text"]) == 200_000  # type: ignore[index]


def test_text_is_split_at_blank_lines(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.txt", "\n\none\ntwo\n \n\nthree\n")
    assert [(row.where.rpartition(":")[2], row.value) for row in found] == [
        ("3", {"text": "one\ntwo"}),
        ("7", {"text": "three"}),
    ]


def test_a_document_of_very_many_lines_takes_no_time(tmp_path: Path) -> None:
    """A second or so; hours, if every line copied all lines before it."""
    line = "a line of the document\n"
    (tmp_path / "rows.txt").write_text("first\n\n" + line * 400_000)
    began = time.process_time()
    assert [row.value and len(row.value["text"]) for row in rows(tmp_path / "rows.txt")] == [5, len(line) * 400_000 - 1]
    assert time.process_time() - began < 10


def test_text_without_blank_lines_is_split_at_every_line(tmp_path: Path) -> None:
    assert [row.value for row in seen(tmp_path / "a.txt", "one\ntwo\n\n")] == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_blank_lines_around_the_text_make_no_blocks(tmp_path: Path, end: str) -> None:
    assert [row.value for row in seen(tmp_path / "a.txt", f"\n\none\ntwo{end}")] == [{"text": "one"}, {"text": "two"}]


def test_text_from_windows(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    assert [row.value for row in found] == [{"text": "one\ntwo"}, {"text": "three"}]


def test_packed_text_is_read_alike(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.txt.gz", gzip.compress(b"one\ntwo\n\nthree\n"))
    assert [row.value for row in found] == [{"text": "one\ntwo"}, {"text": "three"}]


def test_text_with_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    found = seen(tmp_path / "a.txt", b"one\n\n\xfe\n\ntwo\n")
    assert [row.value for row in found] == [{"text": "one"}, None, {"text": "two"}]
    assert found[1].problem == "byte 0xfe at position 1 is not UTF-8"
    assert found[1].where == f"{tmp_path / 'a.txt'}:3"


def test_a_truncated_archive(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "x"}\n' * 1000)
    assert refused(tmp_path / "a.jsonl.gz", packed[:-20]).startswith(": damaged gzip file (")
    assert refused(tmp_path / "a.jsonl.gz", b"no archive").startswith(": damaged gzip file (")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    message = refused(tmp_path / "a.parquet", b"PAR1 is how it should end, too")
    assert message.startswith(": damaged Parquet file (")
    assert message.endswith("; write it again")


def test_parquet_rows_are_numbered_from_one(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "x"}, {"text": None}]), tmp_path / "a.parquet")
    found = list(rows(tmp_path / "a.parquet"))
    assert [(row.where, row.value) for row in found] == [
        (f"{tmp_path / 'a.parquet'}:row 1", {"text": "x"}),
        (f"{tmp_path / 'a.parquet'}:row 2", {"text": None}),
    ]


def test_parquet_text_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    cells = pyarrow.array([b"x", b"caf\xe9", b"y"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": cells}), tmp_path / "a.parquet")
    found = list(rows(tmp_path / "a.parquet"))
    assert [row.value for row in found] == [{"text": "x"}, None, {"text": "y"}]
    assert found[1].problem.startswith("a value cannot be read ('utf-8' codec can't decode byte 0xe9")


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns have the same name, of text, text; rename one"):
        list(rows(tmp_path / "a.parquet"))


def test_parquet_is_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr("rlhf_pipeline.data.files._BATCH", 3)
    pyarrow.parquet.write_table(pyarrow.table({"n": list(range(10))}), tmp_path / "a.parquet", row_group_size=4)
    assert [row.value for row in rows(tmp_path / "a.parquet")] == [{"n": n} for n in range(10)]
