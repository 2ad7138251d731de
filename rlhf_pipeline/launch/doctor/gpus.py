"""Judge the cards of a machine: driver, what torch can use, bf16, who else is on them, NVLink and peer access."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, warned
from rlhf_pipeline.launch.doctor.nvml import Card, Cards

BF16 = (8, 0)
BUSY = 0.02
"""Share of a card's memory that may be in use before training; the driver itself takes some."""


@dataclass(frozen=True)
class Torch:
    """What torch was built for and sees: its version, its CUDA (None: none), and the cards it may use."""

    version: str
    cuda: str | None
    devices: int
    cpu_bf16: bool


def torch_facts() -> Torch:
    """Ask torch."""
    import torch

    from rlhf_pipeline.machine import cpu_has_bf16

    return Torch(torch.__version__, torch.version.cuda, torch.cuda.device_count(), cpu_has_bf16())


def visible(cards: Cards, named: str | None) -> Cards:
    """Return the cards that CUDA_VISIBLE_DEVICES (`named`) leaves, by number or UUID, up to the first that is none.

    Numbers are those of `nvidia-smi`; CUDA's own begin with the fastest card unless CUDA_DEVICE_ORDER is PCI_BUS_ID.
    """
    if named is None:
        return cards
    kept: list[Card] = []
    for word in named.split(","):
        found = [card for card in cards.cards if _is_named(card, word.strip())]
        if len(found) != 1:  # CUDA looks no further
            break
        kept += found
    numbers = {card.index for card in kept}
    pairs = tuple(pair for pair in cards.pairs if numbers.issuperset(pair.cards))
    return replace(cards, cards=tuple(kept), pairs=pairs)


def _is_named(card: Card, word: str) -> bool:
    return word == str(card.index) or (word.startswith("GPU-") and card.uuid.startswith(word))


def check_gpus(cards: Cards | str, torch: Torch, named: str | None = None) -> list[Finding]:
    """Return what is to be said of the cards, or of the CPU where there are none.

    `named` is CUDA_VISIBLE_DEVICES: what it hides is counted and not judged, except where torch uses what it names and
    that is none of the cards, as a MIG instance.
    """
    if isinstance(cards, str) or not cards.cards:
        reason = cards if isinstance(cards, str) else "the driver shows no card"
        return [_without(reason, torch)]
    findings = [_seen_by_torch(cards, torch), *_driver(cards, torch)]
    shown = visible(cards, named)
    if not shown.cards and not torch.devices:
        return findings
    judged = shown if shown.cards else cards
    return [
        *findings,
        *_models(judged),
        *_precision(judged),
        *(finding for card in judged.cards for finding in _use(card)),
        *_topology(judged),
    ]


def _without(reason: str, torch: Torch) -> Finding:
    if torch.devices:  # another maker's card
        return passed("gpus", f"{torch.devices} that torch can use (NVIDIA's library: {reason})")
    kind = "with" if torch.cpu_bf16 else "without"
    return passed("gpus", f"none ({reason}): stages run on the CPU, a processor {kind} bf16")


def _seen_by_torch(cards: Cards, torch: Torch) -> Finding:
    count = len(cards.cards)
    if torch.cuda is None:
        fix = "install a CUDA build: https://pytorch.org/get-started/locally"
        return failed("gpus", f"{count} cards, and torch {torch.version} is built for the CPU", fix)
    if torch.devices == 0:
        return failed("gpus", f"{count} cards, and torch sees none", "unset CUDA_VISIBLE_DEVICES, or renew the driver")
    names = ", ".join(f"{n} x {name}" for name, n in Counter(card.name for card in cards.cards).items())
    hidden = "" if torch.devices == count else f"; CUDA_VISIBLE_DEVICES shows torch {torch.devices}"
    return passed("gpus", f"{names}, {cards.cards[0].memory / 2**30:.0f} GiB each{hidden}")


def _driver(cards: Cards, torch: Torch) -> Iterator[Finding]:
    """A driver runs programs of its own CUDA major version and of older ones (NVIDIA: CUDA compatibility)."""
    if torch.cuda is None:
        return
    built = tuple(int(part) for part in torch.cuda.split(".")[:2])
    seen = f"{cards.driver}, for CUDA up to {cards.cuda[0]}.{cards.cuda[1]}; torch is built for {torch.cuda}"
    if cards.cuda[0] < built[0]:
        yield failed("driver", seen, f"install a driver for CUDA {built[0]}, or a torch built for CUDA {cards.cuda[0]}")
    elif cards.cuda < built:
        yield warned(
            "driver", seen, f"works within CUDA {built[0]}; a newer driver lets kernels be compiled at run time"
        )
    else:
        yield passed("driver", seen)


def _models(cards: Cards) -> Iterator[Finding]:
    if len({(card.name, card.memory) for card in cards.cards}) > 1:
        yield warned("gpus", "cards of several kinds", "the slowest sets the pace: choose with CUDA_VISIBLE_DEVICES")


def _precision(cards: Cards) -> Iterator[Finding]:
    old = [card for card in cards.cards if card.capability < BF16]
    if old:
        major, minor = old[0].capability
        fix = "give fp16: true; stages take fp32 otherwise"
        yield warned("bf16", f"{old[0].name} (compute capability {major}.{minor}) has none", fix)
    else:
        yield passed("bf16", "every card has it")


def _use(card: Card) -> Iterator[Finding]:
    if card.used > BUSY * card.memory:
        used, whole = f"{card.used / 2**30:.1f}", f"{card.memory / 2**30:.0f}"
        seen = f"GPU {card.index}: {used} of {whole} GiB in use by {card.users} programs"
        yield warned("gpu use", seen, "end them (`nvidia-smi` lists them), or hide the card with CUDA_VISIBLE_DEVICES")
    if card.mig:
        fix = f"type `nvidia-smi -i {card.index} -mig 0` as root for training on several"
        yield warned("gpu use", f"GPU {card.index} is cut into MIG instances, which cannot talk to other cards", fix)
    if not card.shareable:
        fix = f"type `nvidia-smi -i {card.index} -c DEFAULT` as root"
        yield warned("gpu use", f"GPU {card.index} takes one program at most: no vLLM server beside the trainer", fix)


def _topology(cards: Cards) -> Iterator[Finding]:
    if not cards.pairs:
        return
    apart = [pair.cards for pair in cards.pairs if not pair.peer]
    beside = [pair.cards for pair in cards.pairs if pair.peer and not pair.nvlink]
    if apart:
        fix = "look at `nvidia-smi topo -p2p w`; in virtual machines and containers, at IOMMU, ACS and --ipc=host"
        yield warned("peer access", f"none between {_some(apart)}: gradients go through the host's memory", fix)
    else:
        yield passed("peer access", f"between all {len(cards.pairs)} pairs of cards")
    down = [card.index for card in cards.cards if card.links < max(card.links for card in cards.cards)]
    if down:
        fix = "`nvidia-smi nvlink -s` shows them; reset the card or call its owner"
        yield warned("nvlink", f"GPU {', '.join(map(str, down))} has fewer links up than the others", fix)
    elif beside or apart:
        fix = "prefer ZeRO-1/2 or LoRA to ZeRO-3 here, and larger gradient_accumulation_steps"
        yield warned("nvlink", f"none between {_some([*beside, *apart])}: PCIe carries the gradients", fix)
    else:
        yield passed("nvlink", f"between all {len(cards.pairs)} pairs, {cards.cards[0].links} links a card")


def _some(pairs: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"GPU {one} and {two}" for one, two in pairs[:3])
    return shown if len(pairs) <= 3 else f"{shown} and {len(pairs) - 3} more pairs"
