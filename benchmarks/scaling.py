"""How the cost of our update grows with batch and completion length, and whether memory grows over many updates.

Cost is fitted as size ** exponent, by least squares on logarithms. Left out: TRL, and completions that end early.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.compare import RESULTS
from benchmarks.contestants import OURS, Run, build_checkpoints, run_once
from benchmarks.progress import Progress
from benchmarks.provenance import describe_machine, describe_moment
from benchmarks.ratios import WARM_UP
from benchmarks.workload import Workload

BASE = Workload()
SIZES: dict[str, tuple[Any, ...]] = {"prompts": (64, 128, 256, 512), "completion_tokens": (16, 32, 64, 128)}
LONG = 50
EARLY = 5
"""Updates after which memory is read first, when every buffer has its size."""


def main(argv: Sequence[str]) -> None:
    """Measure, print and write `scaling.json`; takes no arguments."""
    plan = [(name, replace(BASE, **{name: size})) for name, sizes in SIZES.items() for size in sizes]
    plan.append(("memory", replace(BASE, updates=LONG)))
    progress, runs = Progress(len(plan)), dict[str, list[Run]]()
    with TemporaryDirectory() as folder:
        build_checkpoints(Path(folder), BASE)
        for name, workload in plan:
            runs.setdefault(name, []).append(run_once(OURS, workload, Path(folder), sys.executable))
            progress.show(runs[name][-1])
    found = {name: fit(name, runs[name]) for name in SIZES} | {"memory": growth(runs["memory"][0])}
    print(json.dumps(found, indent=1))
    whole = {"machine": describe_machine(), **describe_moment(), **found, "runs": runs}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def fit(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Seconds by size, and the exponent with which they grow."""
    sizes = [run["workload"][name] for run in runs]
    seconds = [median(update["seconds"] for update in run["updates"][WARM_UP:]) for run in runs]
    return {"sizes": sizes, "seconds": [round(s, 3) for s in seconds], "exponent": round(exponent(sizes, seconds), 3)}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log size: 1 is linear, 2 quadratic."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    mean_x, mean_y = fmean(x), fmean(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def growth(run: Mapping[str, Any]) -> dict[str, float]:
    """Memory in use after a few updates and after all of them, and what the process needed at most."""
    early, late = (run["updates"][n - 1]["rss_mib"] for n in (EARLY, LONG))
    figures = {f"after_{EARLY}_mib": early, f"after_{LONG}_mib": late, "growth": late / early}
    return {name: round(value, 3) for name, value in {**figures, "peak_mib": run["peak_rss_mib"]}.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
