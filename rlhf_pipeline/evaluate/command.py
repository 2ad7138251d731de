"""`rlhf eval`: judge the models of a run, compare them, and write the report.

In: artifacts of a run and held-out prompts. Out, in runs/<run>: evaluation.json, evaluation.md, evaluation.png; the
same inputs are answered from there. With `--prompts` any data is evaluated, by the reward model instead of the judge.
With `--frontier run_a run_b` the PPO logs of runs are drawn against KL. Left out: judging by people or another model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.derived import is_answered, write_derived
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.evaluate.frontier import write_frontier
from rlhf_pipeline.evaluate.report import PLOT, markdown, print_report
from rlhf_pipeline.records import Prompt, fingerprint

VERSION = 4
"""Of what is measured and how it is written; part of the input key."""

HEADLINE = "new-phrasing"
NONE = "none"


@dataclass(frozen=True)
class EvaluationSettings:
    """What `rlhf eval` takes."""

    run: str = field(default="default", metadata={"help": "name of the run"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    force: bool = field(default=False, metadata={"help": "evaluate even if the same inputs were answered before"})
    models: list[str] = field(
        default_factory=lambda: ["base", "sft", "policy"],
        metadata={"help": "models to compare, earlier ones first: roles of the run, artifact ids, folders, hub ids"},
    )
    reference: str = field(default="sft", metadata={"help": "the model among them that KL is measured to"})
    reward: str = field(default="reward", metadata={"help": "the reward model, or none"})
    world: str = field(default="", metadata={"help": "folder of the miniature world; default runs/<run>/world"})
    held_out: Literal["eval", "tune"] = field(
        default="eval", metadata={"help": "prompts of the world: eval for the report, tune while recipes are tuned"}
    )
    prompts: str = field(default="", metadata={"help": "evaluate on these prompts, without a judge: a file or hub id"})
    limit: int = field(default=300, metadata={"help": "prompts of each split"})
    num_generations: int = field(default=4, metadata={"help": "samples of each prompt (K)"})
    temperature: float = field(default=1.0, metadata={"help": "sampling temperature; greedy is measured beside it"})
    max_completion_length: int = field(default=48, metadata={"help": "tokens after which an answer is cut off"})
    seed: int = field(default=0, metadata={"help": "seed of the sampling"})
    batch_size: int = field(default=256, metadata={"help": "completions sampled at once"})
    error_rate: float = field(default=0.1, metadata={"help": "labellers' error rate, for the reward model's accuracy"})
    ensemble_reduction: Literal["mean", "min"] = field(
        default="mean", metadata={"help": "what the scores of an ensemble of reward models are reduced to"}
    )
    disagreement_coef: float = field(
        default=0.0, metadata={"help": "weight of the ensemble's standard deviation, taken off that score"}
    )
    on_long_row: Literal["error", "skip"] = field(default="error", metadata={"help": "prompts too long for a model"})
    frontier: list[str] = field(default_factory=list, metadata={"help": "only draw these runs' PPO logs against KL"})

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        for name in ("limit", "num_generations", "max_completion_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, not {getattr(self, name)}")
        if self.temperature < 0:
            raise ConfigError(f"`temperature` must be 0 (greedy) or more, not {self.temperature}")
        if len(set(self.models)) != len(self.models) or not self.models:
            raise ConfigError(f"`models` must name different models, not {' '.join(self.models) or 'none'}")


def main(argv: list[str]) -> int:
    """Run `rlhf eval`; return the exit status."""
    settings = command_settings(argv, "rlhf eval", (__doc__ or "").split("\n\n")[0], EvaluationSettings)
    if settings is None:
        return 0
    if settings.frontier:
        print(write_frontier(Store(settings.artifacts), settings.frontier, force=settings.force))
    else:
        run(settings)
    return 0


def run(settings: EvaluationSettings) -> Path:
    """Evaluate as asked, unless the report that is there was made from the same inputs; print it, return its path."""
    store = Store(settings.artifacts)
    models = {name: find_checkpoint(store, name, settings.run) for name in settings.models}
    reward = None if settings.reward == NONE else find_checkpoint(store, settings.reward, settings.run)
    splits, world_seed = _prompts(store, settings)
    inputs = _inputs(settings, models, reward, splits, world_seed)
    output = store.root / "runs" / settings.run / "evaluation.json"
    if not settings.force and is_answered(output, inputs):
        print_report(json.loads(output.read_text(encoding="utf-8")))
        print(f"eval: already answered by {output} (the same inputs; --force evaluates again)")
        return output
    with store.lock(settings.run, "eval") as lock:
        lock.reads([one.parent for one in (*models.values(), *([reward] if reward else [])) if store.has(one.parent)])
        measured = _measure(store, settings, models, reward, splits, world_seed)
    report = {**_about(settings, models, reward), **measured}
    _write(output, report, inputs)
    print_report(report)
    print(f"eval: {report['seconds']['eval']:.0f} s -> {output}, and beside it evaluation.md and {PLOT}")
    return output


def _measure(
    store: Store,
    settings: EvaluationSettings,
    models: Mapping[str, Checkpoint],
    reward: Checkpoint | None,
    splits: Mapping[str, list[Prompt]],
    world_seed: int | None,
) -> dict[str, Any]:
    from rlhf_pipeline.ensembles import Reduction
    from rlhf_pipeline.evaluate.answers import Sampling
    from rlhf_pipeline.evaluate.run import Evaluation, evaluate

    sampling = Sampling(
        num_generations=settings.num_generations,
        temperature=settings.temperature,
        max_completion_length=settings.max_completion_length,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    asked = Evaluation(
        run=settings.run,
        models=models,
        splits=splits,
        headline=HEADLINE if HEADLINE in splits else next(iter(splits)),
        reference=settings.reference if settings.reference in models else None,
        reward=reward,
        sampling=sampling,
        world_seed=world_seed,
        error_rate=settings.error_rate,
        on_long_row=settings.on_long_row,
        reduction=Reduction(settings.ensemble_reduction, settings.disagreement_coef),
    )
    return evaluate(store, asked)


def _prompts(store: Store, settings: EvaluationSettings) -> tuple[dict[str, list[Prompt]], int | None]:
    """The prompts by split, and the seed of the world they belong to, which is None for prompts of one's own."""
    if settings.prompts:
        return {Path(settings.prompts).name: read(settings.prompts, Prompt).records[: settings.limit]}, None
    world = Path(settings.world) if settings.world else store.root / "runs" / settings.run / "world"
    files = sorted((world / settings.held_out).glob("*.jsonl"))
    if not files or not (world / "world.json").is_file():
        raise DataError(
            f"{world}: no miniature world with {settings.held_out}/*.jsonl and world.json; type `rlhf world --folder "
            f"{world}`, or evaluate on prompts of your own with `--prompts <file>`"
        )
    seed = json.loads((world / "world.json").read_text(encoding="utf-8"))["seed"]
    return {file.stem: read(str(file), Prompt).records[: settings.limit] for file in files}, int(seed)


def _inputs(
    settings: EvaluationSettings,
    models: Mapping[str, Checkpoint],
    reward: Checkpoint | None,
    splits: Mapping[str, list[Prompt]],
    world_seed: int | None,
) -> dict[str, Any]:
    names = (
        "reference",
        "num_generations",
        "temperature",
        "max_completion_length",
        "seed",
        "error_rate",
        "on_long_row",
        "ensemble_reduction",
        "disagreement_coef",
    )
    return {
        "command": "eval",
        "version": VERSION,
        "models": {name: checkpoint.parent for name, checkpoint in models.items()},
        "reward": reward and reward.parent,
        "prompts": {name: fingerprint(prompts) for name, prompts in splits.items()},
        "world_seed": world_seed,
        **{name: getattr(settings, name) for name in names},
    }


def _about(settings: EvaluationSettings, models: Mapping[str, Checkpoint], reward: Checkpoint | None) -> dict[str, Any]:
    ids = {name: checkpoint.parent for name, checkpoint in models.items()}
    return {
        "run": settings.run,
        "ids": ids if reward is None else {**ids, settings.reward: reward.parent},
        "reference": settings.reference if settings.reference in models else None,
        "held_out": None if settings.prompts else settings.held_out,
        "temperature": settings.temperature,
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_completion_length,
        "seed": settings.seed,
    }


def _write(output: Path, report: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write page and plot first: once evaluation.json is there, so are they."""
    from rlhf_pipeline.evaluate.plots import draw_evaluation

    with storage_errors(f"{output.parent}: cannot write"):
        output.parent.mkdir(parents=True, exist_ok=True)
        (output.parent / PLOT).write_bytes(draw_evaluation(report))
        (output.parent / "evaluation.md").write_text(markdown(report), encoding="utf-8")
    write_derived(output, json.dumps(report, indent=1, ensure_ascii=False) + "\n", inputs)
