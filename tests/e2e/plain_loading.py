"""Load objects of a store as a stranger does, with transformers and peft alone, and write their logits.

Usage: python plain_loading.py OUTPUT.safetensors FOLDER... The names in OUTPUT are the folders.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

IDS = torch.tensor([[40, 50, 60, 70, 80], [7, 90, 91, 92, 93]])


def load(folder: Path) -> torch.nn.Module:
    """The model in `folder`; an adapter lies over the object that its configuration names."""
    scores = folder.name.startswith(("reward-", "critic-"))
    if (folder / "adapter_config.json").is_file():
        below = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        return PeftModel.from_pretrained(plain(folder.parent / below, scores), folder)
    return plain(folder, scores)


def plain(folder: Path, scores: bool) -> torch.nn.Module:
    """A full model, with one score on top or as a language model."""
    if not scores:
        return AutoModelForCausalLM.from_pretrained(folder)
    labels = {"num_labels": 1, "pad_token_id": AutoConfig.from_pretrained(folder).pad_token_id}
    return AutoModelForSequenceClassification.from_pretrained(folder, **labels)


if __name__ == "__main__":
    output, *folders = sys.argv[1:]
    with torch.no_grad():
        logits = {name: load(Path(name)).eval()(input_ids=IDS).logits.contiguous() for name in folders}
    assert not [module for module in sys.modules if module.startswith("rlhf_pipeline")]
    save_file(logits, output)
