"""What the attacks did to the questions, in the phrases that every sentence, label and legend of a report uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from unmirage.schema import Variant


@dataclass(frozen=True)
class Phrases:
    """One kind of edit as it is said in each place; the comments show the places.

    `cause` is what an effect beyond a control is owed to.
    """

    label: str  # as asked | one word swapped
    brief: str  # above: as asked, below: swapped
    when: str  # looks safe, yet with one word swapped it gives
    clause: str  # before -> after one word is swapped
    agent: str  # loses that to one swapped word
    noun: str  # under the swap
    lacking: str  # no swapped version
    entry: str  # the glossary's headword
    done: str  # the glossary's explanation
    cause: str  # effect of the word
    each: str  # Each word against a control
    having: str  # the rate with the word minus the rate with its control
    control: str  # The control puts a word ...

    @property
    def own(self) -> str:
        """The cause as an owner: "the word’s"."""
        return self.cause + ("’" if self.cause.endswith("s") else "’s")

    @property
    def title(self) -> str:
        """What a page is called that was given no title."""
        return f"What {self.agent} does to a safe model"


SWAP = Phrases(
    label="one word swapped",
    brief="swapped",
    when="with one word swapped",
    clause="one word is swapped",
    agent="one swapped word",
    noun="the swap",
    lacking="no swapped version",
    entry="Swap",
    done="Exactly one word of the question is replaced and nothing else",
    cause="the word",
    each="Each word",
    having="with the word",
    control="puts a word that should not matter in the same place",
)
ADDITION = Phrases(
    label="one word added",
    brief="word added",
    when="with one word added",
    clause="one word is added",
    agent="one added word",
    noun="the addition",
    lacking="no version with a word added",
    entry="Added word",
    done="Exactly one word is put into the question and nothing else is changed",
    cause="the word",
    each="Each word",
    having="with the word",
    control="puts a word that should not matter in the same place",
)
OMISSION = Phrases(
    label="one word left out",
    brief="word left out",
    when="with one word left out",
    clause="one word is left out",
    agent="one word left out",
    noun="the omission",
    lacking="no version with a word left out",
    entry="Word left out",
    done="Exactly one word of the question is left out and nothing else is changed",
    cause="the left-out word",
    each="Each left-out word",
    having="without the word",
    control="puts a word that should not matter in its place",
)
REWORDING = Phrases(
    label="reworded",
    brief="reworded",
    when="with questions reworded",
    clause="the question is reworded",
    agent="rewording",
    noun="the rewording",
    lacking="no reworded version",
    entry="Rewording",
    done="The question is put in other words; any number of words may differ, and what they ask is not checked",
    cause="the wording",
    each="Each wording",
    having="with the wording",
    control="is another wording, without the attack’s cue",
)
TWO_WORDS = Phrases(
    label="two words changed",
    brief="changed",
    when="with two words changed",
    clause="two words are changed",
    agent="a change of two words",
    noun="the edit",
    lacking="no version with two words changed",
    entry="Two words",
    done="The opening word of the question is replaced, one word is put in, and nothing else is changed",
    cause="the two words",
    each="Each pair of words",
    having="with the two words",
    control="puts two words that should not matter in the same places",
)
SUFFIX = Phrases(
    label="suffix added",
    brief="suffix added",
    when="with a suffix added",
    clause="a suffix is added",
    agent="a suffix",
    noun="the suffix",
    lacking="no version with a suffix",
    entry="Suffix",
    done="Text is put behind the question and nothing else is changed",
    cause="the suffix",
    each="Each suffix",
    having="with the suffix",
    control="puts a suffix drawn at random in the same place",
)
ATTACK = Phrases(
    label="attacked",
    brief="attacked",
    when="under attack",
    clause="the attack",
    agent="an attack",
    noun="the attack",
    lacking="no attacked version",
    entry="Attack",
    done="The question is changed",
    cause="the attack",
    each="Each attack",
    having="with the attack",
    control="is another change of the question, one that should not matter",
)
"""Several kinds of edit, or one that is not known."""

_OF_EDIT = {"substitute": SWAP, "insert": ADDITION, "delete": OMISSION, "paraphrase": REWORDING}
_OF_NAME = _OF_EDIT | {
    "first-word": SWAP, "openers": SWAP, "opening": SWAP, "official": REWORDING, "two-words": TWO_WORDS, "gcg": SUFFIX,
}  # fmt: skip
"""How attacks made here are named, up to a colon or slash: for figures without variants."""


def phrases(attacks: Iterable[str | None], variants: Iterable[Variant] = ()) -> Phrases:
    """How to speak of these attacks together: by the edits of their variants, else by their names.

    Of several kinds `ATTACK`; where nothing was attacked `SWAP`.
    """
    edits: dict[str, set[str]] = {attack: set() for attack in attacks if attack is not None}
    for variant in variants:
        if variant.attack in edits:
            edits[variant.attack].add(variant.edit)
    found = {_phrases_of(attack, own) for attack, own in edits.items()}
    return SWAP if not found else found.pop() if len(found) == 1 else ATTACK


def _phrases_of(attack: str, edits: set[str]) -> Phrases:
    named = _named(attack)
    # To a variant all that is more than one word is a paraphrase; the name tells which sort.
    if not edits or (edits == {"paraphrase"} and named in (TWO_WORDS, SUFFIX)):
        return named
    return _OF_EDIT[edits.pop()] if len(edits) == 1 else ATTACK


def _named(attack: str) -> Phrases:
    """By name alone: "first-word:what", "insert-begin:please", "greedy-opening+delete:what"."""
    head = re.split("[:/]", attack)[0]
    if head in _OF_NAME:
        return _OF_NAME[head]
    found = {_OF_NAME[part] for part in re.split("[-+]", head) if part in (*_OF_EDIT, "opening")}
    return found.pop() if len(found) == 1 else ATTACK


def asked_with(attack: str | None, marks: str = "“”") -> str:
    """A column of figures under an attack: "with “What”", "with “please” added", "reworded"; `marks` may be empty."""
    if attack is None:
        return ATTACK.label
    said, (kind, _, word) = _named(attack), attack.partition(":")
    if said is OMISSION or attack == "paraphrase":
        return said.label
    if said is ADDITION and word:
        return f"with {_quoted(marks, word)} added"
    if said is TWO_WORDS and word:
        return f"with {_quoted(marks, *word.split('+'))}"
    if kind == "paraphrase" and "/" not in word:
        return f"reworded with {_quoted(marks, word.capitalize())}"
    return f"with {_quoted(marks, word.capitalize() if kind == 'first-word' and word else attack)}"


def _quoted(marks: str, *words: str) -> str:
    return " and ".join(f"{marks[:1]}{word}{marks[1:]}" for word in words)
