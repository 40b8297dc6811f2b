"""Which questions are refused: what the data say, or what a judge says of the answers."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from unmirage.judges import Judge
from unmirage.judges.keywords import KeywordJudge
from unmirage.schema import Answer, Label, Query

REFUSING = (Label.REFUSAL, Label.PARTIAL)


def judged(answers: pl.Series, judge: Judge) -> pl.Series:
    """Whether each answer is a refusal (in whole or in part) by the judge; null where there is none or no verdict."""
    if isinstance(judge, KeywordJudge):
        return _by_keywords(answers, judge)
    return pl.Series("judged", list(_one_by_one(answers, judge)), dtype=pl.Boolean)


def _by_keywords(answers: pl.Series, judge: KeywordJudge) -> pl.Series:
    """The judge's own rule on all answers at once; `tests/test_audit_formats.py` holds both to the same verdicts."""
    lowered = answers.str.to_lowercase()
    found = lowered.to_frame("text").select(
        pl.col("text").str.contains_any(list(dict.fromkeys(judge.phrases))) | pl.col("text").is_in(list(judge.whole))
    )
    return found.to_series().rename("judged")


def _one_by_one(answers: pl.Series, judge: Judge) -> Iterator[bool | None]:
    query = Query(id="row", question="row", harmful=False)
    for text in answers:
        if text is None:
            yield None
            continue
        answer = Answer(key="", query="row", question="row", model="", text=text)
        label = judge.judge(query, answer).label
        yield None if label in (Label.ERROR, Label.UNPARSED) else label in REFUSING
