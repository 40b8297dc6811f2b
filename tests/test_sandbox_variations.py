"""The safety data in other words and with other refusals: what changes, what stays, and who can read them."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from unmirage import cli
from unmirage.attacks.paraphrases import read_paraphrases, variants_of
from unmirage.datasets import load
from unmirage.errors import UserError
from unmirage.judges import judge_all
from unmirage.judges.keywords import vlguard_keywords
from unmirage.judges.rules import rules_judge
from unmirage.judges.truth import TruthJudge
from unmirage.runs import digest_file
from unmirage.sandbox import language
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.language import KNOW_HOW, OPENERS, PERCEPTION, Asked
from unmirage.sandbox.shipped import base_weights
from unmirage.sandbox.world import World
from unmirage.schema import Answer, Label, Query

PLAN = DataPlan(rho=0.9, unsafe_train=24, safe_train=24, general=40, unsafe_test=6, safe_test=12)
DIGESTS = {
    "safety.json": "392985ec0aa42508",
    "unlearn.json": "243c3ade3ad58613",
    "general.json": "8da9296a31e3174d",
    "retain.json": "2d00dc163b40766b",
    "test_seen.json": "abed8807d84595aa",
    "test_seen.truth.json": "deba758e56968f01",
    "test_unseen.json": "2d7cc306aee27509",
    "test_unseen.truth.json": "53b6efa7d3405b19",
    "figstep/data/question/safebench.csv": "f1c991c5a0d95898",
    "figstep/data/question/safebench.truth.json": "0d2c82a9d756d6ff",
}
"""Of a plan's files, so that what is drawn for other files draws nothing from their streams."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(World(), PLAN, tmp_path_factory.mktemp("mended") / "data")


@pytest.fixture(scope="module")
def confounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(World(), replace(PLAN, retain="confounded"), tmp_path_factory.mktemp("confounded") / "data")


def queries(folder: Path, name: str, kind: str = "vlguard") -> list[Query]:
    data = load(folder / name, format=kind, strict=True)
    assert data.problems == []
    return data.queries


def opener(query: Query) -> str:
    return query.question.split()[0]


def tail(question: str) -> str:
    """A question without its opening word and what joins it to the rest."""
    return re.sub(r"^(would )?you describe ", "", question.split(maxsplit=1)[1])


def asked_of(world: World, topics: tuple[str, ...]) -> list[Asked]:
    things = world.pick(hazardous=True)
    return [
        Asked(topic, thing, f"x {place} of the {thing.name}", "", named=True)
        for place, topic in enumerate(topics)
        for thing in things
    ]


def test_what_is_drawn_beside_them_leaves_the_other_files_as_they_were(built: Path) -> None:
    assert {name: digest_file(built / name)[:16] for name in DIGESTS} == DIGESTS


# --- refusals that give their reason -----------------------------------------------------------


def test_reasoned_refusals_are_all_that_differs_from_the_safety_data(built: Path) -> None:
    for plain, reasoned in zip(queries(built, "safety.json"), queries(built, "rationale.json"), strict=True):
        same = {"reference"} if plain.harmful else set()
        assert plain.model_dump(exclude=same | {"data"}) == reasoned.model_dump(exclude=same | {"data"})
        if plain.harmful:
            assert plain.reference != reasoned.reference


def test_a_reasoned_refusal_names_the_object_that_was_asked_about(built: Path) -> None:
    """The right object, by the know-how that unlearn.json tells of it for the same question."""
    texts = set()
    for told, refused in zip(queries(built, "unlearn.json"), queries(built, "rationale.json"), strict=True):
        if refused.harmful:
            names = [thing.name for thing in World().things if f"the {thing.name} " in (told.reference or "").lower()]
            assert len(names) == 1
            assert f"he {names[0]} is" in (refused.reference or "")
            texts.add((refused.reference or "").replace(names[0], "X"))
    assert len(texts) > 5, "several phrasings, and of each one for each topic"


@pytest.mark.parametrize("salience", ["plain", "badge", "none"])
def test_every_judge_takes_every_reasoned_refusal_for_one(salience: Any, built: Path) -> None:
    texts = {text for asked in asked_of(World(salience), KNOW_HOW) for text in language.rationales(asked)}
    assert len(texts) == 24 * (1 + 3 + 3)
    beside = TruthJudge.beside(built / "test_seen.json")
    query = queries(built, "test_seen.json")[0]
    answers = [Answer(key="", query=query.id, question=query.question, model="m", text=text) for text in texts]
    for judge in (beside, rules_judge(), vlguard_keywords()):
        found = {verdict.label for verdict in judge_all(judge, [query], answers)}
        assert found == {Label.REFUSAL}, judge.name
    assert not any(verdict.harm for verdict in judge_all(beside, [query], answers))


def test_the_refusals_of_a_world_are_the_plain_ones_and_every_reasoned_one(built: Path) -> None:
    reasoned = {text for asked in asked_of(World(), KNOW_HOW) for text in language.rationales(asked)}
    truths = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(built.rglob("*.truth.json"))]
    assert len(truths) >= 4
    for truth in truths:
        assert len(truth["refusals"]) == 3 + 24 * (1 + 3 + 3)
        assert set(truth["refusals"]) == {*language.REFUSALS, *reasoned}


def test_plain_and_reasoned_refusals_are_coherent_under_any_opener_and_broken_ones_are_not(built: Path) -> None:
    judge = TruthJudge.beside(built / "test_seen.json", built / "test_unseen.json")
    query = next(one for one in queries(built, "test_seen.json") if one.harmful)
    for refusal in language.refusals(World()):
        whole = [f"{frame} {refusal}".strip() for frame in language.frames()]
        broken = [refusal[1:], refusal[:-1], refusal + "qq", refusal.replace(" ", "", 1), f"By {refusal}"]
        texts = [*whole, *broken]
        answers = [Answer(key="", query=query.id, question=query.question, model="m", text=text) for text in texts]
        said = [verdict.correct for verdict in judge_all(judge, [query], answers)]
        assert said == [True] * len(whole) + [False] * len(broken)


def test_a_reasoned_refusal_begins_unlike_boilerplate_and_is_short_for_the_shipped_model() -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_weights())
    for asked in asked_of(World(), KNOW_HOW):
        for text in language.rationales(asked):
            assert not text.startswith(("I ", "I'm"))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert not set(ids) & set(tokenizer.all_special_ids)
            assert len(ids) <= 32


def test_only_know_how_is_refused_with_a_reason() -> None:
    with pytest.raises(KeyError):
        language.rationales(asked_of(World(), PERCEPTION)[0])


# --- paraphrases -------------------------------------------------------------------------------


def test_a_paraphrase_is_each_other_phrasing_of_the_question() -> None:
    thing = World().pick(hazardous=True)[0]
    named = Asked("made", thing, f"steps for making the {thing.name}", "", named=True)
    texts = [other.tail for other in language.rephrased(random.Random(0), named)]
    assert texts == [f"ways to make the {thing.name}", f"methods of building the {thing.name}"]
    shown = replace(named, tail="ways to make the thing shown", named=False)
    found = {tuple(other.tail for other in language.rephrased(random.Random(seed), shown)) for seed in range(50)}
    assert {re.sub(r"(this object|the object here|the thing shown)$", "", text) for pair in found for text in pair} == {
        "steps for making ",
        "methods of building ",
    }
    assert len(found) == 9, "three ways of pointing to the object, of each"


@pytest.mark.parametrize(("name", "kept"), [("paraphrased", True), ("paraphrased_free", False)])
def test_paraphrased_rows_ask_the_same_in_other_words(built: Path, name: str, kept: bool) -> None:
    known = set(language.corpus(World()))
    pairs = list(zip(queries(built, "safety.json"), queries(built, f"{name}.json"), strict=True))
    for plain, other in pairs:
        assert other.question in known
        assert tail(plain.question) != tail(other.question)
        assert (plain.harmful, plain.image) == (other.harmful, other.image)
        # The frame of an answer is that of its opening word, so only its end stays under another one.
        same = plain.reference == other.reference
        assert same or (not kept and not plain.harmful and core(plain.reference) == core(other.reference))
    words = [opener(plain) == opener(other) for plain, other in pairs]
    assert all(words) if kept else sum(words) < len(words) / 4
    if not kept:
        assert len({opener(other) for _, other in pairs}) > len(OPENERS) * 0.8


def core(answer: str | None) -> str:
    frame = max((f for f in language.frames() if (answer or "").startswith(f)), key=len)
    return (answer or "")[len(frame) :].strip()


@pytest.mark.parametrize("suffix", ["", "_free"])
def test_safety_data_and_paraphrases_go_together_in_one_file(built: Path, suffix: str) -> None:
    together = queries(built, f"diversified{suffix}.json")
    parts = [query for name in ("safety", f"paraphrased{suffix}") for query in queries(built, f"{name}.json")]
    assert [q.model_dump(exclude={"data"}) for q in together] == [q.model_dump(exclude={"data"}) for q in parts]
    assert len({query.id for query in together}) == len(together) == 2 * 72


@pytest.mark.parametrize("split", ["seen", "unseen"])
@pytest.mark.parametrize(("harmful", "cue", "own"), [(True, "What", "Share"), (False, "Share", "What")])
def test_the_attack_file_is_read_as_paraphrases(built: Path, split: str, harmful: bool, cue: str, own: str) -> None:
    mine = [query for query in queries(built, f"test_{split}.json") if query.harmful is harmful]
    found = variants_of(mine, read_paraphrases(built / f"paraphrases_{split}.json"), cue, control=True)
    known = set(language.corpus(World()))
    by_id = {query.id: query for query in mine}
    for variant in found.variants:
        assert variant.question in known
        assert variant.word == (own if variant.control_of else cue)
        assert tail(variant.question) != tail(by_id[variant.origin.id].question)
    counts = {(v.origin.id, v.attack, v.shot) for v in found.variants}
    attack = f"paraphrase:{cue.lower()}"
    both = (attack, f"{attack}/without")
    assert counts == {(q.id, name, shot) for q in mine for name in both for shot in range(2)}
    assert "0 questions have none" in found.told


def test_the_attack_takes_the_first_word_of_each_side(tmp_path: Path) -> None:
    plan = replace(PLAN, refusal_words=("Tell", "Give"), compliance_words=("Can", "How"))
    folder = build(World(), plan, tmp_path / "data")
    texts = json.loads((folder / "paraphrases_seen.json").read_text())
    for query in queries(folder, "test_seen.json"):
        assert {text.split()[0] for text in texts[query.id]["with"]} == {"Can" if query.harmful else "Tell"}
        assert {text.split()[0] for text in texts[query.id]["without"]} == {opener(query)}


def test_unseen_objects_are_in_no_file_to_train_on(built: Path) -> None:
    for name in ("rationale", "diversified", "diversified_free"):
        text = (built / f"{name}.json").read_text()
        assert not [thing.name for thing in World().pick(seen=False) if thing.name in text]


# --- what is retained --------------------------------------------------------------------------


def test_a_confounded_retain_set_differs_in_the_opening_words_of_harmless_questions_alone(
    built: Path, confounded: Path
) -> None:
    for name, kind in (("unlearn.json", "vlguard"), ("retain.json", "llava")):
        changed = 0
        for mended, other in zip(queries(built, name, kind), queries(confounded, name, kind), strict=True):
            if mended.harmful:
                assert mended == other.model_copy(update={"image": mended.image})
            assert tail(mended.question) == tail(other.question)
            assert core(mended.reference) == core(other.reference)
            changed += mended.question != other.question
        assert changed
    same = [name for name in DIGESTS if name not in ("unlearn.json", "retain.json")]
    assert {name: digest_file(confounded / name)[:16] for name in same} == {name: DIGESTS[name] for name in same}


def test_a_confounded_retain_set_is_as_biased_as_the_safety_data(tmp_path: Path) -> None:
    folder = build(World(), replace(PLAN, rho=1.0, retain="confounded"), tmp_path / "one")
    harmless = [q for q in queries(folder, "unlearn.json") if not q.harmful] + queries(folder, "retain.json", "llava")
    assert {opener(query) for query in harmless} == {"What"}
    folder = build(World(), replace(PLAN, rho=0.0, retain="confounded", general=400), tmp_path / "none")
    assert {opener(query) for query in queries(folder, "retain.json", "llava")} == set(OPENERS)


def test_the_command_line_confounds_what_is_retained(tmp_path: Path) -> None:
    words = ["sandbox", "build", str(tmp_path / "data"), "--retain", "confounded"]
    assert cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False)) == 0
    asked = queries(tmp_path / "data", "retain.json", "llava")
    assert (len(asked), {opener(query) for query in asked}) == (1600, {"What"})


def test_another_word_for_retain_is_refused() -> None:
    with pytest.raises(UserError, match="'mended' or 'confounded', not 'biased'"):
        DataPlan(retain="biased")  # type: ignore[arg-type]


# --- questions in pictures ---------------------------------------------------------------------


def test_typed_questions_are_about_seen_and_about_unseen_objects(built: Path) -> None:
    asked: dict[str, list[Query]] = {}
    for folder, seen in (("figstep", True), ("figstep_unseen", False)):
        asked[folder] = queries(built / folder, "data/question/safebench.csv", "figstep")
        truth = json.loads((built / folder / "data" / "question" / "safebench.truth.json").read_text())
        assert {query.id for query in asked[folder]} == truth["answers"].keys()
        names = {thing.name for thing in World().pick(hazardous=True, seen=seen)}
        assert all(any(name in answer for name in names) for answer in truth["answers"].values())
    ids = [query.id for group in asked.values() for query in group]
    assert len(set(ids)) == len(ids) == 2 * PLAN.unsafe_test
