"""What stops a run, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_pipeline.errors import ConfigError, TrainingError
from rlhf_pipeline.ppo.guards import (
    DEFAULT_GUARDS,
    Guards,
    guard_actions,
    kl_problem,
    ratio_problem,
    require_finite,
    require_scores,
    sampler_problem,
)
from rlhf_pipeline.ppo.masked import one_rank
from tests.ppo.toy import make_trainer, vowels
from tests.tiny import make_llama

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def medium_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def test_finite_numbers_pass() -> None:
    require_finite(3, one_rank, loss=torch.tensor(1.0), values=torch.zeros(2, 2))


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_a_number_that_is_not_finite_stops_and_is_named(wrong: float) -> None:
    with pytest.raises(TrainingError, match="step 3: 1 numbers of `values` are not finite"):
        require_finite(3, one_rank, loss=torch.tensor(1.0), values=torch.tensor([0.0, wrong]))


def test_a_rank_stops_for_another_ranks_number() -> None:
    with pytest.raises(TrainingError, match="2 numbers of `loss`"):
        require_finite(3, lambda total: total + torch.tensor([2]), loss=torch.tensor(1.0))


def test_a_missing_score_names_its_function() -> None:
    scores = torch.tensor([[1.0, 2.0], [1.0, NAN]])
    with pytest.raises(TrainingError, match="`second` gave nan .* completion 1 "):
        require_scores(0, scores, ["first", "second"])
    require_scores(0, scores[:1], ["first", "second"])


@pytest.mark.parametrize(
    ("dtype", "autocast", "passes", "stops"),
    [(torch.float32, False, 9e-6, 2e-5), (torch.bfloat16, False, 9e-3, 2e-2), (torch.float32, True, 9e-3, 2e-2)],
)
def test_the_first_ratio_has_a_tolerance_for_each_dtype(
    dtype: torch.dtype, autocast: bool, passes: float, stops: float
) -> None:
    assert ratio_problem(passes, dtype, autocast=autocast) is None
    for wrong in (stops, NAN):
        assert "first minibatch" in str(ratio_problem(wrong, dtype, autocast=autocast))


@pytest.mark.usefixtures("medium_precision")
def test_reduced_float32_products_have_the_coarse_tolerance() -> None:
    assert ratio_problem(9e-3, torch.float32, autocast=False) is None


# ---- Guards that are set ----


def test_guards_have_defaults_and_take_what_is_asked() -> None:
    assert guard_actions([]) == DEFAULT_GUARDS
    assert guard_actions(["kl=backoff", "length=off"]) == {**DEFAULT_GUARDS, "kl": "backoff", "length": "off"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("klo=warn", "`klo` is no guard"), ("kl=loud", "one of off, warn, stop, backoff"),
        ("ratio=backoff", "off, warn, stop$"), ("kl", "write `kl=<action>`"),
    ],
)  # fmt: skip
def test_a_guard_or_action_that_does_not_exist_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        guard_actions([word])


def test_a_guard_stops_warns_once_or_keeps_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"step 7: too far \(guard `kl`"):
        Guards(["kl=stop"]).check("kl", 7, "too far")
    guards = Guards(["kl=warn"])
    assert [guards.check("kl", step, "too far") for step in (1, 2)] == [True, True]
    assert not guards.check("kl", 3, None)
    assert guards.check("kl", 4, "too far")
    assert capsys.readouterr().err.splitlines() == [
        "warning: step 1: too far (guard `kl`)", "warning: step 4: too far (guard `kl`)",
    ]  # fmt: skip
    assert not Guards(["kl=off"]).check("kl", 1, "too far")
    Guards(["kl=warn"], loud=False).check("kl", 1, "too far")
    assert capsys.readouterr().err == ""


def test_length_is_looked_at_over_ten_rollouts() -> None:
    guards = Guards()
    assert all(guards.length_problem(-0.95) is None for _ in range(9))
    assert "follows the length" in str(guards.length_problem(-0.95))
    assert guards.length_problem(0.5) is None


@pytest.mark.parametrize(("autocast", "passes", "speaks"), [(False, 9e-5, 2e-4), (True, 4e-2, 6e-2)])
def test_the_samplers_gap_has_a_tolerance(autocast: bool, passes: float, speaks: float) -> None:
    assert sampler_problem(passes, torch.float32, autocast=autocast) is None
    for wrong in (speaks, NAN):
        assert "the sampler's log-probabilities" in str(sampler_problem(wrong, torch.float32, autocast=autocast))


def test_kl_has_a_limit() -> None:
    assert kl_problem(49.0, 50.0) is None
    assert "51.0 nats a completion" in str(kl_problem(51.0, 50.0))
    assert kl_problem(NAN, 50.0) is not None


# ---- Each provoked in a run ----


def test_kl_that_runs_away_warns_stops_or_raises_the_coefficient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"learning_rate": 3e-2, "kl_coef": 0.0, "kl_limit": 0.5, "reward_funcs": [vowels], "max_steps": 16}
    make_trainer(tmp_path, **settings).train()
    assert "nats a completion from its reference, above kl_limit 0.5" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="above kl_limit"):
        make_trainer(tmp_path, guards=["kl=stop"], **settings).train()
    trainer = make_trainer(tmp_path, guards=["kl=backoff"], **{**settings, "kl_coef": 0.01})
    trainer.train()
    assert trainer.seen["kl_coef"][0] == 0.01
    assert trainer.seen["kl_coef"][-1] >= 0.015


def test_a_score_that_is_length_alone_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def length(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [float(len(ids)) for ids in completion_ids]

    model = make_llama(tmp_path / "policy")
    model.generation_config.eos_token_id = [1, *range(60, 110)]  # completions of many lengths
    model.save_pretrained(tmp_path / "policy")
    make_trainer(tmp_path, reward_funcs=[length], max_steps=22).train()
    assert "the score follows the length of completions (correlation 1.00" in capsys.readouterr().err


def test_a_sampler_with_other_weights_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tmp_path)
    sample = trainer.sample

    def stale(model: Any, prompt_ids: list[list[int]]) -> Any:
        ids, logprobs = sample(model, prompt_ids)
        return ids, [[x - 0.01 for x in row] for row in logprobs]

    trainer.sample = stale
    trainer.train()
    assert trainer.seen["sampler_gap_nats"][0] == pytest.approx(0.01, rel=1e-3)
    assert "the sampler's log-probabilities are 1.00e-02 nats a token" in capsys.readouterr().err


def test_a_ratio_that_is_not_one_can_be_let_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tmp_path, guards=["ratio=warn"])
    for module in trainer.model.modules():
        if "attention_dropout" in vars(module):
            module.attention_dropout = 0.5
    trainer.train()
    assert "first minibatch" in capsys.readouterr().err
