"""Bytes are counted once each and under the right name, and ZeRO's shares are what sharing out says they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.zero_memory import PLANNED, bytes_held, held, new_bytes, predicted, run, tensors_in


def test_bytes_of_plain_adam_by_hand() -> None:
    """Six weights: 24 bytes, as many of gradients, two moments of 24 and a count of steps of 4."""
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    found = bytes_held(model, optimizer)
    assert {name: found[name] for name in ("parameters", "gradients", "state")} == {
        "parameters": 24, "gradients": 24, "state": 2 * 24 + 4,
    }  # fmt: skip


def test_what_nobody_asked_for_is_counted_as_the_rest() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters())
    before = bytes_held(model, optimizer)["buckets"]
    bucket = torch.zeros(1000)
    assert bytes_held(model, optimizer)["buckets"] - before == bucket.untyped_storage().nbytes() == 4000


def test_views_of_one_storage_count_once() -> None:
    flat = torch.zeros(10)
    seen: set[int] = set()
    assert sum(new_bytes([flat[:5], flat[5:], flat], seen)) == 40
    assert sum(new_bytes([flat], seen)) == 0
    assert len(list(tensors_in({"a": [flat, None, {"b": (flat,)}], "c": 3}))) == 2


@pytest.mark.distributed
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("mode", ["ZeRO-2", "ZeRO-3"])
def test_two_ranks_hold_what_a_plan_predicts(mode: str, bf16: bool, tmp_path: Path) -> None:
    """With the installed DeepSpeed; tests/launch/plan/test_measured.py compares what was measured once."""
    pytest.importorskip("deepspeed", reason="ZeRO needs DeepSpeed: make install-dev")
    plan = predicted(mode, 2, bf16)
    for rank in run(mode, 2, tmp_path, bf16):
        for kind in PLANNED:
            assert rank[kind] == pytest.approx(plan[kind], abs=0.02 * held(plan)), kind
        assert rank["resident"] > held(rank)
