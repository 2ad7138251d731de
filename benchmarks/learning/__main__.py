"""Compare what PPO learns here and with TRL 1.12, at equal KL, on two tasks and with several seeds.

In: an environment with TRL 1.12, and a model of stories for the second task. Out: `learning.json` and `learning.png` in
benchmarks/results, and a table; both are written anew whenever all contestants have finished one more seed.
Left out: time and memory (`benchmarks.compare`), and what people would say of the answers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.compare import RESULTS
from benchmarks.contestants import Run
from benchmarks.learning.curves import summarise
from benchmarks.learning.prepare import build_stories, build_world
from benchmarks.learning.report import table
from benchmarks.learning.runs import CONTESTANTS, order, run_all
from benchmarks.learning.task import STORIES, TASKS, WORLD, Task
from benchmarks.provenance import describe_machine, describe_moment


def main(argv: Sequence[str]) -> None:
    """Compare, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description="reward at equal KL, beside TRL")
    parser.add_argument("--trl-python", required=True, help="python of the environment with TRL 1.12")
    parser.add_argument("--stories", type=Path, help="folder of a causal model of stories; without it, one task")
    parser.add_argument("--folder", type=Path, help="where models are made, and found again; default: a temporary one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="of every run; default: the task's own number")
    options = parser.parse_args(argv)
    tasks = choose_tasks(options.stories, options.updates)
    with TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder:
        prepare(tasks, Path(folder).resolve(), options.stories)
        compare(tasks, Path(folder).resolve(), options)


def choose_tasks(stories: Path | None, updates: int | None) -> list[Task]:
    """Take both tasks, or the world alone where no model of stories is named; says so."""
    if stories is None:
        print("stories: skipped, no model named; type --stories <folder> (make bench-learning STORIES=<folder>)")
    elif not (stories / "config.json").is_file():
        raise SystemExit(f"error: --stories {stories}: no config.json there; name the folder of a causal model")
    names = [WORLD.name] if stories is None else list(TASKS)
    return [TASKS[name] if updates is None else replace(TASKS[name], updates=updates) for name in names]


def prepare(tasks: Sequence[Task], folder: Path, stories: Path | None) -> None:
    """Make what the tasks start from, unless the folder has it."""
    for task in tasks:
        if task.name == STORIES.name and stories is not None:
            build_stories(folder, stories)
        elif task.name == WORLD.name:
            build_world(folder)


def compare(tasks: Sequence[Task], folder: Path, options: argparse.Namespace) -> None:
    """Run everything, and write what there is whenever one more seed is complete."""
    machine, runs, written = describe_machine(), list[Run](), 0
    for run in run_all(order(tasks, options.seeds), folder, options.trl_python):
        runs.append(run)
        complete = in_order(runs, options.seeds, [task.name for task in tasks])
        if len(complete) > written:
            write({"tasks": summarise(complete), **describe(machine, complete)})
            written = len(complete)


def in_order(runs: Sequence[Run], seeds: int, tasks: Sequence[str]) -> list[Run]:
    """The runs of those seeds that every contestant has finished on every task, in a fixed order."""
    found = {(run["task"]["seed"], run["task"]["name"], run["contestant"]): run for run in runs}
    wanted = {seed: [(seed, task, who) for task in tasks for who in CONTESTANTS] for seed in range(1, seeds + 1)}
    return [found[key] for keys in wanted.values() if all(key in found for key in keys) for key in keys]


def describe(machine: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Say where and with what it was measured, and every run as it was."""
    versions = {run["contestant"]: run["versions"] for run in runs}
    bare = [{name: value for name, value in run.items() if name != "versions"} for run in runs]
    return {"machine": machine, **describe_moment(), "versions": versions, "runs": bare}


def write(result: dict[str, Any]) -> None:
    """Write the JSON and the plot, and print the table."""
    from benchmarks.learning.plot import draw

    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "learning.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, RESULTS / "learning.png")
    print(f"\n{table(result)}\n{RESULTS / 'learning.json'} and learning.png\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
