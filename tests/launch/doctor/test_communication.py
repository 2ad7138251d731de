"""Variables that hurt are named, with what they do."""

from __future__ import annotations

import pytest

from rlhf_pipeline.launch.doctor.communication import check_communication, nccl_version

INTERFACES = ("lo", "eth0", "ib0", "docker0")


def test_nothing_set() -> None:
    (found,) = check_communication({"PATH": "/bin"}, INTERFACES, "2.28.9")
    assert (found.status, found.seen) == ("pass", "NCCL 2.28.9; no variable that hurts")
    (found,) = check_communication({}, INTERFACES, None)
    assert found.seen == "no NCCL (gloo serves CPUs); no variable that hurts"


@pytest.mark.parametrize(
    ("variables", "status", "seen"),
    [
        ({"NCCL_P2P_DISABLE": "1"}, "warn", "NCCL_P2P_DISABLE=1: cards no longer reach each other"),
        ({"NCCL_DEBUG": "info"}, "warn", "NCCL_DEBUG=info: every process writes pages of log"),
        ({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}, "warn", "leaves the others waiting for ever"),
        ({"NCCL_ALGO": "Ring"}, "warn", "NCCL_ALGO=Ring takes NCCL's own choice away"),
        ({"NCCL_SOCKET_IFNAME": "eno1"}, "fail", "NCCL_SOCKET_IFNAME=eno1 is no interface of this machine"),
        ({"NCCL_SOCKET_IFNAME": "=eth"}, "fail", "NCCL_SOCKET_IFNAME==eth is no interface"),
        ({"GLOO_SOCKET_IFNAME": "eth"}, "fail", "GLOO_SOCKET_IFNAME=eth is no interface"),
        ({"GLOO_SOCKET_IFNAME": "=eth0"}, "fail", "GLOO_SOCKET_IFNAME==eth0 is no interface"),
        ({"GLOO_SOCKET_IFNAME": "^docker"}, "fail", "GLOO_SOCKET_IFNAME=^docker is no interface"),
        ({"GLOO_SOCKET_IFNAME": "eth0,eno1"}, "fail", "GLOO_SOCKET_IFNAME=eth0,eno1 is no interface"),
        ({"NCCL_SOCKET_IFNAME": "^lo,eth,ib,docker"}, "fail", "is no interface"),
    ],
)
def test_one_that_hurts(variables: dict[str, str], status: str, seen: str) -> None:
    (found,) = check_communication(variables, INTERFACES, None)
    assert found.status == status and seen in found.seen and "unset " in found.fix


@pytest.mark.parametrize(
    "variables",
    [
        {"NCCL_P2P_DISABLE": "0"},
        {"NCCL_DEBUG": "WARN"},
        {"NCCL_SOCKET_IFNAME": "eth"},
        {"NCCL_SOCKET_IFNAME": "=ib0"},
        {"NCCL_SOCKET_IFNAME": "^docker,lo"},
        {"GLOO_SOCKET_IFNAME": "ib0,eth0"},
    ],
)
def test_one_that_does_not(variables: dict[str, str]) -> None:
    assert [found.status for found in check_communication(variables, INTERFACES, None)] == ["pass"]


def test_version_is_numbers_or_none() -> None:
    version = nccl_version()
    assert version is None or all(part.isdigit() for part in version.split("."))
