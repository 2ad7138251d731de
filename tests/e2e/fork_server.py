"""Run `rlhf` commands in forked children of a process that has imported torch and TRL once.

Importing takes longer than a tiny stage, so a test that starts forty stages would wait for imports only; and a kill at
a random instant would nearly always hit an import. A forked child is a process of its own: `kill -9` ends it at once,
and the kernel drops its locks. Reads an order a line (JSON), prints the child's pid, and, when it has ended, its
status: the exit status, or minus the signal.

With a launch file the child is `accelerate launch`, whose processes are forked from it instead of started anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import json
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf_pipeline import cli
from tests.e2e.instants import Instant, arm

ROOT = Path(__file__).parents[2]
IMPORTED = (
    "trl.trainer.grpo_trainer", "trl.trainer.reward_trainer", "trl.trainer.sft_trainer", "rlhf_pipeline.training",
    "rlhf_pipeline.stages.pretrain", "rlhf_pipeline.stages.sft", "rlhf_pipeline.stages.reward",
    "rlhf_pipeline.stages.ppo", "rlhf_pipeline.networks", "rlhf_pipeline.ppo.trainer", "rlhf_pipeline.prepared",
    "accelerate.commands.launch", "torch.distributed.run",
)  # fmt: skip


class ForkServer:
    """The server, from the side of the test."""

    def __init__(self, output: Path, prefix: Sequence[str] = ()) -> None:
        """Start it, behind the words of `prefix`; children append what they print to `output`."""
        self.output = output
        self.child = 0
        pipe = subprocess.PIPE
        environment = {**os.environ, **cli.QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [*prefix, sys.executable, __file__, str(output)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._line() == "ready", self.output.read_text()

    def start(self, words: list[str], *, instant: Instant | None = None, launch: str = "") -> int:
        """Start one command, under a launch file where one is named, to be killed at `instant`; return its pid."""
        order = {"words": words, "instant": instant and dataclasses.asdict(instant), "launch": launch}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.child = int(self._line())
        return self.child

    def status(self, timeout: float = 120) -> int:
        """Wait for the end of the command that was started last; kill it, and fail, if that takes too long."""
        try:
            return int(self._line(timeout))
        except queue.Empty:
            os.killpg(self.child, signal.SIGKILL)
            self._line()
            raise AssertionError(f"still running after {timeout} s: {self.output.read_text()[-3000:]}") from None

    def left_over(self) -> bool:
        """Whether a process of the command that was started last is still there."""
        try:
            os.killpg(self.child, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """End the server, which runs no command now."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        self._reader.join(60)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.strip())
        self._lines.put("the fork server is gone")

    def _line(self, timeout: float = 120) -> str:
        return self._lines.get(timeout=timeout)


def serve(output: str) -> None:
    """Fork a child for each line of stdin, one at a time; what anyone prints goes to the file `output`."""
    answers = os.fdopen(os.dup(1), "w")
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for module in IMPORTED:
        importlib.import_module(module)
    if importlib.util.find_spec("deepspeed") is not None:
        importlib.import_module("deepspeed")  # accelerate does, as soon as it unwraps a model
    gc.freeze()  # or every child's first collection goes through all that was imported
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        with contextlib.suppress(PermissionError):  # the child has gone ahead, and leads a group already
            os.setpgid(child, child)
        print(child, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def run(order: dict[str, Any]) -> None:
    """Run one command in this child, and end it."""
    os.setpgid(0, 0)
    words, instant = order["words"], order["instant"] and Instant(**order["instant"])
    status = 1
    try:
        status = launch(words, instant, order["launch"]) if order["launch"] else command(words, instant)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def command(words: list[str], instant: Instant | None) -> int:
    """Run `rlhf` with these words."""
    if instant is not None:
        arm(instant)
    return cli.main(words)


def launch(words: list[str], instant: Instant | None, file: str) -> int:
    """Run a stage's recipe under `accelerate launch`."""
    import torch.distributed.run as torchrun
    from accelerate.commands.launch import launch_command, launch_command_parser

    started = torchrun.config_from_args

    def forked(args: Any) -> tuple[Any, Callable[..., None], tuple[Any, ...]]:
        config, _, _ = started(args)
        return dataclasses.replace(config, start_method="fork"), recipe, (words, instant)

    torchrun.config_from_args = forked
    stage, *rest = words
    launch_command(
        launch_command_parser().parse_args(["--config_file", file, str(ROOT / f"recipes/{stage}.py"), *rest])
    )
    return 0


def recipe(words: list[str], instant: Instant | None) -> None:
    """Run a stage's recipe in this process, one of several."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # the launcher's handlers came with the fork
    if instant is not None:
        arm(instant)
    stage, *sys.argv[1:] = words
    try:
        runpy.run_path(str(ROOT / f"recipes/{stage}.py"), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    serve(sys.argv[1])
