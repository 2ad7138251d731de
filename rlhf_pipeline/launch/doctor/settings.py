"""What `rlhf doctor` takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf_pipeline.errors import ConfigError


@dataclass(frozen=True)
class DoctorSettings:
    """Everything is optional: more that is named is more that is checked."""

    launch: str = field(default="", metadata={"help": "accelerate launch file to check against this machine"})
    processes: int | None = field(default=None, metadata={"help": "what --num_processes will say on the command line"})
    recipe: str = field(
        default="", metadata={"help": "a stage's settings (YAML) to check against launch file and model"}
    )
    model: str = field(default="", metadata={"help": "hub id, folder or artifact that training would start from"})
    reward: str = field(default="", metadata={"help": "hub id, folder or artifact of a reward model for that model"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})
    run: str = field(default="default", metadata={"help": "the run whose roles `model` and `reward` may name"})
    nodes: int = field(
        default=1,
        metadata={"help": "machines that must answer; start one doctor on each with accelerate launch or srun"},
    )
    json: bool = field(default=False, metadata={"help": "print JSON"})

    def __post_init__(self) -> None:
        """Refuse counts that are none, and a reward model with nothing to compare it with."""
        if self.nodes < 1:
            raise ConfigError(f"`nodes` must be at least 1, not {self.nodes}")
        if self.reward and not self.model:
            raise ConfigError("`reward` is compared with a policy; name that with --model too")
