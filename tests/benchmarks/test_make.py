"""What the benchmarks' targets would type, read from a dry run."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from benchmarks.contestants import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def typed_by(*words: str) -> str:
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=install", "TRL_VENV=no-such-venv", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_second_environment_and_its_contestants() -> None:
    typed = typed_by("bench-quick")
    assert "grep -v '^trl==' constraints.txt > no-such-venv/constraints.txt" in typed
    assert "--constraint no-such-venv/constraints.txt trl==1.12.0" in typed
    assert typed.rstrip().endswith("quick --minutes 12 --contestants trl trl_tuned lean ours_float32 ours")


def test_learning_takes_a_model_of_stories_where_there_is_one() -> None:
    plain, both = typed_by("bench-learning"), typed_by("bench-learning", "STORIES=my stories", "ARGS=--seeds 1")
    assert "trl==1.12.0" in plain and "--stories" not in plain
    last = " ".join(both.rstrip().split("\n")[-2:]).replace("\\", "").split()
    assert last[-5:] == ["--stories", "'my", "stories'", "--seeds", "1"]
    assert "no-such-venv/bin/python" in last
