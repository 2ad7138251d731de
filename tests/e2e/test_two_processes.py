"""Two processes on the CPU learn what one learns with the same global batch, and publish once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pipeline import Pipeline
from tests.tiny import make_causal

pytestmark = [pytest.mark.e2e, pytest.mark.distributed]

ROOT = Path(__file__).parents[2]
EPOCH = (
    *("--max_steps", "-1", "--num_train_epochs", "1", "--eval_fraction", "0.3"),
    *("--dataloader_drop_last", "true"),  # or the second process fills a short last batch up from the first rows
)
"""Steps follow from the rows, so that one process in the place of two would take twice as many."""
COMPARED = ("loss", "grad_norm", "accuracy", "mean_token_accuracy")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_causal("llama", folder)
    return folder


def launched(*launch: str, script: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` one of the recipes, typed in the repository."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, f"recipes/{script}.py", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def figures(pipeline: Pipeline, stage: str) -> Iterator[tuple[float, str, float]]:
    for line in pipeline.metrics(stage):
        yield from ((line["step"], name, line[name]) for name in COMPARED if name in line)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory, rows: Path, base: Path) -> tuple[Pipeline, Pipeline]:
    """The stores of one process with batches of four, and of two with batches of two."""
    folder = tmp_path_factory.mktemp("processes")
    one, two = Pipeline(folder / "one", rows), Pipeline(folder / "two", rows)
    two_files = ("--quiet", "--config_file", "recipes/accelerate/cpu2.yaml")
    for stage, start in (("sft", ("--base", str(base))), ("reward", ("--model", str(base)))):
        one.make(stage, *start, *EPOCH)
        words = two.argv(stage, *start, *EPOCH, "--per_device_train_batch_size", "2")[1:]
        done = launched(*two_files, script=stage, words=words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"{stage}: published") == 1, done.stdout
    return one, two


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_two_processes_have_the_losses_of_one(pipelines: tuple[Pipeline, Pipeline], stage: str) -> None:
    one, two = (list(figures(pipeline, stage)) for pipeline in pipelines)
    assert [where[:2] for where in one] == [where[:2] for where in two]
    assert len([name for _, name, _ in one if name == "loss"]) >= 2
    for (step, name, alone), (_, _, together) in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-6), (step, name)


def test_two_processes_publish_once(pipelines: tuple[Pipeline, Pipeline]) -> None:
    for pipeline in pipelines:
        assert [name.partition("-")[0] for name in pipeline.store.ids()] == ["base", "reward", "sft"]
        assert pipeline.damage() == []


def test_two_processes_train_every_member_and_join_them_once(rows: Path, base: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "artifacts", rows)
    words = pipeline.argv("reward", "--model", str(base), "--ensemble_size", "2")[1:]
    for answered in (0, 2):
        done = launched("--quiet", "--config_file", "recipes/accelerate/cpu2.yaml", script="reward", words=words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("already answered") == answered, done.stdout
        assert done.stdout.count("reward: the ensemble is reward-") == 1, done.stdout
    assert [name.partition("-")[0] for name in pipeline.store.ids()] == ["base", "reward", "reward", "reward"]
    assert pipeline.damage() == []


@pytest.mark.parametrize("silent", [("--cpu", "--num_processes", "2"), ("--config_file", "multi_cpu.yaml")])
def test_one_process_in_the_place_of_two_is_refused(
    silent: tuple[str, ...], rows: Path, base: Path, tmp_path: Path
) -> None:
    """accelerate starts one process here, without a word."""
    file = tmp_path / "multi_cpu.yaml"
    file.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\nnum_machines: 1\n")
    pipeline = Pipeline(tmp_path / "artifacts", rows)
    words = pipeline.argv("sft", "--base", str(base))[1:]
    done = launched(*(str(file) if word == file.name else word for word in silent), script="sft", words=words)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "started one" in errors[0], done.stderr
    assert not pipeline.root.exists()
