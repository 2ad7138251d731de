"""Scores of rankings by reward models with different vocabularies: by token ids, EOS only where an answer ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import find_checkpoint
from rlhf_pipeline.errors import DataError, ModelError
from rlhf_pipeline.evaluate.reward.scored import load, probe_eos, score_all, too_long
from rlhf_pipeline.scoring import RewardModel
from tests.evaluate.reward.rankings import pairs_of, ranking
from tests.spying import scored_rows
from tests.vocabularies import rendered, save_reward

QUESTION = [{"role": "user", "content": "hello there , how are you ?"}]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids that reach the forward pass, without padding."""
    return scored_rows(monkeypatch)


def loaded(tmp_path: Path, kind: str, **changes: Any) -> RewardModel:
    save_reward(tmp_path / kind, kind, **changes)
    store = Store(tmp_path / "artifacts")
    return load(store, find_checkpoint(store, str(tmp_path / kind), "default"), 2)


@pytest.mark.parametrize("kind", ["bytes", "bpe", "words"])
def test_every_answer_is_scored_once_in_the_models_own_form(tmp_path: Path, kind: str, rows: list[list[int]]) -> None:
    model = loaded(tmp_path, kind)
    texts, ended = ["the cat", "the dog sat", "the mat"], [True, False, True]
    pairs = pairs_of(
        ranking(QUESTION, texts, finished=ended, labeler="ann"),
        ranking(QUESTION, texts[:2], [1, 0], finished=ended[:2], labeler="bob"),
    )
    scores = score_all(model, pairs, ["a:1", "a:2"])
    prompt = QUESTION[0]["content"]
    expected = [
        model.tokenizer(rendered(kind, prompt, text), add_special_tokens=False)["input_ids"]
        + [model.tokenizer.eos_token_id] * end
        for text, end in zip(texts, ended, strict=True)
    ]
    assert sorted(rows) == sorted(expected)
    with torch.no_grad():
        alone = [float(model.model(input_ids=torch.tensor([row])).logits) for row in expected]
    assert scores == pytest.approx(alone, abs=1e-5)


def test_normalisation_is_applied_once(tmp_path: Path) -> None:
    pairs = pairs_of(ranking("p", ["a", "b"]))
    plain = score_all(loaded(tmp_path, "bytes"), pairs, ["a:1"])
    shifted = score_all(loaded(tmp_path, "bytes", reward_offset=0.5, reward_scale=4.0), pairs, ["a:1"])
    assert shifted == pytest.approx((plain - 0.5) / 4, abs=1e-6)


def test_eos_is_put_and_taken_whatever_the_data_says(tmp_path: Path, rows: list[list[int]]) -> None:
    model = loaded(tmp_path, "bytes")
    found = probe_eos(model, pairs_of(ranking("p", ["a", "b"], finished=[True, False])), ["a:1"])
    prompt, a, b = (model.tokenizer(text)["input_ids"] for text in ("p", "a", "b"))
    eos = [model.tokenizer.eos_token_id]
    assert sorted(rows) == sorted([prompt, prompt, *(prompt + x + end for x in (a, b) for end in (eos, []))])
    with torch.no_grad():
        ended, cut_off, alone = (
            np.mean([float(model.model(input_ids=torch.tensor([row])).logits) for row in several])
            for several in ([prompt + a + eos, prompt + b + eos], [prompt + a, prompt + b], [prompt])
        )
    means = [found[form]["mean"] for form in ("with_eos", "without_eos", "prompt_alone")]
    assert means == pytest.approx([ended, cut_off, alone], abs=1e-4)


def test_an_eos_that_has_no_room_is_left_out(tmp_path: Path) -> None:
    model = loaded(tmp_path, "bytes", max_position_embeddings=6)
    found = probe_eos(model, pairs_of(ranking("p", ["a" * 5, "b"], finished=[False, True])), ["a:1"])
    assert found["with_eos"]["n"] == found["without_eos"]["n"] == 1


def test_a_ranking_too_long_for_one_model_is_refused_or_skipped(tmp_path: Path) -> None:
    models = [loaded(tmp_path, "words"), loaded(tmp_path, "bytes", max_position_embeddings=12)]
    rankings = [ranking("p", ["a", "b"]), ranking("p", ["a" * 12, "b"])]
    places = ["x.jsonl:1", "x.jsonl:2"]
    with pytest.raises(DataError, match=r"x.jsonl:2: 14 tokens, more than the 12 that base-.* takes"):
        too_long(models, rankings, places, "error")
    assert too_long(models, rankings, places, "skip") == {1}
    assert too_long(models[:1], rankings, places, "error") == set()


def test_messages_that_a_template_refuses_name_their_place(tmp_path: Path) -> None:
    model = loaded(tmp_path, "bytes")
    model.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="x.jsonl:1: the chat template refuses these messages .roles must alternate"):
        too_long([model], [ranking(QUESTION, ["a", "b"])], ["x.jsonl:1"], "skip")
