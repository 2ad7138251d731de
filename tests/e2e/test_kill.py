"""kill -9 at twenty random instants over all stages, then the same command again: published, clean, and bit for bit.

A killed run is compared with an undisturbed one by the id of what it published: the id is the hash of every file. The
stages run in forked children (see `fork_server`), so nearly every kill hits work on data, model or disk.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.fork_server import ForkServer
from tests.e2e.pipeline import Pipeline, write_rows
from tests.tiny import make_causal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS = 5  # for each of the four stages
MADE = {"pretrain": ("base",), "sft": ("sft",), "reward": ("reward",), "ppo": ("policy", "critic")}
LONG = ("--max_steps", "4", "--save_steps", "1", "--save_total_limit", "2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("server") / "output.txt")
    yield server
    server.stop()


@dataclass(frozen=True)
class Undisturbed:
    """What a stage published when nobody killed it, and how many seconds it took."""

    before: Pipeline
    """The state it started from."""
    arguments: tuple[str, ...]
    published: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def fresh(self, root: Path) -> Pipeline:
        """That state once more, in a store of its own."""
        return self.before.copy(root) if self.before.root.exists() else Pipeline(root, self.before.rows)


def run(server: ForkServer, pipeline: Pipeline, stage: str, arguments: tuple[str, ...]) -> int:
    server.start(pipeline.argv(stage, *arguments))
    return server.status()


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """Every stage run once, each on its own copy of the store that the ones before it left."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_causal("gpt2", folder / "base")
    pipeline = Pipeline(folder / "empty", write_rows(folder / "rows"))
    starts = {"pretrain": ("--base", str(folder / "base"))}
    done = {}
    for stage, roles in MADE.items():
        before = pipeline
        arguments = (*LONG, *starts.get(stage, ()))
        pipeline = Undisturbed(before, arguments).fresh(folder / stage)
        began = time.monotonic()
        assert run(server, pipeline, stage, arguments) == 0, server.output.read_text()
        refs = pipeline.refs()
        done[stage] = Undisturbed(before, arguments, {role: refs[role] for role in roles}, time.monotonic() - began)
    return done


def kill_in(server: ForkServer, pipeline: Pipeline, stage: str, arguments: tuple[str, ...], seconds: float) -> bool:
    """Start the stage and kill it after `seconds`; whether it was still running."""
    pid = server.start(pipeline.argv(stage, *arguments))
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return server.status() == -signal.SIGKILL


@pytest.fixture(scope="module")
def interrupted() -> list[Path]:
    """The checkpoints that killed runs left to go on from, over all stages."""
    return []


@pytest.mark.parametrize("stage", MADE)
def test_killed_at_random_instants_it_ends_as_if_undisturbed(
    stage: str, server: ForkServer, undisturbed: dict[str, Undisturbed], tmp_path: Path, interrupted: list[Path]
) -> None:
    whole = undisturbed[stage]
    chance = random.Random(stage)
    for number in range(KILLS):
        seconds = whole.seconds * (number + chance.random()) / KILLS
        pipeline = whole.fresh(tmp_path / str(number))
        while not kill_in(server, pipeline, stage, whole.arguments, seconds):  # it ran quicker than before
            seconds *= 0.8
            pipeline = whole.fresh(tmp_path / f"{number}-{seconds}")
        assert pipeline.damage() == []
        interrupted.extend(pipeline.root.glob("runs/*/*/*/checkpoints/*/complete"))

        assert run(server, pipeline, stage, whole.arguments) == 0, server.output.read_text()
        assert {role: pipeline.refs()[role] for role in whole.published} == whole.published
        assert pipeline.damage() == []
        assert not [path for path in pipeline.store.tmp.iterdir() if path.is_dir()]
        with pipeline.store.staging():
            pass  # a lone lock may stay where the kill came after the rename: the next publication sweeps it away
        assert not list(pipeline.store.tmp.iterdir())


def test_some_kills_fell_between_checkpoints(interrupted: list[Path]) -> None:
    assert {path.parents[3].name for path in interrupted}, "no run had anything to go on from"
