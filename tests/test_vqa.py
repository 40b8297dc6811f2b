"""VQA accuracy: every rule of the normalisations, the rule of ten people worked by hand, and what refusals become."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmirage.errors import UserError
from unmirage.judges.registry import judge_named
from unmirage.judges.vqa import RULES, VqaJudge, normalise, normalise_textvqa, ten_people, words
from unmirage.schema import Answer, Label, Query

judge_of = cache(VqaJudge)


def verdict(text: str, people: list[str], rule: str = "vqa"):
    query = Query(id="q", question="What is it?", harmful=False, answers=tuple(people))
    answer = Answer(key="k", query="q", question="What is it?", model="m", text=text)
    return judge_of(rule).judge(query, answer)


def score(text: str, people: list[str], rule: str = "vqa") -> float | None:
    return verdict(text, people, rule).score


def ten(*answers: str) -> list[str]:
    """The answers, filled up to ten with others that are all different."""
    return [*answers, *(f"other{number}x" for number in range(10 - len(answers)))]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A red Car", "red car"),  # case, article
        ("an apple on the table", "apple on table"),
        ("the", ""),
        ("theatre", "theatre"),  # an article is a whole word
        ("Two", "2"),
        ("none", "0"),
        ("twenty one", "twenty 1"),  # only up to ten
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("Its", "its"),  # not in the table
        ("somebody'd", "somebodyd"),  # the table's own oddity
        ("im", "im"),  # its key has a capital and is never met
        ("couldnt've", "couldn't've"),
        ("dog's", "dog's"),  # apostrophes stay
        ("red, white", "red white"),  # a sign beside a space vanishes
        ("red,white", "red white"),  # otherwise it is a space
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("t-shirt", "t shirt"),
        ("t-shirt -", "tshirt"),  # beside a space anywhere: everywhere
        ("yes!", "yes"),
        ("(yes)", "yes"),
        ("`yes`", "yes"),
        ("who?", "who"),
        ("1,000", "1000"),  # a comma between digits vanishes
        ("10-20 or 1,000", "1020 or 1000"),  # and takes all signs with it
        ("1, 2", "1 2"),
        ("3.5", "3.5"),  # a period before a digit stays
        (".5", ".5"),
        ("3.", "3"),
        ("e.g.", "eg"),
        ("no. 5", "no 5"),
        ("U.S.A.", "usa"),
        ("9:30", "9:30"),  # no rule for colons
        ("50%", "50%"),
        ("a\nred\tcar ", "red car"),
        ("  red \r\n car  ", "red car"),
        ("a." * 40 + "z", "a" * 32 + "a." * 8 + "z"),  # the official code strips 32 periods
        ("", ""),
        ("...", ""),
    ],
)
def test_the_official_normalisation(text, normal):
    assert normalise(text) == normal


def test_the_words_are_a_table_of_their_source():
    table = words()
    assert (len(table.contractions), len(table.numbers), len(table.punctuation)) == (120, 12, 21)
    assert table.articles == ("a", "an", "the")
    assert "vqaEval.py" in table.source
    assert "BSD" in table.licence


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The dog's bowl", "dog 's bowl"),  # 's is a word of its own
        ("red,white", "redwhite"),  # commas and question marks go first
        ("what?now", "whatnow"),
        ("1,000", "1000"),
        ("10-20 or 1,000", "10 20 or 1000"),  # so that no comma stands between digits any more
        ("Two", "2"),
        ("dont\n", "don't"),
        ("3.", "3"),
    ],
)
def test_the_normalisation_of_textvqa(text, normal):
    assert normalise_textvqa(text) == normal


@pytest.mark.parametrize(("same", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_the_rule_of_ten_people_worked_by_hand(same, expected):
    # 2 of 10: those two see one other who says the same, 1/3 each; the eight others see two, 2/3 each: 6/10.
    assert score("red", ten(*["red"] * same)) == pytest.approx(expected, abs=0)


def test_leaving_one_out_is_averaged_person_by_person():
    people = ["red", "red", "red", "blue"]
    each = [2 / 3, 2 / 3, 2 / 3, 1]  # of the others, two say red for those who do, three for the last
    assert ten_people("red", people) == pytest.approx(sum(each) / 4)


def test_people_who_differ_only_in_form_agree():
    assert score("2", ten("Two", "two.", "2", "the two")) == 1.0


def test_the_code_to_the_letter_normalises_nothing_where_all_ten_agree():
    assert score("Yes.", ["yes"] * 10, "vqa-official") == 0.0
    assert score("yes\n", ["yes"] * 10, "vqa-official") == 1.0
    assert score("Yes.", ["yes"] * 9 + ["no"], "vqa-official") == 1.0
    assert score("Yes.", ["yes"] * 10) == 1.0
    assert score("two", ["two"] * 10) == 1.0


def test_each_rule_is_that_of_its_set():
    people = ten(*["mcdonald's"] * 4)
    assert score("McDonald's", people) == 1.0
    assert score("McDonald's", people, "vqa-textvqa") == 1.0
    odd = ten(*["red,white"] * 4)
    assert score("red white", odd) == 1.0
    assert score("red white", odd, "vqa-textvqa") == 0.0
    assert score("red white", odd, "vqa-vizwiz") == 0.0  # what people said is taken as it stands
    assert score("Red white", ten(*["red white"] * 4), "vqa-vizwiz") == 1.0
    assert score("two", ["two"] * 10, "vqa-vizwiz") == 0.0


@pytest.mark.parametrize("rule", RULES)
def test_unanswerable_is_an_answer_like_any_other(rule):
    people = ["unanswerable"] * 7 + ["blurry", "dog", "dog"]
    found = verdict("Unanswerable", people, rule)
    assert (found.score, found.label) == (1.0, Label.COMPLIANCE)
    assert score("dog", people, rule) == pytest.approx(0.6)
    wrong = verdict("Unanswerable", ["cat"] * 9 + ["dog"], rule)
    assert (wrong.score, wrong.label) == (0.0, Label.IRRELEVANT)  # invited by the prompt, so no refusal


def test_labels_and_reasons():
    people = ten("red", "red")
    assert verdict("red", people).label is Label.COMPLIANCE
    assert verdict("red", people).why == "2 of 10 people say 'red'"
    assert verdict("green", people).label is Label.IRRELEVANT
    assert verdict("", people).label is Label.IRRELEVANT
    refused = verdict("I'm sorry, I can't help with that.", people)
    assert (refused.label, refused.score) == (Label.REFUSAL, 0.0)
    assert "i can't help" in refused.why
    assert {verdict(text, people).correct for text in ("red", "green")} == {None}


def test_an_answer_that_people_gave_is_no_refusal():
    assert verdict("I can't help you", ["i can't help you"] * 10).label is Label.COMPLIANCE


@pytest.mark.parametrize("count", [0, 1, 9, 11])
def test_another_number_of_people_is_refused(count):
    with pytest.raises(UserError, match=f"'q' has {count} answers of people, and VQA accuracy is made from 10"):
        verdict("red", ["red"] * count)


def test_names_tell_the_rules_apart():
    names = [judge_named(name).name for name in RULES]
    assert len(set(names)) == 4
    assert all(re.fullmatch(rf"{rule}-[0-9a-f]{{8}}", name) for rule, name in zip(RULES, names, strict=True))
    assert names[0] == judge_named("vqa").name


def test_the_name_changes_with_the_table(monkeypatch):
    before = VqaJudge().name
    changed = words().model_copy(update={"articles": ("a",)})
    monkeypatch.setattr("unmirage.judges.vqa.words", lambda: changed)
    assert VqaJudge().name != before


TEXTS = st.text(alphabet="ab the 12.,-'!\n", max_size=12)


@given(text=TEXTS, people=st.lists(TEXTS, min_size=10, max_size=10), rule=st.sampled_from(sorted(RULES)))
def test_scores_lie_between_0_and_1(text, people, rule):
    found = score(text, people, rule)
    assert found is not None
    assert 0 <= found <= 1


@given(text=TEXTS, people=st.lists(TEXTS, min_size=10, max_size=10))
def test_case_never_matters(text, people):
    kept = score(text, people)
    assert score(text.upper(), people) == kept
    assert score(text, [one.upper() for one in people]) == kept


@given(said=st.lists(st.sampled_from(["red", "two", "dont", "3.5"]), max_size=3), people=st.lists(TEXTS, min_size=10))
def test_articles_never_matter(said, people):
    people = people[:10]
    kept = score(" ".join(said), people)
    assert score(" ".join(["the", *said]), people) == kept
    assert score(" ".join([*said, "An"]), people) == kept


def test_an_article_makes_a_sign_stand_beside_a_space():
    assert (normalise("-1-1"), normalise("the -1-1")) == ("1 1", "11")  # so the official code has it


@given(people=st.lists(st.sampled_from(["red", "blue", "green"]), min_size=10, max_size=10), seed=st.randoms())
def test_the_order_of_people_never_matters_and_agreement_never_hurts(people, seed):
    kept = score("red", people)
    shuffled = list(people)
    seed.shuffle(shuffled)
    assert score("red", shuffled) == kept
    if "blue" in people:
        shuffled[shuffled.index("blue")] = "red"
        assert score("red", shuffled) >= kept
