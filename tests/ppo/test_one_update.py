"""Whole updates of our trainer against a plain PPO in torch, on the same rollouts, in float64.

`PlainPPO` knows transformers, peft and torch alone: left-padded rows with a mask and position ids, logits of every
position, a minibatch in one piece. It is given what chance decided: the sampled ids, their scores, the order of rows.
Left out: sampling itself, several processes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.shared import HeadedAdapter, SharedCritic
from tests.ppo.toy import Recorder, checksum, make_trainer
from tests.tiny import make_causal

TOLERANCE = 1e-8
"""Rotary and RMS layers of transformers round to float32 inside; seen are differences of 1e-15."""

STOPS = [1, *range(60, 90)]
ROWS, MINIBATCH = 8, 4
LAYOUT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
SETTINGS: dict[str, Any] = {
    "temperature": 0.7, "kl_coef": 0.3, "kl_estimator": "k1", "missing_eos_score": -1.0, "gamma": 0.98,
    "gae_lambda": 0.9, "epsilon": 0.1, "epsilon_high": 0.15, "cliprange_value": 0.1, "vf_coef": 0.4,
    "learning_rate": 4e-3, "critic_learning_rate": 1e-2, "adam_epsilon": 1e-5, "adam_beta2": 0.99, "weight_decay": 0.1,
    "max_grad_norm": 2.0, "num_iterations": 2, "max_steps": 8, "whiten_advantages": True, "whiten_rewards": False,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "k1": {},
    "k3": {"kl_estimator": "k3"},
    "k2, nothing whitened, SGD": {
        "kl_estimator": "k2", "whiten_advantages": False, "optim": "sgd", "learning_rate": 0.05,
        "critic_learning_rate": 0.02, "max_grad_norm": 3.0,
    },
    "adaptive, rewards whitened": {"kl_target": 1.0, "kl_horizon": 20.0, "whiten_rewards": True, "max_steps": 12},
}  # fmt: skip


class PlainPPO:
    """PPO of one policy and one critic; `logits`, `values`, `reference` take ids, mask and positions: (B, T, ...)."""

    def __init__(self, logits: Callable, values: Callable, reference: Callable, groups: list[dict], s: dict) -> None:
        self.logits, self.values, self.reference, self.s = logits, values, reference, s
        self.kl_coef, self.values_held = s["kl_coef"], 0
        self.parameters = [p for group in groups for p in group["params"]]
        adam = {"betas": (0.9, s["adam_beta2"]), "eps": s["adam_epsilon"]}
        self.optimizer = torch.optim.SGD(groups) if "optim" in s else torch.optim.AdamW(groups, **adam)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / s["max_steps"])

    def forward(self, network: Callable, rows: dict[str, Tensor]) -> Tensor:
        """What `network` says where the completion tokens are predicted: (B, C, ...)."""
        mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        said = network(input_ids=ids, attention_mask=mask, position_ids=positions)
        return said[:, rows["prompt_ids"].size(1) - 1 : -1]

    def logprobs(self, network: Callable, rows: dict[str, Tensor]) -> Tensor:
        probabilities = (self.forward(network, rows) / self.s["temperature"]).softmax(-1)
        return probabilities.gather(2, rows["completion_ids"][..., None])[..., 0].log()

    def rewards(self, rollout: dict[str, Tensor], scores: list[float], log_ratio: Tensor) -> Tensor:
        """Penalise every token and score the last one; then the coefficient moves."""
        estimate = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": torch.exp(-log_ratio) - 1 + log_ratio}
        rewards = -self.kl_coef * estimate[self.s["kl_estimator"]]
        lengths = rollout["completion_mask"].sum(1).tolist()
        for row, length in enumerate(lengths):
            ended = int(rollout["completion_ids"][row, length - 1]) in STOPS
            rewards[row, length - 1] += scores[row] if ended else self.s["missing_eos_score"]
        if "kl_target" in self.s:
            kl = sum(float(log_ratio[row, :length].sum()) for row, length in enumerate(lengths)) / ROWS
            error = max(-0.2, min(0.2, (kl - self.s["kl_target"]) / self.s["kl_target"]))
            self.kl_coef *= 1 + error * ROWS / self.s["kl_horizon"]
        return rewards

    def advantages(self, rewards: Tensor, values: Tensor, real: Tensor) -> Tensor:
        """Sum the discounted errors ahead of every token, row by row."""
        gamma, lam = self.s["gamma"], self.s["gae_lambda"]
        found = torch.zeros_like(rewards)
        for row, length in enumerate(real.sum(1).tolist()):
            r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
            errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
            for t in range(length):
                found[row, t] = sum((gamma * lam) ** (k - t) * errors[k] for k in range(t, length))
        return found

    def update(self, rollout: dict[str, Tensor], scores: list[float], orders: list[Tensor]) -> dict[str, Tensor]:
        """Learn from one rollout; `orders` are the permutations of its rows, one an epoch."""
        real = rollout["completion_mask"].bool()
        with torch.no_grad():
            old, values = self.logprobs(self.logits, rollout), self.forward(self.values, rollout)
            rewards = self.rewards(rollout, scores, old - self.logprobs(self.reference, rollout))
            if self.s["whiten_rewards"]:
                mean, variance = rewards[real].mean(), rewards[real].var(correction=0)
                rewards = (rewards - mean) / torch.sqrt(variance + 1e-8) + mean
            advantages = self.advantages(rewards, values, real)
            returns = advantages + values
            if self.s["whiten_advantages"]:
                variance = advantages[real].var(correction=0)
                advantages = (advantages - advantages[real].mean()) / torch.sqrt(variance + 1e-8)
        tensors = {**rollout, "old": old, "v": values, "advantages": advantages, "returns": returns, "real": real}
        for order in orders:
            for places in order.split(MINIBATCH):
                self.step({name: x[places] for name, x in tensors.items()})
        return {name: torch.where(real, tensors[name], 0.0) for name in ("advantages", "returns")}

    def step(self, rows: dict[str, Tensor]) -> None:
        """Take one minibatch: both clipped losses a token, one backward pass, one clipped step."""
        s, a, r = self.s, rows["advantages"], rows["returns"]
        ratio = torch.exp(self.logprobs(self.logits, rows) - rows["old"])
        policy_loss = -torch.min(ratio * a, ratio.clamp(1 - s["epsilon"], 1 + s["epsilon_high"]) * a)
        v = self.forward(self.values, rows)
        near = rows["v"] + (v - rows["v"]).clamp(-s["cliprange_value"], s["cliprange_value"])
        value_loss = torch.max((v - r) ** 2, (near - r) ** 2) / 2
        self.values_held += int(((near - r) ** 2 > (v - r) ** 2)[rows["real"]].sum())
        self.optimizer.zero_grad()
        (policy_loss + s["vf_coef"] * value_loss)[rows["real"]].mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, s["max_grad_norm"])
        self.optimizer.step()
        self.schedule.step()


def groups_of(policy: nn.Module, critic: nn.Module, s: dict[str, Any]) -> list[dict[str, Any]]:
    """Each network at its own rate; matrices decay, vectors do not."""
    groups = []
    for network, rate in ((policy, s["learning_rate"]), (critic, s["critic_learning_rate"])):
        trained = [p for p in network.parameters() if p.requires_grad]
        for matrices, decay in ((True, s["weight_decay"]), (False, 0.0)):
            params = [p for p in trained if (p.ndim > 1) == matrices]
            groups.append({"params": params, "lr": rate, "weight_decay": decay})
    return groups


def recorded(folder: Path, case: dict[str, Any], **networks: Any) -> tuple[Recorder, list[list[float]]]:
    """A trainer of ours that also keeps what chance decided: scores of every rollout, order of rows in every epoch."""
    scores: list[list[float]] = []

    def score(completions: list[str], **_: Any) -> list[float]:
        scores.append(checksum(completions))
        return scores[-1]

    settings = {**SETTINGS, "lr_scheduler_type": "linear", "max_completion_length": 10, **LAYOUT, **case}
    trainer = make_trainer(folder, reward_funcs=[score], **networks, **settings)
    arrange = trainer.arrange

    def arrange_and_keep(rollout: dict[str, Any]) -> list[dict[str, Any]]:
        state = torch.get_rng_state()
        trainer.rollouts[-1].setdefault("orders", []).append(torch.randperm(ROWS))
        torch.set_rng_state(state)
        return arrange(rollout)

    trainer.arrange = arrange_and_keep
    return trainer, scores


def assert_same_updates(trainer: Recorder, scores: list[list[float]], plain: PlainPPO, pairs: dict[str, Any]) -> None:
    """Train ours, then the plain one on its rollouts: advantages, returns and parameters must be equal."""
    start = {name: ours.detach().clone() for name, (ours, _) in pairs.items()}
    assert all(torch.equal(start[name], theirs) for name, (_, theirs) in pairs.items())
    trainer.train()
    for rollout, of_rollout in zip(trainer.rollouts, scores, strict=True):
        ids = {name: x for name, x in rollout.items() if name.endswith(("_ids", "_mask"))}
        for name, expected in plain.update(ids, of_rollout, rollout["orders"]).items():
            torch.testing.assert_close(rollout[name], expected, atol=TOLERANCE, rtol=0)
    gap = {}
    for name, (ours, theirs) in pairs.items():
        gap[name] = float((ours.detach() - theirs.detach()).abs().max())
        assert (ours.detach() - start[name]).abs().max() > 1000 * TOLERANCE, f"{name} has not moved"
    assert max(gap.values()) < TOLERANCE, {name: x for name, x in gap.items() if x >= TOLERANCE}
    assert plain.values_held > 0
    assert_case_is_hard(trainer)


def assert_case_is_hard(trainer: Recorder) -> None:
    """What the updates are to show must have happened in them."""
    seen = trainer.seen
    assert 0 < sum(seen["eos_fraction"]) < len(seen["eos_fraction"]), "no completion ended, or all did"
    assert max(abs(x) for x in seen["kl_nats"]) > 0.1
    assert max(seen["clip_fraction"]) > 0.05
    norms = [math.hypot(*pair) for pair in zip(seen["policy_grad_norm"], seen["critic_grad_norm"], strict=True)]
    assert min(norms) < trainer.args.max_grad_norm < max(norms), "the clip must bite, but not always"
    assert len({tuple(order.tolist()) for rollout in trainer.rollouts for order in rollout["orders"]}) > 2


def shaken(model: Any, seed: int, std: float = 0.15) -> Any:
    """Give matrices other weights, so that distributions and values are far from flat."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
    return model


def save_networks(architecture: str, folder: Path) -> None:
    """Save a reference in `policy`, with many stop tokens, and a reward model."""
    reference = shaken(make_causal(architecture, folder / "policy"), seed=1)
    reference.generation_config.eos_token_id = STOPS
    reference.save_pretrained(folder / "policy")
    config = AutoConfig.from_pretrained(folder / "policy", num_labels=1)
    shaken(AutoModelForSequenceClassification.from_config(config), seed=2).save_pretrained(folder / "reward")


def load(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, dtype=torch.float64)


@pytest.mark.parametrize(("architecture", "case"), [("llama", "k1"), *(("gpt2", case) for case in CASES)])
def test_two_networks(tmp_path: Path, architecture: str, case: str) -> None:
    """Policy and critic apart, the policy away from its reference from the start."""
    save_networks(architecture, tmp_path)
    reference, policy = (load(AutoModelForCausalLM, tmp_path / "policy") for _ in range(2))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    ours, critic = copy.deepcopy(policy), Critic.from_reward(tmp_path / "reward", dtype=torch.float64)
    reward = load(AutoModelForSequenceClassification, tmp_path / "reward")
    trainer, scores = recorded(tmp_path, CASES[case], model=ours, critic=critic)
    trainer.ref_model.double()  # TRL 1.14 loads the reference in float32 whatever the policy has
    s = {**SETTINGS, **CASES[case]}
    plain = PlainPPO(
        lambda **rows: policy(**rows).logits,
        lambda **rows: reward.score(reward.base_model(**rows).last_hidden_state)[..., 0],
        lambda **rows: reference(**rows).logits,
        groups_of(policy, reward, s),
        s,
    )
    pairs = {name: (ours.get_parameter(name), p) for name, p in policy.named_parameters()}
    for name, p in reward.base_model.named_parameters():
        pairs[f"critic.{name}"] = critic.backbone.get_parameter(name), p
    pairs["critic.head"] = critic.head.weight, reward.score.weight
    assert_same_updates(trainer, scores, plain, pairs)


def lora(task: str | None = None) -> LoraConfig:
    """An adapter that changes something from the start."""
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type=task)


def adapter_pairs(trainer: Recorder, policy: nn.Module, values: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair our adapters with those of two plain networks, which take over their weights."""
    pairs = {}
    for name, ours in trainer.model.named_parameters():
        if ".default." in name:
            pairs[name] = ours, policy.get_parameter(name)
        elif ".critic." in name:  # peft names what lies inside a bare backbone without the language model's `model.`
            plain_name = name.replace(".critic.", ".default.").replace("model.model.model.", "model.model.")
            pairs[name] = ours, values.get_parameter(plain_name)
    for ours, theirs in pairs.values():
        theirs.data.copy_(ours.data)
    return pairs


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, in the tests' hands
@pytest.mark.parametrize("start", ["fresh adapter", "adapter of SFT"])
def test_adapters_over_one_base(tmp_path: Path, start: str) -> None:
    """Policy, reference and critic over one frozen base, against three networks; the reference is where it started."""
    save_networks("llama", tmp_path)
    base, under_policy = (load(AutoModelForCausalLM, tmp_path / "policy") for _ in range(2))
    torch.manual_seed(3)
    policy, values = get_peft_model(under_policy, lora("CAUSAL_LM")), get_peft_model(copy.deepcopy(base.model), lora())
    head = nn.Linear(16, 1, bias=False).double()
    critic = SharedCritic(HeadedAdapter(lora("SEQ_CLS"), {}, head.weight.detach().clone()), "critic").double()
    if start == "fresh adapter":
        given: dict[str, Any] = {"model": copy.deepcopy(base), "peft_config": lora("CAUSAL_LM")}
        reference = base
    else:
        given = {"model": copy.deepcopy(policy)}
        reference = copy.deepcopy(policy)
    case = {"learning_rate": 2e-2}
    trainer, scores = recorded(tmp_path, case, critic=critic, **given)
    plain = PlainPPO(
        lambda **rows: policy(**rows).logits,
        lambda **rows: head(values(**rows).last_hidden_state)[..., 0],
        lambda **rows: reference(**rows).logits,
        groups_of(policy, nn.ModuleList([values, head]), {**SETTINGS, **case}),
        SETTINGS,
    )
    pairs = {**adapter_pairs(trainer, policy, values), "critic.head": (critic.head.weight, head.weight)}
    assert len(pairs) == 2 * 2 * 2 * 3 + 1  # networks, layers, A and B, projections; the head
    assert_same_updates(trainer, scores, plain, pairs)
