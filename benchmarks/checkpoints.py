"""A random policy that counts down, so that a prompt's last word says how long its completion will be.

Every word belongs to a class, 0 to `longest`. A word of class n is followed by a word of class n - 1, any of them by
chance, and a word of class 0 by EOS. So each sampler draws as it always does, and yet every contestant gets the same
length for the same prompt. The weights do it: a word's class is held in its own entry of the residual stream, which no
layer writes to, and the LM head reads it. Pad and the unknown token are never drawn.

    <folder>/policy   <folder>/reward   <folder>/value   <folder>/full.json   <folder>/early.json (prompts)

Left out: models that have learned something; the time of a matrix product does not depend on what stands in it.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.workload import EARLY_SHARE, Workload, from_arguments

SPECIAL = ("<pad>", "<eos>", "<unk>")
PAD, EOS, UNKNOWN = range(3)
VOCABULARY, LONGEST, MOST_PROMPTS = 4096, 128, 512
HELD = 4.0
"""What stands in the entry of a word's class."""
NEVER = -25.0
"""What that makes of the logit of a word of a class whose turn it is not."""


def main(argv: Sequence[str]) -> None:
    """Build everything that contestants read."""
    workload, folder, _ = from_arguments(argv)
    size = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 6}
    config = make_config(VOCABULARY, **size)
    parts = {"policy": make_policy(config, LONGEST), "reward": make_scorer(config, 1), "value": make_scorer(config, 2)}
    for role, model in parts.items():
        model.save_pretrained(folder / role)
        make_tokenizer(VOCABULARY).save_pretrained(folder / role)
    classes = {"full": [LONGEST] * MOST_PROMPTS, "early": early_classes(MOST_PROMPTS, workload)}
    for case, last in classes.items():
        prompts = make_prompts(last, workload.prompt_tokens, VOCABULARY, LONGEST)
        (folder / f"{case}.json").write_text(json.dumps(prompts), encoding="utf-8")


def make_config(vocabulary: int, **size: Any) -> LlamaConfig:
    """Configure a Llama of any size, with separate embeddings and the special tokens of `make_tokenizer`."""
    special: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    return LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **size, **special)


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer of one token a word, w3, w4, ..., so that n words are n tokens, there and back."""
    tokens = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary))]
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=SPECIAL[UNKNOWN]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names: dict[str, Any] = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", **names)


# ---- Prompts ----


def class_of(word: Any, longest: int) -> Any:
    """Tell the class of a word's id, or of a tensor of them."""
    return (word - len(SPECIAL)) % (longest + 1)


def make_prompts(last: Sequence[int], words: int, vocabulary: int, longest: int) -> list[str]:
    """Draw a prompt of `words` words for each entry of `last`, the class of its last word."""
    draw = random.Random(0)
    ordinary = range(len(SPECIAL), vocabulary)
    of_class = [[word for word in ordinary if class_of(word, longest) == n] for n in range(longest + 1)]
    rows = [[*draw.choices(ordinary, k=words - 1), draw.choice(of_class[n])] for n in last]
    return [" ".join(f"w{word}" for word in row) for row in rows]


def early_classes(count: int, workload: Workload) -> list[int]:
    """Spread lengths as a constant chance to end would, evenly over every 64 prompts; the longest never end.

    Stepping through them by 37, which is odd, visits all 64 and mixes short and long ones.
    """
    longest = workload.completion_tokens
    chance = chance_for(EARLY_SHARE * longest, longest)
    lengths = [math.ceil(math.log1p(-(n + 0.5) / 64) / math.log1p(-chance)) for n in range(64)]
    return [min(lengths[n * 37 % 64] - 1, longest) for n in range(count)]


def chance_for(mean: float, longest: int) -> float:
    """Solve for the chance to end at each token with which lengths cut at `longest` average `mean`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - (1 - middle) ** longest) / middle > mean else (low, middle)
    return low


# ---- Models ----


def make_scorer(config: LlamaConfig, seed: int) -> LlamaForSequenceClassification:
    """Make a random reward or value model."""
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(LlamaConfig(**{**config.to_dict(), "num_labels": 1}))


@torch.no_grad()
def make_policy(config: LlamaConfig, longest: int) -> LlamaForCausalLM:
    """Make a random model that counts down from `longest` at most."""
    torch.manual_seed(0)
    model: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    words = torch.arange(len(SPECIAL), int(config.vocab_size))
    hold_classes(model, words, longest)
    head = model.lm_head.weight
    head[: len(SPECIAL)] = 0.0
    head[:, : longest + 1] = NEVER / measure_level(model, words, longest)
    before = class_of(words, longest) + 1  # the class whose turn was one word ago
    head[words[before <= longest], before[before <= longest]] = 0.0
    head[EOS, 0] = 0.0
    return model


def hold_classes(model: LlamaForCausalLM, words: Tensor, longest: int) -> None:
    """Give every class an entry of the residual stream: embeddings set it, and no layer writes to it."""
    inner: Any = model.model
    inner.embed_tokens.weight[:, : longest + 1] = 0.0
    inner.embed_tokens.weight[words, class_of(words, longest)] = HELD
    for layer in inner.layers:
        layer.self_attn.o_proj.weight[: longest + 1] = 0.0
        layer.mlp.down_proj.weight[: longest + 1] = 0.0


def measure_level(model: LlamaForCausalLM, words: Tensor, longest: int) -> float:
    """Measure what the last RMSNorm leaves of `HELD`."""
    ids = words[torch.randint(len(words), (16, 64))]
    hidden: Tensor = model.model(input_ids=ids).last_hidden_state  # (16, 64, hidden)
    return float(hidden.gather(-1, class_of(ids, longest).unsqueeze(-1)).mean())


if __name__ == "__main__":
    main(sys.argv[1:])
