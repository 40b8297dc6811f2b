"""Single refusals taken apart: which words and which part of the picture they hang on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.audit.model.edits import Edit
from unmirage.audit.model.occlusion import Occlusion, image_occlusions, word_occlusions
from unmirage.audit.model.results import Attribution, ImageShare, WordShare
from unmirage.backends.prompts import Prompt
from unmirage.errors import UserError
from unmirage.schema import Query, content_hash

if TYPE_CHECKING:
    from unmirage.audit.model.gradients import WordGradients

GRID = 4


@dataclass(frozen=True, slots=True)
class Case:
    """A refused question: the query, and the edit under which it was refused (None: as it was asked)."""

    query: Query
    edit: Edit | None

    @property
    def prompt(self) -> Prompt:
        """What was refused."""
        return self.edit.prompt(self.query) if self.edit else Prompt.of(self.query)


@dataclass(frozen=True)
class Means:
    """How to look into a model: `refused` asks again (None: no verdict); `score` and `gradients` where it is here."""

    refused: Callable[[Query, Sequence[Prompt]], list[float | None]]
    text: Callable[[Prompt], str]
    score: Callable[[Sequence[Prompt]], list[float]] | None
    gradients: Callable[[Prompt], WordGradients] | None


def choose(refused: Sequence[Case], count: int) -> list[Case]:
    """`count` refusals, harmful and harmless by turns, in the order of a hash: nobody looked at the answers."""
    ordered = sorted(refused, key=lambda case: content_hash(case.query.id, case.edit.name if case.edit else ""))
    sorts = [[case for case in ordered if case.query.harmful == harmful] for harmful in (True, False)]
    turns = [case for pair in zip(*(_padded(sort, len(ordered)) for sort in sorts), strict=True) for case in pair]
    return [case for case in turns if case is not None][:count]


def _padded(cases: list[Case], length: int) -> list[Case | None]:
    return [*cases, *[None] * (length - len(cases))]


def attribute(case: Case, means: Means, fillers: Sequence[str], folder: Path) -> Attribution:
    """Occludes every word and patch of one refusal, and integrates gradients where the model is here."""
    prompt = case.prompt
    hidden = [*word_occlusions(prompt, fillers), *image_occlusions(prompt, GRID, folder)]
    still = means.refused(case.query, [one.prompt for one in hidden])
    score, falls = None, [None] * len(hidden)
    if means.score:
        score, *others = means.score([prompt, *(one.prompt for one in hidden)])
        falls = [score - other for other in others]  # type: ignore[misc]
    seen = _Seen(hidden, falls, still)
    gradients, note = _gradients(prompt, means)
    words = prompt.question.split()
    return Attribution(
        query=case.query.id,
        harmful=case.query.harmful,
        question=prompt.question,
        word=case.edit.word if case.edit else None,
        position=case.edit.position if case.edit else None,
        answer=means.text(prompt),
        image=prompt.image.name if prompt.image else None,
        score=score,
        words=[seen.word(i, word, gradients.words[i] if gradients else None) for i, word in enumerate(words)],
        picture=seen.picture() if prompt.image else None,
        gradient_gap=gradients.gap if gradients else None,
        gradient_span=gradients.span if gradients else None,
        gradient_note=note,
    )


def _gradients(prompt: Prompt, means: Means) -> tuple[WordGradients | None, str]:
    """The gradients, or why there are none."""
    if means.gradients is None:
        return None, "this model gives no gradients: there is nothing but its text, or its score is not calibrated"
    try:
        found = means.gradients(prompt)
    except UserError as error:
        return None, str(error)
    if len(found.words) != len(prompt.question.split()):
        return None, "its tokens cannot be matched to its words"
    return found, ""


@dataclass(frozen=True)
class _Seen:
    """What was hidden, how far the score fell, and whether the answer was still a refusal."""

    hidden: Sequence[Occlusion]
    falls: Sequence[float | None]
    still: Sequence[float | None]

    def word(self, place: int, word: str, gradient: float | None) -> WordShare:
        """What the word at a place contributes, over its edits."""
        removed = [i for i, one in enumerate(self.hidden) if one.word == place and one.removed]
        replaced = [i for i, one in enumerate(self.hidden) if one.word == place and not one.removed]
        return WordShare(
            word=word,
            removed=_mean([self.falls[i] for i in removed]),
            removed_refused=_mean([self.still[i] for i in removed]),
            replaced=_mean([self.falls[i] for i in replaced]),
            replaced_refused=_mean([self.still[i] for i in replaced]),
            gradient=gradient,
        )

    def picture(self) -> ImageShare:
        """What the picture and each of its patches contribute."""
        grey = next(i for i, one in enumerate(self.hidden) if one.patch == -1)
        patches = [i for i, one in enumerate(self.hidden) if one.patch is not None and one.patch >= 0]
        return ImageShare(
            grid=GRID,
            grey=self.falls[grey],
            grey_refused=self.still[grey],
            patches=[fall for i in patches if (fall := self.falls[i]) is not None],
            patches_refused=[self.still[i] for i in patches],
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
