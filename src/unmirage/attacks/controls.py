"""Controls: a neutral word at the same place, so that what any change does is not taken for what the word does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from unmirage.attacks.edits import Edit, Kind
from unmirage.attacks.words import neutral_words
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.schema import Query

SUFFIX = "/neutral"


def control_name(attack: str) -> str:
    """The name of an attack's control: "first-word:what/neutral"."""
    return attack + SUFFIX


def control_edits(query: Query, edits: Sequence[Edit], seed: int, without: Sequence[str] = ()) -> list[Edit]:
    """One neutral edit for each edit, at the same place and of the same kind; as many, and all different.

    In the place of a word that is taken out stands a neutral word. Words come from the neutral list without `without`
    (the cues), in an order that the seed draws for each question. Raises UserError where there are more edits at one
    place than neutral words.
    """
    words = neutral_words(seed, query.id, [*without, *(edit.word for edit in edits)])
    own = query.question.split()
    used: dict[tuple[Kind, int], int] = defaultdict(int)
    found = []
    for edit in edits:
        kind: Kind = "insert" if edit.kind == "insert" else "substitute"
        place = (kind, edit.position)
        beside = own[max(0, edit.position - 1) : edit.position + 1] if kind == "insert" else [own[edit.position]]
        fitting = [word for word in words if bare(word) not in {bare(one) for one in beside}]
        if used[place] >= len(fitting):
            raise _too_few(used[place] + 1, len(fitting))
        found.append(Edit(kind, edit.position, fitting[used[place]]))
        used[place] += 1
    return found


def check_enough_neutral(words: Sequence[str], *, taken_out: bool) -> None:
    """Raises UserError where some question could need more neutral words at one place than there are.

    As many as `words`, one more where words are also taken out; and a question may hold two of them beside the place.
    """
    needed, left = len(words) + taken_out, len(neutral_words(0, "", words)) - 2
    if needed > left:
        raise _too_few(needed, left)


def _too_few(needed: int, there: int) -> UserError:
    return UserError(
        f"{needed} words at one place need as many neutral words, and there are {there}; "
        "give fewer words, or leave the controls out with --no-control."
    )
