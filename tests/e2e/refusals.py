"""What every test of bad input checks: status 2, one line on stderr, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline import cli

Refuse = Callable[..., str]

START = {"pretrain": "--base", "sft": "--base", "reward": "--model", "ppo": "--model"}
"""The setting that names what a stage starts from."""

GOOD_ROWS: dict[str, list[dict[str, Any]]] = {
    "pretrain": [{"text": f"number {i}"} for i in range(6)],
    "sft": [{"prompt": f"{i} + 1 =", "completion": f" {i + 1}"} for i in range(6)],
    "reward": [{"prompt": f"{i} + 1 =", "chosen": f" {i + 1}", "rejected": " no"} for i in range(6)],
    "ppo": [{"prompt": f"{i} + 1 ="} for i in range(6)],
}
"""Rows that each stage takes."""

STAGES = tuple(GOOD_ROWS)


def write_rows(file: Path, rows: list[Any]) -> str:
    """Write JSONL, one row on a line; a string stands for itself."""
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def words(stage: str, base: object, judge: object) -> list[str]:
    """A stage that starts from `base`, and for PPO has `judge` score."""
    scored = ["--reward", str(judge), "--max_completion_length", "8"] if stage == "ppo" else []
    return [stage, START[stage], str(base), *scored]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below `folder` with its bytes, and every folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def error_line(status: int, stderr: str) -> str:
    """The one line of a refused command; fails where there is more, or another status."""
    assert status == 2, stderr
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    return lines[0]


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refuse:
    """Run `rlhf <typed>` in the test's folder; check that it is refused without a trace and return the error line."""
    monkeypatch.chdir(tmp_path)

    def run(*typed: object) -> str:
        before = contents(tmp_path)
        capfd.readouterr()
        status = cli.main([str(word) for word in typed])
        line = error_line(status, capfd.readouterr().err)
        assert contents(tmp_path) == before, "a refused command wrote something"
        return line

    return run
