"""A yardstick, no contestant of its own: the optimisation of an update and nothing else, as lean as plain torch is.

Policy and value model forward and backward over every row in micro-batches of 16, the LM head where a completion token
is predicted, bf16 autocast where the processor multiplies it, one AdamW step an epoch. Its losses are stand-ins of the
same cost. Left out: sampling, scoring, clipping, figures, a trainer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.timing import UpdateClock, print_run
from benchmarks.workload import Workload, from_arguments
from rlhf_pipeline.machine import cpu_has_bf16, keep_freed_memory

MICRO_BATCH = 16


def main(argv: Sequence[str]) -> None:
    """Run the updates and print what they took."""
    keep_freed_memory()
    workload, folder, _ = from_arguments(argv)
    policy, critic = load(folder)
    optimizer = torch.optim.AdamW([*policy.parameters(), *critic.parameters()], lr=workload.learning_rate)
    clock = UpdateClock(lambda logs: {"generate": 0.0, "score": 0.0, **logs})
    clock.on_train_begin(None, None, None)
    for update in range(workload.updates):
        began = perf_counter()
        optimise(policy, critic, optimizer, random_rows(policy.config.vocab_size, workload, update), workload)
        tokens = float(workload.completion_tokens)
        clock.on_log(None, None, None, logs={"optimise": perf_counter() - began, "mean_tokens": tokens})
    print_run(clock, "bf16" if cpu_has_bf16() else "no")


def load(folder: Path) -> tuple[Any, Any]:
    """Load the policy and the value model."""
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    return policy, AutoModelForSequenceClassification.from_pretrained(folder / "value")


def random_rows(vocabulary: int, workload: Workload, seed: int) -> torch.Tensor:
    """Make prompts and completions of full length: (prompts, tokens)."""
    shape = (workload.prompts, workload.prompt_tokens + workload.completion_tokens)
    return torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def optimise(policy: Any, critic: Any, optimizer: Any, rows: torch.Tensor, workload: Workload) -> None:
    """Take one step an epoch over all rows."""
    for _ in range(workload.epochs):
        for ids in torch.split(rows, MICRO_BATCH):
            loss(policy, critic, ids, workload.prompt_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()


def loss(policy: Any, critic: Any, ids: torch.Tensor, prompt_tokens: int) -> torch.Tensor:
    """Log-probabilities and values of the completion tokens, made one number."""
    with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
        states = policy.model(input_ids=ids, use_cache=False).last_hidden_state[:, prompt_tokens - 1 : -1]
        logits = policy.lm_head(states).float()
        values = critic.model(input_ids=ids, use_cache=False).last_hidden_state[:, prompt_tokens - 1 : -1]
        values = critic.score(values).float()
    chosen = logits.gather(-1, ids[:, prompt_tokens:, None]).squeeze(-1)
    return (logits.logsumexp(-1) - chosen).mean() + values.square().mean()


if __name__ == "__main__":
    main(sys.argv[1:])
