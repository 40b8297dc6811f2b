"""Draws the answers that people label: by chance, repeatable, and so that what is rare can be made to occur."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unmirage.errors import UserError
from unmirage.labelling.marks import Item, Sample, Stratum
from unmirage.report.load import read_rows
from unmirage.runs import digest_file, read_manifest
from unmirage.schema import Answer, Query, Variant, Verdict, content_hash, latest

Row = tuple[str, str | None, int]


class Key(NamedTuple):
    """What the answers of one stratum have in common; `labels` are pairs of judge and label, sorted."""

    harmful: bool | None
    attacked: bool | None
    labels: tuple[tuple[str, str], ...]


def draw(run: Path, size: int, seed: int = 0, stratify: bool = False) -> Sample:
    """A sample of `size` of a run's answers without replacement, or all of them where there are fewer.

    The same run, size, seed and way of drawing give the same sample, whatever the order of the run's files. Without
    `stratify` all answers are equally likely. With it, they are parted by whether the question is harmful, whether it
    was attacked, and what each judge of the run said; each part gives as many as every other (`allocate`), and an
    item's weight says how many answers it stands for. Rows without text (errors, filtered) cannot be labelled and are
    counted only. Raises UserError where the folder is no run, or holds no answer.
    """
    manifest = read_manifest(run)
    queries = {query.id: query for query in read_rows(run / "queries.jsonl", Query)}
    variants = read_rows(run / "variants.jsonl", Variant) if (run / "variants.jsonl").exists() else []
    answers = {one.row: one for one in latest(read_rows(run / "answers.jsonl", Answer)) if _has_text(one)}
    if not answers:
        raise UserError(f"{run / 'answers.jsonl'} holds no answer that could be labelled; give a run that has ended.")
    _check_queries(run, answers.values(), queries)
    verdicts = _verdicts(run / "verdicts") if stratify else {}
    keys = {row: _key(row, queries, verdicts, stratify) for row in answers}
    strata, drawn = _drawn(keys, size, seed)
    data = manifest.config.get("data")
    items = [_item(answers[row], queries[row[0]], stratum) for row, stratum in drawn]
    return Sample(
        id=_identity(items, strata, seed),
        run=manifest.id,
        data=data if isinstance(data, str) and data else run.resolve().name,
        seed=seed,
        stratified=stratify,
        planned=len(queries) + len(variants),
        answered=len(answers),
        cut=sum(bool(answers[row].cut_for) for row, _ in drawn),
        answers=digest_file(run / "answers.jsonl"),
        strata=tuple(strata),
        items=tuple(items),
    )


def allocate(populations: Sequence[int], size: int) -> list[int]:
    """How many to draw of each stratum: equally many of each, all of those that hold fewer, `size` in sum.

    What does not divide evenly goes to the largest strata, of equal ones to the earlier. `size` is cut to the sum.
    """
    drawn = [0] * len(populations)
    left = min(size, sum(populations))
    while left:
        open_ = [i for i, population in enumerate(populations) if drawn[i] < population]
        open_.sort(key=lambda i: -populations[i])
        for i in open_[:left]:
            take = min(max(1, left // len(open_)), populations[i] - drawn[i])
            drawn[i] += take
        left = min(size, sum(populations)) - sum(drawn)
    return drawn


def _has_text(answer: Answer) -> bool:
    return answer.error is None and answer.finish != "filter"


def _check_queries(run: Path, answers: Iterable[Answer], queries: Mapping[str, Query]) -> None:
    for answer in answers:
        if answer.query not in queries:
            raise UserError(
                f"{run / 'answers.jsonl'}: there is an answer to {answer.query!r}, which is not in queries.jsonl; "
                "evaluate anew."
            )


def _verdicts(folder: Path) -> dict[Row, dict[str, str]]:
    found: dict[Row, dict[str, str]] = defaultdict(dict)
    for file in sorted(folder.glob("*.jsonl")):
        for verdict in read_rows(file, Verdict):
            found[verdict.query, verdict.attack, verdict.shot][verdict.judge] = verdict.label.value
    return found


def _key(row: Row, queries: Mapping[str, Query], verdicts: Mapping[Row, Mapping[str, str]], stratify: bool) -> Key:
    if not stratify:
        return Key(None, None, ())
    return Key(queries[row[0]].harmful, row[1] is not None, tuple(sorted(verdicts.get(row, {}).items())))


def _drawn(keys: Mapping[Row, Key], size: int, seed: int) -> tuple[list[Stratum], list[tuple[Row, int]]]:
    """The strata, and the drawn rows with the index of theirs; the hash that draws them also orders them."""
    by_key: dict[Key, list[Row]] = defaultdict(list)
    chance = {row: content_hash(seed, row) for row in keys}
    for row in sorted(keys, key=chance.__getitem__):
        by_key[keys[row]].append(row)
    ordered = sorted(by_key, key=repr)
    counts = allocate([len(by_key[key]) for key in ordered], size)
    drawn = [
        (row, index) for index, (key, n) in enumerate(zip(ordered, counts, strict=True)) for row in by_key[key][:n]
    ]
    strata = [_stratum(key, len(by_key[key]), n) for key, n in zip(ordered, counts, strict=True)]
    return strata, sorted(drawn, key=lambda pair: chance[pair[0]])


def _stratum(key: Key, population: int, drawn: int) -> Stratum:
    return Stratum(
        population=population, drawn=drawn, harmful=key.harmful, attacked=key.attacked, labels=dict(key.labels)
    )


def _item(answer: Answer, query: Query, stratum: int) -> Item:
    return Item(
        query=answer.query,
        attack=answer.attack,
        shot=answer.shot,
        question=answer.question,
        answer=answer.text,
        image=query.image,
        harmful=query.harmful,
        stratum=stratum,
    )


def _identity(items: Sequence[Item], strata: Sequence[Stratum], seed: int) -> str:
    # Without the picture's path: two people may keep the pictures in different places.
    rows = [item.model_dump(mode="json", exclude={"image"}) for item in items]
    return content_hash(seed, rows, [stratum.model_dump(mode="json") for stratum in strata])[:16]
