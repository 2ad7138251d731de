"""Find the checkpoint that a stage starts from: an artifact, a folder, or a hub model pinned to its commit.

Nothing is loaded here, and nothing guessed: a text that names none of the three is refused with what to type.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf_pipeline.artifacts import Store, folder_id, import_folder
from rlhf_pipeline.artifacts.manifest import OBJECT_ID
from rlhf_pipeline.artifacts.store import MAKES
from rlhf_pipeline.errors import ArtifactError, ModelError, first_line

HUB_PREFIX = "hub:"
_CONFIG = "config.json"
_NOTHING = "neither a folder, nor an artifact (`rlhf artifacts list` shows them), nor a hub id (owner/name)"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that exists: `parent` is its id in a manifest, `location` what `from_pretrained` takes."""

    parent: str
    location: str
    revision: str | None = None
    folder: Path | None = None
    """The user's folder, where the store does not hold it yet."""

    def kept_in(self, store: Store) -> Checkpoint:
        """This checkpoint inside the store: a user's folder is copied there, under the hash of its content."""
        if self.folder is None:
            return self
        parent = import_folder(store, self.folder)
        return Checkpoint(parent, str(store.open(parent)))


def find_checkpoint(store: Store, text: str, run: str, revision: str | None = None) -> Checkpoint:
    """Find what `text` names: a role of `run`, an artifact id, a folder, or a hub id (pinned to its commit).

    A role wins over a folder of that name; `./sft` is the folder. Raises `ModelError` where `text` names nothing, or
    where the hub refuses it, and `ArtifactError` where a role or an artifact is missing.
    """
    if text.startswith(HUB_PREFIX):
        name, _, commit = text.removeprefix(HUB_PREFIX).partition("@")
        return Checkpoint(text, name, commit) if commit else _pinned(name, revision)
    if text not in MAKES and Path(text).is_dir():
        return _folder(store, Path(text))
    try:
        artifact = store.resolve(text, run)
    except ArtifactError:
        if text.rpartition("/")[2] in MAKES or OBJECT_ID.fullmatch(text):
            raise
        if text.count("/") == 1 and not text.startswith((".", "/", "~")):
            return _pinned(text, revision)
        raise ModelError(f"{text}: {_NOTHING}") from None
    return find_checkpoint(store, artifact, run) if artifact.startswith(HUB_PREFIX) else _artifact(store, artifact)


def _artifact(store: Store, artifact: str) -> Checkpoint:
    return Checkpoint(artifact, str(store.open(artifact)))


def _folder(store: Store, folder: Path) -> Checkpoint:
    if (folder / "manifest.json").is_file() and folder.resolve().parent == store.objects.resolve():
        return _artifact(store, folder.name)
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: no config.json, so this folder holds no model; name a Hugging Face model folder")
    return Checkpoint(folder_id(folder), str(folder), folder=folder)


def _pinned(name: str, revision: str | None) -> Checkpoint:
    """Pin a hub id to its commit, by its config.json; works from the local cache when offline."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = _commit(name, revision)
    except HFValidationError as error:
        raise ModelError(f"{name}: {_NOTHING}") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{name}: this hub model is gated; accept its licence on its page, then type `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name}: neither a folder nor an artifact, and the hub knows no such model; check the spelling, "
            "or type `hf auth login` where it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub has no revision `{revision}`; check `--model_revision`") from error
    except EntryNotFoundError as error:
        raise ModelError(f"{name}: has no config.json on the hub; name a Hugging Face model") from error
    except (HTTPError, OSError) as error:
        raise ModelError(
            f"{name}: neither a folder nor an artifact, and the hub cannot be reached ({first_line(error)}); "
            "name a local folder, or go online once"
        ) from error
    return Checkpoint(f"{HUB_PREFIX}{name}@{commit}", name, commit)


def _commit(name: str, revision: str | None) -> str:
    """The commit of a hub model: one question, and where the hub does not answer, what the local cache holds."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = get_hf_file_metadata(hf_hub_url(name, _CONFIG, revision=revision)).commit_hash
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (HTTPError, OSError) as error:
        try:
            return Path(hf_hub_download(name, _CONFIG, revision=revision, local_files_only=True)).parent.name
        except LocalEntryNotFoundError:
            raise error from None
    return commit or Path(hf_hub_download(name, _CONFIG, revision=revision)).parent.name
