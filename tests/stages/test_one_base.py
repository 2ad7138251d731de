"""From the command line: SFT, reward model and PPO as adapters over one base, and the plain variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.command import main as artifacts
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.stages import ppo, reward, sft
from tests.e2e.pipeline import TINY, write_rows
from tests.tiny import make_llama

LORA = ("--use_peft", "--lora_target_modules", "q_proj", "v_proj", "--lora_r", "4")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_llama(tmp_path / "base")
    return write_rows(tmp_path / "rows")


def stage(name: str, rows: Path, *more: str) -> None:
    """Run one stage on its rows."""
    module, file = {"sft": (sft, "demonstrations"), "reward": (reward, "rankings"), "ppo": (ppo, "prompts")}[name]
    tiny = zip(TINY[name][::2], TINY[name][1::2], strict=True)
    usual = [word for flag, value in tiny if flag not in more for word in (flag, value)]
    module.main([*usual, "--data", str(rows / f"{file}.jsonl"), *more])


def base_of(name: str) -> str:
    """The base that an adapter of the run names."""
    store = Store("artifacts")
    folder = store.path(store.refs()["default"][name])
    return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])


def test_an_sft_adapter_carries_a_reward_model_and_ppo_over_its_own_base(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage("sft", rows, "--base", "./base", *LORA)
    stage("reward", rows)
    assert base_of("reward") == base_of("sft")
    stage("ppo", rows)
    out = capsys.readouterr().out
    assert "shares the policy's base" in out
    assert "an adapter over the policy's base" in out
    assert base_of("policy") == base_of("critic") == base_of("sft")
    folder = Store("artifacts").path(Store("artifacts").refs()["default"]["policy"])
    assert not [path for path in folder.iterdir() if path.is_dir()], "one adapter, not those that shared its base"
    stage("ppo", rows, "--model", "policy", "--max_steps", "4")
    assert base_of("policy") == base_of("sft")


def test_demonstrations_score_zero_on_average(rows: Path) -> None:
    """An adapter has the offset in the config.json beside it, a full model in its own; both are applied once."""
    demonstrations = str(rows / "demonstrations.jsonl")
    for more in (("--model", "./base", "--run", "full"), ("--model", "./base", "--run", "lora", *LORA)):
        stage("reward", rows, "--normalize_on", demonstrations, *more)
        run = more[3]
        store = Store("artifacts")
        folder = store.path(store.refs()[run]["reward"])
        offset = json.loads((folder / "config.json").read_text())["reward_offset"]
        assert offset == pytest.approx(store.manifest(store.refs()[run]["reward"]).metrics["reward_offset"])
        assert abs(offset) > 1e-4
        assert _mean_score(store, run, rows) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("more", [(), LORA], ids=["full", "lora"])
def test_a_critic_starts_with_the_zero_and_weight_of_its_reward(rows: Path, more: tuple[str, ...]) -> None:
    stage("reward", rows, "--normalize_on", str(rows / "demonstrations.jsonl"), "--model", "./base", *more)
    stage("ppo", rows, "--model", "./base", *more, "--reward_weights", "2", "--learning_rate", "0")
    store = Store("artifacts")
    reward, critic = (store.path(store.refs()["default"][name]) for name in ("reward", "critic"))
    offsets = [json.loads((folder / "config.json").read_text())["reward_offset"] for folder in (reward, critic)]
    assert offsets[0] != 0 and offsets[1] == pytest.approx(2 * offsets[0])
    heads = [
        next(weight for name, weight in load_file(next(folder.glob("*.safetensors"))).items() if "score" in name)
        for folder in (reward, critic)
    ]
    torch.testing.assert_close(heads[1], 2 * heads[0])


def test_an_adapter_with_whole_modules_is_refused(rows: Path) -> None:
    stage("reward", rows, "--model", "./base")
    with pytest.raises(ConfigError, match="modules_to_save.*would move with the policy"):
        stage("ppo", rows, "--model", "./base", *LORA, "--lora_modules_to_save", "lm_head")


def _mean_score(store: Store, run: str, rows: Path) -> float:
    from rlhf_pipeline.data.sources import read
    from rlhf_pipeline.records import Demonstration
    from rlhf_pipeline.rewards import find_reward, load_reward_model

    checkpoint = find_reward(store, "reward", run).checkpoint
    assert checkpoint is not None
    model = load_reward_model(store, checkpoint, "cpu")
    records = read(str(rows / "demonstrations.jsonl"), Demonstration).records
    scores = model.score([r.prompt for r in records], [r.completion for r in records], [True] * len(records))
    return float(scores.mean())


def test_demonstrations_score_zero_also_where_nothing_was_held_out(rows: Path) -> None:
    demonstrations = str(rows / "demonstrations.jsonl")
    stage("reward", rows, "--normalize_on", demonstrations, "--model", "./base", "--eval_fraction", "0")
    assert _mean_score(Store("artifacts"), "default", rows) == pytest.approx(0.0, abs=1e-5)


def test_a_new_training_forgets_the_offset_of_the_old_one(rows: Path) -> None:
    stage("reward", rows, "--model", "./base", "--normalize_on", str(rows / "demonstrations.jsonl"))
    stage("reward", rows, "--run", "again", "--model", "default/reward")
    store = Store("artifacts")
    config = json.loads((store.path(store.refs()["again"]["reward"]) / "config.json").read_text())
    assert config["reward_offset"] == 0.0


def test_a_lora_policy_beside_a_full_reward_model(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plain variants: the critic is an adapter over the policy's base, or whole and from the reward model."""
    stage("reward", rows, "--model", "./base")
    stage("ppo", rows, "--model", "./base", *LORA)
    assert "the critic is an adapter over the base of base-" in capsys.readouterr().out
    assert base_of("critic") == base_of("policy")
    stage("ppo", rows, "--model", "./base", *LORA, "--critic", "reward", "--run", "whole", "--reward", "default/reward")
    store = Store("artifacts")
    assert (store.path(store.refs()["whole"]["critic"]) / "model.safetensors").is_file()


def test_the_policy_merges_into_a_full_model_that_says_the_same(rows: Path) -> None:
    stage("sft", rows, "--base", "./base", *LORA)
    stage("reward", rows)
    stage("ppo", rows, "--learning_rate", "3e-2", "--max_steps", "4")
    artifacts(["merge", "policy", "--run", "default"])
    store = Store("artifacts")
    refs = store.refs()["default"]
    merged = AutoModelForCausalLM.from_pretrained(store.path(refs["policy-merged"]))
    critic = AutoPeftModelForSequenceClassification.from_pretrained(
        _with_base_here(store, refs["critic"]), num_labels=1
    )
    ids = torch.tensor([AutoTokenizer.from_pretrained(store.path(refs["policy"]))("Is 3 a big number?")["input_ids"]])
    assert merged(ids).logits.isfinite().all()
    assert critic(ids).logits.shape == (1, 1)


def _with_base_here(store: Store, name: str) -> str:
    """A copy of an adapter that names its base by its place instead of its id, as plain peft reads it."""
    import shutil

    shutil.copytree(store.path(name), "adapter")
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(store.path(config["base_model_name_or_path"]))
    Path("adapter/adapter_config.json").write_text(json.dumps(config))
    return "adapter"


def test_a_second_adapter_on_top_is_refused(rows: Path) -> None:
    stage("sft", rows, "--base", "./base", *LORA)
    with pytest.raises(ConfigError, match="is a LoRA adapter, and the stage goes on with it"):
        stage("reward", rows, *LORA)
