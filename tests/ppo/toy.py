"""A toy task that PPO learns in seconds: random tiny Llama, one reward asks for `a` and `e`."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from rlhf_pipeline.ppo.config import PPOConfig
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.trainer import PPOTrainer
from tests.tiny import make_llama, make_tokenizer

PROMPTS = Dataset.from_list([{"prompt": f"{i % 10} hello {'x' * (i % 7)}", "number": i} for i in range(32)])
EXTRA = ("reward_funcs", "eval_dataset", "peft_config", "pretraining_rows", "shared_rewards")
QUIET = {
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}


def vowels(completions: list[str], **_: Any) -> list[float]:
    """Reward function: a quarter for every a and e."""
    return [(text.count("a") + text.count("e")) / 4 for text in completions]


def checksum(completions: list[str], **_: Any) -> list[float]:
    """Reward function without meaning that differs from text to text."""
    return [sum(text.encode()) % 17 / 4 for text in completions]


class Recorder(PPOTrainer):
    """Keeps every rollout and every figure for the tests to look at."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts: list[dict[str, Any]] = []
        self.seen: dict[str, list[float]] = defaultdict(list)
        note = self.figures.note

        def note_and_keep(mode: str, name: str, value: Any) -> None:
            note(mode, name, value)
            self.seen[name].append(float(value))

        self.figures.note = note_and_keep

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        rollout = super()._generate_and_score_completions(inputs)
        self.rollouts.append(dict(rollout))
        return rollout


def make_config(folder: Path, **changes: Any) -> PPOConfig:
    """Eight completions a rollout, two minibatches of four, one epoch; `changes` override."""
    settings = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        **QUIET,
    }
    with warnings.catch_warnings():
        # transformers renames it in v6, TRL still has it under the old name: remove once TRL does not
        warnings.filterwarnings("ignore", message="`gradient_checkpointing", category=FutureWarning)
        return PPOConfig(**{**settings, **changes})


def make_trainer(folder: Path, *, model: Any = None, critic: Critic | None = None, **changes: Any) -> Recorder:
    """A trainer on the toy task; the policy lies in `folder`, so that the reference is loaded from there."""
    extra = {name: changes.pop(name) for name in EXTRA if name in changes}
    if not (folder / "policy").exists():
        make_llama(folder / "policy")
    return Recorder(
        model=str(folder / "policy") if model is None else model,
        critic=Critic.from_policy(folder / "policy") if critic is None else critic,
        args=make_config(folder, **changes),
        train_dataset=PROMPTS,
        processing_class=make_tokenizer(),
        **{"reward_funcs": [checksum], **extra},
    )
