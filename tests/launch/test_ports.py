"""A port is free, taken, or no port."""

from __future__ import annotations

import socket

import pytest

from rlhf_pipeline.launch.ports import port_problem


def test_taken_and_free_again() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        assert port_problem(port) == f"port {port} cannot be used on {socket.gethostname()}: Address already in use"
    assert port_problem(port) is None


def test_another_program_on_the_loopback_alone() -> None:
    """Rank 0 listens on every address, so one of them in use is enough."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert port_problem(other.getsockname()[1]) is not None


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port: int) -> None:
    assert port_problem(port) == f"{port} is no port; ports are 1 to 65535"
