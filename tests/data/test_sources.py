"""`read`: every container, bad rows under both policies, and sources that are not there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.data.sources import BadRow, read
from rlhf_pipeline.errors import ConfigError, DataError, StorageError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

ROWS = [{"prompt": f"Question {n}?", "completion": f" Answer {n}."} for n in range(3)]
LINES = [json.dumps(row) for row in ROWS]


def save(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def refused(source: str | Path, kind: type[Record] = Demonstration, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(str(source), kind, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_keep_their_order_and_place(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", LINES[0], "", LINES[1], "  ", LINES[2])
    rows = read(source, Demonstration)
    assert [record.prompt for record in rows.records] == ["Question 0?", "Question 1?", "Question 2?"]
    assert [rows.where(index) for index in range(3)] == [f"{source}:{line}" for line in (1, 3, 5)]


def test_fingerprint_depends_on_content_not_on_place_or_packing(tmp_path: Path) -> None:
    plain = save(tmp_path / "rows.jsonl", *LINES)
    (tmp_path / "other.jsonl.gz").write_bytes(gzip.compress(("\ufeff" + "\r\n".join(LINES)).encode()))
    changed = save(tmp_path / "changed.jsonl", *LINES[:2], json.dumps(ROWS[2] | {"completion": " Other."}))
    first = read(plain, Demonstration).fingerprint
    assert first == read(str(tmp_path / "other.jsonl.gz"), Demonstration).fingerprint
    assert first != read(changed, Demonstration).fingerprint


def test_nulls_say_nothing(tmp_path: Path) -> None:
    message = {"role": "user", "content": "Why?"}
    short = save(tmp_path / "short.jsonl", json.dumps({"prompt": [message], "list": [1, None]}))
    null = save(
        tmp_path / "null.jsonl", json.dumps({"prompt": [message | {"name": None}], "list": [1, None], "x": None})
    )
    (record,) = read(null, Prompt).records
    assert record == Prompt([message], facts={"list": [1, None]})
    assert read(short, Prompt).fingerprint == read(null, Prompt).fingerprint


BAD_LINES = [
    ('{"prompt": "x", "completion": }', "malformed JSON: Expecting value at column 31"),
    ('{"prompt": "x"', "malformed JSON: Expecting ',' delimiter at column 15"),
    ('["x"]', "the row is ['x']; expected an object"),
    ("[" * 100_000, "malformed JSON: nested too deeply"),
    ('{"prompt": "x"}', "no field `completion`"),
    ('{"prompt": "x", "completion": null}', "no field `completion`"),
    ('{"prompt": "x", "completion": ""}', "`completion` is empty"),
    ('{"prompt": "x", "completion": 3}', "`completion` is 3; expected a string"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES, ids=[words[:40] for _, words in BAD_LINES])
def test_a_bad_line_stops_with_its_number_and_the_next_step(tmp_path: Path, line: str, words: str) -> None:
    source = save(tmp_path / "rows.jsonl", LINES[0], line, LINES[2])
    message = refused(source)
    assert message.startswith(f"{source}:2: ")
    assert words in message
    assert message.endswith("; fix the row or pass `--on_bad_row skip`")


@pytest.mark.parametrize(("line", "words"), BAD_LINES, ids=[words[:40] for _, words in BAD_LINES])
def test_a_bad_line_can_be_skipped_and_is_kept(tmp_path: Path, line: str, words: str) -> None:
    source = save(tmp_path / "rows.jsonl", LINES[0], line, LINES[2])
    rows = read(source, Demonstration, on_bad_row="skip")
    assert [record.prompt for record in rows.records] == ["Question 0?", "Question 2?"]
    (bad,) = rows.bad
    assert (bad.where, bad.raw) == (f"{source}:2", line)
    assert words in bad.reason
    assert not bad.reason.startswith(source)


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES[0].encode() + b'\n{"prompt": "caf\xe9", "completion": "x"}\n' + LINES[1].encode())
    assert f"{path}:2: byte 0xe9 at position 16 is not UTF-8; fix the row" in refused(path)
    rows = read(str(path), Demonstration, on_bad_row="skip")
    assert len(rows.records) == 2
    assert rows.bad == [
        BadRow(f"{path}:2", "byte 0xe9 at position 16 is not UTF-8", '{"prompt": "caf\\xe9", "completion": "x"}')
    ]


def test_a_column_whose_name_no_terminal_can_show(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Why?", "\\ud800": 1}\n' * 2)
    (tmp_path / "rows.yaml").write_text(f"data: {tmp_path}/rows.jsonl\ncolumns: {{prompt: question}}\n")
    with pytest.raises(DataError, match=r"no column `question`; the row has `prompt`, `\\ud800`") as refused:
        read(str(tmp_path / "rows.yaml"), Prompt)
    assert str(refused.value).isprintable()


def test_a_bad_row_has_a_json_form() -> None:
    assert BadRow("f:1", "why", "raw").to_dict() == {"where": "f:1", "reason": "why", "raw": "raw"}


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", "{", "{}")
    message = refused(source, on_bad_row="skip")
    assert message.startswith(f"{source}: none of 2 rows is usable; the first, {source}:1: malformed JSON")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.jsonl.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    kind = Document if name == "a.txt" else Demonstration
    assert refused(tmp_path / name, kind) == f"{tmp_path / name}: no rows; the file is empty"


def test_every_row_dropped_is_an_error(tmp_path: Path) -> None:
    tree = {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "x", "synthetic": True}}
    source = save(tmp_path / "trees.jsonl", json.dumps(tree))
    assert refused(source) == f"{source}: every row was dropped (1 synthetic); pass other data"


@pytest.mark.parametrize("name", ["absent.jsonl", "absent", "sub/absent.csv"])
def test_an_absent_file(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name).startswith(f"{tmp_path / name}: no such file or folder")


def test_a_path_below_a_folder_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert refused("data/rankingz").startswith("data/rankingz: no such file or folder")


def test_a_kind_of_file_no_reader_knows(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    assert "rows.xlsx: no reader for this kind of file; expected one of .jsonl" in refused(tmp_path / "rows.xlsx")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "rows.jsonl", *LINES)

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(StorageError, match=r"rows\.jsonl: cannot be read \(Permission denied\); check that you may"):
        read(source, Demonstration)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(StorageError, match=r"cannot be read \(Permission denied\); check that you may"):
        read(str(tmp_path), Demonstration)


def test_unknown_format_and_policy_name_the_nearest(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", *LINES)
    with pytest.raises(ConfigError, match="--data_format: `oast` is not a format; did you mean `oasst`"):
        read(source, Demonstration, data_format="oast")
    with pytest.raises(ConfigError, match="--data_format: `zzz` is not a format; expected one of auto, hh"):
        read(source, Demonstration, data_format="zzz")
    with pytest.raises(ConfigError, match="--on_bad_row: `drop` is not a choice; expected error or skip"):
        read(source, Demonstration, on_bad_row="drop")  # type: ignore[arg-type]


def test_a_named_format_is_obeyed(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}))
    assert len(read(source, Ranking, data_format="trl").records) == 1
    assert "expected a transcript" in refused(source, Ranking, data_format="hh")


def test_a_folder_of_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, line in zip(("b.jsonl", "a.jsonl", "c.jsonl"), LINES, strict=True):
        save(tmp_path / name, line)
    save(tmp_path / "README.md", "no data")
    rows = read(str(tmp_path), Demonstration)
    assert [record.prompt for record in rows.records] == ["Question 1?", "Question 0?", "Question 2?"]


def test_splits_of_a_folder_are_not_mixed(tmp_path: Path) -> None:
    for name, line in zip(("train-00.jsonl", "train-01.jsonl", "test.jsonl"), LINES, strict=True):
        save(tmp_path / name, line)
    assert len(read(str(tmp_path), Demonstration).records) == 2
    assert len(read(str(tmp_path), Demonstration, split="test").records) == 1
    assert len(read(f"{tmp_path}#test", Demonstration).records) == 1
    with pytest.raises(ConfigError, match=f"no split `dev`; choose one of test, train, as in `{tmp_path}#test`"):
        read(f"{tmp_path}#dev", Demonstration)


def test_files_without_a_split_are_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "train.jsonl", LINES[0])
    save(tmp_path / "more.jsonl", LINES[1])
    with pytest.raises(ConfigError, match=r"more\.jsonl names no split but other files do; pass one file"):
        read(str(tmp_path), Demonstration)


def test_a_split_of_what_has_none(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", *LINES)
    with pytest.raises(ConfigError, match=r"rows\.jsonl: a file has no splits; leave `#test` out"):
        read(f"{source}#test", Demonstration)
    with pytest.raises(ConfigError, match="its files name no splits; leave `#test` out"):
        read(f"{tmp_path}#test", Demonstration)


def test_a_folder_without_data(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"{tmp_path}: no data files in this folder; expected .jsonl")
