"""What an edit may not do: change what is asked, or (where asked) break the grammar.

That exactly one word differs is no constraint here: no other variant can be made (`schema.Variant`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmirage.attacks.edits import Edit
from unmirage.attacks.grammar import grammatical
from unmirage.audit.lexicon import FUNCTION, INSTRUCTION, POLITE
from unmirage.audit.model.edits import bare

Constraint = Callable[[str, Edit], bool]
"""Whether an edit of a question is allowed."""
_DENIALS = "not no never none nothing nobody neither nor without except unless cannot"
_TURNS = frozenset(_DENIALS.split())
"""Function words that turn a question's sense around: neither put in, exchanged nor taken out."""


def intent_kept(question: str, edit: Edit) -> bool:
    """Whether the words that say what is asked about stay, and none is turned around by a "not".

    Function words, words of politeness and the one word of instruction at the head ("share", "describe") may go; every
    other word is content. A word of instruction behind "to" or behind another one is content too: "how to *make*".
    """
    if turns(edit.word):
        return False
    if edit.kind == "insert":
        return True
    words = question.split()
    return not turns(words[edit.position]) and edit.position not in content_positions(words)


def content_positions(words: Sequence[str]) -> set[int]:
    """The positions of a question's content words."""
    found, head, instructed = set(), True, False
    for at, word in enumerate(map(bare, words)):
        if word in FUNCTION or word in POLITE or not word:
            continue
        instructs = head and not instructed and word in INSTRUCTION and (at == 0 or bare(words[at - 1]) != "to")
        instructed = instructed or instructs
        if not instructs:
            found.add(at)
            head = False
    return found


def turns(word: str) -> bool:
    """Whether a word denies something."""
    return bare(word) in _TURNS or bare(word).endswith(("n't", "n\u2019t"))


def constraints(*, intent: bool, grammar: bool) -> list[Constraint]:
    """The constraints that are switched on."""
    switched: list[tuple[bool, Constraint]] = [(intent, intent_kept), (grammar, grammatical)]
    return [rule for on, rule in switched if on]


def allowed(question: str, edits: Sequence[Edit], rules: Sequence[Constraint]) -> list[Edit]:
    """The edits that break no rule, in order."""
    return [edit for edit in edits if all(rule(question, edit) for rule in rules)]
