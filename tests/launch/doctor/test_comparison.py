"""What differs between machines is found, and what they share is said once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlhf_pipeline.launch.doctor.comparison import Answer, compare, merged
from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, warned

GOOD = Answer(
    host="a",
    software={"torch": "2.13.0"},
    variables={},
    gpus=("H100", "H100"),
    folder="/shared/artifacts",
    shared=True,
    excluded=True,
    clock=100.0,
    rate=1e9,
    findings=(passed("packages", "all"),),
)


def pair(**changes: Any) -> list[Finding]:
    """What is found where the second of two machines is different."""
    return compare([GOOD, replace(GOOD, **{"host": "b", **changes})], 2)


def test_two_alike() -> None:
    found = pair()
    assert {finding.status for finding in found} == {"pass"}
    assert [finding.check for finding in found] == [
        "packages", "machines", "same software", "same variables", "same gpus", "shared artifacts", "clocks", "network",
    ]  # fmt: skip
    assert found[1].seen == "2 processes on 2 machines: a 1, b 1"


@pytest.mark.parametrize(
    ("changes", "status", "check", "seen"),
    [
        ({"host": "a"}, "fail", "machines", "2 processes on 1 machines: a 2"),
        ({"software": {"torch": "2.12.0"}}, "fail", "same software", "torch: 2.13.0 on a, 2.12.0 on b"),
        ({"software": {}}, "fail", "same software", "torch: 2.13.0 on a, none on b"),
        ({"variables": {"NCCL_ALGO": "Ring"}}, "fail", "same variables", "NCCL_ALGO: unset on a, Ring on b"),
        ({"gpus": ("A100", "H100")}, "warn", "same gpus", "gpus: H100, H100 on a, A100, H100 on b"),
        ({"shared": False, "excluded": False}, "fail", "shared artifacts", "is not the folder that b has there"),
        ({"excluded": False}, "fail", "shared artifacts", "a lock held on a does not hold on b"),
        ({"folder": "/mnt/x"}, "warn", "shared artifacts", "named /mnt/x, /shared/artifacts"),
        ({"clock": 103.5}, "warn", "clocks", "3.5 s apart"),
        ({"rate": 5e7}, "warn", "network", "50.0 MB/s a process"),
    ],
)
def test_one_thing_different(changes: dict[str, Any], status: str, check: str, seen: str) -> None:
    (found,) = [finding for finding in pair(**changes) if finding.status != "pass"]
    assert (found.status, found.check) == (status, check)
    assert seen in found.seen and found.fix


def test_interfaces_may_be_called_differently() -> None:
    assert {f.status for f in pair(variables={"NCCL_SOCKET_IFNAME": "ib1"})} == {"pass"}


def test_uneven_machines() -> None:
    b = replace(GOOD, host="b")
    found = compare([GOOD, replace(GOOD, findings=()), b], 2)
    assert [f.seen for f in found if f.status == "fail"] == ["3 processes on 2 machines: a 2, b 1"]


def test_folder_that_the_first_cannot_write() -> None:
    alone = replace(GOOD, shared=False, excluded=False)
    found = [f for f in compare([alone, replace(alone, host="b")], 2) if f.status == "fail"]
    assert [f.seen for f in found] == ["/shared/artifacts cannot be written on a"]


def test_equal_findings_are_said_once() -> None:
    everywhere, here = warned("nccl", "NCCL_DEBUG=INFO", "unset it"), failed("disk space", "full", "free some")
    answers = [
        replace(GOOD, findings=(everywhere, here)),
        replace(GOOD, findings=()),  # the second process of the machine has nothing to add
        replace(GOOD, host="b", findings=(everywhere,)),
    ]
    assert merged(answers) == [everywhere, replace(here, hosts=("a",))]
