"""`rlhf data curate`: choose the rows that are worth training on, and say what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rlhf_pipeline.config import help_text, read_settings, refuse_unknown, take
from rlhf_pipeline.data.curation.settings import CurateSettings, SplitSettings

CURATE = "Drop duplicates, personal data, contamination and what else is asked for; write what stays, and a report."

S = TypeVar("S", bound=SplitSettings)


def main(argv: Sequence[str]) -> int:
    """Run `rlhf data curate`; return the exit status."""
    settings = asked(argv, "curate", CURATE, CurateSettings)
    return 0 if settings is None else run_and_report(settings)


def asked(argv: Sequence[str], word: str, summary: str, cls: type[S]) -> S | None:
    """Read the settings of a word that takes a source first; print its help page and give None where that is asked."""
    if "--help" in argv or "-h" in argv:
        print(help_text(f"rlhf data {word} SOURCE", summary, cls), end="")
        return None
    words = ["--source", *argv] if argv and not argv[0].startswith("-") else argv
    settings = read_settings(words)
    refuse_unknown(settings, cls)
    return take(cls, settings)


def run_and_report(settings: CurateSettings) -> int:
    """Curate, print the report and where everything is; return the exit status."""
    from rlhf_pipeline.data.curation.curate import curate

    report = curate(settings)
    print(report.table())
    for name, count in report.written.items():
        print(f"{settings.output}/{name}: {count} rows")
    print(f"{settings.output}/report: curation.json, dropped.jsonl (every row that is not in the files above)")
    return 0
