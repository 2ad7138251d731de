"""Held-out splits by prompt, never by row or pair.

Left out: near-duplicates and long shared prefixes that are not whole opening messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Text

R = TypeVar("R", Demonstration, Ranking, Prompt, Document)


def by_prompt(records: Sequence[R], fraction: float, seed: int) -> tuple[list[R], list[R]]:
    """Split records into (train, held out), both in their order; nothing that opens alike is on both sides.

    Prompts are sorted by the hash of (seed, opening), and the first `fraction` of them, at least one, is held out: the
    choice depends on neither order nor path nor process. A fraction of 0 holds nothing out. Raises DataError where
    there is but one prompt, ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected 0 <= fraction < 1")
    if fraction == 0:
        return list(records), []
    openings = [opening(record) for record in records]
    ordered = sorted(set(openings), key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
    if len(ordered) < 2:
        raise DataError(f"{len(ordered)} different prompt in {len(records)} rows; holding some out needs at least two")
    held = set(ordered[: min(max(1, round(fraction * len(ordered))), len(ordered) - 1)])
    train = [record for record, text in zip(records, openings, strict=True) if text not in held]
    return train, [record for record, text in zip(records, openings, strict=True) if text in held]


def opening(record: Demonstration | Ranking | Prompt | Document) -> str:
    """Give what decides a record's side: the plain prompt or the text, or of messages the first that the user wrote.

    So the turns of one conversation, whose later prompts contain the earlier answers, stay together.
    """
    text: Text = record.text if isinstance(record, Document) else record.prompt
    if isinstance(text, str):
        return text
    return next((message["content"] for message in text if message["role"] == "user"), text[0]["content"])
