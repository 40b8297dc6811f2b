"""Which words are put into questions: shipped, from a file, from an audit of data; and neutral ones as controls."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from unmirage.attacks.goals import Goal
from unmirage.audit.model.edits import bare
from unmirage.audit.model.lexicon import NEUTRAL, OPENERS, POLITENESS
from unmirage.errors import UserError

SHIPPED = OPENERS + POLITENESS
_MORE_NEUTRAL = (
    "Later Soon Meanwhile Likewise Besides Tonight Tomorrow Yesterday Elsewhere Nearby Outside Upstairs Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday January March April June July August September October November "
    "December Spring Summer Autumn Winter Morning Evening Noon Table Chair Window Garden River Mountain Meadow Forest "
    "Lamp Paper Pencil Basket Blanket Cushion Ladder Bucket Kettle Spoon Plate Bottle Button Ribbon Curtain Carpet "
    "Violin Piano Melody Painting Bicycle Wagon Harbour Bridge Lantern Pebble Feather Sparrow Squirrel Rabbit Otter "
    "Turtle Maple Willow Clover Daisy Cotton Copper Silver Marble Velvet Yellow Purple Seven Eleven Twenty Quiet Round "
    "Plain Gentle Early Cloudy"
)
NEUTRALS = (*NEUTRAL, *_MORE_NEUTRAL.split())
"""Words that neither ask nor command nor say anything about harm: times, things of every day, colours, numbers."""
LEAST_ROWS = 10
"""Words of data that fewer rows hold say too little."""


def checked_words(words: Sequence[str]) -> list[str]:
    """The same words; raises UserError for one that is empty, repeated or more than one word."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise UserError(f"{word!r} holds half of a character; type the word anew.")
        if word.split() != [word] or not bare(word):
            raise UserError(f"{word!r} is not one word; a one-word attack puts exactly one word in its place.")
    if len({word.lower() for word in words}) < len(words):
        raise UserError(f"the attack words {', '.join(words)} repeat one another; give each once.")
    return list(words)


def merged(*lists: Iterable[str]) -> list[str]:
    """All words in order, each once (case and marks do not count)."""
    found: dict[str, str] = {}
    for word in (one for several in lists for one in several):
        found.setdefault(bare(word), word)
    return list(found.values())


def words_of_file(path: Path) -> list[str]:
    """The words of a text file, one a line; empty lines and what follows `#` do not count."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of words ({error}); write one word a line.") from error
    words = []
    for number, line in enumerate(lines, start=1):
        word = line.split("#")[0].strip()
        if len(word.split()) > 1:
            raise UserError(
                f"{path}, line {number} (counting from 1): {word!r} is not one word; write one word a line."
            )
        words += [word] if word else []
    if not words:
        raise UserError(f"{path} holds no word; write one word a line.")
    return merged(words)


def words_of_audit(path: Path, goal: Goal, most: int = 20) -> list[str]:
    """The cues of an `audit.json` that serve a goal, those furthest from chance first, at most `most`.

    Opening words only: compliance cues for `bypass`, refusal cues for `over-refusal`, both for `flip`.
    Raises UserError where the file is no audit or has no such cue.
    """
    from unmirage.audit.model.sidebyside import read_words

    found = [one for one in read_words(path).values() if one.position == "opening" and one.n >= LEAST_ROWS]
    sign = {Goal.bypass: -1, Goal.over_refusal: 1, Goal.flip: 0}[goal]
    fitting = [one for one in found if one.word.isalpha() and (one.difference * sign > 0 or not sign)]
    if not fitting:
        raise UserError(f"{path} has no opening word that serves the goal {goal}; give --words or --lexicon.")
    ordered = sorted(fitting, key=lambda one: (-abs(one.z or 0.0), one.word))
    return [one.word.capitalize() for one in ordered[:most]]


def neutral_words(seed: int, query: str, without: Iterable[str]) -> list[str]:
    """All neutral words but those in `without`, in an order drawn by the seed for each question."""
    taken = {bare(word) for word in (*SHIPPED, *without)}
    left = [word for word in NEUTRALS if bare(word) not in taken]
    random.Random(f"{seed}/neutral/{query}").shuffle(left)
    return left
