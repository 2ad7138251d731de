"""The networks that a stage holds: which are trained, which are frozen, and which stand on one base.

What the stages hold, read from `stages` and `ppo` (docs/ppo.md, "LoRA: four networks over one base"). Left out: several
reward models, and a policy that starts from an adapter (its reference is one more adapter, which is small).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.store import MAKES
from rlhf_pipeline.bases import find_checkpoint
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.launch.plan.networks import Network, adapter, read_network
from rlhf_pipeline.launch.plan.settings import PlanSettings


@dataclass(frozen=True)
class Role:
    """One network: its shape, and the sizes of the parameters that are its own, trained or frozen.

    `rank`: that of its LoRA adapter, 0 without. `full_width`: trained in float32 whatever `dtype` says. `apart`: below
    ZeRO-3 it is part of no engine, so that DeepSpeed leaves it as it was loaded.
    """

    name: str
    network: Network
    trained: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()
    rank: int = 0
    full_width: bool = False
    apart: bool = False

    @property
    def gathered(self) -> int:
        """Numbers that a pass needs: its own, and those of the base where it stands on one (a head twice)."""
        own = sum(self.trained) + sum(self.frozen)
        return own if own >= self.network.count else own + self.network.count


@dataclass(frozen=True)
class Shapes:
    """The networks that the settings name: with a language head, and with one output."""

    policy: Network
    policy_scalar: Network
    reward: Network


def read_shapes(settings: PlanSettings) -> Shapes:
    """Read every config that the plan needs; raises ModelError or ArtifactError where a model is not to be found."""
    location, revision = _locate(settings, settings.model)
    policy = read_network(location, revision=revision)
    scalar = read_network(location, scalar=True, revision=revision)
    if not settings.reward:
        return Shapes(policy, scalar, scalar)
    location, revision = _locate(settings, settings.reward)
    return Shapes(policy, scalar, read_network(location, scalar=True, revision=revision))


def _locate(settings: PlanSettings, model: str) -> tuple[str, str | None]:
    """Find a config.json or a folder as it is, without hashing it; all else as the stages find it."""
    if model not in MAKES and Path(model).exists():
        return model, None
    if model.endswith(".json"):
        raise ModelError(f"model: no file {model}; name a folder with a config.json, the file itself, or a hub id")
    found = find_checkpoint(Store(settings.artifacts), model, settings.run)
    return found.location, found.revision


def stage_roles(settings: PlanSettings, shapes: Shapes) -> list[Role]:
    """Return the networks of the stage, the one that is trained first."""
    if settings.stage == "ppo":
        return _ppo_with_lora(settings, shapes) if settings.use_peft else _ppo(settings, shapes)
    network = shapes.policy if settings.stage == "sft" else shapes.policy_scalar
    name = "policy" if settings.stage == "sft" else "reward"
    if not settings.use_peft:
        return [Role(name, network, trained=network.parameters)]
    head = () if settings.stage == "sft" else (network.width,)
    return [_adapted(name, network, settings, head)]


def _ppo(settings: PlanSettings, shapes: Shapes) -> list[Role]:
    """Four networks of their own; the critic is loaded in float32 whatever the policy's dtype."""
    critic = shapes.policy_scalar if settings.critic == "policy" else shapes.reward
    return [
        Role("policy", shapes.policy, trained=shapes.policy.parameters),
        Role("critic", critic, trained=critic.parameters, full_width=True),
        Role("reference", shapes.policy, frozen=shapes.policy.parameters),
        Role("reward", shapes.reward, frozen=shapes.reward.parameters, apart=True),
    ]


def _ppo_with_lora(settings: PlanSettings, shapes: Shapes) -> list[Role]:
    """Adapters over one frozen base; a reward model, and a critic that starts from it, may be networks of their own."""
    policy = _adapted("policy", shapes.policy, settings)
    matrices = (*adapter(shapes.policy_scalar, settings.lora_r, settings.lora_target_modules), shapes.policy.width)
    whole_critic = bool(settings.reward) and settings.critic == "reward"
    if whole_critic:
        critic = Role("critic", shapes.reward, trained=shapes.reward.parameters, full_width=True)
    else:
        critic = Role("critic", shapes.policy_scalar, trained=matrices, rank=settings.lora_r)
    own = shapes.reward.parameters if settings.reward else matrices
    reward = Role("reward", shapes.reward, frozen=own, apart=bool(settings.reward))
    return [policy, critic, Role("reference", shapes.policy), reward]


def _adapted(name: str, network: Network, settings: PlanSettings, head: tuple[int, ...] = ()) -> Role:
    matrices = adapter(network, settings.lora_r, settings.lora_target_modules)
    base = list(network.parameters)
    for size in head:
        base.remove(size)
    return Role(name, network, (*matrices, *head), tuple(base), rank=settings.lora_r)
