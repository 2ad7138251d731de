"""The settings of `rlhf plan`. Those that a stage has too carry the stage's names, so that its recipe can be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.launch.plan.gpus import GIB, GPUS, Gpu

LARGEST = 2**20


def divides(gpus: int, per_node: int) -> bool:
    """Whether every one of the machines that are needed has as many of the GPUs."""
    return gpus % -(-gpus // per_node) == 0


@dataclass(frozen=True)
class PlanSettings:
    """What is to be planned. Raises ConfigError for a number that cannot be."""

    model: str = field(default="", metadata={"help": "hub id, folder, config.json or artifact (sft: the base)"})
    run: str = field(default="default", metadata={"help": "run whose artifacts are meant"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    stage: Literal["sft", "reward", "ppo"] = field(default="ppo", metadata={"help": "the stage to plan"})
    reward: str = field(
        default="",
        metadata={"help": "model whose size the reward model has; default: the policy's, with LoRA its base"},
    )
    critic: Literal["auto", "reward", "policy"] = field(
        default="auto", metadata={"help": "as in ppo: of the reward model's size or the policy's; auto: the reward's"}
    )
    gpu: Literal["a100-40", "a100-80", "h100", "h200"] = field(default="h100", metadata={"help": "kind of GPU"})
    gpus: int = field(default=8, metadata={"help": "how many of them"})
    gpus_per_node: int = field(default=8, metadata={"help": "how many of them share NVLink and a host"})
    memory_gib: float | None = field(default=None, metadata={"help": "memory of one; default: that of `gpu`"})
    reserve_gib: float = field(
        default=4.0, metadata={"help": "kept back on each for CUDA's context, NCCL, workspaces and fragmentation"}
    )
    host_gib: float = field(default=2048.0, metadata={"help": "memory of a node's host, for offload (DGX H100: 2 TB)"})
    zero: int | None = field(
        default=None, metadata={"help": "only this ZeRO stage, 0 is DDP; default: all are compared"}
    )
    offload: Literal["none", "optimizer", "all"] | None = field(
        default=None, metadata={"help": "only this offload to the host; default: all are compared"}
    )
    prompt_tokens: int = field(default=512, metadata={"help": "tokens of a prompt (ppo)"})
    max_completion_length: int = field(default=256, metadata={"help": "tokens of a completion (ppo)"})
    max_length: int = field(default=1024, metadata={"help": "tokens of a row (sft), of each side of a pair (reward)"})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "rows, or pairs, in a micro-batch"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "micro-batches of an optimizer step"})
    steps_per_generation: int | None = field(
        default=None, metadata={"help": "micro-batches of a rollout; default: gradient_accumulation_steps"}
    )
    num_iterations: int = field(default=1, metadata={"help": "epochs over a rollout (ppo)"})
    gradient_checkpointing: bool = field(default=True, metadata={"help": "recompute blocks in the backward pass"})
    dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "weights as loaded; DeepSpeed turns them into bf16 where `bf16` is on"}
    )
    bf16: bool = field(default=True, metadata={"help": "matrix products in bf16, as the stages do on GPUs"})
    use_peft: bool = field(default=False, metadata={"help": "LoRA; in ppo all networks stand on one base"})
    lora_r: int = field(default=16, metadata={"help": "rank of the adapters"})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "layers they adapt; default: every linear layer but the head"}
    )
    ema_decay: float | None = field(default=None, metadata={"help": "any: count the moving average of the policy"})
    use_vllm: bool = field(default=False, metadata={"help": "vLLM samples (ppo)"})
    vllm_mode: Literal["colocate", "server"] = field(
        default="colocate", metadata={"help": "vLLM on the same GPUs, or on others, which are not planned here"}
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs that share vLLM's weights (colocate)"})
    vllm_enable_sleep_mode: bool = field(
        default=False, metadata={"help": "vLLM gives its memory back between rollouts"}
    )
    mfu: float = field(default=0.4, metadata={"help": "share of the GPU's bf16 FLOP/s that matrix products reach"})
    bandwidth_share: float = field(
        default=0.6, metadata={"help": "share of the rated bandwidth that memory, links and host reach"}
    )
    network_gb_s: float | None = field(
        default=None, metadata={"help": "GB/s of one GPU between nodes; default: that of `gpu` in its maker's machine"}
    )
    write: str = field(default="", metadata={"help": "write the launch file of the recommendation here (.yaml)"})
    explain: bool = field(default=False, metadata={"help": "print every line of the arithmetic"})
    json: bool = field(default=False, metadata={"help": "print JSON"})

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model: none named; type `rlhf plan --model <hub id, folder or config.json>`")
        whole = (
            "gpus", "gpus_per_node", "prompt_tokens", "max_completion_length", "max_length", "lora_r",
            "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations", "vllm_tensor_parallel_size",
        )  # fmt: skip
        for name in (*whole, *(["steps_per_generation"] if self.steps_per_generation is not None else [])):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; it must lie between 1 and {LARGEST}")
        self._check_rates()
        if self.zero not in (None, 0, 1, 2, 3):
            raise ConfigError(f"`zero` is {self.zero}; it must be 0 (DDP), 1, 2 or 3")
        if self.usable <= 0:
            raise ConfigError(f"`reserve_gib` is {self.reserve_gib}, of {self.total_gib} GiB; keep back less")
        self._check_nodes()
        self._check_sampling()

    def _check_rates(self) -> None:
        """Not a number fails every comparison, and infinity the upper bound."""
        for name in ("mfu", "bandwidth_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; it is a share, above 0 and up to 1")
        for name in ("memory_gib", "network_gb_s"):
            number = getattr(self, name)
            if number is not None and not 0 < number <= LARGEST:
                raise ConfigError(f"`{name}` is {number}; it must lie above 0 and up to {LARGEST}")
        for name in ("reserve_gib", "host_gib"):
            if not 0 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; it must lie between 0 and {LARGEST}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"`ema_decay` is {self.ema_decay}; it must lie between 0 and 1, like 0.992")

    def _check_nodes(self) -> None:
        if not divides(self.gpus, self.gpus_per_node):
            fewer = next(n for n in range(self.gpus, 0, -1) if divides(n, self.gpus_per_node))
            more = next(n for n in range(self.gpus, 2 * LARGEST) if divides(n, self.gpus_per_node))
            raise ConfigError(
                f"`gpus` {self.gpus} do not divide over {self.nodes} machines of up to {self.gpus_per_node} "
                f"(gpus_per_node); type --gpus {fewer} or --gpus {more}"
            )

    def _check_sampling(self) -> None:
        if self.micro_batches % self.gradient_accumulation_steps:
            raise ConfigError(
                f"`steps_per_generation` {self.micro_batches} must be a multiple of gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        if self.gpus % self.vllm_tensor_parallel_size:
            raise ConfigError(
                f"`vllm_tensor_parallel_size` {self.vllm_tensor_parallel_size} must divide the {self.gpus} gpus"
            )

    @property
    def card(self) -> Gpu:
        """The data sheet of `gpu`."""
        return GPUS[self.gpu]

    @property
    def total_gib(self) -> float:
        """GiB that one GPU has."""
        return self.card.memory_gib if self.memory_gib is None else self.memory_gib

    @property
    def usable(self) -> int:
        """Bytes of one GPU that a plan may fill."""
        return int((self.total_gib - self.reserve_gib) * GIB)

    @property
    def nodes(self) -> int:
        """Machines that hold the GPUs."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a rollout on one GPU."""
        return self.steps_per_generation or self.gradient_accumulation_steps

    @property
    def rollout(self) -> int:
        """Completions of a rollout on one GPU."""
        return self.per_device_train_batch_size * self.micro_batches

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row."""
        return self.prompt_tokens + self.max_completion_length if self.stage == "ppo" else self.max_length

    @property
    def rows(self) -> int:
        """Rows that one forward pass takes; a pair is two."""
        return self.per_device_train_batch_size * (2 if self.stage == "reward" else 1)

    @property
    def sampler(self) -> Literal["trainer", "colocate", "server", "none"]:
        """What samples."""
        if self.stage != "ppo":
            return "none"
        return self.vllm_mode if self.use_vllm else "trainer"
