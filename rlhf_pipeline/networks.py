"""The networks of PPO: policy, critic and reward models, and which of them share a frozen base.

Full models are networks of their own. A LoRA policy shares its base with every reward model that is an adapter of the
same base, and with its critic, unless that is asked to start from a reward model that is a full one. (The reference is
TRL's copy of the policy's start, or the base with its adapter off.) Left out: training them (`ppo`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.decoding import stop_ids
from rlhf_pipeline.ensembles import Members, Reduction
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.jobs import say
from rlhf_pipeline.models import adapter_base, load_causal, load_classifier
from rlhf_pipeline.normalization import Normalization
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.guards import Guards
from rlhf_pipeline.ppo.shared import SharedCritic, SharedReward, fresh_adapter
from rlhf_pipeline.rewards import Reward, RewardFunction, load_rewards, members_of
from rlhf_pipeline.scoring import RewardModel, same_tokenizer
from rlhf_pipeline.sharding import loaded_whole

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CriticStart = Literal["auto", "reward", "policy"]


@dataclass(frozen=True)
class Networks:
    """What the trainer takes.

    `shared_rewards` are reward models behind the functions that share the policy's base, `frozen` those that do not.
    `zero_is_set`: no reward is a model whose scores have an arbitrary zero.
    """

    policy: PreTrainedModel
    critic: Critic | SharedCritic
    reward_functions: list[RewardFunction]
    shared_rewards: list[SharedReward]
    frozen: list[nn.Module]
    zero_is_set: bool


def load_networks(
    store: Store,
    start: Checkpoint,
    rewards: Sequence[Reward],
    tokenizer: PreTrainedTokenizerBase,
    critic: CriticStart,
    *,
    guards: Guards,
    peft_config: PeftConfig | None,
    weights: Sequence[float] | None = None,
    device: Any,
    bf16: bool,
    reduction: Reduction,
    options: Mapping[str, Any],
) -> Networks:
    """Load the networks for a policy that starts from `start`, with a fresh adapter where `peft_config` asks for one.

    `weights` are those of the rewards in their sum: a critic that starts from one of them predicts it so weighted.
    `options` go to `from_pretrained`; `bf16` autocasts reward models, `reduction` is how ensembles score. Raises
    ConfigError where the critic cannot start as asked, the policy's adapter is more than LoRA, or no ensemble is there.
    """
    policy: Any = load_causal(store, start, trainable=True, **options)
    base = adapter_base(store, start)
    lora = peft_config if base is None else policy.peft_config["default"]
    over = None if lora is None else base or start
    if lora is not None:
        need_lora_alone(lora)
    stops = stop_ids(policy, tokenizer)
    loading = {"over": over, "bf16": bf16, "reduction": reduction, **options}
    functions, models = load_rewards(store, rewards, tokenizer, stops, device, **loading)
    _need_ensemble(models, reduction)
    for model in models:
        guards.check("template", 0, template_problem(tokenizer, start, model))
    fitting = [model for model in models if same_tokenizer(model.tokenizer, tokenizer)]
    weight = {reward.name: number for reward, number in zip(rewards, weights or (), strict=False)}
    first: Critic | SharedCritic | None = _shared_critic(policy, lora, fitting, critic, start, weight)
    if first is None:
        first = _whole_critic(store, start, rewards, fitting, critic, weight, options)
    shared = [network for model in models for network in model.networks if isinstance(network, SharedReward)]
    for reward in shared:
        say(f"ppo: reward {reward.name.removeprefix('reward_')} shares the policy's base")
    frozen = [
        network
        for model in models
        for network in model.networks
        if isinstance(network, nn.Module) and not isinstance(network, SharedReward)
    ]
    zero_is_set = all(_zero_is_set(model) for model in models)
    return Networks(policy, first, functions, shared, frozen, zero_is_set)


def _need_ensemble(models: Sequence[RewardModel], reduction: Reduction) -> None:
    if reduction != Reduction() and all(model.members == 1 for model in models):
        raise ConfigError(
            "`ensemble_reduction` and `disagreement_coef` say how an ensemble scores, and no reward is one; name one "
            "with `--reward`, train one with `rlhf reward --ensemble_size 5`, or leave them out"
        )


def template_problem(tokenizer: PreTrainedTokenizerBase, start: Checkpoint, reward: RewardModel) -> str | None:
    """Look whether policy and reward model have one vocabulary and render chats in two ways."""
    other = reward.tokenizer
    if other.get_vocab() != tokenizer.get_vocab() or other.chat_template == tokenizer.chat_template:
        return None
    return (
        f"{start.parent} and reward model {reward.name} have the same vocabulary but another chat template: the reward "
        "model is given the text in its own; train one of them with `--chat_template_path` of the other"
    )


def _shared_critic(
    policy: Any,
    lora: Any,
    fitting: Sequence[RewardModel],
    critic: CriticStart,
    start: Checkpoint,
    weight: Mapping[str, float],
) -> SharedCritic | None:
    """Make a critic over the policy's base, or None where it has to be a network of its own."""
    if lora is None or type(policy.config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return None
    for reward in fitting:
        first = reward.networks[0]
        if isinstance(first, SharedReward) and critic != "policy":
            name = first.name.removeprefix("reward_")
            say(f"ppo: the critic starts from {name}, an adapter over the policy's base")
            shift = _first_shift(reward, len(first.adapter.head))
            made = SharedCritic(first.adapter.averaged(), "critic").normalised(shift)
            return made.scaled(weight.get(reward.name, 1.0))
    if critic == "reward":
        return None
    say(f"ppo: the critic is an adapter over the base of {start.parent}, with a head of zeros")
    return SharedCritic(fresh_adapter(lora, policy.config.get_text_config().hidden_size), "critic")


def _whole_critic(
    store: Store,
    start: Checkpoint,
    rewards: Sequence[Reward],
    fitting: Sequence[RewardModel],
    critic: CriticStart,
    weight: Mapping[str, float],
    options: Mapping[str, Any],
) -> Critic:
    """Load a critic of its own: a reward model with the policy's tokenizer and its head, or the policy.

    Of an ensemble it is the first member, of an ensemble of heads their backbone with the mean head.
    All its weights are trained, so they are never quantised, and float32 whatever the policy's dtype: small steps would
    vanish in bf16 weights.
    """
    options = {name: value for name, value in options.items() if name != "quantization_config"} | {"dtype": "float32"}
    if critic == "policy" or (critic == "auto" and not fitting):
        say(f"ppo: the critic starts from {start.parent} with a head of zeros")
        return Critic.from_policy(load_merged(load_causal, store, start, options))
    if not fitting:
        raise ConfigError("critic `reward`: no reward model has the policy's tokenizer; set critic to policy")
    [named, *_] = [reward.checkpoint for reward in rewards if reward.name == fitting[0].name]
    first = members_of(store, cast(Checkpoint, named))[0]
    say(f"ppo: the critic starts from {first.parent}")
    model = load_merged(load_classifier, store, first, options)
    shift = _first_shift(fitting[0], model.config.num_labels)  # also what lies beside an adapter or in an ensemble
    model.config.update(shift.to_config())
    return Critic.from_reward(model).scaled(weight.get(fitting[0].name, 1.0))


def _zero_is_set(reward: RewardModel) -> bool:
    return _first_shift(reward, 1) != Normalization()


def _first_shift(reward: RewardModel, heads: int) -> Normalization:
    """How the score of the first network is shifted, or the mean score of its `heads`."""
    if not isinstance(reward.model, Members):
        return reward.normalization
    return Normalization(fmean(reward.model.offsets[:heads]), fmean(reward.model.scales[:heads]))


def need_lora_alone(lora: Any) -> None:
    """Raise ConfigError where an adapter trains weights that critic, reference and rewards of its base would share."""
    for name in ("modules_to_save", "trainable_token_indices"):
        if getattr(lora, name, None):
            raise ConfigError(
                f"{name} {getattr(lora, name)}: reference and rewards share the policy's base, where such weights "
                "would move with the policy; leave it out, or `rlhf artifacts merge` the SFT model and train without it"
            )


def load_merged(load: Callable[..., Any], store: Store, checkpoint: Checkpoint, options: Mapping[str, Any]) -> Any:
    """Load a plain model with `load`: an adapter is merged into its base, on every process, which holds it whole."""
    if adapter_base(store, checkpoint) is None:
        return load(store, checkpoint, **options)
    with loaded_whole():
        return load(store, checkpoint, **options).merge_and_unload()
