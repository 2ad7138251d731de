"""Our own settings of PPO, apart from TRL's, so that `rlhf ppo --help` can list them without loading it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class PPOFields:
    """What PPO needs beyond trl.GRPOConfig; `ppo.config.PPOConfig` joins the two."""

    kl_coef: float = field(
        default=0.05, metadata={"help": "Weight of the per-token KL penalty (its first, with kl_target)."}
    )
    kl_estimator: Literal["k1", "k2", "k3"] = field(
        default="k1", metadata={"help": "Estimate of the KL of a token: log ratio, half its square, or r - 1 - log r."}
    )
    kl_target: float | None = field(
        default=None, metadata={"help": "Adapt kl_coef towards this KL, in nats a completion; None: it stays."}
    )
    kl_horizon: float = field(
        default=10000, metadata={"help": "Completions over which kl_coef adapts; smaller is faster."}
    )
    kl_limit: float = field(default=50.0, metadata={"help": "Nats a completion above which guard `kl` speaks."})
    gamma: float = field(default=1.0, metadata={"help": "Discount of later rewards, per token."})
    gae_lambda: float = field(default=0.95, metadata={"help": "GAE's trade of bias (0) for variance (1)."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(default=0.2, metadata={"help": "How far a value may move from the rollout's."})
    whiten_rewards: bool = field(
        default=False, metadata={"help": "Scale per-token rewards to variance one over the whole rollout; mean kept."}
    )
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten advantages over the whole rollout."})
    missing_eos_score: float | None = field(
        default=None, metadata={"help": "Score of a completion that never ended; None: what the reward says."}
    )
    ensemble_reduction: Literal["mean", "min"] = field(
        default="mean", metadata={"help": "What the scores of an ensemble of reward models are reduced to."}
    )
    disagreement_coef: float = field(
        default=0.0, metadata={"help": "Weight of the ensemble's standard deviation, taken off that score."}
    )
    critic_learning_rate: float | None = field(default=None, metadata={"help": "None: learning_rate."})
    critic_warmup_steps: int = field(default=0, metadata={"help": "Optimizer steps before the policy moves."})
    ptx_coef: float = field(
        default=0.0, metadata={"help": "Weight of the pretraining loss on ptx_data (InstructGPT: 27.8); 0: none."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Publish a moving average of the policy with this decay (InstructGPT: 0.992)."}
    )
    guards: list[str] = field(
        default_factory=list,
        metadata={"help": "what guards do: ratio, sampler, kl, length, template = off, warn or stop (kl also backoff)"},
    )
