"""`rlhf eval` on tiny random models: the promised JSON, page and plot, once per input, and with one's own prompts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import join
from rlhf_pipeline.data.world import places, sets
from rlhf_pipeline.errors import ArtifactError, ConfigError, DataError
from rlhf_pipeline.evaluate import command
from tests.tiny import make_classifier, make_llama

QUICK = {"limit": 6, "num_generations": 2, "max_completion_length": 8}
PNG = b"\x89PNG\r\n\x1a\n"


def _publish(store, kind, make, parents, **options):
    with store.staging() as staged:
        make(staged, max_position_embeddings=512, **options)
        return store.publish(
            staged,
            kind=kind,
            parents=parents,
            input_key=f"{kind}0123456789abcdef",
            config={"kl_coef": 0.1},
            data={},
            metrics={"seconds": 2.5},
        )


def _write_world(folder, rows=8):
    world = places.build(0)
    for name, table in sets.tables(world).items():
        if name.startswith("eval/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row) + "\n" for row, _ in zip(table, range(rows), strict=False)]
            (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "world.json").write_text('{"seed": 0}')


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a run of four random models, and its world."""
    root = tmp_path_factory.mktemp("eval")
    store = Store(root)
    ids = {"base": _publish(store, "base", make_llama, {}, seed=0)}
    ids["sft"] = _publish(store, "sft", make_llama, {"base": ids["base"]}, seed=1)
    ids["reward"] = _publish(store, "reward", make_classifier, {"start": ids["sft"]}, seed=2)
    ids["policy"] = _publish(store, "policy", make_llama, {"sft": ids["sft"]}, seed=3)
    store.set_refs("r", ids)
    _write_world(root / "runs/r/world")
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of the store to write to."""
    return Path(shutil.copytree(made, tmp_path / "artifacts"))


def _argv(root, **changes):
    settings = {"run": "r", "artifacts": root, **QUICK, **changes}
    return [word for name, value in settings.items() for word in (f"--{name}", *str(value).split())]


def _estimate(found, top):
    assert set(found) >= {"mean", "ci95"}
    low, high = found["ci95"]
    assert 0 <= low <= high <= top


def test_the_report_has_the_promised_form(root, capsys):
    assert command.main(_argv(root)) == 0
    report = json.loads((root / "runs/r/evaluation.json").read_text())
    assert list(report["models"]) == ["base", "sft", "sft_best_of_2", "policy"]
    for model in report["models"].values():
        assert set(model["judge"]) == {"score", "helpful", "truthful", "harmless"}
        _estimate(model["judge"]["score"], 100)
    assert set(report["win_rate"]) >= {"policy_vs_sft", "sft_vs_base", "policy_vs_base", "policy_vs_sft_best_of_2"}
    _estimate(report["win_rate"]["policy_vs_sft"], 1)
    _estimate(report["win_rate"]["policy_vs_sft"]["mean_of_2"], 1)
    assert {"mean", "ci95", "ceiling"} <= set(report["reward_accuracy"] or {"mean": 0, "ci95": 0, "ceiling": 0})
    assert report["kl_nats"] == report["models"]["policy"]["kl_nats"]["mean"]
    assert report["seconds"].keys() == {"pretrain", "sft", "reward", "ppo", "eval"}
    assert report["seconds"]["ppo"] == 2.5
    assert report["split"] == "new-phrasing"
    assert set(report["splits"]) == {"seen", "new-phrasing", "new-entity", "new-verb"}
    assert "greedy" in report["splits"]["new-entity"]["models"]["sft"]
    assert report["splits"]["new-phrasing"]["samples"][0]["answers"].keys() == report["models"].keys()
    assert "kl_nats" not in report["models"]["sft"]  # the reference itself


def test_the_page_the_plot_and_the_table_come_with_it(root, capsys):
    command.main(_argv(root))
    printed = capsys.readouterr().out
    assert "sft_best_of_2" in printed
    assert max(map(len, printed.splitlines()[:20])) <= 100
    page = (root / "runs/r/evaluation.md").read_text()
    assert page.startswith("# Evaluation of run `r`")
    assert "## Answers side by side" in page
    assert (root / "runs/r/evaluation.png").read_bytes().startswith(PNG)


def test_the_same_inputs_are_answered_without_torch(root, capsys):
    argv = _argv(root)
    command.main(argv)
    first = (root / "runs/r/evaluation.json").read_text()
    code = (
        "import sys\nfrom rlhf_pipeline.evaluate.command import main\n"
        f"main({argv!r})\nassert not {{'torch', 'matplotlib'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already answered" in done.stdout
    capsys.readouterr()
    command.main([*argv, "--force"])
    assert "already answered" not in capsys.readouterr().out
    again = (root / "runs/r/evaluation.json").read_text()
    figures = [{**json.loads(text), "seconds": None} for text in (first, again)]
    assert figures[0] == figures[1]  # the same seed, the same figures
    command.main(_argv(root, seed=1))
    assert "already answered" not in capsys.readouterr().out


def test_own_prompts_are_compared_by_the_reward_model(root, tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"ask {n}"}) + "\n" for n in range(5)))
    command.main(_argv(root, prompts=tmp_path / "prompts.jsonl", models="sft policy"))
    report = json.loads((root / "runs/r/evaluation.json").read_text())
    assert (report["compared_by"], report["split"]) == ("reward", "prompts.jsonl")
    assert "judge" not in report["models"]["policy"]
    assert report["models"]["policy"]["reward"]["n"] == 10
    assert report["win_rate"]["policy_vs_sft"]["n"] == 5
    assert report["kl_nats"] is not None
    assert "reward model's score" in capsys.readouterr().out


def test_any_two_artifacts_without_a_reward_model(root):
    ids = Store(root).refs()["r"]
    pair = f"{ids['base']} {ids['policy']}"
    command.main(_argv(root, models=pair, reward="none", temperature=0, num_generations=1))
    report = json.loads((root / "runs/r/evaluation.json").read_text())
    assert list(report["win_rate"]) == [f"{ids['policy']}_vs_{ids['base']}"]
    assert report["kl_nats"] is None
    assert "reward" not in report["models"][ids["base"]]


def test_prompts_too_long_are_refused_or_counted(root, tmp_path):
    rows = [{"prompt": "short"}, {"prompt": "x" * 600}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"long.jsonl, prompt 2: 608 tokens"):
        command.main(_argv(root, prompts=tmp_path / "long.jsonl"))
    command.main(_argv(root, prompts=tmp_path / "long.jsonl", on_long_row="skip"))
    report = json.loads((root / "runs/r/evaluation.json").read_text())
    assert (report["skipped_long_prompts"], report["splits"]["long.jsonl"]["prompts"]) == (1, 1)


def test_kept_sft_checkpoints_are_scored_by_epoch(root):
    sft = Store(root).refs()["r"]["sft"]
    for epoch, seed in ((1, 5), (2, 6)):
        folder = root / f"runs/r/sft/{Store(root).manifest(sft).input_key[:12]}/checkpoints/checkpoint-{10 * epoch}"
        make_llama(folder, seed=seed, max_position_embeddings=512)
        log = [{"step": 10 * epoch, "eval_loss": 3.0 - epoch}]
        (folder / "trainer_state.json").write_text(json.dumps({"epoch": float(epoch), "log_history": log}))
        (folder / "complete").touch()
    command.main(_argv(root))
    epochs = json.loads((root / "runs/r/evaluation.json").read_text())["sft_epochs"]
    assert [(one["epoch"], one["eval_loss"]) for one in epochs] == [(1.0, 2.0), (2.0, 1.0)]
    assert "SFT along its epochs" in (root / "runs/r/evaluation.md").read_text()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"limit": 0}, ConfigError, "--limit: `limit` must be at least 1"),
        ({"temperature": -1}, ConfigError, "--temperature"),
        ({"models": "sft sft"}, ConfigError, "--models: `models` must name different models"),
        ({"modles": "sft"}, ConfigError, "did you mean `models`"),
        ({"world": "nowhere"}, DataError, "nowhere: no miniature world"),
        ({"run": "other"}, ArtifactError, "has no `base`"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_nothing_written(made, changes, error, message):
    with pytest.raises(error, match=message):
        command.main(_argv(made, **changes))
    assert not (made / "runs/r/evaluation.json").exists()
    assert not (made / "runs/other").exists()


def test_help(capsys):
    assert command.main(["--help"]) == 0
    assert "--held_out" in capsys.readouterr().out


def test_an_ensemble_is_one_reward_model(root):
    """What it is reduced to is part of the question."""
    store = Store(root)
    first = store.refs()["r"]["reward"]
    other = _publish(store, "reward", make_classifier, {"start": store.refs()["r"]["sft"]}, seed=5)
    join(store, [first, other], "r", "reward")
    found = {}
    for reduction in ("mean", "min"):
        assert command.main(_argv(root, ensemble_reduction=reduction)) == 0
        report = json.loads((root / "runs/r/evaluation.json").read_text())
        found[reduction] = report["models"]["sft"]["reward"]["mean"]
    assert found["min"] < found["mean"]
