"""Everything of TRL's GRPO trainer that PPO rests on: one class, one table. Nothing else in this package names it.

| seam                                 | what we do with it                                                           |
|--------------------------------------|------------------------------------------------------------------------------|
| `_calculate_rewards`                 | extended: keep this process's weighted scores; one that is no number stops   |
| `_generate_single_turn`              | extended: our sampler where TRL would call `generate`; vLLM stays TRL's      |
| `_generate_and_score_completions`    | extended: `finish_rollout` turns what comes back into a PPO rollout          |
| `_get_per_token_logps_and_entropies` | replaced: packed rows, and the critic's values in the same call              |
| `_prepare_inputs`                    | extended: `arrange` cuts the rollout into minibatches, anew in every epoch   |
| `_compute_loss`                      | extended: TRL's clipped loss of (B, C) advantages, then `add_losses`         |
| `_get_train_sampler`                 | wrapped: the order of prompts depends on seed and epoch, not on history      |
| attributes                           | `_step`, `_buffered_inputs`, `_metrics`, `beta`, `ref_model`, `use_vllm`,     |
|                                      | `reward_weights`, `epsilon_low`, `epsilon_high`, and                          |
|                                      | `num_generations`, set to 1 behind GRPOConfig's own check (`config.py`)       |
| `vllm_generation`                    | `_iter_named_params` replaced: the policy's plain weights, no critic;         |
|                                      | `generation_kwargs` get every stop token; seeds are set again behind it       |

`training_step`, `create_optimizer`, `create_scheduler`, `_save` and `_load_from_checkpoint`, which `trainer.py`
extends, are transformers' own. `SEAMS` lists the signatures, and the contract tests compare them.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from rlhf_pipeline.decoding import stop_ids
from rlhf_pipeline.errors import TrainingError
from rlhf_pipeline.ppo.adapters import old_names
from rlhf_pipeline.ppo.config import PPOConfig
from rlhf_pipeline.ppo.engine_weights import engine_weights, need_plain_sum
from rlhf_pipeline.ppo.forward import Forward, keeping_casts
from rlhf_pipeline.ppo.guards import require_scores
from rlhf_pipeline.ppo.order import EpochSampler
from rlhf_pipeline.ppo.packing import by_length, pack, unpack
from rlhf_pipeline.sharding import gathered_for_sampling

Batch = dict[str, Any]

SEAMS: dict[str, tuple[str, ...]] = {
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_single_turn": ("prompt_ids",),
    "_generate_and_score_completions": ("inputs",),
    "_get_per_token_logps_and_entropies": ("model",),
    "_prepare_inputs": ("generation_batch",),
    "_compute_loss": ("model", "inputs"),
    "_get_train_sampler": ("dataset",),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "create_optimizer": ("model",),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "_save": ("output_dir", "state_dict"),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
}
"""Method -> its first parameters, without self. Releases differ in what follows, which we pass on or leave aside."""


class RolloutTrainer(GRPOTrainer):
    """TRL's trainer in our words: rollouts of one completion a prompt, minibatches, a policy loss.

    A subclass gives `sample`, `finish_rollout`, `arrange` and `add_losses`. A policy forward, like
    `reference`, is called as `forward(input_ids=, predicts=)` and gives figures of the tokens (`ppo/forward.py`).
    """

    args: PPOConfig
    model: Any
    _buffered_inputs: Any

    def __init__(self, **kwargs: Any) -> None:
        with old_names():
            super().__init__(**kwargs)
        self.stops = stop_ids(self.model, cast(PreTrainedTokenizerBase, self.processing_class))
        if self.use_vllm:
            self._join_vllm()
        self.beta = 0.0  # no KL term in the loss: the penalty is in the rewards
        self._scores: Tensor | None = None  # (B,), of the rollout in the making
        self._figures: Batch = {}  # (B, C) each, of the policy's last forward
        self._rollout: Batch = {}
        self._casts, self._keeping, self._stepping = contextlib.ExitStack(), False, False
        self.seconds = {"generate": 0.0, "score": 0.0}  # of the last rollout
        self.ready_at = 0.0  # when it was there

    # ---- What a subclass gives ----

    def sample(self, model: Any, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Continue the prompts with `model`, unwrapped: ids, and their log-probabilities, one list a prompt each."""
        raise NotImplementedError

    def finish_rollout(self, rollout: Batch, scores: Tensor, values: Tensor) -> None:
        """Add `returns`, `values` and (B, C) `advantages` to TRL's rollout, whose completions have `scores` (B,)."""
        raise NotImplementedError

    def arrange(self, rollout: Batch) -> list[Batch]:
        """Cut a rollout into the micro-batches of one epoch, `steps_per_generation` of them."""
        raise NotImplementedError

    def add_losses(self, policy_loss: Tensor, inputs: Batch, figures: Batch, model: nn.Module) -> Tensor:
        """Add what PPO minimises beside the clipped policy loss; `figures` (B, C) are of the forward behind it."""
        raise NotImplementedError

    # ---- Rollouts ----

    def _join_vllm(self) -> None:
        """Let vLLM be sent the policy alone, and stop where the policy stops."""
        need_plain_sum(self.model)
        engine: Any = self.vllm_generation
        engine._iter_named_params = lambda: engine_weights(self.model, engine._dist.gather_params)
        engine.generation_kwargs = {**(engine.generation_kwargs or {}), "stop_token_ids": self.stops}
        set_seed(self.args.seed, device_specific=True)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **more: Any) -> Any:
        """Continue tokenised prompts: one list of ids each, and their log-probabilities."""
        started = time.perf_counter()
        if self.use_vllm:
            completions = super()._generate_single_turn(prompt_ids, *rest, **more)  # type: ignore[no-untyped-call]
        else:
            with old_names():
                whole = [p for name, p in self.model.named_parameters() if not name.startswith("critic.")]
                with (
                    unwrap_model_for_generation(self.model_wrapped, self.accelerator, False) as model,
                    gathered_for_sampling(self.model_wrapped, whole),
                ):
                    completions = self.sample(model, prompt_ids)
                if self.args.gradient_checkpointing:  # TRL turned it off and on again, without its settings
                    self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        if self.model.training:
            self.seconds["generate"] = time.perf_counter() - started
        return completions

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
        started = time.perf_counter()
        with old_names():
            rollout: Batch = super()._generate_and_score_completions(inputs)
        if "old_per_token_logps" not in rollout:  # TRL skips them where one optimizer step takes the whole rollout
            self._figures = self.figures_of(self.model, rollout)
            rollout["old_per_token_logps"] = self._figures["logprobs"]
        scores, self._scores = self._scores, None
        if scores is None:
            raise TrainingError("TRL scored no completion in this rollout; this release changed `_calculate_rewards`")
        self.finish_rollout(rollout, scores, self._figures["values"])
        if self.model.training:
            self._rollout = rollout
            self.ready_at = time.perf_counter()
            self.seconds["score"] = self.ready_at - started - self.seconds["generate"]
        return rollout

    # ---- Forward ----

    @torch.no_grad()
    def figures_of(self, forward: Forward, rollout: Batch) -> Batch:
        """Compute the figures of all completion tokens of a rollout, (B, C) each, without gradients."""
        ids, mask, width = joined(rollout)
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        return self._forward(forward, ids, mask, width, size)

    def _forward(self, forward: Forward, ids: Tensor, mask: Tensor, width: int, size: int) -> Batch:
        """Run `forward` on rows of similar length together, `size` at a time: (B, P + C) rows to (B, C) figures."""
        pieces = by_length(mask.sum(dim=1), size)
        found: dict[str, list[Tensor]] = defaultdict(list)
        with keeping_casts(ids.device):
            for places in pieces:
                packed = pack(ids[places], mask[places], width)
                with self.accelerator.autocast():
                    figures = forward(input_ids=packed.ids, predicts=packed.predicts)
                for name, flat in figures.items():
                    found[name].append(unpack(flat, mask[places, -width:].bool()))
        back = torch.cat(pieces).argsort()
        return {name: torch.cat(parts)[back] for name, parts in found.items()}

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,  # images, and the router loss that the configuration turned off
    ) -> tuple[Tensor, Tensor | None, None]:
        """Give TRL log-probabilities and entropies, (B, C), and keep them with the critic's values."""
        size = batch_size or len(input_ids)
        self._figures = self._forward(model, input_ids, attention_mask, logits_to_keep, size)
        return self._figures["logprobs"], self._figures["entropy"] if compute_entropy else None, None

    # ---- Optimise ----

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """Return the next micro-batch; a new rollout is cut into minibatches, and anew at the start of every epoch."""
        if not self.model.training:
            inputs: Batch = super()._prepare_inputs(generation_batch)
            return inputs
        micro_batches = self.args.micro_batches
        if self._step % (micro_batches * self.num_iterations) and self._buffered_inputs is not None:
            if self._step % micro_batches == 0:
                self._buffered_inputs = self.arrange(self._rollout)
            return super()._prepare_inputs(generation_batch)  # type: ignore[no-any-return]
        super()._prepare_inputs(generation_batch)
        self._buffered_inputs = self.arrange(self._rollout)
        return self._buffered_inputs[self._step % micro_batches]  # type: ignore[no-any-return]

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the clipped policy loss (TRL's) and what `add_losses` adds, of one forward pass."""
        if self._stepping and not self._keeping:  # here and not before: the rollout of a first step has no gradients
            self._casts.enter_context(keeping_casts(self.accelerator.device))
            self._keeping = True
        policy_loss: Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        figures, self._figures = self._figures, {}
        return self.add_losses(policy_loss, inputs, figures, model)

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Run one micro-batch forward and backward; autocast keeps its copies of weights over a whole minibatch."""
        self._stepping, done = True, True
        try:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
            done = self.accelerator.sync_gradients
        finally:
            self._stepping = False
            if done:  # the optimizer will change the weights
                self._casts.close()
                self._keeping = False
        return loss

    def _get_train_sampler(self, dataset: Dataset | None = None) -> RepeatSampler:
        """Return TRL's sampler with an order that depends on seed and epoch alone, so that a resumed run keeps it."""
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler(sampler, lambda: int(self.state.epoch or 0))


def joined(rollout: Batch) -> tuple[Tensor, Tensor, int]:
    """Ids and mask of prompts and completions beside each other, (B, P + C), and C."""
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    return ids, mask, rollout["completion_ids"].size(1)
