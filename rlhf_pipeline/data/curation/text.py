"""What the steps compare: the prompt and the answers of a record as plain strings, normalised, hashed.

Left out: translation, stemming, and anything else that would need a language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from rlhf_pipeline.records import (
    ORIGIN,
    Demonstration,
    Document,
    Prompt,
    Ranking,
    Record,
    Text,
    canonical,
    completion_text,
    completions_of,
)

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Tibetan, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Japanese syllables
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Letters of scripts that put no blanks between words."""
_WORD = re.compile(rf"[^\W{_UNSPACED}]+|(?=\w)[{_UNSPACED}]")


def prompt_text(record: Record) -> str:
    """Give the prompt: the string, or the contents of its messages without the system's; of a document, its text.

    A system message is the product's, not the person's, and would make all prompts begin alike.
    """
    if isinstance(record, Document):
        return record.text
    assert isinstance(record, Demonstration | Ranking | Prompt)
    if isinstance(record.prompt, str):
        return record.prompt
    spoken = [message["content"] for message in record.prompt if message["role"] != "system"]
    return "\n\n".join(spoken or [message["content"] for message in record.prompt])


def answers(record: Record) -> list[str]:
    """Give the answers as strings: the one of a demonstration, all of a ranking; a prompt and a document have none."""
    return [completion_text(one) for one in completions_of(record)]


def best_answer(record: Record) -> tuple[str, bool] | None:
    """Give the answer that is held up as an example, and whether it is known to have ended by itself."""
    if isinstance(record, Demonstration):
        return completion_text(record.completion), True
    if isinstance(record, Ranking):
        best = record.ranks.index(min(record.ranks))
        return completion_text(record.completions[best]), record.is_finished(best)
    return None


def normalised(text: str) -> str:
    """Fold case, width and white space, so that what a person reads as the same compares equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Give the words, case folded, without punctuation; where a script has no blanks, every letter is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def hash64(text: str) -> int:
    """Hash to 1 .. 2**64 - 1, the same in every process; 0 is left to say that there is nothing.

    Among a million texts two of them collide with probability 3e-8 (n**2 / 2**65).
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) or 1


def content_hash(record: Record) -> int:
    """Hash what a record teaches: all but who wrote it and where it comes from.

    Who ranked is part of it: that two people agree is what a ranking by the second one says.
    """
    said = {name: value for name, value in record.to_dict().items() if name not in ORIGIN}
    return hash64(f"{type(record).__name__} {canonical(said)}")


def rewritten(record: Record, rewrite: Callable[[str], str]) -> Record:
    """Give the record with `rewrite` applied to every text a model may see, and to the strings of a prompt's facts."""
    if isinstance(record, Document):
        return replace(record, text=rewrite(record.text))
    assert isinstance(record, Demonstration | Ranking | Prompt)
    prompt = _rewritten(record.prompt, rewrite)
    if isinstance(record, Demonstration):
        return replace(record, prompt=prompt, completion=_rewritten(record.completion, rewrite))
    if isinstance(record, Ranking):
        return replace(record, prompt=prompt, completions=[_rewritten(one, rewrite) for one in record.completions])
    return replace(record, prompt=prompt, facts=rewritten_value(record.facts, rewrite))


def _rewritten(text: Text, rewrite: Callable[[str], str]) -> Text:
    if isinstance(text, str):
        return rewrite(text)
    return [message | {"content": rewrite(message["content"])} for message in text]


def rewritten_value(value: Any, rewrite: Callable[[str], str]) -> Any:
    """Give a JSON value with `rewrite` applied to its strings; names of keys stay."""
    if isinstance(value, dict):
        return {name: rewritten_value(inner, rewrite) for name, inner in value.items()}
    if isinstance(value, list):
        return [rewritten_value(inner, rewrite) for inner in value]
    return rewrite(value) if isinstance(value, str) else value
