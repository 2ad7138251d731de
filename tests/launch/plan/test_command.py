"""`rlhf plan` as it is typed: the table, every line of the arithmetic, JSON, launch files, and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store, import_folder
from rlhf_pipeline.launch.launch_files import check_launch_file
from rlhf_pipeline.launch.plan.command import main
from tests.launch.plan.shapes import LLAMA_2_7B
from tests.tiny import make_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Llama 2 7B, as its config.json."""
    file = tmp_path_factory.mktemp("llama") / "llama-2-7b.json"
    file.write_text(json.dumps(LLAMA_2_7B))
    return str(file)


def test_help_names_every_setting_and_loads_no_torch() -> None:
    code = (
        "import sys\nfrom rlhf_pipeline.cli import main\nassert main(['plan', '--help']) == 0\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--gradient_checkpointing" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_table_and_the_recommendation(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", llama, "--stage", "sft", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert "sft of llama-2-7b on 8 x h100 (79.2 GiB each, 4 kept back)" in said
    assert "policy 6.74B trained" in said
    assert said.count("fits") >= 3
    assert "too much: optimizer of policy" in said  # 16 bytes and DDP's buckets of 6.7 billion
    assert "recommended: ZeRO-" in said


def test_explain_adds_up(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every way's lines, each with its numbers; they sum up to the peak."""
    main(["--model", llama, "--explain", "--zero", "2", "--offload", "none"])
    lines = capsys.readouterr().out.splitlines()
    assert "  weights of policy                25.1 GiB  6,738,415,616 x 2 B" not in lines
    assert any(line.startswith("  weights of policy") and line.endswith("6,738,415,616 x 2 B") for line in lines)
    start = lines.index("ZeRO-2: held all the time")
    ends = [n for n, line in enumerate(lines) if line.startswith("ZeRO-2: ")]
    held = sum(size_of(line) for line in lines[start + 1 : ends[1]])
    for first, last in zip(ends[1:-1], ends[2:], strict=True):
        total = float(lines[first].split(", ")[1].split()[0])
        assert held + sum(size_of(line) for line in lines[first + 1 : last]) == pytest.approx(total, abs=0.5)


def size_of(line: str) -> float:
    return float(line.split(" GiB")[0].split()[-1].replace(",", ""))


def test_json_holds_bytes(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", llama, "--json", "--gpus", "1"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["networks"]["policy"] == {"trained": 6_738_415_616, "frozen": 0}
    first = plan["choices"][0]
    assert first["name"] == "one GPU"
    parts = [*first["held"], *first["phases"][first["peak"]]]
    assert first["bytes"] == sum(part["bytes"] for part in parts)
    assert first["fits"] == (first["bytes"] <= plan["usable_bytes"])


def test_what_does_not_fit_takes_no_time(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", llama, "--gpus", "1", "--gpu", "h200", "--explain"]
    main(words)
    said = capsys.readouterr().out.splitlines()
    main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["choices"]
    assert {way["fits"] for way in found} == {False, True}
    for way in found:
        [row] = [line for line in said if line.startswith(f"{way['name']}  ")]
        assert way["fits"] == row.endswith("  fits") == (f"{way['name']}: time" in said)
        if way["fits"]:
            assert way["seconds"] == pytest.approx(sum(time["seconds"] for time in way["times"]))
            assert f"{way['seconds']:,.1f}  fits" in row
        else:
            assert (way["seconds"], way["times"]) == (None, None) and "-  too much: " in row


def test_what_does_not_fit_says_what_would(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", llama, "--gpus", "1", "--offload", "none"])
    said = capsys.readouterr().out
    assert "nothing fits:" in said
    assert "  --use_peft --dtype bfloat16:" in said


def test_a_recipe_is_read_and_the_rest_of_it_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_llama(tmp_path)
    recipe = Path(__file__).parents[3] / "recipes" / "hh-7b-lora" / "ppo.yaml"
    assert main(["--config", str(recipe), "--model", str(tmp_path), "--gpus", "1"]) == 0
    said = capsys.readouterr().out
    assert "8 rows of 512 + 256 tokens" in said
    [aside] = [line for line in said.splitlines() if line.startswith("not part of a plan: ")]
    assert "kl_coef" in aside and "lora_r" not in aside


def test_an_artifact_is_found_as_the_stages_find_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_llama(tmp_path / "model")
    store = Store(tmp_path / "artifacts")
    store.set_refs("mine", {"sft": import_folder(store, tmp_path / "model")})
    assert main(["--model", "sft", "--run", "mine", "--artifacts", str(store.root), "--gpus", "1"]) == 0
    assert "fits" in capsys.readouterr().out


def test_written_files_pass_the_check(llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "eight.yaml"
    assert main(["--model", llama, "--zero", "3", "--write", str(file)]) == 0
    check_launch_file(str(file))
    assert json.loads(file.with_suffix(".json").read_text())["zero_optimization"]["stage"] == 3
    assert f"wrote {file}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "absent/config.json"], "error: model: no file absent/config.json; name a folder"),
        ([], "error: model: none named"),
        (
            ["--model", "nobody/nothing"],
            "error: nobody/nothing: neither a folder nor an artifact, and the hub",
        ),
        (["--model", "sft", "--run", "nowhere"], "error: run `nowhere` of artifacts has no `sft`"),
        (["--model", "x", "--gpu", "h10"], "error: --gpu: `gpu` must be one of"),
        (["--model", "x", "--gpus", "0"], "error: --gpus: `gpus` is 0"),
        (["--model", "x", "--zer", "3"], "error: --zer: `zer` is not a setting; did you mean `zero`?"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["plan", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1


def test_nothing_is_written_where_nothing_fits(llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--model", llama, "--gpus", "1", "--memory_gib", "5", "--write", str(tmp_path / "one.yaml")]
    assert cli.main(words) == 2
    assert "--write: nothing fits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
