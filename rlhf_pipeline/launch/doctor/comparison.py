"""Hold the answers of all processes of a run against each other.

Left out: the order of ranks on machines; NCCL finds the topology itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rlhf_pipeline.artifacts.storage import readable_size
from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, warned

CLOCKS = 2.0
SLOW_NETWORK = 100e6
"""Bytes a second: below a gigabit Ethernet, which is too slow for gradients already."""


@dataclass(frozen=True)
class Answer:
    """What one process says: `shared` whether it sees rank 0's file, `excluded` whether it respects rank 0's lock."""

    host: str
    software: Mapping[str, str]
    variables: Mapping[str, str]
    gpus: tuple[str, ...]
    folder: str
    shared: bool
    excluded: bool
    clock: float
    rate: float
    findings: tuple[Finding, ...]


def compare(answers: Sequence[Answer], nodes: int) -> list[Finding]:
    """Return the machines' own findings, the same ones once, and what differs between machines."""
    by_host: dict[str, Answer] = {}
    for answer in answers:
        by_host.setdefault(answer.host, answer)
    return [
        *merged(answers),
        _machines(answers, nodes),
        *_software(by_host),
        *_variables(by_host),
        *_gpus(by_host),
        *_folder(answers),
        *(_clocks_and_network(answers) if len(by_host) > 1 else []),
    ]


def merged(answers: Sequence[Answer]) -> list[Finding]:
    """Join equal findings; one that not every machine has names those that have it."""
    reporting = [answer for answer in answers if answer.findings]
    hosts: dict[Finding, list[str]] = {}
    for answer in reporting:
        for finding in answer.findings:
            hosts.setdefault(finding, []).append(answer.host)
    everywhere = len(reporting)
    return [replace(f, hosts=() if len(of) == everywhere else tuple(of)) for f, of in hosts.items()]


def _machines(answers: Sequence[Answer], nodes: int) -> Finding:
    counts = Counter(answer.host for answer in answers)
    seen = f"{len(answers)} processes on {len(counts)} machines: " + ", ".join(f"{h} {n}" for h, n in counts.items())
    if len(counts) != nodes:
        return failed("machines", seen, f"--nodes says {nodes}; check num_machines, or the list of hosts")
    if len(set(counts.values())) > 1:
        return failed("machines", seen, "start the same number of processes on each machine")
    return passed("machines", seen)


def _software(by_host: Mapping[str, Answer]) -> Iterator[Finding]:
    names = sorted(set().union(*(answer.software for answer in by_host.values())))
    yield from _differences(
        "same software",
        {name: {host: answer.software.get(name, "none") for host, answer in by_host.items()} for name in names},
        lambda name: "make the same environment on every machine: `make install`, or one image",
    )


def _variables(by_host: Mapping[str, Answer]) -> Iterator[Finding]:
    """Interfaces may well be called differently; anything else changes how NCCL talks."""
    names = set().union(*(answer.variables for answer in by_host.values()))
    yield from _differences(
        "same variables",
        {
            name: {host: answer.variables.get(name, "unset") for host, answer in by_host.items()}
            for name in sorted(names)
            if not name.endswith("SOCKET_IFNAME")
        },
        lambda name: f"export the same {name} on every machine, or none",
    )


def _gpus(by_host: Mapping[str, Answer]) -> Iterator[Finding]:
    cards = {host: ", ".join(sorted(answer.gpus)) or "none" for host, answer in by_host.items()}
    yield from _differences("same gpus", {"gpus": cards}, lambda name: "the slowest and smallest card sets the pace")


def _differences(check: str, values: Mapping[str, Mapping[str, str]], fix: Callable[[str], str]) -> Iterator[Finding]:
    """Yield a finding for each name whose value is not the same on every host, or one that all are."""
    different = {name: of for name, of in values.items() if len(set(of.values())) > 1}
    for name, of in different.items():
        seen = f"{name}: " + ", ".join(f"{value} on {host}" for host, value in of.items())
        yield (warned if check == "same gpus" else failed)(check, seen, fix(name))
    if not different:
        yield passed(check, "on all machines")


def _folder(answers: Sequence[Answer]) -> Iterator[Finding]:
    check, first = "shared artifacts", answers[0]
    if not first.shared:
        yield failed(check, f"{first.folder} cannot be written on {first.host}", "see `artifacts` above")
        return
    blind = sorted({answer.host for answer in answers if not answer.shared})
    deaf = sorted({answer.host for answer in answers if answer.shared and not answer.excluded})
    if blind:
        seen = f"{first.folder} of {first.host} is not the folder that {', '.join(blind)} has there"
        yield failed(check, seen, "name a folder on a disk that every machine mounts with --artifacts")
    if deaf:
        seen = f"{first.folder}: a lock held on {first.host} does not hold on {', '.join(deaf)}"
        yield failed(check, seen, "mount it with locks between machines (NFS 4, Lustre: -o flock), or use another disk")
    paths = {answer.folder for answer in answers}
    if len(paths) > 1:
        yield warned(check, f"named {', '.join(sorted(paths))}", "type an absolute path with --artifacts")
    if not blind and not deaf and len(paths) == 1:
        yield passed(check, f"{first.folder}: every process sees one folder, and its locks")


def _clocks_and_network(answers: Sequence[Answer]) -> Iterator[Finding]:
    spread = max(answer.clock for answer in answers) - min(answer.clock for answer in answers)
    slowest = min(answers, key=lambda answer: answer.rate)
    if spread > CLOCKS:
        fix = "run chrony or ntpd on every machine: artifacts are ordered by the time they were made"
        yield warned("clocks", f"{spread:.1f} s apart", fix)
    else:
        yield passed("clocks", f"within {spread:.2f} s of each other")
    seen = f"{readable_size(slowest.rate)}/s a process over gloo and TCP"
    if slowest.rate < SLOW_NETWORK:
        fix = "name the fast interface: export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME (`ip -br addr` lists them)"
        yield warned("network", seen, fix)
    else:
        yield passed("network", seen)
