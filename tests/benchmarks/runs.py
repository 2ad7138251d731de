"""Raw runs as contestants report them, with seconds made up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.contestants import Contestant, Run
from benchmarks.workload import Workload

SECONDS = {"trl": 30.0, "trl_tuned": 20.0, "trl_split": 18.0, "lean": 9.0, "ours_float32": 15.0, "ours": 10.0}
PEAK = {"trl": 5000.0, "trl_tuned": 5500.0, "trl_split": 2500.0, "lean": 1500.0, "ours_float32": 2500.0, "ours": 2000.0}


def make_update(seconds: float, **changes: Any) -> dict[str, float]:
    """A tenth each for sampling and scoring, a tenth lost, the rest optimisation."""
    phases = {"generate": 0.1 * seconds, "score": 0.1 * seconds, "optimise": 0.7 * seconds}
    return {"seconds": seconds, **phases, "mean_tokens": 64.0, "rss_mib": 1000.0, **changes}


def make_run(who: str, workload: Workload, **changes: Any) -> Run:
    """The first update, warm-up, takes three times as long; the early case a half."""
    seconds = SECONDS[who] * (0.5 if workload.case == "early" else 1)
    tokens = 25.6 if workload.case == "early" else 64.0
    updates = [make_update(seconds * (3 if n == 0 else 1), mean_tokens=tokens) for n in range(workload.updates)]
    facts = {"contestant": who, "workload": asdict(workload), "process_seconds": 1.0}
    rest = {"peak_rss_mib": PEAK[who], "threads": 2, "mixed_precision": "no", "versions": {"torch": "2"}}
    return {**facts, "updates": updates, **rest, **changes}


def fake_run_once(contestant: Contestant, workload: Workload, *_: Any) -> Run:
    """Stands in for `run_once`."""
    return make_run(contestant.name, workload)
