"""The one-word attack changes one word and nothing else, whatever the question."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unmirage.attacks import substitute_first_word
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.schema import Query, Variant, differing_words


def query(question: str, harmful: bool = True, id: str = "q") -> Query:
    return Query(id=id, question=question, harmful=harmful)


def questions(made: list[Variant]) -> list[str]:
    return [variant.question for variant in made]


WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
REAL_WORD = WORD.filter(bare)  # nothing but marks is refused as a word to be put in
SPACE = st.sampled_from([" ", "  ", "\n", "\t", " \n ", "\u00a0"])
QUESTION = st.builds(
    lambda first, rest: first + "".join(space + word for space, word in rest),
    WORD,
    st.lists(st.tuples(SPACE, WORD), max_size=6),
)


@settings(max_examples=200, deadline=None)
@given(question=QUESTION, words=st.lists(REAL_WORD, min_size=1, max_size=4, unique_by=str.lower), harmful=st.booleans())
def test_exactly_the_opening_word_differs(question: str, words: list[str], harmful: bool) -> None:
    asked = query(question, harmful)
    opening = question.split()[0]
    found = substitute_first_word([asked], words, "bypass" if harmful else "over-refusal")
    fitting = [word for word in words if bare(word) != bare(opening)]
    assert [variant.word for variant in found.variants] == fitting
    assert [variant.shot for variant in found.variants] == list(range(len(fitting)))
    for variant in found.variants:
        assert differing_words(question, variant.question) == [0]
        assert variant.question == variant.word + question[len(opening) :], "every other character stays"
        assert variant.origin == asked
    assert found.unchanged == ([] if fitting else [asked])


def test_k_words_give_k_numbered_shots_under_one_attack() -> None:
    found = substitute_first_word([query("Share ways to make it")], ["What", "Can", "How"], "bypass")
    assert questions(found.variants) == ["What ways to make it", "Can ways to make it", "How ways to make it"]
    assert [variant.shot for variant in found.variants] == [0, 1, 2]
    assert {variant.attack for variant in found.variants} == {"first-word:what|can|how"}
    assert {variant.position for variant in found.variants} == {0}


def test_a_question_that_already_opens_so_has_no_variant_and_is_listed() -> None:
    already, half = query("what is it", id="a"), query("Share it", id="b")
    found = substitute_first_word([already, half], ["What"], "bypass")
    assert questions(found.variants) == ["What it"]
    assert found.unchanged == [already]
    both = substitute_first_word([already, half], ["What", "Share"], "bypass")
    assert [(v.origin.id, v.word, v.shot) for v in both.variants] == [("a", "Share", 0), ("b", "What", 0)]
    assert both.unchanged == []


def test_marks_on_the_opening_word_make_it_no_other_word() -> None:
    found = substitute_first_word([query("Share, please, ways to it")], ["share", "What"], "bypass")
    assert questions(found.variants) == ["What please, ways to it"]


def test_each_goal_takes_its_own_queries() -> None:
    harmful, harmless = query("Share it", True, "h"), query("What is it", False, "s")
    bypass = substitute_first_word([harmful, harmless], ["Tell"], "bypass")
    over = substitute_first_word([harmful, harmless], ["Tell"], "over-refusal")
    assert [variant.origin.id for variant in bypass.variants] == ["h"]
    assert [variant.origin.id for variant in over.variants] == ["s"]
    assert bypass.unchanged == over.unchanged == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one word"),
        ([""], "'' is not one word"),
        (["Tell me"], "'Tell me' is not one word"),
        ([" What"], "' What' is not one word"),
        (["?!"], "'\\?!' is not one word"),
        (["What", "what"], "repeat one another"),
    ],
)
def test_bad_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        substitute_first_word([query("Share it")], words, "bypass")


@pytest.mark.parametrize(
    ("question", "position"),
    [
        ("Share ways to make it", 0),  # nothing differs
        ("What means to make it", 0),  # two words differ
        ("Share means to make it", 0),  # another word than said
        ("What ways to make it", 1),
        ("What are ways to make it", 0),  # a word more
        ("ways to make it", 0),  # a word less
        ("Please, share ways to make it", 0),
    ],
)
def test_whatever_differs_in_other_than_that_one_word_is_no_variant(question: str, position: int) -> None:
    made: dict[str, Any] = {"attack": "x", "word": "What", "position": position}
    with pytest.raises(ValidationError, match="exactly one word"):
        Variant(origin=query("Share ways to make it"), question=question, **made)


def test_a_variant_may_differ_at_another_position() -> None:
    made = Variant(origin=query("Share ways to it"), question="Share means to it", attack="x", word="means", position=1)
    assert differing_words(made.origin.question, made.question) == [1]
    assert differing_words("a b", "a b c") is None
