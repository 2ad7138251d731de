"""Train reward models on rankings by people, from a pretrained base and from random weights, and measure them.

In: a small causal model, and rankings that the stages read: OpenAssistant's trees, HH-RLHF's pairs. Out, in
benchmarks/results: `real_rankings.json` and `real_rankings.png`. All is done by the commands that a user has: `rlhf
data curate` divides, `rlhf reward` trains on one side, `rlhf evaluate reward` measures on the other, beside chance,
length and a bag of words fitted on that same training side. Left out: several seeds; intervals are over prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.provenance import describe_machine, describe_moment
from rlhf_pipeline import cli
from rlhf_pipeline.evaluate.reward.report import ahead_text

RESULTS = Path("benchmarks/results")
STARTS = ("pretrained", "random")
HELD_OUT = 0.4
SETTINGS = {
    "--learning_rate": "3e-4",
    "--per_device_train_batch_size": "8",
    "--gradient_checkpointing": "false",
    "--eval_fraction": "0",
    "--on_long_row": "skip",
    "--bf16": "false",
    "--use_cpu": "true",
    "--logging_steps": "20",
    "--report_to": "none",
}
ORDER = ("chance", "length", "bag of words", "random", "pretrained")
COLOURS = ("#8c8c8c", "#8c8c8c", "#8c8c8c", "#72b7b2", "#4c78a8")


@dataclass(frozen=True)
class Task:
    """One set of rankings: what holds a side together, tokens that a row may have, and times the rows are seen."""

    name: str
    split_by: str
    positions: int
    epochs: int
    settings: Mapping[str, str] = field(default_factory=lambda: dict(SETTINGS))


TASKS = {
    "hh": Task("hh", split_by="prompt", positions=512, epochs=2),
    "oasst": Task("oasst", split_by="conversation", positions=1024, epochs=2),
}


def main(argv: Sequence[str]) -> None:
    """Measure the sets that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_rankings", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--base", type=Path, required=True, help="folder of a small causal model")
    parser.add_argument("--hh", type=Path, help="pairs of HH-RLHF: a .jsonl or .jsonl.gz file")
    parser.add_argument("--oasst", type=Path, help="trees of OpenAssistant: a .jsonl file")
    parser.add_argument("--folder", type=Path, help="where everything is made; default: a temporary one")
    options = parser.parse_args(argv)
    sources = {name: getattr(options, name) for name in TASKS if getattr(options, name)}
    if not sources:
        parser.error("no rankings; pass --hh <file>, --oasst <file> or both")
    missing = [str(path) for path in (options.base, *sources.values()) if not path.exists()]
    if missing:
        parser.error(f"{', '.join(missing)}: no such file or folder")
    with TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder:
        found = measure_all([TASKS[name] for name in sources], sources, options.base, Path(folder))
    write({"machine": describe_machine(), **describe_moment(), "tasks": found})


def measure_all(tasks: Sequence[Task], sources: Mapping[str, Path], base: Path, folder: Path) -> dict[str, Any]:
    """Train all reward models of all tasks, then measure each on every held-out set: its own and the other's."""
    base, sources = base.resolve(), {name: path.resolve() for name, path in sources.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        for task in tasks:
            divide(task, sources[task.name])
        return {
            task.name: {
                "task": asdict(task),
                "seconds": {start: train(task, base, start) for start in STARTS},
                "evaluation": evaluate(task, [other.name for other in tasks]),
            }
            for task in tasks
        }


def divide(task: Task, source: Path) -> None:
    """Curate the rankings and part them into `<task>/train.jsonl` and `<task>/eval.jsonl`."""
    sides = ("--split_by", task.split_by, "--eval_fraction", str(HELD_OUT))
    rlhf("data", "curate", str(source), "--kind", "ranking", "--output", task.name, *sides)


def train(task: Task, base: Path, start: str) -> float:
    """Train one reward model on a task's training side, and return the seconds it took."""
    write_start(base, Path(f"start-{task.name}-{start}"), start, task.positions)
    settings = [word for both in task.settings.items() for word in both]
    began = time.monotonic()
    rlhf(
        *("reward", "--run", f"{task.name}-{start}", "--model", f"./start-{task.name}-{start}"),
        *("--data", f"{task.name}#train", "--max_length", str(task.positions)),
        *("--num_train_epochs", str(task.epochs), *settings),
    )
    return round(time.monotonic() - began, 1)


def write_start(base: Path, folder: Path, start: str, positions: int) -> None:
    """Save the base with room for `positions` tokens, or the same architecture with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(base)
    config.max_position_embeddings = positions
    torch.manual_seed(0)
    if start == "pretrained":
        model = AutoModelForCausalLM.from_pretrained(base, config=config)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def evaluate(task: Task, names: Sequence[str]) -> dict[str, Any]:
    """Measure a task's models on all held-out sets, their own first; give the command's report."""
    data = [f"{name}#eval" for name in sorted(names, key=lambda name: name != task.name)]
    models = [f"{task.name}-{start}/reward" for start in STARTS]
    rlhf(
        *("evaluate", "reward", "--run", task.name, "--reward", *models, "--data", *data),
        *("--train", f"{task.name}#train", "--on_long_row", "skip"),
    )
    report: dict[str, Any] = json.loads(Path(f"artifacts/runs/{task.name}/evaluation-reward.json").read_text("utf-8"))
    return report


def rlhf(*words: str) -> None:
    """Run a command as a user would; stop where it fails."""
    print(f"\n$ rlhf {' '.join(words)}", flush=True)
    if status := cli.main(words):
        raise SystemExit(status)


def compared(report: Mapping[str, Any], data: str) -> dict[str, Mapping[str, Any]]:
    """Accuracies on one held-out set: chance, the baselines, and the two models by what they started from."""
    found = report["data"][data]
    baselines = {name.replace("_", " "): one["accuracy"] for name, one in found["baselines"].items()}
    models = {start_of(name): one["accuracy"] for name, one in found["rewards"].items()}
    rows = {"chance": {"mean": 0.5, "ci95": [0.5, 0.5]}, **baselines, **models}
    return {name: rows[name] for name in ORDER}


def differences(found: Mapping[str, Any]) -> list[str]:
    """Say by how much each model is ahead of each baseline on its own held-out pairs, a line each."""
    return [
        f"{task}: {start_of(name)} vs {base.replace('_', ' ')}: {ahead_text(estimate)}"
        for task, one in found.items()
        for name, model in one["evaluation"]["data"][f"{task}#eval"]["rewards"].items()
        for base, estimate in model["ahead_of"].items()
    ]


def start_of(model: str) -> str:
    """What a model started from, by its name."""
    return model.partition("/")[0].rpartition("-")[2]


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Write `file`, a PNG: a panel a task, held-out accuracy with its interval."""
    from matplotlib.figure import Figure

    from rlhf_pipeline.evaluate.plots import error_bars

    figure = Figure(figsize=(5 * len(found), 3), layout="constrained")
    for axes, (name, one) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        rows = compared(one["evaluation"], f"{name}#eval")
        held_out = one["evaluation"]["data"][f"{name}#eval"]
        for place, (estimate, colour) in enumerate(zip(rows.values(), COLOURS, strict=True)):
            axes.errorbar(estimate["mean"], place, xerr=error_bars([estimate]), fmt="o", capsize=3, color=colour)
        axes.axvline(0.5, color="black", lw=0.8)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_title(
            f"{name}: {held_out['pairs']} held-out pairs of {held_out['prompts']} prompts", fontsize="medium"
        )
    figure.savefig(file, dpi=120, metadata={"Software": None})


def write(result: Mapping[str, Any]) -> None:
    """Write the JSON and the plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "real_rankings.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result["tasks"], RESULTS / "real_rankings.png")
    print("\n".join(differences(result["tasks"])))
    print(f"{RESULTS / 'real_rankings.json'} and real_rankings.png")


if __name__ == "__main__":
    main(sys.argv[1:])
