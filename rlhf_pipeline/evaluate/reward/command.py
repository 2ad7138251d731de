"""`rlhf evaluate reward`: measure reward models on rankings, beside labellers and simple baselines.

In: reward models, and sets of rankings that they were not trained on. Out, in runs/<run>: evaluation-reward.json, .md
and .png; the same inputs are answered from there. docs/reward-evaluation.md says what every figure means. All reward
models are in memory at once. Left out: rewards that are Python functions, and probes of the miniature world
(`rlhf eval`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import with_ancestors
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.derived import is_answered, write_derived
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.evaluate.report import print_sections
from rlhf_pipeline.evaluate.reward.report import PLOT, markdown, sections
from rlhf_pipeline.records import Ranking

if TYPE_CHECKING:
    from rlhf_pipeline.evaluate.reward.comparisons import Comparisons

VERSION = 2
"""Of what is measured and how it is written; part of the input key."""
OUTPUT = "evaluation-reward.json"


@dataclass(frozen=True)
class RewardEvaluationSettings:
    """What `rlhf evaluate reward` takes."""

    run: str = field(default="default", metadata={"help": "name of the run"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    force: bool = field(default=False, metadata={"help": "evaluate even if the same inputs were answered before"})
    reward: list[str] = field(
        default_factory=lambda: ["reward"],
        metadata={"help": "reward models: roles of the run, artifact ids, folders, hub ids"},
    )
    data: list[str] = field(
        default_factory=list, metadata={"help": "sets of rankings, side by side: files, folders of `datasets`, hub ids"}
    )
    train: list[str] = field(
        default_factory=list,
        metadata={"help": "rankings to fit the baselines on; without any they are cross-fitted by prompt"},
    )
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})
    on_bad_row: Literal["error", "skip"] = field(default="error", metadata={"help": "rows that cannot be read"})
    on_long_row: Literal["error", "skip"] = field(
        default="error", metadata={"help": "rankings with a completion too long for one of the reward models"}
    )
    batch_size: int = field(default=64, metadata={"help": "completions scored at once"})

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1, not {self.batch_size}")
        if not self.data:
            raise ConfigError("no rankings; pass held-out ones with `--data <file, folder or hub id>`")
        for name in ("reward", "data"):
            named = getattr(self, name)
            if len(set(named)) != len(named) or not named:
                raise ConfigError(f"`{name}` must name different ones, not {' '.join(named) or 'none'}")


def main(argv: list[str]) -> int:
    """Run `rlhf evaluate reward`; return the exit status."""
    summary = (__doc__ or "").split("\n\n")[0]
    settings = command_settings(argv, "rlhf evaluate reward", summary, RewardEvaluationSettings)
    if settings is not None:
        run(settings)
    return 0


def run(settings: RewardEvaluationSettings) -> Path:
    """Measure as asked, unless the report that is there was made from the same inputs; print it, return its path."""
    store = Store(settings.artifacts)
    rewards = {name: find_checkpoint(store, name, settings.run) for name in settings.reward}
    data = _read(settings, settings.data)
    train = _read(settings, settings.train)
    inputs = _inputs(settings, rewards, data, train)
    output = store.root / "runs" / settings.run / OUTPUT
    if not settings.force and is_answered(output, inputs):
        print_sections(sections(json.loads(output.read_text(encoding="utf-8"))))
        print(f"evaluate reward: already answered by {output} (the same inputs; --force evaluates again)")
        return output
    began = time.monotonic()
    with store.lock(settings.run, "evaluate-reward") as lock:
        lock.reads([one.parent for one in rewards.values() if store.has(one.parent)])
        measured = _measure(store, settings, rewards, data, train)
    report = {
        "run": settings.run,
        "ids": {name: checkpoint.parent for name, checkpoint in rewards.items()},
        "train": list(train) or None,
        "seconds": round(time.monotonic() - began, 1),
        "data": measured,
    }
    _write(output, report, inputs)
    print_sections(sections(report))
    print(f"evaluate reward: {report['seconds']:.0f} s -> {output}, and beside it {Path(OUTPUT).stem}.md and {PLOT}")
    return output


def _read(settings: RewardEvaluationSettings, sources: Sequence[str]) -> dict[str, Rows[Ranking]]:
    """Read sets of rankings, named by their files where that tells them apart."""
    names = [Path(source).name for source in sources]
    return {
        source if names.count(name) > 1 else name: read(
            source, Ranking, on_bad_row=settings.on_bad_row, data_format=settings.data_format
        )
        for name, source in zip(names, sources, strict=True)
    }


def _inputs(
    settings: RewardEvaluationSettings,
    rewards: Mapping[str, Checkpoint],
    data: Mapping[str, Rows[Ranking]],
    train: Mapping[str, Rows[Ranking]],
) -> dict[str, Any]:
    return {
        "command": "evaluate reward",
        "version": VERSION,
        "rewards": {name: checkpoint.parent for name, checkpoint in rewards.items()},
        "data": {name: [rows.fingerprint, len(rows.bad)] for name, rows in data.items()},
        "train": {name: rows.fingerprint for name, rows in train.items()},
        "on_long_row": settings.on_long_row,
    }


def _measure(
    store: Store,
    settings: RewardEvaluationSettings,
    rewards: Mapping[str, Checkpoint],
    data: Mapping[str, Rows[Ranking]],
    train: Mapping[str, Rows[Ranking]],
) -> dict[str, Any]:
    """Measure every reward model on every data set: both are in the order asked for."""
    from rlhf_pipeline.evaluate.reward.comparisons import compare
    from rlhf_pipeline.evaluate.reward.measure import baselines, describe, measure
    from rlhf_pipeline.evaluate.reward.scored import load, probe_eos, score_all, too_long

    models = {name: load(store, checkpoint, settings.batch_size) for name, checkpoint in rewards.items()}
    fitted_on = compare(one for rows in train.values() for one in rows.records) if train else None
    found: dict[str, Any] = {}
    for name, rows in data.items():
        long = too_long(list(models.values()), rows.records, rows.places, settings.on_long_row)
        kept = [number for number in range(len(rows.records)) if number not in long]
        pairs = compare(rows.records[number] for number in kept)
        _need_pairs(name, pairs, len(long))
        places = [rows.places[number] for number in kept]
        scores = {reward: score_all(model, pairs, places) for reward, model in models.items()}
        eos = {reward: probe_eos(model, pairs, places) for reward, model in models.items()}
        results = baselines(pairs, fitted_on)
        found[name] = {
            "skipped_bad": len(rows.bad),
            "skipped_long": len(long),
            **describe(pairs, fitted_on, results),
            "rewards": {
                reward: {
                    "trained_on_it": _trained_on(store, rewards[reward], rows),
                    **measure(pairs, scores[reward], model.normalization.scale, results),
                    "eos": eos[reward],
                }
                for reward, model in models.items()
            },
        }
    return found


def _trained_on(store: Store, checkpoint: Checkpoint, rows: Rows[Ranking]) -> bool:
    """Say whether a model, a member or what it was made from records these rankings; parts of them go unnoticed."""
    return any(
        rows.fingerprint in store.manifest(name).data.values() for name in with_ancestors(store, [checkpoint.parent])
    )


def _need_pairs(name: str, pairs: Comparisons, skipped: int) -> None:
    if not pairs.rankings:
        raise DataError(f"{name}: all {skipped} rankings are longer than a reward model takes; pass shorter ones")
    if not len(pairs.better):
        raise DataError(
            f"{name}: no ranking prefers one completion to another ({len(pairs.ties)} ties); pass rankings whose ranks "
            "do not all tie"
        )


def _write(output: Path, report: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write page and plot first: once the JSON is there, so are they."""
    from rlhf_pipeline.evaluate.reward.plot import draw

    with storage_errors(f"{output.parent}: cannot write"):
        output.parent.mkdir(parents=True, exist_ok=True)
        (output.parent / PLOT).write_bytes(draw(report))
        output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    write_derived(output, json.dumps(report, indent=1, ensure_ascii=False) + "\n", inputs)
