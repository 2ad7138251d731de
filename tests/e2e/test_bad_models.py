"""Checkpoints that cannot serve: one line that says which and what to type next, exit status 2, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from tests.e2e.conftest import Trained
from tests.e2e.pipeline import Pipeline
from tests.e2e.refusals import GOOD_ROWS, STAGES, Refuse, contents, error_line, refuse, words, write_rows
from tests.hub import GATED, Hub, hub
from tests.tiny import make_classifier, make_llama, make_tokenizer

__all__ = ["hub", "refuse"]

pytestmark = pytest.mark.e2e


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """A file of good rows for each stage."""
    return {stage: write_rows(tmp_path / f"{stage}.jsonl", rows) for stage, rows in GOOD_ROWS.items()}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model for PPO."""
    folder = tmp_path_factory.mktemp("models") / "judge"
    make_classifier(folder)
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A model that reads and does not write."""
    config = BertConfig(vocab_size=258, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "encoder")
    make_tokenizer().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("./absent/model", "./absent/model: neither a folder, nor an artifact (`rlhf artifacts list` shows them)"),
        (
            "gpt2",
            "gpt2: neither a folder, nor an artifact (`rlhf artifacts list` shows them), nor a hub id (owner/name)",
        ),
        ("sft", "run `default` of artifacts has no `sft` (it has none); make it with `rlhf sft`"),
        ("base-0123456789ab", "artifacts has no object `base-0123456789ab`; `rlhf artifacts list` shows what is there"),
    ],
)
def test_absent_base(refuse: Refuse, data: dict[str, str], judge: Path, stage: str, name: str, why: str) -> None:
    assert f"error: {why}" in refuse(*words(stage, name, judge), "--data", data[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_no_causal_model(refuse: Refuse, data: dict[str, str], encoder: Path, judge: Path, stage: str) -> None:
    line = refuse(*words(stage, encoder, judge), "--data", data[stage])
    assert line.startswith(f"error: {encoder}: holds BertModel, which is no causal language model; name a checkpoint")


def test_two_labels(refuse: Refuse, data: dict[str, str], tmp_path: Path) -> None:
    make_classifier(tmp_path / "two", num_labels=2)
    make_llama(tmp_path / "base")
    for typed in (words("reward", tmp_path / "two", None), words("ppo", tmp_path / "base", tmp_path / "two")):
        line = refuse(*typed, "--data", data[typed[0]])
        assert f"error: {tmp_path / 'two'}: gives 2 labels, and a reward is one number; name a" in line


def test_reward_that_gives_no_score(refuse: Refuse, data: dict[str, str], tmp_path: Path) -> None:
    """A language model would be given a random head, and PPO would chase it."""
    make_llama(tmp_path / "base")
    line = refuse(*words("ppo", tmp_path / "base", tmp_path / "base"), "--data", data["ppo"])
    assert f"{tmp_path / 'base'}: holds LlamaForCausalLM, which gives no score; train a reward model with" in line


@pytest.mark.parametrize("stage", STAGES)
def test_model_without_some_of_its_weights(
    refuse: Refuse, data: dict[str, str], tmp_path: Path, judge: Path, stage: str
) -> None:
    make_llama(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    line = refuse(*words(stage, tmp_path / "base", judge), "--data", data[stage])
    assert f"{tmp_path / 'base'}: 9 weights are missing" in line and "again" in line


@pytest.mark.parametrize("stage", STAGES)
def test_model_that_was_cut_off(refuse: Refuse, data: dict[str, str], tmp_path: Path, judge: Path, stage: str) -> None:
    make_llama(tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 8)
    line = refuse(*words(stage, tmp_path / "base", judge), "--data", data[stage])
    assert f"error: {weights} has" in line and "copy or download it again" in line


def test_pickled_model(refuse: Refuse, data: dict[str, str], tmp_path: Path) -> None:
    make_llama(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "base" / "pytorch_model.bin")
    line = refuse("sft", "--base", tmp_path / "base", "--data", data["sft"])
    assert f"error: {tmp_path / 'base' / 'pytorch_model.bin'} is pickled" in line and "save_pretrained" in line


def test_folder_without_a_tokenizer(refuse: Refuse, data: dict[str, str], tmp_path: Path) -> None:
    make_llama(tmp_path / "base")
    for file in (tmp_path / "base").glob("tokenizer*"):
        file.unlink()
    line = refuse("sft", "--base", tmp_path / "base", "--data", data["sft"])
    assert f"error: {tmp_path / 'base'}: no usable tokenizer" in line and "tokenizer.save_pretrained" in line


@pytest.fixture
def pipeline(trained: Trained, tmp_path: Path) -> Pipeline:
    """A run that got as far as it goes, in the folder of this test."""
    return trained("llama").copy(tmp_path / "artifacts")


def test_another_base_for_the_same_run(refuse: Refuse, pipeline: Pipeline, tmp_path: Path) -> None:
    make_llama(tmp_path / "other", seed=1)
    line = refuse(*pipeline.argv("sft", "--base", str(tmp_path / "other")))
    assert line.startswith(f"error: base: run `default` stands on {pipeline.refs()['base']}, and this is base-")
    assert "--run <name>" in line


@pytest.mark.parametrize("damage", ["truncated", "corrupted", "without a file", "manifest"])
def test_damaged_artifact(refuse: Refuse, pipeline: Pipeline, damage: str) -> None:
    folder = pipeline.store.path(pipeline.refs()["sft"])
    weights = folder / "model.safetensors"
    for path in folder.iterdir():
        path.chmod(0o644)
    if damage == "truncated":
        os.truncate(weights, 1000)
    elif damage == "corrupted":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{}")
    else:
        weights.unlink()
    for stage in ("reward", "ppo"):
        line = refuse(*pipeline.argv(stage))
        named = folder / ("manifest.json" if damage == "manifest" else "model.safetensors")
        assert line.startswith(f"error: {named} ") and f"type `rm -rf {folder}`" in line


def test_gated_model_without_a_token(hub: Hub, data: dict[str, str], tmp_path: Path) -> None:
    """The whole command, in a process whose hub answers as huggingface.co does."""
    before = contents(tmp_path)
    command = [sys.executable, "-m", "rlhf_pipeline", "sft", "--base", GATED, "--data", data["sft"]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        command,
        env=environment | {"HF_ENDPOINT": hub.url, "HF_HOME": str(hub.cache), "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    line = error_line(done.returncode, done.stderr)
    assert line == (
        f"error: {GATED}: this hub model is gated; accept its licence on its page, then type `hf auth login`"
    )
    assert contents(tmp_path) == before
