"""Bad rows and bad settings: one line that says where and what to type next, exit status 2, and nothing written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.refusals import GOOD_ROWS, STAGES, Refuse, contents, error_line, refuse, words, write_rows
from tests.tiny import make_classifier, make_llama

__all__ = ["refuse"]

pytestmark = pytest.mark.e2e

NEXT = "fix the row or pass `--on_bad_row skip`"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and `judge`, a model to train and one to score."""
    folder = tmp_path_factory.mktemp("models")
    make_llama(folder / "base")
    make_classifier(folder / "judge")
    return folder


def begin(stage: str, models: Path) -> list[str]:
    """The words of a stage up to its data."""
    return words(stage, models / "base", models / "judge")


def with_row(stage: str, row: Any) -> list[Any]:
    """Good rows, and this one on line 3."""
    good = GOOD_ROWS[stage]
    return [*good[:2], row, *good[2:]]


BAD_ROWS = [
    *((stage, '{"prompt": "a", ', "malformed JSON: .* at column 17") for stage in STAGES),
    *((stage, "[1, 2]", r"the row is \[1, 2\]; expected an object") for stage in STAGES),
    ("pretrain", {"words": "a"}, "no field `text`; the row has `words`; a document needs `text`"),
    ("sft", {"prompt": "a"}, "no field `completion`; the row has `prompt`; a demonstration needs"),
    ("reward", {"prompt": "a", "chosen": "b"}, "no field `.*; a ranking needs"),
    ("ppo", {"completion": "a"}, "no field `prompt`; the row has `completion`; a prompt needs"),
    ("pretrain", {"text": " "}, "`text` is empty"),
    ("sft", {"prompt": "a", "completion": ""}, "`completion` is empty"),
    ("sft", {"prompt": "a", "completion": 5}, "`completion` is 5; expected a string"),
    ("reward", {"prompt": "a", "chosen": "", "rejected": "b"}, "`chosen` is empty"),
    ("reward", {"prompt": "a", "chosen": "b", "rejected": "b"}, "`chosen` and `rejected` are the same text"),
    ("ppo", {"prompt": ""}, "`prompt` is empty"),
    (
        "ppo",
        {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "`prompt` ends with an assistant message",
    ),
]


@pytest.mark.parametrize(("stage", "row", "why"), BAD_ROWS)
def test_bad_row(refuse: Refuse, models: Path, tmp_path: Path, stage: str, row: Any, why: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", with_row(stage, row))
    line = refuse(*begin(stage, models), "--data", data)
    assert re.fullmatch(f"error: {data}:3: {why}.*; {NEXT}", line), line


LONG = "word " * 40


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("sft", {"prompt": LONG, "completion": "a"}),
        ("reward", {"prompt": LONG, "chosen": "a", "rejected": "b"}),
        ("ppo", {"prompt": LONG}),
    ],
)
def test_row_that_is_too_long(refuse: Refuse, models: Path, tmp_path: Path, stage: str, row: dict[str, str]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", with_row(stage, row))
    line = refuse(*begin(stage, models), "--data", data)
    assert re.fullmatch(rf"error: {data}:3: 2\d\d tokens, more than the \d+ that fit.*--on_long_row skip.*", line), line


@pytest.mark.parametrize("stage", STAGES)
def test_absent_and_empty_data(refuse: Refuse, models: Path, tmp_path: Path, stage: str) -> None:
    typed = begin(stage, models)
    assert "error: absent.jsonl: no such file" in refuse(*typed, "--data", "absent.jsonl")
    assert re.search(rf"data: .*`rlhf {stage} --data <file>`", refuse(*typed))
    empty = write_rows(tmp_path / "empty.jsonl", [])
    assert f"error: {empty}: no rows" in refuse(*typed, "--data", empty)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("learning_rat", "1e-5", "`learning_rat` is not a setting; did you mean `learning_rate`?"),
        ("learning_rate", "fast", "`learning_rate` must be float, not 'fast'"),
        ("on_long_row", "cut", "`on_long_row` must be one of error, skip, truncate, not 'cut'"),
        ("output_dir", "elsewhere", "`output_dir` cannot be set: .*`--artifacts` moves it"),
        ("eval_fraction", "1.5", "`eval_fraction` must be .* not 1.5"),
    ],
)
def test_bad_setting(refuse: Refuse, models: Path, tmp_path: Path, stage: str, name: str, value: str, why: str) -> None:
    common = [*begin(stage, models), "--data", write_rows(tmp_path / "rows.jsonl", GOOD_ROWS[stage])]
    config = tmp_path / "stage.yaml"
    config.write_text(f"# a recipe\nrun: mine\n{name}: {value}\n")
    line = refuse(*common, "--config", config)
    assert re.fullmatch(f"error: {config}:3: {why}.*", line), line
    line = refuse(*common, f"--{name}", value)
    assert re.fullmatch(f"error: --{name}: {why}.*", line), line


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_process_of_its_own_says_one_line_too(models: Path, tmp_path: Path, stage: str) -> None:
    """No library has anything to add, of those that are loaded before the setting is refused."""
    data = write_rows(tmp_path / "rows.jsonl", GOOD_ROWS[stage])
    typed = [*begin(stage, models), "--data", data, "--learning_rat", "1"]
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_pipeline", *typed],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert error_line(done.returncode, done.stderr).endswith("did you mean `learning_rate`?")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stage", STAGES)
def test_bad_config_file(refuse: Refuse, tmp_path: Path, stage: str) -> None:
    assert "no file absent.yaml" in refuse(stage, "--config", "absent.yaml")
    (tmp_path / "broken.yaml").write_text("run: mine\nseed: [1\n")
    assert refuse(stage, "--config", "broken.yaml").startswith("error: broken.yaml:3: not YAML")


def test_one_prompt_cannot_be_held_out(refuse: Refuse, models: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", GOOD_ROWS["sft"][:1])
    line = refuse(*begin("sft", models), "--data", data)
    assert line.startswith(f"error: {data}:1: ") and "--eval_fraction 0" in line


def test_rankings_that_only_tie(refuse: Refuse, models: Path, tmp_path: Path) -> None:
    tied = [{"prompt": f"{i}?", "completions": ["a", "b"], "ranks": [0, 0]} for i in range(4)]
    data = write_rows(tmp_path / "rows.jsonl", tied)
    line = refuse(*begin("reward", models), "--data", data)
    assert line.startswith(f"error: {data}:1") and "whose ranks do not all tie" in line


def test_template_that_refuses_a_row(refuse: Refuse, models: Path, tmp_path: Path) -> None:
    """Some chat templates raise for a system message; the row is named."""
    (tmp_path / "strict.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    chat = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    data = write_rows(tmp_path / "rows.jsonl", with_row("sft", {"prompt": chat, "completion": "hello"}))
    line = refuse(*begin("sft", models), "--data", data, "--chat_template_path", "strict.jinja")
    assert f"{data}:3: " in line and "no system role" in line and "--chat_template_path" in line


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("{}", "`model_type`"),
        ('{"model_type": "lama"}', "lama"),
        ('{"model_type": "llama", "hidden_size": "x"}', "hidden_size"),
    ],
)
def test_architecture_that_is_none(refuse: Refuse, models: Path, tmp_path: Path, architecture: str, why: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", GOOD_ROWS["pretrain"])
    scratch = ["--architecture", architecture, "--tokenizer", str(models / "base")]
    line = refuse("pretrain", "--data", data, *scratch)
    assert line.startswith("error: architecture: ") and why in line and "give `model_type`" in line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("distributed_type: MULTI_GPU\n", "launch.yaml: num_processes is None; write a number"),
        ("distributed_type: MULTI_CPU\nnum_processes: 2\n", "launch.yaml:1: accelerate starts one process"),
        ("num_processes: 2\n", "launch.yaml: no distributed_type; copy one of recipes/accelerate"),
    ],
)
def test_half_configured_launch_file(refuse: Refuse, tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "launch.yaml").write_text(text)
    assert why in refuse("check-launch", "launch.yaml")
