"""A word-level tokenizer for the miniature world, exact in both directions.

A token is a word with the space before it, a punctuation mark or a line break, so that decoding is joining, and a
prompt and its completion can be encoded apart or together. Words never seen become <unk>. Left out: subwords.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SPECIAL: Final = ("<pad>", "<bos>", "<eos>", "<unk>")
PATTERN: Final = r" ?\w+|\n|[^\w\s]"


def words(texts: Iterable[str]) -> list[str]:
    """Return every token of `texts`, each once, sorted."""
    pattern = re.compile(PATTERN)
    return sorted({token for text in texts for token in pattern.findall(text)})


def save(vocabulary: Iterable[str], folder: Path) -> None:
    """Write a transformers tokenizer over `vocabulary` to `folder`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    index = {token: number for number, token in enumerate([*SPECIAL, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(index, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        clean_up_tokenization_spaces=False, padding_side="left",
    ).save_pretrained(folder)  # fmt: skip
