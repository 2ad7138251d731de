"""The launch files that are written are taken by `rlhf check-launch`, and hold what was planned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.config import flat_yaml
from rlhf_pipeline.errors import ConfigError, LaunchError
from rlhf_pipeline.launch.launch_files import check_launch_file
from rlhf_pipeline.launch.plan.choices import choose
from rlhf_pipeline.launch.plan.launch_writer import write_launch_files
from rlhf_pipeline.launch.plan.roles import stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Offload
from tests.launch.plan.shapes import SHAPES


def written(folder: Path, zero: int, offload: Offload = "none", **changes: Any) -> tuple[dict[str, Any], list[Path]]:
    planned = PlanSettings(**{"model": "small", "gpus": 4, **changes})
    choice = choose(planned, stage_roles(planned, SHAPES), zero, offload)
    files = write_launch_files(choice, planned, str(folder / "launch.yaml"))
    return {name: setting.value for name, setting in flat_yaml(str(files[0])).items()}, files


@pytest.mark.parametrize("gpus", [1, 4, 16])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_what_is_written_passes_the_check(zero: int, gpus: int, tmp_path: Path) -> None:
    keys, files = written(tmp_path, zero, gpus=gpus)
    check_launch_file(str(files[0]))
    assert keys["num_processes"] == gpus
    assert keys["num_machines"] == (2 if gpus == 16 else 1)
    assert len(files) == (2 if zero else 1)


@pytest.mark.parametrize(("gpus", "kind"), [(1, "NO"), (4, "MULTI_GPU")])
def test_without_zero_no_deepspeed(gpus: int, kind: str, tmp_path: Path) -> None:
    keys, _ = written(tmp_path, 0, gpus=gpus)
    assert keys["distributed_type"] == kind
    assert "deepspeed_config" not in keys


@pytest.mark.parametrize(("zero", "offload"), [(2, "none"), (2, "optimizer"), (3, "optimizer"), (3, "all")])
def test_deepspeeds_file_says_the_plan(zero: int, offload: Offload, tmp_path: Path) -> None:
    keys, files = written(tmp_path, zero, offload)
    assert keys["deepspeed_config"]["deepspeed_config_file"] == str(files[1])
    assert keys["deepspeed_config"]["zero3_init_flag"] == (zero == 3)
    whole = json.loads(files[1].read_text())
    assert whole.get("zero_force_ds_cpu_optimizer") == (None if offload == "none" else False)
    config = whole["zero_optimization"]
    assert config["stage"] == zero
    assert ("offload_optimizer" in config, "offload_param" in config) == (offload != "none", offload == "all")
    assert ("stage3_param_persistence_threshold" in config) == (zero == 3)


@pytest.mark.parametrize(("zero", "offload"), [(2, "optimizer"), (3, "all")])
def test_deepspeed_takes_the_file(zero: int, offload: Offload, tmp_path: Path) -> None:
    """DeepSpeed's own reader of zero_optimization, which refuses names that it does not know."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    _, files = written(tmp_path, zero, offload)
    section = json.loads(files[1].read_text())["zero_optimization"]
    read = DeepSpeedZeroConfig(**{name: value for name, value in section.items() if value != "auto"})
    assert read.stage == zero
    assert (read.offload_param is not None) == (offload == "all")


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    written(tmp_path, 3)
    before = (tmp_path / "launch.yaml").read_text()
    with pytest.raises(LaunchError, match="launch.yaml is there already"):
        written(tmp_path, 0)
    assert (tmp_path / "launch.yaml").read_text() == before


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("launch.json", "call it launch.yaml"),
        (".", "call it launch.yaml"),
        ("/dev/null/y.yaml", "/dev/null/y.yaml cannot be written .*: --write y.yaml$"),
        ("/proc/nowhere/y.yaml", "/proc/nowhere/y.yaml cannot be written .*: --write y.yaml$"),
        (f"{'y' * 300}.yaml", "cannot be written .*File name too long"),
    ],
)
@pytest.mark.parametrize("zero", [0, 3])
def test_a_name_that_is_none(file: str, message: str, zero: int) -> None:
    planned = PlanSettings(model="small")
    choice = choose(planned, stage_roles(planned, SHAPES), zero)
    with pytest.raises(LaunchError, match=message) as caught:
        write_launch_files(choice, planned, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpus", range(1, 26))
def test_every_number_of_gpus_that_is_taken_can_be_launched(gpus: int, tmp_path: Path) -> None:
    try:
        _, files = written(tmp_path, 0, gpus=gpus)
    except ConfigError as error:
        typed = [int(number) for number in re.findall(r"--gpus (\d+)", str(error))]
        assert typed[0] < gpus < typed[1]
        assert all(PlanSettings(model="small", gpus=number).gpus == number for number in typed)
    else:
        check_launch_file(str(files[0]))
    assert any(tmp_path.iterdir()) == (gpus not in (9, 11, 13, 15, 17, 19, 20, 22, 23, 25))
