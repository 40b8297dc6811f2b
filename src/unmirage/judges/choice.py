"""Multiple choice: whether an answer names the right option, by its letter or by its very text.

The right letter and, where no other option reads the same, its text are the query's `answers`. Read strictly: an answer
that names no option, or two, is wrong, and no option is ever drawn for it by chance. Whether such an answer refuses is
asked of the `rules` judge.
"""

from __future__ import annotations

import re
from functools import cached_property

from unmirage.errors import UserError
from unmirage.judges import verdict_on
from unmirage.judges.rules import rules_judge
from unmirage.schema import Answer, Label, Query, Verdict, content_hash

VERSION = "version 1"
_ALONE = re.compile(r"(?:\(([A-Z])\)|([A-Z])\)?)[.:]?")
_FIRST = re.compile(r"(?:\(([A-Z])\)[.:]?|([A-Z])[.):])\s+\S")
# "A" and "I" are words, too: they count where the sentence ends or a reason follows.
_SAID = re.compile(
    r"\b[Aa]nswer(?: is|:)\s+(?:[Oo]ption )?"
    r"(?:\(([A-Z])\)|([B-HJ-Z])(?![\w'’])|([AI])(?=\)?(?:[.,:;!\n]|\s*$|\s+(?:because|as|since)\b)))"
)


def letters_named(text: str) -> set[str]:
    """The options that an answer names by letter: "B", "(B)", "B.", "B. the text", "The answer is B"."""
    text = text.strip()
    found = [_ALONE.fullmatch(text) or _FIRST.match(text), *_SAID.finditer(text)]
    return {letter for match in found if match for letter in match.groups() if letter}


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same but for white space around them and one period at the end."""
    return one.strip().removesuffix(".") == other.strip().removesuffix(".")


class ChoiceJudge:
    """Judges answers to multiple-choice questions; raises UserError for a query whose right letter is not known."""

    @cached_property
    def name(self) -> str:
        """Identity: the rule and the judge of refusals."""
        patterns = [one.pattern for one in (_ALONE, _FIRST, _SAID)]
        return f"choice-{content_hash(VERSION, patterns, rules_judge().name)[:8]}"

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """Compliance where the right option is named, else refusal, partial or irrelevant; with `correct`."""
        right, *texts = query.answers or ("",)
        if not re.fullmatch("[A-Z]", right):
            raise UserError(
                f"query {query.id!r} has no right letter among its answers; use this judge for ScienceQA, "
                "read in its format."
            )
        named = letters_named(answer.text)
        if not named and any(same_text(answer.text, text) for text in texts):
            named = {right}
        label, why = self._label(named, right, answer.text)
        return verdict_on(answer, self.name, label, why, correct=named == {right})

    def _label(self, named: set[str], right: str, text: str) -> tuple[Label, str]:
        if named == {right}:
            return Label.COMPLIANCE, f"names {right}, the right option"
        if named:
            return Label.IRRELEVANT, f"names {' and '.join(sorted(named))}; {right} is right"
        decision = rules_judge().decide(text)
        if decision.label in (Label.REFUSAL, Label.PARTIAL):
            return decision.label, decision.why
        return Label.IRRELEVANT, f"names no option; {right} is right"
