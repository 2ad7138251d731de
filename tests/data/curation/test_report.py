"""The report counts, gives examples, and writes every dropped row aside."""

from __future__ import annotations

import io
import json

from rlhf_pipeline.data.curation.report import Report, aligned


def filled() -> tuple[Report, list[dict[str, object]]]:
    aside = io.StringIO()
    report = Report(aside)
    report.begin("read", seen=9)
    for number in range(4):
        report.drop("read", f"f:{number}", f"unusable: reason {number}", {"n": number})
    report.drop("read", "f:7", "empty", None)
    report.begin("personal data", seen=4).changed.update({"EMAIL": 2})
    report.written["train.jsonl"] = 4
    report.notes.append("a note")
    return report, [json.loads(line) for line in aside.getvalue().splitlines()]


def test_reasons_are_counted_by_what_stands_before_the_colon() -> None:
    report, _ = filled()
    assert report.to_dict({"seed": 0}) == {
        "settings": {"seed": 0},
        "steps": {
            "read": {
                "seen": 9,
                "kept": 4,
                "dropped": {"unusable": 4, "empty": 1},
                "changed": {},
                "examples": [f"f:{n}: unusable: reason {n}" for n in range(3)],
            },
            "personal data": {"seen": 4, "kept": 4, "dropped": {}, "changed": {"EMAIL": 2}, "examples": []},
        },
        "written": {"train.jsonl": 4},
        "notes": ["a note"],
    }


def test_every_dropped_row_is_aside_with_its_whole_reason() -> None:
    _, aside = filled()
    assert len(aside) == 5
    assert aside[3] == {"step": "read", "where": "f:3", "reason": "unusable: reason 3", "row": {"n": 3}}


def test_a_step_begun_twice_is_one_step() -> None:
    report, _ = filled()
    assert report.begin("read").seen == 9


def test_the_table() -> None:
    assert filled()[0].table().splitlines() == [
        "step           rows  dropped  kept  why",
        "read              9        5     4  4 unusable, 1 empty",
        "personal data     4        0     4  2 EMAIL redacted",
        "examples:",
        "  read: f:0: unusable: reason 0",
        "a note",
    ]


def test_columns_are_aligned() -> None:
    assert aligned([("a", "bb", ""), ("ccc", "d", "e")], right=[1]) == ["a    bb", "ccc   d  e"]
