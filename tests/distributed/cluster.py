"""Stages of a tiny pipeline under every launch file, each run once: a test asks for a run by name, and compares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.launches import launch_file
from tests.e2e.fork_server import ROOT, ForkServer
from tests.e2e.instants import Instant
from tests.e2e.pipeline import Pipeline, write_rows
from tests.tiny import make_causal

PROMPTS = 32
TOKENS = 8
STOPS = [1, *range(2, 258, 26)]
"""Ids that end a completion: four in a hundred random tokens, so that lengths differ."""

FLOAT = {"bf16": "false", "lr_scheduler_type": "constant"}
LORA = {"use_peft": "true", "lora_r": 4, "lora_dropout": 0}  # dropout is drawn by each process for itself
EPOCH = {"max_steps": -1, "num_train_epochs": 2, "eval_fraction": 0.3, "dataloader_drop_last": "true", **FLOAT}
PPO = {"steps_per_generation": 4, "max_completion_length": TOKENS, "eval_fraction": 0.2, "max_steps": 6, **FLOAT}
STORED = {
    "reward": ["reward", ROOT / "tests/distributed/replay.py:nothing"], "gradient_accumulation_steps": 4,
    "num_iterations": 2, "guards": "sampler=off",
}  # fmt: skip
"""One minibatch a rollout, so that processes share it out and cut nothing differently."""
LIVE = {"gradient_accumulation_steps": 2, "save_steps": 2, "max_steps": 8, "eval_strategy": "steps", "eval_steps": 4}
"""Two minibatches a rollout; every rollout is evaluated or saved behind."""

KINDS: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "sft": ("sft", "full", EPOCH),
    "reward": ("reward", "full", {**EPOCH, "normalize_on": "demonstrations"}),
    "sft-lora": ("sft", "full", {**EPOCH, **LORA}),
    "reward-lora": ("reward", "full", {**EPOCH, **LORA}),
    "stored": ("ppo", "full", {**PPO, **STORED}),
    "stored-lora": ("ppo", "lora", {**PPO, **STORED}),
    "live": ("ppo", "full", {**PPO, **LIVE}),
    "live-lora": ("ppo", "lora", {**PPO, **LIVE}),
}
"""Name -> the stage, the store it starts from, and its settings."""
BATCH = 4
"""Rows of all processes together in a micro-batch."""


@dataclass(frozen=True)
class Cluster:
    """Runs, each in a store of its own, and the launch files that started them."""

    server: ForkServer
    folder: Path
    finished: dict[tuple[str, str], Pipeline] = field(default_factory=dict)

    @property
    def rows(self) -> Path:
        """Where the rows for every stage are."""
        return self.folder / "rows"

    def prepare(self) -> None:
        """Make a base, and two stores with SFT and reward model over it: full ones, and adapters."""
        write_rows(self.rows)
        prompts = [{"prompt": f"{n} hello {'x' * (n % 7)}"} for n in range(PROMPTS)]
        (self.rows / "many-prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
        base = make_causal("llama", self.folder / "base")
        base.generation_config.eos_token_id = STOPS
        base.generation_config.save_pretrained(self.folder / "base")
        for start, lora in (("full", {}), ("lora", LORA)):
            store = Pipeline(self.folder / start, self.rows)
            self.type(store, "sft", {"base": self.folder / "base", **FLOAT, **lora})
            self.type(store, "reward", {"model": "sft", **FLOAT})

    def type(
        self, store: Pipeline, stage: str, settings: Mapping[str, Any], mode: str = "one", **launch: Any
    ) -> tuple[int, str]:
        """Type one command; its exit status, 0 unless it is to be killed, and what it said."""
        instant, processes = launch.get("instant"), launch.get("processes", 2)
        said = self.server.output.stat().st_size
        file = "" if mode == "one" else str(launch_file(mode, self.folder, processes))
        rows = "many-prompts" if stage == "ppo" else None
        self.server.start(store.argv(stage, *words(settings), rows=rows), launch=file, instant=instant)
        status = self.server.status(timeout=120)
        text = self.server.output.read_bytes()[said:].decode()
        assert instant is not None or launch.get("fails") or status == 0, text[-5000:]
        return status, text

    def settings(self, kind: str, processes: int) -> dict[str, Any]:
        """The settings of a kind of run on so many processes, with one global batch for all."""
        stage, _, settings = KINDS[kind]
        found = {"per_device_train_batch_size": BATCH // processes, **settings}
        if stage == "sft":
            found["base"] = self.folder / "base"
        if stage == "reward":
            found["model"] = self.folder / "base"
        if "normalize_on" in found:
            found["normalize_on"] = self.rows / "demonstrations.jsonl"
        return found

    def fresh(self, kind: str, root: Path) -> Pipeline:
        """A store in which the stage of this kind has not been started."""
        stage, start, _ = KINDS[kind]
        return Pipeline(self.folder / start, self.rows).copy(root) if stage == "ppo" else Pipeline(root, self.rows)

    def run(self, kind: str, mode: str) -> Pipeline:
        """The store after a run of this kind under a launch file, or in `one` process."""
        if (kind, mode) not in self.finished:
            store = self.fresh(kind, self.folder / f"{kind}-{mode}")
            _, said = self.type(store, KINDS[kind][0], self.settings(kind, 1 if mode == "one" else 2), mode)
            assert said.count(": published ") == 1, said
            assert store.damage() == []
            self.finished[kind, mode] = store
        return self.finished[kind, mode]

    def kill(self, kind: str, mode: str, store: Pipeline, instant: Instant) -> tuple[int, str]:
        """Run until the instant at which a process is killed: no process is left, and the store is valid."""
        status, said = self.type(store, KINDS[kind][0], self.settings(kind, 2), mode, instant=instant)
        assert status != 0 and not self.server.left_over(), said
        assert store.damage() == []
        return status, said


def words(settings: Mapping[str, Any]) -> list[str]:
    """`settings` as they are typed."""
    return [
        str(word)
        for name, value in settings.items()
        for word in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]


def figures(store: Pipeline, stage: str) -> list[dict[str, float]]:
    """The logged lines.

    Without times, means of means, which hang on how rows fall into batches, and TRL's count of tokens, which begins
    anew in a resumed run.
    """
    left_out = (
        "num_tokens",
        "eval_num_tokens",
        "train_",
        "eval_runtime",
        "eval_samples",
        "eval_steps",
        "step_time",
        "total_flos",
        "eval_loss",
        "clip_ratio",
    )
    lines = [
        {n: x for n, x in line.items() if not n.startswith(left_out) and not n.endswith("_seconds")}
        for line in store.metrics(stage)
    ]
    return [line for line in lines if line.keys() - {"step", "epoch"}]


def weights(store: Pipeline, role: str) -> dict[str, Tensor]:
    """The tensors of the object that `role` points at."""
    folder = store.store.path(store.refs()[role])
    (file,) = folder.glob("*.safetensors")
    return load_file(file)
