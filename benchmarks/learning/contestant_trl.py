"""A contestant: PPOTrainer of TRL 1.12, as installed, learning a task.

Runs in the environment of TRL 1.12. Left out: evaluation, sample generations, checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer  # type: ignore[import-not-found]

from benchmarks.learning.measure import Meter, print_run, text_of
from benchmarks.learning.sentiment import sentiment
from benchmarks.learning.task import Task, from_arguments, read_prompts


def main(argv: Sequence[str]) -> None:
    """Learn the task and print the points of the run."""
    task, folder, _ = from_arguments(argv)
    set_seed(task.seed)
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    meter = Meter(policy, folder, task, steps=1)
    with TemporaryDirectory() as output:
        trainer = make_trainer(policy, task, folder, output, meter)
        trainer.train()
    print_run(meter, trainer.accelerator.mixed_precision)


class SentimentModel(nn.Module):
    """The words' reward in the form that TRL reads: a backbone with hidden states, and a score of each.

    TRL takes the score at a completion's last token, so it stands at every position. All prompts have one length.
    """

    base_model_prefix = "backbone"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int) -> None:
        super().__init__()
        self.tokenizer, self.prompt_tokens, self.score = tokenizer, prompt_tokens, nn.Identity()

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """Return one hidden state, (B, T, 1); `attention_mask` is False on pads."""
        completions = zip(input_ids[:, self.prompt_tokens :], attention_mask[:, self.prompt_tokens :], strict=True)
        scores = [sentiment(text_of(self.tokenizer, ids[mask.bool()].tolist())) for ids, mask in completions]
        return SimpleNamespace(hidden_states=[torch.tensor(scores)[:, None, None].expand(*input_ids.shape, 1)])


def make_trainer(policy: Any, task: Task, folder: Path, output: str, meter: Meter) -> Any:
    """Put TRL's trainer together."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    ids = [tokenizer(prompt)["input_ids"] for prompt in read_prompts(folder, "train")]
    dataset = Dataset.from_list([{"input_ids": row} for row in ids])
    return PPOTrainer(
        args=make_config(task, output),
        processing_class=tokenizer,
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_model=make_reward(folder, tokenizer, ids),
        value_model=AutoModelForSequenceClassification.from_pretrained(folder / "value"),
        train_dataset=dataset,
        eval_dataset=dataset,
        callbacks=[meter],
    )


def make_reward(folder: Path, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]]) -> nn.Module:
    """Load the task's reward model, or wrap the sentiment of words as one; raises ValueError for unequal prompts."""
    if (folder / "reward").is_dir():
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder / "reward")
        return model
    lengths = {len(row) for row in prompts}
    if len(lengths) > 1:
        raise ValueError(f"{folder}: prompts of {min(lengths)} to {max(lengths)} tokens; TRL's side needs one length")
    return SentimentModel(tokenizer, lengths.pop())


def make_config(task: Task, output: str) -> Any:
    """Say the task in TRL's words; everything else stays as installed."""
    return PPOConfig(
        output_dir=output,
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=task.batch,
        total_episodes=task.batch * task.updates,
        num_ppo_epochs=task.epochs,
        num_mini_batches=1,
        response_length=task.completion_tokens,
        temperature=task.temperature,
        kl_coef=task.kl_coef,
        vf_coef=task.vf_coef,
        cliprange_value=task.cliprange_value,
        learning_rate=task.learning_rate,
        lr_scheduler_type="constant",
        adam_epsilon=task.adam_epsilon,
        stop_token="eos",
        seed=task.seed,
        use_cpu=True,
        logging_steps=1,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
