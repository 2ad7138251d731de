"""A whole pipeline on a tiny base: a store, rows to learn from, and its stages as the commands a user types."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.jobs import DONE

SHARED = ("--per_device_train_batch_size", "4", "--learning_rate", "1e-2", "--logging_steps", "1")
TINY: Mapping[str, Sequence[str]] = {
    "pretrain": (*SHARED, "--max_steps", "2", "--max_length", "64", "--eval_fraction", "0.2"),
    "sft": (*SHARED, "--max_steps", "2", "--eval_fraction", "0.2"),
    "reward": (*SHARED, "--max_steps", "2", "--eval_fraction", "0.2"),
    "ppo": (*SHARED, "--max_steps", "2", "--max_completion_length", "8", "--gradient_accumulation_steps", "1"),
}
"""The settings under which a stage of a tiny model takes about a second."""

ROWS = 16
QUESTIONS = [f"Is {number} a {'big' if number % 2 else 'small'} number?" for number in range(ROWS)]
ANSWERS = [f"{'Yes' if number % 3 else 'No'}, {number} is." for number in range(ROWS)]


def write_rows(folder: Path) -> Path:
    """Write a file of rows for every stage: plain text, and the same demonstrations as messages."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(zip(QUESTIONS, ANSWERS, strict=True))
    kinds: dict[str, list[dict[str, Any]]] = {
        "documents": [{"text": f"{question} {answer}"} for question, answer in pairs],
        "demonstrations": [{"prompt": question, "completion": f" {answer}"} for question, answer in pairs],
        "messages": [{"messages": [*ask(question), answered(answer)]} for question, answer in pairs],
        "rankings": [
            {"prompt": question, "completions": [f" {answer}", " Go away.", " Eh?"][:size], "ranks": [0, 2, 1][:size]}
            for size, (question, answer) in zip((2, 3) * (ROWS // 2), pairs, strict=True)
        ],
        "prompts": [{"prompt": question} for question in QUESTIONS],
        "chat-prompts": [{"prompt": ask(question)} for question in QUESTIONS],
    }
    for kind, rows in kinds.items():
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ask(question: str) -> list[dict[str, str]]:
    """The messages of a prompt."""
    return [{"role": "user", "content": question}]


def answered(answer: str) -> dict[str, str]:
    """The message of a completion."""
    return {"role": "assistant", "content": answer}


@dataclass(frozen=True)
class Pipeline:
    """One store and the rows that its stages learn from."""

    root: Path
    rows: Path
    run: str = "default"

    @property
    def store(self) -> Store:
        """The store as it is now."""
        return Store(self.root)

    def argv(self, stage: str, *arguments: str, rows: str | None = None) -> list[str]:
        """The words of one stage: `arguments` win over `TINY`, `rows` name another file than the stage's own."""
        own = {"pretrain": "documents", "sft": "demonstrations", "reward": "rankings", "ppo": "prompts"}[stage]
        settings = ["--data", str(self.rows / f"{rows or own}.jsonl"), *TINY[stage]]
        if "--save_steps" not in arguments:
            settings += ["--save_strategy", "no"]
        return [stage, "--artifacts", str(self.root), "--run", self.run, *without(settings, arguments), *arguments]

    def stage(self, stage: str, *arguments: str, rows: str | None = None) -> int:
        """Run one stage in this process and return its exit status."""
        return cli.main(self.argv(stage, *arguments, rows=rows))

    def make(self, stage: str, *arguments: str, rows: str | None = None) -> None:
        """Run one stage, which must succeed."""
        assert self.stage(stage, *arguments, rows=rows) == 0

    def refs(self) -> dict[str, str]:
        """What the run's roles point to."""
        return self.store.refs().get(self.run, {})

    def metrics(self, stage: str) -> list[dict[str, float]]:
        """The logged lines of the one job that `stage` finished in this run."""
        (job,) = (path.parent for path in self.store.run_dir(self.run, stage).glob(f"*/{DONE}"))
        return [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]

    def copy(self, root: Path) -> Pipeline:
        """This pipeline on a copy of its store, to go on from one state more than once."""
        shutil.copytree(self.root, root)
        return Pipeline(root, self.rows, self.run)

    def damage(self) -> list[str]:
        """What `rlhf artifacts verify` finds."""
        return verify(self.store)


def without(settings: Sequence[str], given: Sequence[str]) -> list[str]:
    """`settings`, a flat list of --name value, without those that `given` names too."""
    pairs = zip(settings[::2], settings[1::2], strict=True)
    return [word for name, value in pairs if name not in given for word in (name, value)]
