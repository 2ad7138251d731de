"""Models, tokenizers, rewards and recipes that fit, and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.config import Setting
from rlhf_pipeline.launch.doctor.findings import Finding
from rlhf_pipeline.launch.doctor.model_fit import check_models
from rlhf_pipeline.launch.doctor.settings import DoctorSettings
from tests.tiny import make_classifier, make_llama, make_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_llama(tmp_path / "base")
    return tmp_path / "base"


def check(base: Path, reward: Path | str = "", **recipe: Any) -> dict[str, Finding]:
    settings = DoctorSettings(model=str(base), reward=str(reward), artifacts=str(base.parent / "artifacts"))
    given = {name: Setting(name, value, f"ppo.yaml:{line}") for line, (name, value) in enumerate(recipe.items(), 1)}
    return {finding.check: finding for finding in check_models(settings, given)}


def change(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_fitting(base: Path, tmp_path: Path) -> None:
    make_classifier(tmp_path / "judge")
    found = check(base, tmp_path / "judge", max_completion_length=64, max_prompt_tokens=64)
    assert {finding.status for finding in found.values()} == {"pass"}
    assert found["model"].seen == f"{base}: LlamaForCausalLM"
    assert found["vocabulary"].seen == "258 ids in 258 rows"
    assert found["special tokens"].seen == "pad '<pad>', EOS '<eos>'"
    assert found["positions"].seen == "128"
    assert found["reward"].seen.endswith("one score a sequence, with the policy's tokenizer")


def test_no_model(tmp_path: Path) -> None:
    found = check(tmp_path / "absent")
    assert found["model"].status == "fail" and "neither a folder, nor an artifact" in found["model"].seen


def test_no_causal_model(tmp_path: Path) -> None:
    make_classifier(tmp_path / "judge")
    assert "no causal language model" in check(tmp_path / "judge")["model"].seen


def test_no_sequence_classification(base: Path) -> None:
    change(base, model_type="bitnet", architectures=["BitNetForCausalLM"])
    found = check(base)["reward class"]
    assert found.status == "warn" and "no sequence-classification class for `bitnet`" in found.seen
    assert found.fix.startswith("start from another checkpoint")


def test_more_ids_than_rows(base: Path) -> None:
    change(base, vocab_size=250)
    found = check(base)["vocabulary"]
    assert (found.status, found.seen) == ("warn", "the tokenizer has ids up to 257, the embeddings 250 rows")


def test_no_pad_token(base: Path) -> None:
    make_tokenizer(("<eos>",), pad_token="<eos>").save_pretrained(base)
    found = check(base)["special tokens"]
    assert found.status == "warn" and "no pad token apart from EOS '<eos>'" in found.seen


def test_no_eos_token(base: Path) -> None:
    make_tokenizer(("<pad>",), eos_token=None).save_pretrained(base)
    found = check(base)["special tokens"]
    assert found.status == "fail" and found.seen.startswith("the tokenizer has no EOS token")


@pytest.mark.parametrize(
    "recipe",
    [{"max_length": 129}, {"max_completion_length": 128}, {"max_completion_length": 100, "max_prompt_tokens": 29}],
)
def test_rows_longer_than_the_model_takes(base: Path, recipe: dict[str, int]) -> None:
    found = check(base, **recipe)["positions"]
    assert (found.status, found.seen) == ("fail", "ppo.yaml:1: rows of 129 tokens, and the model has 128 positions")
    assert found.fix == f"lower `{next(iter(recipe))}`"


def test_reward_that_gives_no_score(base: Path) -> None:
    found = check(base, base)["reward"]
    assert found.status == "fail" and "gives no score" in found.seen


def test_reward_with_another_tokenizer(base: Path, tmp_path: Path) -> None:
    make_classifier(tmp_path / "judge", vocab_size=259)
    make_tokenizer(("<pad>", "<eos>", "<more>")).save_pretrained(tmp_path / "judge")
    assert check(base, tmp_path / "judge")["reward"].seen.endswith("completions are tokenised again")
