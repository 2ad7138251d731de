"""`rlhf data curate`: choose the rows that are worth training on, and say what became of the others."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.curation.settings import CurateSettings

CURATE = "Drop duplicates, personal data, contamination and what else is asked for; write what stays, and a report."


def main(argv: Sequence[str]) -> int:
    """Run `rlhf data curate`; return the exit status."""
    settings = command_settings(argv, "rlhf data curate SOURCE", CURATE, CurateSettings, first="source")
    return 0 if settings is None else run_and_report(settings)


def run_and_report(settings: CurateSettings) -> int:
    """Curate, print the report and where everything is; return the exit status."""
    from rlhf_pipeline.data.curation.curate import curate

    report = curate(settings)
    print(report.table())
    for name, count in report.written.items():
        print(f"{settings.output}/{name}: {count} rows")
    print(f"{settings.output}/report: curation.json, dropped.jsonl (every row that is not in the files above)")
    return 0
