"""PPO on TRL's rollout engine: a critic, per-token KL rewards, GAE, and guards for what goes wrong.

In: a policy, a critic, reward functions, prompts. Out: both networks trained, in checkpoints from which a run resumes
exactly. What of TRL this rests on stands in `seams.py`. Left out: tools, images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.actor_critic import ActorCriticTrainer
from rlhf_pipeline.ppo.advantages import gae, token_rewards
from rlhf_pipeline.ppo.config import PPOConfig
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.figures import Figures
from rlhf_pipeline.ppo.guards import Guards, kl_problem, ratio_problem, require_finite, sampler_problem
from rlhf_pipeline.ppo.kl import ESTIMATORS, adapted, k1, sequence_kl
from rlhf_pipeline.ppo.losses import clipped_sum, explained_variance, value_loss_sum
from rlhf_pipeline.ppo.masked import last_index, masked_mean, masked_sum, whiten
from rlhf_pipeline.ppo.minibatches import count_tokens, cut
from rlhf_pipeline.ppo.pretraining import PretrainingRows
from rlhf_pipeline.ppo.sampler import sample
from rlhf_pipeline.ppo.seams import Batch
from rlhf_pipeline.ppo.shared import SharedCritic, SharedReward


class PPOTrainer(ActorCriticTrainer):
    """Train `model` against `reward_funcs` by PPO with `critic`.

    `model` is a folder, or a causal LM loaded from one (the reference is loaded from there again; with PEFT it is the
    base, or a frozen copy of the adapter the model came with). `reward_funcs` take `prompts`, `completions`,
    `completion_ids` and the data set's columns, and return a float for each completion. `pretraining_rows` are token
    ids for `ptx_coef`. `shared_rewards` are reward models behind `reward_funcs` that live on the policy's base,
    `frozen` those with weights of their own.
    """

    _tag_names = ["ppo"]
    _name = "PPO"

    def __init__(
        self,
        model: str | PreTrainedModel,
        critic: Critic | SharedCritic,
        reward_funcs: Sequence[Callable[..., list[float]]],
        args: PPOConfig,
        train_dataset: Dataset,
        *,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
        pretraining_rows: Sequence[Sequence[int]] = (),
        shared_rewards: Sequence[SharedReward] = (),
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        for function in reward_funcs:
            if isinstance(function, str | nn.Module):
                raise ConfigError(f"reward {function!r} is no function; wrap the model in scoring.RewardModel")
        super().__init__(
            critic,
            shared_rewards=shared_rewards,
            frozen=frozen,
            model=model,
            reward_funcs=list(reward_funcs),
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            peft_config=peft_config,
        )
        self._need_prompts(train_dataset)
        self.figures = Figures(self.accelerator, self._metrics)
        self.guards = Guards(args.guards, loud=self.accelerator.is_main_process)
        self.kl_coef = args.kl_coef
        self.pretraining = self._make_pretraining(pretraining_rows)

    def _make_pretraining(self, rows: Sequence[Sequence[int]]) -> PretrainingRows | None:
        if bool(rows) != bool(self.args.ptx_coef):
            raise ConfigError("ptx_coef and ptx_data belong together: give both, or neither")
        state, size = self.accelerator, self.args.per_device_train_batch_size
        ranks = {"rank": state.process_index, "ranks": state.num_processes}
        return PretrainingRows(rows, size=size, seed=self.args.seed, **ranks) if rows else None

    def _need_prompts(self, train_dataset: Dataset) -> None:
        """Raise ConfigError where the prompts do not fill one rollout: TRL would train on nothing and say nothing."""
        rollout = self.args.micro_batches * self.args.per_device_train_batch_size * self.accelerator.num_processes
        prompts = len(train_dataset)
        if prompts < rollout:
            raise ConfigError(
                f"{prompts} prompts do not fill a rollout of {rollout} completions; add prompts, or lower "
                "per_device_train_batch_size or steps_per_generation"
            )

    # ---- Rollout: sample, score, values, advantages ----

    def sample(self, model: Any, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Continue the prompts with `model`: ids, and their log-probabilities, one list a prompt each."""
        length = int(self.args.max_completion_length or 0)
        with self.accelerator.autocast():
            return sample(model, prompt_ids, stops=self.stops, temperature=self.temperature, max_new_tokens=length)

    @torch.no_grad()
    def finish_rollout(self, rollout: Batch, scores: Tensor, values: Tensor) -> None:
        """Add `values`, `returns` and `advantages`, all (B, C), to the rollout, and log its figures."""
        mask = rollout["completion_mask"].bool()
        logprobs, ref_logprobs = rollout["old_per_token_logps"], self.figures_of(self.reference, rollout)["logprobs"]
        finished = self._finished(rollout["completion_ids"], mask)
        if self.args.missing_eos_score is not None:
            scores = torch.where(finished, scores, self.args.missing_eos_score)
        self._require_finite(values=values, logprobs=logprobs, ref_logprobs=ref_logprobs, scores=scores)
        kl = ESTIMATORS[self.args.kl_estimator](logprobs, ref_logprobs)
        rewards = token_rewards(kl, scores, mask, self.kl_coef)
        if self.args.whiten_rewards:
            rewards = whiten(rewards, mask, center=False, reduce=self._sum_over_ranks)
        advantages, returns = gae(rewards, values, mask, gamma=self.args.gamma, lam=self.args.gae_lambda)
        self._note_rollout(rollout, scores, sequence_kl(logprobs, ref_logprobs, mask), finished)
        explained = explained_variance(values, returns, mask, self._sum_over_ranks)
        self.figures.note(self._mode, "explained_variance", explained)
        if self.args.whiten_advantages:
            advantages = whiten(advantages, mask, center=True, reduce=self._sum_over_ranks)
        rollout["ref_per_token_logps"], rollout["minibatch_tokens"] = ref_logprobs, self._sum_over_ranks(mask.sum())
        rollout.update(values=values, returns=returns, advantages=advantages)

    def _finished(self, completion_ids: Tensor, mask: Tensor) -> Tensor:
        """Tell which completions (B, C) end with a stop token of the policy: (B,) bool."""
        last = completion_ids.gather(1, last_index(mask).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.isin(last, torch.tensor(self.stops, device=last.device))

    def _note_rollout(self, rollout: Batch, scores: Tensor, kl_nats: Tensor, finished: Tensor) -> None:
        """Log what a rollout is like, let the guards look at it, and adapt kl_coef for the next one."""
        lengths = rollout["completion_mask"].sum(dim=1).float()
        means = self.figures.note_completions(
            self._mode, score=scores, kl_nats=kl_nats, completion_tokens=lengths, eos_fraction=finished.float()
        )
        self._look_at_sampler(rollout)
        if not self.model.training:
            return
        step = self.state.global_step
        self.figures.note("train", "kl_coef", self.kl_coef)
        self.guards.check("length", step, self.guards.length_problem(means["score_length_correlation"]))
        if self.args.kl_target is not None:
            completions = len(scores) * self.accelerator.num_processes
            target, horizon = self.args.kl_target, self.args.kl_horizon
            self.kl_coef = adapted(
                self.kl_coef, means["kl_nats"], target=target, horizon=horizon, completions=completions
            )
        run_away = self.guards.check("kl", step, kl_problem(means["kl_nats"], self.args.kl_limit))
        if run_away and self.guards["kl"] == "backoff":
            self.kl_coef *= 1.5

    def _look_at_sampler(self, rollout: Batch) -> None:
        """Compare the sampler's log-probabilities with those of training, where it gives any."""
        sampled = rollout.get("sampling_per_token_logps")
        if sampled is None:
            return
        mask = rollout["completion_mask"].bool()
        scored = mask & sampled.isfinite()  # vLLM leaves out what it could not score
        gap = float(masked_mean((sampled - rollout["old_per_token_logps"]).abs(), scored, self._sum_over_ranks))
        self.figures.note(self._mode, "sampler_gap_nats", gap)
        problem = sampler_problem(gap, self.model.dtype, autocast=self._autocast)
        self.guards.check("sampler", self.state.global_step, problem)

    # ---- Optimise ----

    def arrange(self, rollout: Batch) -> list[Batch]:
        """Cut the rollout into one epoch's micro-batches, which completions share a minibatch left to chance."""
        per_minibatch = self.args.gradient_accumulation_steps
        order = torch.randperm(len(rollout["completion_ids"]))
        micro_batches = cut(rollout, order, self.args.micro_batches, per_minibatch, self._longest_over_ranks)
        count_tokens(micro_batches, per_minibatch, self._sum_over_ranks)
        return micro_batches

    def add_losses(self, policy_loss: Tensor, inputs: Batch, figures: Batch, model: nn.Module) -> Tensor:
        """Return TRL's clipped policy loss plus vf_coef times the clipped value loss, plus PPO-ptx where it is on."""
        mask = inputs["completion_mask"].bool()
        value_sum = value_loss_sum(
            figures["values"], inputs["values"], inputs["returns"], mask, self.args.cliprange_value
        )
        value_loss: Tensor = value_sum * self.accelerator.num_processes / inputs["minibatch_tokens"]
        loss = policy_loss + self.args.vf_coef * value_loss
        if self.pretraining is not None and self.model.training:
            loss = loss + self.args.ptx_coef * self._pretraining_loss(model, self.pretraining)
        self._note_optimisation(inputs, figures["logprobs"].detach(), loss.detach(), value_sum.detach(), mask)
        return loss

    def _pretraining_loss(self, model: nn.Module, rows: PretrainingRows) -> Tensor:
        """Return the language-model loss of this micro-step's rows, averaged over the tokens of the minibatch."""
        size = self.args.gradient_accumulation_steps
        first = self.state.global_step * size
        packed = rows.micro_batch(first + self._step % size, self.accelerator.device)
        tokens = rows.tokens(range(first, first + size))
        logprobs = model(input_ids=packed.ids, predicts=packed.predicts, as_text=True)["logprobs"]
        loss: Tensor = -logprobs.sum() * self.accelerator.num_processes / tokens
        self.figures.add_micro_batch(
            1.0, ptx_loss=self._sum_over_ranks(loss.detach()).item() / self.accelerator.num_processes
        )
        return loss

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
            mean = sums["ratio_abs_log"] / max(count, 1)
            problem = ratio_problem(mean, self.model.dtype, autocast=self._autocast)
            self.guards.check("ratio", self.state.global_step, problem)
        if self.accelerator.sync_gradients:
            self.figures.close_minibatch(self._mode, first=first)

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Run one micro-batch forward and backward; after the last of a minibatch, look at the gradients."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self._note_gradients()
        if self._step % (self.args.micro_batches * self.num_iterations) == 0:
            self._note_seconds()
        return loss

    def _note_seconds(self) -> None:
        """Log where the time of an update went; the optimizer's last step falls to the next update."""
        seconds = {**self.seconds, "optimise": time.perf_counter() - self.ready_at}
        for name, value in seconds.items():
            self.figures.note("train", f"{name}_seconds", value)

    def _note_gradients(self) -> None:
        """Log both networks' gradient norms before clipping; stop before the optimizer where one is not finite."""
        of_critic = {id(p) for p in self.critic.trained()}
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

    # ---- Figures ----

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample, score and measure the held-out prompts; adds half widths of 95 % intervals as `..._ci95`.

        Every evaluation draws the same random numbers, and training's go on as if there had been none.
        """
        self.figures.held_out.clear()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed + self.accelerator.process_index)
            metrics: dict[str, float] = super().evaluate(eval_dataset, *args, **kwargs)
        held_out = cast(Dataset, self.eval_dataset if eval_dataset is None else eval_dataset)
        return {**metrics, **self.figures.over_completions(len(held_out))}

    def _sum_over_ranks(self, total: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(total, reduction="sum")
        return summed

    def _longest_over_ranks(self, lengths: Tensor) -> Tensor:
        everywhere: Tensor = self.accelerator.gather(lengths)
        return everywhere.view(-1, len(lengths)).amax(dim=0)

    @property
    def _autocast(self) -> bool:
        return bool(self.accelerator.mixed_precision != "no")

    def run_state(self) -> dict[str, Any]:
        """What a resumed run has to know beside weights, optimizer and random numbers."""
        return {"kl_coef": self.kl_coef, "length_correlations": list(self.guards.correlations)}

    def load_run_state(self, state: dict[str, Any]) -> None:
        """Go on from `run_state`."""
        self.kl_coef = state["kl_coef"]
        self.guards.correlations.extend(state["length_correlations"])

    def _require_finite(self, **tensors: Tensor) -> None:
        require_finite(self.state.global_step, self._sum_over_ranks, **tensors)
