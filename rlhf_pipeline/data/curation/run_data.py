"""Hold training sources against what the models of a run were really trained on, by content fingerprints.

A manifest records what the data said, not where it lay, as a path means something on one machine only. So the sources
are named again, and each recorded fingerprint must be that of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhf_pipeline.artifacts.manifest import HUB_PIN, Manifest
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.data.sources import Found, stream
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record, fingerprint

KINDS: tuple[type[Record], ...] = (Demonstration, Ranking, Prompt, Document)
ROWS = ("documents", "demonstrations", "rankings", "prompts", "ptx")
"""Names under which manifests record rows; the others are tokenizers and reward functions."""


def check_run(artifacts: str, run: str, sources: Sequence[str]) -> str:
    """Give one line of what was checked. Raises ConfigError where the run has data that no source is."""
    store = Store(artifacts)
    recorded = {
        print_: f"{manifest.id} ({name})"
        for manifest in ancestors(store, run)
        for name, print_ in manifest.data.items()
        if name in ROWS
    }
    if not recorded:
        raise ConfigError(f"--run: no model of run {run} in {artifacts} records data; `rlhf artifacts list` shows runs")
    given = {print_ for source in sources for print_ in fingerprints(source)}
    missing = [f"{what} {print_[:19]}" for print_, what in recorded.items() if print_ not in given]
    if missing:
        raise ConfigError(
            f"--train: run {run} was trained on data that none of these sources is: {', '.join(missing)}; add it "
            "(rows that changed since are other data)"
        )
    return f"run {run}: --train holds all {len(recorded)} data sets that its models record"


def ancestors(store: Store, run: str) -> Iterator[Manifest]:
    """Give the manifests of a run's objects and of all they were made from, each once."""
    waiting, seen = list(store.refs().get(run, {}).values()), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or HUB_PIN.fullmatch(name) or not store.has(name):
            continue
        seen.add(name)
        manifest = store.manifest(name)
        waiting += manifest.parents.values()
        yield manifest


def fingerprints(source: str) -> Iterator[str]:
    """Give the fingerprint of a source as each kind of record that it can be read as."""
    for kind in KINDS:
        try:
            yield fingerprint(item.record for item in stream(source, kind) if isinstance(item, Found))
        except (ConfigError, DataError):
            continue
