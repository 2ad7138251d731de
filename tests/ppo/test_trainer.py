"""The trainer on a toy task: it learns, its numbers are the formulas', and it stops where it must."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf_pipeline.errors import ConfigError, TrainingError
from rlhf_pipeline.ppo.critic import Critic
from tests.ppo.toy import PROMPTS, checksum, make_trainer, vowels
from tests.tiny import make_llama, make_tokenizer

EOS = 1


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def policy_weights(trainer: object) -> list[Tensor]:
    return [p.detach().clone() for name, p in trainer.model.named_parameters() if not name.startswith("critic.")]


def test_it_learns(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, per_device_train_batch_size=16, num_iterations=2, max_steps=120, kl_coef=0.02,
        max_completion_length=12, critic_learning_rate=3e-3, reward_funcs=[vowels],
    )  # fmt: skip
    trainer.train()
    scores = trainer.seen["score"]
    assert sum(scores[:5]) / 5 < 0.2
    assert sum(scores[-5:]) / 5 > 0.8
    assert trainer.seen["kl_nats"][0] == 0
    assert trainer.seen["kl_nats"][-1] > 1


def test_metrics_are_there_and_the_first_ratio_is_one(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_iterations=2, max_steps=8)
    trainer.train()
    for name in ("score", "score_std", "kl_nats", "completion_tokens", "eos_fraction", "explained_variance"):
        assert len(trainer.seen[name]) == 2, name
    for name in ("value_loss", "clip_fraction", "policy_grad_norm", "critic_grad_norm"):
        assert len(trainer.seen[name]) == 8, name
    first = trainer.seen["first_ratio_abs_log"]
    assert len(first) == 2
    assert max(first) < 1e-6
    assert min(trainer.seen["ratio_abs_log"]) > 1e-4  # later minibatches do move


def test_reward_is_on_the_last_real_token(tmp_path: Path) -> None:
    """With lambda 0, no KL and a critic of zeros, the advantage of a token is its reward."""
    trainer = make_trainer(
        tmp_path, kl_coef=0, gae_lambda=0.0, whiten_advantages=False, max_completion_length=40, max_steps=2
    )
    trainer.train()
    (rollout,) = trainer.rollouts
    texts = trainer.processing_class.batch_decode(
        [ids[mask.bool()] for ids, mask in zip(rollout["completion_ids"], rollout["completion_mask"], strict=True)],
        skip_special_tokens=True,
    )
    lengths = rollout["completion_mask"].sum(dim=1)
    assert (lengths < 40).any(), "the case needs a completion with padding behind its EOS"
    expected = torch.zeros_like(rollout["advantages"])
    expected[torch.arange(8), lengths - 1] = torch.tensor(checksum(texts))
    torch.testing.assert_close(rollout["advantages"], expected)
    ended = lengths < 40
    assert (rollout["completion_ids"][torch.arange(8), lengths - 1][ended] == EOS).all()


def test_a_missing_end_gets_the_fixed_score_and_every_stop_token_is_an_end(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "policy")
    stops = [EOS, *range(60, 110)]
    model.generation_config.eos_token_id = stops
    model.save_pretrained(tmp_path / "policy")
    trainer = make_trainer(
        tmp_path, reward_funcs=[lambda completions, **_: [5.0] * len(completions)], missing_eos_score=-1.0,
        gae_lambda=0.0, whiten_advantages=False, kl_coef=0, max_steps=2,
    )  # fmt: skip
    trainer.train()
    (rollout,) = trainer.rollouts
    last = rollout["completion_mask"].sum(dim=1) - 1
    rows = torch.arange(8)
    ended = torch.isin(rollout["completion_ids"][rows, last], torch.tensor(stops))
    assert ended.any()
    assert not ended.all()
    assert rollout["advantages"][rows, last].tolist() == [5.0 if end else -1.0 for end in ended]
    assert trainer.seen["eos_fraction"] == [ended.float().mean().item()]


def test_log_probabilities_have_the_temperature_and_no_other_filter(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "policy", initializer_range=0.3)
    model.generation_config.top_k, model.generation_config.do_sample = 1, True
    model.save_pretrained(tmp_path / "policy")
    trainer = make_trainer(tmp_path, temperature=0.7, max_steps=2)
    trainer.train()
    (rollout,) = trainer.rollouts
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")(input_ids=ids, attention_mask=mask).logits
    width = rollout["completion_ids"].size(1)
    logprobs = (logits[:, -width - 1 : -1] / 0.7).log_softmax(-1)
    expected = logprobs.gather(-1, rollout["completion_ids"].unsqueeze(-1)).squeeze(-1)
    real = rollout["completion_mask"].bool()
    torch.testing.assert_close(rollout["old_per_token_logps"][real], expected[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollout["ref_per_token_logps"][real], expected[real], atol=1e-5, rtol=1e-5)
    greedy = logprobs.argmax(-1)
    assert (greedy != rollout["completion_ids"])[real].any(), "the checkpoint's top_k = 1 must not reach the sampler"


def test_whitened_advantages_have_mean_zero_and_variance_one(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    rollout = trainer.rollouts[0]
    advantages = rollout["advantages"][rollout["completion_mask"].bool()]
    assert abs(advantages.mean().item()) < 1e-5
    assert advantages.var(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_loss_by_hand(tmp_path: Path) -> None:
    """Both clipped losses over 3 + 1 real tokens, divided by the minibatch's 8: computed here from the formulas."""
    trainer = make_trainer(tmp_path, num_iterations=2, vf_coef=0.5, max_steps=4)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer._step = 2  # second epoch: the ratio need not be 1
    ids = torch.randint(2, 258, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    attention = torch.cat([torch.ones(2, 4), mask.float()], dim=1).long()
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")(input_ids=ids, attention_mask=attention)
    logprobs = plain.logits.log_softmax(-1)[:, 3:6].gather(-1, ids[:, 4:].unsqueeze(-1)).squeeze(-1).double()
    old = logprobs - torch.tensor([[0.5, -0.5, 0.1], [0.0, 9.0, 9.0]])
    advantages = torch.tensor([[1.0, 2.0, -1.0], [3.0, 9.0, 9.0]])
    values, old_values, returns = torch.zeros(2, 3), torch.tensor([[1.0, 0.1, 0.0], [0.5, 9, 9]]), torch.ones(2, 3)
    loss = trainer._compute_loss(trainer.model, {
        "prompt_ids": ids[:, :4], "prompt_mask": torch.ones(2, 4).long(), "completion_ids": ids[:, 4:],
        "completion_mask": mask.long(), "advantages": advantages, "old_per_token_logps": old.float(),
        "values": old_values, "returns": returns, "minibatch_tokens": torch.tensor(8),
        "num_items_in_batch": torch.tensor(8.0) * 2,
    })  # fmt: skip
    ratio = (logprobs - old).exp()
    policy_loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)[mask].sum() / 8
    clipped = values.clamp(old_values - 0.2, old_values + 0.2)
    value_loss = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)[mask].sum() / 8
    assert loss.item() == pytest.approx((policy_loss + 0.5 * value_loss).item(), rel=1e-5)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim="sgd", learning_rate=1.0, max_grad_norm=1e-3, max_steps=2)
    before = weights(trainer.model)
    trainer.train()
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(trainer.model), before, strict=True)]).norm()
    assert min(trainer.seen["policy_grad_norm"]) > 1e-2
    assert 0 < moved <= 2e-3 * 1.01


def test_the_policy_rests_while_the_critic_warms_up(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, critic_warmup_steps=2, max_steps=2)
    policy, critic = policy_weights(trainer), weights(trainer.critic)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(policy_weights(trainer), policy, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(trainer.critic), critic, strict=True))


def test_a_kl_coefficient_of_zero_still_reports_the_divergence(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kl_coef=0.0, max_steps=6, learning_rate=1e-2)
    trainer.train()
    assert trainer.seen["kl_nats"][0] == 0
    assert trainer.seen["kl_nats"][-1] != 0


def test_reward_functions_see_the_data_sets_columns_and_are_weighted(tmp_path: Path) -> None:
    seen: list[int] = []

    def one(completions: list[str], number: list[int], **_: object) -> list[float]:
        seen.extend(number)
        return [1.0] * len(completions)

    def ten(completions: list[str], **_: object) -> list[float]:
        return [10.0] * len(completions)

    trainer = make_trainer(tmp_path, reward_funcs=[one, ten], reward_weights=[0.5, 0.25], max_steps=2)
    trainer.train()
    assert trainer.seen["score"] == [3.0]
    assert len(seen) == 8
    assert set(seen) <= set(PROMPTS["number"])


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf")])
def test_a_reward_that_is_no_number_stops_and_is_named(tmp_path: Path, wrong: float | None) -> None:
    def faulty(completions: list[str], **_: object) -> list[float | None]:
        return [1.0] * (len(completions) - 1) + [wrong]

    trainer = make_trainer(tmp_path, reward_funcs=[vowels, faulty])
    with pytest.raises(TrainingError, match="`faulty`.*completion 7"):
        trainer.train()


def test_nan_in_the_critic_stops_and_nothing_is_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps")
    torch.nn.init.constant_(trainer.critic.head.weight, float("nan"))
    with pytest.raises(TrainingError, match="`values` are not finite"):
        trainer.train()
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_nan_in_the_loss_stops_and_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=6, vf_coef=0.1)
    generate = trainer._generate_and_score_completions

    def poisoned(inputs: object) -> dict[str, Tensor]:
        rollout = generate(inputs)
        if trainer.state.global_step == 2:
            rollout["returns"][0, 0] = float("nan")
        return rollout

    trainer._generate_and_score_completions = poisoned
    with pytest.raises(TrainingError, match="step [23]: .*`loss` are not finite.*checkpoint is kept"):
        trainer.train()
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_a_policy_that_is_not_the_sampled_one_stops(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    for module in trainer.model.modules():
        if "attention_dropout" in vars(module):
            module.attention_dropout = 0.5
    with pytest.raises(TrainingError, match="first minibatch.*log ratio"):
        trainer.train()


def test_a_reward_model_must_come_wrapped(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrap"):
        make_trainer(tmp_path, reward_funcs=[torch.nn.Linear(1, 1)])


def test_evaluation_reports_held_out_prompts_and_trains_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_dataset=PROMPTS.select(range(5)))
    before = weights(trainer.model)
    metrics = trainer.evaluate()
    assert metrics["eval_ppo/kl_nats"] == 0
    assert 0 < metrics["eval_ppo/score"] < 4
    scores = torch.tensor(trainer.figures.held_out["score"])
    assert len(scores) == 5, "a whole batch and a short one"
    assert metrics["eval_ppo/score"] == pytest.approx(scores.mean().item())
    assert metrics["eval_ppo/score_ci95"] == pytest.approx(1.96 * scores.std().item() / 5**0.5, rel=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer.model), before, strict=True))


def test_a_policy_given_as_a_model_has_its_folder_as_reference(tmp_path: Path) -> None:
    make_llama(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    trainer = make_trainer(tmp_path, model=model, critic=Critic.from_policy(make_llama(seed=5)))
    trainer.train()
    assert trainer.seen["kl_nats"] == [0.0]
    assert make_tokenizer().eos_token_id == EOS


def test_prompts_that_do_not_fill_a_rollout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="32 prompts do not fill a rollout of 64"):
        make_trainer(tmp_path, per_device_train_batch_size=32)


def test_autocast_keeps_its_copies_of_weights_over_a_minibatch_and_no_longer(tmp_path: Path) -> None:
    """Copies made once a minibatch give the weights of copies made anew for every micro-batch."""
    settings = {"bf16": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
                "steps_per_generation": 4, "num_iterations": 2, "max_steps": 8}  # fmt: skip
    keeping = make_trainer(tmp_path, **settings)
    kept = []
    loss_of = keeping._compute_loss
    keeping._compute_loss = lambda *args: (kept.append(keeping._keeping), loss_of(*args))[1]
    keeping.train()
    assert kept == [False, True] * 8
    assert torch.autocast_increment_nesting() == 1, "no context is left open"
    assert torch.autocast_decrement_nesting() == 0
    anew = make_trainer(tmp_path, **settings)
    loss_anew = anew._compute_loss

    def without(*args: object) -> Tensor:
        anew._stepping = False
        return loss_anew(*args)

    anew._compute_loss = without
    anew.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(keeping.model), weights(anew.model), strict=True))


def test_a_loss_computed_by_hand_keeps_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=2, guards=["ratio=off"])
    trainer.train()
    trainer.model.train()
    trainer._compute_loss(trainer.model, trainer._buffered_inputs[0])
    assert torch.autocast_increment_nesting() == 1
    torch.autocast_decrement_nesting()


def test_an_evaluation_in_between_changes_nothing_and_draws_the_same_numbers_each_time(tmp_path: Path) -> None:
    held_out = PROMPTS.select(range(8))
    plain = make_trainer(tmp_path, max_steps=8)
    plain.train()
    watched = make_trainer(tmp_path, max_steps=8, eval_dataset=held_out, eval_strategy="steps", eval_steps=2)
    watched.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(plain.model), weights(watched.model), strict=True))
    assert watched.evaluate() | TIMES == watched.evaluate() | TIMES


TIMES = dict.fromkeys(("eval_runtime", "eval_samples_per_second", "eval_steps_per_second"))


def test_what_the_run_knows_survives_a_resume(tmp_path: Path) -> None:
    """The adapted coefficient and what the length guard has seen."""
    from tests.ppo.test_resume import SETTINGS, StopAt

    settings = {**SETTINGS, "kl_target": 0.01, "kl_horizon": 50.0, "max_steps": 24}
    first = make_trainer(tmp_path, **settings)
    first.add_callback(StopAt(12))
    first.train()
    assert first.kl_coef != first.args.kl_coef
    second = make_trainer(tmp_path, **settings)
    second.add_callback(StopAt(13))
    second.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-12"))
    assert second.seen["kl_coef"][0] == first.kl_coef
    assert list(second.guards.correlations)[: len(first.guards.correlations)] == list(first.guards.correlations)
