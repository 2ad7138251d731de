"""Real but tiny models for the tests: a byte tokenizer and two-layer models with random weights, made in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tokenizer(**special: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 258 ids: <pad> 0, <eos> 1, then the bytes. `special` overrides pad_token, eos_token..."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = {"pad_token": "<pad>", "eos_token": "<eos>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def llama_config(**changes: Any) -> LlamaConfig:
    """Two layers of width 16 over the byte vocabulary."""
    settings = {
        "vocab_size": 258,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    return LlamaConfig(**{**settings, **changes})


def make_llama(folder: Path | None = None, *, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random causal language model; saved with its tokenizer where a folder is given."""
    torch.manual_seed(seed)
    return _saved(LlamaForCausalLM(llama_config(**changes)).eval(), folder)


def make_classifier(folder: Path | None = None, *, seed: int = 0, **changes: Any) -> LlamaForSequenceClassification:
    """A random reward model (one label); saved with its tokenizer where a folder is given."""
    torch.manual_seed(seed)
    return _saved(LlamaForSequenceClassification(llama_config(**{"num_labels": 1, **changes})).eval(), folder)


def _saved(model: Any, folder: Path | None) -> Any:
    if folder is not None:
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    return model
