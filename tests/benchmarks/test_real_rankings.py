"""The commands are run from rows to report on a tiny model; starts differ in their weights alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from benchmarks import real_rankings
from benchmarks.real_rankings import ORDER, TASKS, compared, differences, draw, main, measure_all, write_start
from tests.tiny import make_llama

WORDS = ("cat", "dog", "sun", "sea", "tea", "map", "ink", "oak")


def write_pairs(file: Path, count: int) -> Path:
    """Transcripts as in HH-RLHF."""
    rows = []
    for n in range(count):
        prompt = f"\n\nHuman: {WORDS[n % 8]} {WORDS[n // 8 % 8]} {n}?\n\nAssistant:"
        rows.append({"chosen": f"{prompt} kind {n}", "rejected": f"{prompt} rude words {n}"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_starts_differ_in_their_weights_alone(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", seed=5)
    models = {}
    for start in ("pretrained", "random"):
        write_start(tmp_path / "base", tmp_path / start, start, positions=99)
        models[start] = AutoModelForCausalLM.from_pretrained(tmp_path / start)
    pretrained, random = (models[start].state_dict() for start in ("pretrained", "random"))
    assert all(bool((pretrained[name] == value).all()) for name, value in base.state_dict().items())
    assert {n: v.shape for n, v in pretrained.items()} == {n: v.shape for n, v in random.items()}
    name = "model.layers.0.mlp.up_proj.weight"
    assert not (pretrained[name] == random[name]).any()
    assert models["random"].config.max_position_embeddings == 99


def test_from_rows_to_report(tmp_path: Path) -> None:
    make_llama(tmp_path / "base")
    rows = write_pairs(tmp_path / "pairs.jsonl", 40)
    task = replace(TASKS["hh"], positions=64, epochs=1)
    found = measure_all([task], {"hh": rows}, tmp_path / "base", tmp_path / "work")
    one = found["hh"]["evaluation"]["data"]["hh#eval"]
    assert 8 < one["pairs"] < 24
    assert one["shared_prompts"] == 0, "nothing held out was trained on"
    assert not any(model["trained_on_it"] for model in one["rewards"].values())
    shown = compared(found["hh"]["evaluation"], "hh#eval")
    assert tuple(shown) == ORDER
    assert shown["length"]["mean"] == 1, "the better one is always the shorter one here, and 24 pairs teach that"
    assert shown["random"] == one["rewards"]["hh-random/reward"]["accuracy"]
    lines = differences(found)
    assert [line.rpartition(": ")[0] for line in lines] == [
        f"hh: {start} vs {base}" for start in ("pretrained", "random") for base in ("length", "bag of words")
    ]
    ahead = one["rewards"]["hh-random/reward"]["ahead_of"]["length"]
    assert ahead["mean"] == pytest.approx(shown["random"]["mean"] - shown["length"]["mean"], abs=1e-3)
    assert set(found["hh"]["seconds"]) == {"pretrained", "random"}
    draw(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --base"),
        (["--base", "."], "no rankings; pass --hh <file>, --oasst <file> or both"),
        (["--base", "nowhere", "--hh", "none.jsonl"], "nowhere, none.jsonl: no such file or folder"),
    ],
)
def test_what_is_missing_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_a_command_that_fails_stops_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        real_rankings.rlhf("evaluate", "rewards")
    assert stopped.value.code == 2
    printed: Any = capsys.readouterr()
    assert printed.out.startswith("\n$ rlhf evaluate rewards")
