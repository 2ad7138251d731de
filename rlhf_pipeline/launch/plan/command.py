"""`rlhf plan`: read the settings, work the ways out, and say or write what was found.

A stage's recipe may be given with `--config`: what it says of memory and time is taken, and the rest is named. Left
out: starting anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlhf_pipeline.config import Setting, help_text, names, read_settings, refuse_unknown, take
from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.plan.choices import Choice, choices, recommended, remedies
from rlhf_pipeline.launch.plan.launch_writer import write_launch_files
from rlhf_pipeline.launch.plan.report import advice, arithmetic, as_json, heading, table
from rlhf_pipeline.launch.plan.roles import Role, Shapes, read_shapes, stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings

SUMMARY = "Plan what a stage needs: bytes of every GPU and seconds of a step, for every way to share it out."


def main(argv: Sequence[str]) -> int:
    """Run `rlhf plan`; returns the exit status."""
    if {"--help", "-h"} & set(argv):
        print(help_text("rlhf plan", SUMMARY, PlanSettings), end="")
        return 0
    asked, aside = planned(read_settings(argv))
    settings = take(PlanSettings, asked)
    shapes = read_shapes(settings)
    roles = stage_roles(settings, shapes)
    found = choices(settings, roles)
    best = recommended(found)
    if settings.json:
        print(json.dumps(as_json(settings, roles, found, best), indent=2))
    else:
        print("\n".join(text(settings, shapes, roles, found, best, aside)))
    if settings.write:
        if best is None:
            raise LaunchError("--write: nothing fits, so there is nothing to launch; see what would help above")
        for file in write_launch_files(best, settings, settings.write):
            print(f"wrote {file}")
    return 0


def planned(asked: dict[str, Setting]) -> tuple[dict[str, Setting], list[str]]:
    """Part the settings that a plan knows from those of a recipe that it does not; others are refused."""
    known = names(PlanSettings)
    typed = {name: setting for name, setting in asked.items() if setting.where.startswith("--")}
    refuse_unknown(typed, PlanSettings)
    return {n: setting for n, setting in asked.items() if n in known}, [n for n in asked if n not in known]


def text(
    settings: PlanSettings,
    shapes: Shapes,
    roles: Sequence[Role],
    found: Sequence[Choice],
    best: Choice | None,
    aside: Sequence[str],
) -> list[str]:
    """Return the lines that are printed."""
    lines = [*heading(settings, roles), *([f"not part of a plan: {', '.join(aside)}"] if aside else []), ""]
    lines += [*table(found, settings.stage), ""]
    lines += advice(best, found, [] if best is not None else remedies(settings, shapes))
    if settings.explain:
        lines += ["", *(line for choice in found for line in arithmetic(choice))]
    return lines
