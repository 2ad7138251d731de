"""Environment variables that make NCCL, gloo or CUDA slow, deaf or hang, and the version of NCCL.

Left out: choosing them; without any, NCCL finds its own way. Names and meanings: NVIDIA's NCCL user guide, "Environment
Variables", and torch.distributed's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, warned

CHECK = "nccl"
PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_")

SLOWER = {
    ("NCCL_P2P_DISABLE", "1"): "cards no longer reach each other, not by NVLink either",
    ("NCCL_SHM_DISABLE", "1"): "processes of one machine talk over the network",
    ("NCCL_IB_DISABLE", "1"): "InfiniBand and RoCE are not used",
    ("NCCL_DEBUG", "INFO"): "every process writes pages of log",
    ("NCCL_DEBUG", "TRACE"): "every call is logged",
    ("CUDA_LAUNCH_BLOCKING", "1"): "every kernel is waited for",
    ("TORCH_NCCL_BLOCKING_WAIT", "1"): "the host waits for every collective",
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"): "a lost process leaves the others waiting for ever",
    ("TORCH_DISTRIBUTED_DEBUG", "DETAIL"): "every collective is checked by another one",
}
FORCED = ("NCCL_ALGO", "NCCL_PROTO", "NCCL_NTHREADS", "NCCL_MAX_NCHANNELS", "NCCL_BUFFSIZE")


def check_communication(environ: Mapping[str, str], interfaces: Collection[str], nccl: str | None) -> list[Finding]:
    """Judge the variables; `interfaces` are this machine's network interfaces, `nccl` the version, None without."""
    findings = [*_slower(environ), *_forced(environ), *_interfaces(environ, interfaces)]
    version = f"NCCL {nccl}" if nccl else "no NCCL (gloo serves CPUs)"
    return findings or [passed(CHECK, f"{version}; no variable that hurts")]


def _slower(environ: Mapping[str, str]) -> Iterator[Finding]:
    for (name, value), effect in SLOWER.items():
        if environ.get(name, "").upper() == value:
            yield warned(CHECK, f"{name}={environ[name]}: {effect}", f"`unset {name}` unless something is being traced")


def _forced(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in FORCED:
        if name in environ:
            yield warned(CHECK, f"{name}={environ[name]} takes NCCL's own choice away", f"`unset {name}`")


def _interfaces(environ: Mapping[str, str], interfaces: Collection[str]) -> Iterator[Finding]:
    for name, matches in (("NCCL_SOCKET_IFNAME", _nccl_matches), ("GLOO_SOCKET_IFNAME", _gloo_matches)):
        wanted = environ.get(name, "")
        if wanted and not matches(wanted, interfaces):
            fix = f"`unset {name}`, or name one of {', '.join(sorted(interfaces))}"
            yield failed(CHECK, f"{name}={wanted} is no interface of this machine", fix)


def _gloo_matches(wanted: str, interfaces: Collection[str]) -> bool:
    """Whole names, parted by commas; gloo opens every one of them."""
    return set(wanted.split(",")) <= set(interfaces)


def _nccl_matches(wanted: str, interfaces: Collection[str]) -> bool:
    """`eth` is every name that begins so, `=eth0` that one, `^docker` every other; a comma parts several."""
    if wanted.startswith("^"):
        return any(not name.startswith(tuple(wanted[1:].lstrip("=").split(","))) for name in interfaces)
    if wanted.startswith("="):
        return bool(set(wanted[1:].split(",")) & set(interfaces))
    return any(name.startswith(tuple(wanted.split(","))) for name in interfaces)


def nccl_version() -> str | None:
    """Return the version that torch brings, or None for a build without NCCL."""
    import torch

    if not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))
