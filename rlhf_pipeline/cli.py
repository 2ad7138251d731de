"""`rlhf <command>`: one table of commands, each loaded only when it is called.

Turns what a user can put right into one line on stderr and exit status 2; a bug keeps its traceback. Left out: flags of
its own. Every command reads its settings itself (`rlhf <command> --help`).
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlhf_pipeline import __version__
from rlhf_pipeline.errors import ConfigError, Interrupted, RlhfError, StorageError
from rlhf_pipeline.launch.processes import check_processes, in_process_group


class Command(NamedTuple):
    """The module whose `main(argv) -> int` runs, and one line for the help page."""

    module: str
    summary: str


COMMANDS = {
    "world": Command("rlhf_pipeline.data.world.command", "generate the miniature world: texts, tokenizer, prompts"),
    "data": Command("rlhf_pipeline.data.command", "inspect, curate, split and audit data sets"),
    "pretrain": Command("rlhf_pipeline.stages.pretrain", "train a causal language model on raw text"),
    "sft": Command("rlhf_pipeline.stages.sft", "fine-tune a base checkpoint on demonstrations"),
    "sample": Command("rlhf_pipeline.feedback.sample", "write K completions of a model for every prompt"),
    "label": Command("rlhf_pipeline.feedback.simulate", "rank sampled completions with simulated labellers"),
    "reward": Command("rlhf_pipeline.stages.reward", "train a reward model on rankings (alias: rm)"),
    "ppo": Command("rlhf_pipeline.stages.ppo", "optimise the policy against a reward with PPO"),
    "eval": Command("rlhf_pipeline.evaluate.command", "judge the models of a run and write the report"),
    "evaluate": Command("rlhf_pipeline.evaluate.subcommands", "measure reward models (reward), or models (models)"),
    "artifacts": Command("rlhf_pipeline.artifacts.command", "list, show, verify, merge and collect artifacts"),
    "plan": Command("rlhf_pipeline.launch.plan.command", "what a stage needs in memory and time on given GPUs"),
    "doctor": Command(
        "rlhf_pipeline.launch.doctor.command", "check this machine, or all of a run, and say what to fix"
    ),
    "check-launch": Command("rlhf_pipeline.launch.launch_files", "check an accelerate launch file before using it"),
}
TRAINING = ("pretrain", "sft", "reward", "ppo")
ALIASES = {"rm": "reward"}

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
_NOT_WORTH_SAYING = {
    "DeepSpeed": "Setting accelerator to CPU",  # as soon as anything imports it
    "trl.trainer.grpo_trainer": "`model_init_kwargs` will be ignored",  # by the policy; the reference is loaded by them
}

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space (`rlhf artifacts gc`) or use another --artifacts folder",
    errno.EDQUOT: "the disk quota is used up; free some space (`rlhf artifacts gc`) or use another --artifacts folder",
    errno.EFBIG: "the file is larger than the limit; raise it (`ulimit -f`) or use another --artifacts folder",
    errno.EROFS: "the folder is read-only; use another --artifacts folder",
    errno.EACCES: "permission denied; change its permissions or use another --artifacts folder",
}
# What safetensors, and torch.save while closing and while writing, say of a full disk in errors without an errno.
_FULL_DISK_MARKS = ("No space left on device", "unexpected pos", "PytorchStreamWriter failed writing file")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0; 2 for what the user can put right; 75 after SIGTERM, with a checkpoint to go on from; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in _NOT_WORTH_SAYING:
        logging.getLogger(name).addFilter(_is_worth_saying)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _say("stopped; the same command again continues", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush complains
        return 141
    except Interrupted as stop:
        return _say(_one_line(stop), stop.exit_code)
    except RlhfError as error:
        return _say(f"error: {_one_line(error)}", error.exit_code)
    except Exception as error:
        storage = storage_error(error)
        if storage is None:
            raise
        return _say(f"error: {_one_line(storage)}", storage.exit_code)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_page(), end="")
        return 0
    if words[0] == "--version":
        print(f"rlhf {__version__}")
        return 0
    name = ALIASES.get(words[0], words[0])
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
        hint = f"did you mean `rlhf {near[0]}`?" if near else "`rlhf --help` lists the commands"
        raise ConfigError(f"`{name}` is not a command; {hint}")
    if name in TRAINING:
        check_processes(os.environ)
    with in_process_group():
        return int(importlib.import_module(COMMANDS[name].module).main(words[1:]))


def help_page() -> str:
    """Return what `rlhf --help` prints."""
    lines = [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rlhf <command> [--config file.yaml] [--name value ...]",
            "",
            "base -> SFT -> reward model -> PPO: reinforcement learning from human feedback.",
            "",
            *lines,
            "",
            "`rlhf <command> --help` lists the settings of one. `make demo` shows all of them at work.",
            "",
        ]
    )


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return _NOT_WORTH_SAYING[record.name] not in record.getMessage()


def storage_error(error: BaseException) -> StorageError | None:
    """Return the full or closed disk behind an error of any library, or None where it is something else."""
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _DISK_ERRORS:
            place = f"{link.filename}: " if link.filename else ""
            return StorageError(place + _DISK_ERRORS[link.errno])
        if any(mark in str(link) for mark in _FULL_DISK_MARKS):
            return StorageError(_DISK_ERRORS[errno.ENOSPC])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _say(line: str, status: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(line if rank == "0" else f"[rank {rank}] {line}", file=sys.stderr)
    return status
