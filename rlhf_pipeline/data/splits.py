"""Held-out splits by prompt, user or conversation, never by row or pair; a row's side never changes as others come.

A key's place in [0, 1) is its hash with the seed; what lies below the fraction is held out. So the share that is held
out is the fraction give or take sqrt(fraction (1 - fraction) / keys), and more rows move none of the old ones.
Left out: near-duplicates and long shared prefixes that are not whole opening messages (`curation`).
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

    Openings whose `position` is below `fraction` are held out: the choice depends on neither order nor path nor
    process, nor on the other rows, save that each side gets the opening nearest to it where it had none. A fraction of
    0 holds nothing out. Raises DataError where there is but one prompt, ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected 0 <= fraction < 1")
    if fraction == 0:
        return list(records), []
    openings = [opening(record) for record in records]
    places = {text: position(text, seed) for text in openings}
    if len(places) < 2:
        raise DataError(f"{len(places)} different prompt in {len(records)} rows; holding some out needs at least two")
    ordered = sorted(places, key=lambda text: (places[text], text))
    below = sum(place < fraction for place in places.values())
    held = set(ordered[: min(max(1, below), len(ordered) - 1)])
    train = [record for record, text in zip(records, openings, strict=True) if text not in held]
    return train, [record for record, text in zip(records, openings, strict=True) if text in held]


def position(key: str, seed: int) -> float:
    """Place a key in [0, 1), the same in every process and among any others."""
    return (int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8]) >> 11) / 2**53


def opening(record: Demonstration | Ranking | Prompt | Document) -> str:
    """Give what decides a record's side: the plain prompt or the text, or of messages the first that the user wrote.

    So the turns of one conversation, whose later prompts contain the earlier answers, stay together.
    """
    text: Text = record.text if isinstance(record, Document) else record.prompt
    if isinstance(text, str):
        return text
    return next((message["content"] for message in text if message["role"] == "user"), text[0]["content"])
