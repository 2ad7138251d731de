"""A contestant: PPOTrainer of TRL 1.12, as installed or with the matrix products of ours, timed from outside.

Three marks in its loop give the phases: sampling begins, sampling ends, the first forward pass with gradients begins.
Runs in the environment of TRL 1.12, without our package. Left out: evaluation, sample generations, checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer  # type: ignore[import-not-found]
from trl.experimental.ppo import ppo_trainer as loop

from benchmarks.timing import UpdateClock, print_run
from benchmarks.workload import Workload, from_arguments, read_prompts

ROLLOUT_BATCH = 64
"""Completions of one forward pass without gradients: TRL's default; with gradients too, unless they are split."""
SPLIT_BATCH = 16


def main(argv: Sequence[str]) -> None:
    """Run the updates and print what they took."""
    workload, folder, options = from_arguments(argv, "--medium", "--split")
    if options.medium:
        torch.set_float32_matmul_precision("medium")
    marks = Marks()
    clock = UpdateClock(marks.phases)
    with TemporaryDirectory() as output:
        trainer = make_trainer(workload, folder, output, clock, SPLIT_BATCH if options.split else ROLLOUT_BATCH)
        marks.attach(trainer.processing_class.pad_token_id)
        trainer.train()
    print_run(clock, trainer.accelerator.mixed_precision)


class Marks:
    """When each phase of the running update began, and how long its completions are."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.mean_tokens = 0.0

    def attach(self, pad: int) -> None:
        """Stand in front of the two functions of TRL's loop that tell the phases apart."""
        loop.batch_generation = self.around_sampling(loop.batch_generation, pad)
        loop.forward = self.before_training(loop.forward)

    def around_sampling(self, sample: Callable[..., Any], pad: int) -> Callable[..., Any]:
        """Mark when sampling begins and ends; count what is not padding."""

        def marked(model: Any, queries: torch.Tensor, *rest: Any) -> Any:
            self.began = {"generate": perf_counter()}
            rows, logits = sample(model, queries, *rest)
            self.began["score"] = perf_counter()
            self.mean_tokens = float((rows[:, queries.shape[1] :] != pad).sum(1).float().mean())
            return rows, logits

        return marked

    def before_training(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Mark the first forward pass that computes gradients."""

        def marked(*inputs: Any) -> Any:
            if torch.is_grad_enabled():
                self.began.setdefault("optimise", perf_counter())
            return forward(*inputs)

        return marked

    def phases(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """Return the seconds of each phase of the update that ends now."""
        ends = [*list(self.began.values())[1:], perf_counter()]
        seconds = {name: end - start for (name, start), end in zip(self.began.items(), ends, strict=True)}
        return {**seconds, "mean_tokens": self.mean_tokens}


def make_trainer(workload: Workload, folder: Path, output: str, clock: UpdateClock, micro_batch: int) -> Any:
    """Put TRL's trainer together; `micro_batch` completions a forward pass with gradients."""
    policy = folder / "policy"
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    ids = [{"input_ids": tokenizer(prompt)["input_ids"]} for prompt in read_prompts(folder, workload)]
    dataset = Dataset.from_list(ids)
    return PPOTrainer(
        args=make_config(workload, output, min(micro_batch, workload.prompts)),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(policy),
        ref_model=AutoModelForCausalLM.from_pretrained(policy),
        reward_model=AutoModelForSequenceClassification.from_pretrained(folder / "reward"),
        value_model=AutoModelForSequenceClassification.from_pretrained(folder / "value"),
        train_dataset=dataset,
        eval_dataset=dataset,
        callbacks=[clock],
    )


def make_config(workload: Workload, output: str, micro_batch: int) -> Any:
    """Say the work in TRL's words; everything else stays as installed, and stop token None is its own default."""
    return PPOConfig(
        output_dir=output,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=workload.prompts // micro_batch,
        local_rollout_forward_batch_size=ROLLOUT_BATCH,
        total_episodes=workload.prompts * workload.updates,
        num_ppo_epochs=workload.epochs,
        num_mini_batches=1,
        response_length=workload.completion_tokens,
        temperature=workload.temperature,
        learning_rate=workload.learning_rate,
        stop_token="eos" if workload.case == "early" else None,
        seed=workload.seed,
        use_cpu=True,
        logging_steps=1,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
