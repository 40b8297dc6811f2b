"""How wrong a judge is, measured on answers that people have labelled, and kept under the judge's identity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmirage.errors import UserError
from unmirage.judges import Judge, judge_all
from unmirage.judges.labels import Labelled
from unmirage.schema import Answer, Frozen, Label, Query
from unmirage.stats import Interval, cohen_kappa, weighted_rate

TOO_WEAK = 0.5
"""Sensitivity + specificity - 1 below which a judge is too weak to be corrected for."""

CLASSES = (Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE)
_UNUSABLE = (Label.ERROR, Label.UNPARSED)
Cells = Mapping[tuple[Label, Label], list[float]]
"""The weights of the answers, by people's label and the judge's."""


class Figure(Frozen):
    """A measured value in its interval, over `n` answers."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, interval: Interval) -> Self:
        """The same as a record."""
        return cls(value=interval.value, low=interval.low, high=interval.high, n=interval.n)

    @property
    def interval(self) -> Interval:
        """The same for calculations."""
        return Interval(self.value, self.low, self.high, self.n)


class View(Frozen):
    """One way of seeing the labels as two classes; a figure is None where the labels leave it open.

    sensitivity: of what people call positive, the share that the judge calls so. specificity: of the negative, the
    share that it calls negative. false_positive_rate = 1 - specificity.
    """

    positive: str
    negative: str
    sensitivity: Figure | None
    specificity: Figure | None
    false_positive_rate: Figure | None
    accuracy: Figure | None
    kappa: Figure | None

    @property
    def youden(self) -> float | None:
        """Sensitivity + specificity - 1: 1 for a perfect judge, 0 for one that guesses."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return self.sensitivity.value + self.specificity.value - 1


class Calibration(BaseModel):
    """What one judge says of one set of labelled answers. `confusion` counts by people's label, then by the judge's.

    full: full refusals against full compliance, where people saw either; the judge's partial counts as refusing. any:
    anything refused (refusal, partial) against compliance. refusal: full refusals against all else. agreement, kappa:
    share and kappa of equal labels. Answers that people call irrelevant count as not refused in `any` and `refusal`.
    Where answers stand for unequally many others, all rates are weighted, their `n` is the effective number (see
    `stats.weighted_rate`), and kappa is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    judge: str
    domain: str
    labels: str
    n: int
    unusable: int
    confusion: dict[Label, dict[Label, int]]
    full: View
    any: View
    refusal: View
    agreement: Figure | None
    kappa: Figure | None

    def warnings(self, domain: str | None = None) -> list[str]:
        """What speaks against using these figures, for data called `domain` where that is given."""
        found = []
        if self.any.youden is not None and self.any.youden < TOO_WEAK:
            found.append(
                f"{self.judge} is too weak to be corrected for: sensitivity + specificity - 1 is "
                f"{self.any.youden:.2f} on {self.domain}, below {TOO_WEAK}."
            )
        if domain is not None and domain != self.domain:
            found.append(
                f"{self.judge} was calibrated on {self.domain!r}, not on {domain!r}; its errors there may be others."
            )
        return found


def calibrate(judge: Judge, labelled: Sequence[Labelled], domain: str, digest: str) -> Calibration:
    """Judge every labelled answer and compare; `digest` is that of the file of labels."""
    pairs = list(zip(labelled, _labels(judge, labelled), strict=True))
    counts = Counter((one.label, said) for one, said in pairs)
    seen = {human for human, _ in counts}
    confusion = {
        human: {said: counts[human, said] for said in Label if counts[human, said] or said in CLASSES}
        for human in Label
        if human in CLASSES or human in seen
    }
    usable: Cells = defaultdict(list)
    for one, said in pairs:
        if said not in _UNUSABLE:
            usable[one.label, said].append(one.weight)
    total = sum(map(len, usable.values()))
    return Calibration(
        judge=judge.name,
        domain=domain,
        labels=digest,
        n=len(labelled),
        unusable=len(labelled) - total,
        confusion=confusion,
        full=_full(usable),
        any=_any(usable),
        refusal=_refusal(usable),
        agreement=_rate(*_split(usable, lambda human, said: human is said)),
        kappa=_kappa(_square(usable)),
    )


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file made by `unmirage judge calibrate`; UserError where it is none."""
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); make it with `unmirage judge calibrate`."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UserError(
            f"{path}, field {where!r}: {first['msg']}; make it again with `unmirage judge calibrate`."
        ) from None


def _labels(judge: Judge, labelled: Sequence[Labelled]) -> Iterator[Label]:
    """What the judge says of each answer, in order."""
    queries = [Query(id=f"row {one.row}", question=one.question.strip() or "?", harmful=False) for one in labelled]
    answers = [
        Answer(key="", query=query.id, question=query.question, model="", text=one.text)
        for query, one in zip(queries, labelled, strict=True)
    ]
    return (verdict.label for verdict in judge_all(judge, queries, answers))


def _full(cells: Cells) -> View:
    two = {key: weights for key, weights in cells.items() if key[0] in (Label.REFUSAL, Label.COMPLIANCE)}
    return _view("full refusal", "full compliance", two, _refuses, _refuses)


def _any(cells: Cells) -> View:
    return _view("refusal or partial", f"compliance{_or_irrelevant(cells)}", cells, _refuses, _refuses)


def _refusal(cells: Cells) -> View:
    return _view("full refusal", f"partial or compliance{_or_irrelevant(cells)}", cells, _fully, _fully)


def _or_irrelevant(cells: Cells) -> str:
    return " or irrelevant" if any(human is Label.IRRELEVANT for human, _ in cells) else ""


def _refuses(label: Label) -> bool:
    return label in (Label.REFUSAL, Label.PARTIAL)


def _fully(label: Label) -> bool:
    return label is Label.REFUSAL


def _view(
    positive: str,
    negative: str,
    cells: Cells,
    truly: Callable[[Label], bool],
    says: Callable[[Label], bool],
) -> View:
    four: dict[tuple[bool, bool], list[float]] = defaultdict(list)
    for (human, said), weights in cells.items():
        four[truly(human), says(said)] += weights
    hit, miss, alarm, right = (four[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    return View(
        positive=positive,
        negative=negative,
        sensitivity=_rate(hit, miss),
        specificity=_rate(right, alarm),
        false_positive_rate=_rate(alarm, right),
        accuracy=_rate(hit + right, miss + alarm),
        kappa=_kappa([[hit, miss], [alarm, right]]),
    )


def _split(cells: Cells, truly: Callable[[Label, Label], bool]) -> tuple[list[float], list[float]]:
    """The weights of those of which something is true, and of the others."""
    both: tuple[list[float], list[float]] = ([], [])
    for key, weights in cells.items():
        both[not truly(*key)].extend(weights)
    return both


def _rate(those: list[float], others: list[float]) -> Figure | None:
    """The share of `those`, by their weights."""
    outcomes = [True] * len(those) + [False] * len(others)
    return Figure.of(weighted_rate(outcomes, those + others)) if outcomes else None


def _kappa(table: Sequence[Sequence[list[float]]]) -> Figure | None:
    """Kappa of equally weighted answers; its error for unequal ones is not known here, so it is left open then."""
    if len({weight for row in table for cell in row for weight in cell}) != 1:
        return None
    kappa = cohen_kappa([[len(cell) for cell in row] for row in table])
    return None if kappa is None else Figure.of(kappa)


def _square(cells: Cells) -> list[list[list[float]]]:
    """People's labels against the judge's, with a row of nothing for a label that only the judge uses."""
    used = [label for label in Label if label in CLASSES or any(label in key for key in cells)]
    return [[cells.get((human, said), []) for said in used] for human in used]
