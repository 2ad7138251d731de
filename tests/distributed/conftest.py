"""One fork server for all runs of this folder: a run costs seconds where a launch costs an import of torch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.distributed.cluster import Cluster
from tests.e2e.fork_server import ForkServer


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Runs under every launch file, each done once."""
    pytest.importorskip("deepspeed", reason="ZeRO needs DeepSpeed: make install-dev")
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "15"  # seconds that the launcher gives a process to end
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(ForkServer(folder / "output.txt"), folder)
    cluster.prepare()
    yield cluster
    cluster.server.stop()
