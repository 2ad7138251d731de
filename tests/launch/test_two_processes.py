"""One process and two give the same training for the same global batch, through the launch files that we ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.verify import verify
from tests.tiny import make_llama

ROOT = Path(__file__).parents[2]
BATCH, STEPS = 4, 3
SETTINGS = ("--max_steps", str(STEPS), "--learning_rate", "1e-2", "--logging_steps", "1", "--eval_fraction", "0")

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_llama(folder / "base")
    questions = [f"Is {number} a big number?" for number in range(BATCH * STEPS)]
    answers = [f" {'No, ' * (number % 3)}{number} is." for number in range(BATCH * STEPS)]
    rows = {
        "sft": [{"prompt": q, "completion": a} for q, a in zip(questions, answers, strict=True)],
        "reward": [{"prompt": q, "chosen": a, "rejected": " Eh?"} for q, a in zip(questions, answers, strict=True)],
    }
    for stage, lines in rows.items():
        (folder / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def launch(stage: str, launch_file: str, inputs: Path, processes: int, store: Path) -> list[dict[str, float]]:
    """Run one stage under accelerate; the metrics of its training steps."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    start = ("--base" if stage == "sft" else "--model", str(inputs / "base"), "--data", str(inputs / f"{stage}.jsonl"))
    batch = ("--per_device_train_batch_size", str(BATCH // processes))
    file = str(ROOT / "recipes" / "accelerate" / launch_file)
    done = subprocess.run(
        [*command, "--config_file", file, str(ROOT / "recipes" / f"{stage}.py"), *start, *batch, *SETTINGS]
        + ["--artifacts", str(store)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (log,) = store.glob(f"runs/default/{stage}/*/metrics.jsonl")
    return [row for row in map(json.loads, log.read_text().splitlines()) if "loss" in row]


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_two_processes_train_as_one_does(stage: str, inputs: Path, tmp_path: Path) -> None:
    one = launch(stage, "cpu.yaml", inputs, 1, tmp_path / "one")
    two = launch(stage, "cpu2.yaml", inputs, 2, tmp_path / "two")
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4), name
    store = Store(tmp_path / "two")
    assert len(store.ids()) == len(Store(tmp_path / "one").ids())
    assert not verify(store)
