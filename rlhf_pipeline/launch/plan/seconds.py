"""Estimate the seconds of a step from rates: FLOP/s, bandwidth of memory, links and host.

A step is an optimizer step of sft and reward, and a whole rollout with its epochs of ppo. Nothing is taken to overlap,
which is too slow, and kernels are taken to start in no time, which is too quick: the loop that samples one token after
another is far slower on small models. Left out: loading data, checkpoints, evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rlhf_pipeline.launch.plan.activations import cache_bytes, forward_flops
from rlhf_pipeline.launch.plan.gpus import HOST_BANDWIDTH
from rlhf_pipeline.launch.plan.roles import Role
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Sharding


class Time(NamedTuple):
    """Seconds of one thing, and how they come about."""

    name: str
    seconds: float
    arithmetic: str


def step_seconds(
    settings: PlanSettings, roles: Sequence[Role], sharding: Sharding, checkpointing: bool, rows_at_once: int
) -> list[Time]:
    """Return what a step consists of."""
    trained = [role for role in roles if role.trained]
    ppo = settings.stage == "ppo"
    rows = settings.rollout if ppo else settings.rows * settings.gradient_accumulation_steps
    times = []
    if settings.sampler in ("trainer", "colocate"):
        times.append(_sampling(settings, roles[0], rows, rows_at_once))
    if ppo:
        times.append(_computing(settings, "score", roles, rows, 1))
    passes = (4 if checkpointing else 3) - (1 if roles[0].rank else 0)
    epochs = settings.num_iterations if ppo else 1
    times.append(_computing(settings, "forward and backward", trained, rows, passes, epochs))
    if sharding.processes > 1:
        times.append(_communicating(settings, roles, sharding, epochs))
    if sharding.offload != "none":
        times.append(_offloading(settings, roles, sharding, epochs))
    return times


def _computing(
    settings: PlanSettings, name: str, roles: Sequence[Role], rows: int, passes: int, epochs: int = 1
) -> Time:
    """Forward passes; a backward pass is two of them, or one where the base is frozen (Hu et al. 2021)."""
    networks = [role.network for role in roles]
    tokens = rows * settings.row_tokens
    flops = epochs * passes * sum(forward_flops(network, tokens, settings.row_tokens) for network in networks)
    rate = settings.mfu * settings.card.flops
    text = f"{flops / 1e12:,.0f} TFLOP ({passes} passes x {epochs} x {tokens:,} tokens) / {rate / 1e12:,.0f} TFLOP/s"
    return Time(name, flops / rate, text)


def _sampling(settings: PlanSettings, policy: Role, rows: int, at_once: int) -> Time:
    """Every token reads all weights and what is cached, or computes if that takes longer."""
    network, share = policy.network, settings.vllm_tensor_parallel_size if settings.sampler == "colocate" else 1
    together = rows if settings.sampler == "colocate" else at_once
    cached = together * cache_bytes(network, 2) * (settings.prompt_tokens + settings.max_completion_length / 2)
    reading = (2 * network.count / share + cached) / (settings.bandwidth_share * settings.card.memory_bandwidth)
    computing = forward_flops(network, together, settings.row_tokens) / (settings.mfu * settings.card.flops)
    prompts = forward_flops(network, rows * settings.prompt_tokens, settings.prompt_tokens)
    times = math.ceil(rows / together)
    seconds = times * settings.max_completion_length * max(reading, computing)
    return Time(
        "generate",
        seconds + prompts / (settings.mfu * settings.card.flops),
        f"{times:,} x {settings.max_completion_length:,} tokens x {1000 * max(reading, computing):.1f} ms, and prompts",
    )


def _communicating(settings: PlanSettings, roles: Sequence[Role], sharding: Sharding, epochs: int) -> Time:
    """Rajbhandari et al. 2020, section 7: twice the gradients an optimizer step; in stage 3 also every weight again."""
    trained = sum(sum(role.trained) for role in roles)
    micro_batches, steps = _steps(settings, epochs)
    reductions = micro_batches if sharding.zero >= 2 else steps
    numbers = reductions * trained + (_gathers(settings, roles, epochs) if sharding.zero == 3 else steps * trained)
    network = settings.card.network if settings.network_gb_s is None else settings.network_gb_s * 1e9
    link = (settings.card.nvlink if settings.nodes == 1 else network) * settings.bandwidth_share
    moved = _width(settings, sharding) * numbers * (sharding.processes - 1) / sharding.processes
    return Time("communication", moved / link, f"{moved / 1e9:,.0f} GB / {link / 1e9:,.0f} GB/s")


def _gathers(settings: PlanSettings, roles: Sequence[Role], epochs: int) -> int:
    """Numbers that stage 3 gathers: for every forward and backward pass (which recomputes) and to score; the policy's
    to sample. A network that stands on the base gathers that too.
    """
    micro_batches, _ = _steps(settings, epochs)
    numbers = 2 * micro_batches * sum(role.gathered for role in roles if role.trained)
    if settings.stage == "ppo":
        numbers += settings.micro_batches * sum(role.gathered for role in roles)
        numbers += roles[0].gathered if settings.sampler == "trainer" else 0
    return numbers


def _offloading(settings: PlanSettings, roles: Sequence[Role], sharding: Sharding, epochs: int) -> Time:
    """Gradients down and weights up over PCIe, and Adam in the host's memory: 4 and 28 bytes a number.

    Weights that lie on the host cross whenever they are gathered, every process its share of them.
    """
    mine = sum(sum(role.trained) for role in roles) / sharding.processes
    _, steps = _steps(settings, epochs)
    rate = HOST_BANDWIDTH * settings.bandwidth_share
    moved, text = 32 * steps * mine, f"{steps:,} steps x {mine:,.0f} numbers x 32 B"
    if sharding.offload == "all":
        weights = _width(settings, sharding) * _gathers(settings, roles, epochs) / sharding.processes
        moved, text = moved + weights, f"({text} + {weights / 1e9:,.1f} GB of weights)"
    return Time("offload", moved / rate, f"{text} / {rate / 1e9:,.0f} GB/s")


def _steps(settings: PlanSettings, epochs: int) -> tuple[int, int]:
    """Micro-batches and optimizer steps of all epochs."""
    micro_batches = settings.micro_batches if settings.stage == "ppo" else settings.gradient_accumulation_steps
    return epochs * micro_batches, epochs * micro_batches // settings.gradient_accumulation_steps


def _width(settings: PlanSettings, sharding: Sharding) -> int:
    """Bytes of a weight or gradient that is moved."""
    return 2 if sharding.zero and settings.bf16 else 4
