"""What a plan says is what DeepSpeed and DDP held: benchmarks/results/zero_memory.json, and the page that shows it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zero_memory import HEAD, LAUNCHES, MODEL, PLANNED, PROCESSES, RESULTS, compared, held, predicted, row

FAR = 0.02
"""A share of all that is held: a plan promises a tenth."""

MEASURED: dict[str, Any] = json.loads((RESULTS / "zero_memory.json").read_text(encoding="utf-8"))
RUNS: list[dict[str, Any]] = MEASURED["runs"]
DOCUMENT = Path(__file__).parents[3] / "docs" / "cluster.md"


def test_every_mode_was_measured() -> None:
    kinds = set(product(LAUNCHES, ("float32", "bf16"), PROCESSES)) - {("DDP", "bf16", n) for n in PROCESSES}
    assert {(run["mode"], run["dtype"], run["processes"]) for run in RUNS} == kinds
    assert MEASURED["model"] == MODEL
    assert all(len(run["ranks"]) == run["processes"] for run in RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['mode']}-{run['dtype']}-{run['processes']}")
def test_the_plan_predicts_what_was_measured(run: dict[str, Any]) -> None:
    plan = predicted(run["mode"], run["processes"], run["dtype"] == "bf16")
    for rank in run["ranks"]:
        together = held(rank)
        assert held(plan) == pytest.approx(together, rel=FAR)
        for kind in PLANNED:
            assert plan[kind] == pytest.approx(rank[kind], abs=FAR * together), kind


def test_the_document_shows_what_was_measured_beside_what_is_predicted_today() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    today = [compared(run["mode"], run["processes"], run["dtype"] == "bf16", run["ranks"]) for run in RUNS]
    assert "\n".join([*HEAD, *map(row, today)]) in text, "paste what `python -m benchmarks.zero_memory` prints"
    assert today == RUNS
