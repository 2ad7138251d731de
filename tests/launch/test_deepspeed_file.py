"""DeepSpeed's settings are read strictly, and what cannot work is said before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.deepspeed_file import (
    check_deepspeed,
    contradictions,
    deepspeed_problems,
    from_environment,
    from_launch_file,
    read_deepspeed,
)

GATHERED = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', r"zero.json:2: not JSON: Expecting value"),
        (b"[]", r"zero.json: expected a JSON object"),
        (b"\xff\xfe", r"zero.json: not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "zero.json").write_bytes(content)
    with pytest.raises(LaunchError, match=message):
        read_deepspeed(str(tmp_path / "zero.json"))


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"launch.yaml:7: no file .*absent.json; paths are read from"):
        read_deepspeed(str(tmp_path / "absent.json"), "launch.yaml:7")
    with pytest.raises(LaunchError, match=r"deepspeed_config_file: no file"):
        read_deepspeed(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage is 4; it is 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": "3"}}, "zero_optimization.stage is '3'"),
        ({"zero_optimization": {"stage": True}}, "zero_optimization.stage is True; it is 0, 1, 2 or 3"),
        ({"zero_optimization": 3}, 'zero_optimization is 3; write {"stage": 2}'),
        ({"bf16": True}, 'bf16 is True; write {"enabled": "auto"}'),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": "cpu"}},
            'zero_optimization.offload_optimizer is \'cpu\'; write {"device": "cpu"}',
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "gpu"}}},
            "zero_optimization.offload_optimizer.device is 'gpu'; write one of none, cpu, nvme",
        ),
        ({"zero_optimization": {"stage": 3}}, "saved without its weights; set it to true"),
        (
            {"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": "auto"}},
            "saved without its weights",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "zero_optimization.offload_param works with stage 3 only, not 2",
        ),
        (
            {"zero_optimization": {**GATHERED, "offload_param": {"device": "nvme"}}},
            "offload_param.device is nvme and nvme_path names no folder",
        ),
        ({"scheduler": {"type": "WarmupLR"}}, "`scheduler` would take the place of the stage's own"),
    ],
)
def test_problems(config: dict[str, Any], problem: str) -> None:
    (found,) = deepspeed_problems(config)
    assert problem in found
    with pytest.raises(LaunchError, match="^zero.json: "):
        check_deepspeed(config, "zero.json")


def test_offload_folder_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"zero_optimization": {**GATHERED, "offload_param": {"device": "nvme", "nvme_path": str(tmp_path)}}}
    check_deepspeed(config, "zero.json")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(LaunchError, match=r"offload_param.nvme_path: .* cannot be written to"):
        check_deepspeed(config, "zero.json")


def test_batches_multiply() -> None:
    sizes = {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}
    assert list(deepspeed_problems(sizes, 4)) == []
    assert "32 is not 4 x 2 x 8" in next(deepspeed_problems(sizes, 8))
    assert list(deepspeed_problems(sizes)) == [], "the number of processes is not known"
    assert list(deepspeed_problems({**sizes, "gradient_accumulation_steps": "auto"}, 8)) == []


def test_auto_and_equal_values_do_not_contradict() -> None:
    settings = {"per_device_train_batch_size": 4, "max_grad_norm": 1.0, "bf16": True}
    fitting = {"train_micro_batch_size_per_gpu": 4, "gradient_clipping": "auto", "bf16": {"enabled": True}}
    assert list(contradictions(fitting, settings)) == []
    assert list(contradictions({"gradient_clipping": 0.5}, {})) == [], "the recipe says nothing of it"
    assert list(contradictions({"gradient_clipping": 0.5, "bf16": {"enabled": False}}, settings)) == [
        'gradient_clipping is 0.5 and the stage\'s max_grad_norm is 1.0; write "auto"',
        'bf16.enabled is False and the stage\'s bf16 is True; write "auto"',
    ]


def test_launch_file_in_the_place_of_the_json() -> None:
    zero3 = {"zero_stage": 3, "offload_optimizer_device": "cpu"}
    (problem,) = deepspeed_problems(from_launch_file(zero3))
    assert "saved without its weights" in problem
    assert list(deepspeed_problems(from_launch_file({**zero3, "zero3_save_16bit_model": True}))) == []


def test_environment_says_what_the_launch_file_said(tmp_path: Path) -> None:
    prefix = "ACCELERATE_DEEPSPEED_"
    config, where = from_environment({f"{prefix}ZERO_STAGE": "3", f"{prefix}ZERO3_SAVE_16BIT_MODEL": "true"})
    assert config["zero_optimization"]["stage"] == 3 and where == "deepspeed_config of the launch file"
    check_deepspeed(config, where)
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 1}}')
    file = str(tmp_path / "zero.json")
    assert from_environment({f"{prefix}CONFIG_FILE": file}) == ({"zero_optimization": {"stage": 1}}, file)
