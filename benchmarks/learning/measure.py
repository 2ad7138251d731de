"""Reward, KL and length of a policy in training, measured on both sides by the same code after every update.

The policy's weights are copied into a float32 model of its own; that continues the held-out prompts, always with the
same random numbers, and both it and the reference read what it wrote. KL is the mean over completions of the sum over
tokens of log p - log p_ref, in nats, at the sampling temperature. No number of a trainer's own log is used, and no
random number of its generator.

Runs in both environments. Left out: the trainers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from benchmarks.learning.sentiment import sentiment
from benchmarks.learning.task import Task, read_prompts
from rlhf_pipeline.decoding import decode, evaluating, left_pad, stop_ids

Rows = list[list[int]]
Score = Callable[[Rows, Rows], Tensor]
"""Ids of prompts and of completions to the reward of each, (B,)."""
VERSIONS = ("torch", "transformers", "trl", "accelerate")


class Meter(TrainerCallback):
    """Measures `policy` before the first update and after each, which takes `steps` optimizer steps: one point each."""

    def __init__(self, policy: torch.nn.Module, folder: Path, task: Task, steps: int) -> None:
        self.policy, self.steps, self.temperature = policy, steps, task.temperature
        tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
        self.pad = int(tokenizer.pad_token_id)
        self.probe, self.reference = (load_policy(folder) for _ in range(2))
        self.stops = stop_ids(self.probe, tokenizer)
        self.score = reward_of(folder, tokenizer)
        self.prompts: Rows = [tokenizer(prompt)["input_ids"] for prompt in read_prompts(folder, "measured")]
        shape = (len(self.prompts), 1, task.completion_tokens)
        self.noise = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.points: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where training starts."""
        self.points.append(self.measure())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure at the end of an update."""
        if state.global_step % self.steps == 0:
            self.points.append(self.measure())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Continue the held-out prompts, and return the means of one point."""
        trained = dict(self.policy.named_parameters())
        for name, parameter in self.probe.named_parameters():
            parameter.copy_(trained[name])
        ids, mask = left_pad(self.prompts, self.pad, torch.device("cpu"))
        with evaluating(self.probe) as forward:
            completions, _ = decode(forward, ids, mask, self.noise, self.stops, self.temperature)
        of_both = [
            summed_logprobs(model, self.prompts, completions, self.temperature)
            for model in (self.probe, self.reference)
        ]
        return {
            "reward": float(self.score(self.prompts, completions).mean()),
            "kl_nats": float((of_both[0] - of_both[1]).mean()),
            "completion_tokens": sum(map(len, completions)) / len(completions),
        }


def load_policy(folder: Path) -> PreTrainedModel:
    """Load where training starts, in float32, for reading only."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    model.eval()
    return model


def summed_logprobs(model: PreTrainedModel, prompts: Rows, completions: Rows, temperature: float) -> Tensor:
    """Sum the log-probabilities of each completion's tokens: (B,)."""
    ids, mask = right_pad([[*one, *other] for one, other in zip(prompts, completions, strict=True)])
    chances = (model(input_ids=ids, attention_mask=mask).logits[:, :-1].float() / temperature).log_softmax(-1)
    chosen = chances.gather(-1, ids[:, 1:, None]).squeeze(-1)  # (B, P + C - 1), of the tokens from the second on
    places = torch.arange(1, ids.size(1))
    first = torch.tensor([len(prompt) for prompt in prompts])
    return torch.as_tensor((chosen * mask[:, 1:] * (places >= first[:, None])).sum(1))


def right_pad(rows: Rows, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, T) tensor that begins together, and its mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def reward_of(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Score:
    """Return the task's reward: of its reward model in float32, or of the words of the completion alone."""
    if not (folder / "reward").is_dir():
        return lambda _, completions: torch.tensor([sentiment(text_of(tokenizer, ids)) for ids in completions])
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32).eval()
    model.config.pad_token_id = pad = int(tokenizer.pad_token_id)  # where the pooled token is looked for

    def score(prompts: Rows, completions: Rows) -> Tensor:
        ids, mask = right_pad([[*one, *other] for one, other in zip(prompts, completions, strict=True)], pad)
        return torch.as_tensor(model(input_ids=ids, attention_mask=mask).logits[:, 0])

    return score


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Write ids as the text that the sentiment is read from."""
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def print_run(meter: Meter, mixed_precision: str) -> None:
    """Print the run as one line of JSON, the last that a contestant prints."""
    versions = {name: version(name) for name in VERSIONS}
    print(json.dumps({"points": meter.points, "mixed_precision": mixed_precision, "versions": versions}), flush=True)
