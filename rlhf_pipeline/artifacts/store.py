"""The artifact store: objects named by their content, refs that name objects, and the locks that keep both valid.

    <root>/objects/<kind>-<hash>/   immutable: a Hugging Face folder and its manifest.json
    <root>/refs/<run>/<role>        one line, an object id
    <root>/runs/<run>/<stage>/      work in progress
    <root>/tmp/  <root>/locks/      folders being filled, and who is at work

An object is written aside, flushed, hashed and renamed into place, and only then does a ref move: killed at any
instant, the store is valid. Left out: remote stores, and any notion of "the newest object".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf_pipeline.artifacts import describe, storage
from rlhf_pipeline.artifacts.integrity import object_problems
from rlhf_pipeline.artifacts.locks import StageLock, held, remove_stale, scratch_folder, stage_lock
from rlhf_pipeline.artifacts.manifest import (
    HUB_PIN,
    NAME,
    OBJECT_ID,
    Manifest,
    content_id,
    how_to_replace,
    portable,
    read_manifest,
)
from rlhf_pipeline.artifacts.refs import Refs, checked_name
from rlhf_pipeline.errors import ArtifactError

MAKES = {"base": "pretrain", "sft": "sft", "reward": "reward", "policy": "ppo", "critic": "ppo"}
_PREFIX = re.compile(r"([a-z][a-z0-9]*-)?[0-9a-f]{4,12}")
_KIND = re.compile(r"[a-z][a-z0-9]*")


class Store:
    """The store under `root`. Opening one writes nothing; folders appear when they are first needed.

    StorageError where no folder can be: a file is in its place, or above it.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        storage.nearest_folder(self.root)
        self.objects, self.tmp, self.locks = self.root / "objects", self.root / "tmp", self.root / "locks"
        self.guard = self.locks / ".guard"
        self._refs = Refs(self.root / "refs", self.locks)
        self._stage_locks: list[StageLock] = []

    # -- reading

    def ids(self) -> list[str]:
        """Return the ids of all objects."""
        return sorted(path.name for path in self.objects.glob("*") if OBJECT_ID.fullmatch(path.name))

    def has(self, name: str) -> bool:
        """Tell whether `name` is an object of this store, or pins a model on the hub ("hub:<name>@<commit>")."""
        if OBJECT_ID.fullmatch(name):
            return (self.objects / name / NAME).is_file()
        return HUB_PIN.fullmatch(name) is not None

    def path(self, name: str) -> Path:
        """Return the folder of object `name`; ArtifactError where there is none."""
        folder = self.objects / name
        if not OBJECT_ID.fullmatch(name) or not folder.is_dir():
            raise ArtifactError(f"{self.root} has no object `{name}`; `rlhf artifacts list` shows what is there")
        return folder

    def open(self, name: str) -> Path:
        """Return the folder of object `name` after hashing every file of it; ArtifactError naming what is damaged."""
        folder = self.path(name)
        if problems := object_problems(folder):
            raise ArtifactError(f"{problems[0]}; {how_to_replace(folder)}")
        return folder

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of object `name`; ArtifactError where it is missing or damaged."""
        return read_manifest(self.path(name))

    def find(self, input_key: str) -> list[str]:
        """Return the objects that answer `input_key`, oldest first, whole by the size of their files (not hashed)."""
        whole = (name for name in self.ids() if not object_problems(self.objects / name, hashes=False))
        found = (manifest for manifest in map(self.manifest, whole) if manifest.input_key == input_key)
        return [manifest.id for manifest in sorted(found, key=lambda manifest: (manifest.created, manifest.id))]

    # -- refs

    def ref(self, run: str, role: str) -> str | None:
        """Return the object (or hub: pin) that `role` of `run` points to; None where there is none, or it is gone."""
        name = self._refs.of(run).get(role)
        return name if name is not None and self.has(name) else None

    def refs(self) -> dict[str, dict[str, str]]:
        """Return {run: {role: id}}."""
        return {run: self._refs.of(run) for run in self._refs.runs()}

    def set_refs(self, run: str, ids: Mapping[str, str]) -> None:
        """Point the roles of `ids` in `run` to their objects, all or none, however the process ends."""
        with storage.storage_errors(f"{self.root}: cannot move the refs of run `{run}`"), held(self.guard, shared=True):
            for name in ids.values():
                if not self.has(name):
                    self.path(name)
            self._refs.move(run, ids)

    def resolve(self, text: str, run: str = "default") -> str:
        """Return the id meant by a role of `run`, "<run>/<role>", an id, or the beginning of exactly one id.

        A role that is not there is an error, never an object of another run that begins with the same word.
        """
        if OBJECT_ID.fullmatch(text):
            return self.path(text).name
        if text.startswith(("/", ".", "~")) or text.count("/") > 1:
            raise ArtifactError(f"`{text}` is neither a folder nor an artifact of {self.root}; check the path")
        named_run, _, role = text.rpartition("/")
        run = named_run or run
        roles = self._refs.of(run) if run else {}
        if role in roles:
            return self._existing(run, role, roles[role])
        if not named_run and _PREFIX.fullmatch(role) and role not in MAKES:
            return self._by_prefix(role)
        raise ArtifactError(self._unknown(run, role, roles))

    def _existing(self, run: str, role: str, name: str) -> str:
        if self.has(name):
            return name
        make = f"type `rlhf {MAKES[role]}`" if role in MAKES else "`rlhf artifacts list` shows what is there"
        raise ArtifactError(f"{self.root}/refs/{run}/{role} names {name}, which is gone; {make}")

    def _by_prefix(self, text: str) -> str:
        found = [name for name in self.ids() if name.startswith(text) or name.rpartition("-")[2].startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ArtifactError(f"`{text}` begins {len(found)} ids ({', '.join(found)}); type more of it")
        raise ArtifactError(f"{self.root} has no object `{text}`; `rlhf artifacts list` shows what is there")

    def _unknown(self, run: str, role: str, roles: Mapping[str, str]) -> str:
        there = f"it has {', '.join(sorted(roles))}" if roles else "it has none"
        make = f"make it with `rlhf {MAKES[role]}`, or " if role in MAKES else ""
        return f"run `{run}` of {self.root} has no `{role}` ({there}); {make}see `rlhf artifacts list`"

    # -- writing

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield a fresh folder to fill and publish, removed unless published; StorageError where the disk refuses."""
        with storage.storage_errors(f"{self.root}: cannot write"):
            remove_stale(self.tmp)
            with scratch_folder(self.tmp) as folder:
                yield folder

    def publish(
        self,
        staged: Path,
        *,
        kind: str,
        parents: Mapping[str, str],
        input_key: str,
        config: Mapping[str, Any],
        data: Mapping[str, str],
        metrics: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Make the folder `staged` (from `staging`) an object and return its id; an object already there stays.

        `parents`: role -> id or "hub:<name>@<commit>". `data`: name -> fingerprint. Absolute paths in `config`,
        `metrics` and `extra` shrink to their last part. ArtifactError for pickles, links, and parents not in the store.
        """
        if not _KIND.fullmatch(kind):
            raise ArtifactError(f"kind `{kind}`: use lower-case letters and digits")
        with storage.storage_errors(f"{self.root}: cannot publish {kind}"):
            describe.make_portable(staged)
            files = describe.file_entries(staged, describe.publishable_files(staged))
            manifest = Manifest(
                id=content_id(kind, files, parents, input_key),
                kind=kind,
                parents=dict(parents),
                input_key=input_key,
                files=files,
                config=portable(config),
                data=portable(data),
                metrics=portable(metrics),
                tokenizer=describe.tokenizer_hash(staged),
                chat_template=describe.chat_template_hash(staged),
                code=describe.code_revision(),
                packages=dict(describe.package_versions()),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                extra=portable(extra or {}),
            )
            (staged / NAME).write_text(manifest.to_json(), encoding="utf-8")
            self._seal(staged)
            self._put(staged, manifest)
        return manifest.id

    def _seal(self, staged: Path) -> None:
        """Make the files read-only and flush them."""
        for path in staged.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        storage.sync_tree(staged)

    def _put(self, staged: Path, manifest: Manifest) -> None:
        """Rename `staged` into place, unless the same object is there undamaged."""
        target = self.objects / manifest.id
        with held(self.guard):
            self._require_parents(manifest)
            for lock in self._stage_locks:
                lock.protect([manifest.id])
            self.objects.mkdir(parents=True, exist_ok=True)
            if target.exists():
                if not object_problems(target):
                    return
                target.rename(self.tmp / f"damaged-{staged.name}")
            staged.rename(target)
            storage.sync(self.objects)

    def _require_parents(self, manifest: Manifest) -> None:
        for role, parent in manifest.parents.items():
            if not self.has(parent):
                raise ArtifactError(f"cannot publish {manifest.id}: its parent {role} {parent} is not in {self.root}")

    # -- work in progress

    @contextmanager
    def lock(self, run: str, stage: str) -> Iterator[StageLock]:
        """Hold `stage` of `run` inside the block; ArtifactError naming process, host and since when if it is busy.

        gc leaves alone what the lock `reads` and what this store publishes meanwhile.
        """
        path = self.locks / f"{checked_name('run', run)}.{checked_name('stage', stage)}"
        with ExitStack() as stack:
            with storage.storage_errors(f"{self.root}: cannot lock {run}/{stage}"):
                lock = stack.enter_context(stage_lock(path, f"{run}/{stage}", self.guard, self.objects))
            self._stage_locks.append(lock)
            stack.callback(self._stage_locks.remove, lock)
            yield lock

    def run_dir(self, run: str, stage: str) -> Path:
        """Return the folder for the work in progress of `stage` in `run`; nothing is created."""
        return self.root / "runs" / checked_name("run", run) / checked_name("stage", stage)

    def require_space(self, size: int, what: str) -> None:
        """Raise StorageError unless `size` bytes are free for `what`."""
        storage.require_space(self.root, size, what)
