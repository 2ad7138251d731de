"""Two hundred spoilt rows of every format: each an error with file and line, or counted, and no other row is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.data.sources import BadRow, Found, LeftOut, read, stream
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Record
from tests.data.malformed import CASES, VARIANTS, Case, Variant, variants

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
