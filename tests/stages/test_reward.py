"""The reward stage counts pairs, not batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlhf_pipeline.stages.reward import pair_accuracy
from tests.tiny import make_classifier, make_tokenizer


def test_accuracy_counts_every_held_out_pair_once() -> None:
    model = make_classifier()
    rows = [[2 + n % 7, 9, 4 + n] for n in range(6)]
    with torch.no_grad():
        scores = [model(input_ids=torch.tensor([row])).logits.item() for row in rows]
    best_first = [row for _, row in sorted(zip(scores, rows, strict=True), reverse=True)]
    right = [{"chosen_ids": best_first[n], "rejected_ids": best_first[n + 1]} for n in range(4)]
    wrong = [{"chosen_ids": best_first[5], "rejected_ids": best_first[0]}]
    trainer = SimpleNamespace(
        is_deepspeed_enabled=False,
        accelerator=SimpleNamespace(unwrap_model=lambda one: one),
        model=model,
        processing_class=make_tokenizer(),
        args=SimpleNamespace(per_device_eval_batch_size=2),
    )

    found = pair_accuracy(trainer, right + wrong)  # type: ignore[arg-type]

    assert found["eval_accuracy"] == pytest.approx(0.8)
    assert found["eval_accuracy_low"] < 0.8 < found["eval_accuracy_high"]
