"""`rlhf data <word>`: one table of words, each loaded only when it is called."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import NamedTuple

from rlhf_pipeline.errors import ConfigError


class Word(NamedTuple):
    """The module, the function in it that runs `(argv) -> int`, and one line for the help page."""

    module: str
    function: str
    summary: str


WORDS = {
    "curate": Word(
        "rlhf_pipeline.data.curation.command", "main", "drop duplicates, personal data and what else is bad"
    ),
    "split": Word("rlhf_pipeline.data.curation.command", "split", "divide by user, prompt or conversation"),
    "audit": Word("rlhf_pipeline.data.curation.audit_command", "main", "prove that evaluation shares nothing"),
}


def main(argv: Sequence[str]) -> int:
    """Run one word and return its exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(
            "\n".join(["usage: rlhf data <word> ...", "", *(f"  {w:<9} {word.summary}" for w, word in WORDS.items())])
        )
        return 0
    if argv[0] not in WORDS:
        near = difflib.get_close_matches(argv[0], WORDS, n=1)
        hint = f"did you mean `rlhf data {near[0]}`?" if near else f"expected one of {', '.join(WORDS)}"
        raise ConfigError(f"`{argv[0]}` is nothing that `rlhf data` does; {hint}")
    word = WORDS[argv[0]]
    return int(getattr(importlib.import_module(word.module), word.function)(argv[1:]))
