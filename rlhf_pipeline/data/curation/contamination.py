"""Rows that contain what a model is evaluated on, found by shared n-grams of words.

As GPT-3 did (Brown et al. 2020, appendix C): lower-cased words without punctuation, n = 13, one shared n-gram is
enough by default. Of Chinese, Japanese, Thai and the like every letter is a word. An evaluation text shorter than n
words counts only where it is a whole prompt, and one without a word (emoji alone) not at all.
Left out: paraphrases and translations, which no n-gram finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rlhf_pipeline.data.curation.text import answers, hash64, prompt_text, words
from rlhf_pipeline.records import Record


class EvaluationText:
    """N-grams of evaluation prompts; memory grows with the evaluation sets alone, about 150 bytes an n-gram."""

    def __init__(self, n: int, share: float) -> None:
        """`share`: of an evaluation text's n-grams, the part that must be found in a row; at least one is needed."""
        self.n, self.share = n, share
        self._owners: dict[int, int | list[int]] = {}
        self._whole: dict[int, int] = {}
        self._sizes: list[int] = []
        self._places: list[str] = []

    def add(self, record: Record, where: str) -> None:
        """Take in the prompt of an evaluation record."""
        said = words(prompt_text(record))
        owner = len(self._places)
        self._places.append(where)
        grams = set(self._grams(said))
        self._sizes.append(len(grams))
        if said and not grams:
            self._whole.setdefault(hash64(" ".join(said)), owner)
        for gram in grams:
            known = self._owners.get(gram)
            if known is None:
                self._owners[gram] = owner
            else:
                self._owners[gram] = [*(known if isinstance(known, list) else [known]), owner]

    def why_contaminated(self, record: Record) -> str | None:
        """Say which evaluation text the record contains; of several, the one it has most of."""
        prompt = words(prompt_text(record))
        whole = self._whole.get(hash64(" ".join(prompt)))
        if whole is not None:
            return f"is an evaluation prompt: {self._places[whole]}"
        found = self._found([prompt, *map(words, answers(record))])
        shares = ((count / self._sizes[owner], -owner) for owner, count in found.items())
        share, owner = max(shares, default=(0.0, 0))
        if share > 0 and share >= self.share:
            return f"contains evaluation text: {share:.0%} of the {self.n}-grams of {self._places[-owner]}"
        return None

    def _found(self, texts: Sequence[Sequence[str]]) -> Counter[int]:
        """Count, for each evaluation text, how many different n-grams of it are in `texts`."""
        there = {gram for text in texts for gram in self._grams(text) if gram in self._owners}
        counts: Counter[int] = Counter()
        for gram in there:
            owners = self._owners[gram]
            counts.update(owners if isinstance(owners, list) else [owners])
        return counts

    def _grams(self, said: Sequence[str]) -> Iterator[int]:
        """Give the n-grams as 64-bit hashes of this process, ten times as fast as one that outlives it."""
        return (hash(" ".join(said[at : at + self.n])) for at in range(len(said) - self.n + 1))
