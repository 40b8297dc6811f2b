"""One-word twins: the same question under another opening word.

A question keeps its form: "Can you ..." may become "Could you ..." but not "Share you ...". Only words without content
are swapped, so that what is asked stays the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from unmirage.audit import lexicon
from unmirage.schema import differing_words

_AUXILIARY = lexicon.MODALS | lexicon.BE | lexicon.DO | lexicon.HAVE
_FORMS = (("modal", lexicon.MODALS), ("be", lexicon.BE), ("do", lexicon.DO), ("have", lexicon.HAVE))


def form_of(question: str) -> tuple[str, str] | None:
    """Form of a question and its opening word in small letters; None where the opening word must not be swapped.

    request: an instruction, or "what" before a noun ("What ways to ..."). question: a question word before an
    auxiliary ("How do I ..."). modal, be, do, have: an auxiliary first.
    """
    words = question.split()
    if not words or not words[0].isalpha():
        return None
    first = words[0].lower()
    follows = words[1].lower() if len(words) > 1 else ""
    for name, group in _FORMS:
        if first in group:
            return name, first
    if first in lexicon.QUESTION_WORDS and follows in _AUXILIARY:
        return "question", first
    if first in lexicon.INSTRUCTION or first in ("what", "which"):
        return "request", first
    return None


def twins_of(questions: Sequence[str], labels: Sequence[bool]) -> list[str | None]:
    """Twin of each question, None where there is none; together they make opening word and label independent.

    Within a form the twins of the refused rows get their opening words in the numbers in which the answered rows have
    them, and the other way round. With P(w|y) the share of word w among the rows with label y, the rows with label y
    have then n_y P(w|y) + n_y P(w|1-y) times the word w: n_y times a number that does not depend on y.
    """
    forms = [form_of(question) for question in questions]
    cells: dict[str, dict[bool, list[int]]] = defaultdict(lambda: {False: [], True: []})
    for row, (form, label) in enumerate(zip(forms, labels, strict=True)):
        if form is not None:
            cells[form[0]][label].append(row)
    result: list[str | None] = [None] * len(questions)
    for rows in cells.values():
        for label in (False, True):
            words = _shared_out([_word(forms, row) for row in rows[not label]], len(rows[label]))
            own = [_word(forms, row) for row in rows[label]]
            for row, word in zip(rows[label], _apart(own, words) if words else [], strict=False):
                result[row] = swapped(questions[row], word)
    return result


def _word(forms: Sequence[tuple[str, str] | None], row: int) -> str:
    form = forms[row]
    return form[1] if form else ""


def _shared_out(words: Sequence[str], seats: int) -> list[str]:
    """`seats` words in the proportions of `words`, by largest remainder; none where there are no words."""
    if not words:
        return []
    counts = Counter(words)
    exact = {word: seats * count / len(words) for word, count in counts.items()}
    found = {word: int(share) for word, share in exact.items()}
    rest = sorted(counts, key=lambda word: (found[word] - exact[word], word))
    for word in rest[: seats - sum(found.values())]:
        found[word] += 1
    return [word for word in sorted(found) for _ in range(found[word])]


def _apart(own: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words in an order in which as few as can be stand at a row that has that word already.

    A row and its own word give no twin. Of n rows, a with the word and b words equal to it, at least a + b - n must
    meet; each swap below parts one more, until just these are left, so both labels lose the same share.
    """
    given = list(words)
    for word in sorted(set(own)):
        meet = [i for i, (a, b) in enumerate(zip(own, given, strict=True)) if a == word == b]
        free = (i for i, (a, b) in enumerate(zip(own, given, strict=True)) if word not in (a, b))
        for i, j in zip(meet, list(free), strict=False):
            given[i], given[j] = given[j], given[i]
    return given


def swapped(question: str, word: str) -> str | None:
    """The question under another opening word, in the case of the old one; None where it is that word already."""
    old = question.split()[0]
    new = word.capitalize() if old[0].isupper() else word
    new = new.upper() if old.isupper() and len(old) > 1 else new
    twin = question.replace(old, new, 1)
    if differing_words(question, twin) != [0]:
        return None
    return twin
