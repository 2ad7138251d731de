"""What must not matter: how a minibatch is split into micro-batches, and how far it is padded.

In float64, and by SGD with rate 1, so that the difference of the weights is the sum of the gradients; Adam would hide
a wrong scale.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf_pipeline.ppo.critic import Critic
from tests.ppo.toy import Recorder, make_trainer
from tests.tiny import make_llama

LAYOUTS = {
    "8 x 1": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "steps_per_generation": 8},
    "2 x 4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 2},
    "1 x 8, padded to 32": {"pad_to_multiple_of": 32},
}
WHOLE = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "steps_per_generation": 1}
HALVES = {
    "2 minibatches of 1 x 4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
    "2 minibatches of 2 x 2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
}
COUNTED = ("value_loss", "clip_fraction", "explained_variance", "score", "kl_nats", "policy_grad_norm")


def trained(folder: Path, **layout: int) -> tuple[dict[str, Tensor], Recorder]:
    make_llama(folder / "policy")
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float64)
    critic = Critic.from_policy(folder / "policy", dtype=torch.float64)
    torch.manual_seed(0)
    trainer = make_trainer(
        folder, model=policy, critic=critic, optim="sgd", learning_rate=1.0, max_grad_norm=0, num_iterations=2,
        vf_coef=1.0, kl_coef=0.5, max_completion_length=24, **layout,
    )  # fmt: skip
    trainer.ref_model.double()  # TRL 1.14 loads the reference in float32 whatever the policy has
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return {name: p.detach() - start[name] for name, p in trainer.model.named_parameters()}, trainer


def assert_alike(folder: Path, one: dict[str, int], other: dict[str, int]) -> None:
    (moved, first), (moved_too, second) = trained(folder, **one), trained(folder, **other)
    assert len(set(first.rollouts[0]["completion_mask"].sum(dim=1).tolist())) > 1, "the case needs unequal lengths"
    for name, change in moved.items():
        torch.testing.assert_close(moved_too[name], change, atol=1e-10, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert max(change.abs().max() for name, change in moved.items() if name.startswith("critic.")) > 1e-3
    assert max(change.abs().max() for name, change in moved.items() if not name.startswith("critic.")) > 1e-3
    for name in COUNTED:
        assert first.seen[name] == pytest.approx(second.seen[name], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_minibatch_however_it_is_split_or_padded(tmp_path: Path, layout: str) -> None:
    assert_alike(tmp_path, {**WHOLE, "max_steps": 2}, {**WHOLE, "max_steps": 2, **LAYOUTS[layout]})


def test_two_minibatches_however_each_is_split(tmp_path: Path) -> None:
    one, other = HALVES.values()
    assert_alike(
        tmp_path,
        {**one, "steps_per_generation": 2, "max_steps": 4},
        {**other, "steps_per_generation": 4, "max_steps": 4},
    )


def test_rollout_log_probabilities_and_values_do_not_move_with_extra_padding(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    rollout = trainer.rollouts[0]
    width = rollout["completion_ids"].size(1)
    pad = {"prompt_ids": (9, 0), "prompt_mask": (9, 0), "completion_ids": (0, 5), "completion_mask": (0, 5)}
    wide = {name: torch.nn.functional.pad(rollout[name], sides) for name, sides in pad.items()}
    real = rollout["completion_mask"].bool()
    torch.nn.init.normal_(trainer.critic.head.weight)
    figures, wider = trainer.figures_of(trainer.model, rollout), trainer.figures_of(trainer.model, wide)
    for name in ("logprobs", "values"):
        assert figures[name][real].abs().max() > 0.1
        torch.testing.assert_close(wider[name][:, :width][real], figures[name][real], atol=1e-5, rtol=1e-5)
