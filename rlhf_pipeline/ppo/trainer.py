"""PPO as a subclass of TRL's GRPO trainer: its rollout engine and clipped loss, with our critic and advantages.

In: a policy, a critic, reward functions, prompts. Out: both networks trained, in checkpoints from which a run resumes
exactly. Left out for now: adaptive KL, PPO-ptx, tools, images, vLLM.

What of TRL (and transformers) this rests on; `SEAMS` lists the signatures and a contract test compares them:

| seam                                | what we do with it                                                             |
|-------------------------------------|--------------------------------------------------------------------------------|
| `_calculate_rewards`                | extended: keep the weighted scores of this process; a missing one stops        |
| `_generate_and_score_completions`   | extended: `beta` on inside, so TRL computes the reference; then values, GAE    |
| `_get_per_token_logps_and_entropies`| called: rollout log-probabilities where TRL skips them                         |
| `_prepare_inputs`                   | extended: after a new rollout, count the tokens of every minibatch             |
| `_compute_loss`                     | extended: takes (B, C) advantages; we add the value loss of the same forward   |
| `training_step`                     | extended: gradient norms of both networks, stop where they are not finite      |
| `_get_train_sampler`                | replaced by a subclass: prompt order depends on the epoch, not on history      |
| `create_optimizer`, `create_scheduler` | extended: the critic's own learning rate, the policy's rest in warm-up      |
| `_save`, `_load_from_checkpoint`    | extended: policy as plain model, critic in `critic/`                           |
| `_step`, `_buffered_inputs`, `_metrics`, `beta`, `ref_model`, `eos_token_ids`, `reward_weights`: attributes          |
| keyword `fused_lm_head`, `log_probs`| forward hooks: positions from the mask, values beside the log-probabilities    |
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from rlhf_pipeline.errors import ConfigError, TrainingError
from rlhf_pipeline.ppo.advantages import gae, token_rewards
from rlhf_pipeline.ppo.config import REFERENCE_BETA, PPOConfig
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.figures import Figures
from rlhf_pipeline.ppo.forward import place_positions, silence_dropout
from rlhf_pipeline.ppo.guards import require_finite, require_first_ratio, require_scores
from rlhf_pipeline.ppo.kl import k1, sequence_kl
from rlhf_pipeline.ppo.losses import clipped_sum, explained_variance, value_loss_sum
from rlhf_pipeline.ppo.masked import last_index, masked_sum, whiten
from rlhf_pipeline.ppo.optimizer import give_own_rate, rest_all_but
from rlhf_pipeline.ppo.order import EpochSampler

SEAMS: dict[str, tuple[str, ...]] = {
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("inputs",),
    "_prepare_inputs": ("generation_batch",),
    "_compute_loss": ("model", "inputs"),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "_get_train_sampler": ("dataset",),
    "create_optimizer": ("model",),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "_save": ("output_dir", "state_dict"),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
}
"""Method of TRL's trainer -> its parameters without self."""

CRITIC_FOLDER = "critic"
Batch = dict[str, Any]


class PPOTrainer(GRPOTrainer):
    """Train `model` against `reward_funcs` by PPO with `critic`.

    `model` is a folder, or a causal LM loaded from one (the reference is loaded from there again; with PEFT it is the
    base, or a frozen copy of the adapter the model came with). `reward_funcs` take `prompts`, `completions`,
    `completion_ids` and the data set's columns, and return a float for each completion.
    """

    _tag_names = ["ppo"]
    _name = "PPO"
    args: PPOConfig
    model: Any
    _buffered_inputs: Any

    def __init__(
        self,
        model: str | PreTrainedModel,
        critic: Critic,
        reward_funcs: Sequence[Callable[..., list[float]]],
        args: PPOConfig,
        train_dataset: Dataset,
        *,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
    ) -> None:
        for function in reward_funcs:
            if isinstance(function, str | nn.Module):
                raise ConfigError(f"reward {function!r} is no function; wrap the model in scoring.RewardModel")
        with _old_names():
            super().__init__(
                model=model,
                reward_funcs=list(reward_funcs),  # type: ignore[arg-type]
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                callbacks=callbacks,
                peft_config=peft_config,
            )
        self._need_prompts(train_dataset)
        self.beta = 0.0  # no KL term in the loss: the penalty is in the rewards
        self.critic = critic.to(self.accelerator.device)
        self._scores: Tensor | None = None  # (B,), of the rollout in the making
        self._listening_width = 0  # completion tokens of the micro-batch in the loss; 0: the forward hook rests
        self._heard: dict[str, Tensor] = {}  # what the forward hook left for the loss
        self.figures = Figures(self.accelerator, self._metrics)
        reference = [] if self.ref_model is None else [self.accelerator.unwrap_model(self.ref_model)]
        for network in (self.model, *reference):
            silence_dropout(network)
            place_positions(network)
        silence_dropout(self.critic)
        if args.gradient_checkpointing:  # under PEFT the policy's own switch does not reach it
            self.critic.backbone.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
        self.model.critic = self.critic  # one module, one engine: clipping, ZeRO, DDP and resume cover both
        self.model.register_forward_hook(self._hear, with_kwargs=True)

    def _need_prompts(self, train_dataset: Dataset) -> None:
        """Raise ConfigError where the prompts do not fill one rollout: TRL would train on nothing and say nothing."""
        rollout = self.args.micro_batches * self.args.per_device_train_batch_size * self.accelerator.num_processes
        prompts = len(train_dataset)
        if prompts < rollout:
            raise ConfigError(
                f"{prompts} prompts do not fill a rollout of {rollout} completions; add prompts, or lower "
                "per_device_train_batch_size or steps_per_generation"
            )

    # ---- Rollout: generate, score, values, advantages ----

    def _calculate_rewards(
        self, inputs: list[Batch], prompts: list[Any], completions: list[Any], completion_ids_list: list[list[int]]
    ) -> Tensor:
        """Score the completions of all ranks: (all completions, functions); keep this rank's weighted sum."""
        scores: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        require_scores(self.state.global_step, scores, self.reward_func_names)
        first = self.accelerator.process_index * len(prompts)
        mine = scores[first : first + len(prompts)]
        self._scores = (mine * self.reward_weights.to(mine.device)).sum(dim=1)
        return scores

    def _generate_and_score_completions(self, inputs: list[Batch]) -> Batch:
        """Make a rollout: TRL's, with per-token advantages, and returns and values for the value loss."""
        self.beta = REFERENCE_BETA  # TRL computes reference log-probabilities only while beta is not zero
        try:
            with _old_names():
                rollout: Batch = super()._generate_and_score_completions(inputs)
        finally:
            self.beta = 0.0
        if "old_per_token_logps" not in rollout:  # TRL skips them where one optimizer step takes the whole rollout
            rollout["old_per_token_logps"] = self._rollout_logprobs(rollout)
        self._add_advantages(rollout)
        return rollout

    @torch.no_grad()
    def _add_advantages(self, rollout: Batch) -> None:
        """Add `values`, `returns` and whitened `advantages`, all (B, C), to the rollout, and log its figures."""
        mask = rollout["completion_mask"].bool()
        logprobs, ref_logprobs = rollout["old_per_token_logps"], rollout["ref_per_token_logps"]
        values = torch.where(mask, self._rollout_values(rollout), 0.0)
        finished = self._finished(rollout["completion_ids"], mask)
        scores = self._final_scores(finished)
        self._require_finite(values=values, logprobs=logprobs * mask, ref_logprobs=ref_logprobs * mask, scores=scores)
        rewards = token_rewards(k1(logprobs, ref_logprobs), scores, mask, self.args.kl_coef)
        advantages, returns = gae(rewards, values, mask, gamma=self.args.gamma, lam=self.args.gae_lambda)
        self.figures.note_completions(
            self._mode,
            score=scores,
            kl_nats=sequence_kl(logprobs, ref_logprobs, mask),
            completion_tokens=mask.sum(dim=1).float(),
            eos_fraction=finished.float(),
        )
        explained = explained_variance(values, returns, mask, self._sum_over_ranks)
        self.figures.note(self._mode, "explained_variance", explained)
        if self.args.whiten_advantages:
            advantages = whiten(advantages, mask, center=True, reduce=self._sum_over_ranks)
        tokens = self._sum_over_ranks(mask.sum())
        rollout.update(values=values, returns=returns, advantages=advantages, minibatch_tokens=tokens)

    def _finished(self, completion_ids: Tensor, mask: Tensor) -> Tensor:
        """Tell which completions (B, C) end with a stop token of the policy: (B,) bool."""
        last = completion_ids.gather(1, last_index(mask).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.isin(last, torch.tensor(self.eos_token_ids, device=last.device))

    def _final_scores(self, finished: Tensor) -> Tensor:
        """Return the scores of this rank's completions: (B,), `missing_eos_score` where one never ended."""
        scores, self._scores = self._scores, None
        if scores is None:
            raise TrainingError(
                "TRL scored no completion in this rollout; this TRL release changed `_calculate_rewards`"
            )
        if self.args.missing_eos_score is None:
            return scores
        return torch.where(finished, scores, self.args.missing_eos_score)

    def _micro_batches(self, rollout: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut ids and mask, (B, P + C), into pieces of the size that training takes."""
        ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
        mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        yield from zip(torch.split(ids, size), torch.split(mask, size), strict=True)

    @torch.no_grad()
    def _rollout_logprobs(self, rollout: Batch) -> Tensor:
        """Recompute the policy's log-probabilities of the rollout in the training engine: (B, C)."""
        width = rollout["completion_ids"].size(1)
        pieces = self._micro_batches(rollout)
        return torch.cat([self._get_per_token_logps_and_entropies(self.model, *piece, width)[0] for piece in pieces])

    @torch.no_grad()
    def _rollout_values(self, rollout: Batch) -> Tensor:
        """Value the state before every completion token of the rollout: (B, C)."""
        width = rollout["completion_ids"].size(1)
        with self.accelerator.autocast():
            return torch.cat([self.critic(*piece, width) for piece in self._micro_batches(rollout)])

    # ---- Optimise ----

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """Return the next micro-batch; after a new rollout, note the token count of every minibatch first."""
        before = self._buffered_inputs
        inputs: Batch = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before:
            self._count_minibatch_tokens()
        return inputs

    def _count_minibatch_tokens(self) -> None:
        """Tell every micro-batch the tokens of its whole minibatch, over all ranks, for both losses to divide by.

        TRL divides by num_items_in_batch * gradient_accumulation_steps / steps_per_generation; setting the inverse
        share makes that the minibatch's own count.
        """
        size = self.args.gradient_accumulation_steps
        for start in range(0, len(self._buffered_inputs), size):
            minibatch = self._buffered_inputs[start : start + size]
            tokens = self._sum_over_ranks(torch.stack([part["completion_mask"].sum() for part in minibatch]).sum())
            for part in minibatch:
                part["minibatch_tokens"] = tokens
                part["num_items_in_batch"] = tokens * self.args.micro_batches / size

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the clipped policy loss (TRL's) plus vf_coef times the clipped value loss, of one forward pass."""
        self._listening_width = inputs["completion_ids"].size(1)
        try:
            policy_loss: Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        finally:
            self._listening_width = 0
        heard, self._heard = self._heard, {}
        if not heard:
            raise TrainingError("the policy's forward left no values; this TRL release changed the fused LM head")
        mask = inputs["completion_mask"].bool()
        value_sum = value_loss_sum(
            heard["values"], inputs["values"], inputs["returns"], mask, self.args.cliprange_value
        )
        value_loss: Tensor = value_sum * self.accelerator.num_processes / inputs["minibatch_tokens"]
        loss: Tensor = policy_loss + self.args.vf_coef * value_loss
        self._note_optimisation(inputs, heard["log_probs"], loss.detach(), value_sum.detach(), mask)
        return loss

    def _hear(self, policy: nn.Module, args: tuple[Any, ...], kwargs: Batch, output: Any) -> None:
        """Run the critic inside the policy's forward, where DDP and ZeRO expect it, while the loss listens."""
        width = self._listening_width
        if width == 0 or not kwargs.get("fused_lm_head"):
            return
        self._heard["values"] = self.critic(kwargs["input_ids"], kwargs["attention_mask"], width)
        self._heard["log_probs"] = output.log_probs[:, -width:].detach()

    def _note_optimisation(
        self, inputs: Batch, logprobs: Tensor, loss: Tensor, value_sum: Tensor, mask: Tensor
    ) -> None:
        """Add a micro-batch to the figures of its minibatch; stop where the loss or the first ratio is wrong."""
        old = inputs["old_per_token_logps"]
        log_ratio = logprobs - old
        totals = {
            "value_loss": value_sum,
            "clip_fraction": clipped_sum(log_ratio, inputs["advantages"], mask, self.epsilon_low, self.epsilon_high),
            "ratio_abs_log": masked_sum(log_ratio.abs(), mask),
            "step_kl_nats": masked_sum(k1(old, logprobs), mask),  # of the rollout's policy from this one, a token
        }
        summed = self._sum_over_ranks(torch.stack([*totals.values(), mask.sum(), loss]).float())
        self._require_finite(loss=summed[-1])
        *means, count, _ = summed.tolist()
        sums = dict(zip(totals, means, strict=True))
        self.figures.add_micro_batch(float(inputs["minibatch_tokens"]), **sums)
        since_rollout = self._step % (self.args.micro_batches * self.num_iterations)
        first = self.model.training and since_rollout < self.args.gradient_accumulation_steps
        if first:
            autocast = self.accelerator.mixed_precision != "no"
            ratio = sums["ratio_abs_log"] / max(count, 1)
            require_first_ratio(self.state.global_step, ratio, self.model.dtype, autocast=autocast)
        if self.accelerator.sync_gradients:
            self.figures.close_minibatch(self._mode, first=first)

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Run one micro-batch forward and backward; after the last of a minibatch, look at the gradients."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        if self.accelerator.sync_gradients:
            self._note_gradients()
        return loss

    def _note_gradients(self) -> None:
        """Log both networks' gradient norms before clipping; stop before the optimizer where one is not finite."""
        of_critic = {id(p) for p in self.critic.parameters()}
        grads: dict[str, list[Tensor]] = {"policy": [], "critic": []}
        for parameter in self.model.parameters():
            if parameter.grad is not None:  # DeepSpeed keeps gradients elsewhere
                grads["critic" if id(parameter) in of_critic else "policy"].append(parameter.grad)
        norms = {name: torch.nn.utils.get_total_norm(tensors) for name, tensors in grads.items() if tensors}
        if not norms:
            return
        self._require_finite(**{f"{name}_grad_norm": norm for name, norm in norms.items()})
        for name, norm in norms.items():
            self.figures.note("train", f"{name}_grad_norm", norm)

    # ---- Optimizer, order of prompts ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make TRL's optimizer, the critic's parameters in groups of their own with `critic_learning_rate`."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        give_own_rate(optimizer, self.critic.parameters(), self.args.critic_learning_rate)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make TRL's schedule, the policy's rate zero for the first `critic_warmup_steps`."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.args.critic_warmup_steps:
            rest_all_but(scheduler, self.critic.parameters(), self.args.critic_warmup_steps)
        return scheduler

    def _get_train_sampler(self, dataset: Dataset | None = None) -> RepeatSampler:
        """Return TRL's sampler with an order that depends on seed and epoch alone, so that a resumed run keeps it."""
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler(sampler, lambda: int(self.state.epoch or 0))

    # ---- Checkpoints ----

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save the policy as a plain model, and the critic in a folder of its own beside it."""
        folder = Path(output_dir or str(self.args.output_dir))
        state = state_dict or {}
        critic = {k.removeprefix("critic."): v for k, v in state.items() if k.startswith("critic.")} or None
        with self._policy_alone():
            super()._save(str(folder), {k: v for k, v in state.items() if not k.startswith("critic.")} or None)
        if self.args.should_save:
            self.critic.save(folder / CRITIC_FOLDER, critic)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load both networks from what `_save` wrote."""
        with self._policy_alone():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = Critic.load(Path(resume_from_checkpoint) / CRITIC_FOLDER, dtype="auto")
        self.critic.load_state_dict(saved.state_dict())

    @contextlib.contextmanager
    def _policy_alone(self) -> Iterator[None]:
        """Take the critic off the policy for a while, so that TRL sees a plain model."""
        del self.model.critic
        try:
            yield
        finally:
            self.model.critic = self.critic

    # ---- Figures ----

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample, score and measure the held-out prompts; adds half widths of 95 % intervals as `..._ci95`."""
        self.figures.held_out.clear()
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return {**metrics, **self.figures.intervals()}

    def _sum_over_ranks(self, total: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(total, reduction="sum")
        return summed

    def _require_finite(self, **tensors: Tensor) -> None:
        require_finite(self.state.global_step, self._sum_over_ranks, **tensors)


@contextlib.contextmanager
def _old_names() -> Iterator[None]:
    """Silence a renaming in transformers that TRL 1.16 and peft 0.21 have not followed: remove once both do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield
