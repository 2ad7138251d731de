"""A stand-in for vLLM on the CPU: the least of its interface that TRL calls, around a real tiny model.

Real: the model of the folder, the names and shapes of its weights, sampling at the temperature, log-probabilities of
the sampled tokens, stop tokens (the last token of an answer, as in vLLM), sleep that loses the weights, and the HTTP
server (vllm_server_stand_in.py). Faked: NCCL (packed as vLLM packs, then handed over in a queue of this process), the
CUDA device that TRL's client insists on, and `requests`, which the tests do without. Left out: batching, tensor
parallelism, quantisation, images, another dtype than the folder's, vLLM's own layout behind `load_weights`.

An argument that TRL did not pass so far is a TypeError: a new TRL that asks for more of vLLM fails by name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from queue import Queue
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import generation, import_utils
from trl.trainer import grpo_trainer

Weights = Iterable[tuple[str, Tensor]]
Wire = Queue[Tensor]
"""What carries packed weights from the trainer's process group to the server's."""

SET_BY_TRL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


# ---- The engine: what both modes run ----


@dataclass(frozen=True)
class SamplingParams:
    """vLLM's, as far as PPO asks for them. Raises ValueError for anything but plain sampling at a temperature."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    max_tokens: int
    logprobs: int
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        asked = (self.n, self.top_p, self.top_k, self.min_p, self.repetition_penalty, self.logprobs)
        if asked != (1, 1.0, 0, 0.0, 1.0, 0):
            raise ValueError(f"this engine samples plainly, with the log-probability of the sampled token; got {self}")


@dataclass(frozen=True)
class Answer:
    """One sampled completion, with log-probability and rank of each of its tokens."""

    prompt: list[int]
    ids: list[int]
    logprobs: list[float]
    ranks: list[int]


class Engine:
    """Samples from the model of `folder`, and keeps what it was sent and what it said for the tests to look at."""

    def __init__(self, folder: str, *, seed: int, max_model_len: int | None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        declared = self.model.generation_config.eos_token_id
        self.stops = {AutoTokenizer.from_pretrained(folder).eos_token_id, *torch.tensor(declared).flatten().tolist()}
        self.max_model_len = max_model_len or self.model.config.max_position_embeddings
        self.generator = torch.Generator().manual_seed(seed)
        self.awake = {"weights", "kv_cache"}
        self.bias = 0.0  # nats that every reported log-probability is off by
        self.pending: dict[str, Tensor] = {}  # of a sync that is not finished
        self.syncs: list[dict[str, Tensor]] = []
        self.answers: list[list[Answer]] = []  # of every call of `generate`
        self.used: list[dict[str, Tensor]] = []  # the weights of every call of `generate`

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights under the names of a checkpoint."""
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> set[str]:
        """Take over weights by name. Raises ValueError for a name or a shape that the model does not have."""
        if "weights" not in self.awake:
            raise RuntimeError("the memory of the weights is asleep")
        own, loaded = dict(self.model.named_parameters()), dict(weights)
        for name, weight in loaded.items():
            if name not in own or own[name].shape != weight.shape:
                kind = type(self.model).__name__
                raise ValueError(f"There is no module or parameter named '{name}' of {[*weight.shape]} in {kind}")
            own[name].copy_(weight)
            self.pending[name] = own[name].clone()
        return set(loaded)

    def reset_prefix_cache(self) -> bool:
        """Forget the keys and values of older weights; here it ends a sync."""
        self.syncs.append(self.pending)
        self.pending = {}
        return True

    def generate(self, prompts: list[list[int]], params: SamplingParams) -> list[Answer]:
        """Sample one completion for each prompt. Raises ValueError for a prompt that leaves no room for one."""
        longest = max(map(len, prompts))
        if longest >= self.max_model_len:
            raise ValueError(f"a prompt of {longest} tokens, longer than max_model_len {self.max_model_len} allows")
        if self.awake != {"weights", "kv_cache"} or self.pending:
            raise RuntimeError(f"not ready: awake {self.awake}, {len(self.pending)} weights since the last cache reset")
        self.used.append(self.weights())
        self.answers.append([self._sample(prompt, params) for prompt in prompts])
        return self.answers[-1]

    @torch.no_grad()
    def _sample(self, prompt: list[int], params: SamplingParams) -> Answer:
        answer = Answer(prompt, [], [], [])
        for _ in range(min(params.max_tokens, self.max_model_len - len(prompt))):
            logits = self.model(input_ids=torch.tensor([prompt + answer.ids])).logits[0, -1]
            logprobs = (logits / params.temperature).log_softmax(-1)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=self.generator))
            answer.ids.append(token)
            answer.logprobs.append(float(logprobs[token]) + self.bias)
            answer.ranks.append(int((logprobs > logprobs[token]).sum()) + 1)
            if token in self.stops or token in params.stop_token_ids:
                break
        return answer

    @torch.no_grad()
    def sleep(self, level: int = 1) -> None:
        """Give memory back; level 2 loses the weights for good."""
        self.awake = set()
        if level == 2:
            for weight in self.model.parameters():
                weight.fill_(torch.nan)

    def wake_up(self, tags: list[str]) -> None:
        """Take memory again for `weights` or `kv_cache`, with nothing in it."""
        self.awake |= set(tags)


# ---- Colocated: the package `vllm` ----


class LLM:
    """vLLM's offline entry point around an `Engine`."""

    def __init__(
        self,
        *,
        model: str,
        tensor_parallel_size: int,
        gpu_memory_utilization: float,
        max_model_len: int | None,
        max_num_seqs: int,
        enable_sleep_mode: bool,
        model_impl: str,
        distributed_executor_backend: str,
        seed: int,
        max_num_batched_tokens: int,
        logprobs_mode: str,
        quantization: str | None,
        trust_remote_code: bool,
    ) -> None:
        assert (tensor_parallel_size, quantization, logprobs_mode) == (1, None, "processed_logprobs")
        self.engine = Engine(model, seed=seed, max_model_len=max_model_len)
        self.sleep, self.wake_up = self.engine.sleep, self.engine.wake_up
        self.reset_prefix_cache = self.engine.reset_prefix_cache
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self.engine))
        self.llm_engine = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=worker),
            model_config=SimpleNamespace(max_model_len=self.engine.max_model_len),
        )

    def generate(self, prompts: list[dict[str, Any]], *, sampling_params: SamplingParams, use_tqdm: bool) -> list[Any]:
        """Return one RequestOutput for each prompt of token ids, with one completion."""
        answers = self.engine.generate([prompt["prompt_token_ids"] for prompt in prompts], sampling_params)
        return [SimpleNamespace(prompt_token_ids=a.prompt, outputs=[_completion_output(a)]) for a in answers]


def _completion_output(answer: Answer) -> SimpleNamespace:
    columns = zip(answer.ids, answer.logprobs, answer.ranks, strict=True)
    logprobs = [{token: SimpleNamespace(logprob=logprob, rank=rank)} for token, logprob, rank in columns]
    return SimpleNamespace(token_ids=answer.ids, logprobs=logprobs)


class Communicator:
    """The trainer's end of the group that carries weights: a queue, with the attributes that TRL's client closes."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.group = SimpleNamespace(store=None, socket=None)

    def send(self, iterator: Iterator[Any], post_iter_func: Callable[[Any], Tensor] = lambda item: item[1]) -> None:
        """Pack as vLLM does, views first and one copy when the iterator has ended (less than its buffer of 1 GiB)."""
        views = [post_iter_func(item).contiguous().view(torch.uint8).flatten() for item in iterator]
        self.wire.put(torch.cat(views))


def packages(version: str, wire: Wire) -> dict[str, ModuleType]:
    """Make the modules of vLLM `version` that TRL imports, by name; from 0.28 on weights are sent another way."""

    def open_endpoint(init_info: dict[str, Any]) -> Communicator:
        assert init_info["rank_offset"] == 1
        assert init_info["world_size"] == 2
        return Communicator(wire)

    def broadcast(*, iterator: Iterator[Any], group: Communicator, src: int, post_iter_func: Any) -> None:
        group.send(iterator, post_iter_func)

    def send_weights(*, iterator: Iterator[Any], trainer_args: SimpleNamespace) -> None:
        assert trainer_args.packed
        trainer_args.group.send(iterator)

    transfer = "vllm.distributed.weight_transfer"
    engine = SimpleNamespace(trainer_init=open_endpoint, trainer_send_weights=send_weights)
    names: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": version,
            "LLM": LLM,
            "RequestOutput": SimpleNamespace,
            "SamplingParams": SamplingParams,
        },
        "vllm.sampling_params": {"StructuredOutputsParams": SimpleNamespace},
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1"},
    }
    if stateful(version):
        names[f"{transfer}.nccl_common"] = {"trainer_init": open_endpoint}
        names[f"{transfer}.packed_tensor"] = {"packed_nccl_broadcast_producer": broadcast}
    else:
        names[f"{transfer}.nccl_engine"] = {
            "NCCLWeightTransferEngine": engine,
            "NCCLTrainerSendWeightsArgs": SimpleNamespace,
        }
    return {name: module(name, members) for name, members in names.items()}


def stateful(version: str) -> bool:
    """Tell whether this vLLM agrees on the packed format once, when the group is made, not in every update."""
    return tuple(map(int, version.split("."))) >= (0, 28, 0)


def module(name: str, members: dict[str, Any]) -> ModuleType:
    """Make a module that can be looked for and imported."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(members)
    return made


# ---- Where TRL finds it ----


def install(monkeypatch: pytest.MonkeyPatch, found: dict[str, ModuleType]) -> None:
    """Let TRL import its vLLM modules anew, with the modules of `found` in place, until the test is over."""
    for name, made in found.items():
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.delitem(import_utils.PACKAGE_DISTRIBUTION_MAPPING, "vllm", raising=False)  # a real one's version
    for name in SET_BY_TRL:  # in colocated mode, and never taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("vllm_client", "vllm_generation"):
        monkeypatch.setattr(generation, name, getattr(generation, name))
        monkeypatch.delitem(sys.modules, f"trl.generation.{name}")
    anew = importlib.import_module("trl.generation.vllm_generation")
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", anew.VLLMGeneration)
    join = anew.VLLMClient.init_communicator
    monkeypatch.setattr(anew.VLLMClient, "init_communicator", lambda client, device: join(client, device="cuda"))
