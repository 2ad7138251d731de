"""Add up what a GPU holds in every phase of a stage, line by line, each with its arithmetic.

Phases: ppo generates, scores and trains; every stage ends with the optimizer's step, before which ZeRO-1 reduces all
gradients at once. Left out: the rollout's own tensors (a few numbers a token), PPO-ptx, and activations of scoring
beyond one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_pipeline.launch.plan.activations import (
    PPO_LOGITS,
    SFT_TILE,
    Widths,
    activation_bytes,
    block_bytes,
    cache_bytes,
    logit_bytes,
)
from rlhf_pipeline.launch.plan.roles import Role
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import (
    MAX_LIVE,
    SUB_GROUP,
    Precision,
    Sharding,
    model_states,
    partition,
)

CACHE_SHARE = 0.5
"""Share of the free memory that the trainer's own sampler fills with keys and values (`ppo/sampler.py`)."""


class Part(NamedTuple):
    """Bytes of one thing, and how they come about."""

    name: str
    bytes: int
    arithmetic: str


@dataclass(frozen=True)
class Memory:
    """What is held all the time, and in each phase beside it, on a GPU; `host` is one process's share of its host.

    `rows_at_once`: rows that the trainer's own sampler continues together, 0 without it.
    """

    held: tuple[Part, ...]
    phases: dict[str, tuple[Part, ...]]
    host: int
    rows_at_once: int = 0

    def total(self, phase: str) -> int:
        """Bytes in a phase."""
        return sum(part.bytes for part in (*self.held, *self.phases[phase]))

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.total)


class Ledger:
    """Writes down the parts of one choice of sharding."""

    def __init__(self, settings: PlanSettings, roles: Sequence[Role], sharding: Sharding, checkpointing: bool) -> None:
        self.settings, self.roles, self.sharding = settings, roles, sharding
        self.checkpointing = checkpointing
        self.deepspeed = sharding.zero > 0
        self.states = {r.name: model_states(r.trained, r.frozen, sharding, self.precision(r)) for r in roles}
        self.trained = [role for role in roles if role.trained]

    def precision(self, role: Role) -> Precision:
        """Bytes of a number: bf16 in DeepSpeed's engines; else `dtype`, adapters and critics in float32."""
        if self.deepspeed and self.settings.bf16 and not (role.apart and self.sharding.zero < 3):
            return Precision(2, 2)
        loaded = 2 if self.settings.dtype == "bfloat16" else 4
        return Precision(4 if role.rank or role.full_width else loaded, loaded)

    def widths(self, role: Role) -> Widths:
        """Bytes of an activation; the stream between blocks is as wide as the weights of the base."""
        linear = 2 if self.settings.bf16 or self.settings.dtype == "bfloat16" else 4
        precision = self.precision(role)
        return Widths(linear, precision.frozen if role.rank else precision.trained)

    def memory(self) -> Memory:
        """Write all phases down."""
        held = [*self._weights(), *self._optimizer(), *self._average()]
        left, backward, buckets = self._gradients(), self._backward(), self._buckets()
        if self.sharding.zero == 3:
            held += left + buckets
            left, backward, buckets = [], [], []
        elif not self.deepspeed:
            held += buckets
            buckets = []
        phases = {
            "train": (*backward, *buckets, *self._largest(), *self._training()),
            **({"reduce": (*backward, *buckets, *self._reduced())} if self.sharding.zero == 1 else {}),
            "step": (*left, *self._step()),
        }
        rows = 0
        if self.settings.stage == "ppo":
            engine, sleeps = self._engine(), self.settings.vllm_enable_sleep_mode
            held += [] if sleeps else engine
            copies = self._copies([self.roles[0]]) if self.settings.sampler == "trainer" else []
            generate = [*copies, *self._gathered(), *(engine if sleeps else [])]
            free = self.settings.usable - sum(part.bytes for part in (*held, *generate))
            rows, cache = self._cache(free)
            phases = {"generate": (*generate, *cache), "score": tuple(self._scoring()), **phases}
        return Memory(tuple(held), phases, sum(states.host for states in self.states.values()), rows)

    # ---- Held ----

    def _weights(self) -> list[Part]:
        return [
            Part(f"weights of {role.name}", self.states[role.name].weights, self._share(role, "weights"))
            for role in self.roles
            if role.trained or role.frozen
        ]

    def _optimizer(self) -> list[Part]:
        return [
            Part(f"optimizer of {role.name}", self._on_gpu(role), self._share(role, "optimizer"))
            for role in self.trained
        ]

    def _on_gpu(self, role: Role) -> int:
        return 0 if self.sharding.offload != "none" else self.states[role.name].optimizer

    def _share(self, role: Role, what: str) -> str:
        """Say how many numbers of how many bytes, and what happens to them."""
        precision, processes, zero = self.precision(role), self.sharding.processes, self.sharding.zero
        trained, frozen = sum(role.trained), sum(role.frozen)
        if what == "weights":
            terms = [f"{trained:,} x {precision.trained} B"] * bool(trained)
            terms += [f"{frozen:,} frozen x {precision.frozen} B"] * bool(frozen)
            cut = f" / {processes}, small ones also whole" if zero == 3 else ""
            return " + ".join(terms) + cut + (", on the host" if self.sharding.offload == "all" and zero == 3 else "")
        numbers = f"{trained:,}" if zero == 0 else f"{partition(role.trained, self.sharding):,} of {trained:,}"
        moments = precision.trained if zero == 0 else 4
        return f"{numbers} x ({'4 B master + ' if zero else ''}2 moments of {moments} B)" + self._host_note()

    def _host_note(self) -> str:
        return ", on the host" if self.sharding.offload != "none" else ""

    def _average(self) -> list[Part]:
        if self.settings.ema_decay is None or self.settings.stage != "ppo":
            return []
        numbers = sum(self.roles[0].trained)
        return [Part("moving average", 4 * numbers, f"{numbers:,} x 4 B, whole on every GPU")]

    def _gradients(self) -> list[Part]:
        """What an optimizer step begins with."""
        return [self._of_gradients(role, self.states[role.name].gradients) for role in self.trained]

    def _backward(self) -> list[Part]:
        """What the backward pass before it comes to; ZeRO-2 adds micro-batches up in a second place."""
        times = 2 if self.sharding.zero == 2 and self.sharding.accumulating else 1
        return [self._of_gradients(role, self.states[role.name].backward, times) for role in self.trained]

    def _of_gradients(self, role: Role, size: int, times: int = 1) -> Part:
        trained, width = sum(role.trained), self.precision(role).trained
        numbers = size // width // times
        share = f"{numbers:,} of {trained:,}" if numbers < trained else f"{trained:,}"
        text = f"{f'{times} x ' if times > 1 else ''}{share} x {width} B"
        return Part(f"gradients of {role.name}", size, text if size else "on the host")

    def _buckets(self) -> list[Part]:
        """One engine has one set of buckets, as wide as its gradients."""
        if not self.deepspeed:
            numbers = sum(sum(role.trained) for role in self.trained)
            size = sum(self.states[role.name].buckets for role in self.trained)
            return [Part("DDP's buckets", size, f"{numbers:,} numbers, as wide as gradients")] if size else []
        size = max(self.states[role.name].buckets for role in self.trained)
        return [Part("reduce bucket", size, f"{self.sharding.bucket:,} numbers")]

    def _largest(self) -> list[Part]:
        """The whole gradient that ZeRO-2 and 3 are about to reduce; below 3, offload has a buffer as large too."""
        copies = (self.sharding.zero > 1) + (self.sharding.zero < 3 and self.sharding.offload != "none")
        numbers = max(max(role.trained) for role in self.trained)
        width = self.precision(self.trained[0]).trained
        text = f"{numbers:,} x {width} B" + (" x 2" if copies == 2 else "")
        return [Part("largest gradient", copies * width * numbers, text)] if copies else []

    def _reduced(self) -> list[Part]:
        """Where ZeRO-1 puts the gradients of its share while all are there still."""
        if self.sharding.offload != "none":
            return self._largest()
        size = sum(self.states[role.name].gradients for role in self.trained)
        return [Part("reduced gradients", size, "those of the share, beside all")]

    # ---- Phases ----

    def _copies(self, roles: Sequence[Role]) -> list[Part]:
        """What autocast keeps of float32 weights; of frozen ones in a trained network nothing."""
        if not self.settings.bf16:
            return []
        sizes = {r.name: sum(r.trained or r.frozen) for r in roles}
        widths = {r.name: self.precision(r).trained if r.trained else self.precision(r).frozen for r in roles}
        wide = [role for role in roles if widths[role.name] == 4 and sizes[role.name]]
        return [
            Part(f"bf16 copies of {role.name}", 2 * sizes[role.name], f"{sizes[role.name]:,} x 2 B") for role in wide
        ]

    def _live(self, roles: Sequence[Role]) -> list[Part]:
        """What ZeRO-3 has gathered at once."""
        if self.sharding.zero < 3:
            return []
        numbers = min(MAX_LIVE, sum(sum(role.trained) + sum(role.frozen) for role in roles))
        width = self.precision(roles[0]).frozen
        return [Part("gathered weights", width * numbers, f"{numbers:,} x {width} B, up to stage3_max_live_parameters")]

    def _training(self) -> list[Part]:
        settings, parts = self.settings, [*self._copies(self.trained), *self._live(self.trained)]
        tokens = settings.rows * settings.row_tokens
        for role in self.trained:
            widths = self.widths(role)
            size = activation_bytes(role.network, tokens, widths, self.checkpointing, role.rank)
            block, layers = block_bytes(role.network, widths, role.rank), role.network.layers
            inputs = f"{layers} inputs of {widths.stream * role.network.width:,} B + a block of {block:,} B"
            kept = f"({inputs})" if self.checkpointing else f"{layers} blocks of {block:,} B"
            parts.append(Part(f"activations of {role.name}", size, f"{tokens:,} tokens x {kept}"))
        return [*parts, *self._logits()]

    def _logits(self) -> list[Part]:
        settings, vocabulary = self.settings, self.roles[0].network.vocabulary
        linear = self.widths(self.roles[0]).linear
        if settings.stage == "reward":
            return []
        if settings.stage == "sft":
            high, wide = min(settings.rows * settings.max_length, SFT_TILE[0]), min(vocabulary, SFT_TILE[1])
            return [Part("logits", high * wide * linear, f"a tile of {high:,} positions x {wide:,} x {linear} B")]
        copies = linear + 16  # as the head gives them; in float32, scaled, centred, and exponentials or gradients
        positions = settings.rows * settings.max_completion_length
        size = logit_bytes(vocabulary, positions, PPO_LOGITS, copies)
        return [Part("logits", size, f"{positions:,} positions x {vocabulary:,}, at most {PPO_LOGITS:,}, x {copies} B")]

    def _step(self) -> list[Part]:
        """Gradients that DeepSpeed makes flat, and float32, to step with; torch's fused Adam needs none.

        One group of parameters after the other, ZeRO-3 no more than `SUB_GROUP` at once.
        """
        if not self.deepspeed or self.sharding.offload != "none":
            return []
        numbers = max(partition(role.trained, self.sharding) for role in self.trained)
        if self.sharding.zero == 3:
            numbers = min(numbers, SUB_GROUP)
        narrow = self.precision(self.trained[0]).trained == 2
        text = f"{numbers:,} x {'(2 B flat + 4 B)' if narrow else '4 B'}"
        return [Part("gradients to step with", (6 if narrow else 4) * numbers, text)]

    def _gathered(self) -> list[Part]:
        """Under ZeRO-3 the trainer's sampler has the policy whole on every GPU; vLLM is sent one weight at a time."""
        if self.sharding.zero < 3 or self.settings.sampler != "trainer":
            return []
        policy = self.roles[0]
        numbers, width = sum(policy.trained) + sum(policy.frozen), self.precision(policy).frozen
        return [Part("weights gathered to sample", width * numbers, f"{numbers:,} x {width} B, the policy")]

    def _engine(self) -> list[Part]:
        """Weights and cache of vLLM beside the trainer, shared by `vllm_tensor_parallel_size` GPUs."""
        if self.settings.sampler != "colocate":
            return []
        network, share = self.roles[0].network, self.settings.vllm_tensor_parallel_size
        tokens = self.settings.rollout * self.settings.row_tokens
        return [
            Part("weights of vLLM", 2 * network.count // share, f"{network.count:,} x 2 B / {share}"),
            Part("keys and values of vLLM", cache_bytes(network, 2) * tokens, f"{tokens:,} tokens of a rollout"),
        ]

    def _cache(self, free: int) -> tuple[int, list[Part]]:
        """Rows that fit into the sampler's share of `free` bytes, at least one, and their keys and values."""
        settings, network = self.settings, self.roles[0].network
        if settings.sampler != "trainer":
            return 0, []
        counted = self.precision(self.roles[0]).frozen  # the sampler counts in the width of the weights
        a_row = cache_bytes(network, 1) * settings.row_tokens
        rows = max(1, min(settings.rollout, int(CACHE_SHARE * free) // (a_row * counted)))
        width = self.widths(self.roles[0]).linear
        text = f"{rows:,} rows at once x {settings.row_tokens:,} tokens x {cache_bytes(network, width):,} B"
        return rows, [Part("keys and values", rows * a_row * width, text)]

    def _scoring(self) -> list[Part]:
        """The largest of four forward passes, one after the other, without gradients."""
        tokens = self.settings.rows * self.settings.row_tokens
        passes = [[*self._copies([role]), *self._live([role])] for role in self.roles]
        largest = max(passes, key=lambda parts: sum(part.bytes for part in parts))
        widest = max(self.roles, key=lambda role: block_bytes(role.network, self.widths(role)))
        block = tokens * block_bytes(widest.network, self.widths(widest))
        text = f"{tokens:,} tokens of {widest.name}"
        return [*largest, *self._logits(), Part("one block's activations", block, text)]
