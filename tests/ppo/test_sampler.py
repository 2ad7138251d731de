"""A rollout's samples: whole, in their order, and as many rows at once as fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from rlhf_pipeline.ppo import sampler
from tests.ppo.test_forward import CAUSAL
from tests.tiny import make_llama

PROMPTS = [[5], [6, 7, 8, 9], [3, 4], [10, 11, 12]]


def sampled(seed: int = 0) -> tuple[list[list[int]], list[list[float]]]:
    model = make_llama()
    torch.manual_seed(seed)
    return sampler.sample(model, PROMPTS, stops=range(0, 258, 9), temperature=0.7, max_new_tokens=12)


def test_log_probabilities_are_those_of_the_prompt_they_belong_to() -> None:
    model = make_llama()
    for prompt, ids, logprobs in zip(PROMPTS, *sampled(), strict=True):
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = logits.log_softmax(-1)[range(len(ids)), ids]
        torch.testing.assert_close(torch.tensor(logprobs), expected, atol=1e-5, rtol=1e-5)
        assert len(ids) == 12 or ids[-1] % 9 == 0
        assert not any(token % 9 == 0 for token in ids[:-1])


def test_rows_at_once_change_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled()
    monkeypatch.setattr(sampler, "rows_at_once", lambda model, tokens, device: 1)
    assert sampled()[0] == whole[0]
    assert sampled(seed=1)[0] != whole[0]


def test_rows_fit_into_half_of_a_gpus_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10_000_000, 80_000_000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 3_000_000)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 1_000_000)
    model = SimpleNamespace(config=make_llama().config, dtype=torch.bfloat16)
    row = 100 * 2 * 2 * 2 * 8 * 2  # tokens x keys and values x layers x heads x width x bytes
    assert sampler.rows_at_once(model, 100, torch.device("cuda")) == 6_000_000 // row
    assert sampler.rows_at_once(model, 10**9, torch.device("cuda")) == 1
    assert sampler.rows_at_once(model, 100, torch.device("cpu")) > 10**6


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2", "bloom"])
def test_the_size_of_a_cache_is_read_from_any_config(kind: str) -> None:
    config = AutoConfig.for_model(kind, **CAUSAL[kind])
    heads = 1 if kind in ("qwen3", "llama", "gemma2") else 2
    assert sampler.cache_bytes(config, torch.float32) == 2 * 2 * heads * 8 * 4
