"""A reward model's score is that of one sequence alone, whatever shares its batch."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.scoring import RewardModel, same_tokenizer
from rlhf_pipeline.tokenization import PLAIN_TEMPLATE
from tests.tiny import CHAT_TEMPLATE, make_classifier, make_tokenizer

PROMPTS = ["Q: a", "Q: a longer one", "x"]
COMPLETIONS = [" yes", " n", " perhaps, who knows"]
FINISHED = [True, False, True]
EOS = 1


@pytest.fixture(scope="module")
def reward() -> RewardModel:
    return RewardModel(make_classifier(), make_tokenizer(), "tiny")


def alone(reward: RewardModel, ids: list[int]) -> torch.Tensor:
    """The score by the definition: the head at the last token of one unpadded row."""
    with torch.no_grad():
        states = reward.model.model(torch.tensor([ids])).last_hidden_state
        return reward.model.score(states)[0, -1, 0]


def test_encodes_prompt_and_completion(reward: RewardModel) -> None:
    assert reward.encode("a", "b", True) == [66, 67, EOS]
    assert reward.encode("a", "b", False) == [66, 67]


def test_scores_are_those_of_each_row_alone(reward: RewardModel) -> None:
    scores = reward.score(PROMPTS, COMPLETIONS, FINISHED)
    rows = [reward.encode(*row) for row in zip(PROMPTS, COMPLETIONS, FINISHED, strict=True)]
    assert scores.dtype == torch.float32 and scores.shape == (3,)
    torch.testing.assert_close(scores, torch.stack([alone(reward, row) for row in rows]))
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batch_size_and_order_change_nothing(reward: RewardModel, batch_size: int) -> None:
    other = RewardModel(reward.model, reward.tokenizer, "tiny", batch_size)
    forward = other.score(PROMPTS, COMPLETIONS, FINISHED)
    backward = other.score(PROMPTS[::-1], COMPLETIONS[::-1], FINISHED[::-1])
    torch.testing.assert_close(forward, reward.score(PROMPTS, COMPLETIONS, FINISHED))
    torch.testing.assert_close(backward.flip(0), forward)


def test_eos_changes_the_score(reward: RewardModel) -> None:
    ended, cut_off = reward.score(["Q"] * 2, [" yes"] * 2, [True, False])
    assert ended != cut_off


def test_ids_as_sampled_are_used_as_they_are(reward: RewardModel) -> None:
    """Ids that no text would be encoded to: `yes` and then EOS in the middle."""
    sampled = [[90, EOS, 70]]
    scores = reward.score(["a"], ["ignored"], [False], completion_ids=sampled)
    torch.testing.assert_close(scores[0], alone(reward, [66, 90, EOS, 70]))


def test_messages_go_through_its_own_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    reward = RewardModel(make_classifier(), tokenizer, "tiny")
    ids = reward.encode([{"role": "user", "content": "hi"}], "yo", True)
    assert tokenizer.decode(ids) == "<user>hi<assistant>yo<eos>"


def test_rows_longer_than_the_model_are_refused_before_any_is_scored(reward: RewardModel) -> None:
    assert reward.positions == 128
    assert reward.score_ids([[2] * 128]).shape == (1,)
    with pytest.raises(ModelError, match="tiny: a text of 129 tokens in its tokenizer, more than its 128 positions"):
        reward.score(["x"], ["y" * 128], [False])


def test_nothing_to_score(reward: RewardModel) -> None:
    assert reward.score([], [], []).shape == (0,)


def test_lists_of_different_length_are_a_mistake(reward: RewardModel) -> None:
    with pytest.raises(ValueError, match="zip"):
        reward.score(PROMPTS, COMPLETIONS[:2], FINISHED)


def other_tokenizer(difference: str) -> PreTrainedTokenizerFast:
    if difference == "vocabulary":
        return make_tokenizer(("<pad>", "<eos>", "<more>"))
    if difference == "eos":
        return make_tokenizer(eos_token="<pad>")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("difference", ["vocabulary", "eos", "template"])
def test_tokenizers_differ(difference: str) -> None:
    assert same_tokenizer(make_tokenizer(), make_tokenizer())
    assert not same_tokenizer(make_tokenizer(), other_tokenizer(difference))
