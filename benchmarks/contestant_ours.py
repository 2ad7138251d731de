"""A contestant: our PPO, put together as `rlhf ppo` does it, as shipped or in float32.

The trainer logs what each phase of a rollout took. Left out: held-out prompts, checkpoints, publication.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset

from benchmarks.timing import UpdateClock, print_run
from benchmarks.workload import Workload, from_arguments, read_prompts
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

MICRO_BATCH = 16
"""Completions of one forward pass with gradients."""
PHASES = ("generate", "score", "optimise")


def main(argv: Sequence[str]) -> None:
    """Run the updates and print what they took."""
    workload, folder, options = from_arguments(argv, "--float32")
    clock = UpdateClock(phases_of)
    with TemporaryDirectory() as output:
        trainer = make_trainer(workload, folder, Path(output), float32=options.float32)
        trainer.add_callback(clock)
        trainer.train()
    print_run(clock, trainer.accelerator.mixed_precision)


def phases_of(logs: Mapping[str, Any]) -> dict[str, float] | None:
    """Read the seconds of each phase from the log of a rollout; None for any other log."""
    if "ppo/generate_seconds" not in logs:
        return None
    return {**{phase: logs[f"ppo/{phase}_seconds"] for phase in PHASES}, "mean_tokens": logs["ppo/completion_tokens"]}


def make_trainer(workload: Workload, folder: Path, output: Path, *, float32: bool) -> PPOTrainer:
    """Put our trainer together from the workload's checkpoints."""
    arguments, model_config = ppo_arguments(output, make_settings(workload, float32))
    options = network_options(arguments, model_config, workload.prompt_tokens + workload.completion_tokens)
    store, start = Store(output), Checkpoint("policy", str(folder / "policy"))
    tokenizer = load_tokenizer(start)
    make_fit(tokenizer, may_grow=False)
    policy = load_causal(store, start, trainable=True, **options)
    scorer = load_reward_model(
        store, Checkpoint("reward", str(folder / "reward")), arguments.device, bf16=arguments.bf16, **options
    )
    return PPOTrainer(
        model=policy,
        critic=Critic.from_reward(folder / "value", **{**options, "dtype": "float32"}),
        reward_funcs=[model_reward(scorer, tokenizer, stop_ids(policy, tokenizer))],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in read_prompts(folder, workload)]),
        processing_class=tokenizer,
    )


def make_settings(workload: Workload, float32: bool) -> dict[str, Setting]:
    """Say the work in our words; everything else stays at our defaults for the machine."""
    micro_batch = min(MICRO_BATCH, workload.prompts)
    values: dict[str, Any] = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": workload.prompts // micro_batch,
        "num_iterations": workload.epochs,
        "max_steps": workload.updates * workload.epochs,
        "max_completion_length": workload.completion_tokens,
        "temperature": workload.temperature,
        "learning_rate": workload.learning_rate,
        "seed": workload.seed,
        "use_cpu": True,
        "save_strategy": "no",
        **({"bf16": False} if float32 else {}),
    }
    return {name: Setting(name, value, "benchmarks/contestant_ours.py") for name, value in values.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
