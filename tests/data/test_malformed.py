"""Two hundred spoilt rows of every format: each an error with file and line, or counted, and no other row is lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlhf_pipeline.cli import main
from rlhf_pipeline.data.sources import BadRow, Found, LeftOut, read, stream
from rlhf_pipeline.errors import DataError, RlhfError
from rlhf_pipeline.records import Demonstration, Document, Ranking, Record
from tests.data.malformed import CASES, DATA, VARIANTS, Case, Variant, spoilt_files, variants

Item = Found[Any] | LeftOut | BadRow


def items(path: Path, of: Case, data_format: str) -> list[Item]:
    return list(stream(str(path), of.kind, data_format=data_format))


def on_line(found: list[Item], path: Path, line: int) -> list[Item]:
    return [item for item in found if item.where == f"{path}:{line}"]


def is_sound(record: Record) -> bool:
    """Say whether what came through can be written, read again and trained on."""
    row = json.loads(json.dumps(record.to_dict()).encode())
    return type(record).from_dict(row, "again").to_dict() == row


def complaint(found: list[Item], path: Path, line: int, variant: Variant) -> str | None:
    """Say what is wrong with how the spoilt line was taken; None where nothing is."""
    here = on_line(found, path, line)
    if not here:
        return "lost"
    for item in here:
        if isinstance(item, Found) and not is_sound(item.record):
            return f"gave {item.record}"
        if isinstance(item, LeftOut | BadRow) and (not item.reason or "\n" in item.reason or " at 0x" in item.reason):
            return f"said {item.reason!r}"
        if isinstance(item, BadRow) and item.raw != variant.line.decode(errors="backslashreplace").rstrip("\r\n"):
            return f"kept {item.raw!r}"
    usable = any(isinstance(item, Found) for item in here)
    return None if variant.usable in (None, usable) else f"{'taken' if usable else 'refused'}: {here[0]}"


@pytest.mark.parametrize("of", CASES, ids=[of.name for of in CASES])
def test_every_spoilt_row_is_told_and_no_other_is_lost(of: Case, tmp_path: Path) -> None:
    path, sound = tmp_path / "rows.jsonl", json.dumps(of.row).encode()
    path.write_bytes(sound)
    expected = [getattr(item, "record", item) for item in items(path, of, of.data_format)]
    spoilt, wrong = variants(of), []
    for number, variant in enumerate(spoilt):
        line = 1 + number % 3
        rows = [sound, sound]
        rows.insert(line - 1, variant.line)
        path.write_bytes(b"\n".join(rows))
        found = items(path, of, of.data_format)
        others = [on_line(found, path, other) for other in (1, 2, 3) if other != line]
        kept = all([getattr(item, "record", item) for item in other] == [
            item if isinstance(item, Record) else LeftOut(other[0].where, item.reason) for item in expected
        ] for other in others)  # fmt: skip
        what = complaint(found, path, line, variant) or (None if kept else "others changed")
        if what:
            wrong.append(f"{variant.what}: {what}")
    assert (len(spoilt), wrong) == (VARIANTS, [])


def test_what_was_refused_is_an_error_unless_it_is_to_be_skipped(tmp_path: Path) -> None:
    for of in CASES:
        path, sound = tmp_path / "rows.jsonl", json.dumps(of.row).encode()
        refused = [variant.line for variant in variants(of) if variant.usable is False][:20]
        path.write_bytes(b"\n".join([sound, *refused]))
        skipped = read(str(path), of.kind, data_format=of.data_format, on_bad_row="skip")
        lines = {bad.where for bad in skipped.bad} | {f"{path}:1"}
        assert len(skipped.bad) + sum(skipped.dropped.values()) >= len(refused)
        if skipped.bad:
            with pytest.raises(DataError) as caught:
                read(str(path), of.kind, data_format=of.data_format)
            assert str(caught.value).startswith(tuple(f"{line}: " for line in lines))


def test_a_row_that_cannot_be_used_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    sound = (DATA / "preferences-hh.jsonl").read_text().splitlines()[0]
    path.write_text('{"chosen": 5, "rejected": 6}\n' + sound)
    (record,) = read(str(path), Ranking, on_bad_row="skip").records
    assert record.prompt == [{"role": "user", "content": "Why is the sky dark at night?"}]


@pytest.mark.parametrize("of", CASES[:12], ids=[of.name for of in CASES[:12]])
def test_an_array_holds_the_same_rows_as_lines(of: Case, tmp_path: Path) -> None:
    rows = [json.dumps(of.row).encode(), *(variant.line for variant in variants(of) if is_json(variant.line))]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(rows))
    (tmp_path / "rows.json").write_bytes(b"\xef\xbb\xbf[" + b",\r\n".join(rows) + b"]")
    as_lines, as_array = (items(tmp_path / name, of, of.data_format) for name in ("rows.jsonl", "rows.json"))
    assert [without_place(item) for item in as_lines] == [without_place(item) for item in as_array]
    assert {item.where.rpartition(":")[2] for item in as_array} == {str(n + 1) for n in range(len(rows))}


def is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode())
    except (ValueError, RecursionError):
        return False
    return b"\n" not in line and not line.startswith(b"\xef\xbb\xbf")


def without_place(item: Item) -> Any:
    return item.record if isinstance(item, Found) else item.reason


SAMPLES = [
    ("demonstrations.jsonl", Demonstration), ("demonstrations.json", Demonstration),
    ("demonstrations.csv", Demonstration), ("demonstrations.parquet", Demonstration), ("documents.txt", Document),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "kind"), SAMPLES)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_told_in_one_line(sample: str, kind: type[Record], packed: bool, tmp_path: Path) -> None:
    whole = (DATA / sample).read_bytes()
    if packed and sample.endswith(".parquet"):
        pytest.skip("a Parquet file is packed inside")
    path = tmp_path / (f"{sample}.gz" if packed else sample)
    for number, damaged in enumerate(spoilt_files(gzip.compress(whole, mtime=0) if packed else whole)):
        path.write_bytes(damaged)
        try:
            found = list(stream(str(path), kind))
        except RlhfError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error), (number, error)
            continue
        assert all(is_sound(item.record) for item in found if isinstance(item, Found)), number
        assert all("\n" not in item.reason for item in found if isinstance(item, BadRow)), number
        if sample == "demonstrations.jsonl" and not packed:
            places = [item.where.rpartition(":")[2] for item in found]
            assert places == [str(n) for n, line in enumerate(damaged.split(b"\n"), 1) if not is_blank(line)], number


def is_blank(line: bytes) -> bool:
    return not line.removeprefix(b"\xef\xbb\xbf").strip()


CSV_ROWS = [
    (b"Why?,So.,extra", "3 cells; the header has 2"),
    (b"Why?", "1 cells; the header has 2"),
    (b'"Why?,So.', "malformed CSV: unexpected end of data"),
    (b'"Why?"x,So.', "malformed CSV"),
    (b"caf\xe9,So.", "not UTF-8"),
    (b",So.", "no field `prompt`"),
    (b"  ,So.", "`prompt` is empty"),
]


@pytest.mark.parametrize(("row", "words"), CSV_ROWS)
def test_rows_of_a_table(row: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,completion\r\nA?,B.\r\n" + row)
    first, second = stream(str(path), Demonstration)
    assert isinstance(first, Found) and isinstance(second, BadRow)
    assert words in second.reason and second.where == f"{path}:3"


def test_a_table_of_another_type_than_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = {"prompt": ["A?", None, "C?"], "completions": [["a", "b"]] * 3, "ranks": [[0.0, float("nan")]] * 3}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    found = list(stream(str(path), Ranking))
    assert [item.where for item in found] == [f"{path}:row {number}" for number in (1, 2, 3)]
    assert all(isinstance(item, BadRow) for item in found)
    assert "`ranks` is [0.0, nan]; expected a list of int" in found[0].reason  # type: ignore[union-attr]


def test_the_command_tells_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(variant.line + b"\n" for of in CASES[:3] for variant in variants(of)))
    assert main(["data", "inspect", str(path), "--kind", "demonstrations"]) == 0
    shown = capsys.readouterr()
    assert "rows cannot be used" in shown.out and "Traceback" not in shown.out + shown.err
    path.write_bytes(b"{\n\xff\n")
    assert main(["data", "inspect", str(path)]) == 2
    assert f"{path}:1: malformed JSON" in capsys.readouterr().err
