"""Print the tables of docs/plan.md: `python -m benchmarks.plan_tables`. Arithmetic only; nothing is measured here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_pipeline.launch.plan.choices import choices, recommended
from rlhf_pipeline.launch.plan.gpus import GIB
from rlhf_pipeline.launch.plan.report import gib
from rlhf_pipeline.launch.plan.roles import Shapes, read_shapes, stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings

LLAMA_2: dict[str, dict[str, int]] = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "70B": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}  # fmt: skip
"""Touvron et al. 2023 (Llama 2) and the checkpoints' config.json files."""

COLUMNS: dict[str, dict[str, Any]] = {
    "sft": {"stage": "sft"},
    "ppo": {},
    "ppo, vLLM elsewhere": {"use_vllm": True, "vllm_mode": "server"},
    "ppo, LoRA": {"use_peft": True, "dtype": "bfloat16"},
    "ppo, LoRA, vLLM elsewhere": {"use_peft": True, "dtype": "bfloat16", "use_vllm": True, "vllm_mode": "server"},
}


def main() -> None:
    """Print a table for each kind of GPU."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = {name: _shapes(Path(folder), name) for name in LLAMA_2}
    print("\n\n".join("\n".join(table(gpu, shapes)) for gpu in ("h100", "h200")))


def _shapes(folder: Path, name: str) -> Shapes:
    file = folder / f"{name}.json"
    rest = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False}
    file.write_text(json.dumps({**rest, **LLAMA_2[name]}))
    return read_shapes(PlanSettings(model=str(file)))


def table(gpu: str, shapes: dict[str, Shapes]) -> Iterator[str]:
    """Yield the lines of a table: models by numbers of GPUs, against what is to be done."""
    yield f"| {gpu.upper()} | {' | '.join(COLUMNS)} |"
    yield "|---" * (1 + len(COLUMNS)) + "|"
    for name, of_model in shapes.items():
        for gpus in (1, 8, 64):
            cells = [cell(of_model, gpu=gpu, gpus=gpus, **changes) for changes in COLUMNS.values()]
            yield f"| {name} on {gpus} | {' | '.join(cells)} |"


def cell(shapes: Shapes, **changes: Any) -> str:
    """Say the recommended way, or the way that comes nearest and what it is full of."""
    settings = PlanSettings(model="llama-2", **changes)
    found = choices(settings, stage_roles(settings, shapes))
    best = recommended(found)
    if best is not None:
        host = f" + {best.host_bytes / GIB:,.0f} on the host" if best.host_bytes else ""
        return f"{best.name.partition(',')[0]}: {gib(best.bytes)} GiB{host}, {best.seconds:,.1f} s"
    least = min(found, key=lambda choice: choice.bytes)
    size = least.bytes if least.bytes > least.usable else least.host_bytes
    return f"**no**, {size / GIB:,.0f} GiB: {least.limit}"


if __name__ == "__main__":
    main()
