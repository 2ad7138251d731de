"""What a check finds: pass, warn or fail, what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlhf_pipeline.errors import RlhfError

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is empty where there is nothing to do, `hosts` where only one was looked at."""

    check: str
    status: Status
    seen: str
    fix: str = ""
    hosts: tuple[str, ...] = ()


def passed(check: str, seen: str) -> Finding:
    """Say that `check` found all as it should be."""
    return Finding(check, "pass", seen)


def warned(check: str, seen: str, fix: str) -> Finding:
    """Say that training would work, worse than it could."""
    return Finding(check, "warn", seen, fix)


def failed(check: str, seen: str, fix: str) -> Finding:
    """Say that training would not work."""
    return Finding(check, "fail", seen, fix)


def refused(check: str, error: RlhfError) -> Finding:
    """Turn what a stage would be refused with into a finding: our errors say what was seen, then what to do."""
    seen, _, fix = str(error).partition("; ")
    return failed(check, seen, fix)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 where something failed, else 0."""
    return int(any(finding.status == "fail" for finding in findings))
