"""What a stage does around its trainer: what is saved, counted, named and refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.trainer_utils import SaveStrategy

from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.training import (
    NOT_PUBLISHED,
    checkpoints_at_once,
    finite,
    name_adapter_base,
    refuse_adapter,
    save,
    summary,
    trained_parameters,
)


def trainer(*, frozen: bool = False, strategy: SaveStrategy = SaveStrategy.STEPS, kept: int | None = 2) -> Any:
    """What the helpers look at of a trainer: 3 weights that may be frozen, and 2 more."""
    model = torch.nn.ModuleList([torch.nn.Linear(3, 1, bias=False), torch.nn.Linear(2, 1, bias=False)])
    model[0].requires_grad_(not frozen)
    return SimpleNamespace(model=model, args=SimpleNamespace(save_strategy=strategy, save_total_limit=kept))


def test_only_what_is_trained_is_counted() -> None:
    assert trained_parameters(trainer()) == 5
    assert trained_parameters(trainer(frozen=True)) == 2


@pytest.mark.parametrize(("kept", "at_once"), [(2, 3), (1, 2), (None, 2)])
def test_one_checkpoint_is_written_before_another_goes(kept: int | None, at_once: int) -> None:
    assert checkpoints_at_once(trainer(kept=kept)) == at_once
    assert checkpoints_at_once(trainer(kept=kept, strategy=SaveStrategy.NO)) == 0


class Saver:
    """Leaves in a folder what TRL's trainers leave."""

    def save_model(self, folder: str) -> None:
        """Write a model, a pickle and a model card."""
        for name in (*NOT_PUBLISHED, "model.safetensors"):
            (Path(folder) / name).write_text("x")


def test_pickles_and_cards_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver: Any = Saver()
    save(saver, tmp_path, Checkpoint("base-0123456789ab", "/somewhere"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    monkeypatch.setenv("RANK", "1")  # rank 0 tidies
    save(saver, tmp_path, Checkpoint("base-0123456789ab", "/somewhere"))
    assert (tmp_path / "training_args.bin").exists()


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (Checkpoint("base-0123456789ab", "/home/me/artifacts/objects/x"), ("base-0123456789ab", None)),
        (Checkpoint("hub:owner/name@c0ffee", "owner/name", "c0ffee"), ("owner/name", "c0ffee")),
    ],
)
def test_adapter_names_its_base_for_every_machine(
    tmp_path: Path, start: Checkpoint, named: tuple[str, str | None]
) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": "/home/me/model", "r": 8}))
    name_adapter_base(tmp_path, start)
    config = json.loads(file.read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (*named, 8)


def test_full_model_names_no_base(tmp_path: Path) -> None:
    name_adapter_base(tmp_path, Checkpoint("base-0123456789ab", "x"))
    assert list(tmp_path.iterdir()) == []


def test_adapter_as_a_start_is_refused_with_how_to_merge(tmp_path: Path) -> None:
    start = Checkpoint("sft-0123456789ab", str(tmp_path))
    refuse_adapter(start, "a reward model")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base-0123456789ab"}')
    message = "sft-0123456789ab is a LoRA adapter, and a reward model .*`rlhf artifacts merge sft-0123456789ab`"
    with pytest.raises(ModelError, match=message):
        refuse_adapter(start, "a reward model")


def test_manifest_holds_numbers_only() -> None:
    metrics = {"eval_loss": 1.5, "steps": 3, "odd": float("nan"), "far": float("inf"), "text": "x", "flag": None}
    assert finite(metrics) == {"eval_loss": 1.5, "steps": 3}


def test_line_of_held_out_metrics_has_no_timings() -> None:
    metrics = {"eval_loss": 1.23456, "eval_runtime": 3.0, "eval_samples_per_second": 9.0, "epoch": 1.0}
    assert summary(metrics) == "held out: eval_loss 1.235"
    assert summary({}) == "held out: nothing"
