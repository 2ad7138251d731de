"""KL of completions: by hand, zero to itself, and right on average."""

from __future__ import annotations

import pytest
import torch

from rlhf_pipeline.evaluate.kl import completion_kl
from rlhf_pipeline.generation import logprobs, sample
from tests.tiny import make_llama, make_tokenizer


def test_by_hand():
    ours, theirs = (
        [torch.tensor([-1.0, -2.0]), torch.tensor([-0.5])],
        [torch.tensor([-1.5, -1.0]), torch.tensor([-2.5])],
    )
    assert completion_kl(ours, theirs).tolist() == [-0.5, 2.0]


def test_to_itself_it_is_zero():
    model, tokenizer = make_llama(), make_tokenizer()
    rows = [[5, 6], [7]], [[8, 9], [10, 11, 12]]
    assert completion_kl(logprobs(model, tokenizer, *rows, 1.0), logprobs(model, tokenizer, *rows, 1.0)).tolist() == [
        0,
        0,
    ]


def test_the_mean_over_samples_is_the_divergence_of_the_first_token():
    policy, reference, tokenizer = make_llama(seed=1), make_llama(seed=2), make_tokenizer()
    for model in (policy, reference):
        model.lm_head.weight.data *= 20  # far from uniform, so that there is a divergence to see
    [completions] = sample(
        policy, tokenizer, ["a"], temperature=1, max_new_tokens=1, seed=0, num_return_sequences=4000, batch_size=4000
    )
    rows = [[*tokenizer("a")["input_ids"]]] * 4000, [one.token_ids for one in completions]
    estimate = completion_kl(*(logprobs(model, tokenizer, *rows, 1.0) for model in (policy, reference))).mean()
    with torch.no_grad():
        ours, theirs = (m(torch.tensor(rows[0][:1])).logits[0, -1].log_softmax(-1) for m in (policy, reference))
    exact = (ours.exp() * (ours - theirs)).sum().item()
    assert exact > 0.3
    assert estimate == pytest.approx(exact, rel=0.1)
