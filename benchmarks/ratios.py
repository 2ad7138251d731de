"""From raw runs to ratios with their spread, and to the seconds of every phase.

A ratio's samples are its measured updates, paired: the same update of the same repeat on both sides. The first update
of every run is warm-up and dropped. Left out: intervals; a handful of runs on one machine supports none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.contestants import Run

WARM_UP = 1
PHASES = ("generate", "score", "optimise")
EQUAL = 0.01
"""How far mean lengths may lie apart, as a share, before work no longer counts as equal."""


@dataclass(frozen=True)
class Ratio:
    """Seconds of `theirs` over those of `ours`, for the sum of `figures` of an update, in one case."""

    case: str
    figures: tuple[str, ...] = ("seconds",)
    theirs: str = "trl"
    ours: str = "ours"

    @property
    def names(self) -> set[str]:
        """Both contestants."""
        return {self.theirs, self.ours}


ROLLOUT = ("generate", "score")
HEADLINE = {
    "end_to_end_full": Ratio("full"),
    "end_to_end_full_tuned": Ratio("full", theirs="trl_tuned"),
    "end_to_end_early": Ratio("early"),
    "end_to_end_early_tuned": Ratio("early", theirs="trl_tuned"),
    "rollout_early": Ratio("early", ROLLOUT),
}
FURTHER = {
    "rollout_early_tuned": Ratio("early", ROLLOUT, theirs="trl_tuned"),
    "rollout_full": Ratio("full", ROLLOUT),
    "generate_early": Ratio("early", ("generate",)),
    "generate_full": Ratio("full", ("generate",)),
    "optimise_early": Ratio("early", ("optimise",)),
    "optimise_full": Ratio("full", ("optimise",)),
    "optimise_full_lean": Ratio("full", ("optimise",), theirs="lean"),
    "end_to_end_full_split": Ratio("full", theirs="trl_split"),
    "end_to_end_early_split": Ratio("early", theirs="trl_split"),
    "end_to_end_full_float32": Ratio("full", ours="ours_float32"),
    "end_to_end_full_float32_tuned": Ratio("full", theirs="trl_tuned", ours="ours_float32"),
}
PEAKS = {"peak_memory": Ratio("full"), "peak_memory_split": Ratio("full", theirs="trl_split")}
"""Of these, ours over theirs: less than 1 is better."""


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Return `ratio` and `further` (medians), `spread` of both, and `contestants` (seconds by case and phase).

    Ratios of contestants that did not run are left out.
    """
    ran = {run["contestant"] for run in runs}
    samples = {name: ratio_samples(runs, one) for name, one in (HEADLINE | FURTHER).items() if one.names <= ran}
    samples |= {name: peak_samples(runs, one) for name, one in PEAKS.items() if one.names <= ran}
    spread = {name: spread_of(values) for name, values in samples.items()}
    medians = {name: found["median"] for name, found in spread.items()}
    headline = {*HEADLINE, "peak_memory"}
    return {
        "ratio": {name: value for name, value in medians.items() if name in headline},
        "further": {name: value for name, value in medians.items() if name not in headline},
        "spread": spread,
        "contestants": by_contestant(runs),
    }


def require_equal_work(runs: Iterable[Run]) -> None:
    """Raise ValueError where two updates of a case had completions of different mean length."""
    lengths: dict[str, list[float]] = {}
    for run in runs:
        found = [update["mean_tokens"] for update in run["updates"]]
        lengths.setdefault(run["workload"]["case"], []).extend(found)
    for case, found in lengths.items():
        if max(found) > min(found) * (1 + EQUAL):
            raise ValueError(f"{case}: completions of {min(found):.2f} to {max(found):.2f} tokens: no equal work")


def ratio_samples(runs: Sequence[Run], ratio: Ratio) -> list[float]:
    """One ratio for every measured update of every repeat."""
    theirs, ours = (_measured(runs, who, ratio.case) for who in (ratio.theirs, ratio.ours))
    return [_total(one, ratio.figures) / _total(other, ratio.figures) for one, other in zip(theirs, ours, strict=True)]


def peak_samples(runs: Sequence[Run], ratio: Ratio) -> list[float]:
    """Our peak memory over theirs, one for every repeat."""
    ours, theirs = (_runs(runs, who, ratio.case) for who in (ratio.ours, ratio.theirs))
    return [one["peak_rss_mib"] / other["peak_rss_mib"] for one, other in zip(ours, theirs, strict=True)]


def spread_of(samples: Sequence[float]) -> dict[str, float]:
    """Smallest, middle and largest sample, and how many there are."""
    middle = {"min": min(samples), "median": median(samples), "max": max(samples)}
    return {**{name: round(value, 3) for name, value in middle.items()}, "samples": len(samples)}


def by_contestant(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over measured updates: contestant -> case -> seconds, phases, what is in no phase, tokens, peak MiB."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for who, case in dict.fromkeys((run["contestant"], run["workload"]["case"]) for run in runs):
        updates = _measured(runs, who, case)
        seconds = {name: median(update[name] for update in updates) for name in ("seconds", *PHASES, "mean_tokens")}
        other = median(update["seconds"] - _total(update, PHASES) for update in updates)
        peak = median(run["peak_rss_mib"] for run in _runs(runs, who, case))
        figures = {**seconds, "other": other, "peak_rss_mib": peak}
        found.setdefault(who, {})[case] = {name: round(value, 3) for name, value in figures.items()}
    return found


def _runs(runs: Iterable[Run], who: str, case: str) -> list[Run]:
    return [run for run in runs if run["contestant"] == who and run["workload"]["case"] == case]


def _measured(runs: Iterable[Run], who: str, case: str) -> list[dict[str, float]]:
    return [update for run in _runs(runs, who, case) for update in run["updates"][WARM_UP:]]


def _total(update: dict[str, float], figures: Iterable[str]) -> float:
    return sum(update[figure] for figure in figures)
