"""The frame around every stage: what was asked, whether it is answered already, where it works, what it publishes.

A job is one stage of one run with one input key. Its working folder carries the key, so a checkpoint can only be
resumed under the settings, parents and data that made it. Nothing is written before `working()` is entered.

Left out: what a stage computes (`stages`), and how objects are kept (`artifacts`). No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf_pipeline.artifacts import Store, storage_errors
from rlhf_pipeline.artifacts.storage import write_atomic
from rlhf_pipeline.config import Setting, given, help_text, names
from rlhf_pipeline.derived import file_hash
from rlhf_pipeline.errors import ConfigError, LaunchError
from rlhf_pipeline.launch.processes import this_rank, world_size

KEY_VERSION = 3
"""Rises when the same inputs come to mean another result; 2: a prompt's side hangs on its own hash alone; 3: or
on that of a conversation whose rows open in several ways."""
DONE = "published.json"
INPUTS = "inputs.json"
BATCH_SETTINGS = frozenset({
    "processes", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation",
    "per_device_eval_batch_size",
})  # fmt: skip
"""Settings that change when the number of processes does, to keep the global batch."""

NOT_IN_KEY = frozenset({
    "run", "artifacts", "force", "config", "preset", "base", "model", "reward", "data", "data_format", "ptx_data",
    "normalize_on", "tokenizer", "report_to",
    "run_name", "ddp_timeout", "disable_tqdm", "logging_steps", "logging_strategy", "logging_first_step", "log_level",
    "save_total_limit", "keep_checkpoints", "model_revision",
    "dataloader_num_workers", "dataset_num_proc", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token",
})  # fmt: skip
"""Settings that do not change the result, and names whose content the key holds by hash instead."""

FILES = ("chat_template_path", "deepspeed", "fsdp_config", "accelerator_config")
"""Settings that may name a file: the key holds the hash of what is in it."""


@dataclass(frozen=True)
class StageSettings:
    """What every stage takes."""

    run: str = field(default="default", metadata={"help": "name of the run; its refs are where stages meet"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    force: bool = field(default=False, metadata={"help": "train even if the same inputs were answered before"})
    on_bad_row: Literal["error", "skip"] = field(
        default="error", metadata={"help": "what to do with a row that cannot be read; skipped rows are written aside"}
    )
    on_long_row: Literal["error", "skip", "truncate"] = field(
        default="error", metadata={"help": "what to do with a row longer than the stage takes"}
    )
    keep_checkpoints: bool = field(
        default=False, metadata={"help": "keep the trainer's checkpoints after publishing, to compare them"}
    )
    eval_fraction: float = field(
        default=0.05, metadata={"help": "share of the prompts that is held out of training to evaluate on"}
    )

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.eval_fraction < 1:
            raise ConfigError(f"`eval_fraction` must be at least 0 and below 1, not {self.eval_fraction}")


def is_main_process() -> bool:
    """Whether this is rank 0, as the launcher told it."""
    return this_rank(os.environ) == 0


def say(text: str) -> None:
    """Print one line for people, once however many processes run."""
    if is_main_process():
        print(text, flush=True)


class Job:
    """One stage of one run, identified by its input key."""

    def __init__(
        self,
        stage: str,
        store: Store,
        settings: StageSettings,
        asked: Mapping[str, Setting],
        parents: Mapping[str, str],
        data: Mapping[str, str],
        ref_names: Mapping[str, str] | None = None,
    ) -> None:
        """`asked` is what the user gave; `parents` map roles to ids, `data` names to content fingerprints.

        `ref_names` map roles to the refs that name what is published, where these are not the roles.
        """
        self.ref_names = dict(ref_names or {})
        self.stage, self.store, self.run = stage, store, settings.run
        self.force, self.keep_checkpoints = settings.force, settings.keep_checkpoints
        self.parents, self.data = dict(parents), dict(data)
        own = {name: value for name, value in asdict(settings).items() if name not in NOT_IN_KEY}
        self.inputs: dict[str, Any] = {
            "version": KEY_VERSION,
            "stage": stage,
            "settings": {**own, **_by_content(given(asked, without=NOT_IN_KEY | names(type(settings))))},
            "parents": self.parents,
            "data": self.data,
        }
        if world_size(os.environ) > 1:  # the same settings then mean larger batches
            self.inputs["settings"]["processes"] = world_size(os.environ)
        self._inputs_text = json.dumps(self.inputs, sort_keys=True, default=str)
        self.key = hashlib.sha256(self._inputs_text.encode()).hexdigest()
        self.started = time.monotonic()

    @property
    def directory(self) -> Path:
        """Where this job works: checkpoints, metrics.jsonl and rows that were set aside."""
        return self.store.run_dir(self.run, self.stage) / self.key[:12]

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.directory / "checkpoints"

    def answered(self, *roles: str, also_refs: Mapping[str, str] | None = None) -> bool:
        """Whether objects for all `roles` were published under this key before; if so, point the run at them.

        `also_refs` move with them, as in `publish`. Otherwise says which fields differ from what the run's ref holds
        now. Always False with `force`.
        """
        if self.force:
            return False
        found = {self.store.manifest(object_id).kind: object_id for object_id in self.store.find(self.key)}
        if not set(roles) <= set(found):
            self._explain(self.ref_names.get(roles[0], roles[0]))
            return False
        answers = {self.ref_names.get(role, role): found[role] for role in roles}
        refs = {role: name for role, name in {**(also_refs or {}), **answers}.items() if self.store.has(name)}
        if is_main_process() and any(self.store.ref(self.run, role) != name for role, name in refs.items()):
            self.store.set_refs(self.run, refs)
        say(f"{self.stage}: already answered by {', '.join(answers.values())} (the same inputs; FORCE=1 trains again)")
        return True

    def _explain(self, role: str) -> None:
        """Name the fields in which this job differs from the one behind the run's ref."""
        current = self.store.ref(self.run, role)
        if current is None or current.startswith("hub:"):
            return
        before = self.store.manifest(current).extra.get("inputs", {})
        changed = [f"{name} {old!r} -> {new!r}" for name, old, new in _differences(before, self.inputs)]
        if changed:
            say(f"{self.stage}: not the inputs of {current}: {'; '.join(changed)}")

    @contextmanager
    def working(self) -> Iterator[Job]:
        """Hold the run's lock for this stage while it works in `directory`; afterwards checkpoints are gone.

        Raises `ArtifactError` while another process works on the same stage of the same run, and `StorageError` where
        the disk refuses what the stage writes.
        """
        kept = set(self.store.ids())  # a user's folder is copied in later, under this lock
        reads = [parent for parent in self.parents.values() if parent in kept]
        lock = self.store.lock(self.run, self.stage) if is_main_process() else nullcontext()
        with lock as held:
            if held is not None:
                held.reads(reads)
                if (self.directory / DONE).is_file():
                    shutil.rmtree(self.directory)
                with storage_errors(f"{self.directory}: cannot create"):
                    self.directory.mkdir(parents=True, exist_ok=True)
                    write_atomic(self.directory / INPUTS, self._inputs_text)
            with storage_errors(f"{self.directory}: cannot write"):
                yield self

    def refuse_other_processes(self, complete: str) -> None:
        """Raise `LaunchError` where this very training was begun by another number of processes, and not finished.

        Such a run has a checkpoint marked `complete`; it differs from this one in how batches are shared out alone.
        """
        for file in sorted(self.directory.parent.glob(f"*/{INPUTS}")):
            if (file.parent / DONE).is_file() or not list(file.parent.glob(f"checkpoints/*/{complete}")):
                continue
            inputs = json.loads(file.read_text(encoding="utf-8"))
            changed = {name for name, _, _ in _differences(inputs, json.loads(self._inputs_text))}
            if "processes" in changed and changed <= BATCH_SETTINGS:
                before, now = (one["settings"].get("processes", 1) for one in (inputs, self.inputs))
                raise LaunchError(
                    f"{self.stage}: {before} processes began this training, and this is {now}: a checkpoint holds the "
                    "share of each process in optimizer, random numbers and data. Type the command as it was, with "
                    f"{before} processes (make: NPROC={before}), or remove {file.parent} to begin anew"
                )

    def set_aside(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write rows that are not used to `<name>.jsonl` in the working folder, so that nothing vanishes."""
        if rows and is_main_process():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (self.directory / f"{name}.jsonl").write_text(text, encoding="utf-8")
            say(f"{self.stage}: {len(rows)} rows set aside in {self.directory / name}.jsonl")

    def need_space(self, parameters: int, checkpoints: int, copies: int = 3) -> None:
        """Raise `StorageError` unless `checkpoints` at a time and one object will fit.

        `parameters` are those that are trained. A checkpoint holds `copies` of them (weights and two Adam moments make
        three), an object the weights, 4 bytes each; checkpoints of an earlier attempt make room as they are replaced.
        """
        there = sum(file.stat().st_size for file in self.checkpoints.rglob("*") if file.is_file())
        needed = 4 * parameters * (copies * checkpoints + 1) - min(there, 4 * copies * parameters * checkpoints)
        self.store.require_space(needed, f"{self.stage} of {parameters / 1e6:.1f} M trained parameters")

    def publish(
        self,
        folders: Mapping[str, Path],
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, Any],
        also_refs: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Publish one folder for each role, and move the run's refs to them together; returns role -> id.

        `also_refs` move with them. Only rank 0 calls this. The working folder keeps metrics.jsonl, and its
        checkpoints only where `keep_checkpoints` asks for that.
        """
        seconds = round(time.monotonic() - self.started, 1)
        ids = {
            role: self.store.publish(
                folder,
                kind=role,
                parents=self.parents,
                input_key=self.key,
                config=dict(config),
                data=self.data,
                metrics={**metrics, "seconds": seconds},
                extra={"inputs": self.inputs},
            )
            for role, folder in folders.items()
        }
        refs = {self.ref_names.get(role, role): name for role, name in ids.items()}
        self.store.set_refs(self.run, {**(also_refs or {}), **refs})
        if not self.keep_checkpoints:
            for checkpoint in self.checkpoints.glob("checkpoint-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)
        (self.directory / DONE).write_text(json.dumps(ids))
        say(f"{self.stage}: published {', '.join(ids.values())} in {seconds:.0f} s")
        return ids


def asks_for_help(argv: Sequence[str], stage: str, doc: str | None, trainer_config: str, *settings: type) -> bool:
    """Print a stage's help page, with our own `settings`, where `argv` asks for it, and say whether it did."""
    if not {"--help", "-h"} & set(argv):
        return False
    also = f"... and every field of {trainer_config} and trl.ModelConfig under its own name."
    print(help_text(f"rlhf {stage}", doc or "", *settings, also=also), end="")
    return True


def need_data(data: str, stage: str, what: str) -> None:
    """Raise `ConfigError` where a stage was given no data."""
    if not data:
        raise ConfigError(f"data: no {what} named; type `rlhf {stage} --data <file>`, or `make {stage} DATA=<file>`")


def hub_revision(asked: Mapping[str, Setting]) -> str | None:
    """The hub revision that was asked for, if any."""
    return str(asked["model_revision"].value) if "model_revision" in asked else None


def _by_content(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked` with the hash of what is in a file in place of its path."""
    files = {name: asked[name] for name in FILES if isinstance(asked.get(name), str) and Path(asked[name]).is_file()}
    return {**asked, **{name: file_hash(Path(path)) for name, path in files.items()}}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if before and before.get("version") != now["version"]:
        yield "version of the key", before.get("version"), now["version"]
    for group in ("settings", "parents", "data"):
        old, new = before.get(group, {}), now[group]
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield name, old.get(name), new.get(name)
