"""The comparison from end to end with made-up runs, its order, its errors, and what is read from folders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contestants import Run
from benchmarks.learning import __main__ as learning
from benchmarks.learning import runs
from benchmarks.learning.sentiment import GLAD, SAD, sentiment
from benchmarks.learning.task import (
    MEASURED,
    STORIES,
    TASKS,
    WORLD,
    from_arguments,
    read_prompts,
    to_arguments,
    write_prompts,
)
from tests.benchmarks.learning_runs import make_run

OFFSETS = {"trl": 0.0, "ours_float32": 0.5, "ours": 0.5}


def fake_run_once(contestant: Any, task: Any, *_: Any) -> Run:
    return make_run(contestant.name, OFFSETS[contestant.name] + 0.1 * task.seed, task.seed, task)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runs, "run_once", fake_run_once)
    monkeypatch.setattr(learning, "RESULTS", tmp_path)
    return tmp_path


def test_json_plot_table_and_a_line_a_run(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(seeds=2, trl_python="python")
    learning.compare(list(TASKS.values()), results, options)
    found = json.loads((results / "learning.json").read_text(encoding="utf-8"))
    assert set(found) == {"tasks", "machine", "taken", "revision", "versions", "runs"}
    assert found["tasks"]["stories"]["comparisons"]["ours - trl"]["area"]["difference"] == pytest.approx(0.5, abs=1e-3)
    assert found["versions"]["trl"]["trl"] == "1.12.0"
    assert len(found["runs"]) == 12
    assert (results / "learning.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert " 12/12  " in printed and "about 0 min left" in printed
    assert "learning.json and learning.png" in printed


def test_seeds_come_one_after_the_other() -> None:
    jobs = runs.order([WORLD, STORIES], seeds=2)
    assert [task.seed for _, task in jobs] == [1] * 6 + [2] * 6
    assert [(task.name, one.name) for one, task in jobs[:4]] == [
        ("world", "trl"),
        ("world", "ours_float32"),
        ("world", "ours"),
        ("stories", "trl"),
    ]


def test_only_complete_seeds_are_compared() -> None:
    found = [make_run(who, 0.0, seed) for seed, who in [(1, "ours"), (2, "trl"), (1, "trl")]]
    assert learning.in_order(found, 2, ["world"]) == []
    found += [make_run("ours_float32", 0.0, 1)]
    kept = [(run["task"]["seed"], run["contestant"]) for run in learning.in_order(found, 2, ["world"])]
    assert kept == [(1, "trl"), (1, "ours_float32"), (1, "ours")]


def test_a_run_that_fails_ends_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(*job: Any) -> Run:
        asked.append(job)
        raise SystemExit("error: out of luck")

    monkeypatch.setattr(runs, "run_once", fail)
    with pytest.raises(SystemExit, match="out of luck"):
        list(runs.run_all(runs.order([WORLD], seeds=40), tmp_path, "python"))
    assert len(asked) < 120


def test_without_a_model_of_stories_one_task_is_left_and_the_other_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert [task.name for task in learning.choose_tasks(None, updates=7)] == ["world"]
    assert "stories: skipped, no model named" in capsys.readouterr().out


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no config.json there"):
        learning.choose_tasks(tmp_path, None)
    (tmp_path / "config.json").touch()
    assert learning.choose_tasks(tmp_path, None) == [WORLD, STORIES]
    assert {task.updates for task in learning.choose_tasks(tmp_path, 7)} == {7}


def test_a_task_travels_whole(tmp_path: Path) -> None:
    found, folder, options = from_arguments([*to_arguments(WORLD, tmp_path), "--float32"], "--float32")
    assert (found, folder, options.float32) == (WORLD, tmp_path / "world", True)


def test_measured_prompts_are_not_trained_on(tmp_path: Path) -> None:
    write_prompts(tmp_path, [str(n) for n in range(MEASURED + 20)], batch=20)
    assert read_prompts(tmp_path, "train") == [str(n) for n in range(20)]
    assert len(read_prompts(tmp_path, "measured")) == MEASURED
    with pytest.raises(ValueError, match="276 prompts are no 256 to measure and a batch of 21"):
        write_prompts(tmp_path, [str(n) for n in range(MEASURED + 20)], batch=21)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("She smiled. A nice, NICE day!", 2),
        ("He was sad and cried, but had fun", -1),
        ("the box was unhappyish", 0),
        ("", 0),
    ],
)
def test_glad_words_less_sad_words_each_once(text: str, score: float) -> None:
    assert sentiment(text) == score


def test_no_word_is_glad_and_sad() -> None:
    assert not GLAD & SAD


@pytest.fixture(autouse=True)
def _no_real_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test of this file starts a process."""

    def refuse(*_: Any) -> str:
        raise AssertionError("a process was started")

    monkeypatch.setattr(runs, "run_module", refuse)
    yield
