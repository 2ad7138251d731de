"""The PPO stage from its command line: what it publishes, what it refuses, and going on after a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.errors import ConfigError, DataError, TrainingError
from rlhf_pipeline.stages import ppo
from tests.tiny import make_classifier, make_llama

FUNCTIONS = """
import os

calls = 0

def letters(prompts, completions, finished, facts, **_):
    assert len(prompts) == len(completions) == len(finished) == len(facts)
    return [sum(text.encode()) % 17 / 4 + fact["bonus"] for text, fact in zip(completions, facts)]

def fragile(completions, **_):
    global calls
    calls += 1
    if calls == int(os.environ.get("FAIL_AT_CALL", "0")):
        raise InterruptedError("pulled the plug")
    return [sum(text.encode()) % 17 / 4 for text in completions]
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy, a reward model, reward functions and forty prompts."""
    monkeypatch.chdir(tmp_path)
    make_llama(tmp_path / "sft")
    make_classifier(tmp_path / "reward")
    (tmp_path / "rewards.py").write_text(FUNCTIONS)
    rows = [{"prompt": f"{i} hello {'x' * (i % 5)}", "facts": {"bonus": 1.0}} for i in range(40)]
    write_rows(tmp_path / "prompts.jsonl", rows)
    return tmp_path


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(world: Path, *more: str, store: str = "artifacts", **changes: Any) -> list[str]:
    settings = {
        "artifacts": world / store, "model": world / "sft", "reward": world / "reward", "data": world / "prompts.jsonl",
        "max_completion_length": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
        "steps_per_generation": 2, "learning_rate": "1e-3", "max_steps": 4, "eval_fraction": 0.2,
    }  # fmt: skip
    return [word for name, value in {**settings, **changes}.items() for word in (f"--{name}", str(value))] + [*more]


def published(world: Path, store: str = "artifacts") -> dict[str, str]:
    refs: dict[str, str] = Store(world / store).refs()["default"]
    return refs


def test_it_publishes_two_plain_models_and_then_is_answered(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ppo.main(command(world)) == 0
    store, refs = Store(world / "artifacts"), published(world)
    assert refs.keys() == {"policy", "critic"}
    policy, critic = (store.path(refs[role]) for role in ("policy", "critic"))
    assert AutoModelForCausalLM.from_pretrained(policy).num_parameters() == make_llama().num_parameters()
    assert AutoModelForSequenceClassification.from_pretrained(critic).config.num_labels == 1
    assert AutoTokenizer.from_pretrained(policy).eos_token == AutoTokenizer.from_pretrained(critic).eos_token == "<eos>"
    assert not [path.name for path in [*policy.iterdir(), *critic.iterdir()] if path.suffix in (".bin", ".md")]

    manifest = store.manifest(refs["policy"])
    assert manifest.parents.keys() == {"start", "reward"}
    assert {"eval_ppo/score", "eval_ppo/score_ci95", "eval_ppo/kl_nats", "held_out_examples"} <= manifest.metrics.keys()
    assert manifest.config["kl_coef"] == 0.05
    out = capsys.readouterr().out
    assert "8 completions a rollout" in out
    assert "the critic starts from base-" in out
    assert "ppo 4/4  score " in out
    assert "held out: score " in out

    assert ppo.main(command(world)) == 0
    assert "already answered" in capsys.readouterr().out


def test_functions_and_models_are_summed_by_weight(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = [str(world / "rewards.py:letters"), str(world / "reward")]
    argv = command(world, "--reward_weights", "2", "0", "--critic", "policy", reward=" ")
    at = argv.index("--reward")
    ppo.main([*argv[: at + 1], *rewards, *argv[at + 2 :]])
    manifest = Store(world / "artifacts").manifest(published(world)["policy"])
    assert manifest.data["reward:letters"].startswith("sha256:")
    assert manifest.metrics["eval_ppo/score"] >= 2
    assert "head of zeros" in capsys.readouterr().out


def test_after_a_failure_the_same_command_ends_in_the_same_bits(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An object's id is the hash of its content, so equal ids are equal weights; 10 steps run over an epoch's end."""
    long_run = {"reward": "rewards.py:fragile", "max_steps": 10, "save_steps": 2}
    ppo.main(command(world, store="unbroken", **long_run))
    monkeypatch.setenv("FAIL_AT_CALL", "4")
    with pytest.raises(InterruptedError):
        ppo.main(command(world, **long_run))
    assert "default" not in Store(world / "artifacts").refs()
    monkeypatch.delenv("FAIL_AT_CALL")
    capsys.readouterr()
    ppo.main(command(world, **long_run))
    assert "going on from" in capsys.readouterr().out
    assert published(world) == published(world, "unbroken")
    lines = (world / "artifacts/runs/default/ppo").glob("*/metrics.jsonl")
    steps = [json.loads(line)["step"] for line in next(iter(lines)).read_text().splitlines()]
    assert steps == sorted(steps)


def test_lora_publishes_an_adapter_that_names_its_base_by_id(world: Path) -> None:
    ppo.main(command(world, "--use_peft", "--lora_target_modules", "q_proj", "v_proj", learning_rate="1e-2"))
    store, refs = Store(world / "artifacts"), published(world)
    adapter = json.loads((store.path(refs["policy"]) / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == store.manifest(refs["policy"]).parents["start"]
    critic = json.loads((store.path(refs["critic"]) / "adapter_config.json").read_text())
    assert critic["base_model_name_or_path"] == adapter["base_model_name_or_path"], "one base carries both"
    assert critic["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.1}, "--beta: `beta` cannot be set in PPO: .*set `kl_coef`"),
        ({"kl_coeff": 0.1}, "did you mean `kl_coef`"),
        ({"max_steps": 3}, "set max_steps to 4"),
        ({"reward": "rewards.py:lettres"}, "has no function `lettres`"),
        ({"reward": "nowhere.py:f"}, "there is no file nowhere.py"),
        ({"max_completion_length": 128}, "leaves no room for a prompt"),
        ({"per_device_train_batch_size": 64}, "prompts do not fill a rollout of 128"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_published(world: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ppo.main(command(world, **change))
    assert Store(world / "artifacts").refs() == {}


def test_long_prompts_are_refused_or_set_aside(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (world / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "y" * 30, "facts": {"bonus": 0.0}}) + "\n")
    with pytest.raises(DataError, match=r"prompts.jsonl:41: 30 tokens, more than the 20 that fit"):
        ppo.main(command(world, max_prompt_tokens=20))
    ppo.main(command(world, max_prompt_tokens=20, on_long_row="skip", max_steps=2))
    assert "rows_long 1" in capsys.readouterr().out


def test_messages_and_plain_text_do_not_mix(world: Path) -> None:
    messages = [{"role": "user", "content": "hello"}]
    write_rows(world / "prompts.jsonl", [{"prompt": "a"}, {"prompt": messages}] * 20)
    with pytest.raises(DataError, match="plain text and messages"):
        ppo.main(command(world))


def test_a_conversation_goes_through_the_chat_template(world: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"hello {i}"}], "facts": {"bonus": 0.0}} for i in range(20)]
    write_rows(world / "prompts.jsonl", rows)
    ppo.main(command(world, max_steps=2))
    assert published(world).keys() == {"policy", "critic"}


# ---- What is asked for by name ----


def test_a_preset_stands_below_what_is_asked(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppo.main(command(world, "--preset", "tldr", max_steps=8))
    config = Store(world / "artifacts").manifest(published(world)["policy"]).config
    assert [config[name] for name in ("kl_coef", "num_iterations", "missing_eos_score")] == [0.05, 4, -1.0]
    assert config["max_completion_length"] == 6
    out = capsys.readouterr().out
    assert "preset tldr (Huang et al. 2024): learning_rate 3e-06" in out
    assert "left out: a million episodes" in out


def test_pretraining_text_and_a_moving_average(world: Path) -> None:
    write_rows(world / "text.jsonl", [{"text": f"the number {i} and some more words {'y' * i}"} for i in range(20)])
    more = ("--ptx_data", str(world / "text.jsonl"), "--preset", "instructgpt")
    ppo.main(command(world, *more))
    store, refs = Store(world / "artifacts"), published(world)
    manifest = store.manifest(refs["policy"])
    assert manifest.data.keys() == {"prompts", "ptx"}
    assert manifest.config["ptx_coef"] == 27.8
    lines = next((world / "artifacts/runs/default/ppo").glob("*/metrics.jsonl")).read_text().splitlines()
    assert json.loads(lines[0])["ppo/ptx_loss"] > 0
    ppo.main(command(world, *more, ema_decay="0.5", store="other"))
    again = published(world, "other")
    weights = [
        [files.manifest(names[role]).files["model.safetensors"] for role in ("policy", "critic")]
        for files, names in ((store, refs), (Store(world / "other"), again))
    ]
    assert weights[0][0] != weights[1][0]
    assert weights[0][1] == weights[1][1], "the average is of the policy alone"


def test_text_without_a_coefficient_is_refused(world: Path) -> None:
    write_rows(world / "text.jsonl", [{"text": "some words"}])
    with pytest.raises(ConfigError, match="ptx_coef and ptx_data belong together"):
        ppo.main(command(world, "--ptx_data", str(world / "text.jsonl")))


def test_another_chat_template_is_noticed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(world / "reward")
    tokenizer.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    tokenizer.save_pretrained(world / "reward")
    ppo.main(command(world))
    assert "have the same vocabulary but another chat template" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="guard `template`"):
        ppo.main(command(world, "--guards", "template=stop", "--force"))
