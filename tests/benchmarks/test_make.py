"""What `make bench-quick` would type, read from a dry run."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from benchmarks.contestants import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_second_environment_and_its_contestants() -> None:
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "--assume-old=install",
        "TRL_VENV=no-such-venv",
        "bench-quick",
    ]
    typed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "grep -v '^trl==' constraints.txt > no-such-venv/constraints.txt" in typed
    assert "--constraint no-such-venv/constraints.txt trl==1.12.0" in typed
    assert typed.rstrip().endswith("quick --minutes 12 --contestants trl trl_tuned lean ours_float32 ours")
