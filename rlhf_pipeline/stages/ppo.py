"""Optimise a policy against a reward with PPO.

In: a policy to start from, this run's `sft` unless `model` names another; a reward, this run's `reward` unless `reward`
names others; prompts; pretraining text where `ptx_coef` asks for it. Out: two artifacts, `policy` and `critic`, whose
refs move together. The reference is the policy that training starts from. Left out: tools, images.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from rlhf_pipeline.ppo.presets import describe, with_preset
from rlhf_pipeline.records import Document, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.encoding import LongRow
    from rlhf_pipeline.networks import Networks
    from rlhf_pipeline.ppo.config import PPOConfig
    from rlhf_pipeline.ppo.trainer import PPOTrainer
    from rlhf_pipeline.prepared import Prepared
    from rlhf_pipeline.rewards import Reward

SHOWN = (
    "ppo/score", "ppo/disagreement", "ppo/kl_nats", "ppo/completion_tokens", "ppo/eos_fraction", "ppo/value_loss",
    "ppo/explained_variance", "ppo/clip_fraction", "ppo/policy_grad_norm", "ppo/critic_grad_norm",
)  # fmt: skip
HELD_OUT = ("score", "disagreement", "kl_nats", "completion_tokens", "eos_fraction")


@dataclass(frozen=True)
class PPOSettings(StageSettings):
    """Our own settings of the stage; those of ppo.PPOConfig, TRL's GRPOConfig and trl.ModelConfig stand beside them."""

    preset: Literal["instructgpt", "tldr"] | None = field(
        default=None, metadata={"help": "settings of a paper, below the file and the command line"}
    )
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
    ptx_data: str = field(default="", metadata={"help": "documents for the pretraining loss, with ptx_coef"})
    max_prompt_tokens: int | None = field(
        default=None, metadata={"help": "longest prompt; default: what the model holds beside max_completion_length"}
    )


def main(argv: list[str]) -> int:
    """Run `rlhf ppo`; returns the exit status."""
    if asks_for_help(argv, "ppo", __doc__, "trl.GRPOConfig", PPOSettings, PPOFields):
        return 0
    asked = read_settings(argv)
    settings = take(PPOSettings, asked)
    if settings.preset is not None:
        asked = with_preset(asked, settings.preset)
        say(describe(settings.preset))
    need_data(settings.data, "ppo", "prompts")
    from rlhf_pipeline.rewards import find_reward

    store = Store(settings.artifacts)
    rows = read(settings.data, Prompt, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    text = read(settings.ptx_data, Document, on_bad_row=settings.on_bad_row) if settings.ptx_data else None
    start = find_checkpoint(store, settings.model, settings.run, hub_revision(asked))
    rewards = [find_reward(store, text, settings.run) for text in settings.reward]
    data = {"prompts": rows.fingerprint, **sources(rewards), **({} if text is None else {"ptx": text.fingerprint})}
    job = Job("ppo", store, settings, asked, parents(start, rewards), data)
    if not job.answered("policy", "critic"):
        run(job, settings, asked, rows, text, start, rewards)
    return 0


def run(
    job: Job,
    settings: PPOSettings,
    asked: Mapping[str, Setting],
    rows: Rows[Prompt],
    text: Rows[Document] | None,
    start: Checkpoint,
    rewards: Sequence[Reward],
) -> None:
    """Train on the prompts of `rows` from `start`, and publish; nothing is written before every input is checked."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import get_peft_config

    from rlhf_pipeline.models import adapter_base, check_causal, load_config, load_tokenizer
    from rlhf_pipeline.ppo.trainer import PPOTrainer
    from rlhf_pipeline.prepared import prepare, report, room
    from rlhf_pipeline.tokenization import make_fit
    from rlhf_pipeline.training import refuse_second_adapter

    arguments, model_config = ppo_arguments(job.checkpoints, asked)
    refuse_second_adapter(start, model_config.use_peft)
    config = load_config(adapter_base(job.store, start) or start, arguments.trust_remote_code)
    check_causal(config, start.location)
    tokenizer = load_tokenizer(start, arguments.trust_remote_code)
    make_fit(tokenizer, may_grow=False)
    completion = int(arguments.max_completion_length or 0)
    longest = prompt_room(room(config, None), completion, settings.max_prompt_tokens)
    encode = prompt_encoder(tokenizer, longest, settings.on_long_row)
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=arguments.seed)
    say(f"ppo: {arguments.describe_batches()}")

    set_seed(arguments.seed)
    row_tokens = longest_prompt(tokenizer, prepared) + completion
    networks = first_networks(job, settings, start, rewards, tokenizer, arguments, model_config, row_tokens)

    with job.working():
        start = kept(job, start, rewards)
        trainer = PPOTrainer(
            model=networks.policy,
            critic=networks.critic,
            reward_funcs=networks.reward_functions,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_config),
            pretraining_rows=text_rows(tokenizer, text, row_tokens),
            shared_rewards=networks.shared_rewards,
            frozen=networks.frozen,
        )
        train_and_publish_both(trainer, tokenizer, job, model_config, start, report(job, rows, prepared))


def first_networks(
    job: Job,
    settings: PPOSettings,
    start: Checkpoint,
    rewards: Sequence[Reward],
    tokenizer: PreTrainedTokenizerBase,
    arguments: PPOConfig,
    model_config: Any,
    row_tokens: int,
) -> Networks:
    """Load what training starts from, and tell TRL what it loads by itself."""
    from trl import get_peft_config

    from rlhf_pipeline.networks import load_networks
    from rlhf_pipeline.ppo.guards import Guards

    networks = load_networks(
        job.store, start, rewards, tokenizer, settings.critic, device=arguments.device, bf16=bool(arguments.bf16),
        peft_config=get_peft_config(model_config), weights=arguments.reward_weights, reduction=arguments.reduction,
        guards=Guards(arguments.guards, loud=is_main_process()),
        options=network_options(arguments, model_config, row_tokens),
    )  # fmt: skip
    follow_start(arguments, start, row_tokens, networks.policy)
    if not networks.zero_is_set:
        warn_of_zero(arguments.missing_eos_score)
    return networks


def kept(job: Job, start: Checkpoint, rewards: Sequence[Reward]) -> Checkpoint:
    """Copy what came from folders into the store, so that the lineage resolves; returns the start as it is there."""
    for reward in rewards:
        if reward.checkpoint is not None:
            reward.checkpoint.kept_in(job.store)
    return start.kept_in(job.store)


def ppo_arguments(output: Path, asked: Mapping[str, Setting]) -> tuple[PPOConfig, Any]:
    """Turn settings into PPOConfig and trl.ModelConfig: on a processor that multiplies bf16, that is the default.

    Not under DeepSpeed, which would hold the weights themselves in bf16 where plain training casts on the way.
    """
    import torch

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.launch.processes import under_deepspeed
    from rlhf_pipeline.machine import cpu_has_bf16
    from rlhf_pipeline.ppo.config import PPOConfig, refuse_fixed

    refuse_fixed(asked)
    quick = {} if torch.cuda.is_available() else {"bf16": cpu_has_bf16() and not under_deepspeed(os.environ)}
    arguments, model_config = trainer_arguments(PPOConfig, asked, PPOSettings, output, quick)
    if "per_device_eval_batch_size" not in asked:
        arguments.per_device_eval_batch_size = arguments.per_device_train_batch_size
    return arguments, model_config


def network_options(arguments: PPOConfig, model_config: Any, row_tokens: int) -> dict[str, Any]:
    """What `from_pretrained` takes, with the attention that is quickest for rows of `row_tokens` on a CPU."""
    import torch

    from rlhf_pipeline.machine import cpu_attention
    from rlhf_pipeline.models import loading_options

    options = loading_options(model_config, arguments.trust_remote_code)
    return options if torch.cuda.is_available() else {**cpu_attention(row_tokens), **options}


def follow_start(arguments: PPOConfig, start: Checkpoint, row_tokens: int, policy: Any) -> None:
    """Tell TRL what to load as the reference, beside the policy's name, and vLLM how long a row can be."""
    arguments.model_init_kwargs = {"dtype": policy.dtype, "attn_implementation": policy.config._attn_implementation}
    if start.revision is not None:
        arguments.model_init_kwargs["revision"] = start.revision
    if arguments.use_vllm and arguments.vllm_max_model_length is None:
        arguments.vllm_max_model_length = row_tokens


def warn_of_zero(missing_eos_score: float | None) -> None:
    """Say that a fixed score means nothing beside a reward model whose scores have an arbitrary zero."""
    if missing_eos_score is not None:
        say(
            f"warning: missing_eos_score {missing_eos_score:g} beside a reward model with an arbitrary zero: truncated "
            "completions may score better than finished ones; train it with `rlhf reward --normalize_on`"
        )


def text_rows(tokenizer: PreTrainedTokenizerBase, text: Rows[Document] | None, row_tokens: int) -> list[list[int]]:
    """Cut documents, each ended by EOS, into rows of at most `row_tokens`; one token alone predicts nothing."""
    from rlhf_pipeline.prepared import document_encoder

    if text is None:
        return []
    encode = document_encoder(tokenizer)
    documents = [encode(document, text.where(n))[0]["input_ids"] for n, document in enumerate(text.records)]  # type: ignore[index]
    pieces = [ids[i : i + row_tokens] for ids in documents for i in range(0, len(ids), row_tokens)]
    return [piece for piece in pieces if len(piece) > 1]


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


def longest_prompt(tokenizer: PreTrainedTokenizerBase, prepared: Prepared[Prompt]) -> int:
    """Tokens of the longest prompt that is trained or evaluated on."""
    from rlhf_pipeline.encoding import encode_prompt

    return max(len(encode_prompt(tokenizer, row["prompt"])) for row in [*prepared.train, *prepared.held_out])


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
    from rlhf_pipeline.models import adapter_base
    from rlhf_pipeline.ppo.actor_critic import CRITIC_FOLDER
    from rlhf_pipeline.progress import train, watch
    from rlhf_pipeline.stopping import ranks_together
    from rlhf_pipeline.training import (
        checkpoints_at_once,
        copies_in_checkpoint,
        finite,
        name_adapter_base,
        save,
        trained_parameters,
    )

    parameters = trained_parameters(trainer)
    job.need_space(parameters, checkpoints_at_once(trainer), copies_in_checkpoint())
    watch(trainer, job, SHOWN)
    base = adapter_base(job.store, start) or start
    with ranks_together(trainer, job), contextlib.ExitStack() as after:
        train(trainer, job, every=trainer.args.steps_per_rollout)
        after.enter_context(trainer.averaged())
        staged = after.enter_context(job.store.staging())
        metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
        say(f"ppo: {held_out_line(metrics)}")
        job.need_space(parameters, 0)
        policy, critic = staged / "policy", staged / "critic"
        save(trainer, policy, base)
        if is_main_process():
            (policy / CRITIC_FOLDER).rename(critic)
            name_adapter_base(critic, base)
            tokenizer.save_pretrained(critic)
            config = resolved(trainer.args, model_config)
            numbers = {**finite(metrics), **counts, "steps": trainer.state.global_step}
            job.publish({"policy": policy, "critic": critic}, config=config, metrics=numbers)


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
