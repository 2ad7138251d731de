"""Describe a folder that is about to be published: its files, its tokenizer, the code and packages at work."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import rlhf_pipeline
from rlhf_pipeline.artifacts.manifest import NAME, FileEntry, digest, is_absolute
from rlhf_pipeline.errors import ArtifactError

ADAPTER_CONFIG = "adapter_config.json"
_PACKAGES = (
    "accelerate",
    "datasets",
    "deepspeed",
    "numpy",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
)
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_VOCABULARIES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")


def file_entry(path: Path) -> FileEntry:
    """Read `path` once: its size and SHA-256."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(size=stream.tell(), sha256=sha256)


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Hash the files `names` of `folder`, several at a time (hashing releases the interpreter lock)."""
    ordered = sorted(names)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(ordered, pool.map(file_entry, (folder / name for name in ordered)), strict=True))


def file_names(folder: Path) -> set[str]:
    """List what lies below `folder` but folders and the manifest, by relative path with forward slashes."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found} - {NAME}


def publishable_files(folder: Path) -> set[str]:
    """Return the files of `folder`; ArtifactError where there is none, or one that an object must not hold."""
    names = file_names(folder)
    if not names:
        raise ArtifactError(f"{folder} is empty: nothing to publish")
    for name in sorted(names):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{path} is no regular file; an object holds its own copies")
        if path.suffix in _PICKLES:
            raise ArtifactError(f"{path} may be a pickle; an object holds weights as safetensors, and nothing pickled")
    return names


def portable_json(path: Path) -> bytes | None:
    """Return the JSON file `path` with absolute paths under `*name_or_path` shortened; None where it has none.

    transformers writes there where a model was loaded from. ArtifactError for an adapter: its base would be lost.
    """
    fields = json.loads(path.read_text(encoding="utf-8"))
    local = {key for key, value in fields.items() if key.endswith("name_or_path") and is_absolute(str(value))}
    if not local:
        return None
    if path.name == ADAPTER_CONFIG:
        raise ArtifactError(f"{path}: the base of an adapter must be an object id or a hub id, not a local folder")
    fields.update({key: Path(fields[key]).name for key in local})
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def make_portable(folder: Path) -> None:
    """Rewrite what `portable_json` finds in the configurations of `folder`."""
    for path in sorted(folder.glob("*config.json")):
        if (content := portable_json(path)) is not None:
            path.write_bytes(content)


def adapter_base(folder: Path) -> str | None:
    """Return what the LoRA adapter in `folder` adapts, an object id or a hub id; None where there is no adapter."""
    path = folder / ADAPTER_CONFIG
    return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]) if path.is_file() else None


def tokenizer_hash(folder: Path) -> str | None:
    """Return the SHA-256 of how the tokenizer in `folder` splits text; None without a tokenizer.

    Padding and truncation are left out of tokenizer.json: they are settings of the last call, not of the tokenizer.
    """
    fast = folder / "tokenizer.json"
    if fast.is_file():
        fields = json.loads(fast.read_text(encoding="utf-8"))
        return digest({key: value for key, value in fields.items() if key not in ("padding", "truncation")})
    found = file_entries(folder, [name for name in _VOCABULARIES if (folder / name).is_file()])
    return digest({name: entry.sha256 for name, entry in found.items()}) if found else None


def chat_template_hash(folder: Path) -> str | None:
    """Return the SHA-256 of the chat template in `folder`; None without one."""
    template = folder / "chat_template.jinja"
    if template.is_file():
        return hashlib.sha256(template.read_bytes()).hexdigest()
    config = folder / "tokenizer_config.json"
    inline = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if inline is None:
        return None
    return hashlib.sha256(inline.encode()).hexdigest() if isinstance(inline, str) else digest(inline)


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of those packages that decide what training computes."""
    installed = {name: _version(name) for name in _PACKAGES}
    found = {name: version for name, version in installed.items() if version is not None}
    return {"python": platform.python_version(), "rlhf-pipeline": rlhf_pipeline.__version__, **found}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def code_revision() -> str:
    """Return the git commit of this package ("+changes" where files differ), or its version outside a checkout."""
    folder = Path(rlhf_pipeline.__file__).parent
    if not _git(folder, "ls-files", "__init__.py"):  # an environment inside somebody else's repository
        return f"version {rlhf_pipeline.__version__}"
    changes = "+changes" if _git(folder, "status", "--porcelain", "--", ".") else ""
    return f"git {_git(folder, 'rev-parse', 'HEAD')}{changes}"


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
