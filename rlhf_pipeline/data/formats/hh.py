"""Dialogues of HH-RLHF (Bai et al. 2022): `chosen` and `rejected` transcripts that share all but the last answer.

A transcript is turns that begin with a blank line and "Human:" or "Assistant:"; the blank line before the first may
have been stripped. Left out: pairs that part before the last answer (a handful in the published files); they are
reported as bad rows, as are empty answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt, Ranking, Record, check_pair, shown

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def matches(row: dict[str, Any]) -> bool:
    """Say whether the row holds two transcripts."""
    return all(_is_transcript(row.get(name)) for name in ("chosen", "rejected"))


def _is_transcript(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    return text.startswith("\n\nHuman:") or (text.lstrip().startswith("Human:") and "\n\nAssistant:" in text)


def convert(row: dict[str, Any], kind: type[Record], where: str) -> Iterator[Record]:
    """Give the row as a Ranking of two, or as a Prompt of what both share. Raises DataError."""
    chosen, rejected = (turns(row.get(name), where, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise DataError(f"{where}: `chosen` and `rejected` part before the last answer")
    prompt, answers = chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]]
    origin = {name: row.get(name) for name in ("user", "source", "id")}
    if kind is Prompt:
        yield Prompt.from_dict(origin | {"prompt": prompt}, where)
    else:
        check_pair(answers[0], answers[1], where)
        yield Ranking.from_dict(
            origin | {"labeler": row.get("labeler"), "prompt": prompt, "completions": answers, "ranks": [0, 1]}, where
        )


def turns(transcript: Any, where: str, name: str) -> list[dict[str, str]]:
    """Split a transcript into messages, the last one the assistant's. Raises DataError where it is none."""
    whole = f"\n\n{transcript.lstrip()}" if isinstance(transcript, str) else ""
    if not _TURN.match(whole):
        raise DataError(f"{where}: `{name}` is {shown(transcript)}; expected a transcript that begins with 'Human:'")
    parts = _TURN.split(whole)[1:]
    messages = [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    if messages[-1]["role"] != "assistant":
        raise DataError(f"{where}: `{name}` does not end with an answer of the assistant")
    return messages
