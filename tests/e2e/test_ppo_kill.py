"""kill -9 inside `rlhf ppo`, then the same command again: it publishes what an undisturbed run does, bit for bit.

Every kill falls at an instant that is found by counting calls (`instants`), so a cell is the same work every time.
Published ids are compared: an id is the hash of what is in the object. A run is five rollouts of eight completions,
three to a data epoch, with a checkpoint behind each, of which two are kept. The next run must go on from the checkpoint
that stands beside the instant, which also proves that the kill fell where it should.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.progress import COMPLETE
from tests.e2e.fork_server import ROOT, ForkServer
from tests.e2e.instants import Instant
from tests.e2e.pipeline import Pipeline, write_rows
from tests.tiny import make_causal

pytestmark = pytest.mark.e2e

CPU2 = str(ROOT / "recipes/accelerate/cpu2.yaml")
PROMPTS = 32  # 26 are trained on, two of which no rollout takes
TOKENS = 8
STOPS = [1, *range(2, 258, 26)]
"""Ids that end a completion: four in a hundred random tokens, so that lengths differ, and no rollout ends early."""

RUN = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 10,
    "save_steps": 2, "save_total_limit": 2, "eval_fraction": 0.2, "max_completion_length": TOKENS,
}  # fmt: skip
"""Four micro-batches and two optimizer steps a rollout; the last ends inside a data epoch."""
ADAPTIVE = {"kl_coef": 0.3, "kl_target": 0.05, "kl_horizon": 20}
LORA = {"use_peft": "true", "lora_r": 4, "bf16": "false"}
EVERYTHING = {
    **ADAPTIVE, "kl_estimator": "k3", "whiten_rewards": "true", "missing_eos_score": -1, "ema_decay": 0.8,
    "ptx_coef": 0.5, "critic_learning_rate": 2e-2, "critic_warmup_steps": 6, "lr_scheduler_type": "cosine",
    "weight_decay": 0.1, "num_iterations": 2, "max_steps": 20, "save_steps": 4, "eval_strategy": "steps",
    "eval_steps": 4,
}  # fmt: skip
"""Two PPO epochs a rollout: twice as many micro-batches and optimizer steps."""
TWO = {"steps_per_generation": 2, "gradient_accumulation_steps": 1}
"""What gives two processes the same rollouts and optimizer steps: two micro-batches a rollout for each."""


@dataclass(frozen=True)
class Kind:
    """The settings of a run beside `RUN`, the store it starts from, and the launch file of more processes than one."""

    settings: Mapping[str, Any]
    start: str = "full"
    launch: str = ""


KINDS = {
    "fixed": Kind({"lr_scheduler_type": "constant"}),  # or one step too many, behind the last, would change nothing
    "adaptive": Kind(ADAPTIVE),
    "lora": Kind(LORA, "lora"),
    "everything": Kind(EVERYTHING),
    "fixed-two": Kind(TWO, launch=CPU2),
    "lora-two": Kind({**LORA, **TWO}, "lora", CPU2),
}

TORCH_SAVE = "torch:save"
NEXT_TOKENS = "rlhf_pipeline.decoding:next_tokens"
SCORE = "rlhf_pipeline.scoring:RewardModel.member_scores"
TRAINING_STEP = "rlhf_pipeline.ppo.trainer:PPOTrainer.training_step"
SAVE_AVERAGE = "rlhf_pipeline.ppo.average:save_file"
ON_SAVE = "rlhf_pipeline.progress:JobCallback.on_save"
SAVE_RNG = "transformers.trainer:Trainer._save_rng_state"
REMOVE = "shutil:rmtree"
UNLINK = "os:unlink"
PUBLISH = "rlhf_pipeline.artifacts:Store.publish"
SET_REFS = "rlhf_pipeline.artifacts:Store.set_refs"


@dataclass(frozen=True)
class Kill:
    """An instant, and the step of the checkpoint that the next run goes on from; 0: from the start."""

    instant: Instant
    goes_on_from: int


GENERATION = Kill(Instant(NEXT_TOKENS, 3 * TOKENS + 4), 6)  # in rollout 4, the first of the second data epoch
SCORING = Kill(Instant(SCORE, 5, after=True), 8)
INSIDE_AN_EPOCH = Kill(Instant(TRAINING_STEP, 2 * 4 + 3, after=True), 4)  # half the gradients of a minibatch are there
WHILE_SAVING = Kill(Instant(TORCH_SAVE, 5, after=True, file="optimizer.pt", torn=True), 8)  # both models are written
NOT_YET_MARKED = Kill(Instant(ON_SAVE, 4), 6)
JUST_MARKED = Kill(Instant(ON_SAVE, 4, after=True), 8)


@dataclass(frozen=True)
class Runs:
    """Runs of `rlhf ppo`, each in a store of its own that begins with a reward model."""

    server: ForkServer
    folder: Path
    rows: Path
    finished: dict[str, Pipeline] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make a base, and two stores with a reward model over it: a full one, and an adapter."""
        base = make_causal("llama", self.folder / "base")
        base.generation_config.eos_token_id = STOPS
        base.generation_config.save_pretrained(self.folder / "base")
        for start, more in (("full", []), ("lora", ["--use_peft", "true", "--lora_r", "4"])):
            reward = Pipeline(self.folder / start, self.rows).argv(
                "reward", "--model", str(self.folder / "base"), *more
            )
            self.server.start(reward)
            assert self.server.status() == 0, self.server.output.read_text()

    def fresh(self, kind: str, root: Path) -> Pipeline:
        """A store in which PPO has not been started."""
        return Pipeline(self.folder / KINDS[kind].start, self.rows).copy(root)

    def run(self, kind: str, pipeline: Pipeline, instant: Instant | None = None, **changes: Any) -> tuple[int, str]:
        """Type the command of `kind` once: its exit status, and what it said."""
        settings = {**RUN, **KINDS[kind].settings, "model": self.folder / "base", **changes}
        if "ptx_coef" in settings:
            settings["ptx_data"] = self.rows / "documents.jsonl"
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        said = self.server.output.stat().st_size
        argv = pipeline.argv("ppo", *words, rows="many-prompts")
        self.server.start(argv, instant=instant, launch=KINDS[kind].launch)
        return self.server.status(timeout=60), self.server.output.read_bytes()[said:].decode()

    def kill(self, kind: str, pipeline: Pipeline, kill: Kill, **changes: Any) -> None:
        """Run until the kill: no process is left, the store is valid, and the checkpoint to go on from is there."""
        status, said = self.run(kind, pipeline, kill.instant, **changes)
        assert status == (1 if KINDS[kind].launch else -signal.SIGKILL), said
        assert not self.server.left_over()
        assert pipeline.damage() == []
        assert max(complete(pipeline), default=0) == kill.goes_on_from
        marked = [checkpoints(pipeline) / f"checkpoint-{step}" for step in complete(pipeline)]
        assert all((checkpoint / "optimizer.pt").is_file() for checkpoint in marked)

    def go_on(self, kind: str, pipeline: Pipeline, **changes: Any) -> str:
        """Type the command once more, and compare models and figures with the undisturbed run's; what it said."""
        goes_on_from = max(complete(pipeline), default=0)
        status, said = self.run(kind, pipeline, **changes)
        assert status == 0, said
        assert "answered" in said or (f"/checkpoint-{goes_on_from}\n" in said) == bool(goes_on_from), said
        whole = self.undisturbed(kind)
        assert published(pipeline) == published(whole)
        assert pipeline.damage() == []
        assert logged(pipeline) == logged(whole)
        return said

    def undisturbed(self, kind: str) -> Pipeline:
        """The store after a run of `kind` that nobody killed."""
        if kind not in self.finished:
            pipeline = self.fresh(kind, self.folder / f"undisturbed-{kind}")
            status, said = self.run(kind, pipeline)
            assert status == 0, said
            self.finished[kind] = pipeline
        return self.finished[kind]


def published(pipeline: Pipeline) -> dict[str, str]:
    """The ids of policy and critic."""
    return {role: pipeline.refs()[role] for role in ("policy", "critic")}


def checkpoints(pipeline: Pipeline) -> Path:
    """Where the checkpoints of the one run are."""
    (folder,) = pipeline.store.run_dir(pipeline.run, "ppo").glob("*/checkpoints")
    return folder


def complete(pipeline: Pipeline) -> list[int]:
    """The steps of the checkpoints that a run can go on from."""
    return [int(path.parent.name.partition("-")[2]) for path in checkpoints(pipeline).glob(f"*/{COMPLETE}")]


def logged(pipeline: Pipeline) -> list[dict[str, float]]:
    """Every figure that is not a time, as logged; of lines that were logged again behind a kill, one.

    Left out is the last line of training, which sums up the process that took the last step.
    """
    lines = [json.loads(line) for line in (checkpoints(pipeline).parent / "metrics.jsonl").read_text().splitlines()]
    times = ("_seconds", "_time", "_runtime", "_per_second")
    kept: list[dict[str, float]] = []
    for line in lines:
        figures = {name: value for name, value in line.items() if not name.endswith(times)}
        if "train_loss" not in figures and figures not in kept:
            kept.append(figures)
    return kept


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("ppo-kill")
    rows = write_rows(folder / "rows")
    prompts = [{"prompt": f"{n} hello {'x' * (n % 7)}"} for n in range(PROMPTS)]
    (rows / "many-prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    runs = Runs(ForkServer(folder / "output.txt"), folder, rows)
    runs.prepare()
    yield runs
    runs.server.stop()


def test_the_undisturbed_runs_do_what_a_resume_could_lose(runs: Runs) -> None:
    """A coefficient that moves, lengths that differ, a second epoch, adapters; else equal ids would say little."""
    rollouts = [line for line in logged(runs.undisturbed("adaptive")) if "ppo/kl_coef" in line]
    assert len({line["ppo/kl_coef"] for line in rollouts}) == len(rollouts) == 5
    assert any(line["ppo/eos_fraction"] not in (0, 1) for line in rollouts)
    assert rollouts[-1]["epoch"] > 1
    ids = {kind: published(runs.undisturbed(kind)) for kind in ("fixed", "adaptive", "lora", "everything")}
    for role in ("policy", "critic"):
        assert len({one[role] for one in ids.values()}) == 4
        assert (runs.undisturbed("lora").store.path(ids["lora"][role]) / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "kill", [GENERATION, SCORING, INSIDE_AN_EPOCH, WHILE_SAVING], ids=["generation", "scoring", "epoch", "saving"]
)
@pytest.mark.parametrize("kind", ["fixed", "adaptive", "lora"])
def test_killed_once_it_ends_as_if_undisturbed(runs: Runs, kind: str, kill: Kill, tmp_path: Path) -> None:
    pipeline = runs.fresh(kind, tmp_path / "artifacts")
    runs.kill(kind, pipeline, kill)
    assert len(list(checkpoints(pipeline).glob("checkpoint-*"))) <= 3, "older ones were rotated away"
    runs.go_on(kind, pipeline)


@pytest.mark.parametrize(
    "kill",
    [
        Kill(Instant(TRAINING_STEP, 8 + 2, after=True), 4),  # the policy still rests
        Kill(Instant(TRAINING_STEP, 3 * 8 + 7, after=True), 12),  # in the second PPO epoch of rollout 4
        Kill(Instant(SAVE_AVERAGE, 5, after=True, file="policy_average.safetensors", torn=True), 16),
    ],
    ids=["critic-warmup", "second-ppo-epoch", "saving-the-average"],
)
def test_with_everything_on(runs: Runs, kill: Kill, tmp_path: Path) -> None:
    pipeline = runs.fresh("everything", tmp_path / "artifacts")
    runs.kill("everything", pipeline, kill)
    runs.go_on("everything", pipeline)


def test_killed_again_and_again(runs: Runs, tmp_path: Path) -> None:
    """Calls are counted from the start of each process: the second kill comes before anything was gained."""
    pipeline = runs.fresh("adaptive", tmp_path / "artifacts")
    for kill in (
        Kill(Instant(TRAINING_STEP, 2), 0),
        Kill(Instant(SCORE, 1), 0),
        Kill(Instant(ON_SAVE, 3), 4),  # rollout 3 is written, not marked
        Kill(Instant(NEXT_TOKENS, 1), 4),
        Kill(Instant(TRAINING_STEP, 4 + 1, after=True), 6),
        Kill(Instant(TORCH_SAVE, 2, after=True, file="rng_state.pth", torn=True), 8),
    ):
        runs.kill("adaptive", pipeline, kill)
    runs.go_on("adaptive", pipeline)


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("kill", [NOT_YET_MARKED, JUST_MARKED], ids=["not-yet-marked", "just-marked"])
def test_there_is_always_a_marked_checkpoint_to_go_on_from(runs: Runs, kill: Kill, kept: int, tmp_path: Path) -> None:
    pipeline = runs.fresh("fixed", tmp_path / "artifacts")
    runs.kill("fixed", pipeline, kill, save_total_limit=kept)
    runs.go_on("fixed", pipeline, save_total_limit=kept)


def test_while_an_old_checkpoint_is_deleted(runs: Runs, tmp_path: Path) -> None:
    """The next run deletes the rest, is killed at that too, and once more while it saves."""
    pipeline = runs.fresh("fixed", tmp_path / "artifacts")
    runs.kill("fixed", pipeline, Kill(Instant(REMOVE, 1, file="checkpoint-2"), 6))
    assert sorted(complete(pipeline)) == [4, 6], "the mark goes first"
    runs.kill("fixed", pipeline, Kill(Instant(UNLINK, 1, after=True, file="optimizer.pt"), 6))
    runs.kill("fixed", pipeline, Kill(Instant(ON_SAVE, 1), 6))
    runs.go_on("fixed", pipeline)


def test_behind_the_last_step(runs: Runs, tmp_path: Path) -> None:
    """In the evaluation of held-out prompts, between publishing policy and critic, and before the refs move."""
    pipeline = runs.fresh("fixed", tmp_path / "artifacts")
    for instant in (Instant(NEXT_TOKENS, 5 * TOKENS + 3), Instant(PUBLISH, 1, after=True), Instant(SET_REFS, 1)):
        runs.kill("fixed", pipeline, Kill(instant, 10))
        assert "policy" not in pipeline.refs()
    assert "already answered" in runs.go_on("fixed", pipeline)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        (
            "fixed-two",
            [
                Kill(Instant(NEXT_TOKENS, 3 * TOKENS + 4, rank=1), 6),
                Kill(Instant(TORCH_SAVE, 2, after=True, file="optimizer.pt", torn=True), 8),
            ],
        ),
        (
            "lora-two",
            [
                Kill(Instant(SCORE, 5, after=True), 8),
                Kill(Instant(TRAINING_STEP, 1, after=True, rank=1), 8),
            ],
        ),
    ],
    ids=["fixed", "lora"],
)
def test_one_of_two_processes_is_killed(runs: Runs, kind: str, kills: list[Kill], tmp_path: Path) -> None:
    """The other one ends too, within the time that `run` allows."""
    pipeline = runs.fresh(kind, tmp_path / "artifacts")
    for kill in kills:
        runs.kill(kind, pipeline, kill)
    runs.go_on(kind, pipeline)


@pytest.mark.distributed
def test_a_checkpoint_is_marked_when_every_process_has_written_its_part(runs: Runs, tmp_path: Path) -> None:
    """Rank 1 dies before it writes its random state, after waiting for a mark that must not come."""
    pipeline = runs.fresh("fixed-two", tmp_path / "artifacts")
    runs.kill("fixed-two", pipeline, Kill(Instant(SAVE_RNG, 4, awaited=COMPLETE, rank=1), 6))
    runs.go_on("fixed-two", pipeline)


def test_the_length_guard_counts_the_rollouts_before_the_kill(runs: Runs, tmp_path: Path) -> None:
    """Ten rollouts in a row whose score is their length: an undisturbed run stops there."""
    (tmp_path / "rewards.py").write_text(
        "def tokens(completion_ids, **_):\n    return [float(len(ids)) for ids in completion_ids]\n"
    )
    guarded = {
        "reward": tmp_path / "rewards.py:tokens", "critic": "policy", "guards": "length=stop", "max_steps": 24,
        "max_completion_length": 3 * TOKENS,
    }  # fmt: skip
    pipeline = runs.fresh("fixed", tmp_path / "artifacts")
    runs.kill("fixed", pipeline, Kill(Instant(TRAINING_STEP, 8 * 4 + 1), 16), **guarded)
    status, said = runs.run("fixed", pipeline, **guarded)
    assert status == 2 and "step 18: the score follows the length" in said
