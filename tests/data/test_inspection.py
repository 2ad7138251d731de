"""`rlhf data inspect`, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.cli import main
from rlhf_pipeline.data.command import COMMANDS
from rlhf_pipeline.data.inspection import InspectSettings, guess_kind
from tests.tiny import make_tokenizer

DATA = Path(__file__).parents[2] / "data"


def inspect(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["data", "inspect", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def numbers(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rankings.jsonl", "rankings"),
        ("trees-oasst.jsonl", "rankings"),
        ("messages.jsonl", "demonstrations"),
        ("instructions-alpaca.json", "demonstrations"),
        ("documents.txt", "documents"),
        ("prompts.jsonl", "prompts"),
        ("steps.jsonl", "prompts"),
    ],
)
def test_the_kind_is_what_says_most(name: str, kind: str) -> None:
    assert guess_kind(InspectSettings(data=str(DATA / name)))[0] == kind


@pytest.mark.parametrize(
    ("row", "meant", "why"),
    [
        ({"chosen": "a", "rejected": ""}, "rankings", "`rejected` is empty"),
        ({"completions": ["a", "b"]}, "rankings", "no field `ranks`"),
        ({"completions": ["a", "b"], "ranks": [0, 1.5]}, "rankings", "`ranks` is [0, 1.5]"),
        ({"chosen": "a"}, "rankings", "no field `completions`"),
        ({"completion": ""}, "demonstrations", "`completion` is empty"),
        ({"answer": "42"}, None, ""),
    ],
)
def test_prompts_that_look_like_more_are_doubted(
    row: dict[str, Any], meant: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "Why?"} | row) + "\n")
    out = inspect(capsys, str(tmp_path / "rows.jsonl"), "--examples", "0")
    assert out.startswith("1 prompts\n")
    doubt = f"  - the rows look like {meant} and cannot be read so: {tmp_path}/rows.jsonl:1: {why}"
    assert doubt in out if meant else out.endswith("nothing looks wrong\n")


def test_a_mapping_of_rankings_that_gives_none_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("q,a,b,s,t\nWhy?,So.,No.,good,1\n")
    columns = "{prompt: q, completions: [a, b], scores: [s, t]}"
    (tmp_path / "rows.yaml").write_text(f"data: {tmp_path}/rows.csv\ncolumns: {columns}\n")
    out = inspect(capsys, str(tmp_path / "rows.yaml"))
    assert f"look like rankings and cannot be read so: {tmp_path}/rows.csv:2: `scores` is ['good', 1]" in out


def test_counts_of_a_sample(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = inspect(capsys, str(DATA / "rankings.jsonl"), "--json", str(tmp_path / "n.json"))
    assert out.startswith("8 rankings\n")
    written = numbers(tmp_path / "n.json")
    assert written["rankings"]["completions_per_prompt"] == {"2": 1, "3": 3, "4": 3, "5": 1}
    assert (written["rankings"]["pairs"], written["rankings"]["ties"], written["unit"]) == (38, 1, "characters")
    assert all(f"  - {finding}" in out for finding in written["findings"])


def test_tokens_are_those_of_the_stages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Bytes here: a plain prompt is its bytes, a completion its bytes and the end, which counts once."""
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = [{"prompt": "Why?", "completion": " So é."}, {"prompt": "Why?", "completion": " So<eos> it is."}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = inspect(
        capsys, str(tmp_path / "rows.jsonl"), "--tokenizer", str(tmp_path / "tokenizer"), "--json", str(tmp_path / "n"),
        "--max_length", "12",
    )  # fmt: skip
    lengths = numbers(tmp_path / "n")["lengths"]
    assert (lengths["prompt"]["max"], lengths["completion"]["p1"], lengths["row"]["p1"]) == (4, 8, 12)
    assert "lengths in tokens" in out
    assert "1 of 2 (50.0%) rows have more than 12 tokens" in out
    assert "1 of 2 (50.0%) completions hold the end-of-sequence token as text" in out


def test_messages_the_template_refuses_are_bad_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    template += "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    make_tokenizer(chat_template=template).save_pretrained(tmp_path / "tokenizer")
    out = inspect(capsys, str(DATA / "messages.jsonl"), "--tokenizer", str(tmp_path / "tokenizer"))
    assert out.startswith("4 demonstrations\n2 bad rows, the first:\n")
    assert "no system turns" in out


def test_a_limit_and_a_mix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect(capsys, str(DATA / "messages.jsonl"), "--limit", "2").startswith("2 demonstrations\n")
    monkeypatch.chdir(DATA.parent)
    assert "sources: " in inspect(capsys, "data/mix.yaml")


def test_a_row_that_is_bad_does_not_stop_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x."}\n{"text": 3}\n')
    out = inspect(capsys, str(tmp_path / "rows.jsonl"))
    assert out.startswith(
        f"1 documents\n1 bad rows, the first:\n  {tmp_path}/rows.jsonl:2: `text` is 3; expected a string"
    )


def test_what_it_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"x": 1}\n')
    odd = str(tmp_path / "odd.jsonl")
    assert "which data? e.g." in refused(capsys, "inspect")
    assert "none of its first 100 rows can be read; " in refused(capsys, "inspect", odd)
    assert "nothing to read as prompts; the first, " in refused(capsys, "inspect", odd, "--kind", "prompts")
    assert "`kind` must be one of auto, rankings" in refused(capsys, "inspect", odd, "--kind", "pairs")
    assert "`examples` must be 0 or more" in refused(capsys, "inspect", odd, "--examples", "-1")
    assert "`limit` must be at least 1" in refused(capsys, "inspect", odd, "--limit", "0")
    assert "did you mean `tokenizer`?" in refused(capsys, "inspect", odd, "--tokeniser", "x")
    assert "did you mean `rlhf data inspect`?" in refused(capsys, "inspct")
    assert "is not a format" in refused(capsys, "inspect", odd, "--data_format", "zzz")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == main(["data", "--help"]) == 0
    page = capsys.readouterr().out
    assert all(f"  {name}" in page and command.summary in page for name, command in COMMANDS.items())
    assert main(["data", "inspect", "--help"]) == 0
    assert "--tokenizer" in capsys.readouterr().out
