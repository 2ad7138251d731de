"""The judge's score along SFT, from the checkpoints that `rlhf sft --keep_checkpoints` leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.evaluate.answers import Sampling, answer
from rlhf_pipeline.evaluate.judged import clusters_of, judge_answers, summary
from rlhf_pipeline.generation import placement
from rlhf_pipeline.models import load_causal, load_tokenizer
from rlhf_pipeline.progress import COMPLETE
from rlhf_pipeline.records import Prompt


def sft_checkpoints(store: Store, run: str, sft: str) -> list[Path]:
    """The complete trainer checkpoints behind the artifact `sft`, by step; empty where none were kept."""
    key = store.manifest(sft).input_key
    folder = store.root / "runs" / run / "sft" / key[:12] / "checkpoints"
    found = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return sorted(found, key=_step)


def score_by_epoch(
    store: Store, checkpoints: Sequence[Path], prompts: Sequence[Prompt], sampling: Sampling
) -> list[dict[str, Any]]:
    """Sample each checkpoint once a prompt and judge it: epoch, held-out loss where it was measured, and scores."""
    texts = [prompt.prompt for prompt in prompts]
    found = []
    for folder in checkpoints:
        checkpoint = Checkpoint(folder.name, str(folder))
        model = load_causal(store, checkpoint, **placement())
        answers = answer(model, load_tokenizer(checkpoint), texts, replace(sampling, num_generations=1), greedy=False)
        judged = summary(judge_answers(prompts, answers.texts()), clusters_of(prompts))
        found.append({**_training_state(folder), "judge": judged})
    return found


def _training_state(folder: Path) -> dict[str, Any]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    return {"epoch": round(state["epoch"], 2), "step": _step(folder), "eval_loss": losses.get(_step(folder))}


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
