"""The demo's samples, ranked by labellers of a known error rate, and reward models trained on them.

It reads what `make demo` left: the run's SFT model, and the K = 4 samples of it. Left out: sampling, and PPO.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import RewardConfig, RewardTrainer

from benchmarks.rankings import explode
from rlhf_pipeline.arguments import machine_defaults
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.data.pairs import ordered_pairs
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.data.world.judge import judge_facts
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.feedback.samples import Samples, read_samples
from rlhf_pipeline.feedback.simulate import rank
from rlhf_pipeline.models import load_classifier, load_tokenizer
from rlhf_pipeline.prepared import ranking_encoder
from rlhf_pipeline.ranking.trainer import RankingTrainer
from rlhf_pipeline.records import Ranking, completion_text
from rlhf_pipeline.scoring import RewardModel

LABELLERS = 5
ROOM = 128


@dataclass(frozen=True)
class Labelled:
    """Rankings to train on and held out, with the facts of every prompt."""

    train: list[Ranking]
    held_out: list[Ranking]
    facts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs, N each: scores of the better and the worse one, the judge's, and the entity asked about."""

    better: Floats
    worse: Floats
    judged_better: Floats
    judged_worse: Floats
    entities: list[str]


@dataclass(frozen=True)
class Demo:
    """A run of the demo, ready to train reward models from."""

    store: Store
    start: Checkpoint
    tokenizer: Any
    samples: list[Samples]

    @classmethod
    def open(cls, artifacts: str, run: str) -> Demo:
        """Open `run`; its errors say to make the demo first."""
        store = Store(artifacts)
        start = find_checkpoint(store, "sft", run)
        samples = read_samples(store.run_dir(run, "feedback") / "samples.jsonl")
        return cls(store, start, load_tokenizer(start), samples)

    def labelled(self, error_rate: float, seed: int, *, prompts: int | None = None, held_out: float = 0.1) -> Labelled:
        """Rank the samples at `error_rate` and split them by prompt; train on the first `prompts` only, if given."""
        rankings = rank(self.samples, error_rate, LABELLERS, seed, "samples")
        train, rest = by_prompt(rankings, held_out, seed)
        facts = {str(one.prompt): one.facts for one in self.samples}
        return Labelled(train[:prompts], rest, facts)

    def encode(self, rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
        """Encode rankings into groups; those without an ordered pair give none."""
        encode = ranking_encoder(self.tokenizer, ROOM, "error")
        return [group for ranking in rankings for group in encode(ranking, "samples")]

    def train(
        self,
        who: str,
        groups: list[dict[str, Any]],
        seed: int,
        callbacks: Sequence[TrainerCallback] = (),
        **settings: Any,
    ) -> RewardTrainer:
        """Train from the SFT model on `groups`, or on their pairs in batches of as many comparisons."""
        size = settings.pop("groups_a_step")
        pairs = sum(len(group["better"]) for group in groups)
        ours = who == "groups"
        set_seed(seed)
        model = load_classifier(self.store, self.start)
        arguments = {
            **machine_defaults(), "save_strategy": "no", "logging_strategy": "no", "seed": seed,
            "per_device_train_batch_size": size if ours else round(size * pairs / len(groups)), **settings,
        }  # fmt: skip
        trainer: type[RewardTrainer] = RankingTrainer if ours else RewardTrainer
        with tempfile.TemporaryDirectory() as folder:
            made = trainer(
                model=model,
                args=RewardConfig(output_dir=folder, **arguments),
                train_dataset=Dataset.from_list(groups if ours else explode(groups)),
                processing_class=self.tokenizer,
                callbacks=list(callbacks),
            )
            made.remove_callback(PrinterCallback)
            made.train()
        return made

    def score(self, model: Any, rankings: Sequence[Ranking], facts: dict[str, dict[str, Any]]) -> Pairs:
        """Score all completions of `rankings`, and pair them as they were ranked."""
        was_training = model.training
        scorer = RewardModel(model.eval(), self.tokenizer, "reward", 128)
        rows = [(one, number) for one in rankings for number in range(len(one.completions))]
        texts = [completion_text(one.completions[number]) for one, number in rows]
        prompts, finished = [one.prompt for one, _ in rows], [one.is_finished(number) for one, number in rows]
        ours = scorer.score(prompts, texts, finished).tolist()
        judged = [judge_facts(facts[str(one.prompt)], text).score for (one, _), text in zip(rows, texts, strict=True)]
        model.train(was_training)
        return _paired(rankings, ours, judged, facts)


def _paired(
    rankings: Sequence[Ranking], ours: Sequence[float], judged: Sequence[float], facts: dict[str, dict[str, Any]]
) -> Pairs:
    better, worse, entities, first = [], [], [], 0
    for one in rankings:
        for a, b in ordered_pairs(one):
            better.append(first + a)
            worse.append(first + b)
            entities.append(str(facts[str(one.prompt)].get("entity", one.prompt)))
        first += len(one.completions)
    scores, truth = np.asarray(ours, dtype=np.float64), np.asarray(judged, dtype=np.float64)
    return Pairs(scores[better], scores[worse], truth[better], truth[worse], entities)
