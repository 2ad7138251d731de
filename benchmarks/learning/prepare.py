"""Make what contestants start from: a small miniature world by the stages of the demo, or a model of stories as given.

What is in the folder already is kept. Left out: models as good as the demo's; something to learn is all they need.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.contestants import ROOT
from benchmarks.learning.task import STORIES, WORLD, write_prompts
from rlhf_pipeline.artifacts import Store

RUN = "learning"
PROMPT_TOKENS = 16
"""Tokens of the beginning of a story, BOS included."""
BEGINNINGS = 4096
"""Stories that are begun; those whose beginning comes twice, or does not survive as text, are dropped."""


def build_world(folder: Path) -> None:
    """Pretrain, fine-tune and learn a reward as `make demo` does, in fewer steps: minutes on two cores."""
    task, world = folder / WORLD.name, folder / "world-data"
    if (task / "prompts.json").is_file():
        return
    samples, rankings = world / "samples.jsonl", world / "rankings.jsonl"
    _rlhf("world", folder=world, seed=0)
    _stage("pretrain", folder, data=world / "documents.jsonl", tokenizer=world / "tokenizer", max_steps=1000)
    _stage("sft", folder, data=world / "demonstrations.jsonl", num_train_epochs=2)
    _stage("sample", folder, prompts=world / "rank-prompts.jsonl", output=samples, limit=3000)
    _stage("label", folder, samples=samples, output=rankings)
    _stage("reward", folder, data=rankings)
    store = Store(folder / "artifacts")
    for name, role in (("policy", "sft"), ("value", "reward"), ("reward", "reward")):
        shutil.copytree(store.path(str(store.ref(RUN, role))), task / name, dirs_exist_ok=True)
    rows = (world / "ppo-prompts.jsonl").read_text(encoding="utf-8").splitlines()
    write_prompts(task, [json.loads(row)["prompt"] for row in rows], WORLD.batch)


def _stage(name: str, folder: Path, **settings: Any) -> None:
    recipe = f"recipes/demo/{name}.yaml"
    _rlhf(name, config=recipe, run=RUN, artifacts=folder / "artifacts", seed=0, **settings)


def _rlhf(command: str, **settings: Any) -> None:
    """Run `rlhf`, its lines and bars shown; stops where it fails, which it explains itself."""
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, "-m", "rlhf_pipeline", command, *words], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"error: rlhf {command} ended with status {done.returncode}; see above")


def build_stories(folder: Path, source: Path) -> None:
    """Copy the model of `source` with a pad token, give it a critic of zeros, and let it begin stories."""
    task = folder / STORIES.name
    if (task / "prompts.json").is_file():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from rlhf_pipeline.tokenization import make_fit, match_embeddings

    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    make_fit(tokenizer)
    match_embeddings(model, tokenizer)
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    value = AutoModelForSequenceClassification.from_config(config)
    value.base_model.load_state_dict(model.base_model.state_dict())
    torch.nn.init.zeros_(value.score.weight)
    for name, network in (("policy", model), ("value", value)):
        network.save_pretrained(task / name)
        tokenizer.save_pretrained(task / name)
    write_prompts(task, begin_stories(model, tokenizer), STORIES.batch)


def begin_stories(model: Any, tokenizer: Any) -> list[str]:
    """Sample beginnings of stories, each different, that are `PROMPT_TOKENS` ids as text too."""
    import torch

    from rlhf_pipeline.decoding import decode, evaluating

    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    shape = (1, BEGINNINGS, PROMPT_TOKENS + 8)  # a little more, since text may take fewer ids than were sampled
    noise = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with evaluating(model) as forward:
        found, _ = decode(forward, torch.tensor([[first]]), torch.tensor([[1]]), noise, [tokenizer.eos_token_id], 1.0)
    texts = (tokenizer.decode(ids, skip_special_tokens=True) for ids in found)
    cut = (tokenizer(text)["input_ids"][:PROMPT_TOKENS] for text in texts)
    beginnings = dict.fromkeys(tokenizer.decode(ids, skip_special_tokens=True) for ids in cut)
    return [text for text in beginnings if len(tokenizer(text)["input_ids"]) == PROMPT_TOKENS]
