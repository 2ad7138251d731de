"""A comparison from end to end, its runs made up: what is written, in which order, and when it stops."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.workload import Workload, from_arguments, read_prompts, to_arguments
from tests.benchmarks.runs import SECONDS, fake_run_once


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compare, "run_once", fake_run_once)
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def run(tmp_path: Path, **options: Any) -> None:
    settings = {"repeats": 2, "minutes": float("inf"), "trl_python": "python", "contestants": list(SECONDS), **options}
    compare.compare("quick", Workload(), tmp_path, argparse.Namespace(**settings))


def test_json_plot_table_and_a_line_a_run(tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    found = json.loads((results / "quick.json").read_text(encoding="utf-8"))
    whole = {
        "workload",
        "machine",
        "taken",
        "revision",
        "versions",
        "ratio",
        "further",
        "spread",
        "contestants",
        "runs",
    }
    assert set(found) == whole
    assert found["ratio"]["end_to_end_early"] == 3.0
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["matrix_gflops"]["float32"] > 0
    assert set(found["versions"]) == set(SECONDS)
    assert [one["repeat"] for one in found["runs"]] == [0] * 11 + [1] * 11
    assert found["spread"]["end_to_end_full"]["samples"] == 4
    assert (results / "quick.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "  1/22  TRL as installed       full  64 x 64    30.0 s an update" in printed
    assert any(line.split() == ["rollout_early", "3.00", "3.00", "3.00"] for line in printed.splitlines())


def test_every_second_repeat_goes_backwards() -> None:
    names = ["trl", "ours"]
    assert compare.order(names, 1) == compare.order(names, 0)[::-1]
    assert compare.order(names, 2) == compare.order(names, 0)


def test_no_repeat_is_begun_that_would_not_fit(tmp_path: Path, results: Path) -> None:
    run(tmp_path, minutes=0.0)
    assert len(json.loads((results / "quick.json").read_text(encoding="utf-8"))["runs"]) == 11


def test_a_workload_travels_whole(tmp_path: Path) -> None:
    workload = Workload("early", prompts=3, learning_rate=1e-6)
    found, folder, options = from_arguments([*to_arguments(workload, tmp_path), "--medium"], "--medium")
    assert (found, folder, options.medium) == (workload, tmp_path, True)


def test_too_few_prompts_are_named(tmp_path: Path) -> None:
    (tmp_path / "full.json").write_text('["w3"]', encoding="utf-8")
    with pytest.raises(ValueError, match=r"full\.json holds 1 prompts, not 64"):
        read_prompts(tmp_path, Workload())
