"""The meter against sums by hand, what begins stories, and a contestant that really trains, all on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import LlamaForSequenceClassification

from benchmarks.learning import contestant_ours, prepare
from benchmarks.learning import sentiment as words
from benchmarks.learning.measure import Meter, load_policy, reward_of, summed_logprobs
from benchmarks.learning.sentiment import sentiment
from benchmarks.learning.task import to_arguments
from tests.benchmarks.learning_runs import LETTERS, TINY, make_folder
from tests.tiny import make_llama, make_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "world", reward=True)


def test_log_probabilities_are_those_of_each_row_alone(folder: Path) -> None:
    model = load_policy(folder)
    prompts, completions = [[5, 6], [7, 8, 9, 10]], [[20, 21, 1], [30]]
    with torch.no_grad():
        found = summed_logprobs(model, prompts, completions, temperature=0.7)
        for n, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
            rows = log_softmax(logits[len(prompt) - 1 : -1] / 0.7, -1)
            assert float(found[n]) == pytest.approx(sum(float(rows[t, i]) for t, i in enumerate(completion)), abs=1e-4)


def test_an_untrained_policy_is_at_kl_zero_and_measures_the_same_twice(folder: Path) -> None:
    meter = Meter(load_policy(folder), folder, TINY, steps=1)
    before = torch.get_rng_state()
    first, second = meter.measure(), meter.measure()
    assert first == second
    assert first["kl_nats"] == 0.0
    assert 0 < first["completion_tokens"] <= TINY.completion_tokens
    assert torch.equal(torch.get_rng_state(), before)


def test_a_policy_that_moved_has_kl_and_another_reward(folder: Path) -> None:
    policy = load_policy(folder)
    policy.critic = torch.nn.Linear(2, 1)  # as ours carries one: no part of the policy
    meter = Meter(policy, folder, TINY, steps=1)
    at_rest = meter.measure()
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.5)  # type: ignore[union-attr, operator]
    moved = meter.measure()
    assert moved["kl_nats"] > 0.1
    assert moved["reward"] != at_rest["reward"]


def test_a_reward_model_reads_the_end_of_the_completion_wherever_it_is(folder: Path) -> None:
    tokenizer = make_tokenizer()
    model = LlamaForSequenceClassification.from_pretrained(folder / "reward").eval()
    rows = [([5, 6], [20, 21, 1]), ([7, 8, 9, 10], [30])]
    with torch.no_grad():
        found = reward_of(folder, tokenizer)([prompt for prompt, _ in rows], [completion for _, completion in rows])
        alone = [model.score(model.model(torch.tensor([p + c])).last_hidden_state[0, -1]) for p, c in rows]
    assert found.tolist() == pytest.approx([float(x) for x in alone], abs=1e-5)


def test_words_are_read_from_the_completion_alone(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    ids = [tokenizer(text)["input_ids"] for text in ("happy love", "she smiled")]
    assert reward_of(tmp_path, tokenizer)([ids[0]], [[*ids[1], 1]]).tolist() == [1.0] == [sentiment("smiled")]


@pytest.mark.parametrize("reward", [True, False], ids=["reward model", "words"])
def test_ours_learns_and_reports_a_point_an_update(
    reward: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "GLAD", LETTERS)
    make_folder(tmp_path / TINY.name, reward=reward)
    contestant_ours.main([*to_arguments(TINY, tmp_path), "--float32"])
    run = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [set(point) for point in run["points"]] == [{"reward", "kl_nats", "completion_tokens"}] * 3
    assert run["points"][0]["kl_nats"] == 0.0 < run["points"][2]["kl_nats"]
    assert run["mixed_precision"] == "no"


def test_beginnings_are_different_and_of_one_length_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PROMPT_TOKENS", 8)
    make_llama(tmp_path / "model")
    prepare.build_stories(tmp_path, tmp_path / "model")
    prompts = json.loads((tmp_path / "stories" / "prompts.json").read_text(encoding="utf-8"))
    texts = prompts["train"] + prompts["measured"]
    assert len(set(texts)) == len(texts)
    assert {len(make_tokenizer()(text)["input_ids"]) for text in texts} == {8}
    value = LlamaForSequenceClassification.from_pretrained(tmp_path / "stories" / "value")
    assert not value.score.weight.any()
    assert torch.equal(value.model.embed_tokens.weight, make_llama().model.embed_tokens.weight)
    made = (tmp_path / "stories" / "prompts.json").stat().st_mtime_ns
    prepare.build_stories(tmp_path, tmp_path / "model")
    assert (tmp_path / "stories" / "prompts.json").stat().st_mtime_ns == made
