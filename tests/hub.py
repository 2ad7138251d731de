"""A hub on this machine that answers as huggingface.co does, for what cannot be downloaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

GATED, ABSENT, WITHOUT_REVISION, BROKEN = "owner/gated", "owner/absent", "owner/present", "owner/broken"
NO_MODEL, THERE = "owner/pictures", "owner/there"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ANSWERS = {
    GATED: (403, "GatedRepo", "Access to model owner/gated is restricted."),
    ABSENT: (404, "RepoNotFound", "Repository not found"),
    WITHOUT_REVISION: (404, "RevisionNotFound", "Invalid rev id: v9"),
    THERE: (200, "", ""),
    NO_MODEL: (404, "EntryNotFound", "Entry not found"),
    BROKEN: (500, "", "Internal error"),
}
"""Model -> status, the X-Error-Code header and the X-Error-Message header of every file."""


@dataclass(frozen=True)
class Hub:
    """Where it answers, and an empty folder to cache its files in."""

    url: str
    cache: Path


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer for the model in the path."""
        name = "/".join(self.path.strip("/").split("/")[:2])
        status, code, message = ANSWERS.get(name, ANSWERS[ABSENT])
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": COMMIT, "Content-Length": "0"}
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub, while a test runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("hub"))
    server.shutdown()
    thread.join()
    server.server_close()
