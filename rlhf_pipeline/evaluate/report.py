"""Word evaluation.json: tables that read well in 100 columns, and the same as Markdown. No torch.

Left out: any figure that is not in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 100
PLOT = "evaluation.png"
SPLITS = ("new-phrasing", "new-entity", "new-verb", "seen")
"""The order of the miniature world's splits; others follow in the order of the file."""


@dataclass(frozen=True)
class Section:
    """A table with its title and a note under it; every cell is text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Every table of the report that has rows."""
    makers = (_scores, _dimensions, _rewards, _win_rates, _pair_accuracy, _probes, _epochs)
    return [section for make in makers for section in make(report) if section.rows]


def print_report(report: Mapping[str, Any]) -> None:
    """Print the tables to the terminal."""
    print_sections(sections(report))


def print_sections(tables: Sequence[Section]) -> None:
    """Print tables to the terminal, one under the other."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=WIDTH, highlight=False, markup=False)
    for section in tables:
        console.print(section.title, style="bold")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(section.header):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
        if section.note:
            console.print(section.note, style="dim")
        console.print()


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown page, with sample answers."""
    parts = [f"# Evaluation of run `{report['run']}`", _about(report), f"![{PLOT}]({PLOT})"]
    parts += markdown_sections(sections(report))
    parts += ["## Answers side by side", "The first sample of each model, with its score.", *_answers(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_sections(tables: Sequence[Section]) -> list[str]:
    """Tables as paragraphs of Markdown."""
    parts = []
    for section in tables:
        rows = [section.header, ["---", *["---:"] * (len(section.header) - 1)], *section.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        parts += [f"## {section.title}", table, section.note]
    return parts


def split_names(report: Mapping[str, Any]) -> list[str]:
    """The splits of a report, the world's in their own order."""
    there = report["splits"]
    return [name for name in SPLITS if name in there] + [name for name in there if name not in SPLITS]


def score_text(estimate: Mapping[str, Any] | None, digits: int = 0) -> str:
    """A mean of 100 with its interval: `86.2 [83, 89]`."""
    if estimate is None:
        return "-"
    low, high = estimate["ci95"]
    return f"{estimate['mean']:.1f} [{low:.{digits}f}, {high:.{digits}f}]"


def share_text(estimate: Mapping[str, Any] | None) -> str:
    """A mean from 0 to 1 with its interval: `.86 [.83, .89]`."""
    if estimate is None:
        return "-"
    return f"{plain_share(estimate['mean'])} [{', '.join(map(plain_share, estimate['ci95']))}]"


def plain_share(value: float) -> str:
    """A number from 0 to 1 without its leading zero: `.86`."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def _about(report: Mapping[str, Any]) -> str:
    sampled = "greedily" if report["temperature"] == 0 else f"at temperature {report['temperature']:g}"
    models = ", ".join(f"{name} = `{model}`" for name, model in report["ids"].items())
    return (
        f"{report['num_generations']} samples a prompt {sampled}, at most {report['max_completion_length']} tokens, "
        f"seed {report['seed']}. Intervals are 95 %, over entities where prompts have them. {models}."
    )


def _scores(report: Mapping[str, Any]) -> Iterator[Section]:
    if report["compared_by"] != "judge":
        return
    splits = split_names(report)
    rows = [
        [name, *(score_text(report["splits"][split]["models"][name]["judge"]["score"]) for split in splits)]
        for name in report["models"]
    ]
    sampled = f"temperature {report['temperature']:g}, {report['num_generations']} samples a prompt"
    yield Section(f"Judge's score of 100 ({sampled})", ["model", *splits], rows, "[..] 95 % intervals over entities")


def _dimensions(report: Mapping[str, Any]) -> Iterator[Section]:
    if report["compared_by"] != "judge":
        return
    names = ("helpful", "truthful", "harmless")
    for split in split_names(report)[:2]:
        models = report["splits"][split]["models"]
        rows = [
            [
                name,
                *(score_text(found["judge"][dimension]) for dimension in names),
                f"{found['greedy']['score']['mean']:.1f}" if "greedy" in found else "-",
                f"{found['completion_tokens']:.1f}",
                f"{100 * found['finished']:.0f} %",
                f"{found['kl_nats']['mean']:.2f}" if "kl_nats" in found else "-",
            ]
            for name, found in models.items()
        ]
        header = ["model", *names, "greedy", "tokens", "ended", "KL"]
        note = (
            "greedy: score at temperature 0; truthful counts answers that state something; "
            f"KL to {report['reference']}, nats an answer"
        )
        yield Section(f"{split}: what the score is made of", header, rows, note)


def _rewards(report: Mapping[str, Any]) -> Iterator[Section]:
    if report["compared_by"] == "judge":
        return
    for split in split_names(report):
        rows = [
            [
                name,
                f"{found['reward']['mean']:.3f}" if "reward" in found else "-",
                f"{found['kl_nats']['mean']:.2f}" if "kl_nats" in found else "-",
                f"{found['completion_tokens']:.1f}",
                f"{100 * found['finished']:.0f} %",
            ]
            for name, found in report["splits"][split]["models"].items()
        ]
        yield Section(f"{split}: reward model's score", ["model", "reward", "KL", "tokens", "ended"], rows)


def _win_rates(report: Mapping[str, Any]) -> Iterator[Section]:
    several = f"mean_of_{report['num_generations']}"
    rows = []
    for split in split_names(report)[:2]:
        for pair, found in report["splits"][split]["win_rate"].items():
            shares = "/".join(f"{100 * found[name]:.0f}" for name in ("win", "tie", "loss"))
            rows.append([pair.replace("_", " "), split, shares, share_text(found), share_text(found.get(several))])
    header = ["pair", "prompts", "win/tie/loss %", "one sample", several.replace("_", " ")]
    yield Section(f"Win rates by the {report['compared_by']}, ties half", header, rows)


def _pair_accuracy(report: Mapping[str, Any]) -> Iterator[Section]:
    found = {split: report["splits"][split].get("reward_accuracy") for split in split_names(report)}
    headline = report.get("reward_accuracy") or {}
    if "prompts" in headline:
        found = {headline["prompts"]: headline, **found}
    rows = [[split, share_text(one), plain_share(one["ceiling"]), str(one["n"])] for split, one in found.items() if one]
    yield Section(
        "Reward model: pairs ordered as labellers ranked them",
        ["prompts", "accuracy", "ceiling", "pairs"],
        rows,
        "ceiling: the exact judge on the same pairs, whose labellers err at a known rate",
    )


def _probes(report: Mapping[str, Any]) -> Iterator[Section]:
    rows, flaws = [], dict[str, None]()
    for split in split_names(report):
        for kind, found in report["splits"][split].get("reward_probes", {}).items():
            flaws |= dict.fromkeys(found)
            rows.append((f"{split}, {kind}", found))
    cells = [[name, *(plain_share(f[flaw]["mean"]) if flaw in f else "" for flaw in flaws)] for name, f in rows]
    note = "how often the right answer scores above one with just that flaw; .50 is a coin"
    yield Section("Reward model: what it can tell apart", ["prompts", *flaws], cells, note)


def _epochs(report: Mapping[str, Any]) -> Iterator[Section]:
    rows = [
        [
            f"{one['epoch']:g}",
            "-" if one["eval_loss"] is None else f"{one['eval_loss']:.4f}",
            *(score_text(one["judge"][name]) for name in ("score", "helpful", "truthful", "harmless")),
        ]
        for one in report.get("sft_epochs", [])
    ]
    header = ["epoch", "held-out loss", "score", "helpful", "truthful", "harmless"]
    yield Section(f"SFT along its epochs ({report['split']})", header, rows)


def _answers(report: Mapping[str, Any]) -> Iterator[str]:
    for split in split_names(report):
        for sample in report["splits"][split]["samples"]:
            yield f"**{split}** {_inline(_prompt_text(sample['prompt']))}"
            yield "\n".join(
                f"- {name}{_scored(answer)}: {_inline(answer['text'])}{'' if answer['finished'] else ' (cut off)'}"
                for name, answer in sample["answers"].items()
            )


def _scored(answer: Mapping[str, Any]) -> str:
    return f" ({answer['score']})" if "score" in answer else ""


def _inline(text: str) -> str:
    """Text as one line of Markdown code."""
    line = " ".join(text.split()).replace("`", "'")
    return f"`{line}`" if line else "(nothing)"


def _prompt_text(prompt: str | Sequence[Mapping[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else " ".join(f"{one['role']}: {one['content']}" for one in prompt)
