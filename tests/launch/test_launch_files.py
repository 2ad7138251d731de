"""Launch files are checked key by key, and those we ship pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.launch_files import check_launch_file, main

SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "accelerate").glob("*.yaml"))


def launch_file(folder: Path, text: str) -> str:
    file = folder / "launch.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_pass_and_open_with_their_command(file: Path) -> None:
    check_launch_file(str(file))
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(f"accelerate launch --config_file recipes/accelerate/{file.name}" in line for line in head)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_processes: 2\n", "launch.yaml: no distributed_type; copy one of"),
        ("distributed_type: MULTI_GPU\n", "launch.yaml: num_processes is None; write a number"),
        ("distributed_type: MULTI_GPU\nnum_processes: many\n", "launch.yaml:2: num_processes is 'many'"),
        ("distributed_type: MULTI_GPU\nnum_processes: 1\n", "launch.yaml:1: MULTI_GPU needs at least 2"),
        ("distributed_type: MULTI_CPU\nnum_processes: 2\n", "launch.yaml:1: accelerate starts one process .* not 2"),
        ('distributed_type: "NO"\nnum_processes: 2\n', "launch.yaml:1: accelerate starts one process"),
        ("distributed_type: NO\n", "launch.yaml:1: YAML reads NO as false"),
        ("distributed_type: MULTI\nnum_processes: 2\n", "launch.yaml:1: distributed_type 'MULTI' is none of"),
        (
            "distributed_type: MULTI_GPU\nnum_process: 2\n",
            "launch.yaml:2: .*no `num_process`; did you mean `num_processes`",
        ),
        ("distributed_type: MULTI_GPU\nzzz: 2\n", "launch.yaml:2: accelerate has no `zzz`; remove it"),
        (
            "distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n",
            "launch.yaml:3: 2 machines need main_process_ip",
        ),
        ("distributed_type: [\n", "launch.yaml:2: not YAML"),
    ],
)
def test_half_configured_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        check_launch_file(launch_file(tmp_path, text))


def test_number_on_the_command_line_completes_a_file(tmp_path: Path) -> None:
    check_launch_file(launch_file(tmp_path, "distributed_type: MULTI_GPU\n"), 2)
    check_launch_file(launch_file(tmp_path, 'distributed_type: "NO"\n'))
    mpi = "distributed_type: MULTI_CPU\nnum_processes: 2\nmpirun_config: {mpirun_hostfile: hosts}\n"
    check_launch_file(launch_file(tmp_path, mpi))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", "launch.yaml: DEEPSPEED needs deepspeed_config_file or zero_stage"),
        ("deepspeed_config: {zero3_init_flag: true}\n", "launch.yaml:3: DEEPSPEED needs"),
        ("deepspeed_config: {deepspeed_config_file: absent.json}\n", "launch.yaml:3: .*no file absent.json"),
    ],
)
def test_deepspeed_files(tmp_path: Path, section: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    file = launch_file(tmp_path, f"distributed_type: DEEPSPEED\nnum_processes: 2\n{section}")
    with pytest.raises(LaunchError, match=message):
        check_launch_file(file)
    check_launch_file(
        launch_file(tmp_path, "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {zero_stage: 2}\n")
    )


def test_deepspeed_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="asks for DeepSpeed, which is not installed"):
        check_launch_file(launch_file(tmp_path, "distributed_type: DEEPSPEED\nnum_processes: 2\n"))


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(SHIPPED[0])]) == 0
    assert main(["--help"]) == 0
    assert main([]) == 2
    with pytest.raises(LaunchError, match="`x` is not a number"):
        main([str(SHIPPED[0]), "x"])
    capsys.readouterr()
    assert cli.main(["check-launch", str(tmp_path / "absent.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no launch file ") and error.count("\n") == 1
