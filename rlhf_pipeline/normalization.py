"""How raw scores of a reward model become rewards: by offset and scale, which lie in its config.json.

Left out: finding them (`ranking.zero`), and scoring (`scoring`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Normalization:
    """What makes a reward of a raw score: (score - offset) / scale; it lies in a reward model's config.json."""

    offset: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, config: Mapping[str, Any], heads: int = 1) -> list[Normalization]:
        """Read `reward_offset` and `reward_scale` from a config.json: for each head, lists where there are several."""
        offsets, scales = config.get("reward_offset", 0.0), config.get("reward_scale", 1.0)
        return [
            cls(float(offset), float(scale))
            for offset, scale in zip(_for_each(offsets, heads), _for_each(scales, heads), strict=True)
        ]

    def to_config(self) -> dict[str, float]:
        """Give the keys of a config.json that `of` reads."""
        return {"reward_offset": self.offset, "reward_scale": self.scale}

    def less(self, offset: float) -> Normalization:
        """Take `offset` off the reward that this makes."""
        return Normalization(self.offset + offset * self.scale, self.scale)


def _for_each(value: Any, heads: int) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] * heads
