"""Rewards by name, and that a reward model sees exactly the ids the policy sampled: EOS if and only if it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.encoding import encode_completion
from rlhf_pipeline.errors import ConfigError, ModelError, TrainingError
from rlhf_pipeline.rewards import find_reward, function_reward, load_reward_model, model_reward
from tests.spying import scored_rows
from tests.tiny import make_classifier, make_tokenizer
from tests.vocabularies import vocabulary

EOS = 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


def load(store: Store, folder: Path) -> Any:
    checkpoint = find_reward(store, str(folder), "default").checkpoint
    assert checkpoint is not None
    return load_reward_model(store, checkpoint.kept_in(store), "cpu")


def test_the_policys_own_ids_are_scored_with_eos_only_where_it_was_sampled(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classifier(tmp_path / "reward")
    model = load(store, tmp_path / "reward")
    tokenizer = load(store, tmp_path / "reward").tokenizer
    rows = scored_rows(monkeypatch)
    prompt, good, cut = (tokenizer(text)["input_ids"] for text in ("ask", "good", "cut of"))
    scores = model_reward(model, tokenizer, {EOS})(
        prompts=["ask", "ask"], completions=["good", "cut of"], completion_ids=[[*good, EOS], cut]
    )
    assert sorted(rows) == sorted([[*prompt, *good, EOS], [*prompt, *cut]])
    expected = model.model(torch.tensor([[*prompt, *good, EOS]])).logits.item()
    assert scores[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_any_stop_token_is_the_eos_that_the_reward_model_was_trained_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classifier(tmp_path / "reward")
    model = load(store, tmp_path / "reward")
    rows = scored_rows(monkeypatch)
    prompt, good = (model.tokenizer(text)["input_ids"] for text in ("ask", "good"))
    model_reward(model, model.tokenizer, {EOS, 7})(prompts=["ask"], completions=["good"], completion_ids=[[*good, 7]])
    assert rows == [[*prompt, *good, EOS]]


def test_another_tokenizer_gets_the_text_with_eos_by_its_own_rules(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy's stop, `!`, is a plain token to its tokenizer: no part of the text all the same."""
    make_classifier(tmp_path / "reward")
    model = load(store, tmp_path / "reward")
    other = make_tokenizer(("<pad>", "<more>", "<eos>"))
    rows = scored_rows(monkeypatch)
    stop = other.convert_tokens_to_ids("!")
    sampled = [[*other("ab")["input_ids"], stop], other("cd")["input_ids"], other("ef<eos>")["input_ids"]]
    model_reward(model, other, {stop, other.eos_token_id})(
        prompts=["ask"] * 3, completions=["ab!", "cd", "ef"], completion_ids=sampled
    )
    text = [model.tokenizer(text)["input_ids"] for text in ("askab", "askcd", "askef")]
    assert sorted(rows) == sorted([[*text[0], EOS], text[1], [*text[2], EOS]])


def test_a_function_is_found_by_file_and_by_module_and_hashed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scorer.py").write_text("def score(prompts, completions, **_):\n    return [2.0] * len(completions)\n")
    by_file = find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default")
    monkeypatch.syspath_prepend(tmp_path)
    by_module = find_reward(store, "scorer:score", "default")
    assert by_file.fingerprint == by_module.fingerprint
    assert by_file.fingerprint.startswith("sha256:")
    (tmp_path / "scorer.py").write_text("def score(**_):\n    return []\n")
    assert find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default").fingerprint != by_file.fingerprint


def test_a_function_sees_facts_and_which_completions_ended(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text(
        "def score(prompts, completions, completion_ids, finished, facts):\n"
        "    return [fact['weight'] * end for fact, end in zip(facts, finished)]\n"
    )
    reward = function_reward(
        find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default"), make_tokenizer(), {EOS, 7}
    )
    given = {"facts": ['{"weight": 2.0}'] * 3, "trainer_state": None}
    assert reward(prompts=["p"] * 3, completions=["c"] * 3, completion_ids=[[5, EOS], [5, 7], [5]], **given) == [
        2,
        2,
        0,
    ]
    assert reward.__name__ == "score"


def test_a_function_sees_the_text_that_goes_on_after_its_prompt(store: Store, tmp_path: Path) -> None:
    """TRL decodes ids alone, and some tokenizers drop the blank that they begin with; messages stay as they are."""
    (tmp_path / "scorer.py").write_text(
        "def score(prompts, completions, **_):\n    return [float(text == ' cat') for text in completions]\n"
    )
    pieces = vocabulary("pieces")
    reward = function_reward(find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default"), pieces, {EOS})
    ids = [encode_completion(pieces, "the", text, finished=False) for text in (" cat", "cat")]
    texts = [pieces.decode(some) for some in ids]
    assert texts == ["cat", "cat"]
    assert reward(prompts=["the"] * 2, completions=texts, completion_ids=ids, facts=["{}"] * 2) == [1, 0]
    answer = [[{"role": "assistant", "content": "cat"}]]
    assert reward(prompts=[answer], completions=answer, completion_ids=[ids[0]], facts=["{}"]) == [0]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def score(:\n", "scorer.py:1: invalid syntax"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(store: Store, tmp_path: Path, source: str, why: str) -> None:
    (tmp_path / "scorer.py").write_text(source)
    with pytest.raises(ConfigError, match=why):
        find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default")


def test_a_function_gives_one_score_a_completion(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text("def score(**_):\n    return [0.0]\n")
    reward = function_reward(find_reward(store, f"{tmp_path / 'scorer.py'}:score", "default"), make_tokenizer(), {EOS})
    with pytest.raises(TrainingError, match="score gave 1 scores for 2 completions"):
        reward(prompts=["p"] * 2, completions=["c"] * 2, completion_ids=[[5], [5]], facts=["{}"] * 2)


@pytest.mark.parametrize("text", ["no/file.py:score", "no_such_package.module:score"])
def test_a_function_that_is_not_there_is_refused(store: Store, text: str) -> None:
    with pytest.raises(ConfigError, match="reward: "):
        find_reward(store, text, "default")


def test_two_labels_are_refused(store: Store, tmp_path: Path) -> None:
    make_classifier(tmp_path / "two", num_labels=2)
    with pytest.raises(ModelError, match="2 labels"):
        load(store, tmp_path / "two")


def test_a_tokenizer_that_cannot_pad_is_refused(store: Store, tmp_path: Path) -> None:
    make_classifier(tmp_path / "reward")
    make_tokenizer(pad_token=None).save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match="no pad token"):
        load(store, tmp_path / "reward")
