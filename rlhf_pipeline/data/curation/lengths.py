"""Rows whose prompt or answers are too short or too long, in characters or in a tokenizer's tokens.

Left out: cutting what is too long; the stages' `on_long_row truncate` does that where the model's limit is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_pipeline.data.curation.text import answers, best_answer, prompt_text
from rlhf_pipeline.errors import ModelError, first_line
from rlhf_pipeline.records import Record


@dataclass(frozen=True)
class LengthLimits:
    """Limits, both ends allowed; None is no limit. `min_answer` looks at the best answer, the others at every one."""

    max_prompt: int | None = None
    min_answer: int | None = None
    max_answer: int | None = None
    max_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None

    def why_not(self, record: Record) -> str | None:
        """Say which limit the record breaks; None where it keeps all. Tokens: prompt and longest answer together."""
        prompt, given, best = prompt_text(record), answers(record), best_answer(record)
        if self.max_prompt is not None and len(prompt) > self.max_prompt:
            return "prompt too long (characters)"
        if self.min_answer is not None and best is not None and len(best[0].strip()) < self.min_answer:
            return "answer too short (characters)"
        if self.max_answer is not None and any(len(answer) > self.max_answer for answer in given):
            return "answer too long (characters)"
        if self.max_tokens is not None and self.count_tokens is not None:
            longest = max(map(self.count_tokens, given), default=0)
            if self.count_tokens(prompt) + longest > self.max_tokens:
                return "too long (tokens)"
        return None


def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Load the tokenizer of a folder or hub id and give a function that counts tokens, without special ones.

    Raises ModelError where there is none.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"--tokenizer {tokenizer}: no tokenizer there ({first_line(error)}); name its folder"
        ) from None
    return lambda text: len(loaded(text, add_special_tokens=False, verbose=False)["input_ids"])
