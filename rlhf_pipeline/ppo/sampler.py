"""Sample a rollout from the policy in training: prompts of similar length together, rows that ended leave.

Left out: other engines (TRL's vLLM modes), filters of the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlhf_pipeline.decoding import decode, evaluating, left_pad
from rlhf_pipeline.ppo.packing import by_length

CACHE_SHARE = 0.5
"""Share of a GPU's free memory that keys and values may take."""


def sample(
    model: Any, prompt_ids: Sequence[list[int]], *, stops: Sequence[int], temperature: float, max_new_tokens: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Continue every prompt once, with random numbers of torch's CPU generator.

    Returns ids, with the stop token that ended them, and their log-probabilities, in the order of `prompt_ids`.
    """
    device = next(model.parameters()).device
    noise = torch.rand(len(prompt_ids), 1, max_new_tokens, dtype=torch.float64)
    lengths = torch.tensor([len(ids) for ids in prompt_ids])
    completions: list[list[int]] = [[] for _ in prompt_ids]
    logprobs: list[list[float]] = [[] for _ in prompt_ids]
    rows = rows_at_once(model, int(lengths.max()) + max_new_tokens, device)
    with evaluating(model) as forward:
        for places in by_length(lengths, rows):
            ids, mask = left_pad([prompt_ids[i] for i in places], 0, device)
            found = decode(forward, ids, mask, noise[places].to(device), stops, temperature)
            for i, one, of_one in zip(places.tolist(), *found, strict=True):
                completions[i], logprobs[i] = one, of_one
    return completions, logprobs


def rows_at_once(model: Any, tokens: int, device: torch.device) -> int:
    """Rows of `tokens` whose keys and values fit into a GPU's free memory beside everything else; on a CPU all."""
    if device.type != "cuda":
        return 2**31
    free, _ = torch.cuda.mem_get_info(device)
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(
        1, int(CACHE_SHARE * (free + reusable)) // (tokens * cache_bytes(model.config.get_text_config(), model.dtype))
    )


def cache_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of keys and values a token takes in all layers; an upper bound where layers share or forget them."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * dtype.itemsize)
