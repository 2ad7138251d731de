"""A stand-in for `vllm serve`: the endpoints that TRL's client asks, over HTTP, around the engine of vllm_stand_in.

The weights come through a queue of this process instead of NCCL. TRL's client speaks HTTP by `requests`, which nothing
else here needs; `http_packages` is its least over the standard library. Left out: chats, images, streams.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from queue import Empty
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from tests.ppo.vllm_stand_in import Answer, Engine, SamplingParams, Wire, module, stateful

PATIENCE_S = 30


class Server(ThreadingHTTPServer):
    """What `vllm serve` answers to TRL's client, with the development endpoints, on a free port of this machine."""

    def __init__(self, folder: str, version: str, wire: Wire) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine = Engine(folder, seed=0, max_model_len=None)
        self.folder = folder
        self.stateful = stateful(version)
        self.wire = wire
        self.state = "serving"
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.routes: dict[str, Callable[[Any], Any]] = {
            "GET /health": lambda _: {},
            "GET /v1/models": lambda _: {"data": [{"id": self.folder}]},
            "GET /server_info": lambda _: {"vllm_config": {
                "weight_transfer_config": {"backend": "nccl"},
                "model_config": {"logprobs_mode": "processed_logprobs"},
            }},
            "GET /get_world_size": lambda _: {"world_size": 1},
            "POST /init_weight_transfer_engine": self.init_weight_transfer_engine,
            "POST /start_weight_update": lambda _: self.enter("updating"),
            "POST /update_weights": self.update_weights,
            "POST /finish_weight_update": lambda _: self.enter("serving"),
            "POST /reset_prefix_cache": lambda _: {"success": self.engine.reset_prefix_cache()},
            "POST /v1/completions": self.completions,
        }  # fmt: skip

    def enter(self, state: str) -> dict[str, Any]:
        """Begin or end a weight update; never twice."""
        if state == self.state:
            raise ValueError(f"already {state}")
        self.state = state
        return {}

    def init_weight_transfer_engine(self, body: dict[str, Any]) -> dict[str, Any]:
        """Join the trainer's group. The packed format is agreed upon here from vLLM 0.28 on, in every update before."""
        if body["init_info"].get("packed", False) != self.stateful:
            raise ValueError(f"init_info {body['init_info']} is of another version of vLLM")
        return {}

    def update_weights(self, body: dict[str, Any]) -> dict[str, Any]:
        """Receive the announced weights, in their order."""
        info = body["update_info"]
        if self.state != "updating" or info.get("packed", False) == self.stateful:
            raise ValueError(f"{self.state}, packed {info.get('packed')}: another version of vLLM, or no update begun")
        dtypes = [getattr(torch, name) for name in info["dtype_names"]]
        sizes = [prod(shape) * dtype.itemsize for shape, dtype in zip(info["shapes"], dtypes, strict=True)]
        parts = self.wire.get(timeout=PATIENCE_S).split(sizes)
        columns = zip(info["names"], parts, dtypes, info["shapes"], strict=True)
        self.engine.load_weights((name, part.view(dtype).view(*shape)) for name, part, dtype, shape in columns)
        return {}

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        """Complete prompts of token ids; tokens are named `token_id:<id>`."""
        shape = (body.pop("model"), body.pop("return_token_ids"), body.pop("return_tokens_as_token_ids"))
        if shape != (self.folder, True, True) or self.state != "serving":
            raise ValueError(f"{self.state}, asked for {shape}")
        prompts = body.pop("prompt")
        answers = self.engine.generate(prompts, SamplingParams(**body))
        return {"choices": [_choice(answer) for answer in answers]}


def _choice(answer: Answer) -> dict[str, Any]:
    tokens = [f"token_id:{token}" for token in answer.ids]
    top = [{token: logprob} for token, logprob in zip(tokens, answer.logprobs, strict=True)]
    logprobs = {"tokens": tokens, "token_logprobs": answer.logprobs, "top_logprobs": top}
    return {"prompt_token_ids": answer.prompt, "token_ids": answer.ids, "logprobs": logprobs}


@contextlib.contextmanager
def serve(folder: str, version: str, wire: Wire) -> Iterator[Server]:
    """Serve the model of `folder` in a thread of this process."""
    with Server(folder, version, wire) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out; 400 with the reason for a request that the server refuses."""

    server: Server

    def do_GET(self) -> None:
        """Answer a GET."""
        self.answer("GET", {})

    def do_POST(self) -> None:
        """Answer a POST."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer("POST", json.loads(body or "{}"))

    def answer(self, method: str, body: dict[str, Any]) -> None:
        """Call the route and send what it returns."""
        route = self.server.routes.get(f"{method} {urllib.parse.urlsplit(self.path).path}")
        try:
            status, reply = (404, {"error": self.path}) if route is None else (200, route(body))
        except (ValueError, TypeError, KeyError, RuntimeError, Empty) as problem:
            status, reply = 400, {"error": repr(problem)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Session:
    """The part of requests.Session that TRL's client uses."""

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def mount(self, prefix: str, adapter: Any) -> None:
        """Take no adapter: nothing is tried again."""

    def get(self, url: str, params: dict[str, str] | None = None) -> SimpleNamespace:
        """GET `url`."""
        return self.open(urllib.request.Request(f"{url}?{urllib.parse.urlencode(params or {})}"))

    def post(self, url: str, json: dict[str, Any] | None = None) -> SimpleNamespace:
        """POST `json`, or nothing."""
        return self.open(urllib.request.Request(url, data=_encoded(json or {}), method="POST"))

    def open(self, request: urllib.request.Request) -> SimpleNamespace:
        """Return a response for every status; raises OSError where nobody answers."""
        try:
            response = self.opener.open(request, timeout=PATIENCE_S)
        except urllib.error.HTTPError as refusal:
            response = refusal
        with response:
            text = response.read().decode()
            return SimpleNamespace(
                status_code=response.status, text=text, headers=response.headers, json=lambda: json.loads(text)
            )


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def http_packages() -> dict[str, ModuleType]:
    """Make the modules of requests and urllib3 that TRL's client imports, by name."""
    names: dict[str, dict[str, Any]] = {
        "requests": {"Session": Session, "get": Session().get, "ConnectionError": ConnectionError,
                     "exceptions": SimpleNamespace(RequestException=OSError)},
        "requests.adapters": {"HTTPAdapter": SimpleNamespace},
        "urllib3.util.retry": {"Retry": SimpleNamespace},
    }  # fmt: skip
    return {name: module(name, members) for name, members in names.items()}
