"""What `rlhf data curate` and `rlhf data split` can be asked for. Every step of curation has its own setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_pipeline.data.curation.sides import SplitBy
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

Kind = Literal["demonstration", "ranking", "prompt", "document"]
KINDS: dict[str, type[Record]] = {
    "demonstration": Demonstration,
    "ranking": Ranking,
    "prompt": Prompt,
    "document": Document,
}


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What is read, and where the rows go."""

    source: str = _setting("", "rows to read: a file, folder or hub id; may be the first word instead")
    kind: Kind | None = _setting(None, "what the rows are read as; required")
    output: str = _setting("", "folder to write; required")
    data_format: str = _setting("auto", "layout of the rows, where it is not recognised by the first")
    seed: int = _setting(0, "another seed keeps other rows of a group, and holds out others")

    def __post_init__(self) -> None:
        """Refuse what names no rows, no kind or no folder."""
        for name in ("source", "output"):
            if not getattr(self, name):
                raise ConfigError(
                    f"`{name}` is missing; type `rlhf data curate <rows> --output <folder> --kind <kind>`"
                )
        if self.kind is None:
            raise ConfigError(f"`kind` is missing; say what the rows are with --kind {'|'.join(KINDS)}")

    @property
    def record(self) -> type[Record]:
        """The class of `kind`."""
        return KINDS[self.kind or "prompt"]


@dataclass(frozen=True, kw_only=True)
class SplitSettings(SourceSettings):
    """How rows are divided into train.jsonl and eval.jsonl."""

    split_by: SplitBy | None = _setting(
        None, "write train.jsonl and eval.jsonl, divided by this; null: train.jsonl only"
    )
    eval_fraction: float = _setting(0.05, "share of the users, prompts or conversations that is held out")
    apart: float = _setting(
        0.8, "set training rows aside whose prompt is this similar to a held-out one; 0: equal ones only"
    )

    def __post_init__(self) -> None:
        """Refuse shares outside their range."""
        super().__post_init__()
        if not 0 < self.eval_fraction < 1:
            raise ConfigError(f"`eval_fraction` must be above 0 and below 1, not {self.eval_fraction}")
        _need_similarity("apart", self.apart)


@dataclass(frozen=True, kw_only=True)
class CurateSettings(SplitSettings):
    """The steps of curation, in the order in which they look at a row."""

    max_prompt_characters: int | None = _setting(None, "drop rows with a longer prompt")
    min_answer_characters: int | None = _setting(None, "drop rows whose best answer is shorter")
    max_answer_characters: int | None = _setting(None, "drop rows with a longer answer")
    max_tokens: int | None = _setting(
        None, "drop rows whose prompt and longest answer have more tokens; needs tokenizer"
    )
    tokenizer: str | None = _setting(None, "folder or hub id of the tokenizer that counts")
    drop_truncated: bool = _setting(False, "drop rows whose best answer is unfinished or stops within a sentence")
    evaluation: list[str] = field(
        default_factory=list, metadata={"help": "evaluation sets; rows that contain their prompts are dropped"}
    )
    ngram: int = _setting(13, "words in a row that must agree to count as contained")
    ngram_share: float = _setting(0.0, "share of an evaluation text's n-grams a row may have; 0: not a single one")
    personal_data: Literal["keep", "redact", "drop"] = _setting(
        "redact", "replace e-mail addresses, phone, card, account and social security numbers and IP addresses, or drop"
    )
    phone_regions: list[str] = field(
        default_factory=lambda: ["US"], metadata={"help": "countries whose phone numbers are known without +"}
    )
    exact_duplicates: bool = _setting(True, "keep one of the rows that say the same")
    prefix_characters: int = _setting(
        200, "keep one of the prompts that begin with the same so many characters; 0: off"
    )
    near_duplicates: float = _setting(0.0, "keep one of the prompts this similar (MinHash), such as 0.8; 0: off")
    max_per_user: int = _setting(200, "keep at most so many rows of a user; 0: no limit")

    def __post_init__(self) -> None:
        """Refuse negative limits, similarities outside their range, and a token limit that nothing counts."""
        super().__post_init__()
        _need_similarity("near_duplicates", self.near_duplicates)
        for name in ("prefix_characters", "max_per_user"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must be 0 (off) or more, not {getattr(self, name)}")
        if self.ngram < 1 or not 0 <= self.ngram_share <= 1:
            raise ConfigError("`ngram` must be at least 1, `ngram_share` between 0 and 1")
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise ConfigError("`max_tokens` and `tokenizer` go together; give both or neither")


def only_split(settings: SplitSettings) -> CurateSettings:
    """Give the settings of a curation that divides and does nothing else."""
    given = {name: getattr(settings, name) for name in SplitSettings.__dataclass_fields__}
    return CurateSettings(
        **given,
        personal_data="keep",
        exact_duplicates=False,
        prefix_characters=0,
        max_per_user=0,
    )


def _need_similarity(name: str, value: float) -> None:
    if value != 0 and not 0.3 <= value <= 1:
        raise ConfigError(f"`{name}` must be 0 (off) or between 0.3 and 1, not {value}")
