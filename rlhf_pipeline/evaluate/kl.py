"""The divergence of a policy from its reference, on completions of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rlhf_pipeline.evaluate.statistics import Floats


def completion_kl(policy: Sequence[Tensor], reference: Sequence[Tensor]) -> Floats:
    """Sum logp - ref_logp over the tokens of each completion, in nats: N tensors (C,) each give (N,).

    Its mean over completions that the policy sampled estimates KL(policy || reference); a single value may be negative.
    """
    totals = [(ours - theirs).double().sum().item() for ours, theirs in zip(policy, reference, strict=True)]
    return np.array(totals, dtype=np.float64)
