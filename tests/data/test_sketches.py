"""Counts in little memory: exact while small, and honest about it when not."""

from __future__ import annotations

import random

from rlhf_pipeline.data.sketches import Lengths, Same, Sample, Top, bars, share


def lengths(*values: int, limit: int | None = None) -> Lengths:
    counted = Lengths(limit)
    for value in values:
        counted.add(value)
    return counted


def test_percentiles_of_ten() -> None:
    counted = lengths(*range(1, 11))
    assert [counted.percentile(share) for share in (0.01, 0.1, 0.5, 0.9, 0.91, 1)] == [1, 1, 5, 9, 10, 10]
    assert counted.to_dict() == {"count": 10, "mean": 5.5, "p1": 1, "p10": 1, "p50": 5, "p90": 9, "p99": 10, "max": 10}
    assert (lengths(*range(1, 11), limit=8).over, counted.over, counted.at_longest) == (2, 0, 1)


def test_what_is_held_against_a_limit_is_exact() -> None:
    counted = lengths(2047, 2048, 2049, 2049, 987_654, 987_654, 987_001, limit=2048)
    assert (counted.over, counted.at_longest) == (5, 2)


def test_long_lengths_keep_three_digits_and_the_longest_is_exact() -> None:
    counted = lengths(999, 1234, 1236, 987_654)
    assert dict(counted.counts) == {999: 1, 1230: 1, 1240: 1, 988_000: 1}
    assert (counted.longest, counted.percentile(1), counted.total) == (987_654, 987_654, 999 + 1234 + 1236 + 987_654)


def test_a_million_lengths_take_few_entries() -> None:
    draw = random.Random(0)
    counted = lengths(*(int(draw.paretovariate(0.5)) % 10**9 for _ in range(20_000)))
    assert len(counted.counts) < 1000 + 6 * 900


def test_no_lengths() -> None:
    assert lengths().to_dict()["p50"] == 0


def test_the_most_frequent_names_are_exact_while_they_fit() -> None:
    top = Top(size=4)
    for name in "abacab":
        top.add(name)
    assert top.to_dict() == {"named": 6, "distinct": 3, "top": {"a": 3, "b": 2, "c": 1}, "error": 0}


def test_a_frequent_name_survives_any_number_of_rare_ones() -> None:
    top = Top(size=10)
    for number in range(5000):
        top.add("often" if number % 4 == 0 else f"rare {number}")
    assert len(top.counts) < 20
    assert top.to_dict()["distinct"] is None
    assert 1250 - top.error <= top.counts["often"] <= 1250
    assert top.error < 5000 / 10


def test_same() -> None:
    same = Same()
    assert same.to_dict() == {"count": 0, "distinct": 0, "repeated": 0, "largest": 0}
    for text in ("a", "b", "a", "c", "a", "c"):
        same.add(text)
    assert same.to_dict() == {"count": 6, "distinct": 3, "repeated": 3, "largest": 3}


def kept(size: int, first: int, last: int) -> list[int]:
    sample: Sample[int] = Sample(size, [])
    for number in range(first, last):
        sample.add(number)
    return sample.kept


def test_a_sample_is_the_same_twice_and_depends_on_nothing_but_places() -> None:
    assert kept(3, 0, 300) == kept(3, 0, 300)
    assert kept(3, 1000, 1300) == [number + 1000 for number in kept(3, 0, 300)]


def test_a_sample_gives_every_item_the_same_chance() -> None:
    chosen = kept(600, 0, 3000)
    assert len(set(chosen)) == 600
    assert all(150 < sum(number // 1000 == third for number in chosen) < 250 for third in range(3))


def test_bars_have_round_classes() -> None:
    assert bars({}) == []
    assert bars({2: 5, 4: 1}) == [("2", 5), ("3", 0), ("4", 1)]
    assert bars({0: 1, 99: 2}) == [(f"{n}-{n + 9}", 1 if n == 0 else 2 if n == 90 else 0) for n in range(0, 100, 10)]


def test_an_outlier_does_not_flatten_the_bars() -> None:
    counts = dict.fromkeys(range(10), 20) | {1_000_000: 1}
    assert bars(counts) == [*((str(number), 20) for number in range(10)), ("above 9", 1)]


def test_share_of_nothing() -> None:
    assert (share(1, 4), share(0, 0)) == (0.25, 0)
