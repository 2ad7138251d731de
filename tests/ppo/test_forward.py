"""A training forward is free of chance, and its figures are those of every row alone."""

from __future__ import annotations

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
)

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.ppo.forward import give_packed_forward, silence_dropout
from rlhf_pipeline.ppo.packing import pack, unpack
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


@pytest.mark.parametrize("make", [gpt2, neox, llama])
def test_no_chance_is_left_in_training_mode(make: object) -> None:
    model = make().train()
    ids = torch.arange(10)[None]
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    silence_dropout(model)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


SHAPES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA_LIKE = {**SHAPES, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
CAUSAL = {
    "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "gpt_neox": {**SHAPES, "intermediate_size": 32},
    "llama": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "gemma2": {**LLAMA_LIKE, "final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8},
    "granite": {**LLAMA_LIKE, "logits_scaling": 4.0},
    "cohere": {**LLAMA_LIKE, "logit_scale": 0.25},
    "hyperclovax": {**LLAMA_LIKE, "logits_scaling": 3.0},
    "bloom": {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "mamba": {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
}
"""Absolute, rotary and no positions; a soft cap, a divided and a multiplied logit; no attention at all."""


def causal(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CAUSAL[kind], pad_token_id=0)).eval()
    torch.nn.init.normal_(model.get_output_embeddings().weight)
    return model


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 1, 4 and 2 tokens padded left to 4, completions of 3, 1 and 2 tokens padded right to 3."""
    ids = torch.randint(3, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0]])
    return ids * mask, mask


@torch.no_grad()
@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("at_once", [2**25, 40])
def test_packed_figures_are_those_of_each_row_alone(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model does to its logits, and whether they are computed together or a position at a time."""
    monkeypatch.setattr("rlhf_pipeline.ppo.logprobs.LOGITS_AT_ONCE", at_once)
    model, (ids, mask) = causal(kind), rows()
    plain = model.forward
    expected = torch.zeros(3, 3), torch.zeros(3, 3)
    for n in range(3):
        row = ids[n][mask[n].bool()]
        width = int(mask[n, 4:].sum())
        distributions = (plain(input_ids=row[None]).logits[0, -width - 1 : -1] / 0.7).log_softmax(-1)
        expected[0][n, :width] = distributions[range(width), row[-width:]]
        expected[1][n, :width] = -(distributions.exp() * distributions).sum(-1)
    give_packed_forward(model, 0.7)
    packed = pack(ids, mask, 3)
    assert packed.ids.shape == (3, 5)
    figures = model(input_ids=packed.ids, predicts=packed.predicts)
    for name, numbers in zip(("logprobs", "entropy"), expected, strict=True):
        torch.testing.assert_close(unpack(figures[name], mask[:, 4:].bool()), numbers, atol=1e-5, rtol=1e-5)


def test_pieces_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = rows()
    gradients = []
    for at_once in (2**25, 40):
        monkeypatch.setattr("rlhf_pipeline.ppo.logprobs.LOGITS_AT_ONCE", at_once)
        model = causal("llama").double()
        give_packed_forward(model, 0.7)
        packed = pack(ids, mask, 3)
        figures = model(input_ids=packed.ids, predicts=packed.predicts)
        figures["logprobs"].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(pieces, whole)


def test_a_call_without_packed_rows_is_the_models_own() -> None:
    model = causal("llama")
    ids = torch.arange(6)[None]
    before = model(input_ids=ids).logits
    give_packed_forward(model, 0.7)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert model.generate(input_ids=ids, max_new_tokens=2, do_sample=False).shape == (1, 8)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 reads it
def test_an_adapter_that_lengthens_the_prompt_is_refused() -> None:
    model = get_peft_model(causal("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ModelError, match="PROMPT_TUNING puts tokens before the prompt"):
        give_packed_forward(model, 1.0)
