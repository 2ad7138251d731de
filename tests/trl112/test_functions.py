"""The functions of TRL 1.12's PPO and ours, on random ragged batches: where they agree, and where TRL's are wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlhf_pipeline.ppo.masked import last_index, masked_mean, moments, whiten
from tests.trl112.captured import EOS, PAD, classifier, theirs

SEEDS = range(6)


def ragged(seed: int) -> tuple[Tensor, Tensor]:
    """Numbers and a mask, (6, 9): completions of one to nine tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.cat([torch.tensor([1, 9]), torch.randint(1, 10, (4,), generator=generator)])
    return torch.randn(6, 9, dtype=torch.float64, generator=generator), torch.arange(9) < lengths[:, None]


def assert_equal(ours: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(ours, other, atol=1e-12, rtol=1e-12)


# ---- Alike ----


@pytest.mark.parametrize("seed", SEEDS)
def test_means_and_variances_over_the_tokens_agree(seed: int) -> None:
    x, mask = ragged(seed)
    mean, variance = moments(x, mask)
    assert_equal(masked_mean(x, mask), theirs.masked_mean(x, mask))
    assert_equal(mean, theirs.masked_mean(x, mask))
    assert_equal(variance, theirs.masked_var(x, mask, unbiased=False))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_token_is_before_the_first_pad(seed: int) -> None:
    _, mask = ragged(seed)
    assert torch.equal(last_index(mask), theirs.first_true_indices(~mask) - 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_completion_ends_with_its_first_stop_token(seed: int) -> None:
    ids = torch.randint(1, 6, (20, 9), generator=torch.Generator().manual_seed(seed))  # ends often, pads never
    kept = theirs.truncate_response(EOS, PAD, ids)
    stops = [row.index(EOS) if EOS in row else 8 for row in ids.tolist()]
    assert last_index(kept != PAD).tolist() == stops


@torch.no_grad()
def test_the_score_is_read_at_the_last_token() -> None:
    _, mask = ragged(0)
    torch.manual_seed(0)
    model = classifier().double().eval()
    ids = torch.where(mask, torch.randint(2, 258, mask.shape), PAD)
    rows = torch.cat([torch.randint(2, 258, (6, 3)), ids], dim=1)
    _, scores, _ = theirs.get_reward(model, rows, PAD, 3)
    for row, last, score in zip(rows, last_index(mask).tolist(), scores, strict=True):
        assert_equal(score, model(input_ids=row[None, : 3 + last + 1]).logits[0, 0])


# ---- Different, and ours is right ----


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("center", [True, False])
def test_whitening_divides_by_n_less_one_there(seed: int, center: bool) -> None:
    """Whitened tokens have variance one here, (n - 1) / n there; OpenAI's code takes tf.nn.moments, which is over n."""
    x, mask = ragged(seed)
    n = int(mask.sum())
    ours, other = whiten(x, mask, center=center), theirs.masked_whiten(x, mask, shift_mean=center)
    assert ours[mask].var(correction=0).item() == pytest.approx(1, abs=1e-7)
    assert other[mask].var(correction=0).item() == pytest.approx((n - 1) / n, abs=1e-7)
    mean = 0.0 if center else x[mask].mean()
    torch.testing.assert_close((ours[mask] - mean) * math.sqrt((n - 1) / n) + mean, other[mask], atol=1e-7, rtol=0)


def test_a_batch_of_one_token_or_none_is_no_number_there() -> None:
    x, mask = torch.tensor([[3.0, 5.0]]), torch.tensor([[True, False]])
    assert theirs.masked_whiten(x, mask).isnan().any()
    assert whiten(x, mask, center=True).tolist() == [[0.0, 0.0]]
    nothing = torch.zeros_like(mask)
    assert theirs.masked_mean(x, nothing).isnan()
    assert masked_mean(x, nothing) == 0


def test_what_stands_on_a_pad_is_read_there() -> None:
    x, mask = torch.tensor([[3.0, 5.0, math.nan]]), torch.tensor([[True, True, False]])
    assert theirs.masked_mean(x, mask).isnan()
    assert masked_mean(x, mask) == 4


def test_a_pad_that_was_sampled_or_is_the_eos_ends_a_completion_early_there() -> None:
    """Four tokens were sampled, the last an EOS; the score belongs to the fourth. TRL looks for the first pad."""
    sampled, mask = torch.tensor([[5, PAD, 7, EOS, PAD]]), torch.tensor([[True, True, True, True, False]])
    assert last_index(mask).tolist() == [3]
    assert (theirs.first_true_indices(sampled == PAD) - 1).tolist() == [0]
    pad_is_eos = torch.tensor([[5, 6, 7, EOS, EOS]])
    assert (theirs.first_true_indices(pad_is_eos == EOS) - 1).tolist() == [2]
