"""What stops a PPO run or speaks up in it, each guard as its setting says.

Numbers that are not finite always stop. The other guards look at one figure each; `guards` sets them to `stop`, `warn`
or `off`. Every rank sees the same totals, so all stop together; the last checkpoint stays as it is.

| guard     | default | speaks where                                                                          |
|-----------|---------|---------------------------------------------------------------------------------------|
| `ratio`   | stop    | on the first minibatch of a rollout, the policy is not the one that was sampled       |
| `sampler` | warn    | the sampler's log-probabilities differ from those of the training engine              |
| `kl`      | warn    | the mean KL of a rollout is above `kl_limit`; `backoff` also raises kl_coef by half   |
| `length`  | warn    | the score follows the length of completions, ten rollouts in a row                    |
| `template`| warn    | policy and reward model share a tokenizer but were trained with other chat templates  |
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from rlhf_pipeline.errors import ConfigError, TrainingError
from rlhf_pipeline.ppo.masked import Reduce

DEFAULT_GUARDS = {"ratio": "stop", "sampler": "warn", "kl": "warn", "length": "warn", "template": "warn"}
ACTIONS = ("off", "warn", "stop")
BACKOFF = "backoff"

RATIO_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
SAMPLER_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE_RATIO_TOLERANCE = 1e-2
COARSE_SAMPLER_TOLERANCE = 5e-2
"""For bf16, and for float32 whose products or forward pass run in reduced precision; nats a token."""

LENGTH_CORRELATION = 0.9
LENGTH_ROLLOUTS = 10


class Guards:
    """The guards of one run, with what each does. Only a `loud` one prints its warnings: that of the first rank."""

    def __init__(self, asked: Sequence[str] = (), *, loud: bool = True) -> None:
        self.actions = guard_actions(asked)
        self.loud = loud
        self._speaking: set[str] = set()
        self.correlations: deque[float] = deque(maxlen=LENGTH_ROLLOUTS)

    def __getitem__(self, name: str) -> str:
        return self.actions[name]

    def check(self, name: str, step: int, problem: str | None) -> bool:
        """Act on a `problem` that guard `name` sees at `step`, None for none: raise TrainingError, or say it once.

        A warning is said again only after the figure was good in between. Returns whether there is a problem.
        """
        if self.actions[name] == "off":
            return False
        if problem is None:
            self._speaking.discard(name)
            return False
        if self.actions[name] == "stop":
            raise TrainingError(f"step {step}: {problem} (guard `{name}`; `--guards {name}=warn` goes on)")
        if name not in self._speaking and self.loud:
            tqdm.write(f"warning: step {step}: {problem} (guard `{name}`)", file=sys.stderr)
        self._speaking.add(name)
        return True

    def length_problem(self, correlation: float) -> str | None:
        """Look at the correlation of score and length of one more rollout."""
        self.correlations.append(abs(correlation))
        if len(self.correlations) < LENGTH_ROLLOUTS or min(self.correlations) < LENGTH_CORRELATION:
            return None
        return (
            f"the score follows the length of completions (correlation {correlation:.2f}, {LENGTH_ROLLOUTS} rollouts "
            f"above {LENGTH_CORRELATION}): the policy may learn length alone; look at the reward model's length bias"
        )


def guard_actions(asked: Sequence[str]) -> dict[str, str]:
    """Read `name=action` words over the defaults; raises ConfigError for a guard or action that does not exist."""
    actions = dict(DEFAULT_GUARDS)
    for word in asked:
        name, _, action = word.partition("=")
        if name not in actions:
            raise ConfigError(f"guards: `{name}` is no guard; there are {', '.join(actions)}")
        allowed = (*ACTIONS, BACKOFF) if name == "kl" else ACTIONS
        if action not in allowed:
            raise ConfigError(f"guards: `{word}`: write `{name}=<action>` with one of {', '.join(allowed)}")
        actions[name] = action
    return actions


def require_finite(step: int, reduce: Reduce, **tensors: Tensor) -> None:
    """Raise TrainingError when any number of `tensors` on any rank is not finite; `reduce` sums over ranks."""
    wrong = reduce(torch.stack([(~torch.isfinite(tensor)).sum() for tensor in tensors.values()]))
    for name, count in zip(tensors, wrong.tolist(), strict=True):
        if count:
            raise TrainingError(
                f"step {step}: {count} numbers of `{name}` are not finite; the last checkpoint is kept. "
                "Lower learning_rate or max_grad_norm, or raise kl_coef, and run the same command again"
            )


def require_scores(step: int, scores: Tensor, names: list[str]) -> None:
    """Raise TrainingError naming the reward function behind the first score that is no number: (B, functions)."""
    for name, column in zip(names, scores.T, strict=True):
        wrong = torch.nonzero(~torch.isfinite(column))
        if len(wrong):
            row = int(wrong[0])
            raise TrainingError(
                f"step {step}: reward function `{name}` gave {column[row].item()} (None counts as nan) for completion "
                f"{row} of the rollout; return a finite number for every completion"
            )


def _exact(autocast: bool) -> bool:
    return not autocast and torch.get_float32_matmul_precision() == "highest"


def ratio_problem(mean_abs_log_ratio: float, dtype: torch.dtype, *, autocast: bool) -> str | None:
    """Look at the first minibatch of a rollout: it must have the log-probabilities that training recomputed before.

    `mean_abs_log_ratio`: nats a token.
    """
    coarse = COARSE_RATIO_TOLERANCE
    tolerance = RATIO_TOLERANCE.get(dtype, coarse) if _exact(autocast) else coarse
    if mean_abs_log_ratio <= tolerance:
        return None
    return (
        f"on the first minibatch of a rollout the mean |log ratio| is {mean_abs_log_ratio:.2e}, above {tolerance:.0e} "
        f"for {dtype}; the policy in training is not the one that was sampled (dropout, another dtype, or weights "
        "changed in between?)"
    )


def sampler_problem(mean_abs_gap: float, dtype: torch.dtype, *, autocast: bool) -> str | None:
    """Look at the gap between the sampler's log-probabilities and those of training: `mean_abs_gap`, nats a token."""
    coarse = COARSE_SAMPLER_TOLERANCE
    tolerance = SAMPLER_TOLERANCE.get(dtype, coarse) if _exact(autocast) else coarse
    if mean_abs_gap <= tolerance:
        return None
    return (
        f"the sampler's log-probabilities are {mean_abs_gap:.2e} nats a token from those of training, above "
        f"{tolerance:.0e} for {dtype}; check that both have the same weights, dtype, temperature and EOS"
    )


def kl_problem(kl_nats: float, limit: float) -> str | None:
    """Look at the mean KL of a rollout, in nats a completion."""
    if kl_nats <= limit:
        return None
    return (
        f"the policy is {kl_nats:.1f} nats a completion from its reference, above kl_limit {limit:g}; raise kl_coef, "
        "set kl_target, or lower learning_rate"
    )
