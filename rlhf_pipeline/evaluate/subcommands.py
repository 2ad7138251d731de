"""`rlhf evaluate <what>`: measure models of a run, or reward models.

Left out: settings; each reads its own (`rlhf evaluate reward --help` lists them).
"""

from __future__ import annotations

import difflib
import importlib

from rlhf_pipeline.errors import ConfigError

SUBCOMMANDS = {
    "models": (
        "rlhf_pipeline.evaluate.command",
        "judge the models of a run and compare them (the same as `rlhf eval`)",
    ),
    "reward": ("rlhf_pipeline.evaluate.reward.command", "measure reward models on rankings, beside simple baselines"),
}


def main(argv: list[str]) -> int:
    """Run one subcommand and return its exit status; raises `ConfigError` for one that there is not."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help_page(), end="")
        return 0
    name, *rest = argv
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean `rlhf evaluate {near[0]}`?" if near else f"type one of {', '.join(SUBCOMMANDS)}"
        raise ConfigError(f"`{name}` is nothing that `rlhf evaluate` measures; {hint}")
    module, _ = SUBCOMMANDS[name]
    return int(importlib.import_module(module).main(rest))


def _help_page() -> str:
    lines = [f"  {name:<8} {summary}" for name, (_, summary) in SUBCOMMANDS.items()]
    return "\n".join(["usage: rlhf evaluate <what> [--config file.yaml] [--name value ...]", "", *lines, ""])
