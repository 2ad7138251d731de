"""From the command line: ensembles of whole models, adapters and heads; what they publish, and PPO against each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import collect
from rlhf_pipeline.artifacts.ensemble import member_ids, member_offsets
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.ensembles import Members, OneAdapter, Reduction, disagreement
from rlhf_pipeline.records import Demonstration, Ranking
from rlhf_pipeline.rewards import find_reward, load_reward_model
from rlhf_pipeline.scoring import RewardModel
from tests.e2e.pipeline import Pipeline, write_rows
from tests.tiny import make_llama

LORA = ("--use_peft", "true", "--lora_target_modules", "q_proj", "v_proj", "--lora_r", "4")
ROWS = [[5, 6, 7], [9, 8], [40, 41, 42, 43, 44]]
MEMBERS = ("--ensemble_size", "3")
HEADS = ("--ensemble_size", "3", "--ensemble", "heads")


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    make_llama(tmp_path / "base")
    return Pipeline(tmp_path / "store", write_rows(tmp_path / "rows"))


def base(pipeline: Pipeline) -> str:
    return str(pipeline.root.parent / "base")


def load(pipeline: Pipeline, name: str = "reward", **options: Any) -> RewardModel:
    checkpoint = find_reward(pipeline.store, name, pipeline.run).checkpoint
    assert checkpoint is not None
    return load_reward_model(pipeline.store, checkpoint, "cpu", **options)


def plain(pipeline: Pipeline, name: str) -> torch.Tensor:
    """Scores of a published adapter or model by plain libraries, which know nothing of its normalisation: (B, M)."""
    folder = pipeline.store.path(name)
    if (folder / "adapter_config.json").is_file():
        copy = Path(shutil.copytree(folder, pipeline.root.parent / f"plain-{name}", dirs_exist_ok=True))
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(pipeline.store.path(config["base_model_name_or_path"]))
        (copy / "adapter_config.json").chmod(0o644)
        (copy / "adapter_config.json").write_text(json.dumps(config))
        heads = json.loads((folder / "config.json").read_text()).get("reward_heads", 1)
        model = AutoPeftModelForSequenceClassification.from_pretrained(copy, num_labels=heads)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model.eval()(input_ids=torch.tensor([row])).logits for row in ROWS])


@pytest.mark.parametrize("more", [(), LORA], ids=["whole", "adapters"])
def test_members_are_reward_models_of_their_own_and_score_together(pipeline: Pipeline, more: tuple[str, ...]) -> None:
    pipeline.make("reward", "--model", base(pipeline), *MEMBERS, *more)
    store, refs = pipeline.store, pipeline.refs()
    members = [refs[f"member{n}"] for n in range(3)]
    assert member_ids(store.path(refs["reward"])) == members and len(set(members)) == 3
    assert [store.manifest(name).config["seed"] for name in members] == [42, 43, 44]
    held_out = {store.manifest(name).metrics["held_out_examples"] for name in members}
    assert len(held_out) == 1 and verify(store) == []

    reward = load(pipeline)
    alone = torch.cat([plain(pipeline, name) for name in members], dim=1)
    means = torch.tensor([store.manifest(name).metrics["eval_mean_reward"] for name in members])
    aligned = alone - (means - means.mean())
    torch.testing.assert_close(reward.member_scores(ROWS), aligned, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(reward.score_ids(ROWS), alone.mean(dim=1), atol=1e-5, rtol=1e-4)
    assert disagreement(aligned).min() > 1e-4, "heads and order of data differ"
    if more:
        assert {id(network.model) for network in reward.networks if isinstance(network, OneAdapter)} == {
            id(reward.networks[0].model)
        }, "three adapters over one base in memory"
    collect(store, delete=True)
    assert set(members) <= set(store.ids())


@pytest.mark.parametrize("more", [(), LORA], ids=["whole", "adapter"])
def test_heads_are_one_plain_model_with_several_labels(pipeline: Pipeline, more: tuple[str, ...]) -> None:
    demonstrations = str(pipeline.rows / "demonstrations.jsonl")
    pipeline.make("reward", "--model", base(pipeline), "--normalize_on", demonstrations, *HEADS, *more)
    name = pipeline.refs()["reward"]
    config = json.loads((pipeline.store.path(name) / "config.json").read_text())
    assert config["reward_heads"] == 3 and len(config["reward_offset"]) == 3
    logits = plain(pipeline, name)
    assert logits.shape == (3, 3) and disagreement(logits).min() > 1e-4, "heads start apart"
    reward = load(pipeline)
    expected = logits - torch.tensor(config["reward_offset"])
    torch.testing.assert_close(reward.member_scores(ROWS), expected, atol=1e-5, rtol=1e-4)
    low = load(pipeline, reduction=Reduction("min"))
    torch.testing.assert_close(low.score_ids(ROWS), expected.amin(dim=1), atol=1e-5, rtol=1e-4)
    if more:
        pipeline_merge(pipeline)
        merged = load(pipeline, "reward-merged")
        torch.testing.assert_close(merged.member_scores(ROWS), expected, atol=1e-5, rtol=1e-4)


def held_out_means(pipeline: Pipeline, name: str = "reward") -> list[float]:
    """Each member's mean score on the completions that were held out of its training."""
    rows = read(str(pipeline.rows / "rankings.jsonl"), Ranking).records
    _, held_out = by_prompt(rows, 0.2, 42)
    reward = load(pipeline, name)
    pairs = [(one.prompt, text) for one in held_out for text in one.completions]
    prompts, texts = zip(*pairs, strict=True)
    return reward.member_scores(reward.rows(prompts, texts, [True] * len(pairs))).mean(dim=0).tolist()


@pytest.mark.parametrize("kind", [MEMBERS, HEADS, (*MEMBERS, *LORA)], ids=["members", "heads", "adapters"])
def test_members_have_one_zero_on_held_out_completions(pipeline: Pipeline, kind: tuple[str, ...]) -> None:
    """Rankings leave each its own: without this, `min` would be the member whose zero happens to lie lowest."""
    pipeline.make("reward", "--model", base(pipeline), *kind)
    means = held_out_means(pipeline)
    assert means == pytest.approx([sum(means) / 3] * 3, abs=1e-5)
    metrics = pipeline.store.manifest(pipeline.refs().get("member0", pipeline.refs()["reward"])).metrics
    if kind == HEADS:
        assert metrics["reward_offset"] == pytest.approx(0.0, abs=1e-6)
        assert means[0] == pytest.approx(metrics["eval_mean_reward"], abs=1e-5), "the mean score is what it was"
    else:
        assert metrics["eval_mean_reward"] == pytest.approx(held_out_means(pipeline, "member0")[0], abs=1e-5)


def pipeline_merge(pipeline: Pipeline) -> None:
    assert cli.main(["artifacts", "merge", "reward", "--artifacts", str(pipeline.root)]) == 0


def test_demonstrations_score_zero_by_every_member(pipeline: Pipeline) -> None:
    demonstrations = str(pipeline.rows / "demonstrations.jsonl")
    pipeline.make("reward", "--model", base(pipeline), "--normalize_on", demonstrations, "--ensemble_size", "2")
    records = read(demonstrations, Demonstration).records
    reward = load(pipeline)
    rows = reward.rows([r.prompt for r in records], [r.completion for r in records], [True] * len(records))
    assert reward.member_scores(rows).mean(dim=0).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_only_what_is_missing_is_trained(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain reward model is member 0, one trained alone is its member, and the same command is answered."""
    start = ("--model", base(pipeline))
    pipeline.make("reward", *start)
    one = pipeline.refs()["reward"]
    pipeline.make("reward", *start, "--member", "2")
    two = pipeline.refs()["member2"]
    assert pipeline.refs()["reward"] == one
    capsys.readouterr()
    pipeline.make("reward", *start, *MEMBERS)
    out = capsys.readouterr().out
    assert out.count("already answered") == 2 and out.count("reward: published") == 1
    ensemble = pipeline.refs()["reward"]
    assert member_ids(pipeline.store.path(ensemble))[::2] == [one, two]
    pipeline.make("reward", *start, *MEMBERS)
    assert capsys.readouterr().out.count("already answered") == 3
    assert pipeline.refs()["reward"] == ensemble


def test_an_ensemble_goes_on_where_it_was_killed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second member fails: the first stays published, `reward` names nothing, and the command continues."""
    import rlhf_pipeline.training as training

    calls = []
    train = training.train

    def fail_at_the_second(trainer: Any, job: Any) -> None:
        calls.append(job.key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        train(trainer, job)

    monkeypatch.setattr(training, "train", fail_at_the_second)
    words = ("--model", base(pipeline), *MEMBERS)
    assert pipeline.stage("reward", *words) == 130
    assert pipeline.refs().keys() == {"member0"}
    pipeline.make("reward", *words)
    assert pipeline.refs().keys() == {"member0", "member1", "member2", "reward"}
    assert len(calls) == 4 and calls[1] == calls[2]


@pytest.mark.parametrize(
    ("reward", "ppo", "critic"),
    [
        (MEMBERS, (), "the critic starts from {member0}"),
        (HEADS, (), "the critic starts from {reward}"),
        ((*MEMBERS, *LORA), LORA, "the critic starts from {member0}, an adapter over the policy's base"),
        ((*HEADS, *LORA), LORA, "the critic starts from {reward}, an adapter over the policy's base"),
    ],
    ids=["members", "heads", "adapters", "adapter-heads"],
)
def test_ppo_learns_against_an_ensemble_and_logs_what_it_disagrees_by(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], reward: Any, ppo: Any, critic: str
) -> None:
    pipeline.make("reward", "--model", base(pipeline), *reward)
    capsys.readouterr()
    pipeline.make("ppo", "--model", base(pipeline), *ppo, "--disagreement_coef", "0.5")
    out = capsys.readouterr().out
    refs = pipeline.refs()
    assert critic.format(**refs) in out
    assert "  disagreement 0." in out
    lines = pipeline.metrics("ppo")
    assert all(line["ppo/disagreement"] > 1e-4 for line in lines if "ppo/score" in line)
    manifest = pipeline.store.manifest(refs["policy"])
    assert manifest.parents["reward"] == refs["reward"]
    assert manifest.metrics["eval_ppo/disagreement"] > 1e-4
    assert manifest.config["disagreement_coef"] == 0.5
    folder = pipeline.store.path(refs["critic"])
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else {}
    assert config.get("reward_heads", 1) == 1
    assert verify(pipeline.store) == []


@pytest.mark.parametrize("more", [(), LORA], ids=["whole", "adapters"])
def test_a_member_is_watched_beside_its_ensemble(pipeline: Pipeline, more: tuple[str, ...]) -> None:
    """Its score counts nothing, and is that of the worst member or better."""
    pipeline.make("reward", "--model", base(pipeline), "--ensemble_size", "2", *more)
    rewards = ("--reward", "reward", "member0", "member1", "--reward_weights", "1", "0", "0")
    pipeline.make("ppo", "--model", base(pipeline), *more, *rewards, "--ensemble_reduction", "min")
    first, refs = pipeline.metrics("ppo")[0], pipeline.refs()
    worst, *alone = (first[f"rewards/{refs[name]}/mean"] for name in ("reward", "member0", "member1"))
    assert worst == pytest.approx(first["ppo/score"], rel=1e-5)
    offsets = member_offsets(pipeline.store.path(refs["reward"]))
    aligned = [mean - offset for mean, offset in zip(alone, offsets, strict=True)]
    assert worst <= min(aligned) + 1e-6 and aligned[0] != pytest.approx(aligned[1], rel=1e-3)


def test_the_penalty_is_what_the_score_loses(pipeline: Pipeline) -> None:
    """The first rollout is the same: its score is less by the coefficient times the disagreement that is logged."""
    pipeline.make("reward", "--model", base(pipeline), *MEMBERS)
    found = {}
    for coef in ("0", "2"):
        run = Pipeline(pipeline.root, pipeline.rows, f"coef{coef}")
        run.make("ppo", "--model", base(pipeline), "--reward", "default/reward", "--disagreement_coef", coef)
        found[coef] = run.metrics("ppo")[0]
    assert found["0"]["ppo/disagreement"] == pytest.approx(found["2"]["ppo/disagreement"], rel=1e-5)
    lost = found["0"]["ppo/score"] - found["2"]["ppo/score"]
    assert lost == pytest.approx(2 * found["0"]["ppo/disagreement"], rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "words", "why"),
    [
        ("reward", ("--ensemble", "heads"), "`ensemble` heads needs `ensemble_size` of at least 2"),
        ("reward", ("--ensemble_size", "2", "--eval_fraction", "0"), "no completions on which members"),
        ("reward", ("--ensemble_size", "0"), "`ensemble_size` must be at least 1"),
        ("reward", ("--ensemble_size", "2", "--member", "1"), "`member` trains one model alone"),
        ("ppo", ("--ensemble_reduction", "min"), "no reward is one"),
        ("ppo", ("--disagreement_coef", "-1"), "disagreement_coef is -1.0; it cannot be negative"),
    ],
)
def test_what_is_refused(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], stage: str, words: tuple[str, ...], why: str
) -> None:
    from tests.tiny import make_classifier

    reward = pipeline.root.parent / "one"
    make_classifier(reward)
    more = ("--reward", str(reward)) if stage == "ppo" else ()
    assert pipeline.stage(stage, "--model", base(pipeline), *words, *more) == 2
    assert why in capsys.readouterr().err


def test_an_ensemble_is_no_start(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.make("reward", "--model", base(pipeline), "--ensemble_size", "2")
    assert pipeline.stage("reward", "--model", "reward", "--seed", "7") == 2
    assert "is an ensemble, and one model is needed; name reward-" in capsys.readouterr().err


def test_heads_go_on_from_as_many_heads_only(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.make("reward", "--model", base(pipeline), *HEADS)
    first = pipeline.refs()["reward"]
    assert pipeline.stage("reward", "--model", first) == 2
    assert "a reward model with 3 heads, and 1 are asked for" in capsys.readouterr().err
    pipeline.make("reward", "--model", first, *HEADS)
    assert pipeline.refs()["reward"] != first


def test_members_with_scales_of_their_own_are_joined(tmp_path: Path) -> None:
    """Any reward models may be members: joined from folders, each keeps its offset and scale."""
    from rlhf_pipeline.artifacts import import_folder
    from rlhf_pipeline.artifacts.ensemble import join
    from tests.tiny import make_classifier

    store = Store(tmp_path / "store")
    for seed in (0, 1):
        make_classifier(tmp_path / str(seed), seed=seed, reward_offset=float(seed), reward_scale=2.0)
    names = [import_folder(store, tmp_path / str(seed)) for seed in (0, 1)]
    join(store, names, "default", "reward")
    reward = load(Pipeline(store.root, tmp_path))
    assert isinstance(reward.model, Members)
    with torch.no_grad():
        raw = torch.cat([network(input_ids=torch.tensor([ROWS[0]])).logits for network in reward.networks], dim=1)
    expected = (raw - torch.tensor([0.0, 1.0])) / 2
    torch.testing.assert_close(reward.member_scores(ROWS[:1]), expected, atol=1e-5, rtol=1e-4)
