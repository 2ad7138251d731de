"""What people see while a benchmark runs: one line a finished run, and about how long the rest takes."""

from __future__ import annotations

import math

from benchmarks.contestants import Run
from benchmarks.ratios import PHASES, WARM_UP
from benchmarks.report import TITLES


class Progress:
    """Counts the runs of so many repeats, of which none is begun that would not fit into `minutes`.

    The rest is expected to take as long as the average run so far.
    """

    def __init__(self, runs: int, repeats: int = 1, minutes: float = math.inf) -> None:
        self.runs, self.planned, self.minutes = runs, runs * repeats, minutes
        self.seconds: list[float] = []

    def show(self, run: Run) -> None:
        """Print the line of a finished run."""
        self.seconds.append(run["process_seconds"])
        print(
            f"{len(self.seconds):3}/{self.planned}  {line(run)}  at most {self.minutes_left():.0f} min left", flush=True
        )

    def minutes_left(self) -> float:
        """The rest of this repeat, and the others as far as there is time for them."""
        done, spent = len(self.seconds), sum(self.seconds) / 60
        rest_of_repeat, rest = -done % self.runs, self.planned - done
        return max(rest_of_repeat * spent / done, min(rest * spent / done, self.minutes - spent))


def line(run: Run) -> str:
    """Say who ran, what, and what its measured updates took on average."""
    updates = run["updates"][WARM_UP:]
    means = {name: sum(update[name] for update in updates) / len(updates) for name in ("seconds", *PHASES)}
    phases = ", ".join(f"{phase} {means[phase]:.1f}" for phase in PHASES)
    work = run["workload"]
    what = f"{work['case']:<5} {work['prompts']} x {work['completion_tokens']}"
    return f"{TITLES[run['contestant']]:<22} {what}  {means['seconds']:6.1f} s an update ({phases})"
