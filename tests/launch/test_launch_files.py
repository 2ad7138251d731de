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


TWO_MACHINES = (
    "distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n"
    "machine_rank: 1\nmain_process_ip: node-0\nmain_process_port: 29500\n"
)


def test_several_machines(tmp_path: Path) -> None:
    launch = check_launch_file(launch_file(tmp_path, TWO_MACHINES))
    assert (launch.processes, launch.machines, launch.per_machine, launch.machine_rank) == (4, 2, 2, 1)
    by_c10d = TWO_MACHINES.replace("machine_rank: 1", "rdzv_backend: c10d")
    assert check_launch_file(launch_file(tmp_path, by_c10d)).machine_rank == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_machines: 2", "num_machines: two", "launch.yaml:3: num_machines is 'two'"),
        ("num_processes: 4", "num_processes: 3", "launch.yaml:3: 3 processes on 2 machines; num_processes counts"),
        ("machine_rank: 1", "machine_rank: 2", "launch.yaml:4: machine_rank is 2; it is 0 to 1"),
        ("29500", "0", "launch.yaml:6: main_process_port 0 is another port on every machine"),
        ("29500", "high", "launch.yaml:6: main_process_port is 'high'; write a number"),
        ("main_process_port", "gpu_ids: 3\nmain_process_port", "launch.yaml:6: gpu_ids names 1 GPUs for 2 processes"),
    ],
)
def test_half_configured_machines(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        check_launch_file(launch_file(tmp_path, TWO_MACHINES.replace(old, new)))


def test_deepspeed_on_several_machines_without_pdsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(tmp_path))
    text = TWO_MACHINES.replace("MULTI_GPU", "DEEPSPEED") + "deepspeed_config:\n  zero_stage: 2\n"
    with pytest.raises(
        LaunchError, match="launch.yaml:7: deepspeed_multinode_launcher is pdsh, which is not installed"
    ):
        check_launch_file(launch_file(tmp_path, text))
    check_launch_file(launch_file(tmp_path, text + "  deepspeed_multinode_launcher: standard\n"))


def test_zero3_without_json_must_gather_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    text = "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config:\n  zero_stage: 3\n"
    with pytest.raises(LaunchError, match="launch.yaml:3: .* saved without its weights"):
        check_launch_file(launch_file(tmp_path, text))
    check_launch_file(launch_file(tmp_path, text + "  zero3_save_16bit_model: true\n"))


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
    with pytest.raises(
        LaunchError,
        match=r"is not installed; in the repository type `.*pip install -c constraints.txt -e '.\[deepspeed\]'`",
    ):
        check_launch_file(launch_file(tmp_path, "distributed_type: DEEPSPEED\nnum_processes: 2\n"))


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(SHIPPED[0])]) == 0
    assert main(["--help"]) == 0
    assert main([]) == 2
    for count in ("x", "²", "0"):
        with pytest.raises(LaunchError, match=f"`{count}` is not a number of processes; type one"):
            main([str(SHIPPED[0]), count])
    capsys.readouterr()
    assert cli.main(["check-launch", str(tmp_path / "absent.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no launch file ") and error.count("\n") == 1
