"""Say a plan: a table of the ways to share a stage out, what to take, every line of the arithmetic, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_pipeline.launch.plan.choices import Choice
from rlhf_pipeline.launch.plan.gpus import GIB
from rlhf_pipeline.launch.plan.roles import Role
from rlhf_pipeline.launch.plan.settings import PlanSettings


def gib(size: float) -> str:
    """Write bytes as GiB."""
    return f"{size / GIB:,.1f}" if size >= GIB else f"{size / GIB:.3f}"


def heading(settings: PlanSettings, roles: Sequence[Role]) -> list[str]:
    """Say what is planned."""
    sizes = ", ".join(f"{role.name} {_size(role)}" for role in roles)
    ppo = f"{settings.prompt_tokens} + {settings.max_completion_length}"
    rows = ppo if settings.stage == "ppo" else settings.max_length
    what = "pairs" if settings.stage == "reward" else "rows"
    reserve = f"{settings.total_gib:g} GiB each, {settings.reserve_gib:g} kept back"
    return [
        f"{settings.stage} of {roles[0].network.name} on {settings.gpus} x {settings.gpu} ({reserve})",
        f"networks: {sizes}",
        f"{settings.per_device_train_batch_size} {what} of {rows} tokens a micro-batch, gradient checkpointing "
        f"{'on' if settings.gradient_checkpointing else 'off'}",
    ]


def _size(role: Role) -> str:
    trained, frozen = sum(role.trained), sum(role.frozen)
    if not trained and not frozen:
        return "on the base"
    parts = [f"{trained / 1e9:.3g}B trained"] * bool(trained) + [f"{frozen / 1e9:.3g}B frozen"] * bool(frozen)
    return " and ".join(parts)


def table(found: Sequence[Choice], stage: str) -> list[str]:
    """Return one line for each way, below a head."""
    step = "s a rollout" if stage == "ppo" else "s a step"
    width = max(len(choice.name) for choice in found)
    head = f"{'':<{width}}  {'GiB a GPU':>9}  {'at':<8}  {'GiB a host':>10}  {step:>11}"
    return [head, *(f"{choice.name:<{width}}  {_row(choice)}" for choice in found)]


def _row(choice: Choice) -> str:
    verdict = "fits" if choice.fits else f"too much: {choice.limit}"
    host = gib(choice.host_bytes) if choice.host_bytes else "-"
    seconds = f"{choice.seconds:,.1f}" if choice.fits else "-"
    return f"{gib(choice.bytes):>9}  {choice.memory.peak:<8}  {host:>10}  {seconds:>11}  {verdict}"


def advice(best: Choice | None, found: Sequence[Choice], helps: Sequence[tuple[str, Choice]]) -> list[str]:
    """Say what to take, or what stands in the way and what would help."""
    if best is not None:
        return [f"recommended: {best.name}; most of its peak: {best.limit}"]
    least = min(found, key=lambda choice: choice.bytes)
    host = f" and {gib(least.host_bytes)} of {gib(least.host_usable)} of a host" if least.host_bytes else ""
    taken = f"{gib(least.bytes)} GiB of {gib(least.usable)}{host}"
    nearest = f"{least.name} comes nearest, {taken}; what limits it: {least.limit}"
    if not helps:
        helpless = "no single change that was tried helps: take a smaller model, critic or reward model, or more GPUs"
        return [f"nothing fits: {nearest}", helpless]
    ways = (f"  {typed}: {way.name}, {gib(way.bytes)} GiB" for typed, way in helps)
    return [f"nothing fits: {nearest}", "each of these alone would:", *ways]


def arithmetic(choice: Choice) -> Iterator[str]:
    """Yield every line behind one way; what does not fit takes no time that could be told."""
    memory = choice.memory
    yield f"{choice.name}: held all the time"
    yield from _lines(memory.held)
    for phase, parts in memory.phases.items():
        yield f"{choice.name}: {phase}, {gib(memory.total(phase))} GiB with what is held"
        yield from _lines(parts)
    if not choice.fits:
        return
    yield f"{choice.name}: time"
    yield from (f"  {time.name:<28} {time.seconds:>10,.2f} s    {time.arithmetic}" for time in choice.times)


def _lines(parts: Sequence[Any]) -> Iterator[str]:
    yield from (f"  {part.name:<28} {gib(part.bytes):>10} GiB  {part.arithmetic}" for part in parts)


def as_json(
    settings: PlanSettings, roles: Sequence[Role], found: Sequence[Choice], best: Choice | None
) -> dict[str, Any]:
    """Return the plan as plain values, bytes and seconds."""
    return {
        "model": settings.model,
        "stage": settings.stage,
        "gpus": settings.gpus,
        "usable_bytes": settings.usable,
        "networks": {r.name: {"trained": sum(r.trained), "frozen": sum(r.frozen)} for r in roles},
        "choices": [_plain(choice) for choice in found],
        "recommended": None if best is None else best.name,
    }


def _plain(choice: Choice) -> dict[str, Any]:
    memory = choice.memory
    return {
        "name": choice.name,
        "zero": choice.sharding.zero,
        "offload": choice.sharding.offload,
        "fits": choice.fits,
        "bytes": choice.bytes,
        "peak": memory.peak,
        "host_bytes_a_node": choice.host_bytes,
        "held": [part._asdict() for part in memory.held],
        "phases": {phase: [part._asdict() for part in parts] for phase, parts in memory.phases.items()},
        "seconds": choice.seconds if choice.fits else None,
        "times": [time._asdict() for time in choice.times] if choice.fits else None,
    }
