"""Versions are held against what the installed package asks for."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from rlhf_pipeline.launch.doctor.packages import DISTRIBUTION, TESTED, check_packages, compare

CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
ASKED = ["torch>=2.11,<2.16", "trl>=1.14,!=1.15.*,<1.17", 'deepspeed>=0.18.6,<1 ; extra == "deepspeed"']
GOOD = {"torch": TESTED["torch"], "trl": TESTED["trl"]}


def test_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_all_as_tested() -> None:
    (found,) = compare(ASKED, {**GOOD, "torch": f"{TESTED['torch']}+cu130"})
    assert (found.status, found.seen) == ("pass", "2 in their ranges, as tested")


def test_inside_the_range_and_not_as_tested() -> None:
    (found,) = compare(ASKED, {**GOOD, "torch": "2.12.1"})
    assert found.seen == f"2 in their ranges, others than tested: torch 2.12.1 (tested: {TESTED['torch']})"


@pytest.mark.parametrize(
    ("installed", "seen", "fix"),
    [
        ({**GOOD, "trl": "1.15.3"}, "trl 1.15.3 is outside !=1.15.*,<1.17,>=1.14", "pip install 'trl"),
        ({"torch": TESTED["torch"]}, "trl is not installed", "pip install 'trl"),
        ({**GOOD, "deepspeed": "0.17.0"}, "deepspeed 0.17.0 is outside <1,>=0.18.6", "pip install 'deepspeed"),
    ],
)
def test_missing_and_outside(installed: dict[str, str], seen: str, fix: str) -> None:
    problem, others = compare(ASKED, installed)
    assert (problem.status, problem.seen, others.status) == ("fail", seen, "pass")
    assert fix in problem.fix


def test_optional_and_not_installed_is_no_problem() -> None:
    assert [found.status for found in compare(ASKED, GOOD)] == ["pass"]


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    (found,) = check_packages()
    assert found.status == "warn" and "pip install ." in found.fix


def test_this_environment() -> None:
    try:
        metadata.requires(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pytest.skip("rlhf_pipeline is not installed here")
    assert [found for found in check_packages() if found.status != "pass"] == []
