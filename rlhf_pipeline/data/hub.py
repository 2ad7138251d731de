"""Rows of data sets that `datasets` knows: saved by `save_to_disk`, or on the hub. `datasets` is imported only here.

With `streaming` a data set of the hub is read over the network as it is needed; without, it is downloaded once and kept
in the cache of `datasets`. Left out: data sets that need code of their own (`datasets` no longer runs any).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_pipeline.data.json_rows import RawRow
from rlhf_pipeline.errors import ConfigError, DataError, RlhfError

_ID = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?")
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")


def is_id(source: str) -> bool:
    """Say whether `source` could be a hub id: `owner/name`, with `:config` and `@revision` where needed.

    Where `owner` is a folder here, a mistyped path is likelier.
    """
    return _ID.fullmatch(source) is not None and not Path(source).parent.is_dir()


def is_saved(folder: Path) -> bool:
    """Say whether `save_to_disk` of `datasets` wrote this folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def split_of(file_name: str) -> str:
    """Give the split that a file name begins with, as in train-00000-of-00002.parquet; "" where it names none."""
    first = re.split(r"[._-]", file_name.lower())[0]
    return first if first in _SPLITS else ""


def choose_split(present: Sequence[str], wanted: str | None, where: str) -> str:
    """Give the wanted split, or without a wish the only one or "train". Raises ConfigError naming what is there."""
    if wanted is None and len(present) == 1:
        return present[0]
    chosen = wanted or "train"
    if chosen not in present:
        if present == [""]:
            raise ConfigError(f"{where}: its files name no splits; leave `#{chosen}` out")
        names = ", ".join(present)
        raise ConfigError(f"{where}: no split `{chosen}`; choose one of {names}, as in `{where}#{present[0]}`")
    return chosen


def saved_rows(folder: Path, split: str | None) -> Iterator[RawRow]:
    """Read a folder that `save_to_disk` wrote. Raises DataError where it is damaged."""
    import datasets
    import pyarrow

    try:
        yield from _rows(datasets.load_from_disk(str(folder)), split, str(folder))
    except RlhfError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{folder}: damaged data set ({_one_line(error)}); save it again") from None


def rows(source: str, split: str | None, *, streaming: bool = False) -> Iterator[RawRow]:
    """Read a data set of the hub, or its local cache. Raises DataError where it is absent, gated or out of reach."""
    with _told(source):
        with _quiet_retries():
            loaded = _load(source, streaming)
        yield from _rows(loaded, split, source)


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Tell what the hub or `datasets` refuse in one line."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except RlhfError:
        raise
    except (datasets.exceptions.DatasetNotFoundError, HfHubHTTPError) as error:
        raise DataError(
            f"{source}: no such file here, and the hub does not give it ({_one_line(error)}); "
            "check the name, or for a gated or private data set run `hf auth login`"
        ) from None
    except OSError as error:
        raise DataError(
            f"{source}: no such file here, and the hub cannot be reached ({_one_line(error)}); "
            "check the path or the network, or pass a downloaded file"
        ) from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: this data set of the hub cannot be read ({_one_line(error)})") from None


def _load(source: str, streaming: bool) -> Any:
    """Load `owner/name:config@revision` with `datasets`, whose errors pass through."""
    import datasets

    match = _ID.fullmatch(source)
    if match is None:
        raise ValueError(f"{source} is no hub id")
    how = {"streaming": True} if streaming else {}
    return datasets.load_dataset(match["name"], match["config"], revision=match["revision"], **how)


@contextmanager
def _quiet_retries() -> Iterator[None]:
    """Keep the hub client's warnings about each retry off the screen: the error that follows says it in one line."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _rows(loaded: Any, split: str | None, where: str) -> Iterator[RawRow]:
    if isinstance(loaded, dict):
        name = choose_split(list(loaded), split, where)
        loaded, where = loaded[name], f"{where}[{name}]"
    elif split is not None and str(loaded.split) != split:
        raise ConfigError(f"{where}: has the one split `{loaded.split}`, not `{split}`; leave the split out")
    for number, value in enumerate(loaded, start=1):
        yield RawRow(f"{where}:row {number}", "", value)


def _one_line(error: Exception) -> str:
    """Give what the error says on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
