"""`rlhf data curate` and `rlhf data split`: choose the rows that are trained on, and those that are evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rlhf_pipeline.config import Setting, help_text, read_settings, refuse_unknown, take
from rlhf_pipeline.data.curation.settings import CurateSettings, SplitSettings, only_split
from rlhf_pipeline.errors import ConfigError

CURATE = "Drop duplicates, personal data, contamination and what else is asked for; write what stays, and a report."
SPLIT = "Divide rows by user, prompt or conversation into train.jsonl and eval.jsonl, which share nothing."

S = TypeVar("S", bound=SplitSettings)


def main(argv: Sequence[str]) -> int:
    """Run `rlhf data curate`; return the exit status."""
    settings = _asked(argv, "curate", CURATE, CurateSettings)
    return 0 if settings is None else _run(settings)


def split(argv: Sequence[str]) -> int:
    """Run `rlhf data split`; return the exit status."""
    settings = _asked(argv, "split", SPLIT, SplitSettings)
    if settings is None:
        return 0
    if settings.split_by is None:
        raise ConfigError("`split_by` is missing; type --split_by user, prompt or conversation")
    return _run(only_split(settings))


def with_first_word(argv: Sequence[str], name: str) -> list[str]:
    """Read a first word that is no flag as the setting `name`."""
    return [f"--{name}", *argv] if argv and not argv[0].startswith("-") else list(argv)


def _asked(argv: Sequence[str], word: str, summary: str, cls: type[S]) -> S | None:
    if "--help" in argv or "-h" in argv:
        print(help_text(f"rlhf data {word} SOURCE", summary, cls), end="")
        return None
    settings: dict[str, Setting] = read_settings(with_first_word(argv, "source"))
    refuse_unknown(settings, cls)
    return take(cls, settings)


def _run(settings: CurateSettings) -> int:
    from rlhf_pipeline.data.curation.curate import curate

    report = curate(settings)
    print(report.table())
    for name, count in report.written.items():
        print(f"{settings.output}/{name}: {count} rows")
    print(f"{settings.output}/report: curation.json, dropped.jsonl (every row that is not in the files above)")
    return 0
