"""The audit finds each kind of overlap, passes a clean pair, and takes silence for ignorance."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.cli import main
from rlhf_pipeline.data.sources import read as read_records
from rlhf_pipeline.records import Demonstration, Ranking, Record
from tests.data.curation.rows import Row, write
from tests.data.curation.test_split import ROWS, topic

Found = dict[str, Any]


def rows(first: int, last: int) -> list[Row]:
    return [{"prompt": topic(n), "user": f"u{n}", "conversation": f"c{n}"} for n in range(first, last)]


CLEAN = rows(0, 10)


def audit(tmp_path: Path, eval_rows: list[Row], *train: list[Row], more: tuple[str, ...] = ()) -> tuple[int, Found]:
    sources = [write(tmp_path / f"train{n}.jsonl", part) for n, part in enumerate(train)]
    held = write(tmp_path / "exam.jsonl", eval_rows)
    words = ["data", "audit", "--train", *sources, "--eval", held, "--json", str(tmp_path / "audit.json"), *more]
    return main(words), json.loads((tmp_path / "audit.json").read_text())


def verdicts(found: Found, side: str = "evaluation") -> dict[str, str]:
    return {one["check"]: one["verdict"] for one in found[side]}


def test_a_clean_pair_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = audit(tmp_path, CLEAN, rows(10, 20))
    assert (status, found["passed"]) == (0, True)
    assert set(verdicts(found).values()) == {"disjoint"}
    assert capsys.readouterr().out.splitlines()[-1] == (
        "passed: evaluation shares no prompt, no near_duplicate, no conversation, no user with training"
    )


@pytest.mark.parametrize(
    ("row", "shared"),
    [
        ({"prompt": topic(3).upper(), "user": "x", "conversation": "y"}, {"prompt", "conversation"}),
        ({"prompt": f"{topic(3)}?!", "user": "x", "conversation": "y"}, {"near_duplicate"}),
        ({"prompt": "Why?", "user": "u3", "conversation": "y"}, {"user"}),
        ({"prompt": "Why?", "user": "x", "conversation": "c3"}, {"conversation"}),
        (
            {
                "prompt": [
                    {"role": "user", "content": topic(3)},
                    {"role": "assistant", "content": "Let me think about it, and about much else, for a long time."},
                    {"role": "user", "content": "I beg you to do that now, and to take as long as that may take."},
                ],
                "user": "x",
                "conversation": "y",
            },
            {"conversation"},
        ),
    ],
)
def test_each_kind_of_overlap_is_found(row: Row, shared: set[str], tmp_path: Path) -> None:
    status, found = audit(tmp_path, CLEAN, [*rows(10, 20), row])
    assert status == 1
    assert {check for check, verdict in verdicts(found).items() if verdict == "shared"} == shared
    for one in found["evaluation"]:
        if one["verdict"] == "shared":
            assert one["examples"] == [[f"{tmp_path}/exam.jsonl:4", f"{tmp_path}/train0.jsonl:11"]]
            assert (one["one_rows"], one["other_rows"]) == (1, 1)


def test_no_user_is_unknown_and_not_disjoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = [{"prompt": row["prompt"]} for row in rows(10, 20)]
    status, found = audit(tmp_path, CLEAN, nameless)
    assert (status, verdicts(found)["user"]) == (0, "unknown")
    assert (found["evaluation"][3]["one_unknown"], found["evaluation"][3]["other_unknown"]) == (0, 10)
    assert "unknown: user (rows that do not say" in capsys.readouterr().out
    assert audit(tmp_path, CLEAN, nameless, more=("--on_unknown", "error"))[0] == 1
    assert audit(tmp_path, CLEAN, nameless, more=("--on_unknown", "error", "--check", "prompt"))[0] == 0


def test_training_sets_may_share_unless_that_is_an_error(tmp_path: Path) -> None:
    status, found = audit(tmp_path, CLEAN, rows(10, 20), rows(18, 30))
    assert (status, verdicts(found, "training")["prompt"]) == (0, "shared")
    assert [(one["one_rows"], one["other_rows"]) for one in found["training"] if one["check"] == "user"] == [(2, 2)]
    assert audit(tmp_path, CLEAN, rows(10, 20), rows(18, 30), more=("--on_overlap", "error"))[0] == 1
    assert audit(tmp_path, CLEAN, rows(10, 20), rows(20, 30), more=("--on_overlap", "error"))[0] == 0


def test_other_formats_and_documents_are_compared_by_their_prompts(tmp_path: Path) -> None:
    ranked = [{"prompt": topic(1), "chosen": "a", "rejected": "b"}]
    status, found = audit(tmp_path, CLEAN, ranked, [{"text": topic(2)}, {"text": "b"}])
    assert status == 1
    assert [one["one_rows"] for one in found["evaluation"] if one["check"] == "prompt"] == [1, 1]


def test_rows_that_cannot_be_read_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = audit(tmp_path, CLEAN, [*rows(10, 20), {"prompt": ""}])
    assert found["rows_bad"] == {f"{tmp_path}/train0.jsonl": 1, f"{tmp_path}/exam.jsonl": 0}
    out = capsys.readouterr().out
    assert f"1 rows cannot be read and were not compared; the first, {tmp_path}/train0.jsonl:11: `prompt` is em" in out
    assert (status, set(verdicts(found).values())) == (0, {"unknown"})
    assert out.splitlines()[-1].startswith("passed: unknown: conversation, near_duplicate, prompt, user (")
    assert {(one["one_unknown"], one["other_unknown"]) for one in found["evaluation"]} == {(0, 1)}
    assert audit(tmp_path, CLEAN, [*rows(10, 20), {"prompt": ""}], more=("--on_unknown", "error"))[0] == 1
    assert audit(tmp_path, [*CLEAN, {"prompt": ""}], rows(10, 20), more=("--on_unknown", "error"))[0] == 1


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": topic(3), "completion": "c", "facts": "no object, which no demonstration minds"},
        {"prompt": topic(3), "chosen": "c", "rejected": "d", "facts": 3},
        {"messages": [{"role": "user", "content": topic(3)}, {"role": "assistant", "content": "c"}], "facts": [1]},
        {"prompt": topic(3), "facts": "not even a prompt minds here"},
        {"prompt": topic(3), "note": "\ud800"},
    ],
)
def test_a_row_is_compared_whatever_it_has_beside_its_prompt(row: Row, tmp_path: Path) -> None:
    status, found = audit(tmp_path, CLEAN, [*rows(10, 20), row], more=("--check", "prompt"))
    assert (status, verdicts(found), set(found["rows_bad"].values())) == (1, {"prompt": "shared"}, {0})


def test_a_table_with_times_is_compared(tmp_path: Path) -> None:
    table = [{"prompt": row["prompt"], "created_at": datetime(2024, 1, 1)} for row in CLEAN[2:4]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "train.parquet")
    held = write(tmp_path / "exam.jsonl", CLEAN)
    words = ["data", "audit", "--train", str(tmp_path / "train.parquet"), "--eval", held, "--check", "prompt"]
    assert main(words) == 1


def test_documents_after_a_broken_line_are_compared(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{broken\n{"text": "' + topic(3) + '"}\n')
    words = ["data", "audit", "--train", str(tmp_path / "train.jsonl"), "--eval", write(tmp_path / "exam.jsonl", CLEAN)]
    assert main([*words, "--check", "prompt"]) == 1


def test_rankings_and_demonstrations_of_one_tree_are_all_compared(tmp_path: Path) -> None:
    """Of a tree, stages read other prompts as rankings than as demonstrations."""
    answer = {"text": "yes", "role": "assistant", "rank": None, "replies": []}
    ranked = [{**answer, "text": text, "rank": rank} for rank, text in enumerate(("b", "c"))]
    follow = {"text": topic(4), "role": "prompter", "rank": None, "replies": ranked}
    root = {"text": topic(3), "role": "prompter", "rank": None, "replies": [{**answer, "replies": [follow]}]}
    found = audit(tmp_path, CLEAN, [{"message_tree_id": "t", "prompt": root}], more=("--check", "prompt"))[1]
    assert (found["evaluation"][0]["one_rows"], found["rows"][f"{tmp_path}/train0.jsonl"]) == (1, 2)


def test_a_format_to_choose_is_chosen_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"prompt": topic(3), "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    pku, held = write(tmp_path / "pku.jsonl", [pair]), write(tmp_path / "exam.jsonl", CLEAN)
    assert main(["data", "audit", "--train", pku, "--eval", held]) == 2
    line = f"write a YAML file with the lines `data: {pku}` and `data_format: pku-saferlhf-better`, and name that file"
    assert line in capsys.readouterr().err
    words = ["data", "curate", held, "--kind", "prompt", "--output", str(tmp_path / "out"), "--evaluation"]
    assert main([*words, pku]) == 2
    assert line in capsys.readouterr().err
    (tmp_path / "pku.yaml").write_text(f"data: {pku}\ndata_format: pku-saferlhf-better\n")
    assert main(["data", "audit", "--train", str(tmp_path / "pku.yaml"), "--eval", held, "--check", "prompt"]) == 1
    assert main([*words, str(tmp_path / "pku.yaml")]) == 0


@pytest.mark.parametrize("by", ["user", "conversation", "prompt"])
def test_a_split_passes_the_audit_of_what_it_splits_by(by: str, tmp_path: Path) -> None:
    doubled = [{**row, "prompt": row["prompt"] + end} for row in ROWS for end in ("", " !")]
    source = write(tmp_path / "rows.jsonl", doubled)
    out = str(tmp_path / "out")
    words = ["data", "split", source, "--kind", "prompt", "--output", out, "--split_by", by, "--eval_fraction", "0.2"]
    assert main(words) == 0
    checks = ["prompt", "near_duplicate", "conversation", *(["user"] if by == "user" else [])]
    assert main(["data", "audit", "--train", f"{out}#train", "--eval", f"{out}#eval", "--check", *checks]) == 0
    assert main(["data", "audit", "--train", source, "--eval", f"{out}#eval", "--check", *checks]) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--train", "a"], "`eval` is missing"),
        (["--train", "a", "--eval", "b", "--near_duplicates", "0"], "between 0.3 and 1, not 0.0"),
        (["--train", "a", "--eval", "b", "--check", "users"], "must be"),
        (["--train", "a.jsonl", "--eval", "b.jsonl"], "a.jsonl: no such file or folder"),
    ],
)
def test_audits_that_cannot_be(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", *words]) == 2
    assert error in capsys.readouterr().err


def publish(store: Store, kind: str, data: dict[str, str], parents: dict[str, str]) -> str:
    with store.staging() as folder:
        (folder / "model.txt").write_text(kind)
        return store.publish(folder, kind=kind, parents=parents, input_key=kind, config={}, data=data, metrics={})


def test_a_run_is_audited_with_all_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demonstrations = [{**row, "completion": "c"} for row in rows(10, 20)]
    rankings = [{**row, "chosen": "c", "rejected": "d"} for row in rows(20, 30)]

    def print_of(name: str, kind: type[Record]) -> str:
        return read_records(str(tmp_path / name), kind).fingerprint

    write(tmp_path / "train0.jsonl", demonstrations)
    write(tmp_path / "train1.jsonl", rankings)
    store = Store(tmp_path / "artifacts")
    sft = publish(store, "sft", {"demonstrations": print_of("train0.jsonl", Demonstration)}, {})
    data = {"rankings": print_of("train1.jsonl", Ranking), "tokenizer": "sha256:0"}
    store.set_refs("mine", {"reward": publish(store, "reward", data, {"start": sft})})
    asked = ("--run", "mine", "--artifacts", str(tmp_path / "artifacts"))
    assert audit(tmp_path, CLEAN, demonstrations, rankings, more=asked)[0] == 0
    assert "run mine: --train holds all 2 data sets that its models record" in capsys.readouterr().out
    source = str(tmp_path / "train1.jsonl")
    assert main(["data", "audit", "--train", source, "--eval", str(tmp_path / "exam.jsonl"), *asked]) == 2
    assert f"none of these sources is: {sft} (demonstrations) sha256:" in capsys.readouterr().err
    assert main(["data", "audit", "--train", source, "--eval", source, "--run", "other", *asked[2:]]) == 2
    assert "no model of run other" in capsys.readouterr().err
