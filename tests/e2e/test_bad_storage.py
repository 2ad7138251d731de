"""Disks that are read-only or fill up in mid-run: one line, exit status 2, and the same command ends published later.

The disk is a real one (tmpfs, in a mount namespace of its own), and it is the stage's own writes that fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.artifacts.verify import verify
from tests.e2e.conftest import Trained
from tests.e2e.pipeline import Pipeline
from tests.e2e.refusals import error_line

pytestmark = pytest.mark.e2e

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
READ_ONLY = "read-only"
ROLES = {"sft": {"sft"}, "reward": {"reward"}, "ppo": {"policy", "critic"}}
Refs = dict[str, dict[str, str]]


def may_mount() -> bool:
    """Whether this process may have a disk of its own."""
    try:
        mounted = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return mounted.returncode == 0


needs_disk = pytest.mark.skipif(not may_mount(), reason="no mount namespaces here: unshare is missing or not permitted")


def on_disk(pipeline: Pipeline, disks: Sequence[str | int], commands: Sequence[list[str]]) -> list[dict[str, Any]]:
    """Run the commands on a copy of the pipeline's store, once for each disk; the store goes from disk to disk.

    A disk is "read-only", or the number of files that fit on it. Gives one report for each disk and command.
    """
    job = {"root": str(pipeline.root), "disks": list(disks), "commands": list(commands)}
    worker = [*UNSHARE, sys.executable, "-m", "tests.e2e.other_disks"]
    done = subprocess.run(worker, input=json.dumps(job), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def pipeline(trained: Trained, tmp_path: Path) -> Pipeline:
    """A run with an SFT model."""
    return trained("llama").copy(tmp_path / "artifacts")


def moved(before: Refs, after: Refs) -> set[str]:
    """The roles that point elsewhere now."""
    return {role for role, name in after["default"].items() if before["default"].get(role) != name}


@needs_disk
def test_read_only_disk(pipeline: Pipeline) -> None:
    fresh = ("--learning_rate", "1e-3")  # else they are answered already, and nothing has to be written
    commands = [pipeline.argv(stage, *fresh) for stage in ("sft", "reward", "ppo")]
    commands[0] += ["--base", "base"]
    for report in on_disk(pipeline, [READ_ONLY], commands):
        line = error_line(report["status"], report["stderr"])
        assert "Read-only file system" in line or "read-only" in line
        assert "--artifacts" in line and report["unchanged"]


@needs_disk
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_disk_that_fills_up_in_mid_run(pipeline: Pipeline, stage: str) -> None:
    """Every disk can hold two files more than the one before, until there is room for all."""
    settings = ("--learning_rate", "1e-3", "--save_strategy", "steps", "--save_steps", "1")
    before = pipeline.store.refs()
    reports = on_disk(pipeline, range(0, 60, 2), [pipeline.argv(stage, *settings)])
    assert len(reports) > 3
    for report in reports[:-1]:
        line = error_line(report["status"], report["stderr"])
        assert "No space left on device" in line or "the disk is full" in line
        assert "rlhf artifacts gc" in line
        # the refs move together, at the earliest in the run in which the disk filled up while they were moving
        assert moved(before, report["refs"]) in (set(), ROLES[stage])
    assert reports[-1]["status"] == 0 and moved(before, reports[-1]["refs"]) == ROLES[stage]
    assert verify(pipeline.store) == []
