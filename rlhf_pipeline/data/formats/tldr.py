"""Posts and summaries of TL;DR (Stiennon et al. 2020), as OpenAI published them.

    info {post, title, subreddit}, summaries [{text}, {text}], choice, worker     Ranking, Prompt
    post, title, subreddit, summary                                              Demonstration, Prompt

The prompt is written as in that paper (appendix, and Huang et al. 2024): SUBREDDIT, TITLE, POST, TL;DR. Left out: the
comparisons of news articles (CNN/DM), whose `info` has no post.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record, check_pair, shown


def matches(row: dict[str, Any]) -> bool:
    """Say whether the row is a comparison of two summaries, or a post with its summary."""
    return {"info", "summaries", "choice"} <= row.keys() or {"post", "subreddit", "summary"} <= row.keys()


def convert(row: dict[str, Any], kind: type[Record], where: str) -> Iterator[Record]:
    """Give the one record of a row. Raises DataError where fields are missing or do not fit `kind`."""
    if kind is Prompt:
        yield Prompt.from_dict(_origin(row) | {"prompt": _prompt(row, where)}, where)
    elif kind is Ranking:
        yield _ranking(row, where)
    elif kind is Demonstration and isinstance(row.get("summary"), str):
        yield Demonstration.from_dict(
            _origin(row) | {"prompt": _prompt(row, where), "completion": f" {row['summary'].strip()}"}, where
        )
    else:
        raise DataError(f"{where}: a row of format tldr with {_fields(row)} is no {kind.__name__.lower()}")


def _prompt(row: dict[str, Any], where: str) -> str:
    post = row.get("info", row)
    if not isinstance(post, dict):
        raise DataError(f"{where}: `info` is {shown(post)}; expected an object with `post` and `subreddit`")
    title = "" if post.get("title") is None else post["title"]
    for name, text in (("post", post.get("post")), ("subreddit", post.get("subreddit")), ("title", title)):
        if not isinstance(text, str) or not (text.strip() or name == "title"):
            raise DataError(f"{where}: `{name}` of the post is {shown(text)}; expected a text")
    return f"SUBREDDIT: r/{post['subreddit']}\n\nTITLE: {title}\n\nPOST: {post['post']}\n\nTL;DR:"


def _ranking(row: dict[str, Any], where: str) -> Ranking:
    summaries, choice = row.get("summaries"), row.get("choice")
    if not isinstance(summaries, list) or len(summaries) != 2 or type(choice) is not int or choice not in (0, 1):
        raise DataError(f"{where}: a row with {_fields(row)}; expected two `summaries` and a `choice` of 0 or 1")
    texts = [summary.get("text") if isinstance(summary, dict) else None for summary in summaries]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: `summaries` is {shown(summaries)}; expected objects with `text`")
    chosen, rejected = (f" {str(texts[number]).strip()}" for number in (choice, 1 - choice))
    check_pair(chosen, rejected, where)
    prompt = _prompt(row, where)
    return Ranking.from_dict(
        _origin(row)
        | {"prompt": prompt, "completions": [chosen, rejected], "ranks": [0, 1], "labeler": row.get("worker")},
        where,
    )


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    info = row.get("info")
    post = info if isinstance(info, dict) else row
    return {"id": post.get("id")}


def _fields(row: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in row)
