"""`rlhf evaluate reward` on tiny real classifiers: the promised files, once per input, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import join
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.errors import ArtifactError, ConfigError, DataError, ModelError
from rlhf_pipeline.evaluate.reward import command
from rlhf_pipeline.records import Ranking
from tests.tiny import make_classifier, make_llama
from tests.vocabularies import save_reward

ROOT = Path(__file__).parents[3]
PNG = b"\x89PNG\r\n\x1a\n"


def rows(count: int) -> list[dict[str, Any]]:
    """Pairs and triples with a tie, by two labellers who share every other prompt, some answers cut off."""
    found = []
    for n in range(count):
        row = {"prompt": f"ask {n}", "completions": [f"good {n}", f"quite bad {n}"], "ranks": [0, 1], "source": "web"}
        found.append({**row, "labeler": "ann", "finished": [True, n % 3 > 0]})
        if n % 2:
            texts = [*row["completions"], f"third {n}"]
            more = {"ranks": [n % 4 // 2, 1, 1], "labeler": "bob", "finished": [True, n % 3 > 0, True]}
            found.append({**row, "completions": texts, **more})
    return found


def write(file: Path, several: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in several))
    return file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_classifier(tmp_path / "rm")
    write(tmp_path / "held-out.jsonl", rows(12))
    return tmp_path


def argv(**changes: Any) -> list[str]:
    settings = {"reward": "./rm", "data": "held-out.jsonl", "run": "r", **changes}
    return [word for name, value in settings.items() for word in (f"--{name}", *str(value).split())]


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "artifacts/runs/r/evaluation-reward.json").read_text())
    return found


def test_the_report_holds_every_measure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "reward", *argv()]) == 0
    data = report(folder)["data"]["held-out.jsonl"]
    counts = {name: data[name] for name in ("rankings", "prompts", "completions", "unfinished", "skipped_long")}
    assert counts == {"rankings": 18, "prompts": 12, "completions": 30, "unfinished": 4, "skipped_long": 0}
    assert (data["pairs"], data["ties"]) == (12 + 3 * 2, 3 * 1 + 3 * 3)
    assert data["labellers"]["labellers"] == 2
    found = data["rewards"]["./rm"]
    assert found["accuracy"]["n"] == data["baselines"]["bag_of_words"]["accuracy"]["n"] == 18
    assert set(found["by"]) == {"k", "rank_distance", "source", "length", "length_difference"}
    assert set(found["by"]["k"]) == {"2", "3"}
    assert set(found["labellers"]["each"]) == {"ann", "bob"}
    assert found["labellers"]["on_shared"]["n"] > 0
    assert 0 <= found["calibration"]["ece"] <= 1
    assert found["mean_difference_on_ties"] > 0
    assert found["eos"]["with_eos"]["n"] == 12 * 2 + 6 * 3
    assert -1 <= found["score_length_correlation"]["mean"] <= 1
    assert data["rank_length_correlation"]["mean"] < 0, "the better ones are shorter here"
    printed = capsys.readouterr().out
    assert "Pairs ordered as the labellers ranked them" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 100


def test_page_and_plot_lie_beside_it(folder: Path) -> None:
    command.main(argv())
    page = (folder / "artifacts/runs/r/evaluation-reward.md").read_text()
    assert page.startswith("# Reward models of run `r`")
    assert "cross-fitted by prompt" in page
    assert page.count("\n## ") == 8
    assert (folder / "artifacts/runs/r/evaluation-reward.png").read_bytes().startswith(PNG)


def test_the_same_inputs_are_answered_without_torch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(argv())
    code = (
        "import sys\nfrom rlhf_pipeline.evaluate.reward.command import main\n"
        f"main({argv()!r})\nassert not {{'torch', 'matplotlib'}} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already answered" in done.stdout
    first = report(folder)
    capsys.readouterr()
    command.main([*argv(), "--force"])
    assert "already answered" not in capsys.readouterr().out
    assert {**first, "seconds": 0} == {**report(folder), "seconds": 0}
    write(folder / "held-out.jsonl", rows(13))
    command.main(argv())
    assert "already answered" not in capsys.readouterr().out


def test_models_of_different_vocabularies_and_data_sets_side_by_side(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_reward(folder / "other", "words")
    chat = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows(6)]
    write(folder / "chat.jsonl", chat)
    command.main(argv(reward="./rm ./other", data="held-out.jsonl chat.jsonl", train="held-out.jsonl"))
    found = report(folder)
    assert list(found["data"]) == ["held-out.jsonl", "chat.jsonl"]
    for data in found["data"].values():
        assert list(data["rewards"]) == ["./rm", "./other"]
        pairs = {one["accuracy"]["n"] for one in data["rewards"].values()}
        assert pairs == {data["pairs"]}, "the same pairs for all"
    assert found["data"]["held-out.jsonl"]["shared_prompts"] == 12
    assert "NOT held out: the baselines saw 12 prompts of held-out.jsonl" in " ".join(capsys.readouterr().out.split())


def test_an_artifact_is_found_by_its_role_and_says_what_it_was_trained_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(folder / "artifacts")
    learnt = {"rankings": read("held-out.jsonl", Ranking).fingerprint}
    with store.staging() as staged:
        make_classifier(staged)
        name = store.publish(
            staged, kind="reward", parents={}, input_key="reward0123456789ab", config={}, data=learnt, metrics={}
        )
    store.set_refs("r", {"reward": name})
    write(folder / "new.jsonl", rows(5))
    command.main(argv(reward="reward ./rm", data="held-out.jsonl new.jsonl"))
    found = report(folder)
    assert found["ids"]["reward"] == name
    seen = {data: [one["trained_on_it"] for one in each["rewards"].values()] for data, each in found["data"].items()}
    assert seen == {"held-out.jsonl": [True, False], "new.jsonl": [False, False]}
    assert "NOT held out: reward was trained on held-out.jsonl\n" in capsys.readouterr().out


def test_what_members_and_ancestors_were_trained_on_is_not_held_out(folder: Path) -> None:
    """An ensemble, and a model that went on from another, name no rankings of their own."""
    store = Store(folder / "artifacts")
    learnt = {"rankings": read("held-out.jsonl", Ranking).fingerprint}
    names = []
    for seed, data in enumerate((learnt, {})):
        with store.staging() as staged:
            make_classifier(staged, seed=seed)
            names.append(
                store.publish(
                    staged, kind="reward", parents={"start": names[0]} if names else {}, input_key=f"key{seed}",
                    config={}, data=data, metrics={},
                )
            )  # fmt: skip
    with store.staging() as staged:
        make_classifier(staged, seed=2)
        other = store.publish(staged, kind="reward", parents={}, input_key="o", config={}, data={}, metrics={})
    join(store, [other, names[0]], "r", "reward")
    write(folder / "new.jsonl", rows(5))
    command.main(argv(reward=f"reward {names[1]} {other}", data="held-out.jsonl new.jsonl"))
    found = report(folder)["data"]
    seen = {data: [one["trained_on_it"] for one in each["rewards"].values()] for data, each in found.items()}
    assert seen == {"held-out.jsonl": [True, True, False], "new.jsonl": [False] * 3}


def test_long_rankings_are_refused_or_counted(folder: Path) -> None:
    long = {"prompt": "x", "completions": ["y" * 200, "z"], "ranks": [0, 1]}
    write(folder / "held-out.jsonl", [*rows(4), long])
    with pytest.raises(DataError, match=r"held-out.jsonl:7: 202 tokens, more than the 128"):
        command.main(argv())
    command.main(argv(on_long_row="skip"))
    assert report(folder)["data"]["held-out.jsonl"]["skipped_long"] == 1
    write(folder / "held-out.jsonl", [long])
    with pytest.raises(DataError, match="held-out.jsonl: all 1 rankings are longer"):
        command.main(argv(on_long_row="skip"))


def test_one_prompt_is_measured_without_pretending(folder: Path) -> None:
    """No baseline can be fitted, nothing correlates, and the interval spans all there is."""
    write(folder / "held-out.jsonl", rows(1))
    command.main(argv())
    data = report(folder)["data"]["held-out.jsonl"]
    assert data["baselines"]["length"]["accuracy"] is None
    assert data["labellers"] is None
    assert data["rewards"]["./rm"]["score_length_correlation"] is None
    accuracy = data["rewards"]["./rm"]["accuracy"]
    assert (accuracy["clusters"], accuracy["ci95"]) == (1, [0, 1])
    assert data["rewards"]["./rm"]["calibration"]["log_loss"]["ci95"] is None
    assert set(data["rewards"]["./rm"]["ahead_of"].values()) == {None}


def test_scores_that_are_no_numbers_are_refused_before_anything_is_written(folder: Path) -> None:
    weights = load_file(folder / "rm/model.safetensors")
    save_file({name: torch.full_like(one, math.nan) for name, one in weights.items()}, folder / "rm/model.safetensors")
    with pytest.raises(ModelError, match=r"held-out.jsonl:1: base-.* scores a completion nan, and 30 of 30 so"):
        command.main(argv())
    assert not list(folder.glob("artifacts/runs/*/evaluation*"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": "nowhere.jsonl"}, DataError, "nowhere.jsonl: no such file"),
        ({"data": "ties.jsonl"}, DataError, r"ties.jsonl: no ranking prefers one completion to another \(1 ties\)"),
        ({"reward": "./causal"}, ModelError, "gives no score; train a reward model"),
        ({"reward": "reward"}, ArtifactError, "has no `reward`"),
        ({"reward": "./rm ./rm"}, ConfigError, "`reward` must name different ones"),
        ({"batch_size": 0}, ConfigError, "--batch_size: `batch_size` must be at least 1"),
        ({"rewards": "./rm"}, ConfigError, "did you mean `reward`"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_written(
    folder: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    make_llama(folder / "causal")
    write(folder / "ties.jsonl", [{"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}])
    with pytest.raises(error, match=message):
        command.main(argv(**changes))
    assert not list(folder.glob("artifacts/runs/*/evaluation*"))


def test_no_data_is_refused_before_anything_is_looked_for() -> None:
    with pytest.raises(ConfigError, match="no rankings; pass held-out ones with `--data"):
        command.main(["--reward", "nowhere"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    assert "--train" in capsys.readouterr().out
