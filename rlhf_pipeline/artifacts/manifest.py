"""What is known about one object: its files, its parents, and how it was made. Nothing true only on one machine.

    id          kind and the first 12 hex digits of SHA-256 over (kind, files, parents, input_key)
    parents     role -> object id, or "hub:<name>@<commit>"
    input_key   hash of stage, resolved config, parents and data fingerprints: the question this object answers
    seal        SHA-256 over all the other fields, so that damage to the manifest itself shows

Left out: reading objects written by a later version of the format; they are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_pipeline.errors import ArtifactError

VERSION = 1
NAME = "manifest.json"
HUB_PIN = re.compile(r"hub:[^@\s]+@[^@\s]+")
OBJECT_ID = re.compile(r"[a-z][a-z0-9]*-[0-9a-f]{12}")
_ABSOLUTE_PATH = re.compile(r"(?:file://)?(?:~?/|[A-Za-z]:[\\/])[^\n]*[^\n/\\][/\\]*")


@dataclass(frozen=True)
class FileEntry:
    """One file of an object: `size` in bytes, `sha256` in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of one object; `files` by path relative to the object, with forward slashes."""

    id: str
    kind: str
    parents: dict[str, str]
    input_key: str
    files: dict[str, FileEntry]
    config: dict[str, Any]
    data: dict[str, str]
    metrics: dict[str, Any]
    tokenizer: str | None
    chat_template: str | None
    code: str
    packages: dict[str, str]
    created: str
    extra: dict[str, Any]
    version: int = VERSION

    @property
    def size(self) -> int:
        """The bytes of all files, the manifest itself left out."""
        return sum(entry.size for entry in self.files.values())

    def content_id(self) -> str:
        """Recompute the id from what it stands for."""
        return content_id(self.kind, self.files, self.parents, self.input_key)

    def to_json(self) -> str:
        """Write the manifest as indented JSON, sealed."""
        fields = dataclasses.asdict(self)
        return json.dumps({**fields, "seal": digest(fields)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: object) -> str:
    """Return the SHA-256 of `value` written as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_id(kind: str, files: Mapping[str, FileEntry], parents: Mapping[str, str], input_key: str) -> str:
    """Return the id of an object of these files, made from these parents to answer `input_key`."""
    listing = {name: dataclasses.asdict(entry) for name, entry in files.items()}
    return f"{kind}-{digest([kind, listing, dict(parents), input_key])[:12]}"


def portable(value: Any) -> Any:
    """Return `value` as plain JSON that says the same on any machine.

    An absolute path becomes its last part (what lay there is in the data fingerprints), a number that is not finite
    becomes null, and what JSON has no word for becomes its text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((portable(item) for item in value), key=str)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    text = str(value)
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if is_absolute(text) else text


def is_absolute(text: str) -> bool:
    """Tell whether `text` is a path that means something on one machine only."""
    return _ABSOLUTE_PATH.fullmatch(text) is not None


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the object in `folder`; ArtifactError where there is none or it is damaged."""
    path = folder / NAME
    try:
        fields = json.loads(path.read_bytes())
        seal, version = fields.pop("seal"), fields["version"]
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; `rlhf artifacts list` shows what is there") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{path} is damaged: not a manifest; {how_to_replace(folder)}") from None
    if version != VERSION:
        raise ArtifactError(f"{path} has format {version}, this program reads {VERSION}; upgrade rlhf-pipeline")
    if seal != digest(fields):
        raise ArtifactError(f"{path} is damaged: it does not match its seal; {how_to_replace(folder)}")
    files = {name: FileEntry(**entry) for name, entry in fields.pop("files").items()}
    return Manifest(files=files, **fields)


def how_to_replace(folder: Path) -> str:
    """Say what to type when the object in `folder` can no longer be trusted."""
    return f"type `rm -rf {folder}` and the command that made it (it makes the same object again)"
