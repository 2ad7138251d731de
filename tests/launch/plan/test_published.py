"""Plans of DeepSpeed-Chat's published runs say that they fit, and what does not.

The runs: blogs/deepspeed-chat/README.md of DeepSpeed, tables 1 and 2 (the reward model, and so the critic, has 350M
parameters), prompts and answers of 256 tokens (BenckmarkSetting.md of DeepSpeed-Chat). The settings: its scripts
training_scripts/opt/single_node/run_13b.sh and multi_node/run_66b.sh of step 3: ZeRO-3 in fp16, LoRA of rank 128 on the
layers of the actor (what is no linear layer is trained whole), gradient checkpointing, a hybrid engine that holds the
actor's weights over 2 or 8 GPUs while it generates, as sleeping vLLM does. For 175B no script was published; that of
66B is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.launch.plan.choices import Choice, choose
from rlhf_pipeline.launch.plan.gpus import GIB
from rlhf_pipeline.launch.plan.networks import Network, adapter, read_network
from rlhf_pipeline.launch.plan.roles import Role
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Offload
from tests.launch.plan.shapes import OPT, opt_config

DOCUMENT = Path(__file__).parents[3] / "docs" / "plan.md"
QUERIES = 131_900
"""Of one run (the blog's first footnote)."""


@dataclass(frozen=True)
class Run:
    """GPUs, the GPUs that share the actor's weights to generate, rows a GPU, and hours as published."""

    gpu: str
    gpus: int
    shared_by: int
    rows: int
    hours: float


RUNS = {
    "opt-13b": Run("a100-40", 8, 2, 16, 10.8),
    "opt-66b": Run("a100-80", 8, 8, 4, 2.1 * 24),
    "opt-175b": Run("a100-80", 64, 8, 4, 20),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Network, Network]]:
    """Every OPT model with a language head, and with one output."""
    folder = tmp_path_factory.mktemp("opt")
    files = {name: opt_config(folder, name) for name in OPT}
    return {name: (read_network(file), read_network(file, scalar=True)) for name, file in files.items()}


def plan(
    networks: dict[str, tuple[Network, Network]], name: str, *, lora: bool = True, critic: str = "opt-350m",
    offload: Offload = "none",
) -> Choice:  # fmt: skip
    run, (actor, _), (_, scalar) = RUNS[name], networks[name], networks[critic]
    settings: dict[str, Any] = {
        "model": name, "gpu": run.gpu, "gpus": run.gpus, "prompt_tokens": 256, "max_completion_length": 256,
        "per_device_train_batch_size": run.rows, "use_vllm": True, "vllm_tensor_parallel_size": run.shared_by,
        "vllm_enable_sleep_mode": True,
    }  # fmt: skip
    roles = [
        with_lora(actor) if lora else Role("policy", actor, actor.parameters),
        Role("critic", scalar, scalar.parameters),
        Role("reference", actor, frozen=actor.parameters),
        Role("reward", scalar, frozen=scalar.parameters),
    ]
    return choose(PlanSettings(**settings), roles, 3, offload)


def with_lora(actor: Network) -> Role:
    frozen = tuple(p.inputs * p.outputs for p in actor.projections)
    rest = list(actor.parameters)
    for size in frozen:
        rest.remove(size)
    return Role("policy", actor, (*adapter(actor, 128), *rest), frozen, rank=128)


@pytest.mark.parametrize("name", RUNS)
def test_the_published_runs_fit(name: str, networks: dict[str, tuple[Network, Network]]) -> None:
    assert plan(networks, name).fits


@pytest.mark.parametrize("name", RUNS)
def test_training_all_weights_fits_with_the_optimizer_on_the_host_and_not_without(
    name: str, networks: dict[str, tuple[Network, Network]]
) -> None:
    assert plan(networks, name, lora=False, offload="optimizer").fits
    without = plan(networks, name, lora=False)
    assert not without.fits
    assert without.limit == ("weights of vLLM" if name == "opt-175b" else "optimizer of policy")


@pytest.mark.parametrize("name", RUNS)
def test_critics_of_the_actors_size_do_not_fit(name: str, networks: dict[str, tuple[Network, Network]]) -> None:
    large = plan(networks, name, critic=name)
    assert not large.fits
    assert large.bytes > 1.5 * plan(networks, name).bytes
    held = {part.name: part.bytes for part in large.memory.held}
    assert max(held, key=lambda part: held[part]) == "optimizer of critic"


def test_66b_with_such_a_critic_does_not_fit_even_with_the_optimizer_on_the_host(
    networks: dict[str, tuple[Network, Network]],
) -> None:
    assert not plan(networks, "opt-66b", critic="opt-66b", offload="optimizer").fits
    assert plan(networks, "opt-13b", critic="opt-13b", offload="optimizer").fits


def test_66b_does_not_fit_where_the_table_says_na(
    networks: dict[str, tuple[Network, Network]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 1: 8 x A100-40G, OPT-66B: NA."""
    monkeypatch.setitem(RUNS, "opt-66b", Run("a100-40", 8, 8, 4, 0))
    assert not plan(networks, "opt-66b").fits


PLANNED_HOURS = {"opt-13b": 4.3, "opt-66b": 22, "opt-175b": 19.4}
"""What docs/plan.md says."""
NAMES = {"opt-13b": "13B on 8 A100-40G", "opt-66b": "66B on 8 A100-80G", "opt-175b": "175B on 64 A100-80G"}


@pytest.mark.parametrize("name", RUNS)
def test_the_document_says_these_numbers(name: str, networks: dict[str, tuple[Network, Network]]) -> None:
    asked: list[dict[str, Any]] = [{"lora": False}, {"critic": name}]
    ways = [way for one in asked for way in (one, {**one, "offload": "optimizer"})]
    plans = [plan(networks, name, **way) for way in ({}, *ways)]
    cells = [("" if way.fits else "no, ") + f"{way.bytes / GIB:.1f}" for way in plans]
    row = f"| {NAMES[name]} | {plans[0].usable / GIB:.1f} | {' | '.join(cells)} |"
    assert row in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RUNS)
def test_the_estimate_is_shorter_than_the_published_time_and_of_its_size(
    name: str, networks: dict[str, tuple[Network, Network]]
) -> None:
    run = RUNS[name]
    rollouts = QUERIES / (run.rows * run.gpus)
    hours = rollouts * plan(networks, name).seconds / 3600
    assert 1 / 4 < hours / run.hours < 1
    assert hours == pytest.approx(PLANNED_HOURS[name], rel=0.02)
