"""What follows from the machine."""

from __future__ import annotations

import ctypes
import sys

import pytest

from rlhf_pipeline import machine


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({}, False), ({"avx512_bf16": False}, False), ({"amx_bf16": True}, True)]
)
def test_bf16_is_used_where_the_processor_multiplies_it(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert machine.cpu_has_bf16() is expected


def test_short_rows_take_plain_attention() -> None:
    assert machine.cpu_attention(512) == {"attn_implementation": "eager"}
    assert machine.cpu_attention(513) == {}


def test_malloc_is_asked_to_keep_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        @staticmethod
        def mallopt(option: int, value: int) -> int:
            asked.append((option, value))
            return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    machine.keep_freed_memory()
    assert asked == [(-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20)]


def test_another_libc_or_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    machine.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    machine.keep_freed_memory()
