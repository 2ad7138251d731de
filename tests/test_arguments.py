"""Flat settings to TRL's configuration: ours below what is given, and nothing ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import ModelConfig, SFTConfig

from rlhf_pipeline.arguments import (
    DECIDED_HERE,
    ON_ONE_MACHINE,
    machine_defaults,
    refuse_decided,
    resolved,
    trainer_arguments,
)
from rlhf_pipeline.config import Setting
from rlhf_pipeline.errors import ConfigError, LaunchError
from rlhf_pipeline.jobs import StageSettings


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine everywhere: no GPU, one process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)


def settings(**values: Any) -> dict[str, Setting]:
    return {name: Setting(name, value, f"x.yaml:{line}") for line, (name, value) in enumerate(values.items(), start=1)}


def build(tmp_path: Path, defaults: dict[str, Any] | None = None, **values: Any) -> tuple[SFTConfig, ModelConfig]:
    return trainer_arguments(SFTConfig, settings(**values), StageSettings, tmp_path / "out", defaults or {})


def test_defaults_of_ours(tmp_path: Path) -> None:
    arguments, model = build(tmp_path)
    assert arguments.output_dir == str(tmp_path / "out") and not (tmp_path / "out").exists()
    assert (arguments.bf16, arguments.gradient_checkpointing, arguments.use_cpu) == (False, False, True)
    assert (arguments.save_total_limit, arguments.disable_tqdm) == (2, True)
    assert arguments.report_to in ("none", []) and not arguments.logging_nan_inf_filter
    assert not model.use_peft


def test_stage_stands_above_the_machine_and_the_user_above_the_stage(tmp_path: Path) -> None:
    assert build(tmp_path, {"packing": True})[0].packing
    assert not build(tmp_path, {"packing": True}, packing=False)[0].packing
    assert build(tmp_path, save_total_limit=7)[0].save_total_limit == 7
    assert build(tmp_path, logging_nan_inf_filter=True)[0].logging_nan_inf_filter


def test_both_classes_take_their_own_settings(tmp_path: Path) -> None:
    arguments, model = build(tmp_path, learning_rate="1e-3", use_peft="true", lora_r="4", run="mine")
    assert (arguments.learning_rate, model.use_peft, model.lora_r) == (1e-3, True, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "x.yaml:1: `learning_rat` is not a setting; did you mean `learning_rate`"),
        ({"seed": 1, "lora_q": 1}, "x.yaml:2: `lora_q` is not a setting; did you mean `lora_r`"),
        ({"learning_rate": "fast"}, "x.yaml:1: `learning_rate` must be float, not 'fast'"),
        ({"lora_r": "many"}, "x.yaml:1: `lora_r` must be int, not 'many'"),
        ({"save_strategy": "sometimes"}, "x.yaml:1: .*sometimes"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "8 bit and 4 bit"),
    ],
)
def test_what_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(tmp_path, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DECIDED_HERE)
def test_what_is_decided_elsewhere(name: str) -> None:
    with pytest.raises(ConfigError, match=f"x.yaml:1: `{name}` cannot be set: "):
        refuse_decided(settings(**{name: "x"}))


def test_processes_that_the_trainer_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTConfig, "world_size", 3)
    with pytest.raises(LaunchError, match="1 processes were started but the trainer sees 3"):
        build(tmp_path)


def test_gpu_trains_in_bf16_with_gradient_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    defaults = machine_defaults()
    assert defaults["bf16"] and defaults["gradient_checkpointing"] and not defaults["use_cpu"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert not machine_defaults()["bf16"]


def test_several_cpu_processes_talk_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ddp_backend" not in machine_defaults()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert machine_defaults()["ddp_backend"] == "gloo"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert not machine_defaults()["use_cpu"]  # DeepSpeed chooses its device itself


def test_manifest_says_the_same_on_every_machine(tmp_path: Path) -> None:
    one = resolved(*build(tmp_path / "a", learning_rate=1e-3))
    other = resolved(*build(tmp_path / "b", learning_rate=1e-3, run_name="x"))
    assert one == other and one["learning_rate"] == 1e-3 and "lora_r" in one
    assert not ON_ONE_MACHINE & set(one)
    assert str(tmp_path) not in json.dumps(one, default=str)
