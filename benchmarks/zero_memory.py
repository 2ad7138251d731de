"""Bytes of tensors that each rank holds when an optimizer step begins, beside what `rlhf plan` predicts of them.

    python -m benchmarks.zero_memory            # five minutes on two cores    -> results/zero_memory.json

Every storage that Python can reach is counted once. Parameters are weights and shares of them; gradients what the
optimizer is about to read; state its moments and, under ZeRO, its own copy of the weights. The rest is DeepSpeed's
buckets and a batch; of DDP's, which lie in C++, its reducer tells the sizes. The resident peak of a process is reported
beside them, with Python, torch and all that an allocator keeps. Left out: activations.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LAUNCHES = {"DDP": "cpu2", "ZeRO-1": "zero1", "ZeRO-2": "zero2", "ZeRO-3": "zero3"}
PROCESSES = (2, 4)
MODEL = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
STEPS = 2
"""The second step is measured: only then does the optimizer have its moments."""
PLANNED = {
    "parameters": ("weights of policy",),
    "gradients": ("gradients of policy",),
    "state": ("optimizer of policy",),
    "buckets": ("DDP's buckets", "reduce bucket"),
}
"""What is measured, and the lines of a plan that predict it."""


def bytes_held(model: Any, optimizer: Any) -> dict[str, int]:
    """Sort the bytes of all reachable tensors of this process by what they are for.

    `optimizer` is what takes the step: torch's own, or DeepSpeed's around it.
    """
    gc.collect()  # or tensors in cycles that nobody needs would count
    inner = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's holds torch's
    shares = [p.ds_tensor for p in model.parameters() if hasattr(p, "ds_tensor")]
    moments = [x for state in inner.state.values() for x in state.values()]
    copies = [p for group in inner.param_groups for p in group["params"]]
    copies += vars(optimizer).get("fp32_partitioned_groups_flat", [])  # ZeRO-3 hands them on one by one
    found: dict[str, int] = {}
    seen: set[int] = set()
    kinds = {
        "parameters": [*model.parameters(), *shares],
        "gradients": [*(p.grad for p in [*model.parameters(), *copies]), vars(optimizer).get("averaged_gradients"),
                      vars(optimizer).get("grad_partitions_flat_buffer")],
        "state": [*moments, *copies],
        "buckets": reachable(),
    }  # fmt: skip
    for kind, things in kinds.items():
        found[kind] = sum(new_bytes(tensors_in(things), seen))
    return found


def reachable() -> list[Any]:
    """Return every tensor that the garbage collector knows."""
    import torch

    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]


def tensors_in(thing: Any) -> Iterator[Any]:
    """Walk through lists and dicts for tensors."""
    import torch

    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from tensors_in(value)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors_in(value)


def new_bytes(tensors: Iterable[Any], seen: set[int]) -> Iterator[int]:
    """Yield the bytes of storages that are not among `seen`, and put them there."""
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield storage.nbytes()


# ---- One rank ----


def measure(output: Path, bf16: bool) -> None:
    """Train a few steps as one of several ranks, and write what it held before the last."""
    import torch
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainingArguments

    class Rows(Dataset[dict[str, torch.Tensor]]):
        """Random tokens, each its own label."""

        def __len__(self) -> int:
            return 64

        def __getitem__(self, n: int) -> dict[str, torch.Tensor]:
            ids = torch.randint(4096, (16,), generator=torch.Generator().manual_seed(n))
            return {"input_ids": ids, "labels": ids}

    zero = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
    arguments = TrainingArguments(
        str(output / "trainer"), max_steps=STEPS, per_device_train_batch_size=1, report_to="none", save_strategy="no",
        ddp_backend="gloo", use_cpu=True, bf16=bf16, disable_tqdm=True, dataloader_pin_memory=False,
        optim="adamw_torch",
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = Trainer(_model(), arguments, train_dataset=Rows())
    steps: list[dict[str, int]] = []

    def watch(optimizer: Any) -> None:
        step = optimizer.step

        def measured(*args: Any, **kwargs: Any) -> Any:
            steps.append(bytes_held(trainer.model, optimizer))
            return step(*args, **kwargs)

        optimizer.step = measured

    trainer.add_callback(
        _when_ready(lambda: watch(trainer.deepspeed.optimizer if zero else trainer.optimizer.optimizer))
    )
    trainer.train()
    found = steps[STEPS - 1]
    found["resident"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux says KiB
    if not zero:
        like = trainer.model_wrapped.reducer._get_zeros_like_grad_buckets()
        found["buckets"] += sum(bucket.buffer().untyped_storage().nbytes() for bucket in like)
    (output / f"rank{arguments.process_index}.json").write_text(json.dumps(found), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM._from_config(LlamaConfig(**MODEL, num_attention_heads=4))


def _when_ready(act: Any) -> Any:
    from transformers import TrainerCallback

    class WhenReady(TrainerCallback):
        """Act once model and optimizer are what they will be in training."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            act()

    return WhenReady()


# ---- All of them ----


def run(mode: str, processes: int, folder: Path, bf16: bool = False) -> list[dict[str, int]]:
    """Start the ranks under a launch file that we ship; returns what each held, and its resident peak."""
    output = folder / f"{mode}-{processes}-{'bf16' if bf16 else 'float32'}"
    output.mkdir()
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file",
        f"recipes/accelerate/{LAUNCHES[mode]}.yaml", "--num_processes", str(processes),
        "-m", "benchmarks.zero_memory", "--rank", str(output), *(["--bf16"] if bf16 else []),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{mode} with {processes} processes failed: {done.stderr[-2000:]}")
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(processes)]


def predicted(mode: str, processes: int, bf16: bool = False) -> dict[str, int]:
    """What `rlhf plan` says of SFT of the same model when an optimizer step begins."""
    import torch

    from rlhf_pipeline.launch.plan.choices import choose
    from rlhf_pipeline.launch.plan.networks import describe
    from rlhf_pipeline.launch.plan.roles import Role
    from rlhf_pipeline.launch.plan.settings import PlanSettings

    with torch.device("meta"):
        network = describe(_model(), "benchmark")
    settings = PlanSettings(model="benchmark", stage="sft", gpus=processes, bf16=bf16)
    role = Role("policy", network, network.parameters)
    memory = choose(settings, [role], int(mode[-1]) if mode.startswith("ZeRO") else 0).memory
    parts = {part.name: part.bytes for part in (*memory.held, *memory.phases["step"])}
    return {kind: sum(parts.get(name, 0) for name in names) for kind, names in PLANNED.items()}


def compared(mode: str, processes: int, bf16: bool, ranks: Sequence[dict[str, int]]) -> dict[str, Any]:
    """Put the rank that holds most beside the prediction; `error` is that of the sum, a share of what was measured."""
    most = max(ranks, key=held)
    plan = predicted(mode, processes, bf16)
    return {
        "mode": mode, "dtype": "bf16" if bf16 else "float32", "processes": processes, "ranks": list(ranks),
        "most": most, "predicted": plan, "error": held(plan) / held(most) - 1,
    }  # fmt: skip


def held(kinds: Mapping[str, int]) -> int:
    """Bytes of all kinds."""
    return sum(kinds[kind] for kind in PLANNED)


HEAD = (
    "| MiB | | processes | weights | gradients | optimizer | buckets | together | `rlhf plan` | error | resident |",
    "|---" * 11 + "|",
)


def row(found: Mapping[str, Any]) -> str:
    """One line of the table in docs/cluster.md: each kind as measured, the sum, and the sum as predicted."""
    most, plan = found["most"], found["predicted"]
    sizes = [*(most[kind] for kind in PLANNED), held(most), held(plan)]
    cells = [f"{size / 2**20:.1f}" for size in sizes]
    ends = [f"{100 * found['error']:.1f} %".replace("-0.0", "0.0"), f"{most['resident'] / 2**20:,.0f}"]
    return f"| {' | '.join([found['mode'], found['dtype'], str(found['processes']), *cells, *ends])} |"


def main(argv: Sequence[str]) -> None:
    """Measure every mode, print a table and write `zero_memory.json`; or be one rank of it."""
    if argv[:1] == ["--rank"]:
        measure(Path(argv[1]), "--bf16" in argv)
        return
    from benchmarks.provenance import describe_moment

    found = []
    print("\n".join(HEAD))
    with TemporaryDirectory() as folder:
        for bf16 in (False, True):
            for mode in LAUNCHES if not bf16 else [mode for mode in LAUNCHES if mode != "DDP"]:
                for processes in PROCESSES:
                    found.append(compared(mode, processes, bf16, run(mode, processes, Path(folder), bf16)))
                    print(row(found[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"model": MODEL, **describe_moment(), "runs": found}, indent=1)
    (RESULTS / "zero_memory.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
