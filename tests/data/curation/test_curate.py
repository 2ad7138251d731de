"""`rlhf data curate` on rows whose fate is known: every step, every row accounted for, whatever the order."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlhf_pipeline.cli import main
from rlhf_pipeline.data.curation.curate import curate
from rlhf_pipeline.data.curation.settings import CurateSettings
from rlhf_pipeline.data.sources import read as read_records
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration
from tests.data.curation.rows import Row, prompts, read, write

LONG = "Tell me all about the history of the harbour of the old town by the sea"
OFF: dict[str, Any] = {
    "personal_data": "keep", "exact_duplicates": False, "prefix_characters": 0, "max_per_user": 0,
}  # fmt: skip


def run(tmp_path: Path, rows: list[Row], **asked: Any) -> list[str]:
    """Curate with nothing on but what is asked; give the prompts that stay."""
    source = write(tmp_path / "rows.jsonl", rows)
    curate(CurateSettings(source=source, output=str(tmp_path / "out"), **{"kind": "prompt", **OFF, **asked}))
    return prompts(tmp_path / "out" / "train.jsonl")


def report(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "report" / "curation.json").read_text())
    return found


def dropped(tmp_path: Path) -> list[Row]:
    return read(tmp_path / "out" / "report" / "dropped.jsonl")


def test_without_steps_everything_stays_in_order(tmp_path: Path) -> None:
    assert run(tmp_path, [{"prompt": text} for text in "cabca"]) == list("cabca")
    assert report(tmp_path)["steps"].keys() == {"read"}


def test_rows_that_say_the_same_whoever_wrote_them(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": c, "user": u} for c, u in (("x", "1"), ("x", "2"), ("y", "1"))]
    assert run(tmp_path, rows, kind="demonstration", exact_duplicates=True) == ["a", "a"]
    assert {row["completion"] for row in read(tmp_path / "out" / "train.jsonl")} == {"x", "y"}
    assert [row["reason"].rsplit(":", 1)[0] for row in dropped(tmp_path)] == [
        f"says the same: {tmp_path / 'rows.jsonl'}"
    ]


def by_labellers(prompts: list[str]) -> list[Row]:
    """Three people rank each prompt; the third is of another mind."""
    orders = {"ana": [0, 1], "ben": [0, 1], "cem": [1, 0]}
    return [
        {"prompt": prompt, "completions": ["yes", "no"], "ranks": ranks, "labeler": who, "id": f"{number} {who}"}
        for number, prompt in enumerate(prompts)
        for who, ranks in orders.items()
    ]


@pytest.mark.parametrize("asked", [{}, {"near_duplicates": 0.8}, {"prefix_characters": 0, "near_duplicates": 0.8}])
def test_all_who_ranked_a_prompt_stay(asked: dict[str, Any], tmp_path: Path) -> None:
    """A labeller who agrees with another one does not repeat him: he bears him out."""
    rows = by_labellers(["What is the capital of France?", "How long does it take to cook a potato in its skin?"])
    source = write(tmp_path / "rows.jsonl", [*rows, {**rows[1], "id": "again"}])
    curate(CurateSettings(source=source, output=str(tmp_path / "out"), kind="ranking", **asked))
    assert read(tmp_path / "out" / "train.jsonl") == rows
    assert [(row["step"], row["row"]["id"]) for row in dropped(tmp_path)] == [("exact duplicates", "again")]


@pytest.mark.parametrize("asked", [{"prefix_characters": 40}, {"near_duplicates": 0.8}])
def test_of_prompts_that_resemble_each_other_one_stays_with_all_its_rankings(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    rows = by_labellers([f"{LONG}{end}" for end in (".", "!", "?")])
    stays = run(tmp_path, rows, kind="ranking", **asked)
    assert len(stays) == 3 and len(set(stays)) == 1
    assert sorted(run(tmp_path, random.Random(0).sample(rows, len(rows)), kind="ranking", **asked)) == stays


def test_prompts_that_share_a_long_prefix(tmp_path: Path) -> None:
    rows = [{"prompt": f"{LONG}{end}"} for end in (".", " and its ships", ", its  SHIPS")] + [{"prompt": LONG[:30]}]
    assert len(run(tmp_path, rows, prefix_characters=60)) == 2
    assert len(run(tmp_path, rows, prefix_characters=75)) == 4


def test_turns_of_one_conversation_may_share_a_prefix(tmp_path: Path) -> None:
    turn = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Gladly."}]
    rows: list[Row] = [
        {"prompt": turn[:1], "conversation": "1"},
        {"prompt": [*turn, {"role": "user", "content": "More?"}], "conversation": "1"},
    ]
    run(tmp_path, rows, prefix_characters=40)
    assert report(tmp_path)["written"] == {"train.jsonl": 2}
    run(tmp_path, [{"prompt": row["prompt"]} for row in rows], prefix_characters=40)
    assert report(tmp_path)["written"] == {"train.jsonl": 1}


def test_near_duplicates(tmp_path: Path) -> None:
    texts = [f"{LONG}, please, and be quick", f"{LONG}, please, and be brisk", "What is the capital of France?"]
    assert len(run(tmp_path, [{"prompt": text} for text in texts], near_duplicates=0.7)) == 2
    assert [row["step"] for row in dropped(tmp_path)] == ["near-duplicates"]
    assert len(run(tmp_path, [{"prompt": text} for text in texts], near_duplicates=1.0)) == 3


def test_at_most_so_many_of_a_user(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "user": "u" if n < 5 else "v"} for n in range(7)] + [{"prompt": "q"}, {"prompt": "r"}]
    stays = run(tmp_path, rows, max_per_user=3)
    assert len(stays) == 7 and set(stays) >= {"p5", "p6", "q", "r"}
    assert report(tmp_path)["notes"] == ["rows per user: 2 rows have no user, so the limit of 3 passes them"]


def test_personal_data_is_redacted_or_drops_the_row(tmp_path: Path) -> None:
    rows = [{"prompt": "mail a@b.io", "cc": "c@d.io"}, {"prompt": "hi"}]
    assert run(tmp_path, rows, personal_data="redact") == ["mail [EMAIL]", "hi"]
    assert read(tmp_path / "out" / "train.jsonl")[0]["facts"] == {"cc": "[EMAIL]"}
    assert report(tmp_path)["steps"]["personal data"]["changed"] == {"EMAIL": 2}
    assert run(tmp_path, rows, personal_data="drop") == ["hi"]
    assert dropped(tmp_path)[0]["reason"] == "holds EMAIL"


def test_what_a_message_has_beside_role_and_content_goes(tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Why?"}
    times = [{"messages": [ask | {"sent": datetime(2024, 1, 1)}, {"role": "assistant", "content": "So."}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(times), tmp_path / "rows.parquet")
    names = [ask | {"name": "bob@corp.io"}, {"role": "assistant", "content": "So.", "name": "\ud800"}]
    for source in (str(tmp_path / "rows.parquet"), write(tmp_path / "rows.jsonl", [{"messages": names}])):
        assert main(["data", "inspect", source, "--examples", "1"]) == 0
        curate(CurateSettings(source=source, output=str(tmp_path / "out"), kind="demonstration"))
        row = read(tmp_path / "out" / "train.jsonl")[0]
        assert (row["prompt"], row["completion"]) == ([ask], "So.")


def leaking(tmp_path: Path) -> dict[str, Any]:
    """Rows that four steps drop, each with an address in it, as settings that drop them."""
    exam = write(tmp_path / "exam.jsonl", [{"prompt": "Whose is jane.doe@corp.io?"}])
    rows = [
        {"prompt": "Whose is jane.doe@corp.io", "completion": "Hers."},
        {"prompt": "long", "completion": "jane.doe@corp.io " * 20},
        {"prompt": "cut", "completion": "jane.doe@corp.io and so on and " * 7},
        {"prompt": "", "completion": "jane.doe@corp.io"},
        {"prompt": ["jane.doe@corp.io"], "completion": "jane.doe@corp.io"},
        {"prompt": "fine", "completion": "ok"},
    ]
    write(tmp_path / "rows.jsonl", rows)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "", "completion": "jane.doe\\u0040corp.io"}\n{jane.doe@corp.io\n')
    asked = {"evaluation": [exam], "max_answer_characters": 300, "drop_truncated": True}
    return {"source": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "out"), "kind": "demonstration", **asked}


def test_what_is_written_aside_is_redacted_too(tmp_path: Path) -> None:
    curate(CurateSettings(**leaking(tmp_path)))
    assert [row["step"] for row in dropped(tmp_path)] == ["contamination", "length", "truncated", *["read"] * 4]
    assert all("[EMAIL]" in json.dumps(row["row"]) for row in dropped(tmp_path))
    for name in ("curation.json", "dropped.jsonl"):
        text = (tmp_path / "out" / "report" / name).read_text()
        assert "jane" not in text
    assert report(tmp_path)["steps"]["personal data"]["changed"] == {}


def test_rows_that_are_kept_as_they_were_are_said_to_be(tmp_path: Path) -> None:
    curate(CurateSettings(**leaking(tmp_path), personal_data="drop"))
    assert "jane.doe@corp.io" in (tmp_path / "out" / "report" / "dropped.jsonl").read_text()
    assert "dropped.jsonl holds rows as they were" in report(tmp_path)["notes"][0]
    assert run(tmp_path, [{"prompt": "fine"}], personal_data="drop") == ["fine"]
    assert report(tmp_path)["notes"] == []


def test_a_ranking_that_differs_in_personal_data_alone(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": f"{who}@b.io", "rejected": "c@d.io"} for who in ("x", "write to y")]
    run(tmp_path, rows, kind="ranking", personal_data="redact")
    assert dropped(tmp_path)[0]["reason"].startswith("unusable once redacted: ")
    assert read(tmp_path / "out" / "train.jsonl")[0]["completions"] == ["write to [EMAIL]", "[EMAIL]"]


def test_steps_by_row(tmp_path: Path) -> None:
    exam = write(tmp_path / "exam.jsonl", [{"prompt": "What is the name of the river?"}])
    rows = [
        {"prompt": "What is the name of the river", "completion": "The Ulm."},
        {"prompt": "long " * 50, "completion": "yes"},
        {"prompt": "b", "completion": "and then the " * 20},
        {"prompt": "c", "completion": "ok"},
    ]
    asked = {"kind": "demonstration", "evaluation": [exam], "max_prompt_characters": 200, "drop_truncated": True}
    assert run(tmp_path, rows, **asked) == ["c"]
    assert [(row["step"], row["where"][-1]) for row in dropped(tmp_path)] == [
        ("contamination", "1"), ("length", "2"), ("truncated", "3"),
    ]  # fmt: skip
    assert dropped(tmp_path)[0]["reason"] == f"is an evaluation prompt: {exam}:1"


def test_rows_that_cannot_be_used_are_written_aside(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": ""}\nnothing\n')
    curate(CurateSettings(source=str(source), output=str(tmp_path / "out"), kind="prompt"))
    assert [(row["reason"], row["row"]) for row in dropped(tmp_path)] == [
        ("unusable: `prompt` is empty", '{"prompt": ""}'),
        ("unusable: malformed JSON: Expecting value at column 1", "nothing"),
    ]
    assert report(tmp_path)["steps"]["read"] | {"examples": []} == {
        "seen": 3, "kept": 1, "dropped": {"unusable": 2}, "changed": {}, "examples": [],
    }  # fmt: skip


def many() -> list[Row]:
    topics = [f"{LONG} number {n % 17} of {n % 5}" for n in range(60)]
    return [{"prompt": topic + "!" * (n % 3), "user": str(n % 7)} for n, topic in enumerate(topics)]


ALL = {
    "personal_data": "redact", "exact_duplicates": True, "prefix_characters": 90, "near_duplicates": 0.95,
    "max_per_user": 4,
}  # fmt: skip


def test_what_stays_depends_on_no_order_and_no_rerun(tmp_path: Path) -> None:
    rows = many()
    stays = run(tmp_path, rows, **ALL)
    assert 10 < len(stays) < 50
    assert run(tmp_path, rows, **ALL) == stays
    assert sorted(run(tmp_path, random.Random(0).sample(rows, len(rows)), **ALL)) == sorted(stays)
    assert sorted(run(tmp_path, rows, **ALL, seed=1)) != sorted(stays)


def test_every_row_is_kept_or_written_aside_once(tmp_path: Path) -> None:
    rows = many()
    stays = run(tmp_path, rows, **ALL, split_by="user", eval_fraction=0.3, apart=0.0)
    held = prompts(tmp_path / "out" / "eval.jsonl")
    aside = [row["row"]["prompt"] for row in dropped(tmp_path)]
    assert held and aside and sorted([*stays, *held, *aside]) == sorted(row["prompt"] for row in rows)
    steps = list(report(tmp_path)["steps"].values())
    assert [one["kept"] for one in steps[:-1]] == [one["seen"] for one in steps[1:]]


def test_the_stages_read_what_is_written(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c", "user": str(n), "source": "s"} for n in range(40)]
    run(tmp_path, rows, kind="demonstration", split_by="user", eval_fraction=0.3)
    sides = [read_records(f"{tmp_path / 'out'}#{side}", Demonstration).records for side in ("train", "eval")]
    assert sum(map(len, sides)) == 40 and all(sides)
    assert sides[0][0].id == f"rows.jsonl:{int(sides[0][0].prompt[1:]) + 1}"  # type: ignore[arg-type]
    assert sides[0][0].source == "s"


def test_the_report_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "rows.jsonl", [{"prompt": "a b@c.io"}, {"prompt": "a b@c.io"}])
    words = ["data", "curate", source, "--kind", "prompt", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["step", "rows", "dropped", "kept", "why"]
    assert lines[2].split() == ["personal", "data", "2", "0", "2", "2", "EMAIL", "redacted"]
    assert lines[3].split() == ["exact", "duplicates", "2", "1", "1", "1", "says", "the", "same"]
    assert f"{tmp_path / 'out'}/train.jsonl: 1 rows" in lines


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--kind", "prompt"], "`output` is missing"),
        (["--output", "out"], "`kind` is missing"),
        (["--output", "out", "--kind", "prompt", "--max_tokens", "3"], "`max_tokens` and `tokenizer` go together"),
        (["--output", "out", "--kind", "prompt", "--near_duplicates", "0.1"], "0 (off) or between 0.3 and 1, not 0.1"),
        (["--output", "out", "--kind", "prompt", "--max_per_user", "-1"], "must be 0 (off) or more, not -1"),
        (["--output", "out", "--kind", "prompt", "--ngram_share", "2"], "between 0 and 1"),
        (["--output", "out", "--kind", "prompt", "--eval_fraction", "1"], "above 0 and below 1, not 1.0"),
        (["--output", "out", "--kind", "prompt", "--near_duplicate", "1"], "did you mean `near_duplicates`?"),
        (["--output", ".", "--kind", "prompt"], "would replace what is read from"),
    ],
)
def test_settings_that_cannot_be(
    words: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("train.jsonl"), [{"prompt": "a"}])
    assert main(["data", "curate", "train.jsonl", *words]) == 2
    assert error in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl"]


def test_nothing_left_is_an_error_that_leaves_the_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is left for it; .*curation.json says which step"):
        run(tmp_path, [{"prompt": "a@b.io"}], personal_data="drop")
    assert report(tmp_path)["written"] == {"train.jsonl": 0}
    with pytest.raises(DataError, match="no rows; the file is empty"):
        run(tmp_path, [])


def test_the_own_output_is_no_source(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder / "train.jsonl", [{"prompt": "a"}])
    for source in (folder, f"{folder}#train", folder / "train.jsonl"):
        with pytest.raises(ConfigError, match="would replace what is read"):
            curate(CurateSettings(source=str(source), output=str(folder), kind="prompt"))
