"""The words of a report: figures as in the JSON, within 100 columns, Markdown that holds any answer."""

from __future__ import annotations

from rlhf_pipeline.evaluate.plots import draw_evaluation
from rlhf_pipeline.evaluate.report import markdown, print_report, score_text, sections, share_text


def _score(mean, low, high):
    return {"mean": mean, "ci95": [low, high], "n": 9, "clusters": 3}


def _model(mean, **more):
    judge = {name: _score(mean, mean - 2, mean + 2) for name in ("score", "helpful", "harmless")}
    counts = {"completion_tokens": 9.25, "finished": 0.985}
    return {"judge": {**judge, "truthful": None}, "greedy": judge, **counts, **more}


def _report():
    split = {
        "models": {"base": _model(30.0), "sft": _model(60.0), "policy": _model(86.24, kl_nats={"mean": 1.234})},
        "win_rate": {
            "policy_vs_sft": {
                **_score(0.665, 0.62, 0.71), "win": 0.5, "tie": 0.33, "loss": 0.17,
                "mean_of_4": {**_score(0.8, 0.75, 0.85), "win": 0.7, "tie": 0.2, "loss": 0.1},
            }
        },
        "reward_accuracy": {**_score(0.78, 0.7, 0.84), "ceiling": 0.81},
        "reward_probes": {"closed": {"false": _score(0.61, 0.5, 0.7)}, "open": {"junk": _score(1.0, 0.9, 1.0)}},
        "samples": [
            {
                "prompt": [{"role": "user", "content": "a | b\nc"}],
                "answers": {"sft": {"text": "one\n`two`", "finished": False, "score": 33}},
            }
        ],
    }  # fmt: skip
    about = {
        "run": "r",
        "ids": {"sft": "sft-0123"},
        "reference": "sft",
        "compared_by": "judge",
        "split": "new-phrasing",
    }
    sampled = {"temperature": 1.0, "num_generations": 4, "max_completion_length": 48, "seed": 0}
    headline = {name: split[name] for name in ("models", "win_rate")}
    return {**about, **sampled, **headline, "splits": {"seen": split, "new-phrasing": split}, "sft_epochs": []}


def test_cells():
    assert score_text(_score(86.24, 83.1, 88.9)) == "86.2 [83, 89]"
    assert share_text(_score(0.665, 0.62, 1.0)) == ".67 [.62, 1.00]"
    assert score_text(None) == share_text(None) == "-"


def test_every_table_shows_its_figures():
    found = {section.title: section for section in sections(_report())}
    scores = next(section for title, section in found.items() if title.startswith("Judge's score"))
    assert scores.header == ["model", "new-phrasing", "seen"]
    assert scores.rows[2] == ["policy", "86.2 [84, 88]", "86.2 [84, 88]"]
    parts = found["new-phrasing: what the score is made of"]
    assert parts.rows[2] == ["policy", "86.2 [84, 88]", "-", "86.2 [84, 88]", "86.2", "9.2", "98 %", "1.23"]
    rates = found["Win rates by the judge, ties half"]
    assert rates.rows[0] == ["policy vs sft", "new-phrasing", "50/33/17", ".67 [.62, .71]", ".80 [.75, .85]"]
    pairs = found["Reward model: pairs ordered as labellers ranked them"]
    assert pairs.rows[0] == ["new-phrasing", ".78 [.70, .84]", ".81", "9"]
    probes = found["Reward model: what it can tell apart"]
    assert probes.header == ["prompts", "false", "junk"]
    assert probes.rows[:2] == [["new-phrasing, closed", ".61", ""], ["new-phrasing, open", "", "1.00"]]
    assert not any("epochs" in title for title in found)


def test_it_fits_100_columns(capsys):
    print_report(_report())
    printed = capsys.readouterr().out
    assert "86.2 [84, 88]" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_markdown_keeps_answers_on_one_line():
    page = markdown(_report())
    assert "**new-phrasing** `user: a | b c`" in page
    assert "- sft (33): `one 'two'` (cut off)" in page
    assert "![evaluation.png](evaluation.png)" in page
    assert "seed 0" in page


def test_the_plot_is_a_png_with_and_without_win_rates():
    report = _report()
    assert draw_evaluation(report).startswith(b"\x89PNG")
    assert draw_evaluation({**report, "win_rate": {}}).startswith(b"\x89PNG")
