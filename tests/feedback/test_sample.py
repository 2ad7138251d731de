"""`rlhf sample`: K completions a prompt with their facts, once per input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.feedback import sample
from rlhf_pipeline.feedback.samples import read_samples
from tests.tiny import make_llama


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    make_llama(folder / "model")
    rows = [{"prompt": f"question {n}", "facts": {"kind": "closed", "n": n}, "id": f"q{n}"} for n in range(3)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _argv(place, **changes):
    settings = {
        "prompts": place / "prompts.jsonl",
        "model": place / "model",
        "artifacts": place / "artifacts",
        "max_completion_length": 6,
        "num_generations": 3,
        **changes,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def test_every_prompt_gets_k_completions_and_keeps_its_facts(place, capsys):
    assert sample.main(_argv(place)) == 0
    rows = read_samples(place / "artifacts/runs/default/feedback/samples.jsonl")
    assert [row.facts["n"] for row in rows] == [0, 1, 2]
    assert [row.id for row in rows] == ["q0", "q1", "q2"]
    assert all(len(row.completions) == len(row.finished) == 3 for row in rows)
    assert "3 prompts x 3 completions" in capsys.readouterr().out


def test_the_second_call_answers_without_torch(place, capsys):
    argv = _argv(place, output=place / "again.jsonl")
    sample.main(argv)
    before = (place / "again.jsonl").read_text()
    code = (
        "import sys\nfrom rlhf_pipeline.feedback.sample import main\n"
        f"main({argv!r})\nassert 'torch' not in sys.modules, 'imported torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already answered" in done.stdout
    capsys.readouterr()
    sample.main([*argv, "--force"])
    assert "already answered" not in capsys.readouterr().out
    assert (place / "again.jsonl").read_text() == before
    sample.main(_argv(place, output=place / "again.jsonl", seed=1))
    assert (place / "again.jsonl").read_text() != before


def test_limit_takes_the_first_prompts(place):
    sample.main(_argv(place, output=place / "one.jsonl", limit=1))
    assert [row.id for row in read_samples(place / "one.jsonl")] == ["q0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_generations": 0}, "--num_generations: `num_generations` must be at least 1"),
        ({"temperature": -1}, "--temperature: `temperature` must be 0"),
        ({"promts": "x"}, "did you mean `prompts`"),
    ],
)
def test_bad_settings_are_refused_by_name(place, changes, message):
    with pytest.raises(ConfigError, match=message):
        sample.main(_argv(place, **changes))


def test_prompts_are_required():
    with pytest.raises(ConfigError, match="--prompts"):
        sample.main([])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r":2: not JSON"),
        ("[]", r":2: \[\] is no object"),
        ('{"prompt": "p", "completions": ["a"]}', r":2: no field `finished`"),
        ('{"prompt": "p", "completions": ["a"], "finished": [1]}', r":2: `finished` is \[1\]"),
        ('{"prompt": "p", "completions": "a", "finished": []}', r":2: `completions` is 'a'"),
    ],
)
def test_reading_names_the_line(tmp_path, line, message):
    good = '{"prompt": "p", "completions": ["a"], "finished": [true]}'
    (tmp_path / "samples.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "samples.jsonl")


def test_an_absent_file_says_what_writes_it(tmp_path):
    with pytest.raises(DataError, match="rlhf sample"):
        read_samples(tmp_path / "none.jsonl")


def test_help(capsys):
    assert sample.main(["--help"]) == 0
    assert "--num_generations" in capsys.readouterr().out
