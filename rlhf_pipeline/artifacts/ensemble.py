"""An ensemble of reward models: an object that names its members, and holds no weights.

Beside ensemble.json lie the first member's configuration and tokenizer, by which the ensemble is asked what it takes.
Members are its parents, so lineage, verify and gc know them. Rankings say nothing of where a member's scores have their
zero, so they are aligned: `offsets` are how far each lies above the average member on the completions that were held
out of all. Left out: ensembles of ensembles, members on the hub.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from rlhf_pipeline.artifacts.folders import TOKENIZER_FILES
from rlhf_pipeline.artifacts.manifest import Manifest, digest
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.errors import ArtifactError

ENSEMBLE = "ensemble.json"


def member_ids(folder: Path | str) -> list[str]:
    """Return the ids of the members of the ensemble in `folder`, the first first; none where it is no ensemble."""
    path = Path(folder) / ENSEMBLE
    return list(json.loads(path.read_text(encoding="utf-8"))["members"]) if path.is_file() else []


def member_offsets(folder: Path | str) -> list[float]:
    """Return what is taken off each member's score, the first first; none where `folder` holds no ensemble."""
    path = Path(folder) / ENSEMBLE
    return list(json.loads(path.read_text(encoding="utf-8"))["offsets"]) if path.is_file() else []


def held_out_split(manifest: Manifest) -> tuple[str | None, int, float, int] | None:
    """What the reward stage trained on: rankings, and the version, share and seed of their split; None for others."""
    if "inputs" not in manifest.extra:
        return None
    inputs = manifest.extra["inputs"]
    seed = manifest.config["seed"] - inputs["settings"].get("member", 0)
    return manifest.data.get("rankings"), inputs["version"], inputs["settings"]["eval_fraction"], seed


def join(store: Store, names: Sequence[str], run: str, role: str) -> str:
    """Publish the ensemble of the objects `names`, point `role` of `run` to it, and return its id.

    ArtifactError where there are fewer than two, one twice, or where their tokenizers or chat templates differ.
    """
    key = digest(["ensemble", *names])
    with store.lock(run, "ensemble") as lock:
        lock.reads(names)
        _check(store, names)
        found = store.find(key)
        ensemble = found[0] if found else _publish(store, names, key)
        store.set_refs(run, {role: ensemble})
    return ensemble


def _check(store: Store, names: Sequence[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ArtifactError(f"an ensemble has two different members or more, not {' '.join(names) or 'none'}")
    manifests = [store.manifest(name) for name in names]
    first = manifests[0]
    for one in manifests:
        if member_ids(store.path(one.id)):
            raise ArtifactError(f"{one.id} is an ensemble; name its members, `rlhf artifacts lineage` shows them")
        if (one.tokenizer, one.chat_template) != (first.tokenizer, first.chat_template):
            raise ArtifactError(
                f"{one.id} has another tokenizer or chat template than {first.id}, so they would score other tokens; "
                "train both from one checkpoint"
            )


def aligned(manifests: Sequence[Manifest]) -> list[float] | None:
    """Return the offsets under which members have one zero; their sum is 0, so the mean of members does not move.

    Members that were normalised on the same demonstrations have one already. None where nothing is known.
    """
    zeros = {one.data.get("demonstrations") if "reward_offset" in one.metrics else None for one in manifests}
    if len(zeros) == 1 and None not in zeros:
        return [0.0] * len(manifests)
    means = [one.metrics.get("eval_mean_reward") for one in manifests]
    splits = {held_out_split(one) for one in manifests}
    if len(splits) > 1 or None in splits or None in means:
        return None
    levels = [mean - one.metrics.get("reward_offset", 0.0) for mean, one in zip(means, manifests, strict=True)]
    return [level - sum(levels) / len(levels) for level in levels]


def _publish(store: Store, names: Sequence[str], key: str) -> str:
    manifests: list[Manifest] = [store.manifest(name) for name in names]
    first = store.path(names[0])
    with store.staging() as staged:
        for path in (path for pattern in ("config.json", *TOKENIZER_FILES) for path in first.glob(pattern)):
            shutil.copyfile(path, staged / path.name)
        fields = {"members": list(names), "offsets": aligned(manifests) or [0.0] * len(names)}
        (staged / ENSEMBLE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        seconds = [float(one.metrics.get("seconds", 0)) for one in manifests]
        return store.publish(
            staged,
            kind="reward",
            parents={f"member{number}": name for number, name in enumerate(names)},
            input_key=key,
            config={},
            data={},
            metrics={"members": len(names), "seconds": round(sum(seconds), 1)},
        )
