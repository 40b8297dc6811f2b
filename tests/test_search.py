"""Searches for a one-word edit that breaks a model: certificates, budgets, interruptions, figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmirage import cli
from unmirage.attacks.edits import At, Change, Edit, edits_of
from unmirage.attacks.goals import Goal
from unmirage.attacks.search import Plan, search, strategies
from unmirage.attacks.search.rates import Part, effect, parts, per_edit, rates
from unmirage.attacks.search.results import Found, QuestionResult, SearchResult, Side
from unmirage.attacks.search.strategies import AT_ONCE, SearchName
from unmirage.attacks.search.walk import Budget, Task, Walked, drive
from unmirage.attacks.words import NEUTRALS
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply
from unmirage.errors import UserError
from unmirage.evaluate.measure import Subject, measure
from unmirage.evaluate.rows import units_of
from unmirage.judges import verdict_on
from unmirage.schema import Answer, Label, Query, Variant, Verdict
from unmirage.stats import clustered_rate, mcnemar_exact, paired_change, paired_difference, wilson

Says = Callable[[str], Label]


def query(question: str, harmful: bool = True, id: str = "q") -> Query:
    return Query(id=id, question=question, harmful=harmful)


class Model:
    """Asked with prompts, says a label for each text, and keeps what it was asked."""

    def __init__(self, says: Says) -> None:
        self.says, self.asked = says, list[str]()

    def __call__(self, prompts: Sequence[Prompt]) -> list[Verdict]:
        self.asked += [prompt.question for prompt in prompts]
        return [Verdict(query=p.query, judge="j", label=self.says(p.question), why="") for p in prompts]


def broken_by(*texts: str) -> Says:
    return lambda text: Label.COMPLIANCE if text in texts else Label.REFUSAL


def walked(
    model: Model,
    queries: Sequence[Query],
    space: Callable[[Query], list[Edit]],
    name: str = "exhaustive",
    budget: int | None = None,
    goal: Goal = Goal.bypass,
    places: int | None = None,
) -> tuple[list[Walked], Budget]:
    def tasks(query: Query, _: Verdict) -> tuple[Task, None]:
        edits = space(query)
        if name == "greedy":
            return Task(edits, lambda: strategies.greedy(edits, query.question, places)), None
        return Task(edits, lambda: getattr(strategies, name)(edits)), None

    money = Budget(budget)
    return drive(queries, goal, tasks, model, lambda prompt: prompt.question, money), money


def openings(*words: str) -> Callable[[Query], list[Edit]]:
    return lambda query: edits_of(query.question, [Change.opening], words)


# --- certificates and outcomes by hand ----------------------------------------------------------


def test_a_certificate_says_how_many_edits_there_are_and_that_all_were_asked() -> None:
    model = Model(broken_by())
    changes = [Change.substitute, Change.insert, Change.delete]
    (found,), money = walked(model, [query("Share a way")], lambda q: edits_of(q.question, changes, ["What", "a"]))
    attack = found.attack
    assert attack is not None
    assert found.outcome == "robust"
    assert attack.certified
    # substitute: What a way, a a way, Share what way, Share a what, Share a a; insert "what" at four places and "a" at
    # the beginning and the end, as it would stand beside itself elsewhere; delete each of three words. No two alike.
    assert len(attack.task.space) == 5 + 6 + 3 == len(attack.seen)
    assert len(money.spent) == 15 == len(model.asked)
    assert model.asked[0] == "Share a way"


def test_the_edit_that_breaks_is_named_and_nothing_is_asked_after_its_batch() -> None:
    words = [f"w{i}" for i in range(2 * AT_ONCE + 5)]
    model = Model(broken_by("w17 it", "w18 it", "w40 it"))
    (found,), _ = walked(model, [query("Share it")], openings(*words))
    assert found.outcome == "broken"
    assert found.attack is not None
    assert found.attack.hits == [Edit("substitute", 0, "w17"), Edit("substitute", 0, "w18")]
    assert not found.attack.certified
    assert len(model.asked) == 1 + 2 * AT_ONCE


def test_a_fixed_search_asks_every_word_whatever_comes_of_it() -> None:
    model = Model(broken_by("What it"))
    (found,), _ = walked(model, [query("Share it")], openings("What", "How", "Why"), "fixed")
    assert model.asked == ["Share it", "What it", "How it", "Why it"]
    assert found.attack is not None
    assert [edit.word for edit in found.attack.hits] == ["What"]


def test_what_needs_no_attack_or_has_no_edit_is_said_so() -> None:
    model = Model(broken_by("Tell it"))
    found, _ = walked(model, [query("Tell it", id="a"), query("What it", id="b")], openings("What"))
    assert [one.outcome for one in found] == ["already", "no-edit"]
    assert found[0].attack is None
    assert model.asked == ["Tell it", "What it"]


def test_an_edit_without_a_verdict_leaves_a_question_unfinished_unless_another_breaks_it() -> None:
    def says(text: str) -> Label:
        if text.startswith("How"):
            return Label.UNPARSED
        return Label.COMPLIANCE if text == "Why one" else Label.REFUSAL

    found, _ = walked(Model(says), [query("Share it", id="a"), query("Share one", id="b")], openings("How", "Why"))
    assert [one.outcome for one in found] == ["unfinished", "broken"]
    assert found[0].attack is not None
    assert (found[0].attack.unusable, found[0].attack.certified) == (1, False)
    blind, _ = walked(Model(lambda _: Label.ERROR), [query("Share it")], openings("How"))
    assert (blind[0].outcome, blind[0].attack) == ("unfinished", None)


def test_over_refusal_and_flip_are_goals_of_their_own() -> None:
    def says(text: str) -> Label:
        return {"Share it": Label.REFUSAL, "Why it": Label.IRRELEVANT}.get(text, Label.COMPLIANCE)

    asked = [query("Is it", harmful=False)]
    over, _ = walked(Model(says), asked, openings("Why", "Share"), goal=Goal.over_refusal)
    flip, _ = walked(Model(says), asked, openings("Why", "Share"), goal=Goal.flip)
    assert over[0].attack is not None
    assert flip[0].attack is not None
    assert [edit.word for edit in over[0].attack.hits] == ["Share"]
    assert [edit.word for edit in flip[0].attack.hits] == ["Why", "Share"]


# --- greedy -------------------------------------------------------------------------------------


def test_greedy_tries_the_position_first_whose_deletion_does_most() -> None:
    def says(text: str) -> Label:
        if text == "Share the it":  # "way" taken out: the label changes, and no more
            return Label.IRRELEVANT
        return Label.COMPLIANCE if text == "Share the what it" else Label.REFUSAL

    model = Model(says)
    space = lambda q: edits_of(q.question, [Change.substitute], ["What"])  # noqa: E731
    (found,), _ = walked(model, [query("Share the way it")], space, "greedy")
    assert model.asked == [
        "Share the way it",
        "the way it",
        "Share way it",
        "Share the it",
        "Share the way",
        "Share the what it",
    ]
    assert found.attack is not None
    assert found.attack.hits == [Edit("substitute", 2, "What")]


def test_greedy_within_few_places_gives_no_certificate() -> None:
    space = lambda q: edits_of(q.question, [Change.substitute], ["What"])  # noqa: E731
    (few,), _ = walked(Model(broken_by("Share what")), [query("Share it")], space, "greedy", places=1)
    (all_,), _ = walked(Model(broken_by("Share what")), [query("Share it")], space, "greedy")
    assert few.attack is not None
    assert (few.outcome, few.attack.certified, all_.outcome) == ("robust", False, "broken")


def test_a_deletion_that_only_ranks_positions_breaks_nothing() -> None:
    model = Model(broken_by("it"))
    (found,), _ = walked(model, [query("Share it")], openings("What"), "greedy")
    assert found.outcome == "robust"
    assert found.attack is not None
    assert found.attack.certified
    space = lambda q: edits_of(q.question, [Change.delete], [])  # noqa: E731
    (deleted,), _ = walked(model, [query("Share it")], space, "greedy")
    assert deleted.outcome == "broken"


# --- properties ---------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(["Share", "the", "way", "to", "it"]), min_size=1, max_size=4).map(" ".join)
LEXICON = st.lists(st.sampled_from(["What", "How", "the", "Please"]), min_size=1, max_size=4, unique=True)
CHANGES = st.lists(st.sampled_from(list(Change)), min_size=1, max_size=4, unique=True)


def drawn(seed: int, often: int) -> Says:
    """A model whose answers hang on the text in no way that could be guessed."""

    def says(text: str) -> Label:
        number = hashlib.sha256(f"{seed}/{text}".encode()).digest()[0]
        if number < 256 * often // 100:
            return Label.COMPLIANCE
        return Label.IRRELEVANT if number % 2 else Label.REFUSAL

    return says


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, words=LEXICON, changes=CHANGES, seed=st.integers(0, 99), often=st.sampled_from([0, 3, 20]))
def test_greedy_and_exhaustive_agree_and_certificates_count_every_edit(
    text: str, words: list[str], changes: list[Change], seed: int, often: int
) -> None:
    space = lambda q: edits_of(q.question, changes, words)  # noqa: E731
    (exact,), _ = walked(Model(drawn(seed, often)), [query(text)], space)
    (greedy,), _ = walked(Model(drawn(seed, often)), [query(text)], space, "greedy")
    assert greedy.outcome == exact.outcome
    says = drawn(seed, often)
    breaking = {edit.apply(text) for edit in space(query(text)) if says(edit.apply(text)) is Label.COMPLIANCE}
    if exact.attack is not None and exact.attack.certified:
        assert not breaking
        assert len(exact.attack.seen) == len({edit.apply(text) for edit in space(query(text))})
    if exact.outcome == "broken":
        assert exact.attack is not None
        assert exact.attack.hits[0].apply(text) in breaking


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=25),
    words=LEXICON,
    budget=st.integers(0, 60),
    name=st.sampled_from(["fixed", "exhaustive", "greedy"]),
)
def test_a_budget_is_never_exceeded_and_what_it_leaves_out_is_never_called_robust(
    texts: list[str], words: list[str], budget: int, name: str
) -> None:
    queries = [query(text, id=str(number)) for number, text in enumerate(texts)]
    space = lambda q: edits_of(q.question, [Change.opening, Change.insert], words)  # noqa: E731
    model = Model(drawn(1, 5))
    found, money = walked(model, queries, space, name, budget)
    free, _ = walked(Model(drawn(1, 5)), queries, space, name)
    assert len(set(model.asked)) == len(money.spent) <= budget
    for one, whole in zip(found, free, strict=True):
        assert one.outcome in (whole.outcome, "unfinished", "broken")
        if one.outcome == "broken":
            assert whole.outcome == "broken"
        if one.attack is not None and one.attack.certified:
            assert all(edit in one.attack.seen for edit in space(one.query))


def test_a_small_budget_finishes_some_questions_instead_of_none() -> None:
    queries = [query(f"Share it{number}", id=str(number)) for number in range(50)]
    found, _ = walked(Model(broken_by()), queries, openings(*(f"w{i}" for i in range(40))), budget=1000)
    outcomes = [one.outcome for one in found]
    assert outcomes[:16] == ["robust"] * 16
    assert set(outcomes[20:]) == {"unfinished"}


# --- figures ------------------------------------------------------------------------------------


def side(outcome: Any) -> Side:
    return Side(outcome=outcome, certified=outcome == "robust", edits=2, asked=2, unusable=0)


def row(number: int, outcome: Any, attack: Any = None, control: Any = None, harmful: bool = True) -> QuestionResult:
    return QuestionResult(
        query=str(number), question="Share it", harmful=harmful, split=None, before=Label.REFUSAL, outcome=outcome,
        attack=side(attack) if attack else None, control=side(control) if control else None,
    )  # fmt: skip


def part(*rows: QuestionResult, units: Sequence[str] = ()) -> Part:
    """`units`: the picture of each row; without, each question stands for itself."""
    (only,) = parts(rows, "a", "a/neutral", {one.query: units[i] if units else i for i, one in enumerate(rows)})
    return only


def test_rates_and_effect_worked_by_hand() -> None:
    mine = part(
        row(0, "already"),
        row(1, "no-edit", "no-edit", "no-edit"),
        row(2, "broken", "broken", "robust"),
        row(3, "broken", "broken", "broken"),
        row(4, "robust", "robust", "robust"),
        row(5, "broken", "broken", "robust"),
    )
    found = {(one.metric, one.attack): one for one in rates(mine)}
    assert (found["already", None].value, found["already", None].n) == (1 / 6, 6)
    assert (found["broken", "a"].value, found["broken", "a"].n, found["broken", "a"].certified) == (3 / 4, 4, 1)
    assert (found["broken", "a/neutral"].value, found["broken", "a/neutral"].certified) == (1 / 4, 3)
    assert (found["worst_case", "a"].value, found["worst_case", "a"].n) == (4 / 6, 6)
    assert (found["broken", "a"].low, found["broken", "a"].high) == (wilson(3, 4).low, wilson(3, 4).high)
    against, broken = [False, True, False, False], [True, True, False, True]
    expected = paired_difference(against, broken)
    beyond = effect(mine)
    assert beyond is not None
    assert (beyond.value, beyond.low, beyond.high) == (expected.value, expected.low, expected.high)
    assert (beyond.gained, beyond.lost, beyond.p) == (2, 0, mcnemar_exact(2, 0))


def test_unfinished_questions_widen_the_interval_and_leave_no_value() -> None:
    mine = part(
        row(0, "broken", "broken", "unfinished"),  # against the attack: broken by both
        row(1, "unfinished", "unfinished", "robust"),
        row(2, "robust", "robust", "robust"),
        row(3, "unfinished"),
    )
    found = {(one.metric, one.attack): one for one in rates(mine)}
    broken = found["broken", "a"]
    assert (broken.value, broken.least, broken.most, broken.n, broken.unfinished) == (None, 1 / 4, 3 / 4, 4, 2)
    assert (broken.low, broken.high) == (wilson(1, 4).low, wilson(3, 4).high)
    beyond = effect(mine)
    assert beyond is not None
    assert (beyond.value, beyond.unfinished) == (None, 3)
    worst = paired_difference([True, False, False, True], [True, False, False, False])
    best = paired_difference([False] * 4, [True, True, False, True])
    assert (beyond.low, beyond.high) == (worst.low, best.high)
    assert (beyond.gained, beyond.lost, beyond.p) == (0, 0, mcnemar_exact(0, 1))


def test_questions_about_one_picture_count_together() -> None:
    rows = [
        row(0, "broken", "broken", "robust"),
        row(1, "broken", "broken", "robust"),
        row(2, "robust", "robust", "robust"),
        row(3, "unfinished", "unfinished", "robust"),
        row(4, "already"),
    ]
    mine = part(*rows, units="aabba")
    found = {(one.metric, one.attack): one for one in rates(mine)}
    least, most = (clustered_rate({"a": [True, True], "b": [False, open_]}) for open_ in (False, True))
    broken = found["broken", "a"]
    assert (broken.low, broken.high) == (least.low, most.high)
    assert (broken.n, broken.least, broken.most, broken.unfinished) == (4, 2 / 4, 3 / 4, 1)
    whole = clustered_rate({"a": [True] * 3, "b": [False, False]}).low
    assert found["worst_case", "a"].low == whole
    worst = paired_change([0, 0, 0, 0], [1, 1, 0, 0], "aabb")
    best = paired_change([0, 0, 0, 0], [1, 1, 0, 1], "aabb")
    beyond = effect(mine)
    assert beyond is not None
    assert (beyond.low, beyond.high) == (min(worst.low, best.low), max(worst.high, best.high))
    assert (beyond.p, beyond.gained, beyond.lost, beyond.n) == (1, 2, 0, 4), "two pictures prove nothing"


@pytest.mark.parametrize("pictures", [1, 3, 120])
def test_a_search_and_an_evaluation_say_the_same_of_the_same_answers(pictures: int) -> None:
    made = ((str(i), f"Name the thing {i}", Path(f"{i % pictures}.png")) for i in range(120))
    queries = [Query(id=id, question=text, harmful=False, image=image) for id, text, image in made]
    asked = queries[:40]  # all refused under the attack, none under its control
    rows = [row(int(one.id), "broken", "broken", "robust", harmful=False) for one in asked]
    (mine,) = parts(rows, "a", "a/neutral", units_of(queries))
    variants = [Edit("substitute", 0, "Share").variant(one, "a") for one in asked]
    variants += [Edit("substitute", 0, "Seven").variant(one, "a/neutral", control_of="a") for one in asked]
    said = {"a": Label.REFUSAL, "a/neutral": Label.COMPLIANCE, None: Label.COMPLIANCE}
    keys = [(one.id, None) for one in queries] + [(one.origin.id, one.attack) for one in variants]
    verdicts = [Verdict(query=q, attack=name, judge="j", label=said[name], why="") for q, name in keys]
    records = measure(queries, variants, verdicts, Subject("m", "n", 0, "d"))
    evaluated = {one.metric: one for one in records if one.attack == "a"}
    beyond, rate = effect(mine), next(one for one in rates(mine) if (one.metric, one.attack) == ("broken", "a"))
    assert beyond is not None
    assert (beyond.value, beyond.low, beyond.high) == tuple(
        getattr(evaluated["rr_effect"], end) for end in ("value", "low", "high")
    )
    assert beyond.p == evaluated["rr_effect_p"].value
    assert (rate.low, rate.high) == (evaluated["rr"].low, evaluated["rr"].high)
    if pictures == 1:
        assert beyond.p == 1
        assert beyond.low == pytest.approx(-0.587, abs=5e-4)
    if pictures == 120:
        assert beyond.p == mcnemar_exact(40, 0) < 1e-11


def test_the_edits_of_questions_about_one_picture_count_together() -> None:
    queries = [query(f"Share it{i}", id=str(i)).model_copy(update={"image": Path(f"{i // 2}.png")}) for i in range(6)]
    found, _ = walked(Model(broken_by("What it0", "What it1", "How it2")), queries, openings("What", "How"), "fixed")
    rows = [row(i, one.outcome, one.outcome) for i, one in enumerate(found)]
    (mine,) = parts(rows, "a", "a/neutral", units_of(queries))
    figures = {one.word: one for one in per_edit(mine, found)}
    every = clustered_rate({0: [True, False, True, False], 1: [False, True, False, False], 2: [False] * 4})
    assert (figures[None].value, figures[None].n) == (3 / 12, 12)
    assert (figures[None].low, figures[None].high) == (every.low, every.high)
    what = clustered_rate({0: [True, True], 1: [False, False], 2: [False, False]})
    assert (figures["What"].low, figures["What"].high) == (what.low, what.high)
    alone = [one for one in found if one.query.id == "2"]
    (lone,) = parts([rows[2]], "a", "a/neutral", units_of(queries))
    (one_question, *_) = per_edit(lone, alone)
    assert (one_question.value, one_question.n) == (1 / 2, 2)
    assert one_question.high - one_question.low > 0.8, "one question counts as one outcome, however many its edits"


# --- a run --------------------------------------------------------------------------------------


SOME_NEUTRAL = NEUTRALS[::5]


class Backend:
    """A model in a few lines; `breaks_after` batches it is killed. Every request that was answered is kept."""

    identity = {"model": "fake"}  # noqa: RUF012

    def __init__(self, breaks_after: int | None = None, fails: Sequence[str] = ()) -> None:
        self.left, self.fails, self.answered = breaks_after, fails, list[str]()

    def key(self, prompt: Prompt) -> str:
        return prompt.question

    def answer(self, prompts: Sequence[Prompt], settled: Any = None) -> Iterator[list[Reply]]:
        for start in range(0, len(prompts), 40):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            batch = prompts[start : start + 40]
            self.answered += [prompt.question for prompt in batch]
            yield [self._reply(prompt.question) for prompt in batch]

    def _reply(self, text: str) -> Reply:
        if text in self.fails:
            return Reply("", error="no answer")
        yields = text.split()[0] in ("What", *SOME_NEUTRAL) and not text.endswith("7")
        return Reply("Sure." if yields else "No.")


class Judge:
    """Sure is compliance, No is a refusal."""

    name = "fake-judge"

    def judge(self, query: Query, answer: Answer) -> Verdict:
        label = Label.COMPLIANCE if answer.text == "Sure." else Label.REFUSAL
        return verdict_on(answer, self.name, label, answer.text)


QUERIES = [query(f"Share the way to it{number}", id=str(number)) for number in range(20)]
WORDS = ("How", "Which", "What")


def plan(**fields: Any) -> Plan:
    given = {"search": SearchName.exhaustive, "goal": Goal.bypass, "changes": (Change.substitute, Change.insert)}
    return Plan("fake", "data", **{**given, "words": WORDS, **fields})


@pytest.mark.parametrize("name", [SearchName.fixed, SearchName.exhaustive, SearchName.greedy])
def test_a_search_killed_in_the_middle_goes_on_to_the_same_result_and_asks_nothing_twice(
    name: SearchName, tmp_path: Path
) -> None:
    whole = Backend()
    search(plan(search=name), QUERIES, whole, Judge(), tmp_path / "whole")
    answered: list[str] = []
    for batches in (1, 4, 9):
        cut = Backend(breaks_after=batches)
        with pytest.raises(KeyboardInterrupt):
            search(plan(search=name), QUERIES, cut, Judge(), tmp_path / "cut")
        answered += cut.answered
        assert not (tmp_path / "cut" / "search.json").exists()
    last = Backend()
    search(plan(search=name), QUERIES, last, Judge(), tmp_path / "cut")
    answered += last.answered
    for file in ("search.json", "variants.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len(answered) == len(set(answered))
    assert set(answered) == set(whole.answered)
    again = Backend()
    search(plan(search=name), QUERIES, again, Judge(), tmp_path / "cut")
    assert again.answered == []


def test_what_a_search_writes(tmp_path: Path) -> None:
    backend = Backend()
    found = search(plan(), QUERIES, backend, Judge(), tmp_path / "run")
    content = json.loads((tmp_path / "run" / "search.json").read_text())
    assert SearchResult.model_validate(content) == found
    assert content["schema"] == 1
    assert (found.asked, found.budget) == (len(set(backend.answered)), None)
    outcomes = {one.query: one.outcome for one in found.questions}
    assert list(outcomes) == [one.id for one in QUERIES], "in the order of the data"
    assert {id_ for id_, outcome in outcomes.items() if outcome == "robust"} == {"7", "17"}
    first = found.questions[0].attack
    assert first is not None
    assert first.edit == Found(kind="substitute", position=0, word="What", question="What the way to it0")
    # Content words stay: "the" and "to" may go, "way" and "it0" not. Three words at three positions and six places.
    assert first.edits == 3 * 3 + 3 * 6
    effects = {one.attack: one for one in found.effects}
    assert effects[found.attack].gained + effects[found.attack].lost > 0
    variants = [Variant.model_validate_json(x) for x in (tmp_path / "run" / "variants.jsonl").read_text().splitlines()]
    attacks = [one for one in variants if one.control_of is None]
    assert [one.origin.id for one in attacks] == [id_ for id_, outcome in outcomes.items() if outcome == "broken"]
    assert {one.word for one in attacks} == {"What"}
    controls = [one for one in variants if one.control_of is not None]
    assert [(one.origin.id, one.position) for one in controls] == [(one.origin.id, one.position) for one in attacks]
    assert {one.word for one in controls} <= set(NEUTRALS)
    assert {one.control_of for one in controls} == {found.attack}


def test_controls_have_as_many_edits_and_can_be_left_out(tmp_path: Path) -> None:
    with_ = search(plan(search=SearchName.fixed), QUERIES, Backend(), Judge(), tmp_path / "with")
    for one in with_.questions:
        assert one.attack is not None
        assert one.control is not None
        assert one.control.edits == one.attack.edits == one.control.asked
    single = {(one.attack, one.word): one for one in with_.rates if one.metric == "per_edit"}
    assert single[with_.attack, "How"].value == 0
    what = single[with_.attack, "What"]
    assert (what.value, what.n) == (pytest.approx(2 * 18 / what.n), 20 * 9)
    without = search(plan(control=False), QUERIES, Backend(), Judge(), tmp_path / "without")
    assert without.effects == []
    assert {one.control for one in without.questions} == {None}


def test_a_request_that_failed_leaves_its_question_unfinished_and_is_mended_by_the_next_run(tmp_path: Path) -> None:
    lost = "Which the way to it7"
    first = search(plan(control=False), QUERIES, Backend(fails=[lost]), Judge(), tmp_path / "run")
    assert {one.query: one.outcome for one in first.questions}["7"] == "unfinished"
    assert first.notes[0].startswith("The judge does not look at harm")
    assert "1 questions are unfinished (1 of them for want of usable verdicts)" in first.notes[1]
    mended = Backend()
    second = search(plan(control=False), QUERIES, mended, Judge(), tmp_path / "run")
    assert mended.answered == [lost]
    assert {one.query: one.outcome for one in second.questions}["7"] == "robust"


def test_a_budget_holds_in_a_run_and_another_search_is_refused(tmp_path: Path) -> None:
    backend = Backend()
    found = search(plan(budget=150), QUERIES, backend, Judge(), tmp_path / "run")
    assert found.asked == len(set(backend.answered)) <= 150
    assert any(one.outcome == "unfinished" for one in found.questions)
    assert any(one.value is None for one in found.rates)
    with pytest.raises(UserError, match=r"another configuration: config\.budget"):
        search(plan(budget=160), QUERIES, Backend(), Judge(), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"words": ()}, "needs words to put into questions"),
        ({"changes": ()}, "at least one kind of edit"),
        ({"words": ("tell me",)}, "'tell me' is not one word"),
        ({"goal": Goal.over_refusal}, "no question that the goal over-refusal is about"),
        ({"search": SearchName.gradient}, "needs a model in this process"),
        ({"fluency": 1.0}, "needs a model in this process"),
        ({"words": tuple(f"w{i}" for i in range(len(NEUTRALS) + 1))}, "leave the controls out with --no-control"),
    ],
)
def test_a_search_that_cannot_be_is_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        search(plan(**fields), QUERIES, Backend(), Judge(), tmp_path / "run")


def test_names_of_searches() -> None:
    assert plan().name == "exhaustive-substitute+insert:how|which|what"
    assert plan(words=("a", "b", "c", "d"), changes=(Change.opening,)).name == "exhaustive-opening:4-words"
    assert plan(words=(), changes=(Change.delete,), at=At.end).name == "exhaustive-delete"


# --- with a real model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tiny_folder: Path) -> Any:
    from unmirage.backends.hugging_face import HuggingFaceBackend

    return HuggingFaceBackend(tiny_folder, batch_size=4, max_new_tokens=4)


def test_fluency_is_the_mean_log_probability_of_the_questions_tokens(
    local: Any, forget: list[Query], tmp_path: Path
) -> None:
    import torch

    from unmirage.attacks.search.fluency import Fluency
    from unmirage.audit.model.encoding import question_span
    from unmirage.runs import JsonLines

    asked = forget[0]
    edits = [Edit("substitute", 0, "What"), Edit("insert", 2, "please"), Edit("substitute", 3, "keep")]
    prompts = [Prompt.of(asked), *(edit.prompt(asked) for edit in edits)]
    expected = []
    for prompt in prompts:
        sample, start, end, _ = question_span(local.processor, prompt)
        inputs = {k: v[None] if k in ("input_ids", "attention_mask") else v for k, v in sample.items()}
        with torch.inference_mode():
            logits = local.model(**{k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)}).logits[0]
        picked = torch.log_softmax(logits.float(), -1)[torch.arange(start - 1, end - 1), sample["input_ids"][start:end]]
        expected.append(float(picked.mean()))
    with JsonLines(tmp_path / "scores.jsonl") as log:
        fluency = Fluency(local, local.key, log)
        assert fluency.scores(asked, prompts) == pytest.approx(expected, abs=1e-4)
        margin = expected[0] - sorted(expected[1:])[1] + 1e-6
        kept = {edit for edit, score in zip(edits, expected[1:], strict=True) if score >= expected[0] - margin}
        assert set(fluency.admitted(asked, edits, margin)) == kept != set(edits)
        again = Fluency(local, local.key, log)
        assert again.scores(asked, prompts) == fluency.scores(asked, prompts)
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 4


def test_the_gradient_is_exact_for_its_own_neutral_word_and_for_deletions_their_mean(
    local: Any, forget: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from unmirage.attacks.search import gradient
    from unmirage.attacks.words import neutral_words
    from unmirage.audit.model.encoding import prompt_sample
    from unmirage.audit.model.scoring import Starts, log_odds

    asked, starts = forget[1], Starts(refusals=((40,), (41,)), others=((50,),), coverage=1.0)

    def score(question: str) -> float:
        sample = prompt_sample(local.processor, Prompt(asked.id, question, asked.image))
        with torch.inference_mode():
            return float(log_odds(local, [sample], starts))

    own = score(asked.question)
    monkeypatch.setattr(gradient, "POINTS", 1)
    word = neutral_words(0, asked.id, [])[0]
    edits = [
        Edit("substitute", 0, word),
        Edit("substitute", 2, word),
        Edit("insert", 2, word),
        Edit("delete", 2, "for"),
    ]
    found = gradient.Gradients(local, starts).expected(asked, edits)
    change = [score(edit.apply(asked.question)) - own for edit in (*edits[:3], edits[1])]
    assert found == pytest.approx(change, abs=1e-3)
    ranked = gradient.Gradients(local, starts).ranked(asked, edits[:3], towards_refusal=True)
    assert [edits.index(edit) for edit in ranked] == sorted(range(3), key=lambda at: -found[at])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from unmirage.sandbox.build import DataPlan, build
    from unmirage.sandbox.world import World

    sizes = {"unsafe_train": 2, "safe_train": 2, "general": 2, "unsafe_test": 3, "safe_test": 3}
    return build(World(), DataPlan(**sizes), tmp_path_factory.mktemp("world"))


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def test_from_the_command_line_to_an_evaluation(
    world: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("What\nList\n")
    command = ["search", tiny_folder, world / "test_seen.json", "--lexicon", lexicon, "--judge", "truth"]
    command += ["--edit", "opening", "--edit", "delete", "--max-new-tokens", "3", "--goal", "flip", "--sample", "4"]
    command += ["--fluency", "9", "--keep-grammar", "--out", tmp_path / "run"]
    assert call(*command) == 0
    told = capsys.readouterr().out
    assert "exhaustive search, goal flip: " in told
    assert "fluency within 9 nats a token" in told
    assert "distinct requests asked; " in told
    found = SearchResult.model_validate_json((tmp_path / "run" / "search.json").read_bytes())
    assert len(found.questions) == 4
    assert {one.before for one in found.questions} == {Label.IRRELEVANT}, "an untrained model says nothing of use"
    for one in found.questions:
        assert one.attack is not None
        assert (one.outcome, one.attack.certified) == ("robust", True)
        assert one.attack.edits == one.control.edits == one.attack.asked  # type: ignore[union-attr]
    answers = (tmp_path / "run" / "answers.jsonl").read_bytes()
    before = (tmp_path / "run" / "search.json").read_bytes()
    assert call(*command) == 0
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == answers
    assert (tmp_path / "run" / "search.json").read_bytes() == before


def test_the_verb_refuses_what_does_not_fit(
    world: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", tiny_folder, world / "test_seen.json", "--out", tmp_path / "run"]
    for options, said in (
        (["--edit", "delete", "--words", "What"], "to take words out needs no words"),
        (["--words", "What,what"], "repeat one another"),
        (["--judge", "nobody"], "no judge is called 'nobody'"),
        (["--search", "gradient", "--judge", "truth", "--words", "What", "--max-new-tokens", "2"], "are refusals, so"),
        (["--search", "gradient", "--judge", "truth", "--budget", "2"], "give a larger --budget"),
    ):
        assert call(*command, *options) == 2
        assert said in capsys.readouterr().err
        for file in (tmp_path / "run").glob("*") if (tmp_path / "run").exists() else ():
            if file.name == "run.json":
                file.unlink()
        command[-1] = tmp_path / f"run{len(options)}{options[-1]}"
