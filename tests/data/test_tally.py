"""What is counted, on a few rows worked out by hand, and what is found wrong."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.findings import findings
from rlhf_pipeline.data.portrait import portrait
from rlhf_pipeline.data.sources import BadRow, Found, LeftOut
from rlhf_pipeline.data.tally import Size, Tally
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record, completion_text, completions_of

ASK = [{"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}]


def tally(*records: Any, examples: int = 0, limit: int | None = None) -> Tally:
    counted = Tally("characters", examples, limit)
    for number, record in enumerate(records, start=1):
        if isinstance(record, Document):
            size = Size(len(record.text), [])
        else:
            size = Size(len(completion_text(record.prompt)), [len(completion_text(c)) for c in completions_of(record)])
        counted.add(Found(f"f:{number}", record), size)
    return counted


def test_rankings() -> None:
    numbers = tally(
        Ranking("Why?", [" Because.", " No.", " No."], [0, 1, 1], labeler="ana"),
        Ranking(ASK, ["x", "yy"], [0, 1], labeler="ben", finished=[False, True]),
        Ranking("Why?", ["a", "b"], [0, 0], labeler="ana"),
    ).to_dict()
    assert numbers["rankings"] == {
        "completions_per_prompt": {"2": 2, "3": 1},
        "pairs": 5,
        "ties": 2,
        "same_text": 1,
        "all_tied": 1,
        "unfinished": 1,
        "says_finished": 1,
        "longer_preferred_share": 0.667,
    }
    assert numbers["labelers"] == {"named": 3, "distinct": 2, "top": {"ana": 2, "ben": 1}, "error": 0}
    assert (numbers["prompts_plain"], numbers["prompts_with_system"], numbers["user_turns"]) == (2, 1, {"1": 1})
    assert numbers["same"]["prompts"] == {"count": 3, "distinct": 2, "repeated": 1, "largest": 2}
    assert numbers["lengths"]["row"] == {
        "count": 3,
        "mean": 9.0,
        "p1": 5,
        "p10": 5,
        "p50": 9,
        "p90": 13,
        "p99": 13,
        "max": 13,
    }


def test_where_a_record_is_from_does_not_make_it_another() -> None:
    same = tally(Demonstration("a", "b", id="1", user="x"), Demonstration("a", "b", id="2")).to_dict()["same"]
    assert same["records"]["repeated"] == 1


def test_bad_rows_and_what_is_left_out_are_counted() -> None:
    counted = tally(Document("x"))
    for number in range(9):
        counted.add_other(BadRow(f"f:{number}", "why", "raw"))
    counted.add_other(LeftOut("f:9", "synthetic"))
    numbers = counted.to_dict()
    assert (numbers["records"], numbers["bad_rows"], numbers["left_out"]) == (1, 9, {"synthetic": 1})
    assert [bad["where"] for bad in numbers["first_bad_rows"]] == [f"f:{number}" for number in range(5)]


def many(record: Any, count: int = 30) -> list[Record]:
    return [type(record)(**{**vars(record), "prompt": f"{record.prompt} {number}?"}) for number in range(count)]


GOOD = Demonstration("Why", " So.")
PAIR = Ranking("Why", [" Yes.", " No!!."], [0, 1])
FINDINGS: list[tuple[list[Record], str]] = [
    ([GOOD] * 3, "2 of 3 (66.7%) records repeat an earlier one, the most frequent 3 times"),
    (many(Demonstration("Why", " So")), "30 of 30 (100.0%) completions end without a closing mark"),
    (many(Demonstration("Why", "So.")), "30 of 30 (100.0%) plain completions begin without a blank right after"),
    ([*many(GOOD, 120), Demonstration("x", f"{'y' * 200}.")], "the longest row has 202 characters, the 99th "),
    (many(Demonstration("Why", " So far.")), "30 of 30 (100.0%) completions have exactly the greatest length, 8 "),
    ([GOOD, Demonstration(ASK, "So.")], "1 prompts are plain text and 1 are messages"),
    (many(Ranking("Why", [" a.", " b."], [1, 1])), "30 of 30 (100.0%) rankings tie all their completions"),
    ([Ranking("Why", [" a.", " a.", " b."], [0, 1, 2])], "1 of 3 (33.3%) pairs compare a completion with itself"),
    (many(Ranking("Why", [" long one.", " b."], [0, 1])), "the longer of two completions wins 100% of the pairs"),
    ([*many(Ranking("Why", [" a.", " b."], [0, 1], labeler="ana")), Ranking("x", [" a.", " b."], [0, 1], labeler="b")],
     "labeler ana gave 30 of 31 (96.8%) records"),
    ([*many(Demonstration("Why", " a.", user="ana")), GOOD], "1 of 31 (3.2%) records name no user, the others do"),
]  # fmt: skip


@pytest.mark.parametrize(("records", "words"), FINDINGS, ids=[words[-40:] for _, words in FINDINGS])
def test_what_looks_wrong(records: list[Record], words: str) -> None:
    found = findings(tally(*records))
    assert any(words in line for line in found), found


def test_nothing_is_wrong_with_sound_rows() -> None:
    sound = [Demonstration(f"Question {n}?", f" Answer{'!' * n}.", user=f"u{n % 5}") for n in range(40)]
    assert findings(tally(*sound, limit=100)) == []


def test_rows_over_the_limit() -> None:
    assert findings(tally(GOOD, Demonstration("x" * 90, " y."), limit=50)) == [
        "1 of 2 (50.0%) rows have more than 50 characters; see `--on_long_row`"
    ]


@pytest.mark.parametrize(("length", "over"), [(1024, False), (1025, True), (2048, True), (1020, False)])
def test_long_rows_are_held_against_the_limit_exactly(length: int, over: bool) -> None:
    found = findings(tally(*(Demonstration("x" * 24, " " + "y" * (length - 26) + ".") for _ in range(3)), limit=1024))
    assert ("3 of 3 (100.0%) rows have more than 1024 characters; see `--on_long_row`" in found) is over
    assert over or not any("more than" in line for line in found)


def test_long_completions_of_the_greatest_length() -> None:
    found = findings(tally(*many(Demonstration("Why", " " + "y" * 1999 + "."))))
    assert any("30 of 30 (100.0%) completions have exactly the greatest length, 2001 " in line for line in found)


def test_several_rankings_of_a_prompt_are_nothing_wrong() -> None:
    ranked = [Ranking("Why?", [" So.", " No."], [n % 2, 1 - n % 2], labeler=f"l{n // 2}") for n in range(8)]
    assert findings(tally(*ranked)) == []


def test_bad_rows_are_a_finding() -> None:
    counted = tally(GOOD)
    counted.add_other(BadRow("f:2", "why", "raw"))
    assert findings(counted) == ["1 of 2 (50.0%) rows cannot be used; fix them, or pass `--on_bad_row skip`"]


def test_the_portrait_shows_numbers_bars_and_examples() -> None:
    counted = tally(*many(PAIR), Ranking(ASK, ["x" * 500, "y"], [1, 0], labeler="ana"), examples=40)
    counted.add_other(BadRow("f:40", "no field `ranks`", ""))
    counted.add_other(LeftOut("f:41", "synthetic"))
    text = "\n".join(portrait(counted, "rankings"))
    for words in (
        "31 rankings", "1 left out: synthetic", "1 bad rows, the first:\n  f:40: no field `ranks`",
        "lengths in characters", "completions of a prompt (K); 31 pairs, 0 of them ties", "1 labelers: ana 1",
        "31 different prompts; 0 repeat an earlier one", "example f:31\n  prompt      system: S | user: Why?",
        "rank 0      y", f"rank 1      {'x' * 50} ... {'x' * 50}", "what looks wrong\n  - 1 of 32",
    ):  # fmt: skip
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize("record", [GOOD, Document("Once.\n\nTwice."), Prompt("Why?", facts={"answer": "42"})])
def test_every_kind_has_a_portrait(record: Record) -> None:
    text = "\n".join(portrait(tally(record, examples=1), "records"))
    assert "example f:1" in text
    assert text.endswith("nothing looks wrong")
