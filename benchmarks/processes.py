"""How each stage's throughput grows with processes, every process with a batch of its own: 1, 2 and 4 on this CPU.

    python -m benchmarks.processes            # a few minutes on two cores    -> results/processes.json

Efficiency is the time of one process over that of n for n times the rows (weak scaling), and cannot exceed the cores
over n. Left out: GPUs, nodes, and a model so large that its work hides what processes say to each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.checkpoints import make_config, make_policy, make_prompts, make_scorer, make_tokenizer
from benchmarks.provenance import describe_machine, describe_moment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PROCESSES = (1, 2, 4)
STAGES = ("sft", "reward", "ppo")
VOCABULARY, LONGEST, TOKENS, ROWS = 512, 32, 32, 256
SIZE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
STEPS = 8
SHARED = (
    "--per_device_train_batch_size", "8", "--max_steps", str(STEPS), "--eval_fraction", "0", "--save_strategy", "no",
    "--bf16", "false",
)  # fmt: skip


def prepare(folder: Path) -> dict[str, list[str]]:
    """Write a policy, a reward model and rows; returns what each stage is told."""
    config = make_config(VOCABULARY, **SIZE)
    for role, model in (("policy", make_policy(config, LONGEST)), ("reward", make_scorer(config, 1))):
        model.save_pretrained(folder / role)
        make_tokenizer(VOCABULARY).save_pretrained(folder / role)
    prompts = make_prompts([LONGEST] * ROWS, TOKENS, VOCABULARY, LONGEST)
    rows: dict[str, list[dict[str, Any]]] = {
        "sft": [{"prompt": text, "completion": " " + text} for text in prompts],
        "reward": [{"prompt": text, "chosen": " " + text, "rejected": " w5 w6"} for text in prompts],
        "ppo": [{"prompt": text} for text in prompts],
    }
    for stage, found in rows.items():
        (folder / f"{stage}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    policy = str(folder / "policy")
    return {
        "sft": ["--base", policy],
        "reward": ["--model", policy],
        "ppo": ["--model", policy, "--reward", str(folder / "reward"), "--max_completion_length", str(TOKENS),
                "--gradient_accumulation_steps", "1", "--guards", "length=off"],
    }  # fmt: skip


def seconds(stage: str, processes: int, words: Sequence[str], folder: Path) -> float:
    """Run a stage and return how long its training took, as the trainer logs it."""
    store = folder / f"{stage}-{processes}"
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", "recipes/accelerate/cpu2.yaml"]
    start = [*launch, "--num_processes", str(processes)] if processes > 1 else []
    command = [
        sys.executable, *start, f"recipes/{stage}.py", "--artifacts", str(store), "--data",
        str(folder / f"{stage}.jsonl"), *SHARED, *words,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{stage} with {processes} processes failed: {(done.stdout + done.stderr)[-2000:]}")
    (log,) = store.glob("runs/*/*/*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return float(next(line["train_runtime"] for line in lines if "train_runtime" in line))


def efficiency(times: Mapping[int, float]) -> dict[int, float]:
    """Time of one process over that of n, which did n times as much."""
    return {processes: times[1] / time for processes, time in times.items()}


def main() -> None:
    """Time every stage, print efficiencies and write `processes.json`."""
    found: dict[str, Any] = {}
    print(f"{'stage':8}{'processes':>10}{'seconds':>10}{'efficiency':>12}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        words = prepare(folder)
        for stage in STAGES:
            times = {processes: seconds(stage, processes, words[stage], folder) for processes in PROCESSES}
            share = efficiency(times)
            for processes, time in times.items():
                print(f"{stage:8}{processes:>10}{time:>10.2f}{share[processes]:>12.2f}", flush=True)
            found[stage] = {"seconds": times, "efficiency": share}
    RESULTS.mkdir(exist_ok=True)
    whole = {"machine": describe_machine(), **describe_moment(), "steps": STEPS, "stages": found}
    (RESULTS / "processes.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
