"""Critic and reward models as adapters over the policy's own frozen base, each with a scalar head.

One base then carries policy, reference, critic and rewards, in the memory of one model. An adapter is read, or made
fresh, before there is a policy; it joins the policy inside the trainer, once TRL has made that a peft model.
Left out: adapters that are not LoRA, or that replace whole modules beside the head.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PretrainedConfig

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.ppo.adapters import in_force, tuner_layers
from rlhf_pipeline.ppo.forward import backbone_states, causal_lm
from rlhf_pipeline.ppo.packing import Packed
from rlhf_pipeline.ppo.values import ScaledValues

HEAD_KEY = "base_model.model.score.weight"
"""Name of the head in an adapter's file, as peft writes it for a sequence classifier."""


@dataclass(frozen=True)
class HeadedAdapter:
    """An adapter and its heads: configuration, weights by peft's names (none: peft's fresh ones), head (M, width)."""

    config: LoraConfig
    weights: Mapping[str, Tensor]
    head: Tensor

    def averaged(self) -> HeadedAdapter:
        """This adapter with one head, the mean of its M: heads are linear, so its score is the mean of theirs."""
        return dataclasses.replace(self, head=self.head.mean(dim=0, keepdim=True))


def read_adapter(folder: str | Path, heads: int = 1) -> HeadedAdapter:
    """Read a sequence classifier's adapter; raises ModelError where it is no LoRA with as many labels as `heads`."""
    config = LoraConfig.from_pretrained(str(folder))
    weights = load_file(Path(folder) / SAFETENSORS_WEIGHTS_NAME)
    head = weights.pop(HEAD_KEY, None)
    plain = config.peft_type == "LORA" and all("lora_" in name for name in weights)
    if not plain or head is None or head.size(0) != heads:
        raise ModelError(
            f"{folder}: a critic or reward over the policy's base is LoRA with one `score` label (an ensemble of heads "
            "has one for each) and nothing else; "
            f"type `rlhf artifacts merge {Path(folder).name}` and name the id it prints"
        )
    return HeadedAdapter(config, weights, head)


def fresh_adapter(config: LoraConfig, width: int) -> HeadedAdapter:
    """Make an adapter that changes nothing yet, of the shape that `config` gives the policy's, and a head of zeros."""
    return HeadedAdapter(config, {}, torch.zeros(1, width))


class SharedNetwork(nn.Module):
    """A headed adapter `name` over the base of the policy that it joins; only its heads are parameters of its own."""

    adapter: HeadedAdapter
    policy: Any
    layers: Any

    def __init__(self, adapter: HeadedAdapter, name: str) -> None:
        super().__init__()
        self.adapter, self.name = adapter, name
        self.head = nn.Linear(adapter.head.size(1), adapter.head.size(0), bias=False, dtype=torch.float32)
        with torch.no_grad():
            self.head.weight.copy_(adapter.head)

    def join(self, policy: PeftModel) -> None:
        """Put the adapter beside the policy's own, once; it is not trained unless asked for."""
        config = copy.deepcopy(self.adapter.config)
        config.task_type, config.modules_to_save, config.inference_mode = TaskType.CAUSAL_LM, None, True
        config.base_model_name_or_path = policy.peft_config["default"].base_model_name_or_path  # an id it asks the hub
        if self.name not in policy.peft_config:  # a member may be a reward of its own beside its ensemble
            policy.add_adapter(self.name, config)
            if self.adapter.weights:
                set_peft_model_state_dict(policy, dict(self.adapter.weights), adapter_name=self.name)
        self.__dict__["policy"] = policy  # not a child: its weights are the policy's
        self.__dict__["layers"] = tuner_layers(policy)
        self.head.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the shared base is."""
        device: torch.device = self.policy.device
        return device

    @property
    def config(self) -> PretrainedConfig:
        """The shared base's config."""
        config: PretrainedConfig = self.policy.config
        return config

    def states(self, ids: Tensor) -> Tensor:
        """Return the last hidden states under this adapter: (B, T) ids to (B, T, width)."""
        with in_force(self.layers, self.name):
            return backbone_states(causal_lm(self.policy), ids)

    def value(self, states: Tensor) -> Tensor:
        """Apply the heads, in at least float32: (N, width) to (N, M)."""
        values: Tensor = self.head(states.to(self.head.weight.dtype))
        return values.to(torch.promote_types(values.dtype, torch.float32))


class SharedReward(SharedNetwork):
    """A frozen reward model over the policy's base; called like a sequence classifier."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Score right-padded rows, (B, T): an object with `logits` (B, M), read at the last real token."""
        last = attention_mask.sum(dim=1) - 1
        states = self.states(input_ids)[torch.arange(len(last), device=last.device), last]
        return SimpleNamespace(logits=self.value(states))


class SharedCritic(ScaledValues, SharedNetwork):
    """A critic over the policy's base; called, saved and resumed like `critic.Critic`."""

    def join(self, policy: PeftModel) -> None:
        """Put the adapter beside the policy's own, and train it."""
        super().join(policy)
        for parameter in self._adapter_parameters():
            parameter.requires_grad_(True)

    def forward(self, packed: Packed) -> Tensor:
        """Value the states before the completion tokens of `packed`: (N,)."""
        return self.value(self.states(packed.ids)[packed.predicts]).squeeze(-1) - self.offset

    def trained(self) -> Iterable[Parameter]:
        """The parameters that training moves."""
        return [*self.head.parameters(), *self._adapter_parameters()]

    def _adapter_parameters(self) -> list[Parameter]:
        return [p for name, p in self.policy.named_parameters() if f".{self.name}." in name]

    def save(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write an adapter that peft loads as a sequence classifier; `state` is the policy's, gathered from ranks."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = get_peft_model_state_dict(self.policy, state_dict=state, adapter_name=self.name)
        weights[HEAD_KEY] = self.head.weight if state is None else state["critic.head.weight"]
        save_file(
            {name: x.detach().cpu().contiguous() for name, x in weights.items()}, folder / SAFETENSORS_WEIGHTS_NAME
        )
        config = copy.deepcopy(self.policy.peft_config[self.name])
        config.task_type, config.modules_to_save, config.inference_mode = TaskType.SEQ_CLS, ["score"], True
        config.save_pretrained(str(folder))
        beside = copy.deepcopy(self.policy.config)
        beside.update({"num_labels": 1, **self.shift.to_config()})
        beside.save_pretrained(folder)

    def resume(self, folder: str | Path, **_: Any) -> None:
        """Go on from what `save` wrote."""
        saved = read_adapter(folder)
        set_peft_model_state_dict(self.policy, dict(saved.weights), adapter_name=self.name)
        with torch.no_grad():
            self.head.weight.copy_(saved.head)
