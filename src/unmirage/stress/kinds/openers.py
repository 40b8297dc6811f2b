"""The worst case over opening words: each word of a list in the place of the first one, all of them asked.

`asr` is then the mean over words, `asr_any` the share of questions that any word breaks; the control asks as many
neutral words of each question, as more tries alone find more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unmirage.attacks.constraints import allowed, constraints
from unmirage.attacks.controls import control_edits, control_name
from unmirage.attacks.edits import Change, edits_of
from unmirage.attacks.goals import Goal
from unmirage.attacks.words import checked_words, merged, words_of_file
from unmirage.audit.model.lexicon import OPENERS
from unmirage.errors import UserError
from unmirage.schema import Query, Variant
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress

NAME = "openers"


class Openers(StressConfig):
    """words: what is put in the place of the opening word; with `lexicon`, a file with one word a line, those too;
    without either the shipped openers. goal: bypass (harmful questions), over-refusal (harmless ones), flip (all).
    control: neutral words beside. intent: leave out words that deny.
    """

    words: tuple[str, ...] = ()
    lexicon: Path | None = None
    goal: Goal = Goal.bypass
    control: bool = True
    intent: bool = False


@stress(NAME, about="every opening word of a list: the worst case of the one-word attack", config=Openers)
def openers(plan: Plan, config: Openers, work: Work) -> Plan:
    """The plan with all opening words as variants."""
    words = merged(checked_words(config.words), words_of_file(config.lexicon) if config.lexicon else ()) or [*OPENERS]
    mine = [query for query in plan.queries if config.goal.concerns(query)]
    if not mine:
        raise UserError(f"there is no question that the goal {config.goal} is about; give other data or another goal.")
    variants = [variant for query in mine for variant in _of(query, words, config, plan.seed)]
    if not variants:
        raise UserError(f"no question can be opened with another of the words {', '.join(words)}; give other words.")
    return replace(plan, variants=variants)


def _of(query: Query, words: Sequence[str], config: Openers, seed: int) -> list[Variant]:
    edits = edits_of(query.question, [Change.opening], words)
    edits = allowed(query.question, edits, constraints(intent=config.intent, grammar=False))
    found = [edit.variant(query, NAME, shot=shot) for shot, edit in enumerate(edits)]
    if config.control:
        neutral = control_edits(query, edits, seed, words)
        name = control_name(NAME)
        found += [edit.variant(query, name, shot=shot, control_of=NAME) for shot, edit in enumerate(neutral)]
    return found
