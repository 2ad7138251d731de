"""MinHash: the estimate is the Jaccard index, what is alike is found, what is not is not, whatever the order."""

from __future__ import annotations

import random
import string
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rlhf_pipeline.data.curation import near_duplicates
from rlhf_pipeline.data.curation.near_duplicates import (
    SHINGLE,
    NearDuplicates,
    clusters,
    estimate,
    rows_per_band,
    signature,
)

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lm", "nt", "rs", "x")]


def sentence(seed: int, length: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(text: str, words: int) -> str:
    parts = text.split()
    for number in range(words):
        parts[3 + 9 * number] = "zzz"
    return " ".join(parts)


def jaccard(one: str, other: str) -> float:
    sets = [{text[at : at + 5] for at in range(len(text) - 4)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def labels(folder: Path, texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    folder.mkdir()
    index = NearDuplicates(threshold, folder)
    for text in texts:
        index.add(text)
    everyone = np.ones(len(texts), dtype=bool)
    found = clusters(index.matches(threshold, np.arange(len(texts)), everyone, everyone), len(texts))
    index.close()
    return found.tolist()


def partition(texts: Sequence[str], found: Sequence[int]) -> set[frozenset[str]]:
    return {frozenset(t for t, label in zip(texts, found, strict=True) if label == one) for one in found}


def test_a_huge_text_is_cut_a_piece_at_a_time() -> None:
    text = "".join(random.Random(0).choices(string.ascii_lowercase + string.digits, k=300_000))
    tracemalloc.start()
    whole = signature(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000
    halves = [signature(text[:150_000]), signature(text[150_000 - SHINGLE + 1 :])]
    assert whole == [min(pair) for pair in zip(*halves, strict=True)]


def test_the_estimate_is_the_jaccard_index() -> None:
    pairs = [(sentence(n), changed(sentence(n), n % 5)) for n in range(60)]
    low = (np.array([signature(text) for pair in pairs for text in pair]) % 256).astype(np.uint8)
    rows = np.arange(0, 120, 2)
    errors = estimate(low, rows, rows + 1) - np.array([jaccard(*pair) for pair in pairs])
    assert abs(errors.mean()) < 0.01
    assert errors.std() < 0.044
    apart = np.mean([jaccard(pairs[n][0], pairs[n + 1][0]) for n in range(59)])
    assert abs(estimate(low, rows[:-1], rows[1:]).mean() - apart) < 0.01


@pytest.mark.parametrize(("threshold", "rows"), [(0.8, 6), (0.9, 10), (0.5, 3), (1.0, 32)])
def test_bands_find_what_is_as_similar_as_the_threshold(threshold: float, rows: int) -> None:
    assert rows_per_band(threshold) == rows
    found = [1 - (1 - threshold**r) ** (128 // r) for r in (rows, rows + 1)]
    assert found[0] >= 0.99 and (found[1] < 0.99 or rows == 32)


def test_near_duplicates_meet_and_others_do_not(tmp_path: Path) -> None:
    texts = [sentence(0), sentence(1), changed(sentence(0), 1), sentence(0).upper() + " ", changed(sentence(1), 4)]
    assert jaccard(texts[0], texts[2]) > 0.9 and jaccard(texts[1], texts[4]) < 0.75
    assert labels(tmp_path / "a", texts) == [0, 1, 0, 0, 4]


def test_texts_shorter_than_a_shingle(tmp_path: Path) -> None:
    assert labels(tmp_path / "a", ["hi", "Hi", "ho", ""]) == [0, 0, 2, 3]


def test_clusters_depend_on_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BATCH", 7)
    texts = [changed(sentence(n % 10), n // 10) for n in range(30)]
    found = partition(texts, labels(tmp_path / "a", texts))
    assert len(found) < 25
    shuffled = random.Random(0).sample(texts, len(texts))
    assert partition(shuffled, labels(tmp_path / "b", shuffled)) == found


def test_leaders_and_followers(tmp_path: Path) -> None:
    index = NearDuplicates(0.8, tmp_path)
    for text in (sentence(0), sentence(0), sentence(1), changed(sentence(0), 1), changed(sentence(1), 1)):
        index.add(text)
    leads = np.array([True, False, False, False, True])
    found = [
        pair
        for pairs in index.matches(0.8, np.arange(5), leads, ~leads)
        for pair in zip(pairs.leaders.tolist(), pairs.followers.tolist(), strict=True)
    ]
    index.close()
    assert set(found) == {(0, 1), (0, 3), (4, 2)}


def test_what_a_crowded_bucket_leaves_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_LEADERS", 3)
    monkeypatch.setattr(near_duplicates, "band_keys", lambda minima, number, rows: np.zeros(len(minima), np.uint64))
    index = NearDuplicates(0.9, tmp_path)
    for n in range(6):
        index.add(sentence(n))
    everyone = np.ones(6, dtype=bool)
    assert list(index.matches(0.9, np.arange(6), everyone, everyone)) == []
    index.close()
    assert index.crowded == index.bands * 3


def test_an_empty_index(tmp_path: Path) -> None:
    assert labels(tmp_path / "a", []) == []
