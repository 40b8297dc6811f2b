"""A small grammar of English questions: whether an edit leaves a question that its words could stand in.

It knows word classes, not sentences: what may follow an opening word, number agreement of "is/are", "does/do",
"was/were" and "this/these" with the next word, and "a" against "an". What it does not know it lets pass at the opening,
and turns away elsewhere. It is a sieve for the crudest breaks, not a parser; the model's own score of the question is
the other one (`search.fluency`).
"""

from __future__ import annotations

from unmirage.attacks.edits import Edit
from unmirage.audit.lexicon import BE, DO, FUNCTION, HAVE, INSTRUCTION, MODALS, POLITE, QUESTION_WORDS
from unmirage.audit.model.edits import bare


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SINGULAR = _set("this that a an each every either neither another it he she someone anyone everyone")
_PLURAL = _set("these those both several many few we they you")
_SUBJECTS = _set("i you he she it we they someone anyone everyone people")
_ONLY_SUBJECTS = _set("i you he she we they")
"""Before these a word of instruction does not stand, though "tell you" could be said."""
_OBJECTS = _set("me us him her it them you myself everything something anything")
_DETERMINERS = _set(
    "a an the this that these those such each every either neither some any no all both another my our your his her "
    "its their several many few much more most enough"
)
_PREPOSITIONS = _set(
    "about above across after against along among around as at before behind below beneath beside besides between by "
    "despite during except for from in inside into like near of off on onto out outside over past per since through "
    "throughout till to toward towards under until up upon via with within without"
)
_CONJUNCTIONS = _set("and or but nor so yet if because although though while whereas unless than whether")
_ADVERBS = _set("just also too very really quite rather even still already ever always often here there now")
_AUXILIARIES = MODALS | BE | DO | HAVE
_AGREES = {"is": True, "was": True, "does": True, "has": True, "are": False, "were": False, "do": False, "have": False}
_SOUNDS_VOWEL = ("hour", "honest", "honour", "honor", "heir")
_SOUNDS_CONSONANT = ("uni", "use", "usu", "uti", "one", "once", "eu", "ewe")
_CLASSES = (
    ("wh", QUESTION_WORDS),
    ("auxiliary", _AUXILIARIES),
    ("polite", POLITE),
    ("determiner", _DETERMINERS),
    ("pronoun", _SUBJECTS | _OBJECTS),
    ("preposition", _PREPOSITIONS),
    ("conjunction", _CONJUNCTIONS),
    ("adverb", _ADVERBS),
    ("function", FUNCTION),
    ("instruction", INSTRUCTION),
)
_NOUNS = frozenset({"determiner", "content", "instruction"})
_FOLLOWS = {
    "instruction": _NOUNS | {"wh", "pronoun", "preposition", "function"},
    "auxiliary": _NOUNS | {"pronoun", "function"},
    "polite": frozenset({"instruction", "auxiliary", "content"}),
    "what": frozenset({"auxiliary", "content", "instruction"}),
    "which": frozenset({"auxiliary", "content", "instruction", "preposition"}),
    "who": frozenset({"auxiliary", "content", "instruction"}),
    "whom": frozenset({"auxiliary"}),
    "whose": frozenset({"content", "instruction"}),
    "when": frozenset({"auxiliary"}),
    "where": frozenset({"auxiliary"}),
    "why": frozenset({"auxiliary"}),
    "how": frozenset({"auxiliary", "preposition", "content", "determiner", "function", "adverb"}),
}


def word_class(word: str) -> str:
    """The class of a word by itself: wh, auxiliary, polite, determiner, ..., instruction, or content."""
    return next((name for name, words in _CLASSES if bare(word) in words), "content")


def grammatical(question: str, edit: Edit) -> bool:
    """Whether the edited question passes the rules at the head of this file."""
    words = edit.apply(question).split()
    if not _articles_agree(words, edit.position):
        return False
    if edit.position == 0 and edit.kind != "insert":
        return _opens(words)
    if edit.kind == "insert":
        return _may_stand(words, edit.position)
    if edit.kind == "delete":
        return word_class(edit.word) in ("polite", "adverb")
    return word_class(edit.word) == word_class(question.split()[edit.position]) != "content"


def _opens(words: list[str]) -> bool:
    """Whether the first word may stand before the second."""
    if len(words) < 2:
        return True
    first, second = bare(words[0]), word_class(words[1])
    kind = word_class(first)
    allowed = _FOLLOWS.get(first if kind == "wh" else kind)
    if allowed is None:
        return kind in ("preposition", "determiner")
    if first == "how" and second == "content" and _is_singular(words[1:]) is False:
        return False  # "how big" may stand, "how colours" not
    if kind == "instruction" and first != "imagine" and bare(words[1]) in _ONLY_SUBJECTS:
        return False
    return second in allowed and _agrees(first, words[1:])


def _agrees(auxiliary: str, rest: list[str]) -> bool:
    """Whether the subject that follows fits an auxiliary's number; unknown numbers fit."""
    singular = _AGREES.get(auxiliary)
    number = _is_singular(rest)
    if bare(rest[0]) == "i":
        return auxiliary in ("am", "was", "do", "did", "have", "had") or auxiliary in MODALS
    return singular is None or number is None or singular == number


def _is_singular(subject: list[str]) -> bool | None:
    """The number that a subject's first word shows; None where it does not."""
    first = bare(subject[0])
    if first in _SINGULAR:
        return True
    if first in _PLURAL:
        return False
    return False if word_class(first) == "content" and first.endswith("s") and not first.endswith("ss") else None


def _may_stand(words: list[str], position: int) -> bool:
    """A word put in: of politeness at either end or behind a subject, an opener before what it may stand before."""
    kind = word_class(words[position])
    at_end = position == len(words) - 1
    if kind == "polite":
        return at_end or position == 0 or bare(words[position - 1]) in _SUBJECTS
    if kind == "adverb":
        return at_end or bare(words[position - 1]) in _SUBJECTS
    return position == 0 and kind in ("wh", "auxiliary", "instruction") and _opens(words)


def _articles_agree(words: list[str], position: int) -> bool:
    """Whether "a" and "an" around the edited place fit the sound of the word behind them."""
    for at in (position - 1, position):
        if 0 <= at < len(words) - 1 and bare(words[at]) in ("a", "an"):
            follows = bare(words[at + 1])
            if follows and (bare(words[at]) == "an") != _begins_with_vowel(follows):
                return False
    return True


def _begins_with_vowel(word: str) -> bool:
    if word.startswith(_SOUNDS_VOWEL):
        return True
    return word[0] in "aeiou" and not word.startswith(_SOUNDS_CONSONANT)
