"""One update of TRL 1.12's own PPOTrainer on a tiny model in float64, and the tensors inside its `train`.

Its maths stands inline in that method, so its local variables are read where it calls `backward`; nothing is copied.
"""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from tests.tiny import llama_config, make_tokenizer

WHY = "PPO left TRL with 1.13; `make test-trl` runs this in an environment with trl==1.12.0"

with warnings.catch_warnings():  # TRL calls the folder experimental
    warnings.simplefilter("ignore")
    theirs = pytest.importorskip("trl.experimental.ppo.ppo_trainer", reason=WHY)

PAD, EOS = 0, 1
ROWS, MICRO, WIDTH = 8, 2, 8
NEVER = -1e4


class Captured(NamedTuple):
    """`rollout`: TRL's local tensors behind its GAE. `micro_batches`: those of every loss, in order. `steps`: how many
    micro-batches there had been at every optimizer step. `norms`: the gradient's norm there. `policy` is as it was
    before; `reference` never moves.
    """

    rollout: dict[str, Tensor]
    micro_batches: list[dict[str, Tensor]]
    steps: list[int]
    norms: list[float]
    metrics: dict[str, float]
    policy: nn.Module
    reference: nn.Module

    @property
    def mask(self) -> Tensor:
        """The tokens that were sampled, (B, C), the EOS among them."""
        return ~self.rollout["padding_mask"]


def captured(
    folder: Path, *, eos_logit: float, prompts: int = 3 * ROWS, numpy_seed: int = 0, **changes: Any
) -> Captured:
    """Run one update; `eos_logit` decides how soon completions end. `changes` are fields of TRL's PPOConfig."""
    np.random.seed(numpy_seed)
    trainer = make_trainer(folder, eos_logit, prompts, **changes)
    policy, found, steps, norms, metrics = copy.deepcopy(trainer.policy_model), [], [], [], {}
    backward = Accelerator.backward

    def keep_and_go_on(accelerator: Any, loss: Tensor, **options: Any) -> None:
        found.append(tensors(sys._getframe(1)))
        backward(accelerator, loss, **options)

    def note_step(optimizer: Any, *_: Any) -> None:
        steps.append(len(found))
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(nn.utils.get_total_norm(grads)))

    trainer.optimizer.optimizer.register_step_pre_hook(note_step)
    trainer.log = metrics.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "backward", keep_and_go_on)
        trainer.train()
    return Captured(found[0], found, steps, norms, metrics, policy, trainer.ref_model)


def tensors(frame: FrameType) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in frame.f_locals.items() if isinstance(x, Tensor)}


def make_trainer(folder: Path, eos_logit: float, prompts: int, **changes: Any) -> Any:
    """TRL's trainer: eight completions of at most eight tokens a batch, two a micro-batch, two epochs."""
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": ROWS // MICRO,
        "num_ppo_epochs": 2, "total_episodes": ROWS, "response_length": WIDTH, "stop_token": "eos", "kl_coef": 0.3,
        "temperature": 0.7, "gamma": 0.98, "lam": 0.9, "learning_rate": 1e-2, "cliprange": 0.1,
        "num_sample_generations": 0, "report_to": "none", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    torch.manual_seed(0)
    tokenizer = make_tokenizer(padding_side="left")
    rows = [dict(tokenizer(f"{i} hello {'x' * (i % 5)}")) for i in range(prompts)]
    networks = [causal(eos_logit), causal(eos_logit), classifier(), classifier()]
    policy, reference, reward, value = (network.double().eval() for network in networks)
    config = theirs.PPOConfig(**{**settings, **changes})
    return theirs.PPOTrainer(config, tokenizer, policy, reference, reward, Dataset.from_list(rows), value)


def causal(eos_logit: float) -> LlamaForCausalLM:
    """A random policy that never samples the pad and ends with odds of exp(`eos_logit`)."""
    model = LlamaForCausalLM(llama_config(initializer_range=0.2))
    model.lm_head = nn.Linear(16, 258, bias=True)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.2)
        model.lm_head.bias.zero_()
        model.lm_head.bias[PAD], model.lm_head.bias[EOS] = NEVER, eos_logit
    return model


def classifier() -> LlamaForSequenceClassification:
    """A random reward model or critic."""
    return LlamaForSequenceClassification(llama_config(num_labels=1, initializer_range=0.2))
