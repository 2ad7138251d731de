"""The frontier from PPO's logs: points, summaries by hand, and one plot."""

from __future__ import annotations

import json

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.errors import ArtifactError
from rlhf_pipeline.evaluate import command
from rlhf_pipeline.evaluate.frontier import curve, read_points


def _log(rewards, judge=True):
    rows = [{"step": 2 * n, "ppo/kl_nats": n / 2, "ppo/score": reward} for n, reward in enumerate(rewards)]
    if judge:
        rows = [{**row, "rewards/judge/mean": 0.1 * n} for n, row in enumerate(rows)]
    return "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 99, "train_runtime": 3.0}])


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "artifacts")
    for run, coefficient in (("kept", 0.1), ("free", 0.0)):
        with store.staging() as staged:
            (staged / "config.json").write_text("{}")
            policy = store.publish(
                staged,
                kind="policy",
                parents={},
                input_key=f"{run}-0123456789",
                config={"kl_coef": coefficient},
                data={},
                metrics={},
            )
        store.set_refs(run, {"policy": policy})
        folder = store.run_dir(run, "ppo") / f"{run}-0123456789"[:12]
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(_log([0.0, 1.0, 2.0, 3.0]))
    return store


def test_points_are_the_rollouts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(_log([0.5, 1.5]))
    first, second = read_points(tmp_path / "metrics.jsonl")
    assert first == {"step": 0, "kl_nats": 0.0, "reward": 0.5, "judge": 0.0}
    assert second == {"step": 2, "kl_nats": 0.5, "reward": 1.5, "judge": 10.0}
    (tmp_path / "metrics.jsonl").write_text(_log([0.5], judge=False))
    assert read_points(tmp_path / "metrics.jsonl")[0]["judge"] is None


def test_first_peak_and_last_are_means_of_three_rollouts():
    values = [0.0, 3.0, 6.0, 9.0, 0.0, 0.0]  # means of three: 3, 6, 5, 3
    points = [{"reward": value, "judge": None, "kl_nats": 0.0} for value in values]
    found = curve(points)
    assert found["reward"] == {"first": 3.0, "peak": 6.0, "last": 3.0}
    assert found["judge"] is None
    assert curve(points[:2])["reward"] == {"first": 1.5, "peak": 1.5, "last": 1.5}


def test_the_command_draws_both_runs_once(store, capsys):
    argv = ["--frontier", "kept", "free", "--artifacts", str(store.root)]
    assert command.main(argv) == 0
    assert "free (kl_coef 0): reward 1.00 -> 2.00, judge 10.0 -> 20.0 (peak 20.0), KL 1.50" in capsys.readouterr().out
    frontier = json.loads((store.root / "runs/free/frontier.json").read_text())
    assert [len(found["points"]) for found in frontier["runs"].values()] == [4, 4]
    assert (store.root / "runs/free/frontier.png").read_bytes().startswith(b"\x89PNG")
    command.main(argv)
    assert "already answered" in capsys.readouterr().out


def test_a_run_without_ppo_is_refused(store):
    with pytest.raises(ArtifactError, match=r"run `none` has no policy.*rlhf ppo --run none"):
        command.main(["--frontier", "kept", "none", "--artifacts", str(store.root)])
    (store.root / "runs/free/ppo/free-0123456/metrics.jsonl").write_text("")
    with pytest.raises(ArtifactError, match="no rollouts logged"):
        command.main(["--frontier", "kept", "free", "--artifacts", str(store.root)])
