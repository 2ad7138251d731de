"""`rlhf data split`: curation that divides rows and does nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.curation.command import run_and_report
from rlhf_pipeline.data.curation.settings import SplitSettings, only_split
from rlhf_pipeline.errors import ConfigError

SUMMARY = "Divide rows by user, prompt or conversation into train.jsonl and eval.jsonl, which share nothing."


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    settings = command_settings(argv, "rlhf data split SOURCE", SUMMARY, SplitSettings, first="source")
    if settings is None:
        return 0
    if settings.split_by is None:
        raise ConfigError("`split_by` is missing; type --split_by user, prompt or conversation")
    return run_and_report(only_split(settings))
