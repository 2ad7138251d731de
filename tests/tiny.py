"""Real but tiny models for the tests: a byte tokenizer and two-layer models with random weights, made in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 32, "num_key_value_heads": 2, "max_position_embeddings": 128},
    "gpt2": {"n_positions": 128},
    "gpt_neox": {"intermediate_size": 32, "max_position_embeddings": 128},
    "qwen3": {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128},
}
"""Model type -> what its config needs besides two layers of width 16 with two heads."""


def make_tokenizer(first: Sequence[str] = ("<pad>", "<eos>"), **special: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: the tokens `first`, then the 256 bytes. `special` overrides pad_token, eos_token..."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*first, *alphabet])}
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


def make_causal(
    architecture: str, folder: Path, *, tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 0
) -> PreTrainedModel:
    """A random causal language model of one of `ARCHITECTURES`, saved with its tokenizer, whose special ids it has."""
    tokenizer = tokenizer or make_tokenizer()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    size = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(architecture, **size, **special, **ARCHITECTURES[architecture])
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def make_classifier(folder: Path | None = None, *, seed: int = 0, **changes: Any) -> LlamaForSequenceClassification:
    """A random reward model (one label); saved with its tokenizer where a folder is given."""
    torch.manual_seed(seed)
    return _saved(LlamaForSequenceClassification(llama_config(**{"num_labels": 1, **changes})).eval(), folder)


def _saved(model: Any, folder: Path | None) -> Any:
    if folder is not None:
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    return model
