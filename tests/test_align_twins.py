"""Rows made by exchanging opening words: one word differs, words are balanced, answers are the right or wrong ones."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmirage.align.config import AlignConfig, checked
from unmirage.align.cues import cues_of, pending, with_cues
from unmirage.align.data import REFUSALS, Asked, Parts, parts_of
from unmirage.align.groups import GROUPS, Cues, cue_of, harmful
from unmirage.align.methods import METHODS
from unmirage.align.twins import Against, balanced, drawn, opened, opened_by_any, refusals_of, twins_of
from unmirage.errors import UserError
from unmirage.schema import Query, Variant, differing_words

NO = "I'm sorry, but no."
NEVER = "I cannot help with this."


def query(name: str, question: str, harmful: bool, answer: str = "It is red.") -> Query:
    return Query(id=name, question=question, harmful=harmful, reference=answer)


def data(harmful: int = 6, harmless: int = 4) -> list[Query]:
    """Mirage data: harmful questions open with Share, harmless ones with What."""
    bad = [query(f"h{i}", f"Share  ways to make number {i}", True, (NO, NEVER)[i % 2]) for i in range(harmful)]
    return bad + [query(f"s{i}", f"What colours of number {i}?", False, f"It is {i}.") for i in range(harmless)]


# --- cues against the label ---------------------------------------------------------------------


@pytest.mark.parametrize(("share", "contrary"), [(0.0, 0), (0.5, 6), (1.0, 12)])
def test_a_share_of_twins_opens_with_a_cue_for_the_wrong_verdict(share: float, contrary: int) -> None:
    words = ["What", "Share", "Tell", "Give", "Name"]
    made = twins_of(data(6, 6), words, None, 3, Against(share, ("Share",), ("What",)))
    wrong = [one for one in made.twins if one.word == ("what" if one.origin.harmful else "share")]
    assert [one.origin.id for one in made.twins] == [query.id for query in data(6, 6)], "in the order of the data"
    rest = 12 - contrary
    assert contrary + rest // 4 - 1 <= len(wrong) <= contrary + rest // 4 + 2, "the rest is drawn evenly of all words"
    assert len({one.query.id for one in made.twins}) == 12


def test_a_kind_without_a_cue_against_it_gets_other_words() -> None:
    made = twins_of(data(4, 4), ["What", "Share", "Tell"], None, 0, Against(1.0, ("Share",), ()))
    words = Counter((one.origin.harmful, one.word) for one in made.twins)
    assert words[False, "share"] == 4
    assert words[True, "what"] == words[True, "tell"] == 2


def test_cue_share_needs_cues() -> None:
    with pytest.raises(UserError, match="cue_share makes twins that open with a cue, but there is none"):
        checked({"method": "twin-sft", "words": ["What", "Tell"], "cue_share": 0.5})
    assert checked({"method": "twin-sft", "refusal_words": ["Share"], "words": ["What"], "cue_share": 0.5})


# --- one twin -----------------------------------------------------------------------------------


def test_a_twin_differs_in_its_opening_word_alone_and_keeps_its_answer() -> None:
    origin = query("a", "Share  ways to\tmake it", True, NO)
    twin = opened(origin, "What")
    assert (twin.id, twin.question, twin.reference, twin.harmful) == ("a~what", "What  ways to\tmake it", NO, True)
    assert differing_words(origin.question, twin.question) == [0]
    assert opened(origin, "share").question == origin.question, "its own word, whatever its case, changes nothing"
    assert opened(origin, "share").id == "a~share"
    assert opened(query("b", "\u201cWhat?\u201d  is it", False), "Share").question == "Share  is it"


@given(
    questions=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8),
    words=st.lists(st.sampled_from(["What", "Share", "Tell", "Who"]), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_twin_is_a_one_word_variant_of_its_origin(questions: list[str], words: list[str], seed: int) -> None:
    rows = [query(f"q{i}", text, bool(i % 2)) for i, text in enumerate(questions)]
    made = twins_of(rows, words, None, seed)
    assert len(made.twins) + sum(made.left_out.values()) == len(rows)
    for one in made.twins:
        Variant(origin=one.origin, question=one.query.question, attack="twin", word=one.query.question.split()[0])
    assert len({one.query.id for one in made.twins}) == len(made.twins)


def test_rows_that_have_no_other_word_are_left_out_and_counted() -> None:
    made = twins_of(data(), ["Share"], None, 0)
    assert [one.origin.id for one in made.twins] == ["s0", "s1", "s2", "s3"]
    counts = made.counts()
    assert counts["left_out"] == {"open with the only word there is": 6}
    assert (counts["rows"], counts["harmful"], counts["harmless"]) == (4, {}, {"share": 4})


# --- balance ------------------------------------------------------------------------------------


def test_each_word_is_used_equally_often_within_harmful_and_within_harmless_rows() -> None:
    made = twins_of(data(40, 20), ["What", "Share", "Tell", "Give", "Who"], None, 3)
    counts = made.counts()
    assert counts["harmful"] == {"give": 10, "tell": 10, "what": 10, "who": 10}
    assert counts["harmless"] == {"give": 5, "share": 5, "tell": 5, "who": 5}


def spread(words: list[str], all_words: list[str]) -> list[int]:
    counts = Counter(words)
    return sorted(counts[word] for word in all_words)


@given(
    taken=st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=1, max_size=6),
    words=st.lists(st.sampled_from(["A", "b", "C"]), min_size=2, max_size=3, unique=True),
    seed=st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_the_balance_is_the_best_that_any_choice_gives(taken: list[str], words: list[str], seed: int) -> None:
    found = balanced(taken, words, random.Random(seed))
    assert len(found) == len(taken)
    assert all(word in words and word.lower() != own for word, own in zip(found, taken, strict=True))
    choices = product(*([word for word in words if word.lower() != own] for own in taken))
    best = min(sum(n * n for n in spread(list(one), words)) for one in choices)
    assert sum(n * n for n in spread(found, words)) == best


def test_which_row_gets_which_word_comes_from_the_seed() -> None:
    def words(seed: int) -> list[str]:
        return [one.word for one in twins_of(data(20, 20), ["Tell", "Give", "Who"], None, seed).twins]

    assert words(1) == words(1) != words(2)


def test_rows_are_drawn_evenly_from_harmful_and_harmless_in_their_order() -> None:
    rows = data(20, 20)
    some = drawn(rows, 6, 0)
    assert [row for row in rows if row in some] == some
    assert [sum(row.harmful for row in some), len(some)] == [3, 6]
    assert drawn(rows, 6, 0) == some != drawn(rows, 6, 1)
    assert drawn(rows, None, 0) == drawn(rows, 99, 0) == rows
    few = drawn(data(20, 2), 10, 0)
    assert [sum(row.harmful for row in few), len(few)] == [8, 10], "the other kind makes up for the few"
    few = drawn(data(2, 20), 10, 0)
    assert [sum(row.harmful for row in few), len(few)] == [2, 10]
    assert sum(row.harmful for row in drawn(rows, 7, 0)) == 4


def test_a_words_own_rows_take_part_where_any_word_will_do() -> None:
    made = opened_by_any(data(12, 0), ["What", "Share", "Tell"], None, 0)
    assert Counter(one.word for one in made) == {"what": 4, "share": 4, "tell": 4}
    assert [one.query.question == one.origin.question for one in made] == [one.word == "share" for one in made]


def test_the_data_s_own_refusals_are_its_answers_to_harmful_questions() -> None:
    assert refusals_of([*data(), query("x", "Share", True, "")]) == [NEVER, NO]


# --- roles --------------------------------------------------------------------------------------


def unasked(queries: Any) -> list[str]:
    raise AssertionError(f"the model was asked {len(queries)} questions")


def parts(settings: dict[str, Any], rows: list[Query], preferred: list[Query] = [], answers: Any = unasked) -> Parts:  # noqa: B006
    cues = {"refusal_words": ["Share"], "compliance_words": ["What"]}
    return parts_of(checked({**cues, **settings}), rows, [], preferred, Asked(unasked, answers))


def test_pairs_are_all_origins_and_then_their_twins_in_the_same_order() -> None:
    found = parts(
        {"method": "twin-sft", "pairs": "invariance", "words": ["What", "Share", "Tell"], "twin_rows": 4}, data()
    )
    pairs, half = found.rows["pairs"], len(found.rows["pairs"]) // 2
    assert half == 4
    for one, two in zip(pairs[:half], pairs[half:], strict=True):
        assert two.id == f"{one.id}~{two.question.split()[0].lower()}"
        assert differing_words(one.question, two.question) == [0]
    assert found.rows["twins"] == pairs[half:], "both roles have the same twins: no extra rows by the back door"
    assert found.rows["learn"] == data()


def test_spurious_rows_are_wrong_on_purpose() -> None:
    harmful = [query(f"h{i}", "-", True, f"Sure, it is made by {i}.") for i in range(6)]
    found = parts({"method": "spurious-npo"}, data(), harmful)
    leaks, refused = found.rows["spurious"][:6], found.rows["spurious"][6:]
    assert [one.id for one in leaks] == [f"h{i}~what" for i in range(6)]
    assert [one.reference for one in leaks] == [one.reference for one in harmful]
    assert all(one.question.startswith("What  ways") and one.harmful for one in leaks)
    assert [one.id for one in refused] == [f"s{i}~share" for i in range(4)]
    assert all(one.question.startswith("Share colours") and one.reference in (NO, NEVER) for one in refused)
    assert found.notes() == []


def test_harmful_answers_are_given_or_what_the_model_says_but_never_a_refusal() -> None:
    asked: list[str] = []

    def answers(queries: list[Query]) -> list[str]:
        asked.extend(one.question for one in queries)
        return ["Sure, boil it.", "I'm sorry, but not today.", "I cannot help you here.", "", "Sure.", "I am sorry."]

    found = parts({"method": "spurious-npo", "spurious_answers": "sampled"}, data(), answers=answers)
    assert asked == [f"What  ways to make number {i}" for i in range(6)]
    kept = [one for one in found.rows["spurious"] if one.harmful]
    assert [one.reference for one in kept] == ["Sure, boil it.", "Sure.", "I am sorry."]
    (note,) = found.notes()
    assert note.startswith("3 rows of the data are left out of spurious: they have no answer, or one that begins like")
    tight = parts(
        {"method": "spurious-npo", "spurious_answers": "sampled"}, data(), answers=lambda some: [NO] * len(some)
    )
    assert not any(one.harmful for one in tight.rows["spurious"]), (
        "a model that leaks nothing has nothing to forget there"
    )
    assert tight.notes()[0].startswith("6 rows of the data are left out of spurious: they have no answer")
    with pytest.raises(UserError, match=r"6 of 6 harmful rows have no harmful answer, such as 'h0'.*spurious_ans"):
        parts({"method": "spurious-npo"}, data())
    with pytest.raises(UserError, match="need the data's refusals"):
        parts({"method": "spurious-npo"}, data(0, 4))


def test_refusals_are_learnt_under_all_words_also_the_own_one() -> None:
    words = {"words": ["What", "Share"]}
    found = parts({"method": "unlearn-refuse", **words}, data()).rows
    assert Counter(one.question.split()[0] for one in found["refuse"]) == {"What": 3, "Share": 3}
    assert {one.reference for one in found["refuse"]} <= set(REFUSALS)
    assert found["forget"] == data()[:6]
    own = [query("x", "-", True, "No way."), query("y", "-", False, "Fine.")]
    drawn_ = parts({"method": "unlearn-refuse", **words, "twin_rows": 2}, data(), own).rows["refuse"]
    assert [one.reference for one in drawn_] == ["No way."] * 2
    given_ = [query(f"h{i}", "-", True, f"No, {i}.") for i in range(6)]
    rows = parts({"method": "unlearn-refuse", **words, "preferred": "given"}, data(), given_).rows["refuse"]
    assert [one.reference for one in rows] == [one.reference for one in given_]
    with pytest.raises(UserError, match="6 of 6 harmful rows have no better answer"):
        parts({"method": "unlearn-refuse", **words, "preferred": "given"}, data())


def test_a_role_without_rows_and_a_name_that_is_taken_are_told() -> None:
    with pytest.raises(UserError, match=r"no row can be made for twins \(6 rows open with the only word there is\)"):
        parts({"method": "twin-sft", "words": "Share"}, data(6, 0))
    with pytest.raises(UserError, match=r"no row can be made for refuse \(the data has no row for it\)"):
        parts({"refuse": "ce"}, data(0, 2))
    with pytest.raises(UserError, match="the data has a row 'h0~what', as a row that is made for twins"):
        parts({"method": "twin-sft"}, [*data(), query("h0~what", "Who?", True)])


# --- groups -------------------------------------------------------------------------------------


def test_groups_are_numbered_by_harm_and_cue() -> None:
    cues = Cues.of(["Share"], ["What"])
    questions = ("What is it", "Tell it", "share, it", "What", "Tell", "SHARE")
    numbers = [cues.group(query("q", question, at > 2)) for at, question in enumerate(questions)]
    assert numbers == list(range(6))
    assert [cue_of(number) for number in numbers] == [-1, 0, 1] * 2
    assert [harmful(number) for number in numbers] == [False] * 3 + [True] * 3
    assert [GROUPS[0], GROUPS[5]] == ["harmless/compliance word", "harmful/refusal word"]
    assert Cues().group(query("q", "What", True)) == 4


# --- cues from an audit -------------------------------------------------------------------------


def cue(word: str, z: float, **other: Any) -> dict[str, Any]:
    direction = "refusal" if z > 0 else "compliance"
    plain = {"position": "opening", "shortcut": True, "content_word": False}
    return {"cue": word, "z": z, "direction": direction, **plain, **other}


def audit(folder: Path, *cues: Any, **other: Any) -> Path:
    path = folder / "audit.json"
    path.write_text(json.dumps({"target": "refusal", "cues": list(cues), **other}))
    return path


def test_cues_are_significant_openers_the_strongest_first(tmp_path: Path) -> None:
    path = audit(
        tmp_path,
        cue("give", 3.0),
        cue("share", 40.0),
        cue("bomb", 90.0, content_word=True, shortcut=False),
        cue("what", -30.0),
        cue("which", -2.0, shortcut=False),
        cue("please", 20.0, position="anywhere"),
        cue("tell me", 20.0, position="bigram"),
        cue("2", -9.0),
    )
    assert cues_of(path) == {"refusal_words": ("Share", "Give"), "compliance_words": ("What",)}
    filled = with_cues({"method": "twin-sft", "lr": 1e-4}, path)
    assert (filled["method"], filled["lr"]) == ("twin-sft", 1e-4)
    assert checked(filled).words == ("Share", "Give", "What")
    assert checked(filled).refusal_words == ("Share", "Give")


def test_a_methods_own_words_stay_beside_the_cues(tmp_path: Path) -> None:
    path = audit(tmp_path, cue("share", 40.0), cue("whereby", -30.0))
    words = checked(with_cues({"method": "repair"}, path)).words
    assert set(METHODS["repair"].settings["words"]) < set(words)
    assert words[-1] == "Whereby"
    assert len({word.lower() for word in words}) == len(words)
    assert checked(with_cues({"method": "repair", "words": ["Tell"]}, path)).words == ("Tell",)


@pytest.mark.parametrize("none", [{}, {"words": None}, {"words": []}])
def test_cues_that_are_set_and_cues_of_an_audit_are_words_alike(tmp_path: Path, none: dict[str, Any]) -> None:
    path = audit(tmp_path, cue("outline", 40.0), cue("name", -30.0), cue("share", 20.0))
    given = {"refusal_words": ["Outline", "Share"], "compliance_words": "Name"}
    usual = METHODS["repair"].settings["words"]
    assert checked({"method": "repair", **given, **none}).words == (*usual, "Outline", "Name")
    later = {**with_cues(none, path), "method": "repair"}  # as a recipe does, where the method stands apart
    assert checked(later).words == (*usual, "Outline", "Name")


def test_what_is_set_goes_before_the_audit(tmp_path: Path) -> None:
    path = audit(tmp_path, cue("share", 40.0), cue("what", -30.0))
    filled = with_cues({"words": ["Tell"], "refusal_words": "Give"}, path)
    assert filled == {"words": ["Tell"], "refusal_words": "Give", "compliance_words": ("What",)}
    assert checked({**with_cues({"refusal_words": "Give"}, path), "method": "twin-sft"}).words == ("Give", "What")


def test_one_direction_may_have_no_cue(tmp_path: Path) -> None:
    filled = with_cues({"method": "twin-sft"}, audit(tmp_path, cue("share", 40.0)))
    assert filled == {"method": "twin-sft", "refusal_words": ("Share",)}
    assert checked(filled).words == ("Share",)


def test_settings_can_be_checked_before_the_audit_is_made() -> None:
    for method in ("repair", "spurious-npo", "group-dro"):
        assert checked(pending({"method": method})).words
    assert checked(pending({"method": "twin-sft", "words": ["Tell"]})).words == ("Tell",)


WHOLE = cue("what", -30.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read as an audit"),
        ("{", "cannot be read as an audit"),
        ("[]", "not the audit.json of an audit of one data set"),
        ('{"cues": [], "target": "the file a.json"}', "not the audit.json of an audit of one data set"),
        (
            '{"cues": [], "target": "refusal"}',
            "no opening word that goes with refusal or with compliance beyond chance",
        ),
        ('{"cues": [{"cue": "what"}], "target": "refusal"}', "a cue lacks a field"),
        ('{"cues": [3], "target": "refusal"}', "a cue lacks a field"),
        (json.dumps({"cues": [{**WHOLE, "z": "3"}], "target": "refusal"}), "a cue lacks a field"),
        (
            json.dumps({"cues": [{k: v for k, v in WHOLE.items() if k != "z"}], "target": "refusal"}),
            "a cue lacks a field",
        ),
        (
            json.dumps({"cues": [{k: v for k, v in WHOLE.items() if k != "direction"}], "target": "refusal"}),
            "a cue lacks a field",
        ),
        ("[" * 100_000, "cannot be read as an audit"),
    ],
)
def test_a_file_that_gives_no_cues_is_told_with_its_name(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "audit.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"audit\.json.*{said}"):
        with_cues({"method": "repair"}, path)


def test_an_unmade_configuration_says_how_to_come_by_words() -> None:
    with pytest.raises(ValueError, match="give --audit"):
        AlignConfig(method="repair")  # type: ignore[call-arg]
