"""Networks to plan with, and their config.json files, from published shapes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rlhf_pipeline.launch.plan.networks import Network, Projection
from rlhf_pipeline.launch.plan.roles import Shapes

OPT: dict[str, dict[str, Any]] = {
    "opt-350m": {
        "num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "ffn_dim": 4096,
        "word_embed_proj_dim": 512, "do_layer_norm_before": False,
    },
    "opt-13b": {"num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 40, "ffn_dim": 20480},
    "opt-66b": {"num_hidden_layers": 64, "hidden_size": 9216, "num_attention_heads": 72, "ffn_dim": 36864},
    "opt-175b": {"num_hidden_layers": 96, "hidden_size": 12288, "num_attention_heads": 96, "ffn_dim": 49152},
}  # fmt: skip
"""Zhang et al. 2022 (OPT), table 1; the rest is in the checkpoints' own config.json files."""

LLAMA_2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip


def opt_config(folder: Path, name: str) -> str:
    """Write the config.json of an OPT model, and return its path."""
    file = folder / f"{name}.json"
    config = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048, **OPT[name]}
    file.write_text(json.dumps({"word_embed_proj_dim": config["hidden_size"], **config}))
    return str(file)


def small_network(layers: int = 2, width: int = 8, vocabulary: int = 10) -> Network:
    """A network of square layers whose numbers are easy to compute by hand: 4 d^2 a layer, and an embedding."""
    square = [width * width] * 4 * layers
    return Network(
        name="small",
        parameters=(vocabulary * width, *square),
        projections=tuple(Projection(name, width, width) for name in ("q", "k", "v", "o") * layers),
        layers=layers,
        width=width,
        attention=width,
        keys=width // 2,
        entries=5,
        inner=4 * width,
        inner_kept=4,
        rms=True,
        vocabulary=vocabulary,
    )


NETWORK = small_network(layers=4, width=64, vocabulary=100)
SCALAR = dataclasses.replace(NETWORK, parameters=(*NETWORK.parameters, NETWORK.width), vocabulary=0)
SHAPES = Shapes(NETWORK, SCALAR, SCALAR)
