"""Held-out splits by prompt, user or conversation, never by row or pair; a row's side never changes as others come.

A key's place in [0, 1) is its hash with the seed; what lies below the fraction is held out. So the share that is held
out is the fraction give or take sqrt(fraction (1 - fraction) / keys), and more rows move none of the old ones: unless
they tie openings together that nothing tied before, by naming one conversation.
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
    """Split records into (train, held out), both in their order; no opening and no conversation is on both sides.

    Keys whose `position` is below `fraction` are held out: the choice depends on neither order nor path nor process,
    nor on the other rows, save that each side gets the key nearest to it where it had none. A fraction of 0 holds
    nothing out. Raises DataError where all rows have one key, ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected 0 <= fraction < 1")
    if fraction == 0:
        return list(records), []
    keys = split_keys(records)
    places = {key: position(key, seed) for key in keys}
    if len(places) < 2:
        what = "conversation" if any(record.conversation for record in records) else "different prompt"
        raise DataError(f"{len(places)} {what} in {len(records)} rows; holding some out needs at least two")
    ordered = sorted(places, key=lambda key: (places[key], key))
    below = sum(place < fraction for place in places.values())
    held = set(ordered[: min(max(1, below), len(ordered) - 1)])
    train = [record for record, key in zip(records, keys, strict=True) if key not in held]
    return train, [record for record, key in zip(records, keys, strict=True) if key in held]


def split_keys(records: Sequence[R]) -> list[str]:
    """Give what decides each record's side: its opening, or where a conversation opens in several ways, its id.

    Conversations that open alike, and rows that open like one, go together: the key is then the id that sorts first.
    """
    openings = [opening(record) for record in records]
    rows = list(zip(records, openings, strict=True))
    ways: dict[str, set[str]] = {}
    for record, text in rows:
        if record.conversation is not None:
            ways.setdefault(record.conversation, set()).add(text)
    group: dict[str, str] = {}  # of an opening or a conversation: another one of its group, up to the one that names it

    def root(name: str) -> str:
        while (up := group.setdefault(name, name)) != name:
            group[name] = group[up]  # halve the way, for those who come after
            name = up
        return name

    for record, text in rows:
        if record.conversation is not None and len(ways[record.conversation]) > 1:
            name, of_text = root(f"conversation {record.conversation}"), root(f"opening {text}")
            group[max(name, of_text)] = min(name, of_text)  # "conversation ..." sorts before "opening ..."
    return [name if (name := root(f"opening {text}")) != f"opening {text}" else text for text in openings]


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
