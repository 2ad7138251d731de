"""The critic: a bare backbone and a scalar head, a network of its own beside the policy.

In: a reward model (its head is the first value function) or a policy (zero head). Out: a value for the state before
every completion token, in units of the reward: a reward model's offset and scale hold for its critic too. Saved as a
plain sequence classifier where the architecture has one, else as the bare backbone with `value_head.safetensors`
beside it. Left out: a head on the policy's own trunk, value functions of several rewards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.normalization import Normalization
from rlhf_pipeline.ppo.forward import backbone_states
from rlhf_pipeline.ppo.packing import Packed
from rlhf_pipeline.ppo.values import ScaledValues
from rlhf_pipeline.sharding import loaded_whole

HEAD_FILE = "value_head.safetensors"


class Critic(ScaledValues, nn.Module):
    """Value the state before every completion token.

    `backbone`: a transformer without head. `head`: hidden size to 1, without bias; values are its output less `offset`.
    """

    def __init__(self, backbone: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @classmethod
    def from_reward(cls, source: str | Path | PreTrainedModel, **load: Any) -> Critic:
        """Start from a reward model: backbone and score head of a sequence classifier with one label.

        Of an ensemble's heads, the mean: they are linear, so its score is the mean of theirs.
        `source` is a loaded classifier, which lends its weights, or its folder; then `load` goes to `from_pretrained`.
        Its normalisation becomes the critic's, so that first values are scores. Raises ModelError for another number of
        labels or a head of another form.
        """
        model: Any = source
        if isinstance(source, str | Path):
            model = AutoModelForSequenceClassification.from_pretrained(source, **load)
        head = dict(model.named_children()).get("score")
        heads = getattr(model.config, "reward_heads", 1)
        if isinstance(head, nn.Linear) and head.out_features == heads > 1 and "bias" not in head.state_dict():
            head = _mean_head(head)
            model.config.update({"reward_heads": 1})
        if not isinstance(head, nn.Linear) or head.out_features != 1 or "bias" in dict(head.named_parameters()):
            raise ModelError(
                f"{model.name_or_path}: a critic starts from a reward model with one bias-free `score` output, not "
                f"{type(model).__name__} with {model.config.num_labels} labels; pass `--critic policy` to start from "
                "the policy"
            )
        shifts = Normalization.of(model.config.to_dict(), heads)
        offset, scale = fmean(shift.offset for shift in shifts), fmean(shift.scale for shift in shifts)
        return cls(model.base_model, head).normalised(Normalization(offset, scale))

    @classmethod
    def from_policy(cls, source: str | Path | PreTrainedModel, **load: Any) -> Critic:
        """Start from a language model: its backbone, and a head of zeros, so that every first value is zero.

        `source` is a loaded model, which lends its weights, or its folder; then `load` goes to `from_pretrained`.
        """
        model: Any = AutoModel.from_pretrained(source, **load) if isinstance(source, str | Path) else source
        head = nn.Linear(model.get_input_embeddings().embedding_dim, 1, bias=False, dtype=model.dtype)
        nn.init.zeros_(head.weight)
        return cls(model.base_model, head)

    @classmethod
    def load(cls, folder: str | Path, **load: Any) -> Critic:
        """Load what `save` wrote."""
        head_file = Path(folder) / HEAD_FILE
        if not head_file.exists():
            return cls.from_reward(folder, **load)
        critic = cls.from_policy(folder, **load)
        critic.head.load_state_dict(load_file(head_file))
        return critic

    def forward(self, packed: Packed) -> Tensor:
        """Value the states before the completion tokens of `packed`: (N,), at least float32.

        The state before token t is read at position t - 1, where the policy predicts it.
        """
        values: Tensor = self.head(backbone_states(self.backbone, packed.ids)[packed.predicts]).squeeze(-1)
        return values.to(torch.promote_types(values.dtype, torch.float32)) - self.offset

    def trained(self) -> Iterable[Parameter]:
        """The parameters that training moves."""
        return self.parameters()

    def save(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write weights and config into `folder`; `state` is that of policy and critic, gathered from ranks."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if state is None:
            state = {f"critic.{name}": weight for name, weight in self.state_dict().items()}
        prefix = "critic.backbone."
        backbone = {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
        head = state["critic.head.weight"]
        if type(self.backbone.config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            self._as_classifier(backbone, head).save_pretrained(folder)
            return
        self.backbone.save_pretrained(folder, state_dict=backbone)
        save_file({"weight": head.contiguous()}, folder / HEAD_FILE)

    def resume(self, folder: str | Path, **load: Any) -> None:
        """Go on from what `save` wrote; `load` goes to `from_pretrained`."""
        saved = Critic.load(folder, dtype="auto", use_safetensors=True, **load)
        self.load_state_dict(saved.state_dict())
        self.offset = saved.offset

    def _as_classifier(self, backbone: Mapping[str, Tensor], head: Tensor) -> Any:
        """Lend the weights, uncopied, to the architecture's sequence-classification class."""
        config = copy.deepcopy(self.backbone.config)
        config.num_labels = 1
        config.update(self.shift.to_config())
        with loaded_whole(), torch.device("meta"):
            model: Any = AutoModelForSequenceClassification.from_config(config, dtype=head.dtype)
        model.base_model.load_state_dict(backbone, assign=True)
        model.score.weight = nn.Parameter(head)
        return model


def _mean_head(heads: nn.Linear) -> nn.Linear:
    """Make one head of M: (M, width) to (1, width)."""
    head = nn.Linear(heads.in_features, 1, bias=False, dtype=heads.weight.dtype, device=heads.weight.device)
    with torch.no_grad():
        head.weight.copy_(heads.weight.mean(dim=0, keepdim=True))
    return head
