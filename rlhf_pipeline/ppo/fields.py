"""Our own settings of PPO, apart from TRL's, so that `rlhf ppo --help` can list them without loading it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PPOFields:
    """What PPO needs beyond trl.GRPOConfig; `ppo.config.PPOConfig` joins the two."""

    kl_coef: float = field(default=0.05, metadata={"help": "Weight of the per-token KL penalty to the reference."})
    gamma: float = field(default=1.0, metadata={"help": "Discount of later rewards, per token."})
    gae_lambda: float = field(default=0.95, metadata={"help": "GAE's trade of bias (0) for variance (1)."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(default=0.2, metadata={"help": "How far a value may move from the rollout's."})
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten advantages over the whole rollout."})
    missing_eos_score: float | None = field(
        default=None, metadata={"help": "Score of a completion that never ended; None: what the reward says."}
    )
    critic_learning_rate: float | None = field(default=None, metadata={"help": "None: learning_rate."})
    critic_warmup_steps: int = field(default=0, metadata={"help": "Optimizer steps before the policy moves."})
