"""Overlaps of sets, counted by hand on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlhf_pipeline.data.curation.overlap import Overlap, OverlapIndex
from rlhf_pipeline.errors import DataError
from tests.data.curation.rows import Row, write
from tests.data.curation.test_near_duplicates import changed, sentence


@pytest.fixture
def index(tmp_path: Path) -> Iterator[OverlapIndex]:
    (tmp_path / "scratch").mkdir()
    with closing(OverlapIndex(0.8, tmp_path / "scratch")) as opened:
        yield opened


def only(index: OverlapIndex, one: str, other: str, check: str) -> Overlap:
    sets = [index.add(one), index.add(other)]
    (found,) = index.compare(*sets, [check])  # type: ignore[arg-type, list-item]
    return found


def test_rows_are_counted_on_both_sides(index: OverlapIndex, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": text} for text in "aabc"])
    other = write(tmp_path / "other.jsonl", [{"prompt": text} for text in "xaaac"])
    found = only(index, one, other, "prompt")
    assert (found.one_rows, found.other_rows, found.verdict) == (3, 4, "shared")
    assert found.examples == [[f"{one}:{a}", f"{other}:{b}"] for a, b in ((1, 2), (2, 2), (4, 5))]


def test_equal_prompts_are_no_near_duplicates(index: OverlapIndex, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": sentence(n)} for n in range(3)])
    near = [{"prompt": text} for text in (sentence(0), changed(sentence(1), 1), sentence(7), changed(sentence(1), 2))]
    other = write(tmp_path / "other.jsonl", near)
    found = only(index, one, other, "near_duplicate")
    assert (found.one_rows, found.other_rows) == (1, 2)
    assert found.examples == [[f"{one}:2", f"{other}:2"], [f"{one}:2", f"{other}:4"]]


@pytest.mark.parametrize(
    ("rows", "verdict", "unknown"),
    [
        ([{"prompt": "x", "user": "u"}], "shared", 0),
        ([{"prompt": "x", "user": "w"}], "disjoint", 0),
        ([{"prompt": "x"}, {"prompt": "y", "user": "w"}], "unknown", 1),
        ([{"prompt": "x"}, {"prompt": "y", "user": "u"}], "shared", 1),
    ],
)
def test_users(index: OverlapIndex, tmp_path: Path, rows: list[Row], verdict: str, unknown: int) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": "a", "user": "u"}])
    found = only(index, one, write(tmp_path / "other.jsonl", rows), "user")
    assert (found.verdict, found.one_unknown, found.other_unknown) == (verdict, 0, unknown)


def test_a_source_without_prompts(index: OverlapIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row with a prompt or text; there is nothing to compare"):
        index.add(write(tmp_path / "one.jsonl", [{"chosen": 1}]))


def test_the_json_object_has_the_verdict() -> None:
    assert Overlap("a", "b", "user", 0, 0, 1).to_dict()["verdict"] == "unknown"
