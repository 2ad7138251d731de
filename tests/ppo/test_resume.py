"""Resuming at a rollout boundary ends in the very same bits as never having stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from tests.ppo.toy import Recorder, make_trainer

SETTINGS = {"num_iterations": 2, "critic_learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 12}


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def state(trainer: Recorder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def interrupted(folder: Path, settings: Callable[[], dict[str, Any]]) -> Recorder:
    """Train rollouts 1-3 with the schedule of 6, as if killed behind the checkpoint; then a new trainer goes on."""
    first = make_trainer(folder, max_steps=24, **SETTINGS, **settings())
    first.add_callback(StopAt(12))
    first.train()
    second = make_trainer(folder, max_steps=24, **SETTINGS, **settings())
    torch.manual_seed(99)  # whatever happened in between
    second.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-12"))
    return second


class StopAt(TrainerCallback):
    """Stop after a number of optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = state.global_step >= self.step
        return control


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_resumed_weights_are_bit_identical(tmp_path: Path, kind: str) -> None:
    """24 steps are 6 rollouts of 8 over 32 prompts, so the second half runs over the end of the first epoch."""

    def settings() -> dict[str, Any]:
        return {"peft_config": lora()} if kind == "lora" else {}

    unbroken = make_trainer(tmp_path / "a", max_steps=24, **SETTINGS, **settings())
    unbroken.train()
    resumed = interrupted(tmp_path / "b", settings)
    assert resumed.state.global_step == 24
    one, other = state(unbroken), state(resumed)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    for a, b in zip(unbroken.rollouts[3:], resumed.rollouts, strict=True):
        assert torch.equal(a["completion_ids"], b["completion_ids"])


def test_a_checkpoint_is_two_plain_models(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    folder = tmp_path / "out" / "checkpoint-2"
    assert not [name for name in load_file(folder / "model.safetensors") if "critic" in name]
    policy = AutoModelForCausalLM.from_pretrained(folder)
    critic = AutoModelForSequenceClassification.from_pretrained(folder / "critic")
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, trainer.model.state_dict()[name]), name
    assert torch.equal(critic.score.weight, trainer.critic.head.weight)
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 2


def test_under_lora_the_reference_is_the_base_and_the_critic_learns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, peft_config=lora(), max_steps=4, learning_rate=3e-2)
    head = trainer.critic.head.weight.detach().clone()
    trainer.train()
    assert trainer.seen["kl_nats"][0] == 0
    assert trainer.seen["kl_nats"][1] != 0
    assert not torch.equal(head, trainer.critic.head.weight)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, here in the test's own hands
def test_a_policy_with_an_adapter_has_a_frozen_copy_of_it_as_reference(tmp_path: Path) -> None:
    from peft import get_peft_model

    from tests.tiny import make_llama

    torch.manual_seed(0)
    make_llama(tmp_path / "policy")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "policy"), lora())
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    trainer = make_trainer(tmp_path, model=adapted, max_steps=4, learning_rate=3e-2)
    trainer.train()
    assert trainer.seen["kl_nats"][0] == 0
    assert trainer.seen["kl_nats"][1] != 0
