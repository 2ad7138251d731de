"""Run `rlhf` commands in forked children of a process that has imported torch and TRL once.

Importing takes longer than a tiny stage, so a test that starts forty stages would wait for imports only; and a kill at
a random instant would nearly always hit an import. A forked child is a process of its own: `kill -9` ends it at once,
and the kernel drops its locks. Reads a JSON list of words a line, prints the child's pid, and, when it has ended, its
status: the exit status, or minus the signal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from rlhf_pipeline import cli

ROOT = Path(__file__).parents[2]


class ForkServer:
    """The server, from the side of the test."""

    def __init__(self, output: Path) -> None:
        """Start it; children append what they print to `output`."""
        self.output = output
        pipe = subprocess.PIPE
        environment = {**os.environ, **cli.QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, str(output)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self._line() == "ready"

    def start(self, words: list[str]) -> int:
        """Start one command and return its pid."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def status(self) -> int:
        """Wait for the end of the command that was started last."""
        return int(self._line())

    def stop(self) -> None:
        """End the server, which runs no command now."""
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def serve(output: str) -> None:
    """Fork a child for each line of stdin, one at a time."""
    import trl.trainer.grpo_trainer
    import trl.trainer.reward_trainer
    import trl.trainer.sft_trainer  # noqa: F401

    import rlhf_pipeline.stages.ppo
    import rlhf_pipeline.stages.pretrain
    import rlhf_pipeline.stages.reward
    import rlhf_pipeline.stages.sft
    import rlhf_pipeline.training  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line), output)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(words: list[str], output: str) -> None:
    """Run one command in this child, and end it."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 1
    try:
        status = cli.main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
