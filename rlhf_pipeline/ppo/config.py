"""The settings of PPO: our own few fields, TRL's under their own names, and those of TRL's that PPO fixes.

The rollout holds per_device_train_batch_size * steps_per_generation completions a process; an optimizer step takes
gradient_accumulation_steps micro-batches of it; num_iterations are the PPO epochs over one rollout.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers.trainer_utils import SaveStrategy
from trl.trainer.grpo_config import GRPOConfig

from rlhf_pipeline.config import Setting
from rlhf_pipeline.ensembles import Reduction
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.fields import PPOFields
from rlhf_pipeline.ppo.guards import guard_actions

REFERENCE_BETA = 1.0
"""Any value but zero makes TRL build the reference; the loss itself never sees it (see ppo/trainer.py)."""

_LOSS = "PPO's loss is the clipped, token-normalised one; this setting belongs to another"
_GROUP = "PPO samples one completion a prompt and takes its baseline from the critic"
_SAMPLING = "log-probabilities are those of plain sampling at `temperature`; a filtered sampler breaks the ratio"
_UNTESTED = "not tested with the critic yet"
_REFERENCE = "the reference is the frozen starting policy; the penalty is set by `kl_coef`"

FIXED: dict[str, tuple[Any, str]] = {
    "beta": (REFERENCE_BETA, "the KL penalty is part of the per-token reward; set `kl_coef`"),
    "loss_type": ("dapo", _LOSS),
    "delta": (None, _LOSS),
    "importance_sampling_level": ("token", _LOSS),
    "top_entropy_quantile": (1.0, _LOSS),
    "off_policy_mask_threshold": (None, _LOSS),
    "use_bias_correction_kl": (False, _LOSS),
    "mask_truncated_completions": (False, "a truncated completion is scored; set `missing_eos_score` to punish it"),
    "label_smoothing_factor": (0.0, _LOSS),
    "entropy_coef": (0.0, "TRL averages the bonus per micro-batch, so the result would depend on the batch split"),
    "use_adaptive_entropy": (False, "TRL averages the bonus per micro-batch"),
    "num_generations": (1, _GROUP),
    "num_generations_eval": (1, _GROUP),
    "scale_rewards": ("none", _GROUP + "; see `whiten_advantages`"),
    "multi_objective_aggregation": ("sum_then_normalize", _GROUP + "; scores are summed by `reward_weights`"),
    "top_p": (1.0, _SAMPLING),
    "top_k": (0, _SAMPLING),
    "min_p": (None, _SAMPLING),
    "repetition_penalty": (1.0, _SAMPLING),
    "generation_kwargs": (None, _SAMPLING),
    "chat_template_kwargs": (None, "every stage renders prompts alike; change the tokenizer's chat template instead"),
    "neftune_noise_alpha": (None, "noise in the embeddings keeps the first ratio from being 1"),
    "disable_dropout": (True, "dropout keeps the first ratio from being 1"),
    "sync_ref_model": (False, _REFERENCE),
    "remove_unused_columns": (False, "reward functions read the other columns"),
    "ddp_find_unused_parameters": (
        False,
        "the critic's values travel beside the model's output, where DDP does not look",
    ),
    "fp16": (False, "the norms of both networks are watched before the loss scale is taken off; use bf16 or float32"),
    "vllm_structured_outputs_regex": (None, _SAMPLING),
    "use_transformers_continuous_batching": (False, _UNTESTED),
    "use_liger_kernel": (False, _UNTESTED),
    "router_aux_loss_coef": (0.0, "the packed forward leaves the routers' auxiliary loss out"),
    "ds3_gather_for_generation": (True, "the sampler lets rows leave the batch, which every rank does at its own time"),
    "auto_find_batch_size": (False, "a smaller batch would change the minibatches; lower per_device_train_batch_size"),
    "enable_jit_checkpoint": (False, "checkpoints are taken between rollouts only, so that resuming is exact"),
}
"""Inherited setting -> (the value PPO works with, why it is not open)."""

_IDLE_PREFIXES = ("sapo_", "vespo_", "entropy_", "ref_model_")
_IDLE = {
    "max_tool_calling_iterations",
    "use_transformers_paged",
    "transformers_continuous_batching_config",
    "log_completions_hub_repo",
}


@dataclass
class PPOConfig(PPOFields, GRPOConfig):
    """Settings of one PPO run. Raises ConfigError for a fixed setting or a batch arithmetic that does not come out."""

    learning_rate: float = field(default=3e-6, metadata={"help": "Peak learning rate of the policy."})
    adam_epsilon: float = field(default=1e-5, metadata={"help": "Adam's epsilon (Huang et al. 2024)."})
    save_steps: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Optimizer steps between checkpoints, whole rollouts; None: about every 100."}
    )
    logging_steps: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Optimizer steps between log lines; None: one a rollout."}
    )

    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={"help": "How vLLM's mismatch is corrected in the policy loss: a capped ratio on every token."},
    )

    def __post_init__(self) -> None:
        _refuse_changed(self)
        derived = {name: getattr(self, name) for name in ("save_steps", "logging_steps")}
        self.save_steps = self.save_steps or 1
        self.logging_steps = self.logging_steps or 1
        self.num_generations = 2  # the least TRL accepts; set to 1 below
        super().__post_init__()  # type: ignore[no-untyped-call]
        for name, (value, _) in FIXED.items():
            setattr(self, name, value)
        self._check_batches()
        self._check_numbers()
        self._check_vllm()
        if derived["logging_steps"] is None:
            self.logging_steps = self.steps_per_rollout
        if derived["save_steps"] is None:
            self.save_steps = self.steps_per_rollout * max(1, round(100 / self.steps_per_rollout))
        self._check_boundaries()

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a rollout on one process; TRL's `steps_per_generation`."""
        return int(self.steps_per_generation or self.gradient_accumulation_steps)

    @property
    def minibatches(self) -> int:
        """Minibatches, each one optimizer step, that a rollout is cut into."""
        return self.micro_batches // self.gradient_accumulation_steps

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between one rollout and the next."""
        return self.minibatches * self.num_iterations

    @property
    def reduction(self) -> Reduction:
        """How the scores of an ensemble become one."""
        return Reduction(self.ensemble_reduction, self.disagreement_coef)

    def describe_batches(self) -> str:
        """Say in one line how a rollout is cut: completions, minibatches, epochs, optimizer steps."""
        rollout = self.per_device_train_batch_size * self.world_size * self.micro_batches
        return (
            f"{rollout} completions a rollout ({self.world_size} processes x {self.micro_batches} micro-batches "
            f"x {self.per_device_train_batch_size}), {self.minibatches} minibatches of {rollout // self.minibatches}, "
            f"{self.num_iterations} epochs: {self.steps_per_rollout} optimizer steps a rollout"
        )

    def _check_batches(self) -> None:
        if self.micro_batches % self.gradient_accumulation_steps:
            raise ConfigError(
                f"steps_per_generation {self.steps_per_generation} must be a multiple of gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}, so that a rollout is cut into whole minibatches; set "
                f"steps_per_generation to {_nearest(self.micro_batches, self.gradient_accumulation_steps)}"
            )

    def _check_numbers(self) -> None:
        for name in ("kl_coef", "vf_coef", "critic_warmup_steps", "cliprange_value", "ptx_coef", "disagreement_coef"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative")
        for name in ("kl_target", "kl_horizon", "kl_limit"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above zero")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must lie between 0 and 1, like 0.992")
        guard_actions(self.guards)

    def _check_vllm(self) -> None:
        """Refuse vLLM's settings without vLLM, and what it cannot do."""
        if self.use_vllm:
            if importlib.util.find_spec("vllm") is None:
                raise ConfigError(
                    "use_vllm: vLLM is not installed; in the repository type `.venv/bin/pip install -e '.[vllm]'`"
                )
            if self.temperature > 2:
                raise ConfigError(
                    f"temperature {self.temperature}: vLLM takes at most 2; lower it, or leave use_vllm out"
                )
            return
        for name, default in _defaults(self).items():
            if name.startswith("vllm_") and getattr(self, name) != default:
                raise ConfigError(f"`{name}` has no effect without use_vllm; set use_vllm, or remove it")

    def _check_boundaries(self) -> None:
        """Keep every checkpoint at the end of a rollout: only there is resuming exact."""
        strategy = SaveStrategy(self.save_strategy)
        if strategy == SaveStrategy.BEST:
            raise ConfigError("save_strategy `best` may fall inside a rollout; use `steps`, `epoch` or `no`")
        watched = {"save_steps": strategy == SaveStrategy.STEPS, "max_steps": self.max_steps > 0}
        for name in (name for name, counts in watched.items() if counts):
            steps = getattr(self, name)
            if steps % self.steps_per_rollout:
                raise ConfigError(
                    f"{name} {steps} falls inside a rollout of {self.steps_per_rollout} optimizer steps, from where no "
                    f"run resumes exactly; set {name} to {_nearest(steps, self.steps_per_rollout)}"
                )


def _refuse_changed(config: PPOConfig) -> None:
    """Raise ConfigError for the first fixed setting that is neither at TRL's default nor at PPO's value."""
    defaults = _defaults(config)
    for name, reason in fixed_settings().items():
        value = getattr(config, name, None)
        if value not in (defaults.get(name), FIXED.get(name, (None, ""))[0]):
            raise ConfigError(f"`{name}` cannot be {value!r} in PPO: {reason}")


def _defaults(config: PPOConfig) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(config) if f.default is not dataclasses.MISSING}


def fixed_settings() -> dict[str, str]:
    """Name every inherited setting that PPO does not leave open, with the reason."""
    names = {f.name for f in dataclasses.fields(PPOConfig)}
    idle = {name for name in names if name in _IDLE or name.startswith(_IDLE_PREFIXES)}
    reasons = dict.fromkeys(sorted(idle), "it would have no effect here")
    return {**reasons, **{name: reason for name, (_, reason) in FIXED.items() if name in names}}


def refuse_fixed(asked: Mapping[str, Setting]) -> None:
    """Raise ConfigError, with place and reason, for the first setting of `asked` that PPO does not leave open."""
    reasons = fixed_settings()
    for name, setting in asked.items():
        if name in reasons:
            raise ConfigError(f"{setting.where}: `{name}` cannot be set in PPO: {reasons[name]}")


def _nearest(value: float, multiple: int) -> int:
    return max(1, round(value / multiple)) * multiple
