"""Optimise a policy against a reward with PPO.

In: a policy to start from, this run's `sft` unless `model` names another; a reward, this run's `reward` unless `reward`
names others; prompts. Out: two artifacts, `policy` and `critic`, whose refs move together. The reference is the policy
that training starts from. Left out: tools, images, vLLM, adaptive KL, a pretraining-loss term.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, is_main_process, need_data, say
from rlhf_pipeline.ppo.fields import PPOFields
from rlhf_pipeline.records import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.encoding import LongRow
    from rlhf_pipeline.ppo.critic import Critic
    from rlhf_pipeline.ppo.trainer import PPOTrainer
    from rlhf_pipeline.rewards import Reward
    from rlhf_pipeline.scoring import RewardModel

SHOWN = (
    "ppo/score", "ppo/kl_nats", "ppo/completion_tokens", "ppo/eos_fraction", "ppo/value_loss",
    "ppo/explained_variance", "ppo/clip_fraction", "ppo/policy_grad_norm", "ppo/critic_grad_norm",
)  # fmt: skip
HELD_OUT = ("score", "kl_nats", "completion_tokens", "eos_fraction")
REFERENCE_COPY = "ref"
"""The folder in which peft saves TRL's frozen copy of the adapter that training starts from."""


@dataclass(frozen=True)
class PPOSettings(StageSettings):
    """Our own settings of the stage; those of ppo.PPOConfig, TRL's GRPOConfig and trl.ModelConfig stand beside them."""

    model: str = field(
        default="sft", metadata={"help": "artifact, folder or hub id to start from; default: this run's `sft`"}
    )
    reward: list[str] = field(
        default_factory=lambda: ["reward"],
        metadata={"help": "artifact, folder, hub id or file.py:function; several are summed by reward_weights"},
    )
    critic: Literal["auto", "reward", "policy"] = field(
        default="auto",
        metadata={"help": "start of the critic; auto: the first reward model with the policy's tokenizer, else policy"},
    )
    data: str = field(default="", metadata={"help": "prompts: a file, a folder of `datasets`, or a hub id"})
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})
    max_prompt_tokens: int | None = field(
        default=None, metadata={"help": "longest prompt; default: what the model holds beside max_completion_length"}
    )


def main(argv: list[str]) -> int:
    """Run `rlhf ppo`; returns the exit status."""
    if asks_for_help(argv, "ppo", __doc__, "trl.GRPOConfig", PPOSettings, PPOFields):
        return 0
    asked = read_settings(argv)
    settings = take(PPOSettings, asked)
    need_data(settings.data, "ppo", "prompts")
    from rlhf_pipeline.rewards import find_reward

    store = Store(settings.artifacts)
    rows = read(settings.data, Prompt, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    start = find_checkpoint(store, settings.model, settings.run, hub_revision(asked))
    rewards = [find_reward(store, text, settings.run) for text in settings.reward]
    job = Job("ppo", store, settings, asked, parents(start, rewards), {"prompts": rows.fingerprint, **sources(rewards)})
    if not job.answered("policy", "critic"):
        run(job, settings, asked, rows, start, rewards)
    return 0


def run(
    job: Job,
    settings: PPOSettings,
    asked: Mapping[str, Setting],
    rows: Rows[Prompt],
    start: Checkpoint,
    rewards: Sequence[Reward],
) -> None:
    """Train on the prompts of `rows` from `start`, and publish; nothing is written before every input is checked."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import get_peft_config

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.generation import stop_ids
    from rlhf_pipeline.models import check_causal, load_causal, load_config, load_tokenizer, loading_options
    from rlhf_pipeline.ppo.config import PPOConfig, refuse_fixed
    from rlhf_pipeline.ppo.trainer import PPOTrainer
    from rlhf_pipeline.prepared import prepare, report, room
    from rlhf_pipeline.rewards import load_rewards
    from rlhf_pipeline.tokenization import make_fit

    refuse_fixed(asked)
    arguments, model_config = trainer_arguments(PPOConfig, asked, PPOSettings, job.checkpoints, {})
    if "per_device_eval_batch_size" not in asked:
        arguments.per_device_eval_batch_size = arguments.per_device_train_batch_size
    refuse_second_adapter(start, model_config.use_peft)
    config = load_config(adapted_base(job.store, start), arguments.trust_remote_code)
    check_causal(config, start.location)
    tokenizer = load_tokenizer(start, arguments.trust_remote_code)
    make_fit(tokenizer, may_grow=False)
    longest = prompt_room(room(config, None), int(arguments.max_completion_length or 0), settings.max_prompt_tokens)
    encode = prompt_encoder(tokenizer, longest, settings.on_long_row)
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=arguments.seed)
    say(f"ppo: {arguments.describe_batches()}")

    set_seed(arguments.seed)
    options = loading_options(model_config, arguments.trust_remote_code)
    policy = load_causal(job.store, start, trainable=True, **options)
    if start.revision is not None:  # TRL loads the reference by the policy's name
        arguments.model_init_kwargs = {"revision": start.revision}
    stops = stop_ids(policy, tokenizer)
    functions, models = load_rewards(job.store, rewards, tokenizer, stops, arguments.device, **options)

    with job.working():
        start = start.kept_in(job.store)
        for reward in rewards:
            if reward.checkpoint is not None:
                reward.checkpoint.kept_in(job.store)
        trainer = PPOTrainer(
            model=policy,
            critic=first_critic(job.store, settings, start, models, tokenizer, options),
            reward_funcs=functions,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_config),
        )
        train_and_publish_both(trainer, tokenizer, job, model_config, start, report(job, rows, prepared))


def parents(start: Checkpoint, rewards: Sequence[Reward]) -> dict[str, str]:
    """Name what the policy descends from: where it starts, and every reward model."""
    placed = [(n, reward.checkpoint.parent) for n, reward in enumerate(rewards) if reward.checkpoint is not None]
    return {"start": start.parent, **{f"reward{n or ''}": parent for n, parent in placed}}


def sources(rewards: Sequence[Reward]) -> dict[str, str]:
    """Name every reward function, by its place among the rewards, with the hash of its file, for the input key."""
    placed = enumerate(rewards)
    return {f"reward{n or ''}:{reward.name}": reward.fingerprint for n, reward in placed if reward.function is not None}


def prompt_room(positions: int, completion: int, asked: int | None) -> int:
    """Tokens a prompt may have: what the model's positions leave beside a completion, or fewer where asked."""
    left = positions - completion
    if left < 1:
        raise ConfigError(
            f"max_completion_length {completion} leaves no room for a prompt in the model's {positions} positions; "
            f"set it below {positions}"
        )
    return left if asked is None else min(left, asked)


def prompt_encoder(
    tokenizer: PreTrainedTokenizerBase, longest: int, on_long_row: Literal["error", "skip", "truncate"]
) -> Callable[[Prompt, str], list[dict[str, Any]] | LongRow]:
    """Fit a prompt into `longest` tokens; TRL encodes it, by the rules of `encoding.encode_prompt`."""
    from rlhf_pipeline.encoding import LongRow, fit

    kinds: set[type] = set()

    def encode(record: Prompt, where: str) -> list[dict[str, Any]] | LongRow:
        kinds.add(type(record.prompt))
        if len(kinds) > 1:
            raise DataError(f"{where}: plain text and messages in one file; TRL reads one or the other, so split it")
        fitted = fit(tokenizer, record.prompt, 0, longest, where, on_long_row)
        if isinstance(fitted, LongRow):
            return fitted
        return [{"prompt": fitted, "facts": json.dumps(record.facts)}]

    return encode


def first_critic(
    store: Store,
    settings: PPOSettings,
    start: Checkpoint,
    models: Sequence[RewardModel],
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any],
) -> Critic:
    """Load the critic's first weights: a reward model with the policy's tokenizer and its head, or the policy.

    All of them are trained, so they are never quantised, and float32 whatever the policy's dtype: small steps would
    vanish in bf16 weights.
    """
    from rlhf_pipeline.models import load_causal, load_classifier
    from rlhf_pipeline.ppo.critic import Critic
    from rlhf_pipeline.scoring import same_tokenizer

    options = {name: value for name, value in options.items() if name != "quantization_config"} | {"dtype": "float32"}
    fitting = [model for model in models if same_tokenizer(model.tokenizer, tokenizer)]
    if settings.critic == "policy" or (settings.critic == "auto" and not fitting):
        say(f"ppo: the critic starts from {start.parent} with a head of zeros")
        return Critic.from_policy(merged(load_causal(store, start, **options)))
    if not fitting:
        raise ConfigError("critic `reward`: no reward model has the policy's tokenizer; set critic to policy")
    say(f"ppo: the critic starts from {fitting[0].name}")
    checkpoint = find_checkpoint(store, fitting[0].name, settings.run)
    return Critic.from_reward(merged(load_classifier(store, checkpoint, **options)))


def merged(model: Any) -> Any:
    """Return a plain model: an adapter is merged into its base."""
    from accelerate.utils import is_peft_model

    return model.merge_and_unload() if is_peft_model(model) else model


def train_and_publish_both(
    trainer: PPOTrainer,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    model_config: Any,
    start: Checkpoint,
    counts: Mapping[str, int],
) -> None:
    """Train (or go on), evaluate on held-out prompts, and publish policy and critic together. Every rank calls this."""
    from rlhf_pipeline.arguments import resolved
    from rlhf_pipeline.ppo.trainer import CRITIC_FOLDER
    from rlhf_pipeline.progress import train, watch
    from rlhf_pipeline.training import checkpoints_at_once, finite, save, trained_parameters

    watch(trainer, job, SHOWN)
    parameters = trained_parameters(trainer)
    job.need_space(parameters, checkpoints_at_once(trainer))
    train(trainer, job)
    metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
    say(f"ppo: {held_out_line(metrics)}")
    job.need_space(parameters, 0)
    with job.store.staging() as staged:
        policy, critic = staged / "policy", staged / "critic"
        save(trainer, policy, adapted_base(job.store, start))
        if is_main_process():
            (policy / CRITIC_FOLDER).rename(critic)
            shutil.rmtree(policy / REFERENCE_COPY, ignore_errors=True)
            tokenizer.save_pretrained(critic)
            config = resolved(trainer.args, model_config)
            numbers = {**finite(metrics), **counts, "steps": trainer.state.global_step}
            job.publish({"policy": policy, "critic": critic}, config=config, metrics=numbers)
    trainer.accelerator.wait_for_everyone()


def held_out_line(metrics: Mapping[str, float]) -> str:
    """Say in one line what the policy does on held-out prompts, with 95 % intervals over prompts."""
    shown = {name: metrics.get(f"eval_ppo/{name}") for name in HELD_OUT}
    widths = {name: metrics.get(f"eval_ppo/{name}_ci95") for name in HELD_OUT}
    parts = [
        f"{name} {value:.4g}" + ("" if widths[name] is None else f" ± {widths[name]:.2g}")
        for name, value in shown.items()
        if value is not None
    ]
    return "held out: " + ("  ".join(parts) or "nothing")


def refuse_second_adapter(start: Checkpoint, use_peft: bool) -> None:
    """Raise `ConfigError` where a fresh adapter is asked for on top of one: PPO goes on with that one."""
    from rlhf_pipeline.models import adapter_base_name

    if use_peft and adapter_base_name(start.location) is not None:
        raise ConfigError(
            f"use_peft: {start.parent} is a LoRA adapter, and PPO goes on with it; leave use_peft out, or type "
            f"`rlhf artifacts merge {start.parent}` and pass the id it prints with `--model`"
        )


def adapted_base(store: Store, start: Checkpoint) -> Checkpoint:
    """The checkpoint that an adapter over `start` adapts: the base of `start` where that is an adapter itself."""
    from rlhf_pipeline.models import ADAPTER_CONFIG, adapter_base_name

    name = adapter_base_name(start.location)
    if name is None:
        return start
    revision = json.loads((Path(start.location) / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("revision")
    return find_checkpoint(store, name, run="", revision=revision)
