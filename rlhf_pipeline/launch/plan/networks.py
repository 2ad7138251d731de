"""Count a network's parameters exactly, tensor by tensor, without its weights.

transformers builds the architecture on torch's meta device, which holds shapes and no numbers; only config.json is
read. Left out: code that a checkpoint brings along, and adapters that are no LoRA.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_pipeline.errors import ConfigError, ModelError, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

UNBUILDABLE = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError, ImportError)
"""What transformers and torch raise for values of a config.json that make no network."""


class Projection(NamedTuple):
    """A linear layer that LoRA can adapt: its last name (`q_proj`), inputs and outputs."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Network:
    """The shape of a network: numbers in every parameter (tied ones once), and what its activations follow from.

    `attention` and `keys` are the widths of all query heads and of all key heads; `entries` the linear layers of a
    block that read a norm's result; `inner` the width of the MLP, of which autograd keeps `inner_kept` tensors: both
    branches, the activation and the product with a gate, one of ReLU, two of others. `rms`: its norms are RMSNorm.
    `vocabulary` is 0 without a language head.
    """

    name: str
    parameters: tuple[int, ...]
    projections: tuple[Projection, ...]
    layers: int
    width: int
    attention: int
    keys: int
    entries: int
    inner: int
    inner_kept: int
    rms: bool
    vocabulary: int

    @property
    def count(self) -> int:
        """All parameters."""
        return sum(self.parameters)


def adapter(network: Network, rank: int, targets: Collection[str] = ()) -> tuple[int, ...]:
    """Return the numbers in every LoRA matrix: rank x inputs and outputs x rank for each adapted layer.

    Hu et al. 2021, section 4.1. Raises ConfigError where `targets` names a layer that the network has not.
    """
    names = {projection.name for projection in network.projections}
    if unknown := sorted(set(targets) - names):
        raise ConfigError(
            f"lora_target_modules: {network.name} has no linear layer `{unknown[0]}`; it has {', '.join(sorted(names))}"
        )
    adapted = [p for p in network.projections if not targets or p.name in targets]
    return tuple(size for p in adapted for size in (rank * p.inputs, p.outputs * rank))


def read_network(model: str, *, scalar: bool = False, revision: str | None = None) -> Network:
    """Build the network of `model`, a folder, a config.json or a hub id at `revision`, without weights.

    A causal language model; `scalar`: its backbone with one output, as reward models and critics are. Raises
    ModelError where the config cannot be read or names an architecture that transformers does not know.
    """
    import torch

    config = _read_config(model, revision)
    name = Path(model).stem if Path(model).is_file() else Path(model).name
    try:
        _check_sizes(config.get_text_config(), model)
        with torch.device("meta"):
            return describe(_build(config, scalar), name)
    except UNBUILDABLE as error:
        raise ModelError(f"{model}: cannot be built: {first_line(error)}; name a causal language model") from error


def _read_config(model: str, revision: str | None) -> PretrainedConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(model, revision=revision)
        return config
    except ZeroDivisionError as error:
        raise ModelError(
            f"{model}: a size in its config.json is 0, such as `num_attention_heads`; write whole numbers above 0"
        ) from error
    except (OSError, StrictDataclassError, *UNBUILDABLE) as error:
        raise ModelError(
            f"{model}: no usable config.json ({first_line(error)}); name a model of an architecture that the installed "
            "transformers knows, of an adapter its base"
        ) from error


def _check_sizes(config: PretrainedConfig, model: str) -> None:
    """Refuse sizes that no network has; other values of a config are left to transformers to refuse."""
    if getattr(config, "num_attention_heads", None) is None:
        raise ModelError(
            f"{model}: a {config.model_type} has no `num_attention_heads`, and attention-free architectures are not "
            "planned; name a transformer"
        )
    for name in ("num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size"):
        size = getattr(config, name, 1)  # where there is none, building says what is missing
        if not isinstance(size, int) or size < 1:
            raise ModelError(f"{model}: `{name}` is {size!r}; write a whole number above 0 in its config.json")


def _build(config: PretrainedConfig, scalar: bool) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind: Any = AutoModelForCausalLM
    if scalar:
        config.num_labels = 1
        known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        kind = AutoModelForSequenceClassification if known else AutoModel
    return kind.from_config(config)


def describe(model: Any, name: str) -> Network:
    """Return the shape of a built model, on whatever device."""
    config = model.config.get_text_config()
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    projections = tuple(_projections(model))
    output = model.get_output_embeddings()
    attention = config.num_attention_heads * head_width
    inner = _inner_width(projections, config.hidden_size)
    reading = [p for p in projections if p.inputs == config.hidden_size]
    gated = {"gate_proj", "up_proj"} <= {p.name for p in reading} or {"w1", "w3"} <= {p.name for p in reading}
    relu = getattr(config, "hidden_act", getattr(config, "activation_function", "")) == "relu"
    return Network(
        name=name,
        parameters=tuple(parameter.numel() for parameter in model.parameters()),
        projections=projections,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        attention=attention,
        keys=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head_width,
        entries=len(reading) // config.num_hidden_layers - (attention == config.hidden_size),
        inner=inner,
        inner_kept=4 if gated else 1 if relu else 2,
        rms=any("RMSNorm" in type(module).__name__ for module in model.modules()),
        vocabulary=0 if output is None else config.vocab_size,
    )


def _projections(model: Any) -> list[Projection]:
    """Every linear layer but the head: what peft means by `all-linear`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    heads = (model.get_output_embeddings(), dict(model.named_children()).get("score"))
    found = []
    for name, module in model.named_modules():
        if any(module is head for head in heads):
            continue
        if isinstance(module, nn.Linear):
            found.append(Projection(name.rpartition(".")[2], module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            found.append(Projection(name.rpartition(".")[2], module.weight.shape[0], module.weight.shape[1]))
    return found


def _inner_width(projections: Collection[Projection], width: int) -> int:
    """Find the width inside the MLP: the inputs of its last layer, by the names that architectures give it."""
    last = ("down_proj", "fc2", "dense_4h_to_h", "fc_out", "c_proj", "w2", "wo")
    return max((p.inputs for p in projections if p.name in last), default=4 * width)
