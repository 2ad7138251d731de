"""Time and memory of `rlhf data` inspect, curate, split and audit on synthetic rows, and how both grow with the rows.

Each measurement is the command itself in a fresh process, so that the peak is its own. Rows are English-like prompts
of about 30 words with a Zipf-like vocabulary; 5 % repeat another, 5 % change a word of another, 2 % hold an e-mail
address, users are 1 to 5000 by a power law. Left out: multi-turn conversations.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.provenance import describe_machine, describe_moment
from benchmarks.scaling import exponent

RESULTS = Path("benchmarks/results")
SIZES = (100_000, 1_000_000)
EVERYTHING = ("--near_duplicates", "0.8", "--drop_truncated", "--split_by", "user", "--eval_fraction", "0.05")
MEASURED = """
import sys
from rlhf_pipeline.cli import main
status = main(sys.argv[1:])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], file=sys.stderr)
sys.exit(status)
"""
"""The command, which then tells its peak in KiB (Linux): what `wait4` gives is never below the peak of the parent."""
COMMANDS = {
    "inspect": ("inspect", "{rows}", "--kind", "demonstrations"),
    "curate": (
        "curate",
        "{rows}",
        "--kind",
        "demonstration",
        "--output",
        "{out}",
        "--evaluation",
        "{exam}",
        *EVERYTHING,
    ),
    "split": ("split", "{rows}", "--kind", "demonstration", "--output", "{out}-split", *EVERYTHING[3:]),
    "audit": ("audit", "--train", "{out}-split#train", "--eval", "{out}-split#eval"),
}


def main(argv: Sequence[str]) -> None:
    """Measure, print a table and write `data_scale.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--commands", choices=COMMANDS, nargs="+", default=list(COMMANDS), help="audit needs split")
    chosen = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    for size in chosen.sizes:
        with TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows.jsonl", size)
            write_rows(Path(folder) / "exam.jsonl", 2000, seed=1)
            for name in chosen.commands:
                found.append({"rows": size, "command": name, **measured(name, Path(folder))})
                print(line(found[-1]), flush=True)
    growth = {name: grown([one for one in found if one["command"] == name]) for name in chosen.commands}
    print(json.dumps(growth, indent=1))
    whole = {"machine": describe_machine(), **describe_moment(), "measured": found, "exponents": growth}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "data_scale.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run one command in a process of its own; give seconds and peak resident memory in MiB."""
    places = {"rows": folder / "rows.jsonl", "exam": folder / "exam.jsonl", "out": folder / "out"}
    words = [word.format(**places) for word in COMMANDS[name]]
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", MEASURED, "data", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"rlhf data {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    peak = int(done.stderr.split()[-1]) // 1024
    return {"seconds": round(time.monotonic() - began, 1), "peak_mib": peak, "output": done.stdout}


def line(one: dict[str, Any]) -> str:
    """Give one line of the table."""
    rate = one["rows"] / one["seconds"]
    return (
        f"{one['command']:<7}{one['rows']:>9} rows{one['seconds']:>8.1f} s{rate:>8.0f} rows/s{one['peak_mib']:>6} MiB"
    )


def grown(runs: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Give the exponents with which seconds and memory grow with rows; None of one size."""
    if len(runs) < 2:
        return None
    rows = [run["rows"] for run in runs]
    return {name: round(exponent(rows, [run[name] for run in runs]), 2) for name in ("seconds", "peak_mib")}


def write_rows(path: Path, count: int, seed: int = 0) -> None:
    """Write `count` demonstrations, one at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count, random.Random(seed)))


def rows(count: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """Generate demonstrations; copies are made of the 1000 rows before."""
    letters = "etaoinshrdlu"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    cumulative = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)
    recent: list[list[str]] = []
    for number in range(count):
        said = rng.choices(words, cum_weights=cumulative, k=rng.randint(10, 50))
        kind = rng.random()
        if kind < 0.10 and recent:
            said = list(rng.choice(recent))
            if kind < 0.05:
                said[rng.randrange(len(said))] = rng.choice(words)
        recent[number % 1000 : number % 1000 + 1] = [said]
        mail = f" mail {said[0]}{number}@{said[1]}.io" if rng.random() < 0.02 else ""
        answer = " ".join(rng.choices(words, cum_weights=cumulative, k=40))
        user = str(int(5000 ** rng.random()))
        yield {"prompt": " ".join(said) + mail, "completion": f"{answer}.", "user": user}


if __name__ == "__main__":
    main(sys.argv[1:])
