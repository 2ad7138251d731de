"""YAML files of sources: strict keys, weights by content, and records that know where they are from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.data.mix import Source, is_mix, read_mix
from rlhf_pipeline.data.sources import Found, LeftOut, read, stream
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration, Prompt

ROWS = [{"prompt": f"Question {n}?", "completion": f" Answer {n}."} for n in range(400)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "many.jsonl", ROWS)
    save(tmp_path / "own.jsonl", [{"q": "Why?", "i": "", "a": "So."}, {"q": "How?", "i": "Fast.", "a": "Thus."}])
    save(
        tmp_path / "talk.jsonl",
        [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}],
    )
    return tmp_path


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def mix(folder: Path, text: str) -> str:
    (folder / "mix.yaml").write_text(text)
    return "mix.yaml"


def test_columns_of_ones_own(folder: Path) -> None:
    file = mix(folder, 'data: own.jsonl\nchat: false\ncolumns:\n  prompt: "{q}\\n\\n{i?}"\n  completion: " {a}"\n')
    rows = read(file, Demonstration)
    assert rows.records == [Demonstration("Why?", " So."), Demonstration("How?\n\nFast.", " Thus.")]
    assert rows.places == ["own.jsonl:1", "own.jsonl:2"]


def test_a_mix_of_plain_and_dialogues_in_the_order_of_its_sources(folder: Path) -> None:
    text = """
sources:
  - {data: talk.jsonl, weight: 2}
  - {data: own.jsonl, columns: {prompt: q, completion: a}, chat: false, name: mine}
"""
    rows = read(mix(folder, text), Demonstration)
    talk = Demonstration([{"role": "user", "content": "Hi"}], "Ho", source="talk.jsonl")
    mine = [Demonstration("Why?", "So.", source="mine"), Demonstration("How?", "Thus.", source="mine")]
    assert rows.records == [talk, talk, *mine]
    assert rows.places == ["talk.jsonl:1", "talk.jsonl:1", "own.jsonl:1", "own.jsonl:2"]
    assert rows.fingerprint != read("talk.jsonl", Demonstration).fingerprint


def test_streaming_gives_what_reading_gives(folder: Path) -> None:
    file = mix(folder, "sources:\n  - {data: many.jsonl, weight: 1.5}\n  - {data: many.jsonl, weight: 0.1}\n")
    items = list(stream(file, Demonstration))
    rows = read(file, Demonstration)
    assert [item.record for item in items if isinstance(item, Found)] == rows.records
    assert sum(isinstance(item, LeftOut) for item in items) == rows.dropped["not drawn at weight 0.1"]


def drawn(weight: float, name: str | None = None) -> list[str]:
    source = Source("x", None, None, weight, name)
    records = [Demonstration(row["prompt"], row["completion"]) for row in ROWS]
    return [str(record.prompt) for record in records for _ in range(source.copies(record))]


def test_a_weight_is_the_multiple_of_the_rows() -> None:
    half = drawn(0.5)
    assert 160 < len(half) < 240
    assert len(drawn(1)) == 400
    assert len(drawn(3)) == 1200
    assert len(drawn(2.5)) == 800 + len(half)


def test_a_smaller_weight_takes_a_subset_and_names_play_no_part() -> None:
    assert set(drawn(0.2)) < set(drawn(0.5)) < set(drawn(0.9))
    assert drawn(0.5) == drawn(0.5, "other")


def test_a_source_that_a_record_names_itself_stays(folder: Path) -> None:
    save(folder / "named.jsonl", [ROWS[0] | {"source": "paper"}, ROWS[1]])
    rows = read(mix(folder, "sources: [{data: named.jsonl}]"), Demonstration)
    assert [record.source for record in rows.records] == ["paper", "named.jsonl"]


def test_a_split_and_a_format_are_passed_on(folder: Path) -> None:
    (folder / "parts").mkdir()
    save(folder / "parts/train.jsonl", ROWS[:2])
    save(folder / "parts/test.jsonl", ROWS[2:5])
    assert (
        len(read(mix(folder, "sources: [{data: parts, split: test}, {data: 'parts#train'}]"), Demonstration).records)
        == 5
    )
    with pytest.raises(DataError, match="expected a transcript"):
        read(mix(folder, "data: many.jsonl\ndata_format: hh\n"), Prompt)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: many.jsonl\ncolums: {}\n", "mix.yaml:2: `colums` is not a setting; did you mean `columns`?"),
        ("sources: [{data: a, wieght: 2}]", "sources[0]: `wieght` is not a setting; did you mean `weight`?"),
        ("\nsources: [{data: a}, {data: b, weight: 0}]", "mix.yaml:2: sources[1]: `weight` must be a positive number"),
        ("sources: [{data: a, weight: .inf}]", "mix.yaml:1: sources[0]: `weight` must be a positive number, not inf"),
        ("sources: [{data: a, weight: yes}]", "mix.yaml:1: sources[0]: `weight` must be float, not True"),
        ("sources: [{weight: 2}]", "mix.yaml:1: sources[0]: `data` is missing"),
        ("weight: 2", "mix.yaml: `data` is missing"),
        ("sources: {data: a}", "mix.yaml:1: `sources` is {'data': 'a'}; expected a list"),
        ("sources: []", "mix.yaml:1: `sources` is []; expected a list"),
        ("sources: [{data: a}]\nweight: 2\n", "mix.yaml:2: `weight` stands beside `sources`; move it into each"),
        ("data: other.yaml", "`data` is other.yaml; a YAML file in another one is not read"),
        ("data: a\ndata_format: alpca", "mix.yaml: --data_format: `alpca` is not a format; did you mean `alpaca`?"),
        ("data: a\ndata_format: trl\ncolumns: {prompt: q}", "`data_format` and `columns` both say"),
        ("data: a\neach: l", "`each` and `chat` belong to `columns`"),
        ("data: a\ncolumns: {prmpt: q}", "mix.yaml:2: `prmpt` is not a field of a record; did you mean `prompt`?"),
        ("data: a\ncolumns: {prompt: {q}}", "mix.yaml:2: `prompt` is {'q': None}; expected a column, or text"),
        ("data: [", "mix.yaml:1: not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_names_its_place(folder: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(mix(folder, text), Demonstration)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_no_row_has(folder: Path) -> None:
    needed = mix(folder, "data: own.jsonl\ncolumns: {prompt: qq, completion: a}\n")
    with pytest.raises(DataError, match=r"own\.jsonl:1: no column `qq`; the row has `q`, `i`, `a`; fix the row or"):
        read(needed, Demonstration)
    optional = mix(folder, 'data: own.jsonl\ncolumns: {prompt: "{q}\\n\\n{ii?}", completion: a}\n')
    with pytest.raises(ConfigError, match=r"own\.jsonl: no row has `ii\?`, of the columns in mix\.yaml:2; check"):
        read(optional, Demonstration)


def test_a_key_that_no_row_has(folder: Path) -> None:
    rows = [{"q": "Q", "a": "A", "meta": {"context": None, "notes": []}}, {"q": "Q", "a": "B"}, {"meta": None}]
    (folder / "deep.jsonl").write_text("".join(json.dumps(row | {"q": "Q", "a": "A"}) + "\n" for row in rows))
    text = 'data: deep.jsonl\ncolumns: {{prompt: "{{q}}\\n\\n{{{}?}}", completion: a}}\n'
    assert len(read(mix(folder, text.format("meta.context")), Demonstration).records) == 3
    for absent in ("meta.contxt", "meta.context.text", "meta.notes.0", "a.text"):
        with pytest.raises(ConfigError, match=rf"deep\.jsonl: no row has `{absent}\?`"):
            read(mix(folder, text.format(absent)), Demonstration)


def test_what_stands_beside_a_yaml_file_on_the_command_line(folder: Path) -> None:
    file = mix(folder, "data: many.jsonl")
    with pytest.raises(ConfigError, match=r"mix\.yaml says itself what its columns mean; leave `trl` out"):
        read(file, Demonstration, data_format="trl")
    for options in ({"split": "test"}, {}):
        with pytest.raises(ConfigError, match="a YAML file has no splits; write `split: ...` beside its `data`"):
            read(file if options else f"{file}#test", Demonstration, **options)
    with pytest.raises(ConfigError, match=r"absent\.yml: no such file"):
        read("absent.yml", Demonstration)


def test_names() -> None:
    assert is_mix("a/b.yaml")
    assert is_mix("b.YML")
    assert not is_mix("b.jsonl")


def test_the_name_of_a_source_is_the_same_on_every_machine(folder: Path) -> None:
    text = f"sources: [{{data: '{folder}/many.jsonl'}}, {{data: 'owner/name@1f2e'}}]"
    assert [source.name for source in read_mix(mix(folder, text))] == ["many.jsonl", "owner/name@1f2e"]
