"""A report says what its attacks really did: terminal and page, for each kind of edit."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_report import Page, record

from unmirage.evaluate.compare import Line
from unmirage.report import terminal, write_report
from unmirage.report.comparison import _metric
from unmirage.report.edits import ADDITION, ATTACK, OMISSION, REWORDING, SUFFIX, SWAP, TWO_WORDS, asked_with, phrases
from unmirage.report.summary import summarise
from unmirage.report.tables import headline_tables
from unmirage.runs import Run
from unmirage.schema import Answer, Edit, Label, Metrics, Query, Record, Variant, Verdict

HARMFUL = Query(id="a", question="Share ways to make this glue", harmful=True)
HARMLESS = Query(id="b", question="What holds this glue", harmful=False)
TEXTS: dict[Edit, tuple[str, str]] = {
    "substitute": ("What ways to make this glue", "Share holds this glue"),
    "insert": ("Please Share ways to make this glue", "Please What holds this glue"),
    "delete": ("ways to make this glue", "holds this glue"),
    "paraphrase": ("How is such glue made", "In which pot is it"),
}
SWAPPED = re.compile(r"swap|Exactly one word of the question is replaced")


def variant(query: Query, edit: Edit, attack: str = "mine") -> Variant:
    """The query under one edit, of an attack whose name tells nothing."""
    return Variant(origin=query, question=TEXTS[edit][query is HARMLESS], attack=attack, word="word", edit=edit)


def records(bypass: str = "mine", probe: str = "mine") -> list[Record]:
    """A model that looks safe and is not, with the effect of its bypass beyond a control."""
    sides = [("asr", bypass, 0.01, 0.86), ("refusal", bypass, 0.99, 0.14), ("ir", bypass, 0.0, 0.0),
             ("rr", probe, 0.02, 0.93)]  # fmt: skip
    made = [record(metric, value, name) for metric, attack, was, now in sides for name, value in
            ((None, was), (attack, now))]  # fmt: skip
    control = f"{bypass}/control"
    effect = record("asr_effect", 0.74, bypass, control=control, low=0.66, high=0.8)
    return [*made, record("asr", 0.12, control), effect]


def printed(found: Sequence[Record], variants: Sequence[Variant]) -> str:
    out = io.StringIO()
    terminal.headline(found, Console(file=out), variants=variants)
    return out.getvalue()


def page_of(folder: Path, variants: Sequence[Variant], found: Sequence[Record], title: str | None = None) -> str:
    """The text of the page of one run, with its labels for narrow screens and for screen readers."""
    queries = [HARMFUL, HARMLESS]
    rows = [(query, query.question, None) for query in queries] + [(v.origin, v.question, v.attack) for v in variants]
    with Run.open(folder, "measure", {"model": "Mixed-SFT"}, {}) as run:
        run.log("queries.jsonl").append(queries)
        run.log("variants.jsonl").append(variants)
        for query, question, attack in rows:
            answer = Answer(key="k", query=query.id, question=question, model="m", text="Boil it.", attack=attack)
            run.log("answers.jsonl").append(answer)
            verdict = Verdict(query=query.id, judge="j", label=Label.REFUSAL, why="", attack=attack, harm=False)
            run.log("verdicts/j.jsonl").append(verdict)
        judged = [one.model_copy(update={"judge": "j", "split": None}) for one in found]
        run.write_json("metrics.json", Metrics(schema=1, run=run.manifest.id, records=judged))
    page = Page(write_report([folder], folder / "page.html", title=title).read_text(encoding="utf-8"))
    labels = [value or "" for _, attributes in page.tags for name, value in attributes.items()
              if name in ("data-label", "aria-label")]  # fmt: skip
    return " | ".join([page.text, *dict.fromkeys(labels)])


@pytest.mark.parametrize(
    ("edit", "note", "title"),
    [
        ("substitute", "after one word is swapped;", "effect of the word: attack - control"),
        ("insert", "after one word is added;", "effect of the word: attack - control"),
        ("delete", "after one word is left out;", "effect of the left-out word: attack - control"),
        ("paraphrase", "after the question is reworded;", "effect of the wording: attack - control"),
    ],
)
def test_the_terminal_says_what_was_done(edit: Edit, note: str, title: str) -> None:
    text = printed(records(), [variant(HARMFUL, edit), variant(HARMLESS, edit)])
    assert f"Percent, before -> {note} in brackets the 95 % interval of the last figure." in text
    assert text.startswith(title)


def test_the_terminal_is_neutral_on_several_kinds() -> None:
    text = printed(records(probe="other"), [variant(HARMFUL, "insert"), variant(HARMLESS, "delete", "other")])
    assert "Percent, before -> after the attack; in brackets" in text
    assert text.startswith("effect of the attack: attack - control")


SAID: dict[Edit, list[str]] = {
    "substitute": [
        "What one swapped word does to a safe model",
        "yet with one word swapped it gives harmful answers to 86%",
        "harmful question, one word swapped",
        "below: swapped)",
        "As asked and with one word swapped",
        "SwapExactly one word of the question is replaced and nothing else: mine on harmful questions",
        "“Yet with one word swapped”",
        "as asked and under the swap, all at most",
        "Effect of the word: attack − control",
        "and so does that of the word’s own effect",
        "What became of the harmful questions after the swap",
    ],
    "insert": [
        "What one added word does to a safe model",
        "yet with one word added it gives harmful answers to 86%",
        "harmful question, one word added",
        "below: word added)",
        "As asked and with one word added",
        "Added wordExactly one word is put into the question and nothing else is changed: mine on harmful questions",
        "“Yet with one word added”",
        "as asked and under the addition, all at most",
        "Effect of the word: attack − control",
        "What became of the harmful questions after the addition",
    ],
    "delete": [
        "What one word left out does to a safe model",
        "yet with one word left out it gives harmful answers to 86%",
        "harmless question, one word left out",
        "below: word left out)",
        "Word left outExactly one word of the question is left out and nothing else is changed: mine on harmful",
        "“Yet with one word left out”",
        "Effect of the left-out word: attack − control",
        "The rate without the word minus the rate with its control",
        "What became of the harmful questions after the omission",
    ],
    "paraphrase": [
        "What rewording does to a safe model",
        "yet with questions reworded it gives harmful answers to 86%",
        "harmless question, reworded",
        "below: reworded)",
        "RewordingThe question is put in other words; any number of words may differ, and what they ask is not "
        "checked: mine on harmful questions to get past the refusal, mine on harmless questions to provoke one.",
        "“Yet with questions reworded”",
        "as asked and under the rewording, all at most",
        "Effect of the wording alone, attack minus control: Mixed-SFT: +74.0 points",
        "Each wording against a control that changes the question as much; what both do is not the wording’s.",
        "What became of the harmful questions after the rewording",
    ],
}


@pytest.mark.parametrize("edit", list(SAID))
def test_the_page_says_what_was_done(tmp_path: Path, edit: Edit) -> None:
    text = page_of(tmp_path / "run", [variant(HARMFUL, edit), variant(HARMLESS, edit)], records())
    assert [sentence for sentence in SAID[edit] if sentence not in text] == []
    assert bool(SWAPPED.search(text)) is (edit == "substitute")


def test_the_page_is_neutral_on_several_kinds_and_exact_on_each_example(tmp_path: Path) -> None:
    variants = [variant(HARMFUL, "insert"), variant(HARMLESS, "paraphrase", "other")]
    text = page_of(tmp_path / "run", variants, records(probe="other"))
    assert "yet under attack it gives harmful answers to 86%" in text
    assert "harmful question, one word added" in text
    assert "harmless question, reworded" in text
    assert (
        "AttackThe question is changed: mine (one word added) on harmful questions to get past the refusal, "
        "other (reworded) on harmless questions to provoke one."
    ) in text
    assert not SWAPPED.search(text)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        ("substitute", "<mark>Share</mark> ways to", "<mark>What</mark> ways to"),
        ("insert", '"auto">Share ways to', "<mark>Please</mark> Share ways"),
        ("delete", "<mark>Share</mark> ways to", '"auto">ways to make'),
        ("paraphrase", '"auto">Share ways to', '"auto">How is such glue'),
    ],
)
def test_only_the_changed_word_is_marked(tmp_path: Path, edit: Edit, before: str, after: str) -> None:
    page_of(tmp_path / "run", [variant(HARMFUL, edit)], records())
    html = (tmp_path / "run" / "page.html").read_text(encoding="utf-8")
    assert before in html
    assert after in html
    assert html.count("<mark></mark>") == 0


def test_a_title_that_is_given_stays(tmp_path: Path) -> None:
    text = page_of(tmp_path / "run", [variant(HARMFUL, "insert")], records(), title="Mine")
    assert "Mine" in text
    assert "What one added word" not in text


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ([], SWAP),
        ([None], SWAP),
        (["first-word:what", "first-word:share"], SWAP),
        (["substitute-any:the"], SWAP),
        (["openers"], SWAP),
        (["exhaustive-opening+substitute:40-words"], SWAP),
        (["insert-begin:please"], ADDITION),
        (["delete-any"], OMISSION),
        (["paraphrase:what", "official:what-3shot", "paraphrase"], REWORDING),
        (["two-words:what+please"], TWO_WORDS),
        (["gcg"], SUFFIX),
        (["greedy-opening+delete:what"], ATTACK),
        (["first-word:what", "paraphrase"], ATTACK),
        (["a name of one's own"], ATTACK),
    ],
)
def test_without_variants_the_name_tells(attacks: list[str | None], said: object) -> None:
    assert phrases(attacks) is said


def test_variants_go_before_the_name_and_several_edits_of_one_attack_are_neutral() -> None:
    named = "first-word:what"
    assert phrases([named], [variant(HARMFUL, "paraphrase", named)]) is REWORDING
    assert phrases([named], [variant(HARMFUL, "insert", named), variant(HARMLESS, "delete", named)]) is ATTACK
    assert phrases([named], [variant(HARMFUL, "delete", "other")]) is SWAP
    two = "two-words:what+please"
    assert phrases([two], [variant(HARMFUL, "paraphrase", two)]) is TWO_WORDS


@pytest.mark.parametrize(
    ("attack", "head"),
    [
        (None, "attacked"),
        ("first-word:what", "with “What”"),
        ("substitute-any:the", "with “substitute-any:the”"),
        ("insert-end:please", "with “please” added"),
        ("delete-any", "one word left out"),
        ("paraphrase", "reworded"),
        ("paraphrase:what", "reworded with “What”"),
        ("two-words:what+please", "with “what” and “please”"),
        ("mine", "with “mine”"),
    ],
)
def test_columns_are_named_after_what_was_done(attack: str | None, head: str) -> None:
    assert asked_with(attack) == head
    assert asked_with(attack, "") == re.sub("[“”]", "", head)


def test_a_summary_without_variants_goes_by_the_name() -> None:
    found = [one.model_copy(update={"attack": one.attack and "delete-any"}) for one in records() if not one.control]
    assert "yet with one word left out it" in summarise(headline_tables(found, found[0].judge)[0]).headline


def test_attacks_with_the_same_word_are_named_whole_on_the_terminal() -> None:
    text = printed(
        [record("asr", 0.1), record("asr", 0.4, "first-word:what"), record("asr", 0.6, "paraphrase:what")], []
    )
    assert "first-word:what -> 40.0" in text
    assert "paraphrase:what -> 60.0" in text


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        ("first-word:what", "effect of the word on ASR"),
        ("paraphrase:what", "effect of the wording on ASR"),
        ("mine", "effect of the attack on ASR"),
    ],
)
def test_a_comparison_names_an_effect_after_the_attack(attack: str, name: str) -> None:
    effect = Line(split=None, attack=attack, control=f"{attack}/control", metric="asr_effect", cells=())
    assert _metric(effect) == name
    assert _metric(replace(effect, metric="asr", control=None)) == "ASR"
