"""The policy counts down: lengths are what the prompt's last word says, whatever is drawn."""

from __future__ import annotations

import pytest
import torch

from benchmarks.checkpoints import (
    EOS,
    PAD,
    SPECIAL,
    chance_for,
    class_of,
    early_classes,
    make_config,
    make_policy,
    make_prompts,
    make_tokenizer,
)
from benchmarks.workload import EARLY_SHARE, Workload

VOCABULARY, LONGEST = 60, 6
SIZE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_completions_end_where_the_prompt_says() -> None:
    model = make_policy(make_config(VOCABULARY, **SIZE), LONGEST)
    classes = [0, 1, 3, 4, 5, 6] * 8
    prompts = make_prompts(classes, 5, VOCABULARY, LONGEST)
    inputs = make_tokenizer(VOCABULARY)(prompts, return_tensors="pt", return_token_type_ids=False)
    assert inputs["input_ids"].shape == (48, 5)
    rows = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=5)[:, 5:]  # type: ignore[operator]
    assert (rows != PAD).sum(1).tolist() == [min(n + 1, 5) for n in classes]
    assert (rows == EOS).any(1).tolist() == [n < 5 for n in classes]
    assert len(set(rows[:, 0].tolist())) > 10  # and yet words are drawn


def test_no_other_class_has_a_chance() -> None:
    model = make_policy(make_config(VOCABULARY, **SIZE), LONGEST)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (8, 16))
    with torch.no_grad():
        chances = model(input_ids=ids).logits.softmax(-1)  # (8, 16, V)
    next_class = class_of(torch.arange(VOCABULARY), LONGEST)
    next_class[: len(SPECIAL)] = -2
    next_class[EOS] = -1
    right = next_class == class_of(ids, LONGEST).unsqueeze(-1) - 1
    assert (chances * ~right).sum(-1).max() < 1e-6


@pytest.mark.parametrize("prompts", [16, 64, 256])
def test_early_lengths_average_the_promised_share(prompts: int) -> None:
    workload = Workload("early")
    lengths = [min(n + 1, workload.completion_tokens) for n in early_classes(prompts, workload)]
    mean = sum(lengths) / prompts
    assert mean == pytest.approx(EARLY_SHARE * workload.completion_tokens, rel=0.01 if prompts >= 64 else 0.1)
    assert sum(n == workload.completion_tokens for n in lengths) / prompts == pytest.approx(0.1, abs=0.05)


def test_chance_by_hand() -> None:
    """With a chance of 1/2 and at most two tokens, half the completions have one and half have two."""
    assert chance_for(1.5, 2) == pytest.approx(0.5)
