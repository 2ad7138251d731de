"""Findings as lines for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.doctor.findings import exit_status, failed, passed, refused, warned
from rlhf_pipeline.launch.doctor.report import WIDTH, as_json, as_text

FOUND = [
    passed("packages", "19 in their ranges"),
    warned("nccl", "NCCL_DEBUG=INFO", "unset it"),
    replace(failed("disk space", "1 MB free", "free some"), hosts=("node-1",)),
]


def test_text() -> None:
    assert as_text(FOUND).splitlines() == [
        "pass  packages    19 in their ranges",
        "warn  nccl        NCCL_DEBUG=INFO",
        "                  -> unset it",
        "fail  disk space  node-1: 1 MB free",
        "                  -> free some",
        "",
        "1 passed, 1 warnings, 1 failed",
    ]


def test_long_lines_are_wrapped_under_their_column() -> None:
    lines = as_text([warned("nccl", "word " * 60, "fix " * 60)]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert all(line.startswith("            ") for line in lines[1:-2])


def test_json() -> None:
    told = json.loads(as_json(FOUND))
    assert told["status"] == "fail"
    assert told["findings"][2] == {
        "check": "disk space", "status": "fail", "seen": "1 MB free", "fix": "free some", "hosts": ["node-1"],
    }  # fmt: skip
    assert json.loads(as_json(FOUND[:2]))["status"] == "warn" and json.loads(as_json(FOUND[:1]))["status"] == "pass"


def test_exit_status() -> None:
    assert [exit_status(FOUND), exit_status(FOUND[:2]), exit_status([])] == [1, 0, 0]


def test_errors_part_into_what_was_seen_and_the_remedy() -> None:
    found = refused("launch file", LaunchError("x.yaml:1: no such thing; write another; or none"))
    assert (found.seen, found.fix) == ("x.yaml:1: no such thing", "write another; or none")
