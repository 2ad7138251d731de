"""The moving average of the policy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.average import MovingAverage
from tests.ppo.toy import make_config, make_trainer


def test_it_follows_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"w": weight}, 0.75)
    weight.data.fill_(5.0)
    average.on_step_end()
    assert average.average["w"].tolist() == [2.0]
    average.on_step_end()
    assert average.average["w"].tolist() == [2.75]


def test_it_takes_the_place_of_the_weights_for_a_while() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"w": weight}, 0.5)
    weight.data.fill_(3.0)
    with average.in_place():
        assert weight.item() == 1.0
    assert weight.item() == 3.0


def test_bf16_weights_are_averaged_in_float32(tmp_path: Path) -> None:
    """A step of 2^-12 vanishes beside 1 in bf16."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    average = MovingAverage({"w": weight}, 1 - 2**-12)
    weight.data.fill_(2.0)
    average.on_step_end()
    assert average.average["w"].item() == 1 + 2**-12
    average.save(tmp_path)
    again = MovingAverage({"w": weight}, 0.5)
    again.load(tmp_path)
    assert torch.equal(again.average["w"], average.average["w"])


def test_a_run_averages_its_policy_and_not_its_critic(tmp_path: Path) -> None:
    """With the decay so high that the average stays, it is the policy that training started from."""
    trainer = make_trainer(tmp_path, ema_decay=1 - 1e-12, max_steps=4)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    critic = {name: p.detach().clone() for name, p in trainer.critic.named_parameters()}
    with trainer.averaged():
        for name, parameter in trainer.model.named_parameters():
            alike = torch.allclose(parameter, start[name], atol=1e-6)
            assert alike is not name.startswith("critic."), name
        assert all(torch.equal(p, critic[name]) for name, p in trainer.critic.named_parameters())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 27.8])
def test_a_decay_that_is_none_is_refused(tmp_path: Path, decay: float) -> None:
    with pytest.raises(ConfigError, match="ema_decay"):
        make_config(tmp_path, ema_decay=decay)
