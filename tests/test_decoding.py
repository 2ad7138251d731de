"""The loop: tokens follow the tempered softmax, rows that ended cost nothing, keys and values are written in place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from rlhf_pipeline.decoding import RoomyLayer, decode, evaluating, left_pad, make_room, next_tokens
from tests.tiny import make_llama


def test_next_tokens_follow_the_tempered_softmax():
    logits = torch.tensor([1.0, 0.0, -torch.inf, 2.0])
    uniform = torch.from_numpy(np.random.default_rng(0).random(40_000))
    drawn, _ = next_tokens(logits.expand(40_000, 4), 0.5, uniform)
    share = torch.bincount(drawn, minlength=4) / 40_000
    # exp([2, 0, -inf, 4]) / sum = [7.389, 1, 0, 54.598] / 62.987
    torch.testing.assert_close(share, torch.tensor([0.1173, 0.0159, 0.0, 0.8668]), atol=0.006, rtol=0)


def test_inverse_cdf_at_its_ends():
    logits = torch.log(torch.tensor([[0.0, 0.5, 0.5, 0.0]])).expand(3, 4)
    assert next_tokens(logits, 1.0, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))[0].tolist() == [1, 2, 2]


def test_finished_rows_are_not_computed_again():
    calls = []
    cache = SimpleNamespace(batch_repeat_interleave=lambda k: None, batch_select_indices=lambda kept: None)

    def forward(*, input_ids, **rest):
        calls.append(len(input_ids))
        logits = torch.full((len(input_ids), 1, 4), -10.0)
        logits[:, :, 1 if len(calls) > 1 else 3] = 10.0
        logits[0, :, :] = torch.tensor([0.0, 50.0, 0.0, 0.0])  # the first row that is left always ends with token 1
        return SimpleNamespace(logits=logits, past_key_values=cache)

    noise = torch.full((3, 1, 5), 0.5, dtype=torch.float64)
    rows, _ = decode(forward, torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2, dtype=torch.long), noise, [1], 1.0)
    assert calls == [3, 2]
    assert rows == [[1], [3, 1], [3, 1]]


def test_log_probabilities_are_those_of_the_drawn_tokens():
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = next_tokens(logits, 0.7, torch.linspace(0, 0.999, 50, dtype=torch.float64))
    expected = (logits / 0.7).log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(logprobs, expected)


def _sampled(model, noise, stops=(7, 9, 30, 77, 200)):
    ids, mask = left_pad([[5, 6, 7, 8], [9], [3, 3]], 0, torch.device("cpu"))
    with evaluating(model) as forward:
        return decode(forward, ids, mask, noise, stops, 1.3)


def test_rows_that_leave_change_nothing_for_those_that_stay():
    """Many stop ids, so that rows leave at different steps; each row alone gives the same ids and log-probabilities."""
    model = make_llama()
    noise = torch.from_numpy(np.random.default_rng(1).random((3, 4, 40)))
    stops = tuple(range(0, 258, 9))
    together, logprobs = _sampled(model, noise, stops)
    assert len({len(row) for row in together}) > 4
    for n, prompt in enumerate([[5, 6, 7, 8], [9], [3, 3]]):
        for k in range(4):
            ids = torch.tensor([prompt])
            with evaluating(model) as forward:
                [alone], [logprob] = decode(forward, ids, torch.ones_like(ids), noise[n, k].view(1, 1, -1), stops, 1.3)
            assert together[4 * n + k] == alone
            assert logprobs[4 * n + k] == pytest.approx(logprob, abs=1e-5)


def test_keys_and_values_stay_in_place():
    cache = DynamicCache()
    keys = torch.arange(24.0).view(3, 1, 4, 2)
    cache.update(keys, -keys, 0)
    make_room(cache, 3)
    layer = cache.layers[0]
    assert isinstance(layer, RoomyLayer)
    stored = layer.keys.data_ptr()
    cache.batch_select_indices(torch.tensor([2, 1]))
    new = torch.full((2, 1, 1, 2), 100.0)
    found, values = cache.update(new, -new, 0)
    assert found.data_ptr() == stored
    torch.testing.assert_close(found, torch.cat([keys[[2, 1]], new], dim=2))
    torch.testing.assert_close(values, -found)
    assert cache.get_seq_length() == 5


def test_sliding_windows_keep_their_own_layers():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=4,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    noise = torch.from_numpy(np.random.default_rng(1).random((3, 1, 12)))
    rows, _ = _sampled(model, noise, stops=())
    logits = model(torch.tensor([[5, 6, 7, 8, *rows[0]]])).logits[0, 3:-1]
    again, _ = next_tokens(logits, 1.3, noise[0, 0])
    assert again.tolist() == rows[0]
