"""The loss of ranked groups: TRL's for pairs, a double loop's for more, whatever the padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.ranking.toy import (
    exploded,
    gradients,
    loss_and_gradients,
    make_group,
    make_trainer,
    make_trl,
    random_groups,
)
from tests.tiny import make_classifier

SEEDS = range(3)
PLAIN: dict[str, Any] = {}
CENTRED = {"center_rewards_coefficient": 0.3}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("margins", [False, True])
@pytest.mark.parametrize("changes", [PLAIN, CENTRED])
def test_pairs_have_the_loss_and_gradients_of_trl(
    tmp_path: Path, seed: int, margins: bool, changes: dict[str, Any]
) -> None:
    groups = random_groups(seed, [2] * 5, margins=margins)
    pairs = exploded(groups)
    if not margins:
        pairs = [{name: value for name, value in pair.items() if name != "margin"} for pair in pairs]
    ours, theirs = make_trainer(tmp_path, groups, **changes), make_trl(tmp_path, pairs, **changes)
    (loss, gradient), (trl_loss, trl_gradient) = loss_and_gradients(ours, groups), loss_and_gradients(theirs, pairs)
    torch.testing.assert_close(loss, trl_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, trl_gradient, rtol=1e-5, atol=1e-7)
    assert gradient.abs().max() > 1e-3


def test_pairs_have_the_metrics_of_trl(tmp_path: Path) -> None:
    groups = random_groups(0, [2] * 4)
    logs = []
    for trainer in (make_trainer(tmp_path, groups), make_trl(tmp_path, exploded(groups))):
        rows = groups if trainer.data_collator.__class__.__name__ == "GroupCollator" else exploded(groups)
        loss_and_gradients(trainer, rows)
        trainer.log({})
        logs.append(trainer.state.log_history[-1])
    assert set(logs[0]) == set(logs[1]) >= {"accuracy", "margin", "mean_reward", "num_tokens"}
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def double_loop(
    model: Any, groups: list[dict[str, Any]], ranks: list[list[int]], smoothing: float, centre: float
) -> Any:
    """The formula, one forward pass a completion and one loop a group."""
    total = 0.0
    for group, order in zip(groups, ranks, strict=True):
        scores = [model(input_ids=torch.tensor([row])).logits[0, 0] for row in group["input_ids"]]
        margins = iter(group["margin"])
        terms = []
        for i in range(len(scores)):
            for j in range(i + 1, len(scores)):
                a, b = (i, j) if order[i] <= order[j] else (j, i)
                lead, margin = scores[a] - scores[b], next(margins)
                right = 0.5 if order[i] == order[j] else 1 - smoothing
                term = -right * logsigmoid(lead - margin) - (1 - right) * logsigmoid(margin - lead)
                terms.append(term + centre * (scores[a] + scores[b]) ** 2)
        total = total + sum(terms) / len(terms)
    return total / len(groups)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("smoothing", "centre"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.05)])
def test_groups_of_every_size_have_the_loss_of_a_double_loop(
    tmp_path: Path, seed: int, ties: bool, smoothing: float, centre: float
) -> None:
    sizes = [3, 9, 4, 2, 8, 5, 7, 6]
    groups = random_groups(seed, sizes, ties=ties, margins=True)
    ranks = [ranks_of(group) for group in groups]
    trainer = make_trainer(
        tmp_path, groups, dtype=torch.float64, label_smoothing=smoothing, center_rewards_coefficient=centre or None
    )
    # the trainer takes scores in float32, whatever the model's dtype, so compare what it does with them
    batch = trainer.data_collator(groups)
    scores = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
    losses = trainer.group_losses(scores, {**batch, "margin": batch["margin"].double()})
    losses.mean().backward()
    model = make_classifier().double().train()
    exact = [{**group, "margin": torch.tensor(group["margin"]).double().tolist()} for group in groups]
    by_hand = double_loop(model, exact, ranks, smoothing, centre)
    by_hand.backward()
    torch.testing.assert_close(losses.mean().detach(), by_hand.detach(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients(trainer.model), gradients(model), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(loss_and_gradients(trainer, groups)[0].double(), by_hand.detach(), rtol=1e-5, atol=1e-6)


def ranks_of(group: dict[str, Any]) -> list[int]:
    """Ranks from the comparisons: how many completions are better."""
    beaten = [b for b, tied in zip(group["worse"], group["tied"], strict=True) if not tied]
    return [beaten.count(number) for number in range(len(group["input_ids"]))]


def test_every_group_weighs_the_same(tmp_path: Path) -> None:
    groups = random_groups(0, [9, 2])
    trainer = make_trainer(tmp_path, groups)
    alone = [loss_and_gradients(trainer, [group]) for group in groups]
    loss, gradient = loss_and_gradients(trainer, groups)
    torch.testing.assert_close(loss, (alone[0][0] + alone[1][0]) / 2)
    torch.testing.assert_close(gradient, (alone[0][1] + alone[1][1]) / 2, rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    groups = random_groups(1, [4, 3, 5])
    trainer, padded = make_trainer(tmp_path, groups), make_trainer(tmp_path, groups, pad_to_multiple_of=64)
    assert padded.data_collator(groups)["input_ids"].shape == (12, 64)
    (loss, gradient), (other_loss, other) = loss_and_gradients(trainer, groups), loss_and_gradients(padded, groups)
    torch.testing.assert_close(loss, other_loss)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


def test_a_completion_given_twice_is_forwarded_once(tmp_path: Path) -> None:
    """One row that two comparisons name has the gradient of two equal rows."""
    same, other, last = [5, 6, 7], [8, 9], [10, 11, 12]
    twice = make_group([same, same, other, last], [0, 1, 2, 3])
    keep = [n for n, pair in enumerate(zip(twice["better"], twice["worse"], strict=True)) if pair != (0, 1)]
    twice = {**twice, **{name: [twice[name][n] for n in keep] for name in ("better", "worse", "margin", "tied")}}
    once = {
        **make_group([same, other, last], [0, 1, 2]),
        **{"better": [0, 0, 0, 0, 1], "worse": [1, 2, 1, 2, 2], "margin": [0.0] * 5, "tied": [False] * 5},
    }
    trainer = make_trainer(tmp_path, [once])
    (loss, gradient), (other_loss, expected) = (loss_and_gradients(trainer, [group]) for group in (once, twice))
    torch.testing.assert_close(loss, other_loss)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_held_out_metrics_are_over_pairs_and_groups(tmp_path: Path) -> None:
    """Batches of four and of one: no group counts more than another."""
    groups = random_groups(3, [2, 9, 4, 3, 5])
    small = make_trainer(tmp_path, groups, held_out=groups, per_device_eval_batch_size=1)
    large = make_trainer(tmp_path, groups, held_out=groups, per_device_eval_batch_size=4)
    one, other = small.evaluate(), large.evaluate()
    for name in ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward"):
        assert one[f"eval_{name}"] == pytest.approx(other[f"eval_{name}"], rel=1e-5), name
    kept = make_trainer(tmp_path, groups, held_out=groups, per_device_eval_batch_size=4, dataloader_drop_last=True)
    assert kept.evaluate()["eval_loss"] == pytest.approx(other["eval_loss"]) and kept.args.dataloader_drop_last
    losses = [loss_and_gradients(small, [group])[0].item() for group in groups]
    assert other["eval_loss"] == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert small.evaluated is not None and small.evaluated[:, 0].tolist() == [1, 36, 6, 3, 10]


def test_groups_of_similar_length_are_batched_together(tmp_path: Path) -> None:
    groups = [make_group([[5] * length, [6, 7]], [0, 1]) for length in (20, 3) * 64]
    trainer = make_trainer(tmp_path, groups, train_sampling_strategy="group_by_length")
    widths = [batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader()]
    assert len(widths) == 32 and widths.count(3) > 10  # in random order, two
