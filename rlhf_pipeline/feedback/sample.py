"""`rlhf sample`: write K completions of a model for every prompt, to be ranked.

In: a model (a role of the run, an artifact, a folder or a hub id) and prompts. Out: a JSONL file with prompt,
completions, finished and the prompt's facts. Left out: ranking them (`simulate`), and top-k or top-p sampling.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.derived import is_answered, write_derived
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.feedback.samples import Samples
from rlhf_pipeline.records import Prompt

SUMMARY = "Sample K completions of a model for every prompt and write them as JSONL, ready to be ranked."


@dataclass(frozen=True)
class SampleSettings:
    """What `rlhf sample` takes."""

    prompts: str = field(default="", metadata={"help": "prompts to answer: a file, folder or hub id; required"})
    model: str = field(default="sft", metadata={"help": "a role of the run, an artifact id, a folder or a hub id"})
    output: str = field(default="", metadata={"help": "file to write; default runs/<run>/feedback/samples.jsonl"})
    num_generations: int = field(default=4, metadata={"help": "completions of each prompt (K)"})
    temperature: float = field(default=1.0, metadata={"help": "sampling temperature; 0 is greedy"})
    max_completion_length: int = field(default=64, metadata={"help": "tokens after which a completion is cut off"})
    limit: int | None = field(default=None, metadata={"help": "use only the first so many prompts"})
    seed: int = field(default=0, metadata={"help": "seed of the sampling"})
    batch_size: int = field(default=256, metadata={"help": "completions sampled at once"})
    on_bad_row: Literal["error", "skip"] = field(default="error", metadata={"help": "what to do with an unusable row"})
    run: str = field(default="default", metadata={"help": "name of the run"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    force: bool = field(default=False, metadata={"help": "sample even if the same inputs were answered before"})

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        if not self.prompts:
            raise ConfigError("`prompts` is missing; name a file of prompts with --prompts")
        for name in ("num_generations", "max_completion_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, not {getattr(self, name)}")
        if self.temperature < 0:
            raise ConfigError(f"`temperature` must be 0 (greedy) or more, not {self.temperature}")


def main(argv: list[str]) -> int:
    """Run `rlhf sample`; return the exit status."""
    settings = command_settings(argv, "rlhf sample", SUMMARY, SampleSettings)
    if settings is not None:
        run(settings)
    return 0


def run(settings: SampleSettings) -> Path:
    """Sample as asked, unless the file that is there was made from the same inputs; return its path."""
    store = Store(settings.artifacts)
    checkpoint = find_checkpoint(store, settings.model, settings.run)
    rows = read(settings.prompts, Prompt, on_bad_row=settings.on_bad_row)
    prompts = rows.records[: settings.limit]
    output = Path(settings.output) if settings.output else store.root / "runs" / settings.run / "feedback/samples.jsonl"
    inputs = _inputs(settings, checkpoint, rows)
    if not settings.force and is_answered(output, inputs):
        print(f"sample: already answered by {output} (the same inputs; --force samples again)")
        return output
    began = time.monotonic()
    with store.lock(settings.run, "sample") as lock:
        lock.reads([checkpoint.parent] if store.has(checkpoint.parent) else [])
        samples = sample_prompts(store, checkpoint, prompts, settings)
    text = "".join(json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in samples)
    write_derived(output, text, inputs)
    bad = f" ({len(rows.bad)} bad rows skipped)" if rows.bad else ""
    print(
        f"sample: {len(samples)} prompts x {settings.num_generations} completions of {checkpoint.parent} in "
        f"{time.monotonic() - began:.0f} s -> {output}{bad}"
    )
    return output


def sample_prompts(
    store: Store, checkpoint: Checkpoint, prompts: list[Prompt], settings: SampleSettings
) -> list[Samples]:
    """Load the model and sample K completions of every prompt."""
    from rlhf_pipeline.generation import placement, sample
    from rlhf_pipeline.models import load_causal, load_tokenizer

    completions = sample(
        load_causal(store, checkpoint, **placement()),
        load_tokenizer(checkpoint),
        [prompt.prompt for prompt in prompts],
        temperature=settings.temperature,
        max_new_tokens=settings.max_completion_length,
        seed=settings.seed,
        num_return_sequences=settings.num_generations,
        batch_size=settings.batch_size,
    )
    return [
        Samples(
            prompt.prompt,
            [one.text for one in several],
            [one.finished for one in several],
            facts=prompt.facts,
            model=checkpoint.parent,
            user=prompt.user,
            source=prompt.source,
            id=prompt.id,
        )
        for prompt, several in zip(prompts, completions, strict=True)
    ]


def _inputs(settings: SampleSettings, checkpoint: Checkpoint, rows: Rows[Prompt]) -> dict[str, object]:
    names = ("num_generations", "temperature", "max_completion_length", "limit", "seed")
    chosen = {name: getattr(settings, name) for name in names}
    return {"command": "sample", "model": checkpoint.parent, "prompts": rows.fingerprint, **chosen}
