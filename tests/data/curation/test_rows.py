"""Rows in a file and their hashes in memory: nothing is lost on the way, and 0 says nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rlhf_pipeline.data.curation.rows import Keys, RowFile
from rlhf_pipeline.data.curation.text import hash64
from rlhf_pipeline.records import Demonstration, Prompt, Record

ASK = {"role": "user", "content": "Why?"}
REPLY = {"role": "assistant", "content": "So."}


def keys(*records: Record, prefix: int = 0) -> dict[str, list[int]]:
    found = Keys(prefix)
    for record in records:
        found.add(record)
    assert len(found) == len(records)
    return {name: found[name].tolist() for name in Keys.NAMES}


def test_rows_come_back_in_order_and_places_by_number(tmp_path: Path) -> None:
    rows = [("a\tb.jsonl:1", '{"prompt": "é\\t"}'), ("c:2", ""), ("d\n:3", "{}")]
    with closing(RowFile(tmp_path / "rows")) as file:
        for where, row in rows:
            file.add(where, row)
        assert (len(file), list(file)) == (3, rows)
        assert [file.where(number) for number in (2, 0, 1)] == ["d\n:3", "a\tb.jsonl:1", "c:2"]


def test_places_may_be_asked_for_while_rows_are_read(tmp_path: Path) -> None:
    with closing(RowFile(tmp_path / "rows")) as file:
        for number in range(5):
            file.add(f"f:{number}", str(number))
        assert [(row, file.where(0)) for _, row in file] == [(str(number), "f:0") for number in range(5)]


def test_an_empty_file(tmp_path: Path) -> None:
    with closing(RowFile(tmp_path / "rows")) as file:
        assert (len(file), list(file)) == (0, [])
    assert set(map(len, keys().values())) == {0}


def test_what_is_not_said_is_0() -> None:
    found = keys(Prompt("a"), Prompt("a", user="u", conversation="c"), Prompt("a", user="", conversation=""))
    assert found["user"] == [0, hash64("u"), 0]
    assert found["conversation"] == [0, hash64("c"), 0]
    assert found["prefix"] == [0, 0, 0]
    assert len(set(found["prompt"])) == 1


def test_a_prefix_is_the_beginning_or_the_whole() -> None:
    prefix = keys(Prompt("One TWO three"), Prompt("one  two four"), Prompt("one two"), Prompt("one"), prefix=7)[
        "prefix"
    ]
    assert prefix[0] == prefix[1] == prefix[2] != prefix[3]


def test_prompt_opening_and_content_differ_as_they_should() -> None:
    found = keys(
        Prompt([ASK]), Prompt([ASK, REPLY, ASK]), Demonstration([ASK], "So."), Demonstration([ASK], "Since.", user="u")
    )
    assert len(set(found["opening"])) == 1
    assert found["prompt"][0] == found["prompt"][2] == found["prompt"][3] != found["prompt"][1]
    assert len(set(found["content"])) == 4
