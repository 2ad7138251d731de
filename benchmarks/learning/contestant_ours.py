"""A contestant: our PPO, put together as `rlhf ppo` does it, as shipped or in float32, learning a task.

Left out: held-out prompts of its own, checkpoints, publication.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import set_seed

from benchmarks.learning.measure import Meter, print_run
from benchmarks.learning.sentiment import sentiment
from benchmarks.learning.task import Task, from_arguments, read_prompts
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.config import Setting
from rlhf_pipeline.decoding import stop_ids
from rlhf_pipeline.models import load_causal, load_tokenizer
from rlhf_pipeline.ppo.critic import Critic
from rlhf_pipeline.ppo.trainer import PPOTrainer
from rlhf_pipeline.rewards import load_reward_model, model_reward
from rlhf_pipeline.stages.ppo import network_options, ppo_arguments
from rlhf_pipeline.tokenization import make_fit


def main(argv: Sequence[str]) -> None:
    """Learn the task and print the points of the run."""
    task, folder, options = from_arguments(argv, "--float32")
    set_seed(task.seed)
    with TemporaryDirectory() as output:
        trainer = make_trainer(task, folder, Path(output), float32=options.float32)
        meter = Meter(trainer.model, folder, task, steps=task.epochs)
        trainer.add_callback(meter)
        trainer.train()
    print_run(meter, trainer.accelerator.mixed_precision)


def make_trainer(task: Task, folder: Path, output: Path, *, float32: bool) -> PPOTrainer:
    """Put our trainer together from the task's checkpoints."""
    arguments, model_config = ppo_arguments(output, make_settings(task, float32))
    store, start = Store(output), Checkpoint("policy", str(folder / "policy"))
    tokenizer = load_tokenizer(start)
    make_fit(tokenizer, may_grow=False)
    prompts = read_prompts(folder, "train")
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
    options = network_options(arguments, model_config, longest + task.completion_tokens)
    policy = load_causal(store, start, trainable=True, **options)
    reward = glad_words
    if (folder / "reward").is_dir():
        checkpoint = Checkpoint("reward", str(folder / "reward"))
        scorer = load_reward_model(store, checkpoint, arguments.device, bf16=bool(arguments.bf16), **options)
        reward = model_reward(scorer, tokenizer, stop_ids(policy, tokenizer))
    return PPOTrainer(
        model=policy,
        critic=Critic.from_reward(folder / "value", **{**options, "dtype": "float32"}),
        reward_funcs=[reward],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
    )


def glad_words(completions: list[str], **_: Any) -> list[float]:
    """Score completions by their words."""
    return [sentiment(text) for text in completions]


def make_settings(task: Task, float32: bool) -> dict[str, Setting]:
    """Say the task in our words; everything else stays at our defaults for the machine."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": task.batch,
        "gradient_accumulation_steps": 1,
        "num_iterations": task.epochs,
        "max_steps": task.updates * task.epochs,
        "max_completion_length": task.completion_tokens,
        "temperature": task.temperature,
        "kl_coef": task.kl_coef,
        "vf_coef": task.vf_coef,
        "cliprange_value": task.cliprange_value,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_epsilon": task.adam_epsilon,
        "seed": task.seed,
        "use_cpu": True,
        "save_strategy": "no",
        **({"bf16": False} if float32 else {}),
    }
    return {name: Setting(name, value, "benchmarks/learning/contestant_ours.py") for name, value in values.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
