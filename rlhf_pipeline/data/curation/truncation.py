"""Answers that stop in the middle: marked as unfinished, or long prose that ends without a mark that ends things.

A rule of thumb, not a parser: short answers ("Paris") need no full stop, so only those of `LONG` characters or more are
judged by how they end. A ranking is judged by its best answer; that worse ones are cut off is what it may teach.
"""

from __future__ import annotations

import unicodedata

from rlhf_pipeline.data.curation.text import best_answer
from rlhf_pipeline.records import Record

LONG = 200
_ENDS = frozenset(".!?…。！？।؟:;|>~*_`")
_CLOSING = ("Pe", "Pf", "So", "Sc", "Sm")
"""Closing brackets and quotation marks, emoji, currency and mathematical signs."""


def why_truncated(record: Record) -> str | None:
    """Say why the answer that is held up as an example looks cut off; None where it does not."""
    best = best_answer(record)
    if best is None:
        return None
    answer, finished = best
    if not finished:
        return "best answer is marked as unfinished"
    return "answer ends in the middle of a sentence" if len(answer) >= LONG and not _ends(answer) else None


def _ends(answer: str) -> bool:
    last_line = answer.rstrip().rsplit("\n", 1)[-1].strip()
    last = last_line[-1:]
    in_list = last_line[:1] in "-*+•|#" or last_line[:1].isdigit()
    return in_list or last in _ENDS or last in "\"'" or last.isdigit() or unicodedata.category(last) in _CLOSING
