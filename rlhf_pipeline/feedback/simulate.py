"""`rlhf label`: simulated labellers of the miniature world rank sampled completions.

In: samples of `rlhf sample` on prompts of the world. Out: rankings for the reward model. Each labeller misreads each
dimension of an answer at the known error rate. Left out: people (they need a page to rank on), and prompts without the
world's facts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.world.labeller import Labeller
from rlhf_pipeline.derived import file_hash, is_answered, write_derived
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.feedback.samples import Samples, read_samples
from rlhf_pipeline.records import Ranking

SUMMARY = "Rank sampled completions with simulated labellers of the miniature world, who err at a known rate."


@dataclass(frozen=True)
class LabelSettings:
    """What `rlhf label` takes."""

    samples: str = field(
        default="", metadata={"help": "file of `rlhf sample`; default runs/<run>/feedback/samples.jsonl"}
    )
    output: str = field(default="", metadata={"help": "file to write; default runs/<run>/feedback/rankings.jsonl"})
    error_rate: float = field(default=0.1, metadata={"help": "how often a labeller misreads a dimension of an answer"})
    labelers: int = field(default=5, metadata={"help": "labellers, who take the prompts in turn"})
    seed: int = field(default=0, metadata={"help": "seed of the labellers' errors"})
    run: str = field(default="default", metadata={"help": "name of the run"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    force: bool = field(default=False, metadata={"help": "label even if the same inputs were answered before"})

    def __post_init__(self) -> None:
        """Refuse what labellers cannot do."""
        if not 0 <= self.error_rate <= 1:
            raise ConfigError(f"`error_rate` must lie between 0 and 1, not {self.error_rate}")
        if self.labelers < 1:
            raise ConfigError(f"`labelers` must be at least 1, not {self.labelers}")


def main(argv: list[str]) -> int:
    """Run `rlhf label`; return the exit status."""
    settings = command_settings(argv, "rlhf label", SUMMARY, LabelSettings)
    if settings is not None:
        run(settings)
    return 0


def run(settings: LabelSettings) -> Path:
    """Rank as asked, unless the file that is there was made from the same inputs; return its path."""
    folder = Store(settings.artifacts).root / "runs" / settings.run / "feedback"
    source = Path(settings.samples) if settings.samples else folder / "samples.jsonl"
    output = Path(settings.output) if settings.output else folder / "rankings.jsonl"
    samples = read_samples(source)
    chosen = {name: getattr(settings, name) for name in ("error_rate", "labelers", "seed")}
    inputs = {"command": "label", "samples": file_hash(source), **chosen}
    if not settings.force and is_answered(output, inputs):
        print(f"label: already answered by {output} (the same inputs; --force labels again)")
        return output
    rankings = rank(samples, settings.error_rate, settings.labelers, settings.seed, str(source))
    write_derived(output, "".join(json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in rankings), inputs)
    left_out = f"{len(samples) - len(rankings)} prompts left out whose completions are all the same, or blank"
    print(f"label: {len(rankings)} rankings, {left_out} -> {output}")
    return output


def rank(samples: list[Samples], error_rate: float, labelers: int, seed: int, where: str) -> list[Ranking]:
    """Let `labelers` labellers rank the samples in turn; prompts with nothing to compare are left out.

    Raises DataError, opening with `where` and the line, for a prompt that is none of the world's.
    """
    team = [Labeller(error_rate, seed * labelers + number) for number in range(labelers)]
    rankings = []
    for number, one in enumerate(samples):
        if "kind" not in one.facts:
            raise DataError(
                f"{where}:{number + 1}: no `kind` in `facts`, so this is no prompt of the miniature world; "
                "simulated labellers know nothing else: have these samples ranked by people"
            )
        ranks = team[number % labelers].rank(one.as_prompt(), one.completions)
        rankings.append(one.ranked(ranks, f"simulated-{number % labelers}"))
    return [ranking for ranking in rankings if _is_usable(ranking)]


def _is_usable(ranking: Ranking) -> bool:
    try:
        ranking.check("")
    except DataError:
        return False
    return True
