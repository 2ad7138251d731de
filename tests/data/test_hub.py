"""Data sets of `datasets`: saved folders, splits, and what the hub answers when it does not give one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import pytest
from huggingface_hub.errors import HfHubHTTPError

from rlhf_pipeline.data import hub
from rlhf_pipeline.data.sources import Found, read, stream
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration

ROWS = [{"prompt": f"Question {n}?", "completion": f" Answer {n}."} for n in range(3)]


@pytest.fixture(autouse=True)
def _no_progress_bars() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.parametrize("source", ["owner/name", "owner/name:config", "owner/name@1f2e", "a-b/c.d:x@refs/pr/1"])
def test_hub_ids(source: str) -> None:
    assert hub.is_id(source)


@pytest.mark.parametrize(
    "source", ["name", "./owner/name", "/owner/name", "a/b/c", "../name", "owner/", "o/n:", "o/n@"]
)
def test_what_is_no_hub_id(source: str) -> None:
    assert not hub.is_id(source)


def test_asking_for_what_is_no_hub_id() -> None:
    with pytest.raises(DataError, match="cannot be read \\(name is no hub id\\)"):
        next(hub.rows("name", None))


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.jsonl", "train"), ("test-00000-of-00002.parquet", "test"), ("dev_1.csv", "dev"), ("trainer.jsonl", "")],
)
def test_split_of_a_file_name(name: str, split: str) -> None:
    assert hub.split_of(name) == split


def test_choose_split() -> None:
    assert hub.choose_split(["test"], None, "here") == "test"
    assert hub.choose_split(["test", "train"], None, "here") == "train"
    assert hub.choose_split(["test", "train"], "test", "here") == "test"
    with pytest.raises(ConfigError, match="here: no split `train`; choose one of test, dev, as in `here#test`"):
        hub.choose_split(["test", "dev"], None, "here")
    with pytest.raises(ConfigError, match="here: no split `dev`"):
        hub.choose_split(["test"], "dev", "here")


def test_a_saved_data_set(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    rows = read(str(tmp_path / "one"), Demonstration)
    assert [record.to_dict() for record in rows.records] == ROWS
    assert rows.where(2) == f"{tmp_path / 'one'}:row 3"
    with pytest.raises(ConfigError, match="has the one split `None`, not `test`; leave the split out"):
        read(str(tmp_path / "one"), Demonstration, split="test")


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    parts = {"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    assert len(read(str(tmp_path / "both"), Demonstration).records) == 2
    rows = read(str(tmp_path / "both"), Demonstration, split="test")
    assert rows.where(0) == f"{tmp_path / 'both'}[test]:row 1"


def test_a_damaged_saved_data_set(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"damaged data set \(.*\); save it again"):
        read(str(tmp_path), Demonstration)


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def load(name: str, config: str | None, *, revision: str | None) -> datasets.DatasetDict:
        asked.append((name, config, revision))
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read("owner/name:config@abc", Demonstration)
    assert (asked, rows.where(0)) == ([("owner/name", "config", "abc")], "owner/name:config@abc[train]:row 1")


def test_what_is_streamed_is_not_downloaded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stream` asks `datasets` for rows as they are needed, and a connection that breaks between them is told."""
    given: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for number, row in enumerate(ROWS):
            given.append(number)
            yield row
        raise ConnectionError("reset by peer")

    def load(name: str, config: str | None, *, revision: str | None, streaming: bool) -> datasets.IterableDatasetDict:
        assert streaming
        return datasets.IterableDatasetDict({"train": datasets.IterableDataset.from_generator(rows)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    items = stream("owner/name", Demonstration)
    first = next(items)
    assert isinstance(first, Found)
    assert (first.where, first.record.prompt) == ("owner/name[train]:row 1", "Question 0?")
    assert given == [0]
    with pytest.raises(DataError, match=r"owner/name: .* the hub cannot be reached \(reset by peer\)"):
        list(items)


def test_a_saved_data_set_damaged_between_its_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    (file,) = (tmp_path / "one").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"one: damaged data set \(.*\); save it again"):
        read(str(tmp_path / "one"), Demonstration)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'owner/name' is a gated dataset on the Hub."),
            "hf auth login",
        ),
        (HfHubHTTPError("500 Server Error", response=mock.MagicMock()), "the hub does not give it (500 Server Error)"),
        (
            ConnectionError("Couldn't reach\nthe hub"),
            "the hub cannot be reached (Couldn't reach the hub); check the path",
        ),
        (
            ValueError("Config name is missing.\nPick one of a, b"),
            "cannot be read (Config name is missing. Pick one of a, b)",
        ),
        (RuntimeError(""), "cannot be read (RuntimeError)"),
    ],
    ids=["gated", "server", "offline", "config", "script"],
)
def test_what_the_hub_refuses_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "level", logging.INFO)

    def load(*_: object, **__: object) -> None:
        assert logger.level == logging.ERROR  # or every retry would warn
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError) as caught:
        read("owner/name", Demonstration)
    assert str(caught.value).startswith("owner/name: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert logger.level == logging.INFO
