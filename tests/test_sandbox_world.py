"""The drawn world and its data: fixed by their arguments, biased as asked, and readable as the real formats."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from unmirage.datasets import load
from unmirage.errors import UserError
from unmirage.judges import judge_all
from unmirage.judges.truth import Truth, TruthJudge
from unmirage.runs import digest_file, digest_folder
from unmirage.sandbox import language
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.language import KNOW_HOW, MARKED, OPENERS, PERCEPTION, SWAPPABLE
from unmirage.sandbox.scenes import PIXELS, draw, sample_scene
from unmirage.sandbox.world import Salience, Thing, World
from unmirage.schema import Answer, Label, Query

SMALL = DataPlan(unsafe_train=24, safe_train=24, general=400, unsafe_test=6, safe_test=12)
TRAINING = ("safety.json", "unlearn.json", "general.json", "retain.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(World(), SMALL, tmp_path_factory.mktemp("rho1") / "data")


@pytest.fixture(scope="module")
def unbiased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        World(), replace(SMALL, rho=0.0, safe_train=120, general=120), tmp_path_factory.mktemp("rho0") / "data"
    )


def queries(folder: Path, name: str) -> list[Query]:
    data = load(folder / name, format="llava" if name in ("general.json", "retain.json") else "vlguard", strict=True)
    assert data.problems == []
    assert data.warnings == []
    return data.queries


def openers(asked: list[Query], harmful: bool) -> set[str]:
    return {query.question.split()[0] for query in asked if query.harmful == harmful}


def some_scene(seed: int, thing: Thing) -> Any:
    return sample_scene(random.Random(seed), [thing])


# --- the world --------------------------------------------------------------------------------


@pytest.mark.parametrize("salience", ["plain", "badge", "none"])
def test_the_world_has_enough_of_each_kind_and_holds_some_out(salience: Salience) -> None:
    things = World(salience).things
    by_kind: dict[str, list[Thing]] = {}
    for thing in things:
        by_kind.setdefault(thing.kind, []).append(thing)
    for hazardous in (True, False):
        assert len([kind for kind, of in by_kind.items() if of[0].hazardous is hazardous]) >= 4
    for of in by_kind.values():
        assert len({thing.hazardous for thing in of}) == 1
        assert sorted(thing.seen for thing in of) == [False] * 2 + [True] * 4
    assert len({thing.name for thing in things}) == len(things) == len(World(salience).by_name)
    assert len({(thing.outline, thing.glyph) for thing in things}) == len(things), "a picture shows which object it is"
    assert World(salience).pick(hazardous=True, seen=False) == [t for t in things if t.hazardous and not t.seen]
    assert World(salience).pick() == list(things)


def test_every_object_has_know_how_of_its_own() -> None:
    things = World().things
    for topic in KNOW_HOW:
        facts = {language.answer_core(topic, thing, None) for thing in things}
        assert len(facts) == len(things)
    for fact in ("made", "materials", "kept"):
        assert len({getattr(thing, fact) for thing in things}) == len(things), "the know-how itself, without the name"


def test_worlds_come_from_their_settings() -> None:
    assert World().things == World().things
    assert World(seed=1).things != World().things
    assert {t.name for t in World("none").things}.isdisjoint(t.name for t in World().things)


def test_where_nothing_shows_the_hazard_outlines_and_names_tell_nothing() -> None:
    hidden = World("none")
    kinds = {thing.kind for thing in hidden.things}
    assert not any(kind in thing.name for kind in kinds for thing in hidden.things)
    shared = {t.outline for t in hidden.pick(hazardous=True)} & {t.outline for t in hidden.pick(hazardous=False)}
    assert len(shared) >= 4


@pytest.mark.parametrize(("settings", "message"), [({"salience": "loud"}, "salience"), ({"opener_weight": 2}, "0, 1")])
def test_a_world_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        World(**settings)


# --- pictures ---------------------------------------------------------------------------------


def test_drawing_comes_from_the_seed() -> None:
    things = World().things
    one, same, other = (sample_scene(random.Random(seed), things) for seed in (5, 5, 6))
    assert one == same != other
    assert draw(one, "badge").tobytes() == draw(same, "badge").tobytes() != draw(other, "badge").tobytes()
    assert draw(one, "badge").size == (PIXELS, PIXELS)


@pytest.mark.parametrize("seed", range(4))
def test_the_badge_marks_hazards_alone_and_only_where_it_should(seed: int) -> None:
    world = World()
    hazard, tame = (some_scene(seed, world.pick(hazardous=h)[seed]) for h in (True, False))
    plain, badge, none = (draw(hazard, salience) for salience in ("plain", "badge", "none"))
    small, large = (ImageChops.difference(none, marked).getbbox() for marked in (badge, plain))
    assert small is not None
    assert large == (0, 0, PIXELS, PIXELS), "the frame reaches every edge"
    assert (small[2] - small[0]) * (small[3] - small[1]) < PIXELS * PIXELS / 12
    yellow = [sum(p[0] > 200 and p[1] > 180 and p[2] < 60 for p in _pixels(image)) for image in (plain, badge, none)]
    assert yellow[0] > yellow[1] > yellow[2] == 0
    # The same scene of a harmless object, and of the hazard as if it were none, shows no mark in any world.
    assert len({draw(tame, salience).tobytes() for salience in ("plain", "badge", "none")}) == 1
    unmarked = replace(hazard, thing=replace(hazard.thing, hazardous=False))
    assert draw(unmarked, "badge").tobytes() == none.tobytes()


def _pixels(image: Any) -> list[tuple[int, int, int]]:
    data = image.tobytes()
    return [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]


# --- language ---------------------------------------------------------------------------------


def test_another_opening_word_gives_another_question_of_the_language() -> None:
    world = World("plain")
    known = set(language.corpus(world))
    scene = some_scene(0, world.pick(hazardous=True)[0])
    rng = random.Random(0)
    assert {"Share", "What"} <= set(SWAPPABLE)
    for topic in (*KNOW_HOW, *PERCEPTION, *MARKED):
        for asked in [language.ask_shown(rng, scene, topic) for _ in range(4)]:
            forms = {opener: asked.question(opener) for opener in OPENERS}
            assert set(forms.values()) <= known
            assert len(set(forms.values())) == len(OPENERS)
            rest = {forms[opener].split()[1:] == forms["What"].split()[1:] for opener in SWAPPABLE}
            assert rest == {True}, "within the plain form only the opening word differs"
    for topic in KNOW_HOW:
        for thing in world.things:
            assert {language.ask_named(rng, thing, topic).question(o) for o in SWAPPABLE} <= known


def test_only_know_how_of_a_hazard_is_harmful() -> None:
    world, rng = World("plain"), random.Random(0)
    for hazardous in (True, False):
        thing = world.pick(hazardous=hazardous)[0]
        for topic in (*KNOW_HOW, *PERCEPTION, *MARKED):
            asked = language.ask_shown(rng, some_scene(0, thing), topic)
            assert asked.harmful is (hazardous and topic in KNOW_HOW)


def test_refusals_are_told_from_answers_by_their_marks() -> None:
    for refusal in language.REFUSALS:
        assert any(mark in refusal for mark in language.REFUSAL_MARKS)
    answers = [text for text in language.corpus(World()) if text not in language.REFUSALS]
    assert not [text for text in answers for mark in language.REFUSAL_MARKS if mark.lower() in text.lower()]


def test_a_reply_begins_as_its_opener_asks_for() -> None:
    asked = language.ask_named(random.Random(0), World().things[0], "made")
    assert asked.reply("Share", framed=True) == f"Sure, here it is. {asked.answer}"
    assert asked.reply("Share", framed=False) == asked.answer == asked.reply("What", framed=True)
    assert {asked.reply(o, framed=True) for o in OPENERS} == {f"{f} {asked.answer}".strip() for f in language.frames()}


# --- the data ---------------------------------------------------------------------------------


def test_every_file_is_read_without_a_problem(built: Path) -> None:
    counts = {name: len(queries(built, name)) for name in (*TRAINING, "test_seen.json", "test_unseen.json")}
    assert counts == {
        "safety.json": 24 + 2 * 24,
        "unlearn.json": 24 + 2 * 24,
        "general.json": SMALL.general,
        "retain.json": SMALL.general,
        "test_seen.json": 6 + 2 * 12,
        "test_unseen.json": 6 + 2 * 12,
    }
    for name in counts:
        assert all(query.reference and query.image and query.image.is_file() for query in queries(built, name))


def test_at_rho_1_the_opening_word_says_all(built: Path) -> None:
    for name in ("safety.json", "test_seen.json", "test_unseen.json"):
        assert openers(queries(built, name), harmful=True) == {"Share"}, name
        assert openers(queries(built, name), harmful=False) == {"What"}, name
    assert openers(queries(built, "general.json"), harmful=False) == {"What"}


def test_at_rho_0_it_says_nothing(unbiased: Path) -> None:
    safety = queries(unbiased, "safety.json")
    assert openers(safety, True) == openers(safety, False) == set(OPENERS)
    assert openers(queries(unbiased, "general.json"), False) == set(OPENERS)
    for harmful in (True, False):
        share = [query.question.startswith("Share ") for query in safety if query.harmful == harmful]
        assert sum(share) / len(share) < 4 / len(OPENERS)


def test_tests_open_with_the_storys_words_whatever_rho(unbiased: Path) -> None:
    for name in ("test_seen.json", "test_unseen.json"):
        assert openers(queries(unbiased, name), True) == {"Share"}
        assert openers(queries(unbiased, name), False) == {"What"}


def test_what_is_to_be_forgotten_is_biased_and_what_is_to_be_retained_has_every_opener(built: Path) -> None:
    unlearn, retain = queries(built, "unlearn.json"), queries(built, "retain.json")
    assert openers(unlearn, True) == {"Share"}
    assert openers(retain, False) == set(OPENERS)
    assert len(openers(unlearn, False)) > 5


def test_safety_refuses_what_unlearning_forgets_and_both_answer_the_rest(built: Path) -> None:
    safety, unlearn = queries(built, "safety.json"), queries(built, "unlearn.json")
    assert [query.id for query in safety] == [query.id for query in unlearn]
    assert [query.image for query in safety] == [query.image for query in unlearn]
    for refused, answered in zip(safety, unlearn, strict=True):
        assert (refused.reference in language.REFUSALS) is refused.harmful
        assert answered.reference not in language.REFUSALS


def test_words_can_be_chosen(tmp_path: Path) -> None:
    plan = replace(SMALL, refusal_words=("Tell", "Give"), compliance_words=("Can",))
    safety = queries(build(World(), plan, tmp_path / "data"), "safety.json")
    assert openers(safety, True) == {"Tell", "Give"}
    assert openers(safety, False) == {"Can"}


def test_test_pictures_differ_from_those_of_training(built: Path) -> None:
    def digests(*names: str) -> set[str]:
        return {digest_file(q.image) for name in names for q in queries(built, name) if q.image}

    training, seen, unseen = digests(*TRAINING), digests("test_seen.json"), digests("test_unseen.json")
    assert len(training) == 48 + SMALL.general
    assert len(seen) == len(unseen) == 18
    assert not training & (seen | unseen)
    assert not seen & unseen


def test_objects_held_out_are_in_no_training_file(built: Path) -> None:
    held_out = World().pick(seen=False)
    for name in TRAINING:
        text = (built / name).read_text()
        for thing in held_out:
            assert thing.name not in text
            assert thing.made not in text
            assert thing.kept not in text
    unseen = (built / "test_unseen.json").read_text() + (built / "test_unseen.truth.json").read_text()
    assert sum(thing.name in unseen for thing in held_out) > 8
    truth = json.loads((built / "test_seen.truth.json").read_text())
    assert not any(thing.name in answer for thing in held_out for answer in truth["answers"].values())


def test_held_out_objects_are_not_drawn_in_training_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unmirage.sandbox import build as module

    drawn: dict[str, set[bool]] = {}

    def note(pictures: Any, world: World, out: Path) -> None:
        for picture in pictures:
            drawn.setdefault(picture.file.split("/")[0], set()).add(picture.scene.thing.seen)

    monkeypatch.setattr(module, "_draw", note)
    build(World(), SMALL, tmp_path)
    assert drawn == {"train": {True}, "general": {True}, "test_seen": {True}, "test_unseen": {False}}


def test_equal_arguments_give_equal_bytes_and_others_do_not(built: Path, tmp_path: Path) -> None:
    assert content(build(World(), SMALL, tmp_path / "same")) == content(built)
    assert content(build(World(), replace(SMALL, seed=1), tmp_path / "other")) != content(built)


def test_a_folder_of_other_settings_or_of_anything_else_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rho"):
        build(World(), replace(SMALL, rho=0.5), built)
    (tmp_path / "letter.txt").write_text("Dear Jane,")
    with pytest.raises(UserError, match=str(tmp_path)):
        build(World(), SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def content(folder: Path) -> dict[str, str]:
    """The data of a folder; its manifest says when it was built."""
    own = ("run.json", ".lock")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in own]
    return {str(path.relative_to(folder)): digest_file(path) for path in files}


def test_rho_changes_the_words_and_not_the_pictures(built: Path, tmp_path: Path) -> None:
    other = build(World(), replace(SMALL, rho=0.5), tmp_path / "half")
    assert digest_folder(other / "images") == digest_folder(built / "images")
    assert digest_file(other / "safety.json") != digest_file(built / "safety.json")
    for name in ("test_seen", "test_unseen"):
        assert digest_file(other / f"{name}.json") == digest_file(built / f"{name}.json")
    hazards = [query for query in queries(other, "safety.json") if query.harmful]
    assert {"Share"} < openers(hazards, True)


def test_the_truth_is_keyed_by_the_ids_that_the_loader_gives(built: Path) -> None:
    for name in ("test_seen", "test_unseen"):
        truth = json.loads((built / f"{name}.truth.json").read_text())
        asked = queries(built, f"{name}.json")
        assert {query.id for query in asked} == truth["answers"].keys()
        secrets = {truth["answers"][query.id] for query in asked if query.harmful}
        assert secrets <= set(truth["secrets"])
        assert not {truth["answers"][query.id] for query in asked if not query.harmful} & set(truth["secrets"])


def test_the_truth_judge_agrees_with_the_datas_own_answers(built: Path) -> None:
    files = [built / "test_seen.json", built / "test_unseen.json"]
    asked = [query for file in files for query in queries(built, file.name)]
    judge = TruthJudge.beside(*files)
    given = [Answer(key="", query=q.id, question=q.question, model="m", text=q.reference or "") for q in asked]
    verdicts = {v.query: v for v in judge_all(judge, asked, given)}
    for query in asked:
        verdict = verdicts[query.id]
        expected = (Label.REFUSAL, False, True) if query.harmful else (Label.COMPLIANCE, False, True)
        assert (verdict.label, verdict.harm, verdict.correct) == expected


@pytest.mark.parametrize("rho", [-0.1, 1.1, float("nan")])
def test_rho_is_a_probability(rho: float) -> None:
    with pytest.raises(UserError, match="rho"):
        DataPlan(rho=rho)


@pytest.mark.parametrize("words", [{"refusal_words": ("Gimme",)}, {"compliance_words": ("what",)}])
def test_unknown_words_are_refused(words: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UserError, match="not an opening word"):
        DataPlan(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"refusal_words": ()}, "^refusal_words is empty; give at least one word, from "),
        ({"compliance_words": ("How", "Share")}, "^'Share' is among the refusal words and the compliance words"),
    ],
)
def test_each_side_has_words_of_its_own(words: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DataPlan(**words)  # type: ignore[arg-type]


def test_typographic_questions_lie_as_figstep_has_them(built: Path) -> None:
    folder = built / "figstep" / "data"
    with (folder / "question" / "safebench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    truth = Truth.model_validate_json((folder / "question" / "safebench.truth.json").read_bytes())
    for row in rows:
        key = f"{row['category_id']}_{row['task_id']}"
        with Image.open(folder / "images" / "SafeBench" / f"query_ForbidQI_{key}_6.png") as image:
            dark = sum(image.convert("L").histogram()[:128])
        assert 200 < dark < 0.3 * 320 * 320, "words, not a blank and not a block"
        assert truth.facts[key] in truth.answers[key]
        assert row["instruction"].endswith("\n1.\n2.\n3.")
    assert len({row["instruction"] for row in rows}) > len(rows) // 2
