"""`rlhf data <what>`: look at data before anything is trained on it. One table, each loaded only when it is called."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import NamedTuple

from rlhf_pipeline.errors import ConfigError


class SubCommand(NamedTuple):
    """The module whose `main(argv) -> int` runs, and one line for the help page."""

    module: str
    summary: str


COMMANDS = {
    "inspect": SubCommand("rlhf_pipeline.data.inspection", "count, measure and show what a data set holds"),
    "curate": SubCommand(
        "rlhf_pipeline.data.curation.command", "drop duplicates, personal data, contamination and more"
    ),
    "split": SubCommand("rlhf_pipeline.data.curation.split_command", "hold rows out by user, prompt or conversation"),
    "audit": SubCommand(
        "rlhf_pipeline.data.curation.audit_command", "prove that evaluation shares nothing with training"
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run one of `COMMANDS` and return its exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_page(), end="")
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean `rlhf data {near[0]}`?" if near else "`rlhf data --help` lists them"
        raise ConfigError(f"rlhf data: `{argv[0]}` is not a command; {hint}")
    return int(importlib.import_module(COMMANDS[argv[0]].module).main(list(argv[1:])))


def help_page() -> str:
    """Return what `rlhf data --help` prints."""
    lines = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: rlhf data <command> SOURCE [--name value ...]", "", *lines, ""])
