"""A trainer whose policy carries a critic: one module, one optimizer, one checkpoint; and a frozen reference.

The critic is a network of its own, or an adapter over the policy's base. Left out: what is minimised (`trainer.py`).
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft import load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.adapters import in_force, old_names, recompute_in_force, tuner_layers
from rlhf_pipeline.ppo.average import MovingAverage
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.forward import Forward, give_packed_forward, packed_logprobs, silence_dropout
from rlhf_pipeline.ppo.optimizer import give_own_rate, rest_all_but
from rlhf_pipeline.ppo.packing import Packed
from rlhf_pipeline.ppo.seams import RolloutTrainer
from rlhf_pipeline.ppo.shared import SharedCritic, SharedReward
from rlhf_pipeline.sharding import share_frozen, zero_stage

CRITIC_FOLDER = "critic"
STATE_FILE = "ppo_state.json"


class ActorCriticTrainer(RolloutTrainer):
    """Trains a policy and its critic together; `reference` is the packed forward of where the policy started.

    A subclass gives `run_state` and `load_run_state`.
    """

    def __init__(
        self,
        critic: Critic | SharedCritic,
        *,
        shared_rewards: Sequence[SharedReward] = (),
        frozen: Sequence[nn.Module] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.critic = critic.to(self.accelerator.device)
        for reward in shared_rewards:
            reward.join(self.model)
        self._join_critic()
        self.reference = self._make_reference()
        self.average = self._make_average()
        self.shared_out = [share_frozen(model, self.accelerator) for model in frozen]

    def run_state(self) -> dict[str, Any]:
        """What a resumed run has to know beside weights, optimizer and random numbers, as JSON."""
        raise NotImplementedError

    def load_run_state(self, state: dict[str, Any]) -> None:
        """Go on from `run_state`."""
        raise NotImplementedError

    # ---- Networks ----

    def _join_critic(self) -> None:
        """Make policy and critic one module with one forward: clipping, ZeRO, DDP and resume cover both."""
        if isinstance(self.critic, SharedCritic):
            self._refuse_reentrant()
            self.critic.join(self.model)
            recompute_in_force(self.model, tuner_layers(self.model))
        elif self.args.gradient_checkpointing:  # under PEFT the policy's own switch does not reach it
            with old_names():
                self.critic.backbone.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        silence_dropout(self.model)
        silence_dropout(self.critic)
        float32_head = self.args.cast_lm_head_to_fp32
        give_packed_forward(self.model, self.temperature, values=self.critic, head_in_float32=float32_head)
        self.model.critic = self.critic

    def _refuse_reentrant(self) -> None:
        if self.args.gradient_checkpointing and zero_stage() == 3:
            raise ConfigError(
                "gradient_checkpointing: under ZeRO-3 LoRA recomputes reentrantly, and several adapters over one base "
                "cannot; set gradient_checkpointing to false, or launch with zero2.yaml (make: LAUNCH=zero2)"
            )

    def _make_reference(self) -> Forward:
        """Return the packed forward of the frozen policy that training starts from."""
        float32_head = self.args.cast_lm_head_to_fp32
        if self.ref_model is not None:
            silence_dropout(self.ref_model)
            plain = self.accelerator.unwrap_model(self.ref_model)
            plain.requires_grad_(self.accelerator.mixed_precision != "no")  # autocast keeps no copies of frozen weights
            give_packed_forward(plain, self.temperature, head_in_float32=float32_head)
            return self.ref_model
        layers, name = tuner_layers(self.model), "ref" if "ref" in self.model.peft_config else None
        figures = packed_logprobs(self.model, self.temperature, float32_head)

        def reference(*, input_ids: Tensor, predicts: Tensor) -> dict[str, Tensor]:
            with in_force(layers, name):
                return figures(Packed(input_ids, predicts))

        return reference

    def _make_average(self) -> MovingAverage | None:
        if self.args.ema_decay is None:
            return None
        if zero_stage() == 3:
            raise ConfigError(
                "ema_decay: under ZeRO-3 no process holds the weights to average; launch with zero2.yaml "
                "(make: LAUNCH=zero2), or leave ema_decay out"
            )
        of_critic = {id(p) for p in self.critic.trained()}
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        policy = {name: p for name, p in trained.items() if id(p) not in of_critic}
        average = MovingAverage(policy, self.args.ema_decay)
        self.add_callback(average)
        return average

    @contextlib.contextmanager
    def policy_alone(self) -> Iterator[None]:
        """Take the critic off the policy for a while, and let peft save no adapter but the policy's."""
        del self.model.critic
        if is_peft_model(self.model):
            self.model.save_pretrained = functools.partial(self.model.save_pretrained, selected_adapters=["default"])
        try:
            yield
        finally:
            self.model.critic = self.critic
            vars(self.model).pop("save_pretrained", None)

    # ---- Optimizer ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make TRL's optimizer, the critic's parameters in groups of their own with `critic_learning_rate`."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        give_own_rate(optimizer, self.critic.trained(), self.args.critic_learning_rate)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make TRL's schedule, the policy's rate zero for the first `critic_warmup_steps`."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.args.critic_warmup_steps:
            rest_all_but(scheduler, self.critic.trained(), self.args.critic_warmup_steps)
        return scheduler

    # ---- Checkpoints ----

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save the policy as a plain model or adapter, and the critic in a folder of its own beside it."""
        folder = Path(output_dir or str(self.args.output_dir))
        policy = {name: weight for name, weight in (state_dict or {}).items() if not name.startswith("critic.")}
        with self.policy_alone():
            super()._save(str(folder), policy or None)
        if self.args.should_save:
            self.critic.save(folder / CRITIC_FOLDER, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load both networks from what `_save` wrote."""
        folder = Path(resume_from_checkpoint)
        if is_peft_model(self.model):  # transformers' way would take the critic's folder for one more adapter
            set_peft_model_state_dict(self.model, load_peft_weights(str(folder)), adapter_name="default")
        else:
            with self.policy_alone():
                super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.critic.resume(folder / CRITIC_FOLDER, trust_remote_code=self.args.trust_remote_code)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save what else a resumed run needs: its state, and the moving average where there is one."""
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            (folder / STATE_FILE).write_text(json.dumps(self.run_state()) + "\n", encoding="utf-8")
            if self.average is not None:
                self.average.save(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what `_save_checkpoint` wrote; transformers calls this under every launcher."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]
        if checkpoint is not None:
            self.load_run_state(json.loads((Path(checkpoint) / STATE_FILE).read_text(encoding="utf-8")))
            if self.average is not None:
                self.average.load(Path(checkpoint))

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Put the moving average of the policy in its place for a while, where `ema_decay` asks for one."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()
