"""Word evaluation-reward.json: tables for the terminal, and the same as Markdown. No torch.

Left out: any figure that is not in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_pipeline.evaluate.report import Section, markdown_sections, plain_share, share_text

PLOT = "evaluation-reward.png"
CHANCE = {"mean": 0.5, "ci95": [0.5, 0.5]}
HELD_OUT = "length and bag of words never saw the prompts they are measured on"
SLICES = {
    "k": "K",
    "rank_distance": "ranks apart",
    "source": "source",
    "length": "length",
    "length_difference": "longer by",
}
BASELINES = ("length", "bag of words")
MOST_SLICES = 8
"""Slices of one kind that are printed; the JSON has all."""


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Every table of the report that has rows."""
    makers = (_accuracy, _ahead, _slices, _calibration, _labellers, _length, _eos, _counts)
    return [section for make in makers for section in make(report) if section.rows]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown page."""
    models = ", ".join(f"{name} = `{model}`" for name, model in report["ids"].items())
    fitted = f"fitted on {', '.join(report['train'])}" if report["train"] else "cross-fitted by prompt"
    about = f"{models}. Baselines are {fitted}. Intervals are 95 %, over prompts; a tie of the score counts half."
    parts = [f"# Reward models of run `{report['run']}`", about, f"![{PLOT}]({PLOT})"]
    return "\n\n".join(part for part in [*parts, *markdown_sections(sections(report))] if part) + "\n"


def compared(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is compared on one data set: the baselines, and then the reward models."""
    baselines = {name.replace("_", " "): one for name, one in found["baselines"].items()}
    return {**baselines, **found["rewards"]}


def _accuracy(report: Mapping[str, Any]) -> Iterator[Section]:
    data = report["data"]
    names = list(compared(next(iter(data.values()))))
    rows = [["chance", *(".50" for _ in data)]]
    rows += [[name, *(share_text(compared(found)[name]["accuracy"]) for found in data.values())] for name in names]
    rows.append(["pairs (prompts)", *(f"{found['pairs']} ({found['prompts']})" for found in data.values())])
    note = "[..] 95 % intervals over prompts; " + (_not_held_out(data) or HELD_OUT)
    yield Section("Pairs ordered as the labellers ranked them", ["scored by", *data], rows, note)


def _ahead(report: Mapping[str, Any]) -> Iterator[Section]:
    data = report["data"]
    rows = [
        [f"{reward} vs {base}", *(ahead_text(found["rewards"][reward]["ahead_of"][key]) for found in data.values())]
        for reward in report["ids"]
        for base in BASELINES
        if any(found["rewards"][reward]["ahead_of"][key := base.replace(" ", "_")] for found in data.values())
    ]
    note = "accuracy minus the baseline's, pair by pair; shown to be ahead where the interval lies above 0"
    yield Section("Ahead of the baselines on the same pairs", ["who", *data], rows, note)


def ahead_text(estimate: Mapping[str, Any] | None) -> str:
    """A difference of shares with its interval: `+.02 [-.01, +.05]`."""
    if estimate is None:
        return "-"
    mean, low, high = (f"{value:+.2f}".replace("0.", ".", 1) for value in (estimate["mean"], *estimate["ci95"]))
    return f"{mean} [{low}, {high}]"


def _not_held_out(data: Mapping[str, Any]) -> str:
    """Name what was measured on rankings that it had seen."""
    seen = [
        f"the baselines saw {found['shared_prompts']} prompts of {name}"
        for name, found in data.items()
        if found["shared_prompts"]
    ]
    seen += [
        f"{reward} was trained on {name}"
        for name, found in data.items()
        for reward, one in found["rewards"].items()
        if one["trained_on_it"]
    ]
    return f"NOT held out: {'; '.join(seen)}" if seen else ""


def _slices(report: Mapping[str, Any]) -> Iterator[Section]:
    for name, found in report["data"].items():
        columns = compared(found)
        rows = []
        for kind, title in SLICES.items():
            slices = {label: None for one in columns.values() for label in one["by"][kind]}
            if len(slices) > 1:
                rows += [_slice_row(columns, kind, title, label) for label in list(slices)[:MOST_SLICES]]
        note = "similar length: within 10 % of the longer one; longer by: characters, better one minus worse one"
        yield Section(f"{name}: accuracy by slice", ["slice", *columns, "pairs"], rows, note)


def _slice_row(columns: Mapping[str, Any], kind: str, title: str, label: str) -> list[str]:
    found = {name: one["by"][kind].get(label) for name, one in columns.items()}
    cells = [plain_share(one["mean"]) if one and name in BASELINES else share_text(one) for name, one in found.items()]
    *_, last = found.values()
    return [label if kind == "length" else f"{title} {label}", *cells, str(last["n"] if last else 0)]


def _calibration(report: Mapping[str, Any]) -> Iterator[Section]:
    rows = [
        [
            _name(report, data, reward),
            f"{one['ece']:.3f}",
            f"{one['ece_if_calibrated']:.3f}",
            plain_share(one["mean_confidence"]),
            f"{one['brier']['mean']:.3f}",
            f"{one['log_loss']['mean']:.3f}",
        ]
        for data, reward, found in _measured(report)
        if (one := found["calibration"])
    ]
    header = ["reward model", "ECE", "by chance", "confidence", "Brier", "log loss"]
    note = "of sigmoid(score difference). by chance: the ECE of a perfectly calibrated model; a coin has .250 and .693"
    yield Section("Calibration", header, rows, note)


def _labellers(report: Mapping[str, Any]) -> Iterator[Section]:
    for name, found in report["data"].items():
        among, rows = found["labellers"], []
        if among:
            kappa = "-" if among["kappa"] is None else f"{among['kappa']:.2f}"
            rows = [["labellers with each other", share_text(among["agreement"]), kappa, str(among["meetings"])]]
        for reward, one in found["rewards"].items():
            each, shared = one["labellers"]["each"], one["labellers"]["on_shared"]
            if shared:
                rows.append([f"{reward} with labellers, same pairs", share_text(shared), "", str(shared["n"])])
            most = sorted(each.items(), key=lambda item: -item[1]["n"])[:MOST_SLICES]
            rows += [[f"{reward} with {labeller}", share_text(at), "", str(at["n"])] for labeller, at in most]
        note = "agreement where both sides order the pair; kappa counts ties" + (
            "" if among else "; no pair has two named labellers, so their agreement with each other is unknown"
        )
        yield Section(f"{name}: agreement with labellers", ["who", "agreement", "kappa", "verdicts"], rows, note)


def _length(report: Mapping[str, Any]) -> Iterator[Section]:
    rows = []
    for name, found in report["data"].items():
        rows.append([_name(report, name, "labellers' ranks"), _correlation(found["rank_length_correlation"]), "", ""])
        for reward, one in found["rewards"].items():
            by = one["by"]["length"]
            sides = [share_text(by.get(side)) for side in ("better one longer", "better one shorter")]
            rows.append([_name(report, name, reward), _correlation(one["score_length_correlation"]), *sides])
    header = ["who", "correlation", "better longer", "better shorter"]
    note = "correlation with length in characters within rankings; accuracy where the better one is longer, shorter"
    yield Section("Length bias", header, rows, note)


def _eos(report: Mapping[str, Any]) -> Iterator[Section]:
    rows = [
        [
            _name(report, data, reward),
            *(_spread(found["eos"][form]) for form in ("with_eos", "without_eos", "prompt_alone")),
            share_text(found["eos"]["share_higher_with_eos"]),
            share_text(found["eos"]["share_above_prompt"]),
        ]
        for data, reward, found in _measured(report)
    ]
    header = ["reward model", "with EOS", "without", "prompt alone", "EOS higher", "above prompt"]
    yield Section("Scores, mean ± sd", header, rows, "shares of completions; with EOS against the other two")


def _counts(report: Mapping[str, Any]) -> Iterator[Section]:
    names = ("rankings", "completions", "unfinished", "pairs", "ties", "same_text", "skipped_long", "skipped_bad")
    rows = [[name.replace("_", " "), *(str(found[name]) for found in report["data"].values())] for name in names]
    for reward in report["ids"]:
        both = [
            [found["rewards"][reward][name] for name in ("mean_difference", "mean_difference_on_ties")]
            for found in report["data"].values()
        ]
        cells = [" / ".join("-" if value is None else f"{value:.3f}" for value in one) for one in both]
        rows.append([f"{reward}: |difference|", *cells])
    note = "|difference| of scores: mean over pairs / over what labellers tied"
    yield Section("What was counted", ["", *report["data"]], rows, note)


def _measured(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for data, found in report["data"].items():
        for reward, one in found["rewards"].items():
            yield data, reward, one


def _name(report: Mapping[str, Any], data: str, reward: str) -> str:
    return f"{data}: {reward}" if len(report["data"]) > 1 else reward


def _correlation(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["ci95"]
    return f"{found['mean']:.2f} [{low:.2f}, {high:.2f}]"


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:.2f}" + ("" if found["sd"] is None else f" ± {found['sd']:.2f}")
