"""kill -9 at every step and at random instants, and several processes at once: the store stays valid."""

from __future__ import annotations

import random
import subprocess

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import collect
from rlhf_pipeline.artifacts.verify import verify
from tests.artifacts.processes import child, finish, line

STEPS = """
# Publish a policy and a critic and move their refs, killed before its 1st, 2nd, ... step, each time in a fresh process.
# A step is whatever CPython audits: every open, rename, mkdir, chmod, remove, flock.
from rlhf_pipeline.artifacts.collect import collect
from rlhf_pipeline.artifacts.describe import code_revision
from rlhf_pipeline.artifacts.verify import verify

code_revision()  # asks git once, here

def die_before(step):
    def count(event, arguments):
        nonlocal step
        if event == "open" or event.startswith(("os.", "fcntl.", "shutil.")):
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

def work(generation):
    with store.lock("default", "ppo") as lock:
        policy = publish("policy", f"policy {generation}", base=base)
        critic = publish("critic", f"critic {generation}", base=base)
        store.set_refs("default", {"policy": policy, "critic": critic})

def text(role):
    return (store.open(store.resolve(role)) / "model.safetensors").read_text()

base = publish("base", "base")
work(0)
step, status, seen = 0, 1, set()
while status != 0:
    step += 1
    process = os.fork()
    if process == 0:
        die_before(step)
        work(step)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, status
    assert verify(store) == [], (step, verify(store))
    generations = [text(role).split()[1] for role in ("policy", "critic")]
    assert generations[0] == generations[1], (step, generations)
    seen.add(generations[0] == str(step))
    collect(store, delete=True)
    assert verify(store) == [] and len(store.ids()) == 3, (step, store.ids())
assert seen == {True, False}  # some moves were completed, some never began
work(step + 1)
assert verify(store) == [] and text("policy") == f"policy {step + 1}"
assert [path for path in store.tmp.iterdir()] == []
print(step)
"""

LOOP = """
generation = 0
while True:
    generation += 1
    with store.lock("default", "ppo"):
        ids = {role: publish(role, f"{role} {generation}") for role in ("policy", "critic")}
        store.set_refs("default", ids)
    print(generation, flush=True)
"""


def test_killed_before_every_step(store: Store) -> None:
    with child(store.root, STEPS) as process:
        steps = int(finish(process).split()[-1])
    assert steps > 50


def test_killed_at_random_instants(store: Store) -> None:
    chance = random.Random(0)
    for _ in range(8):
        with child(store.root, LOOP) as process:
            for generation in range(chance.randint(1, 3)):
                assert line(process) == str(generation + 1)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=chance.uniform(0, 0.03))
            process.kill()
        assert verify(store) == []
        generations = {store.manifest(name).input_key.split()[1] for name in store.refs().get("default", {}).values()}
        assert len(generations) <= 1
    collect(store, delete=True)
    assert len(store.ids()) == 2
    assert list(store.tmp.iterdir()) == []
    assert verify(store) == []


def test_two_publish_the_same_at_once(store: Store) -> None:
    script = """
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(12):
        print(publish("sft", f"text {number}"))
        store.set_refs("default", {"sft": publish("sft", f"text {number}"), "twin": publish("twin", f"text {number}")})
    """
    with child(store.root, script) as one, child(store.root, script) as two:
        for process in (one, two):
            assert line(process) == "ready"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert finish(one) == finish(two)
    assert len(store.ids()) == 24
    assert verify(store) == []


def test_a_reader_sees_whole_objects_and_pairs_of_one_generation(store: Store) -> None:
    script = """
    for generation in range(25):
        ids = {role: publish(role, f"{role} {generation}") for role in ("policy", "critic")}
        store.set_refs("default", ids)
    """
    seen = set()
    with child(store.root, script) as writer:
        while writer.poll() is None:
            ids = store.refs().get("default", {})
            texts = {role: (store.open(name) / "model.safetensors").read_text() for role, name in ids.items()}
            generations = {text.split()[1] for text in texts.values()}
            assert len(generations) <= 1, texts
            seen |= generations
        finish(writer)
    assert len(seen) > 1


def test_gc_beside_running_stages(store: Store) -> None:
    """Collect all the time while two stages publish: whatever they read or just published stays."""
    script = """
    run = sys.argv[2]
    for generation in range(25):
        with store.lock(run, "sft"):
            base = publish("base", f"base {run} {generation}")
            sft = publish("sft", f"sft {run} {generation}", base=base)
            store.set_refs(run, {"sft": sft})
    """
    deleted = 0
    with child(store.root, script, "one") as one, child(store.root, script, "two") as two:
        while one.poll() is None or two.poll() is None:
            deleted += len(collect(store, delete=True).objects)
        finish(one)
        finish(two)
    collect(store, delete=True)
    assert deleted > 2
    assert len(store.ids()) == 4
    assert verify(store) == []
