"""The maths inside TRL 1.12's `PPOTrainer.train`, read there during an update, against ours on the same tensors.

The formulas agree (KL, GAE, both losses, the clip's count), and on completions that fill the width so do all numbers.
Where TRL 1.12 differs, and a test here or in `test_functions.py` shows by how much:

- the score stands on the pad behind the EOS, one step late, and GAE mixes in the critic's value of that pad
- the value loss and reward whitening count that pad
- whitening divides by n - 1; means of nothing, and NaN on a pad, are NaN
- losses are means of micro-batches, so that the split changes the update
- `num_mini_batches` makes no optimizer steps, and thins metrics out with zeros; the last batch makes too many steps
- `max_grad_norm` is ignored; the order of rows does not follow `seed`
- step KL, ratio and entropy are averaged over pads
- a missing EOS is a penalty on the score, not a score
- old log-probabilities are the sampler's, in float32; the temperature is 1e-7 above the one asked for
- a pad that was sampled ends a completion; where pad is EOS, the EOS is lost
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlhf_pipeline.ppo.advantages import gae, token_rewards
from rlhf_pipeline.ppo.kl import k1, k2, k3, sequence_kl
from rlhf_pipeline.ppo.losses import clipped_sum, value_loss_sum
from rlhf_pipeline.ppo.masked import last_index, masked_mean, masked_sum, moments, whiten
from tests.trl112.captured import EOS, MICRO, NEVER, PAD, ROWS, WIDTH, Captured, captured

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL 1.12 on a transformers that is younger

GAMMA, LAM, KL_COEF, CLIP, NEAR = 0.98, 0.9, 0.3, 0.1, 0.2
SOON = 2.3
"""The logit of the EOS with which most completions end early, and some do not."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """An update on completions that are all as long as allowed."""
    run = captured(tmp_path_factory.mktemp("full"), eos_logit=NEVER)
    assert run.mask.all()
    return run


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """An update on completions that end when they like."""
    run = captured(tmp_path_factory.mktemp("ragged"), eos_logit=SOON)
    assert 0 < ended(run).sum() < ROWS
    assert len(set(run.mask.sum(dim=1).tolist())) > 2
    return run


def ended(run: Captured) -> Tensor:
    """Which completions stop before the last column: (B,)."""
    return run.mask.sum(dim=1) < WIDTH


def rows(run: Captured, micro_batch: dict[str, Tensor]) -> Tensor:
    """The rows of the rollout that a micro-batch holds."""
    [*places] = (torch.nonzero((run.rollout["responses"] == x).all(dim=1))[0, 0] for x in micro_batch["mb_responses"])
    return torch.stack(places)


def assert_equal(ours: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(ours, other, atol=1e-12, rtol=1e-12)


# ---- Alike ----


@pytest.mark.parametrize("run", ["full", "ragged"])
def test_kl_of_tokens_and_completions(run: str, request: pytest.FixtureRequest) -> None:
    """The coefficient is the same, and so is the divergence that is logged."""
    found = request.getfixturevalue(run)
    logprobs, reference = found.rollout["logprobs"], found.rollout["ref_logprobs"]
    assert_equal(torch.where(found.mask, k1(logprobs, reference), 0.0), found.rollout["kl"])
    kl = sequence_kl(logprobs, reference, found.mask)
    assert kl.mean().item() == pytest.approx(found.metrics["objective/kl"], rel=1e-12)


def test_k3(tmp_path: Path) -> None:
    run = captured(tmp_path, eos_logit=SOON, kl_estimator="k3")
    ours = k3(run.rollout["logprobs"], run.rollout["ref_logprobs"])
    assert ours[run.mask].abs().max() > 0.1
    assert_equal(torch.where(run.mask, ours, 0.0), run.rollout["kl"])


def test_rewards_advantages_and_returns_of_full_completions(full: Captured) -> None:
    r = full.rollout
    rewards = token_rewards(r["kl"], r["scores"], full.mask, KL_COEF)
    assert_equal(rewards, r["rewards"])
    advantages, returns = gae(rewards, r["values"], full.mask, gamma=GAMMA, lam=LAM)
    assert_equal(returns, r["returns"])
    n = full.mask.sum()
    whitened = whiten(advantages, full.mask, center=True)
    torch.testing.assert_close(whitened * ((n - 1) / n).sqrt(), r["advantages"], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("run", ["full", "ragged"])
def test_gae_on_the_same_rewards_values_and_mask(run: str, request: pytest.FixtureRequest) -> None:
    """The recursion is the same; TRL's mask has one column more (see below)."""
    found = request.getfixturevalue(run)
    mask = ~found.rollout["padding_mask_p1"]
    _, returns = gae(found.rollout["rewards"], found.rollout["values"], mask, gamma=GAMMA, lam=LAM)
    assert_equal(returns[mask], found.rollout["returns"][mask])


@pytest.mark.parametrize("run", ["full", "ragged"])
def test_losses_of_one_micro_batch(run: str, request: pytest.FixtureRequest) -> None:
    """The clipped value loss on TRL's mask, the count of clipped ratios, and the formula of the policy loss."""
    found = request.getfixturevalue(run)
    counted = 0.0
    for micro_batch in found.micro_batches:
        mask, wide = found.mask[rows(found, micro_batch)], ~found.rollout["padding_mask_p1"][rows(found, micro_batch)]
        value_loss = value_loss_sum(
            micro_batch["vpred"], micro_batch["mb_values"], micro_batch["mb_return"], wide, NEAR
        )
        assert_equal(value_loss / wide.sum(), micro_batch["vf_loss"])
        ratio, advantages = micro_batch["logprobs_diff"].exp(), micro_batch["mb_advantage"]
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
        assert_equal(-masked_mean(surrogate, mask), micro_batch["pg_loss"])
        clipped = clipped_sum(micro_batch["logprobs_diff"], micro_batch["mb_advantage"], mask, CLIP, CLIP)
        counted += float(clipped / mask.sum()) / len(found.micro_batches)
    assert counted > 0.1
    assert counted == pytest.approx(found.metrics["policy/clipfrac_avg"], rel=1e-6)


# ---- Different, and ours is right ----


def test_the_score_stands_on_the_pad_behind_the_eos_there(ragged: Captured) -> None:
    """A reward belongs to the action that earned it, and the last action is the EOS."""
    r, last, early = ragged.rollout, last_index(ragged.mask), ended(ragged)
    ours = token_rewards(r["kl"], r["scores"], ragged.mask, KL_COEF)
    places = torch.arange(ROWS), last
    assert (r["responses"][places][early] == EOS).all()
    assert_equal(ours[places], r["scores"] - KL_COEF * r["kl"][places])
    assert_equal(r["rewards"][places][early], -KL_COEF * r["kl"][places][early])
    assert_equal(r["rewards"][early, last[early] + 1], r["scores"][early])
    assert_equal(ours[~early], r["rewards"][~early])


def test_what_the_last_token_earns_depends_on_the_critics_view_of_a_pad_there(ragged: Captured) -> None:
    """The return of an EOS is its reward, with any lambda; TRL's mixes in the value of the text behind its end."""
    r, last, early = ragged.rollout, last_index(ragged.mask), ended(ragged)
    rewards = token_rewards(r["kl"], r["scores"], ragged.mask, KL_COEF)
    _, returns = gae(rewards, r["values"], ragged.mask, gamma=GAMMA, lam=LAM)
    places = torch.arange(ROWS), last
    assert_equal(returns[places], rewards[places])
    penalty, behind = -KL_COEF * r["kl"][places][early], r["values"][early, last[early] + 1]
    mixed = penalty + GAMMA * behind + GAMMA * LAM * (r["scores"][early] - behind)
    assert_equal(r["returns"][places][early], mixed)
    assert (mixed - returns[places][early]).abs().min() > 1e-3
    assert_equal(returns[~early], r["returns"][~early])


def test_the_value_loss_learns_a_pad_a_completion_there(ragged: Captured) -> None:
    wide = ~ragged.rollout["padding_mask_p1"]
    assert wide.sum() == ragged.mask.sum() + ended(ragged).sum()
    assert wide[ragged.mask].all()


def test_whitened_rewards_count_those_pads_there(tmp_path: Path) -> None:
    """One minibatch of eight, as TRL demands for it; ours have variance one over the tokens, and the mean they had."""
    run = captured(tmp_path, eos_logit=SOON, whiten_rewards=True)
    r, wide = run.rollout, ~run.rollout["padding_mask_p1"]
    rewards = token_rewards(r["kl"], r["scores"], run.mask, KL_COEF)
    mean, variance = moments(whiten(rewards, run.mask, center=False), run.mask)
    assert_equal(mean, masked_mean(rewards, run.mask))
    assert variance.item() == pytest.approx(1, abs=1e-6)
    assert abs(moments(r["rewards"], run.mask)[1].item() - 1) > 0.05
    n = wide.sum()
    assert moments(r["rewards"], wide)[1].item() == pytest.approx(((n - 1) / n).item(), abs=1e-6)


def test_losses_are_means_of_micro_batches_there(ragged: Captured) -> None:
    """A token of a short completion weighs more there, so another split is another loss; ours is a mean over tokens."""
    batch = ragged.micro_batches[ROWS // MICRO :]  # the second epoch: one minibatch of four micro-batches
    masks = [ragged.mask[rows(ragged, part)] for part in batch]
    terms = [part["pg_loss_max"] for part in batch]
    ours = sum(masked_sum(x, mask) for x, mask in zip(terms, masks, strict=True)) / sum(mask.sum() for mask in masks)
    assert_equal(masked_mean(torch.cat(terms), torch.cat(masks)), ours)
    assert_equal(torch.stack([part["pg_loss"] for part in batch]).mean(), mean_of_means(terms, masks))
    assert abs(mean_of_means(terms, masks) - ours) > 1e-3
    halves = [torch.cat(terms[:2]), torch.cat(terms[2:])], [torch.cat(masks[:2]), torch.cat(masks[2:])]
    assert abs(mean_of_means(*halves) - mean_of_means(terms, masks)) > 1e-3, "the same rows, two micro-batches"


def mean_of_means(terms: list[Tensor], masks: list[Tensor]) -> Tensor:
    return torch.stack([x[mask].mean() for x, mask in zip(terms, masks, strict=True)]).mean()


def test_kl_of_a_step_ratio_and_entropy_are_averaged_over_pads_there(ragged: Captured) -> None:
    """Half the squared log ratio, the ratio and the entropy: pads count as 0, 1 and whatever the policy says there."""
    found: dict[str, list[tuple[float, float]]] = {"policy/approxkl_avg": [], "val/ratio": [], "policy/entropy_avg": []}
    for part in ragged.micro_batches:
        mask = ragged.mask[rows(ragged, part)]
        new, old, log_p = part["new_logprobs"], part["mb_logprobs"], part["logits"].log_softmax(-1)
        figures = k2(new, old), (new - old).exp(), -(log_p.exp() * log_p).sum(-1)
        for name, figure in zip(found, figures, strict=True):
            found[name].append((float(masked_mean(figure, mask)), float(figure.mean())))
    for name, pairs in found.items():
        ours, with_pads = torch.tensor(pairs).mean(dim=0).tolist()
        assert ragged.metrics[name] == pytest.approx(with_pads, rel=1e-5)
        assert ours != pytest.approx(with_pads, rel=1e-3), name


def test_minibatches_are_no_steps_and_thin_out_the_metrics_there(tmp_path: Path) -> None:
    """Two minibatches and two epochs are four steps; TRL takes two, and averages its figures with as many zeros."""
    run = captured(tmp_path, eos_logit=SOON, num_mini_batches=2)
    assert len(run.micro_batches) == 2 * ROWS // MICRO
    assert run.steps == [4, 8]
    ratios = torch.stack([part["ratio"].mean() for part in run.micro_batches])
    assert abs(ratios.mean() - 1) < 0.2
    assert run.metrics["val/ratio"] == pytest.approx(float(ratios.mean()) / 2, rel=1e-5)


def test_the_last_batch_of_the_prompts_is_cut_into_other_steps_there(tmp_path: Path) -> None:
    """Where the data end, accelerate stops accumulating: a step for every micro-batch, of a quarter of its gradient."""
    assert captured(tmp_path, eos_logit=SOON, prompts=ROWS).steps == list(range(1, 9))


def test_gradients_are_not_clipped_there(tmp_path: Path, ragged: Captured) -> None:
    """The limit changes nothing: the norms are far above it, and those of a run without it."""
    limited = captured(tmp_path, eos_logit=SOON, max_grad_norm=1e-3)
    assert limited.norms == pytest.approx(ragged.norms, rel=1e-9)
    assert min(limited.norms) > 0.1


def test_a_missing_eos_costs_a_penalty_there_and_has_a_fixed_score_here(tmp_path: Path) -> None:
    """There a cut-off answer keeps its lead over another; Huang et al. 2024 fix it (`ppo/test_one_update.py`)."""
    plain, punished = (captured(tmp_path, eos_logit=1.5, missing_eos_penalty=x).rollout for x in (None, 1.0))
    missing = ~(plain["responses"] == EOS).any(dim=1)
    assert 1 < missing.sum() < ROWS
    assert torch.equal(punished["responses"], plain["responses"])
    assert_equal(punished["scores"], plain["scores"] - missing.double())
    assert punished["scores"][missing].std() > 1e-3


def logprobs(model: nn.Module, run: Captured, temperature: float) -> Tensor:
    """Log-probabilities of the sampled tokens under `model`: (N,)."""
    ids = run.rollout["query_responses"]
    mask = ids != PAD
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(1) - mask.long()).logits
    found = (logits[:, -WIDTH - 1 : -1] / temperature).log_softmax(-1).gather(2, ids[:, -WIDTH:, None])
    return found[..., 0][run.mask]


def test_the_temperature_is_another_there(ragged: Captured) -> None:
    """Theirs is 1e-7 above the one asked for; ours is that one."""
    found = ragged.rollout["ref_logprobs"][ragged.mask]
    assert_equal(logprobs(ragged.reference, ragged, 0.7 + 1e-7), found)
    assert (logprobs(ragged.reference, ragged, 0.7) - found).abs().max() > 1e-8


def test_old_log_probabilities_are_of_the_sampler_there(ragged: Captured) -> None:
    """`generate` rounds its logits to float32, so no first ratio is one; ours come from training's forward pass."""
    found = ragged.rollout["logprobs"][ragged.mask]
    assert found.dtype == torch.float32
    gap = (logprobs(ragged.policy, ragged, 0.7 + 1e-7) - found).abs()
    assert 1e-8 < gap.max() < 1e-5
    first = torch.cat([part["logprobs_diff"] for part in ragged.micro_batches[: ROWS // MICRO]])
    assert first.abs().max().item() == pytest.approx(gap.max().item(), rel=1e-6)


def test_the_order_of_rows_does_not_follow_the_seed_there(tmp_path: Path, ragged: Captured) -> None:
    """It is drawn from numpy, which TRL's PPO does not seed."""
    other = captured(tmp_path, eos_logit=SOON, numpy_seed=1)
    assert torch.equal(other.rollout["responses"], ragged.rollout["responses"])
    orders = [torch.cat([rows(run, part) for part in run.micro_batches]) for run in (ragged, other)]
    assert not torch.equal(*orders)
