"""A store in a fresh folder, and a short way to fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from rlhf_pipeline.artifacts import Store


class Publish(Protocol):
    """Publish an object of one file that holds `text`, and return its id."""

    def __call__(self, kind: str = ..., text: str = ..., key: str = ..., **parents: str) -> str: ...


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


@pytest.fixture
def publish(store: Store) -> Publish:
    def publish_text(kind: str = "sft", text: str = "weights", key: str = "key", **parents: str) -> str:
        with store.staging() as staged:
            (staged / "model.safetensors").write_text(text)
            (staged / "config.json").write_text("{}")
            return store.publish(
                staged, kind=kind, parents=parents, input_key=key, config={}, data={"rows": "sha256:00"}, metrics={}
            )

    return publish_text
