"""The contestants, and one run of one: a fresh process, from whose last line the result is read.

Neither this module nor those that use it load torch: on Linux a child's peak memory begins at what its parent has in
use. Left out: several processes a contestant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.workload import CASES, Workload, to_arguments

ROOT = Path(__file__).parents[1]
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc keeps the memory it has instead of giving it back and clearing it anew at every large tensor."""
QUIET = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
Run = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A module to run, in our environment or that of TRL 1.12, and its settings."""

    name: str
    title: str
    module: str
    in_trl_112: bool = False
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[str, ...] = CASES


TRL = Contestant("trl", "TRL as installed", "benchmarks.contestant_trl", in_trl_112=True)
TRL_TUNED = replace(TRL, name="trl_tuned", title="TRL, our settings", flags=("--medium",), environment=MALLOC)
TRL_SPLIT = replace(TRL_TUNED, name="trl_split", title="the same, batch split", flags=("--medium", "--split"))
OURS = Contestant("ours", "ours as shipped", "benchmarks.contestant_ours")
OURS_FLOAT32 = replace(OURS, name="ours_float32", title="ours in float32", flags=("--float32",))
LEAN = Contestant("lean", "optimisation in plain torch", "benchmarks.contestant_lean", cases=("full",))
CONTESTANTS = {one.name: one for one in (TRL, TRL_TUNED, TRL_SPLIT, LEAN, OURS_FLOAT32, OURS)}


def build_checkpoints(folder: Path, workload: Workload) -> None:
    """Make models and prompts in `folder`, in a process of its own."""
    run_module(sys.executable, "benchmarks.checkpoints", to_arguments(workload, folder), {})


def run_once(contestant: Contestant, workload: Workload, folder: Path, trl_python: str) -> Run:
    """Run a contestant and return its result; stops with its last lines where it fails."""
    python = trl_python if contestant.in_trl_112 else sys.executable
    began = perf_counter()
    words = [*to_arguments(workload, folder), *contestant.flags]
    output = run_module(python, contestant.module, words, contestant.environment)
    result: Run = json.loads(output.splitlines()[-1])
    facts = {"contestant": contestant.name, "workload": asdict(workload), "process_seconds": perf_counter() - began}
    return {**facts, **result}


def run_module(python: str, module: str, words: list[str], environment: Mapping[str, str]) -> str:
    """Run a module and return what it printed, without malloc settings that the caller may have."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [python, "-m", module, *words],
        cwd=ROOT,
        env={**inherited, **QUIET, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-12:])
        raise SystemExit(f"error: {python} -m {module} ended with status {done.returncode}:\n{last}")
    return done.stdout
