"""The critic: where it reads the value of a state, how it starts, and that it survives a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BitNetConfig,
    BitNetForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.ppo.critic import HEAD_FILE, Critic
from rlhf_pipeline.ppo.packing import Packed, pack
from tests.tiny import make_classifier, make_llama

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
MASK = torch.ones_like(IDS)


def last(width: int) -> Packed:
    """The six tokens, of which the last `width` are the completion."""
    return pack(IDS, MASK, width)


@torch.no_grad()
def test_a_value_is_the_reward_models_score_of_the_text_before_the_token(tmp_path: Path) -> None:
    """Three completion tokens: their states end at positions 2, 3 and 4, one before each of them."""
    reward = make_classifier(tmp_path)
    values = Critic.from_reward(tmp_path)(last(3))
    scores = [reward(input_ids=IDS[:, :n], attention_mask=MASK[:, :n]).logits.item() for n in (3, 4, 5)]
    torch.testing.assert_close(values, torch.tensor(scores))


@torch.no_grad()
def test_first_values_are_normalised_as_the_scores_are_and_stay_so(tmp_path: Path) -> None:
    reward = make_classifier(tmp_path)
    scores = [reward(input_ids=IDS[:, :n], attention_mask=MASK[:, :n]).logits.item() for n in (3, 4, 5)]
    reward.config.update({"reward_offset": 3.0, "reward_scale": 2.0})
    reward.save_pretrained(tmp_path)
    critic = Critic.from_reward(tmp_path).scaled(0.5)
    expected = 0.5 * (torch.tensor(scores) - 3.0) / 2.0
    torch.testing.assert_close(critic(last(3)), expected)
    critic.save(tmp_path / "saved")
    torch.testing.assert_close(Critic.load(tmp_path / "saved")(last(3)), expected)
    other = Critic.from_reward(make_classifier(seed=7))
    other.resume(tmp_path / "saved")
    assert torch.equal(other(last(3)), critic(last(3)))


@torch.no_grad()
def test_a_critic_from_the_policy_starts_at_zero(tmp_path: Path) -> None:
    make_llama(tmp_path)
    assert Critic.from_policy(tmp_path)(last(3)).tolist() == [0.0, 0.0, 0.0]


@torch.no_grad()
def test_a_critic_from_heads_values_what_they_score_on_average(tmp_path: Path) -> None:
    reward = make_classifier(tmp_path / "heads", num_labels=3, reward_heads=3, reward_offset=[1.0, 2.0, 3.0])
    critic = Critic.from_reward(tmp_path / "heads")
    expected = [reward(input_ids=IDS[:, :n], attention_mask=MASK[:, :n]).logits.mean().item() for n in (3, 4, 5)]
    torch.testing.assert_close(critic(last(3)), torch.tensor(expected) - 2.0)
    critic.save(tmp_path / "critic")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "critic")
    assert (saved.config.num_labels, saved.config.reward_heads, saved.config.reward_offset) == (1, 1, 2.0)
    torch.testing.assert_close(Critic.load(tmp_path / "critic")(last(3)), critic(last(3)))


def test_a_loaded_model_lends_its_weights() -> None:
    reward, policy = make_classifier(), make_llama()
    assert Critic.from_reward(reward).backbone is reward.model
    assert Critic.from_policy(policy).backbone is policy.model


@torch.no_grad()
def test_padding_on_either_side_changes_no_value(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval()
    critic = Critic.from_policy(model)  # GPT-2: absolute positions, where a shift would show
    torch.nn.init.normal_(critic.head.weight)
    wide = torch.nn.functional.pad(IDS, (4, 2), value=0), torch.nn.functional.pad(MASK, (4, 2))
    torch.testing.assert_close(critic(pack(*wide, 5)), critic(last(3)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_saved_as_a_plain_classifier_that_scores_the_same(tmp_path: Path) -> None:
    make_classifier(tmp_path / "reward")
    critic = Critic.from_reward(tmp_path / "reward")
    torch.nn.init.normal_(critic.head.weight)
    critic.save(tmp_path / "critic")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "critic")
    assert plain.config.num_labels == 1
    torch.testing.assert_close(plain(input_ids=IDS[:, :5]).logits[0], critic(last(1)))
    assert torch.equal(Critic.load(tmp_path / "critic")(last(4)), critic(last(4)))


@torch.no_grad()
def test_an_architecture_without_classifier_keeps_its_head_beside_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BitNetConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    critic = Critic.from_policy(BitNetForCausalLM(config))
    torch.nn.init.normal_(critic.head.weight)
    critic.save(tmp_path)
    assert (tmp_path / HEAD_FILE).is_file()
    assert torch.equal(Critic.load(tmp_path)(last(4)), critic(last(4)))


def test_a_reward_model_with_two_labels_is_refused(tmp_path: Path) -> None:
    make_classifier(tmp_path, num_labels=2)
    with pytest.raises(ModelError, match="2 labels"):
        Critic.from_reward(tmp_path)
