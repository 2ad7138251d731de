"""Over-optimisation: the reward model's score and the judge's against KL, along the PPO of several runs.

In: the metrics.jsonl that PPO leaves, with the judge among its reward functions at weight 0. Out, in the last run's
folder: frontier.json and frontier.png. Left out: fitting the curves of Gao et al. 2022.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.derived import file_hash, is_answered, write_derived
from rlhf_pipeline.errors import ArtifactError

PROXY, KL, JUDGE = "ppo/score", "ppo/kl_nats", "rewards/judge/mean"
WINDOW = 3
"""Rollouts that a reported first, peak and last value is the mean of: one rollout alone is noise."""


def write_frontier(store: Store, runs: Sequence[str], *, force: bool = False) -> str:
    """Write frontier.json and frontier.png for these runs, and return what to tell the user."""
    logs = {run: _metrics_file(store, run) for run in runs}
    inputs = {"command": "frontier", "logs": {run: file_hash(log) for run, log in logs.items()}}
    output = store.root / "runs" / runs[-1] / "frontier.json"
    if not force and is_answered(output, inputs):
        return f"{describe(json.loads(output.read_text(encoding='utf-8')))}\neval: already answered by {output}"
    frontier = {"runs": {run: {**_settings(store, run), **curve(read_points(log))} for run, log in logs.items()}}
    from rlhf_pipeline.evaluate.plots import draw_frontier

    with storage_errors(f"{output.parent}: cannot write"):
        output.with_suffix(".png").write_bytes(draw_frontier(frontier))
    write_derived(output, json.dumps(frontier, indent=1) + "\n", inputs)
    return f"{describe(frontier)}\neval: -> {output} and {output.with_suffix('.png').name}"


def read_points(log: Path) -> list[dict[str, float | None]]:
    """One point a rollout: step, KL in nats, the reward model's score, the judge's of 100 (None where not logged)."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        {
            "step": row["step"],
            "kl_nats": row[KL],
            "reward": row[PROXY],
            "judge": 100 * row[JUDGE] if JUDGE in row else None,
        }
        for row in rows
        if KL in row and PROXY in row
    ]


def curve(points: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """The points with first, peak and last of proxy and judge, each the mean of `WINDOW` rollouts."""
    return {"points": list(points), "reward": _summary(points, "reward"), "judge": _summary(points, "judge")}


def describe(frontier: Mapping[str, Any]) -> str:
    """One line a run: what the proxy did, and what was true."""
    lines = []
    for run, found in frontier["runs"].items():
        reward, judge = found["reward"], found["judge"]
        kl = found["points"][-1]["kl_nats"]
        truth = f"judge {judge['first']:.1f} -> {judge['last']:.1f} (peak {judge['peak']:.1f})" if judge else "no judge"
        coefficient = "" if found["kl_coef"] is None else f" (kl_coef {found['kl_coef']:g})"
        lines.append(f"{run}{coefficient}: reward {reward['first']:.2f} -> {reward['last']:.2f}, {truth}, KL {kl:.2f}")
    return "\n".join(lines)


def _summary(points: Sequence[Mapping[str, float | None]], name: str) -> dict[str, float] | None:
    values = [value for point in points if (value := point[name]) is not None]
    if not values:
        return None
    size = min(WINDOW, len(values))
    means = [fmean(values[start : start + size]) for start in range(len(values) - size + 1)]
    return {"first": round(means[0], 4), "peak": round(max(means), 4), "last": round(means[-1], 4)}


def _metrics_file(store: Store, run: str) -> Path:
    policy = store.ref(run, "policy")
    if policy is None:
        raise ArtifactError(f"run `{run}` has no policy, so there is no PPO to draw; type `rlhf ppo --run {run}`")
    log = store.root / "runs" / run / "ppo" / store.manifest(policy).input_key[:12] / "metrics.jsonl"
    if not log.is_file() or not read_points(log):
        raise ArtifactError(
            f"{log}: no rollouts logged there; train {policy} again with `rlhf ppo --run {run} --force`"
        )
    return log


def _settings(store: Store, run: str) -> dict[str, Any]:
    policy = store.ref(run, "policy") or ""
    return {"policy": policy, "kl_coef": store.manifest(policy).config.get("kl_coef")}
