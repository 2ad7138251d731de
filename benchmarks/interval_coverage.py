"""How often 95 % intervals of shares cover the truth, over few and many prompts: Wilson's, and those of a bootstrap.

Out: a table in Markdown on the terminal (`docs/reward-evaluation.md`). A prompt has a rate of its own, from the Beta
distribution with the true share as its mean and the correlation of two pairs of one prompt as asked; its pairs are
right at that rate. Left out: prompts of different sizes, ties.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.evaluate.statistics import Estimate, clustered_mean, clustered_share

Interval = Callable[[NDArray[np.float64], Sequence[int]], Estimate | None]

PROMPTS = (10, 20, 50, 200)
KINDS = ((1, 0.0), (6, 0.0), (6, 0.2), (6, 0.6))
"""Pairs of a prompt, and how correlated two of them are."""
SHARES = (0.6, 0.9, 0.95)
METHODS: dict[str, Interval] = {
    "bootstrap": partial(clustered_mean, draws=500),
    "Wilson": clustered_share,
}


def coverage(
    interval: Interval, prompts: int, pairs: int, correlation: float, share: float, runs: int
) -> tuple[float, float]:
    """Simulate: how often the interval covers `share`, and how often it has no width."""
    draw, spread = np.random.default_rng(7), 1 / correlation - 1 if correlation else 0.0
    rates = np.full((runs, prompts), share)
    if correlation:
        rates = draw.beta(share * spread, (1 - share) * spread, rates.shape)
    right = (draw.random((runs, prompts, pairs)) < rates[:, :, None]).reshape(runs, -1).astype(np.float64)
    labels = np.repeat(np.arange(prompts), pairs).tolist()
    found = [one for values in right if (one := interval(values, labels))]
    covered = sum(one.low <= share <= one.high for one in found)
    return covered / runs, sum(one.low == one.high for one in found) / runs


def table(runs: int) -> list[str]:
    """The rows of the table: each method's coverage in %, by prompts, with its intervals of no width in brackets."""
    header = (
        "| pairs a prompt | correlation | true share | method | " + " | ".join(f"{n} prompts" for n in PROMPTS) + " |"
    )
    rows = [header, "|---|---|---|---|" + "---:|" * len(PROMPTS)]
    for pairs, correlation in KINDS:
        for share in SHARES:
            for method, interval in METHODS.items():
                cells = [_cell(*coverage(interval, n, pairs, correlation, share, runs)) for n in PROMPTS]
                rows.append(f"| {pairs} | {correlation:g} | {share:g} | {method} | {' | '.join(cells)} |")
    return rows


def _cell(covered: float, no_width: float) -> str:
    return f"{100 * covered:.0f}" + (f" ({100 * no_width:.0f})" if no_width >= 0.005 else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interval_coverage", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=2000, help="simulated data sets of each kind")
    print("\n".join(table(parser.parse_args(argv).runs)))


if __name__ == "__main__":
    main()
