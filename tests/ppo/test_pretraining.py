"""PPO-ptx: which rows are drawn, and what their loss does to the policy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.pretraining import PretrainingRows
from tests.ppo.toy import make_trainer

ROWS = [[9, 8, 7, 6], [5, 4], [3, 3, 3], [12, 11, 10, 9, 8], [40, 41, 42]]
CPU = torch.device("cpu")


def drawn(rows: PretrainingRows, steps: range) -> list[list[int]]:
    """The rows of some micro-steps, without their padding."""
    found = []
    for step in steps:
        packed = rows.micro_batch(step, CPU)
        found += [ids[: int(n) + 1].tolist() for ids, n in zip(packed.ids, packed.predicts.sum(dim=1), strict=True)]
    return found


def test_every_row_comes_once_an_epoch_over_all_ranks_in_another_order_each_time() -> None:
    ranks = [PretrainingRows(ROWS, size=1, rank=rank, ranks=5, seed=3) for rank in range(5)]
    epochs = [[drawn(rank, range(step, step + 1))[0] for rank in ranks] for step in range(6)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(ROWS)
    assert len({str(epoch) for epoch in epochs}) > 1


def test_a_resumed_run_draws_what_an_unbroken_one_does() -> None:
    whole = drawn(PretrainingRows(ROWS, size=2, rank=0, ranks=1, seed=0), range(10))
    rest = drawn(PretrainingRows(ROWS, size=2, rank=0, ranks=1, seed=0), range(4, 10))
    assert whole[8:] == rest


def test_tokens_are_counted_over_the_minibatch_and_all_ranks() -> None:
    ranks = [PretrainingRows(ROWS, size=2, rank=rank, ranks=2, seed=1) for rank in range(2)]
    by_hand = sum(len(row) - 1 for rank in ranks for row in drawn(rank, range(4, 7)))
    assert [rank.tokens(range(4, 7)) for rank in ranks] == [by_hand, by_hand]


def policy_change(folder: Path, **changes: object) -> dict[str, Tensor]:
    """How one optimizer step by SGD of rate 1 moves the policy."""
    torch.manual_seed(0)
    trainer = make_trainer(
        folder, optim="sgd", learning_rate=1.0, max_grad_norm=0, max_steps=2, gradient_accumulation_steps=2,
        per_device_train_batch_size=2, steps_per_generation=4, **changes,
    )  # fmt: skip
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.add_callback(_stop_after_one_step())
    trainer.train()
    moved = {name: p.detach() - start[name] for name, p in trainer.model.named_parameters()}
    return {name: change for name, change in moved.items() if not name.startswith("critic.")}


def _stop_after_one_step() -> object:
    from tests.ppo.test_resume import StopAt

    return StopAt(1)


def test_the_gradient_is_ppos_plus_the_coefficient_times_that_of_the_rows(tmp_path: Path) -> None:
    """The loss of the rows is the mean over the tokens of the whole minibatch, at temperature 1 whatever PPO's is."""
    plain = policy_change(tmp_path, temperature=0.7)
    mixed = policy_change(tmp_path, temperature=0.7, ptx_coef=3.0, pretraining_rows=ROWS)
    rows = PretrainingRows(ROWS, size=2, rank=0, ranks=1, seed=42)
    used = drawn(rows, range(2))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    total = torch.tensor(0.0)
    for row in used:
        ids = torch.tensor([row])
        total = total + model(input_ids=ids, labels=ids).loss * (len(row) - 1)
    (total / sum(len(row) - 1 for row in used)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mixed[name] - plain[name], -3.0 * parameter.grad, atol=2e-6, rtol=1e-3)


def test_it_keeps_the_policy_a_language_model(tmp_path: Path) -> None:
    """The same reward hacking with and without ptx: with it, the text stays likely. InstructGPT's 27.8 stays stable."""

    def loss_of_text(trainer: object) -> float:
        ids = torch.tensor([ROWS[3]])
        with torch.no_grad():
            return float(trainer.model(input_ids=ids, labels=ids).loss)

    settings = {"max_steps": 40, "learning_rate": 3e-3, "num_iterations": 2}
    plain = make_trainer(tmp_path, **settings)
    mixed = make_trainer(tmp_path, ptx_coef=27.8, pretraining_rows=ROWS, **settings)
    before = loss_of_text(plain)
    plain.train()
    mixed.train()
    assert loss_of_text(mixed) < before - 2 < loss_of_text(plain)
    assert mixed.seen["ptx_loss"][-1] < mixed.seen["ptx_loss"][0] - 2


def test_coefficient_and_rows_belong_together(tmp_path: Path) -> None:
    for half in ({"ptx_coef": 1.0}, {"pretraining_rows": ROWS}):
        with pytest.raises(ConfigError, match="ptx_coef and ptx_data belong together"):
            make_trainer(tmp_path, **half)
