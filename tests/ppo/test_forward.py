"""A training forward is free of chance, and does not move with left padding."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from rlhf_pipeline.ppo.forward import place_positions, silence_dropout
from tests.tiny import make_llama


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def neox() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        attention_dropout=0.3, hidden_dropout=0.3,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


def llama() -> PreTrainedModel:
    return make_llama(vocab_size=40, attention_dropout=0.5)


def fused_logprobs(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-width] = -100
    return model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs[:, -width:]


@pytest.mark.parametrize("make", [gpt2, neox, llama])
def test_no_chance_is_left_in_training_mode(make: object) -> None:
    model = make().train()
    ids = torch.arange(10)[None]
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    silence_dropout(model)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("make", [gpt2, neox, llama])
def test_left_padding_moves_no_token(make: object) -> None:
    model = make()
    silence_dropout(model)
    add_fused_lm_head(model)
    ids = torch.arange(3, 13)[None]
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(ids)], dim=1)
    place_positions(model)
    plain = fused_logprobs(model, ids, torch.ones_like(ids), 4)
    torch.testing.assert_close(fused_logprobs(model, padded, mask, 4), plain, atol=1e-5, rtol=1e-5)


def test_without_placed_positions_gpt2_does_move() -> None:
    """The reason for the hook: TRL gives the training forward no positions, and GPT-2's are absolute."""
    model = gpt2()
    silence_dropout(model)
    add_fused_lm_head(model)
    ids = torch.arange(3, 13)[None]
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(ids)], dim=1)
    shift = fused_logprobs(model, padded, mask, 4) - fused_logprobs(model, ids, torch.ones_like(ids), 4)
    assert shift.abs().max() > 1e-3
