"""What a text may name: a role, an artifact, a folder, or a hub model pinned to its commit."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import hf_hub_download

from rlhf_pipeline.artifacts import Store, folder_id, import_folder
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.errors import ArtifactError, ModelError
from tests.hub import ABSENT, BROKEN, COMMIT, GATED, NO_MODEL, THERE, WITHOUT_REVISION, Hub, hub
from tests.tiny import make_llama

__all__ = ["hub"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_llama(tmp_path / "model")
    return tmp_path / "model"


def test_folder_is_known_by_its_content_and_not_copied_yet(store: Store, folder: Path) -> None:
    found = find_checkpoint(store, str(folder), "default")
    assert found == Checkpoint(folder_id(folder), str(folder), None, folder)
    assert not store.root.exists()
    kept = found.kept_in(store)
    assert kept == Checkpoint(found.parent, str(store.path(found.parent)))
    assert kept.kept_in(store) is kept


def test_object_by_id_prefix_role_and_path(store: Store, folder: Path) -> None:
    name = import_folder(store, folder)
    store.set_refs("mine", {"base": name})
    kept = Checkpoint(name, str(store.path(name)))
    for text in (name, name[-12:], "base", "mine/base", str(store.path(name))):
        assert find_checkpoint(store, text, "mine") == kept
    assert find_checkpoint(store, "mine/base", "other") == kept


def test_role_wins_over_a_folder_of_that_name(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "base")
    with pytest.raises(ArtifactError, match="run `default` of .* has no `base` .*`rlhf pretrain`"):
        find_checkpoint(store, "base", "default")
    assert find_checkpoint(store, "./base", "default").folder == Path("base")


def test_folder_without_a_model(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no config.json, so this folder holds no model"):
        find_checkpoint(store, str(tmp_path), "default")


@pytest.mark.parametrize("text", ["gpt2", "./absent", "../a/b", "~/models/x", "/absent/model", "a/b/c"])
def test_text_that_names_nothing(store: Store, text: str) -> None:
    with pytest.raises(ModelError, match=r"neither a folder, nor an artifact .* nor a hub id \(owner/name\)"):
        find_checkpoint(store, text, "default")


@pytest.mark.parametrize("text", ["sft", "other/sft", "sft-0123456789ab"])
def test_missing_role_or_artifact_is_never_asked_of_the_hub(store: Store, text: str) -> None:
    with pytest.raises(ArtifactError):
        find_checkpoint(store, text, "default")


def test_pin_needs_no_hub(store: Store) -> None:
    found = find_checkpoint(store, f"hub:owner/name@{COMMIT}", "default")
    assert found == Checkpoint(f"hub:owner/name@{COMMIT}", "owner/name", COMMIT)
    store.set_refs("default", {"base": found.parent})
    assert find_checkpoint(store, "base", "default") == found


@pytest.fixture
def reached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, where huggingface_hub looks for it in this process."""
    reach(monkeypatch, hub.url, hub.cache)
    return hub


def reach(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (GATED, "owner/gated: this hub model is gated; accept its licence on its page, then type `hf auth login`"),
        (ABSENT, "owner/absent: neither a folder nor an artifact, and the hub knows no such model; check the spelling"),
        (WITHOUT_REVISION, "owner/present: the hub has no revision `v9`; check `--model_revision`"),
        (NO_MODEL, "owner/pictures: has no config.json on the hub; name a Hugging Face model"),
        (BROKEN, "owner/broken: neither a folder nor an artifact, and the hub cannot be reached .*name a local folder"),
        ("owner/two words", "owner/two words: neither a folder, nor an artifact"),
    ],
)
def test_hub_refuses(store: Store, reached: Hub, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        find_checkpoint(store, name, "default", revision="v9" if name == WITHOUT_REVISION else None)
    assert "\n" not in str(caught.value) and not store.root.exists()


@pytest.mark.parametrize("text", [THERE, f"hub:{THERE}"])
def test_hub_model_is_pinned_to_its_commit(store: Store, reached: Hub, text: str) -> None:
    assert find_checkpoint(store, text, "default") == Checkpoint(f"hub:{THERE}@{COMMIT}", THERE, COMMIT)


def test_prefix_asks_the_hub_in_so_many_words(store: Store, reached: Hub) -> None:
    with pytest.raises(ModelError, match="owner/gated: this hub model is gated"):
        find_checkpoint(store, "hub:owner/gated", "default")


def test_hub_out_of_reach(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(
        ModelError, match="owner/name: neither a folder .* name a local folder, or go online once"
    ) as one:
        find_checkpoint(store, "owner/name", "default")
    assert "\n" not in str(one.value)


def test_offline_cache_is_enough(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    repository = tmp_path / "cache" / "models--owner--name"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert Path(hf_hub_download("owner/name", "config.json", local_files_only=True)).is_file()
    pin = Checkpoint(f"hub:owner/name@{COMMIT}", "owner/name", COMMIT)
    assert find_checkpoint(store, "owner/name", "default") == pin
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint(store, "owner/name", "default") == pin
