"""Time a PPO update of ours against TRL 1.12's: the same work, alternating, every run in a fresh process.

In: two environments. Out: `<name>.json`, `<name>.png` beside it, and a table. Both files are written anew after every
repeat, so an interrupted benchmark leaves what it has. Left out: several processes, GPUs, other models.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.contestants import CONTESTANTS, Contestant, Run, build_checkpoints, run_once
from benchmarks.progress import Progress
from benchmarks.provenance import describe_machine, describe_moment
from benchmarks.ratios import require_equal_work, summarise
from benchmarks.report import table
from benchmarks.workload import CASES, Workload

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str]) -> None:
    """Compare, as the command line says."""
    parser = argparse.ArgumentParser(description="time a PPO update of ours against TRL 1.12's")
    parser.add_argument("name", help="of the files in benchmarks/results")
    parser.add_argument("--trl-python", required=True, help="python of the environment with TRL 1.12")
    parser.add_argument("--prompts", type=int, default=Workload.prompts)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--repeats", type=int, default=3, help="at most so many")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no repeat that would end later is begun")
    options = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        workload = Workload(prompts=options.prompts)
        build_checkpoints(Path(folder), workload)
        compare(options.name, workload, Path(folder), options)


def compare(name: str, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
    """Repeat every case for every contestant, at least once and while there is time, and write after each repeat."""
    machine, began, runs = describe_machine(), perf_counter(), list[Run]()
    progress = Progress(len(order(options.contestants, 0)), options.repeats, options.minutes)
    for repeat in range(options.repeats):
        repeat_began = perf_counter()
        for case, contestant in order(options.contestants, repeat):
            run = run_once(contestant, replace(workload, case=case, seed=repeat + 1), folder, options.trl_python)
            runs.append({"repeat": repeat, **run})
            progress.show(runs[-1])
            require_equal_work(runs)
        write(name, {**describe(workload, machine, runs), **summarise(runs), "runs": runs})
        now = perf_counter()
        if now - began + now - repeat_began > options.minutes * 60:
            break


def order(names: Sequence[str], repeat: int) -> list[tuple[str, Contestant]]:
    """Cases and contestants of a repeat; every second one backwards, so that a machine that slows hits all alike."""
    forward = [(case, CONTESTANTS[name]) for case in CASES for name in names if case in CONTESTANTS[name].cases]
    return forward[::-1] if repeat % 2 else forward


def describe(workload: Workload, machine: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Say what was run, where and with what."""
    versions = {run["contestant"]: run["versions"] for run in runs}
    return {"workload": asdict(workload), "machine": machine, **describe_moment(), "versions": versions}


def write(name: str, result: dict[str, Any]) -> None:
    """Write the JSON and the plot, and print the table."""
    from benchmarks.plot import draw

    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, RESULTS / f"{name}.png")
    print(f"\n{table(result)}\n{RESULTS / name}.json, .png\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
