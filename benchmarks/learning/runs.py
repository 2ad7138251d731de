"""Who learns, and all their runs: two processes of one thread each, side by side, a line for every one that ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter

from benchmarks.contestants import OURS, OURS_FLOAT32, TRL, Contestant, Run, run_module
from benchmarks.learning.task import Task, to_arguments

SIDE_BY_SIDE = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
CONTESTANTS = {
    "trl": replace(TRL, title="TRL 1.12", module="benchmarks.learning.contestant_trl"),
    "ours_float32": replace(OURS_FLOAT32, module="benchmarks.learning.contestant_ours"),
    "ours": replace(OURS, module="benchmarks.learning.contestant_ours"),
}

Job = tuple[Contestant, Task]


def order(tasks: Sequence[Task], seeds: int) -> list[Job]:
    """All contestants on every task with one seed, then with the next, so that an interrupted run is balanced."""
    return [
        (contestant, replace(task, seed=seed))
        for seed in range(1, seeds + 1)
        for task in tasks
        for contestant in CONTESTANTS.values()
    ]


def run_all(jobs: Sequence[Job], folder: Path, trl_python: str) -> Iterator[Run]:
    """Run the jobs and yield each as it ends; where one fails, none is begun any more."""
    began = perf_counter()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = [pool.submit(run_once, *job, folder, trl_python) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                run = future.result()
                minutes = (perf_counter() - began) / done * (len(jobs) - done) / 60
                print(f"{done:3}/{len(jobs)}  {line(run)}  about {minutes:.0f} min left", flush=True)
                yield run
        finally:
            pool.shutdown(cancel_futures=True)


def run_once(contestant: Contestant, task: Task, folder: Path, trl_python: str) -> Run:
    """Run a contestant in a fresh process and return its result; stops with its last lines where it fails."""
    python, began = trl_python if contestant.in_trl_112 else sys.executable, perf_counter()
    words = [*to_arguments(task, folder), *contestant.flags]
    output = run_module(python, contestant.module, words, {**contestant.environment, **ONE_THREAD})
    seconds = round(perf_counter() - began, 1)
    return {
        "contestant": contestant.name,
        "task": asdict(task),
        "process_seconds": seconds,
        **json.loads(output.splitlines()[-1]),
    }


def line(run: Run) -> str:
    """Say who learned what, from the first point to the mean of the last three."""
    first, last = run["points"][0]["reward"], run["points"][-3:]
    reward, kl = (fmean(point[name] for point in last) for name in ("reward", "kl_nats"))
    who = f"{run['task']['name']:<8} {CONTESTANTS[run['contestant']].title:<16} seed {run['task']['seed']}"
    return f"{who}  reward {first:6.2f} -> {reward:6.2f} at {kl:5.2f} nats  {run['process_seconds']:4.0f} s"
