"""`rlhf data audit`: prove that evaluation shares nothing with any training set, or say what it shares.

Exit status 0: nothing is shared; 1: something is, or with `--on_unknown error` cannot be told. Left out: what the
stages hold out for themselves, which `data.splits.by_prompt` keeps apart by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from rlhf_pipeline.artifacts.storage import write_atomic
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.curation.overlap import Check, DataSet, Overlap, OverlapIndex
from rlhf_pipeline.data.curation.report import aligned
from rlhf_pipeline.data.curation.run_data import check_run
from rlhf_pipeline.errors import ConfigError

SUMMARY = (
    "Compare evaluation sets with training sets, and training sets with each other. Exit status 1 where evaluation "
    "shares a prompt, near-duplicate, conversation or user with training."
)
SHARED = 1
CHECKS: tuple[Check, ...] = ("prompt", "near_duplicate", "conversation", "user")


@dataclass(frozen=True)
class AuditSettings:
    """What `rlhf data audit` can be asked for."""

    train: list[str] = field(
        default_factory=list, metadata={"help": "training sets: files, folders or hub ids; required"}
    )
    eval: list[str] = field(default_factory=list, metadata={"help": "evaluation sets; required"})
    run: str | None = field(
        default=None, metadata={"help": "refuse unless --train names all data the models of this run were trained on"}
    )
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store, for --run"})
    check: list[Check] = field(
        default_factory=lambda: list(CHECKS), metadata={"help": "what evaluation may not share with training"}
    )
    near_duplicates: float = field(default=0.8, metadata={"help": "similarity from which prompts are near-duplicates"})
    on_overlap: Literal["report", "error"] = field(
        default="report", metadata={"help": "whether training sets that share something fail the audit, too"}
    )
    on_unknown: Literal["report", "error"] = field(
        default="report",
        metadata={"help": "whether rows that do not say (no user), or cannot be read, fail the audit, too"},
    )
    json: str | None = field(default=None, metadata={"help": "file to write everything to"})

    def __post_init__(self) -> None:
        """Refuse an audit without two sides, and a similarity out of range."""
        for name in ("train", "eval"):
            if not getattr(self, name):
                raise ConfigError(f"`{name}` is missing; type `rlhf data audit --train <rows> ... --eval <rows> ...`")
        if not 0.3 <= self.near_duplicates <= 1:
            raise ConfigError(f"`near_duplicates` must be between 0.3 and 1, not {self.near_duplicates}")
        if not self.check:
            raise ConfigError(f"`check` is empty; name some of {', '.join(CHECKS)}")


@dataclass(frozen=True)
class Audit:
    """All that was compared: `evaluation` against training sets, `training` sets among each other."""

    sets: list[DataSet]
    evaluation: list[Overlap]
    training: list[Overlap]

    def failed(self, settings: AuditSettings) -> bool:
        """Say whether something is shared, or unknown, that may not be."""
        bad = {"shared", "unknown"} if settings.on_unknown == "error" else {"shared"}
        counted = [*self.evaluation, *(self.training if settings.on_overlap == "error" else [])]
        return any(overlap.verdict in bad for overlap in counted)


def main(argv: Sequence[str]) -> int:
    """Run the command; return 1 where something is shared."""
    settings = command_settings(argv, "rlhf data audit", SUMMARY, AuditSettings)
    if settings is None:
        return 0
    if settings.run is not None:
        print(check_run(settings.artifacts, settings.run, settings.train))
    found = audit(settings)
    print("\n".join(_lines(found, settings)))
    if settings.json:
        write_atomic(Path(settings.json), json.dumps(_as_json(found, settings), indent=1, ensure_ascii=False) + "\n")
    return SHARED if found.failed(settings) else 0


def audit(settings: AuditSettings) -> Audit:
    """Read every source once and compare each evaluation set with each training set, and training sets in pairs."""
    with (
        TemporaryDirectory(prefix="rlhf-audit-") as scratch,
        closing(OverlapIndex(settings.near_duplicates, Path(scratch))) as index,
    ):
        train = [index.add(source) for source in settings.train]
        held = [index.add(source) for source in settings.eval]
        evaluation = [o for one in held for other in train for o in index.compare(one, other, settings.check)]
        training = [o for one, other in combinations(train, 2) for o in index.compare(one, other, settings.check)]
    return Audit([*train, *held], evaluation, training)


def _lines(found: Audit, settings: AuditSettings) -> list[str]:
    """Give the report for people."""
    lines = _table("evaluation", found.evaluation)
    if found.training:
        lines += ["", *_table("training", found.training), ""]
    lines += [
        f"{data.source}: {data.bad} rows cannot be read and were not compared; the first, {data.first_bad}"
        for data in found.sets
        if data.bad
    ]
    for overlap in (*found.evaluation, *found.training):
        lines += [f"{overlap.check}: {one} and {other}" for one, other in overlap.examples]
    return [*lines, _verdict(found, settings)]


def _table(name: str, overlaps: Sequence[Overlap]) -> list[str]:
    head = [name, "training", "share", "verdict", f"{name} rows", "training rows", "unknown"]
    return aligned([head, *map(_row, overlaps)], right=(4, 5, 6))


def _row(overlap: Overlap) -> list[str]:
    counts = (overlap.one_rows, overlap.other_rows, overlap.one_unknown + overlap.other_unknown)
    return [overlap.one, overlap.other, overlap.check, overlap.verdict, *map(str, counts)]


def _verdict(found: Audit, settings: AuditSettings) -> str:
    shared = sorted({overlap.check for overlap in found.evaluation if overlap.verdict == "shared"})
    unknown = sorted({overlap.check for overlap in found.evaluation if overlap.verdict == "unknown"})
    proven = [check for check in settings.check if check not in {*shared, *unknown}]
    parts = [
        f"evaluation shares no {', no '.join(proven)} with training" if proven else "",
        f"it shares {', '.join(shared)}" if shared else "",
        f"unknown: {', '.join(unknown)} (rows that do not say, or cannot be read, are not disjoint)" if unknown else "",
    ]
    return ("FAILED: " if found.failed(settings) else "passed: ") + "; ".join(filter(None, parts))


def _as_json(found: Audit, settings: AuditSettings) -> dict[str, object]:
    return {
        "passed": not found.failed(settings),
        "rows": {data.source: data.rows for data in found.sets},
        "rows_bad": {data.source: data.bad for data in found.sets},
        "evaluation": [overlap.to_dict() for overlap in found.evaluation],
        "training": [overlap.to_dict() for overlap in found.training],
    }
