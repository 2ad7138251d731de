"""The critic's own learning rate, and a policy that rests while the critic warms up."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import get_scheduler

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.optimizer import give_own_rate, rest_all_but


def networks() -> tuple[nn.Linear, nn.Linear, torch.optim.Optimizer]:
    policy, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    weights = [policy.weight, critic.weight]
    biases = [policy.bias, critic.bias]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    return policy, critic, torch.optim.AdamW(groups, lr=1e-3)


def rates(optimizer: torch.optim.Optimizer, module: nn.Module) -> set[float]:
    mine = {id(p) for p in module.parameters()}
    return {group["lr"] for group in optimizer.param_groups if any(id(p) in mine for p in group["params"])}


def test_own_rate_keeps_weight_decay_and_every_parameter() -> None:
    policy, critic, optimizer = networks()
    give_own_rate(optimizer, critic.parameters(), 5e-3)
    assert rates(optimizer, policy) == {1e-3}
    assert rates(optimizer, critic) == {5e-3}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in (policy.weight, critic.weight, policy.bias, critic.bias)] == [0.1, 0.1, 0.0, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_without_a_rate_the_critic_keeps_the_common_one() -> None:
    _, critic, optimizer = networks()
    give_own_rate(optimizer, critic.parameters(), None)
    assert rates(optimizer, critic) == {1e-3}


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_policy_rests_then_moves_at_the_rate_it_would_have_had(kind: str) -> None:
    policy, critic, optimizer = networks()
    give_own_rate(optimizer, critic.parameters(), None)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=10)
    rest_all_but(scheduler, critic.parameters(), 2)
    before = policy.weight.detach().clone()
    for step in range(4):
        (of_policy,), (of_critic,) = rates(optimizer, policy), rates(optimizer, critic)
        assert of_policy == (0 if step < 2 else of_critic)
        (policy(torch.ones(1, 2)).sum() + critic(torch.ones(1, 2)).sum()).backward()
        optimizer.step()
        scheduler.step()
        assert torch.equal(policy.weight, before) == (step < 2)


def test_a_schedule_that_cannot_rest_is_refused() -> None:
    _, critic, optimizer = networks()
    with pytest.raises(ConfigError, match="ReduceLROnPlateau"):
        rest_all_but(ReduceLROnPlateau(optimizer), critic.parameters(), 2)
