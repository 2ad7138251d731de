"""Tokenizers that have nothing in common but the text they read: bytes, BPE merges, whole words, SentencePiece's form.

Each has special tokens, an EOS and a chat template of its own; `rendered` is the template by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from tests.tiny import CHAT_TEMPLATE, llama_config, make_tokenizer

CORPUS = ["say something kind about the cat", "the dog sat on the mat and the cat ran", "hello there , how are you ?"]
BPE_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
WORD_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} {{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
PIECES_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
"""Like Llama 2's: the blank before an answer is the template's."""
POSITIONS = 512


def vocabulary(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of one kind: "bytes", "bpe", "words" or "pieces"."""
    return {"bytes": _bytes, "bpe": _bpe, "words": _words, "pieces": _pieces}[kind]()


def written(kind: str, tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """What ids say in the middle of a plain text; pieces have their blanks in them."""
    if kind != "pieces":
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    tokens = tokenizer.convert_ids_to_tokens([one for one in ids if one not in tokenizer.all_special_ids])
    return "".join(tokens).replace("▁", " ")


def rendered(kind: str, prompt: str, completion: str) -> str:
    """One question with its answer as the kind's template writes it, up to where the answer ends."""
    return {
        "bytes": f"<user>{prompt}<assistant>{completion}",
        "bpe": f"[user]{prompt}\n[assistant]{completion}",
        "words": f"user : {prompt}\nassistant : {completion}",
    }[kind]


def save_policy(folder: Path, kind: str, *, stops: list[int] | None = None) -> PreTrainedTokenizerFast:
    """A random policy over a vocabulary; `stops` end its completions beside EOS."""
    tokenizer = vocabulary(kind)
    torch.manual_seed(0)
    model = LlamaForCausalLM(_config(tokenizer)).eval()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *(stops or [])]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_reward(folder: Path, kind: str, **changes: Any) -> PreTrainedTokenizerFast:
    """A random reward model over a vocabulary."""
    tokenizer = vocabulary(kind)
    torch.manual_seed(1)
    LlamaForSequenceClassification(_config(tokenizer, num_labels=1, **changes)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return llama_config(**{"vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS, **ids, **changes})


def _bytes() -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["[PAD]", "<unused>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", eos_token="</s>")
    tokenizer.chat_template = BPE_TEMPLATE
    return tokenizer


def _pieces() -> PreTrainedTokenizerFast:
    """A blank begins a piece, and the one that is put before a text is dropped where ids are decoded."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = PIECES_TEMPLATE
    return tokenizer


def _words() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "[PAD]", "[CLS]", "[END]"]
    backend.train_from_iterator([*CORPUS, "user : assistant :"], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="[END]"
    )
    tokenizer.chat_template = WORD_TEMPLATE
    return tokenizer
