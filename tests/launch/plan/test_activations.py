"""Activations against what torch keeps for a backward pass of real models, and against published figures."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_pipeline.launch.plan.activations import (
    Widths,
    activation_bytes,
    block_bytes,
    cache_bytes,
    forward_flops,
    logit_bytes,
)
from rlhf_pipeline.launch.plan.networks import describe
from rlhf_pipeline.ppo.adapters import old_names
from tests.launch.plan.shapes import small_network

FLOAT32, AUTOCAST, BFLOAT16 = Widths(4, 4), Widths(2, 4), Widths(2, 2)
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 192, "num_key_value_heads": 2},
    "qwen2": {"intermediate_size": 256, "num_key_value_heads": 4},
    "gpt_neox": {"intermediate_size": 256},
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 64},
}


def model_of(architecture: str, layers: int, rank: int = 0) -> Any:
    config = AutoConfig.for_model(
        architecture, vocab_size=64, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=256, attn_implementation="sdpa", **SIZES[architecture],
    )  # fmt: skip
    for name, value in vars(config).items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    if not rank:
        return AutoModelForCausalLM.from_config(config)
    lora = LoraConfig(r=rank, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    with old_names():
        return get_peft_model(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), lora)


def kept(architecture: str, layers: int, tokens: int, widths: Widths, rank: int = 0) -> int:
    """Bytes that autograd keeps of a forward pass, every storage once, without parameters."""
    model = model_of(architecture, layers, rank)
    if not rank:
        model.to(torch.bfloat16 if widths == BFLOAT16 else torch.float32)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}  # held, so that no place is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if widths == AUTOCAST or rank else contextlib.nullcontext()
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    backbone = model.get_base_model().base_model if rank else model.base_model
    with autocast, hooks:
        states = backbone(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False).last_hidden_state
    assert states.requires_grad
    return sum(storage.nbytes() for storage in found.values())


def of_one_token_in_one_block(architecture: str, widths: Widths, rank: int = 0) -> float:
    """Bytes that grow with both tokens and layers."""
    corners = {(n, t): kept(architecture, n, t, widths, rank) for n in (1, 3) for t in (64, 128)}
    return (corners[3, 128] - corners[1, 128] - corners[3, 64] + corners[1, 64]) / (2 * 64)


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("widths", [FLOAT32, AUTOCAST, BFLOAT16], ids=["float32", "autocast", "bfloat16"])
def test_a_block_keeps_what_the_formula_says(architecture: str, widths: Widths) -> None:
    network = describe(model_of(architecture, 1), architecture)
    measured = of_one_token_in_one_block(architecture, widths)
    assert block_bytes(network, widths) == pytest.approx(measured, rel=0.15 if architecture == "gpt_neox" else 0.02)


@pytest.mark.parametrize("architecture", SIZES)
def test_a_frozen_block_with_adapters(architecture: str) -> None:
    """LoRA as the recipes have it: a base in bf16, adapters in float32, autocast."""
    network = describe(model_of(architecture, 1), architecture)
    measured = of_one_token_in_one_block(architecture, BFLOAT16, rank=4)
    assert block_bytes(network, BFLOAT16, rank=4) == pytest.approx(measured, rel=0.15)


def test_a_block_of_gpt_as_published() -> None:
    """Korthikanti et al. 2022, section 4.1, at 2 bytes: 19 h of the MLP, 11 h of attention, 4 h of norms.

    Two of these h are masks of dropout, which is off here.
    """
    opt = describe(AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", **OPT_SMALL)), "opt")
    gelu = dataclasses.replace(opt, inner_kept=2)
    assert block_bytes(gelu, BFLOAT16) == (19 + 11 + 4 - 2) * opt.width


OPT_SMALL = {"hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64}


def test_a_block_by_hand() -> None:
    network = small_network()  # width 8, keys 4, inner 32 with a gate
    assert block_bytes(network, BFLOAT16) == 2 * (4 + 2) * 8 + 2 * (16 + 8) + 4 * 2 * 32 + 2 * 2 * 8
    assert block_bytes(network, AUTOCAST) == 2 * (4 + 4) * 8 + 2 * (16 + 8) + 4 * 2 * 32 + 2 * 5 * 8
    assert block_bytes(network, BFLOAT16, rank=3) == 2 * 4 * 8 + 2 * (16 + 8) + 3 * 2 * 32 + 2 * 4 * (8 + 3)


def test_checkpointing_keeps_block_inputs_and_one_block() -> None:
    network = small_network(layers=6)
    block = block_bytes(network, AUTOCAST)
    assert activation_bytes(network, 10, AUTOCAST, checkpointing=False) == 10 * 6 * block
    assert activation_bytes(network, 10, AUTOCAST, checkpointing=True) == 10 * (6 * 4 * 8 + block)


def test_keys_and_values_of_opt_13b_as_published() -> None:
    """Kwon et al. 2023 (PagedAttention), section 3: 800 KB a token."""
    config = AutoConfig.for_model("opt", **{**OPT_SMALL, "hidden_size": 5120, "num_attention_heads": 40})
    with torch.device("meta"):
        layer = describe(AutoModelForCausalLM.from_config(config), "opt")
    assert 40 * cache_bytes(layer, 2) == 800 * 1024


def test_logits_are_bounded() -> None:
    assert logit_bytes(1000, 5, at_once=100_000, copies=18) == 5 * 1000 * 18
    assert logit_bytes(1000, 500, at_once=100_000, copies=18) == 100 * 1000 * 18
    assert logit_bytes(0, 500, at_once=100_000, copies=18) == 0


def test_flops_by_hand() -> None:
    network = small_network()
    assert forward_flops(network, 3, 5) == 3 * (2 * network.count + 4 * 2 * 8 * 5)
