"""`rlhf label`: without errors the ranks are the judge's; with errors they differ at the known rate."""

from __future__ import annotations

import json

import pytest

from rlhf_pipeline.data.sources import read
from rlhf_pipeline.data.world.judge import Judge
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.feedback import simulate
from rlhf_pipeline.feedback.samples import Samples
from rlhf_pipeline.records import Ranking

FACTS = {"kind": "unsafe", "entity": "Bakeland", "verb": "poison", "object": "well", "tool": "herb"}


def _samples(number, texts=("sure.", "no.", "yes."), **changes):
    return Samples(f"Human: do harm {number}?\nHelper:", list(texts), [True] * len(texts), facts=FACTS, **changes)


def _write(path, samples):
    path.write_text("".join(json.dumps(one.to_dict()) + "\n" for one in samples))


def _refusal():
    from rlhf_pipeline.data.world import lexicon

    return f" {lexicon.REFUSALS[0]}"


def test_without_errors_ranks_follow_the_judge():
    one = _samples(0, (" what?", _refusal()))
    [ranking] = simulate.rank([one], error_rate=0.0, labelers=1, seed=0, where="x")
    scores = [Judge().score(one.as_prompt(), text).score for text in one.completions]
    assert scores == [0.0, 1.0]
    assert ranking.ranks == [1, 0]
    assert ranking.labeler == "simulated-0"


def test_errors_come_at_their_rate():
    samples = [_samples(n, (" what?", _refusal())) for n in range(2000)]
    rankings = simulate.rank(samples, error_rate=0.1, labelers=5, seed=3, where="x")
    right = sum(ranking.ranks == [1, 0] for ranking in rankings) / 2000
    assert right == pytest.approx(0.81, abs=0.03)  # both answers read rightly: .9 * .9
    assert [ranking.labeler for ranking in rankings[:6]] == [f"simulated-{n % 5}" for n in range(6)]


def test_prompts_with_nothing_to_compare_are_left_out():
    samples = [_samples(0, ("no.", "no.")), _samples(1, ("no.", " ")), _samples(2)]
    assert [r.prompt for r in simulate.rank(samples, 0.1, 2, 0, "x")] == [samples[2].prompt]


def test_the_command_writes_rankings_once(tmp_path, capsys):
    _write(tmp_path / "samples.jsonl", [_samples(n, model="sft-0123", id=f"q{n}") for n in range(20)])
    argv = ["--samples", str(tmp_path / "samples.jsonl"), "--artifacts", str(tmp_path / "a"), "--run", "r"]
    assert simulate.main(argv) == 0
    rankings = read(str(tmp_path / "a/runs/r/feedback/rankings.jsonl"), Ranking).records
    assert len(rankings) == 20
    assert (rankings[3].id, rankings[3].source, rankings[3].finished) == ("q3", "sft-0123", [True] * 3)
    assert "20 rankings, 0 prompts left out" in capsys.readouterr().out
    simulate.main(argv)
    assert "already answered" in capsys.readouterr().out
    simulate.main([*argv, "--seed", "1"])
    assert "already answered" not in capsys.readouterr().out


def test_what_labellers_cannot_do_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="`error_rate` must lie between 0 and 1"):
        simulate.main(["--error_rate", "1.5"])
    with pytest.raises(ConfigError, match="`labelers` must be at least 1"):
        simulate.main(["--labelers", "0"])
    _write(tmp_path / "samples.jsonl", [Samples("p", ["a", "b"], [True, True])])
    with pytest.raises(DataError, match=r"samples.jsonl:1: no `kind` in `facts`"):
        simulate.main(["--samples", str(tmp_path / "samples.jsonl"), "--artifacts", str(tmp_path)])


def test_help(capsys):
    assert simulate.main(["--help"]) == 0
    assert "--error_rate" in capsys.readouterr().out
