"""Every sample in data/ reads as its provenance says, and the same rows read alike from every container."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf_pipeline.data.pairs import dropped, ordered_pairs
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

DATA = Path(__file__).parents[2] / "data"

SAMPLES = [
    ("demonstrations.jsonl", Demonstration, 12),
    ("demonstrations.json", Demonstration, 12),
    ("demonstrations.csv", Demonstration, 12),
    ("demonstrations.parquet", Demonstration, 12),
    ("messages.jsonl", Demonstration, 6),
    ("rankings.jsonl", Ranking, 8),
    ("preferences.jsonl", Ranking, 6),
    ("preferences-implicit.jsonl", Ranking, 7),
    ("preferences-hh.jsonl", Ranking, 5),
    ("trees-oasst.jsonl", Demonstration, 8),
    ("trees-oasst.jsonl", Ranking, 3),
    ("trees-oasst.jsonl", Prompt, 4),
    ("comparisons-tldr.jsonl", Ranking, 3),
    ("ratings-ultrafeedback.jsonl", Ranking, 2),
    ("instructions-alpaca.json", Demonstration, 4),
    ("instructions-dolly.jsonl", Demonstration, 3),
    ("tasks-self-instruct.jsonl", Demonstration, 5),
    ("preferences-pku-saferlhf.jsonl", Prompt, 3),
    ("preferences-unpaired.jsonl", Demonstration, 2),
    ("preferences-unpaired.jsonl", Prompt, 4),
    ("steps.jsonl", Prompt, 1),
    ("prompts.jsonl", Prompt, 6),
    ("documents.jsonl", Document, 4),
    ("documents.txt", Document, 4),
]


@pytest.mark.parametrize(("name", "kind", "count"), SAMPLES)
def test_every_sample_reads_without_a_bad_row(name: str, kind: type[Record], count: int) -> None:
    rows = read(str(DATA / name), kind, data_format="pku-saferlhf-better" if "pku" in name else "auto")
    assert (len(rows.records), rows.bad) == (count, [])
    assert all(isinstance(record, kind) for record in rows.records)


def test_no_sample_is_without_a_test() -> None:
    assert {path.name for path in DATA.iterdir()} - {"PROVENANCE.md"} == {name for name, _, _ in SAMPLES} | {"mix.yaml"}


def test_provenance_names_every_sample() -> None:
    table = (DATA / "PROVENANCE.md").read_text()
    stems = set(re.findall(r"[\w-]+(?=\.(?:jsonl|json|csv|parquet|txt))", table))
    assert {name.split(".")[0] for name, _, _ in SAMPLES} <= stems


@pytest.mark.parametrize("name", sorted({name for name, _, _ in SAMPLES if name.endswith(".jsonl")}))
def test_provenance_counts_rows(name: str) -> None:
    count = len((DATA / name).read_text().splitlines())
    assert re.search(rf"^\| {name} \|[^|]*\| {count} \|", (DATA / "PROVENANCE.md").read_text(), re.MULTILINE)


def test_the_mix_is_read_from_where_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA.parent)
    rows = read("data/mix.yaml", Demonstration)
    sources = [record.source for record in rows.records]
    drawn = sources.count("alpaca")
    assert (len(sources), rows.dropped) == (12 + drawn + 2 * 6, {"not drawn at weight 0.5": 4 - drawn})
    assert sources.count("messages.jsonl") == 12


def test_containers_do_not_change_the_fingerprint() -> None:
    prints = {
        read(str(DATA / f"demonstrations.{kind}"), Demonstration).fingerprint
        for kind in ("jsonl", "json", "csv", "parquet")
    }
    assert len(prints) == 1


def test_documents_are_alike_as_text_and_as_rows() -> None:
    texts = [
        [d.text for d in read(str(DATA / name), Document).records] for name in ("documents.txt", "documents.jsonl")
    ]
    assert texts[0] == texts[1]


def test_pairs_of_the_rankings() -> None:
    rankings = read(str(DATA / "rankings.jsonl"), Ranking).records
    assert [len(ranking.completions) for ranking in rankings] == [4, 3, 4, 2, 5, 3, 4, 3]
    assert [len(ordered_pairs(ranking)) for ranking in rankings] == [6, 3, 5, 1, 10, 3, 6, 3]
    assert dropped(rankings) == {"tie": 1}


def test_facts_of_the_prompts_travel() -> None:
    prompts = read(str(DATA / "prompts.jsonl"), Prompt).records
    assert prompts[0].facts == {"answer": "42"}
    assert prompts[2].facts == {"topic": "manners"}
