"""Our maths against the papers' formulas, written a second time in numpy and loops, on random ragged batches.

Everything in float64, to twelve digits. Outside the mask our functions are given NaN, which they must never read.
Left out: networks (`test_one_update.py`), TRL's own functions (`tests/trl112`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_pipeline.errors import TrainingError
from rlhf_pipeline.ppo.advantages import gae, token_rewards
from rlhf_pipeline.ppo.figures import correlation
from rlhf_pipeline.ppo.kl import ESTIMATORS, adapted, k1, k2, k3, sequence_kl
from rlhf_pipeline.ppo.losses import clipped_sum, explained_variance, value_loss_sum
from rlhf_pipeline.ppo.masked import last_index, masked_mean, moments, whiten
from rlhf_pipeline.ppo.minibatches import count_tokens
from tests.ppo.toy import Recorder, make_trainer

SEEDS = range(12)
Array = NDArray[np.float64]


class Ragged(NamedTuple):
    """Completions of `lengths` tokens in `width` columns, and where random numbers for them come from."""

    lengths: list[int]
    width: int
    rng: np.random.Generator

    @property
    def mask(self) -> Tensor:
        return torch.arange(self.width) < torch.tensor(self.lengths)[:, None]

    def draw(self, scale: float = 1.0) -> tuple[list[Array], Tensor]:
        """Draw numbers: a row of its own length for every completion, and the same for us, NaN behind it."""
        rows = [self.rng.normal(scale=scale, size=length) for length in self.lengths]
        return rows, self.padded(rows)

    def padded(self, rows: list[Array], fill: float = math.nan) -> Tensor:
        behind = [np.full(self.width - len(row), fill) for row in rows]
        return torch.tensor(np.stack([np.concatenate(pair) for pair in zip(rows, behind, strict=True)]))


@pytest.fixture(params=SEEDS)
def ragged(request: pytest.FixtureRequest) -> Ragged:
    """A batch with a completion of one token, one as wide as the batch, any others, and sometimes columns of pads."""
    rng = np.random.default_rng(request.param)
    longest = int(rng.integers(1, 14))
    others = rng.integers(1, longest + 1, size=int(rng.integers(0, 6))).tolist()
    lengths = rng.permutation([1, longest, *others]).tolist()
    return Ragged(lengths, longest + int(rng.choice([0, 3])), rng)


def assert_equal(ours: Tensor, theirs: Any) -> None:
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, torch.as_tensor(theirs, dtype=torch.float64), atol=1e-12, rtol=1e-12)


# ---- Rewards and advantages ----


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_sum_of_discounted_errors(ragged: Ragged, gamma: float, lam: float) -> None:
    """Schulman et al. 2016, equation 16: A_t = sum_l (gamma lam)^l delta_{t+l}, with V = 0 behind the last token."""
    (r, rewards), (v, values) = ragged.draw(), ragged.draw()
    expected, expected_returns = [], []
    for n, length in enumerate(ragged.lengths):
        value = [*v[n], 0.0]
        delta = [r[n][t] + gamma * value[t + 1] - value[t] for t in range(length)]
        row = [math.fsum((gamma * lam) ** k * delta[t + k] for k in range(length - t)) for t in range(length)]
        expected.append(np.array(row))
        expected_returns.append(np.array(row) + v[n])
    advantages, returns = gae(rewards, values, ragged.mask, gamma=gamma, lam=lam)
    assert_equal(advantages, ragged.padded(expected, 0.0))
    assert_equal(returns, ragged.padded(expected_returns, 0.0))


def test_lambda_one_gives_the_discounted_rewards_ahead_and_lambda_zero_one_step(ragged: Ragged) -> None:
    """Schulman et al. 2016, equations 17 and 18; the first does not depend on the values at all."""
    (r, rewards), (v, values) = ragged.draw(), ragged.draw()
    ahead = [np.array([np.polyval(row[t:][::-1], 0.9) for t in range(len(row))]) for row in r]
    step = [row + 0.9 * np.append(value[1:], 0.0) for row, value in zip(r, v, strict=True)]
    for lam, expected in ((1.0, ahead), (0.0, step)):
        _, returns = gae(rewards, values, ragged.mask, gamma=0.9, lam=lam)
        assert_equal(returns, ragged.padded(expected, 0.0))


def test_a_completions_rewards_sum_to_its_score_less_its_penalty(ragged: Ragged) -> None:
    """Ziegler et al. 2019: R(x, y) = r(x, y) - beta log(pi(y|x) / rho(y|x)); the score stands on the last token."""
    (kl_rows, kl), scores = ragged.draw(), ragged.rng.normal(size=len(ragged.lengths))
    rewards = token_rewards(kl, torch.tensor(scores), ragged.mask, kl_coef=0.3)
    for row, ours, score in zip(kl_rows, rewards, scores, strict=True):
        assert_equal(ours.sum(), score - 0.3 * math.fsum(row))
        assert_equal(ours[: len(row) - 1], -0.3 * row[:-1])
        assert_equal(ours[len(row) - 1], score - 0.3 * row[-1])
        assert not ours[len(row) :].any()


def test_last_index_is_where_numpy_finds_the_last_true(ragged: Ragged) -> None:
    mask = ragged.rng.random((len(ragged.lengths), ragged.width)) < 0.3  # with holes, and rows of nothing
    expected = [max(np.flatnonzero(row), default=-1) for row in mask]
    assert last_index(torch.tensor(mask)).tolist() == expected


# ---- Whitening ----


def test_moments_and_whitening_are_numpys_over_the_real_tokens(ragged: Ragged) -> None:
    """(x - mean) / sqrt(variance + 1e-8), the variance over n as in OpenAI's tf.nn.moments; the mean kept or not."""
    rows, x = ragged.draw(scale=3.0)
    real = np.concatenate(rows)
    mean, variance = moments(x, ragged.mask)
    assert_equal(masked_mean(x, ragged.mask), np.mean(real))
    assert_equal(torch.stack([mean, variance]), [np.mean(real), np.var(real)])
    centred = [(row - np.mean(real)) / np.sqrt(np.var(real) + 1e-8) for row in rows]
    assert_equal(whiten(x, ragged.mask, center=True), ragged.padded(centred, 0.0))
    kept = [row + np.mean(real) for row in centred]
    assert_equal(whiten(x, ragged.mask, center=False), ragged.padded(kept, 0.0))


# ---- KL ----


def distributions(seed: int, size: int = 5) -> tuple[Tensor, Tensor]:
    logits = torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return logits[0].log_softmax(0), logits[1].log_softmax(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_k1_and_k3_are_unbiased_and_k2_is_not(seed: int) -> None:
    """The expectation, taken exactly over the vocabulary, is KL(p || q); and never that of q from p."""
    p, q = distributions(seed)
    exact = sum(math.exp(a) * (a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    reverse = sum(math.exp(b) * (b - a) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    mean = {name: (p.exp() * estimate(p, q)).sum() for name, estimate in ESTIMATORS.items()}
    assert_equal(mean["k1"], exact)
    assert_equal(mean["k3"], exact)
    assert abs(mean["k2"] - exact) > 1e-4
    assert abs(exact - reverse) > 1e-4, "the case cannot tell the directions apart"


@pytest.mark.parametrize("seed", SEEDS)
def test_k2_and_k3_by_formula_and_alike_near_each_other(seed: int) -> None:
    """Schulman 2020: k2 = (log r)^2 / 2 and k3 = r - 1 - log r with r = q / p, equal to second order around r = 1."""
    p, q = (x.numpy() for x in distributions(seed, size=50))
    assert_equal(k1(torch.tensor(p), torch.tensor(q)), -np.log(np.exp(q) / np.exp(p)))
    assert_equal(k2(torch.tensor(p), torch.tensor(q)), np.log(np.exp(q) / np.exp(p)) ** 2 / 2)
    assert_equal(k3(torch.tensor(p), torch.tensor(q)), np.exp(q) / np.exp(p) - 1 - np.log(np.exp(q) / np.exp(p)))
    near = torch.tensor(p + 1e-3 * q)
    ratio = k3(torch.tensor(p), near) / k2(torch.tensor(p), near)
    np.testing.assert_allclose(ratio, 1 + 1e-3 * q / 3, rtol=1e-5)


def every_completion(policy: Tensor, width: int) -> Iterator[list[int]]:
    """All completions over {stop, 1, 2} of at most `width` tokens, with their stop token where they have one."""
    for tokens in itertools.product(range(len(policy)), repeat=width):
        end = tokens.index(0) + 1 if 0 in tokens else width
        if not any(tokens[end:]):  # one padding for each
            yield list(tokens[:end])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_expected_kl_of_a_completion_is_the_kl_of_whole_texts(seed: int) -> None:
    """Over all texts of a Markov chain: E[sequence_kl] = sum_y P(y) log(P(y) / Q(y)), its stop token counted once."""
    generator = torch.Generator().manual_seed(seed)
    policy, reference = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator).log_softmax(-1)
    texts = list(every_completion(policy, 4))
    logp, logq = torch.full((2, len(texts), 4), math.nan, dtype=torch.float64)
    for row, text in enumerate(texts):
        for t, (before, token) in enumerate(zip([0, *text], text, strict=False)):
            logp[row, t], logq[row, t] = policy[before, token], reference[before, token]
    probability, other = logp.nansum(1).exp().numpy(), logq.nansum(1).exp().numpy()
    assert math.fsum(probability) == pytest.approx(1, abs=1e-12), "every text, each once"
    exact = np.sum(probability * np.log(probability / other))
    assert_equal((torch.tensor(probability) * sequence_kl(logp, logq, ~logp.isnan())).sum(), exact)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_coefficient_moves_as_ziegler_writes(seed: int) -> None:
    """e_t = clip((KL - target) / target, -0.2, 0.2); beta_{t+1} = beta_t (1 + K e_t); K = 0.1 at ten rollouts."""
    rng = np.random.default_rng(seed)
    beta = ours = float(rng.uniform(0.01, 1.0))
    target, completions = float(rng.uniform(0.5, 9.0)), int(rng.integers(1, 600))
    for kl_nats in rng.normal(target, 0.3 * target, size=40).tolist():
        beta = beta * (1 + 0.1 * float(np.clip((kl_nats - target) / target, -0.2, 0.2)))
        ours = adapted(ours, kl_nats, target=target, horizon=10 * completions, completions=completions)
        assert ours == pytest.approx(beta, rel=1e-12)


# ---- Losses and figures ----


def test_the_value_loss_and_its_gradient(ragged: Ragged) -> None:
    """Half the worse of two squared errors, the second with V held within the clip of the rollout's V."""
    (v, values), (old, old_values), (r, returns) = (ragged.draw() for _ in range(3))
    values.requires_grad_()
    total = value_loss_sum(values, old_values, returns, ragged.mask, cliprange=0.3)
    total.backward()
    expected, slopes = 0.0, []
    for new, was, aim in zip(v, old, r, strict=True):
        held = was + np.clip(new - was, -0.3, 0.3)
        expected += np.sum(np.where((held - aim) ** 2 > (new - aim) ** 2, (held - aim) ** 2, (new - aim) ** 2)) / 2
        free = (np.abs(new - was) <= 0.3) | ((new - aim) ** 2 > (held - aim) ** 2)
        slopes.append(np.where(free, new - aim, 0.0))
    assert_equal(total.detach(), expected)
    assert_equal(values.grad[ragged.mask], np.concatenate(slopes))


def test_explained_variance_is_one_less_the_share_of_the_errors(ragged: Ragged) -> None:
    (v, values), (r, returns) = ragged.draw(), ragged.draw()
    real, foreseen = np.concatenate(r), np.concatenate(v)
    expected = 1 - np.var(real - foreseen) / np.var(real) if np.var(real) > 0 else 0.0
    assert_equal(explained_variance(values, returns, ragged.mask), expected)


def test_tokens_without_gradient_are_counted(ragged: Ragged) -> None:
    (log_ratio, ours), (advantage, advantages) = ragged.draw(0.3), ragged.draw()
    expected = 0
    for x, a in zip(np.concatenate(log_ratio), np.concatenate(advantage), strict=True):
        slope = -a * math.exp(x) if math.exp(x) * a <= min(max(math.exp(x), 0.9), 1.2) * a else 0.0
        expected += slope == 0.0
    assert clipped_sum(ours, advantages, ragged.mask, 0.1, 0.2) == expected


def test_correlation_is_numpys(ragged: Ragged) -> None:
    x, y = ragged.rng.normal(size=(2, 9))
    assert correlation(torch.tensor(x), torch.tensor(y)) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


# ---- The whole loss, of TRL and ours, as the trainer adds it up ----

LOW, HIGH, NEAR, WEIGHT = 0.1, 0.2, 0.3, 0.4


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A trainer of minibatches of two micro-batches each."""
    made = make_trainer(
        tmp_path_factory.mktemp("trainer"), epsilon=LOW, epsilon_high=HIGH, cliprange_value=NEAR, vf_coef=WEIGHT,
        gradient_accumulation_steps=2, steps_per_generation=4, num_iterations=2, max_steps=4,
    )  # fmt: skip
    made.model.train()
    made.current_gradient_accumulation_steps = 2
    made._minibatch_open = True  # or a loss without its training step would leave autocast's cache open for good
    return made


def micro_batches(ragged: Ragged, **tensors: Tensor) -> list[dict[str, Tensor]]:
    """The batch as a minibatch of two micro-batches: its first row, and all others."""
    rows = len(ragged.lengths)
    ids = {"prompt_ids": torch.ones(rows, 1).long(), "completion_ids": torch.ones(rows, ragged.width).long()}
    masks = {"prompt_mask": torch.ones(rows, 1).long(), "completion_mask": ragged.mask.long()}
    whole = {**ids, **masks, **{name: x.nan_to_num() for name, x in tensors.items()}}
    parts = [{name: x[:1] for name, x in whole.items()}, {name: x[1:] for name, x in whole.items()}]
    count_tokens(parts * 2, 2, reduce=lambda total: total)
    return parts


def losses(trainer: Recorder, parts: list[dict[str, Tensor]], logprobs: Tensor, values: Tensor) -> Tensor:
    """Add up the loss of a minibatch whose forward gives `logprobs` and `values`."""
    total = logprobs.new_zeros(())
    for part, logp, v in zip(parts, (logprobs[:1], logprobs[1:]), (values[:1], values[1:]), strict=True):
        trainer.accelerator.gradient_state._set_sync_gradients(part is parts[-1])
        figures = {"logprobs": logp, "entropy": logp.detach(), "values": v}
        trainer._forward = lambda *_, figures=figures: figures
        total = total + trainer._compute_loss(trainer.model, part)
    return total


def test_the_loss_of_a_minibatch_and_its_gradients(trainer: Recorder, ragged: Ragged) -> None:
    """-min(r A, clip(r) A) and the clipped value loss, averaged over the minibatch; the slope of the first is -r A."""
    (x, log_ratio), (a, advantages) = ragged.draw(0.3), ragged.draw()
    (v, values), (was, old_values), (aim, returns) = (ragged.draw() for _ in range(3))
    parts = micro_batches(
        ragged, old_per_token_logps=-log_ratio, advantages=advantages, values=old_values, returns=returns
    )
    logprobs = torch.zeros_like(values, requires_grad=True)
    predicted = values.nan_to_num().requires_grad_()
    trainer._step = 4  # second epoch: the ratio need not be 1
    loss = losses(trainer, parts, logprobs, predicted)
    loss.backward()
    x, a, v, was, aim = (np.concatenate(rows) for rows in (x, a, v, was, aim))
    surrogate = np.minimum(np.exp(x) * a, np.clip(np.exp(x), 1 - LOW, 1 + HIGH) * a)
    held = np.clip(v, was - NEAR, was + NEAR)
    squared = np.maximum((v - aim) ** 2, (held - aim) ** 2) / 2
    assert_equal(loss.detach(), np.mean(WEIGHT * squared - surrogate))
    gone = ((a > 0) & (np.exp(x) > 1 + HIGH)) | ((a < 0) & (np.exp(x) < 1 - LOW))
    assert_equal(logprobs.grad[ragged.mask], np.where(gone, 0.0, -np.exp(x) * a) / len(x))
    frozen = (np.abs(v - was) > NEAR) & ((held - aim) ** 2 > (v - aim) ** 2)
    assert_equal(predicted.grad[ragged.mask], WEIGHT * np.where(frozen, 0.0, v - aim) / len(x))
    assert not logprobs.grad[~ragged.mask].any()
    expected = {"value_loss": squared, "clip_fraction": gone, "ratio_abs_log": np.abs(x), "step_kl_nats": -x}
    for name, tokens in expected.items():  # kept in float32
        assert trainer.seen[name][-1] == pytest.approx(np.mean(tokens), rel=1e-5, abs=1e-6), name


def test_the_first_ratio_is_the_mean_over_the_first_minibatch(trainer: Recorder, ragged: Ragged) -> None:
    x, log_ratio = ragged.draw(1e-6)
    zeros = torch.zeros_like(log_ratio)
    parts = micro_batches(ragged, old_per_token_logps=-log_ratio, advantages=zeros, values=zeros, returns=zeros)
    trainer._step = 0
    losses(trainer, parts, zeros.clone(), zeros)
    expected = np.mean(np.abs(np.concatenate(x)))
    assert trainer.seen["first_ratio_abs_log"][-1] == pytest.approx(expected, rel=1e-5)
    parts[-1]["old_per_token_logps"] += 1e-4
    with pytest.raises(TrainingError, match="first minibatch"):
        losses(trainer, parts, zeros.clone(), zeros)
    trainer.figures._minibatch.clear()
