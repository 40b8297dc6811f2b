"""What the audit finds: in the built-in world, where it is known, in XSTest, and in nothing but chance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unmirage.audit import Columns, FrameSource, Source, audit_data
from unmirage.audit.compare import compare
from unmirage.audit.data import Settings
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World

XSTEST = Path(os.environ.get("UNMIRAGE_XSTEST", Path(__file__).parents[2] / "shared" / "data" / "xstest"))
RHOS = (1.0, 0.9, 0.5, 0.0)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The sandbox's safety data at four biases: 2,400 questions each, 1,600 of them refused."""
    folder = tmp_path_factory.mktemp("worlds")
    return {
        rho: build(World(), DataPlan(rho=rho, general=2, unsafe_test=2, safe_test=2), folder / str(rho)) for rho in RHOS
    }


@pytest.fixture(scope="module")
def audits(worlds):
    return {rho: audit_data(Source([folder / "safety.json"])) for rho, folder in worlds.items()}


def frame(questions, labels, **columns):
    return FrameSource(pl.DataFrame({"question": questions, "label": labels, **columns}))


def test_the_mirage_score_falls_to_the_majority_rate(audits):
    scores = {rho: audit.mirage_score for rho, audit in audits.items()}
    assert scores[1.0].value == 1.0
    assert scores[1.0].value > scores[0.9].value > scores[0.5].value > scores[0.0].value
    assert scores[0.5].low > scores[0.5].majority
    assert scores[0.0].value == pytest.approx(scores[0.0].majority, abs=0.005)
    assert scores[0.0].low <= scores[0.0].majority <= scores[0.0].high
    assert all(score.majority == pytest.approx(2 / 3) for score in scores.values())


@pytest.mark.parametrize("rho", [1.0, 0.9, 0.5])
def test_the_planted_words_are_found_and_no_others(audits, rho):
    found = {
        (cue.cue, cue.position, cue.direction) for cue in audits[rho].cues if cue.q < 0.05 and not cue.content_word
    }
    assert found == {
        ("share", "opening", "refusal"), ("share", "anywhere", "refusal"),
        ("what", "opening", "compliance"), ("what", "anywhere", "compliance"),
    }  # fmt: skip


def test_without_bias_no_shortcut_is_found(audits):
    assert audits[0.0].shortcuts == []


def test_words_of_the_grammar_are_not_called_shortcuts(audits):
    # "near" is asked only of pebbles, so it goes with harmless questions, but only through them.
    near = next(cue for cue in audits[0.0].cues if cue.cue == "near")
    assert near.z < -5
    assert not near.shortcut


def test_content_stays_legitimate_whatever_the_bias(audits):
    content = {rho: next(s for s in audit.scores if s.name.startswith("content")) for rho, audit in audits.items()}
    assert {round(score.value, 2) for score in content.values()} == {0.94}
    harmful = next(cue for cue in audits[0.0].cues if cue.cue == "fumepod")
    assert harmful.content_word
    assert harmful.direction == "refusal"
    assert harmful.q < 1e-6


def test_a_pair_with_a_shortcut_in_it_is_not_called_legitimate(audits):
    legitimate = {cue.cue for cue in audits[1.0].legitimate}
    assert {"fumepod", "pebbles", "of pebbles"} <= legitimate
    assert next(cue for cue in audits[1.0].cues if cue.cue == "share ways").q < 1e-6
    assert not {"share", "what"} & {word for name in legitimate for word in name.split()}


def test_each_cue_has_examples_that_hold_it(audits):
    for cue in audits[0.5].cues:
        if cue.position == "surface":
            continue
        assert 1 <= len(cue.examples) <= 3
        for example in cue.examples:
            assert f" {cue.cue} " in f" {example.question.lower()} "


def test_lift_is_the_rate_over_that_of_all(audits):
    audit = audits[0.9]
    assert [cue.lift for cue in audit.cues] == pytest.approx([cue.rate * audit.n / audit.k for cue in audit.cues])


def test_the_record_has_the_fields_of_the_contract(audits):
    record = json.loads(json.dumps(audits[0.5].record(), allow_nan=False))
    assert record["schema"] == 1
    assert set(record["mirage_score"]) == {"value", "low", "high", "majority"}
    wanted = {"cue", "position", "n", "rate", "low", "high", "lift", "z", "q", "direction", "content_word"}
    assert all(wanted <= set(cue) for cue in record["cues"])
    assert record["defects"]["repeated-question"]["count"] > 0


def shuffled(worlds, times):
    """How many audits of shuffled labels find any cue at q < 0.05."""
    whole = pl.concat(Source([worlds[0.9] / "safety.json"]).frames())
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(times):
        labels = pl.Series("label", rng.permutation(whole["label"].to_numpy()))
        audit = audit_data(FrameSource(whole.with_columns(labels).drop("weight")))
        found += any(cue.q < 0.05 for cue in audit.cues)
    return found


def test_shuffled_labels_give_no_cues(worlds):
    # At most 5% of shuffles may find something: 4 or more of 15 happen once in 180 times if it is just 5%.
    assert shuffled(worlds, 15) <= 3


@pytest.mark.slow
def test_false_discoveries_over_200_shuffles(worlds):
    # All hypotheses are null, so the false discovery rate is the share of shuffles that find anything: at most 5%,
    # of 200 at most 18 (99.9% of a binomial distribution).
    assert shuffled(worlds, 200) <= 18


def test_two_files_are_told_apart(worlds):
    audit = compare(Source([worlds[1.0] / "safety.json"]), worlds[0.0] / "safety.json", Settings())
    assert audit.directions == (str(worlds[1.0] / "safety.json"), str(worlds[0.0] / "safety.json"))
    assert {"share", "what"} <= {cue.cue for cue in audit.shortcuts}
    assert audit.mirage_score.value > audit.mirage_score.majority


def test_a_file_against_itself_shows_nothing(worlds):
    audit = compare(Source([worlds[0.9] / "safety.json"]), worlds[0.9] / "safety.json", Settings())
    assert audit.shortcuts == []
    assert audit.mirage_score.low <= audit.mirage_score.majority


def grouping(questions, images):
    from unmirage.audit.tally import Tally
    from unmirage.audit.words import Vocabulary

    tally = Tally(Vocabulary())
    source = frame(questions, [i % 2 == 0 for i in range(len(questions))], image=pl.Series(images, dtype=pl.String))
    for part in source.frames():
        tally.add(part)
    return tally.sample.parts[0].grouping


OTHERS = [f"Name thing number {i}" for i in range(30)]


def test_twins_and_rows_of_one_image_lie_in_one_fold():
    from unmirage.audit.score import folds_of

    questions = ["Share the way", "What the way", "Share a hat", "Name a thing", "What, the way?", *OTHERS]
    images = ["a.png", None, "a.png", "b.png", "c.png", *[None] * 30]
    found = grouping(questions, images)
    # a.png ties 0 to 2; the question, whatever its opening word, case and marks, ties 0 to 1 and 4.
    assert found.by == "image and question"
    assert len({int(found.keys[i]) for i in (0, 1, 2, 4)}) == 1
    assert len(set(found.keys.tolist())) == 2 + 30
    assert len(set(folds_of(found.keys)[[0, 1, 2, 4]].tolist())) == 1


def test_groups_do_not_depend_on_the_order_of_the_rows():
    questions = ["Share the way", "What the way", "Share a hat", "Name a hat", "Show a hat", *OTHERS]
    images = ["a.png", "b.png", "b.png", "c.png", "d.png", *[None] * 30]
    one, other = grouping(questions, images), grouping(questions[::-1], images[::-1])
    for keys in (one.keys, other.keys[::-1]):
        assert len(set(keys[:5].tolist())) == 1
        assert len(set(keys.tolist())) == 1 + 30


def test_a_question_asked_about_all_images_does_not_tie_them_together(worlds):
    found = grouping(["What is it"] * 20, [f"{i // 2}.png" for i in range(20)])
    assert (found.by, found.largest) == ("image", 1.0)
    assert len(set(found.keys.tolist())) == 10
    audit = audit_data(Source([worlds[1.0] / "safety.json"]))
    assert audit.grouped_by == "image"
    assert any("one group of 100% of the rows" in note for note in audit.notes)


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_a_walk(seed):
    from unmirage.audit.tally import components

    rng = np.random.default_rng(seed)
    images, texts = (rng.integers(1, 40, 60).astype(np.uint64) for _ in range(2))
    group = list(range(60))
    for _ in range(60):  # by hand: whoever shares a key takes the smaller number
        for i in range(60):
            for j in range(60):
                if images[i] == images[j] or texts[i] == texts[j]:
                    group[i] = group[j] = min(group[i], group[j])
    found = components(images, texts).tolist()
    assert all((found[i] == found[j]) == (group[i] == group[j]) for i in range(60) for j in range(60))


def test_counts_are_the_same_in_one_piece_and_in_many(worlds, monkeypatch):
    from unmirage.audit import table, tally

    whole = audit_data(Source([worlds[0.5] / "safety.json"]))
    monkeypatch.setattr(table, "CHUNK_ROWS", 100)
    monkeypatch.setattr(table, "CACHE_BYTES", 1)
    monkeypatch.setattr(tally, "MERGE_AT", 50)
    streamed = audit_data(Source([worlds[0.5] / "safety.json"]))
    assert streamed.record() == whole.record()


def test_a_long_file_is_scored_on_a_part_and_says_so(worlds, monkeypatch):
    from unmirage.audit import table, tally

    monkeypatch.setattr(table, "CHUNK_ROWS", 100)
    monkeypatch.setattr(tally, "MOST_WORDS", 6000)
    audit = audit_data(Source([worlds[1.0] / "safety.json"]))
    assert audit.n == 2400
    assert audit.one_in > 1
    assert audit.mirage_score.n < 2400
    assert audit.mirage_score.value == 1.0
    assert "one row in" in " ".join(audit.notes)


def test_surface_features_are_cues():
    questions = [f"Tell me thing {i} now" + ("?" if i % 2 else "") for i in range(200)]
    audit = audit_data(frame(questions, [i % 2 == 1 for i in range(200)]))
    mark = next(cue for cue in audit.cues if cue.cue == "ends in a question mark")
    assert (mark.n, mark.rate, mark.position) == (100, 1.0, "surface")
    assert mark.shortcut


def test_a_rare_cue_is_not_listed():
    questions = ["Share one"] * 9 + ["What two"] * 11
    audit = audit_data(frame(questions, [True] * 9 + [False] * 11), Settings(min_n=10))
    assert {cue.cue for cue in audit.cues if cue.position == "opening"} == {"what"}


def test_words_can_be_called_functional_by_hand():
    questions = ["Zork it now", "Plim it now"] * 30
    labels = [True, False] * 30
    plain = audit_data(frame(questions, labels))
    told = audit_data(frame(questions, labels), Settings(extra_function_words=frozenset({"zork", "plim"})))
    assert plain.shortcuts == []
    assert {cue.cue for cue in told.shortcuts if cue.position == "opening"} == {"zork", "plim"}


@pytest.mark.skipif(not XSTEST.is_dir(), reason="XSTest is not there; set UNMIRAGE_XSTEST to its folder")
class TestXSTest:
    def test_prompts_with_labels(self):
        columns = Columns(question="prompt", label="label", id="id")
        audit = audit_data(Source([XSTEST / "xstest_prompts.csv"], columns))
        assert (audit.n, audit.k) == (450, 200)
        # XSTest pairs each safe question with an unsafe one about the same word, so content hardly helps.
        content = next(score for score in audit.scores if score.name.startswith("content"))
        assert content.low <= content.majority
        assert 0.55 < audit.mirage_score.value < 0.70

    def test_answers_with_human_labels(self):
        columns = Columns(
            "prompt", "completion", "final_label", id="id", refusal=("2_full_refusal", "3_partial_refusal")
        )
        audit = audit_data(Source([XSTEST / "xstest_v2_completions_llama2orig.csv"], columns))
        assert audit.n == 450
        # The default judge and the people disagree now and then; that is told, not hidden.
        assert 0 < audit.defects["answer-contradicts-label"].count < 150

    def test_answers_judged(self):
        columns = Columns("prompt", "completion", id="id")
        audit = audit_data(Source([XSTEST / "xstest_v2_completions_gpt4.csv"], columns))
        assert audit.label_source.startswith("the answers, judged by vlguard-keywords")
        assert 100 < audit.k < 300
