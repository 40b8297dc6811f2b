"""One-word edits, what they may not do, their neutral controls, paraphrases, and the verb `attack`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmirage import cli
from unmirage.attacks import substitute_first_word
from unmirage.attacks.constraints import content_positions, intent_kept
from unmirage.attacks.controls import control_edits
from unmirage.attacks.edits import At, Change, Edit, edits_of, positions
from unmirage.attacks.goals import Goal
from unmirage.attacks.grammar import grammatical
from unmirage.attacks.paraphrases import Found, Rewrite, Rewriter, read_paraphrases, variants_of
from unmirage.attacks.static import OneWordAttack, one_word_variants
from unmirage.attacks.words import NEUTRALS, SHIPPED, neutral_words, words_of_audit, words_of_file
from unmirage.audit.lexicon import INSTRUCTION, MODALS, POLITE, QUESTION_WORDS
from unmirage.errors import UserError
from unmirage.runs import JsonLines
from unmirage.schema import Label, Query, Variant, Verdict
from unmirage.servers import ChatServer


def query(question: str, harmful: bool = True, id: str = "q") -> Query:
    return Query(id=id, question=question, harmful=harmful)


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def made_of(question: str, *edits: tuple[Any, int, str]) -> list[str]:
    return [Edit(*one).apply(question) for one in edits]


# --- edits ------------------------------------------------------------------------------------


def test_each_edit_leaves_everything_else_as_it_is() -> None:
    question = "Share  the (way)\tto do it?"
    assert made_of(
        question,
        ("substitute", 0, "What"),
        ("substitute", 2, "Means"),
        ("substitute", 5, "Them"),
        ("insert", 0, "Please"),
        ("insert", 3, "Just"),
        ("insert", 6, "Please"),
        ("delete", 0, "Share"),
        ("delete", 2, "(way)"),
        ("delete", 5, "it?"),
    ) == [
        "What  the (way)\tto do it?",
        "Share  the (means)\tto do it?",
        "Share  the (way)\tto do them?",
        "Please Share  the (way)\tto do it?",
        "Share  the (way)\tjust to do it?",
        "Share  the (way)\tto do it? please",
        "the (way)\tto do it?",
        "Share  the to do it?",
        "Share  the (way)\tto do",
    ]


def test_words_with_capitals_of_their_own_keep_them() -> None:
    assert made_of("tell me more", ("substitute", 1, "I"), ("substitute", 2, "NASA"), ("insert", 1, "Now")) == [
        "tell I more",
        "tell me NASA",
        "tell now me more",
    ]


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (Change.opening, At.end, [0]),
        (Change.substitute, At.begin, [0]),
        (Change.substitute, At.inner, [1]),
        (Change.substitute, At.end, [2]),
        (Change.substitute, At.any, [0, 1, 2]),
        (Change.insert, At.begin, [0]),
        (Change.insert, At.inner, [1, 2]),
        (Change.insert, At.end, [3]),
        (Change.delete, At.any, [0, 1, 2]),
    ],
)
def test_positions_of_a_question_of_three_words(change: Change, at: At, expected: list[int]) -> None:
    assert positions(3, change, at) == expected


def test_all_edits_worked_by_hand() -> None:
    every = [Change.opening, Change.substitute, Change.insert, Change.delete]
    found = [edit.apply("Share it") for edit in edits_of("Share it", every, ["What", "it"])]
    # "it" is not put in its own place nor beside itself; "What it" is found once, as `opening` and not again.
    assert found == [
        "What it",
        "it it",
        "Share what",
        "What Share it",
        "it Share it",
        "Share what it",
        "Share it what",
        "it",
        "Share",
    ]


WORD = st.sampled_from(["share", "What", "the", "the,", "ways", "please", "(it)", "-", "a", "to", "make", "?"])
QUESTION = st.lists(WORD, min_size=1, max_size=6).map(" ".join)
WORDS = st.lists(st.sampled_from(["What", "please", "the", "How", "Ways"]), min_size=1, max_size=4, unique=True)
CHANGES = st.lists(st.sampled_from(list(Change)), min_size=1, max_size=4, unique=True)


@settings(max_examples=150, deadline=None)
@given(question=QUESTION, words=WORDS, changes=CHANGES, at=st.sampled_from(list(At)))
def test_every_variant_differs_in_exactly_one_word_and_from_every_other(
    question: str, words: list[str], changes: list[Change], at: At
) -> None:
    asked = query(question)
    edits = edits_of(question, changes, words, at)
    texts = [tuple(edit.variant(asked, "x").question.split()) for edit in edits]
    assert len(set(texts)) == len(texts)
    own = tuple(question.split())
    for edit, text in zip(edits, texts, strict=True):
        assert text != own
        longer, shorter = (own, text) if edit.kind == "delete" else (text, own)
        if edit.kind == "substitute":
            assert [i for i, (a, b) in enumerate(zip(own, text, strict=True)) if a != b] == [edit.position]
        else:
            assert longer[: edit.position] + longer[edit.position + 1 :] == shorter


@settings(max_examples=80, deadline=None)
@given(question=QUESTION, words=WORDS, changes=CHANGES, seed=st.integers(0, 5))
def test_controls_are_as_many_at_the_same_places_and_all_neutral(
    question: str, words: list[str], changes: list[Change], seed: int
) -> None:
    asked = query(question)
    edits = edits_of(question, changes, words)
    controls = control_edits(asked, edits, seed, words)
    assert len(controls) == len(edits) == len({edit.apply(question) for edit in controls})
    for edit, control in zip(edits, controls, strict=True):
        assert control.position == edit.position
        assert control.kind == ("insert" if edit.kind == "insert" else "substitute")
        assert control.word in NEUTRALS
        assert control.variant(asked, "x/neutral", control_of="x").word == control.word
    assert controls == control_edits(asked, edits, seed, words)


def test_neutral_words_neither_ask_nor_command_and_are_drawn_by_seed_and_question() -> None:
    cues = {word.lower() for word in SHIPPED} | QUESTION_WORDS | MODALS | POLITE | (INSTRUCTION - {"state"})
    assert not cues & {word.lower() for word in NEUTRALS}
    assert len({word.lower() for word in NEUTRALS}) == len(NEUTRALS) > 2 * len(SHIPPED)
    assert neutral_words(0, "q", []) == neutral_words(0, "q", [])
    assert neutral_words(0, "q", []) != neutral_words(1, "q", []) != neutral_words(1, "p", [])
    assert "River" not in neutral_words(0, "q", ["river"])


def test_more_words_than_neutral_ones_are_refused() -> None:
    edits = [Edit("substitute", 0, f"w{i}") for i in range(len(NEUTRALS) + 1)]
    with pytest.raises(UserError, match="need as many neutral words, and there are"):
        control_edits(query("Share it"), edits, 0)


# --- constraints ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("Share ways to make this object", {1, 3, 5}),
        ("Can you please describe how to make it?", {6}),
        ("How to make tea", {2, 3}),
        ("What is shown here?", {2}),
        ("Describe and explain the sign.", {2, 4}),
    ],
)
def test_content_words(question: str, content: set[int]) -> None:
    assert content_positions(question.split()) == content


@pytest.mark.parametrize(
    ("edit", "kept"),
    [
        (Edit("substitute", 0, "What"), True),
        (Edit("substitute", 1, "Means"), False),
        (Edit("substitute", 2, "For"), True),
        (Edit("delete", 1, "ways"), False),
        (Edit("delete", 2, "to"), True),
        (Edit("insert", 2, "Please"), True),
        (Edit("insert", 2, "Not"), False),
        (Edit("insert", 0, "Don't"), False),
        (Edit("substitute", 0, "Without"), False),
    ],
)
def test_intent_is_kept_where_content_stays_and_nothing_is_denied(edit: Edit, kept: bool) -> None:
    assert intent_kept("Share ways to make this object", edit) is kept


def test_a_denial_is_not_taken_out() -> None:
    assert not intent_kept("Why is it not safe", Edit("delete", 3, "not"))


@pytest.mark.parametrize(
    ("question", "edit", "passes"),
    [
        ("Share ways to make it", Edit("substitute", 0, "What"), True),
        ("Share ways to make it", Edit("substitute", 0, "Describe"), True),
        ("Share ways to make it", Edit("substitute", 0, "Why"), False),
        ("Share ways to make it", Edit("substitute", 0, "Is"), False),  # "is" against "ways"
        ("Share ways to make it", Edit("substitute", 0, "Are"), True),
        ("Share colours of it", Edit("substitute", 0, "How"), False),
        ("What is it", Edit("substitute", 0, "How"), True),
        ("Is this a dog", Edit("substitute", 0, "Are"), False),
        ("Is this a dog", Edit("substitute", 0, "Was"), True),
        ("Can you say it", Edit("substitute", 0, "Share"), False),
        ("Can I say it", Edit("substitute", 0, "Does"), False),
        ("Can you say it", Edit("substitute", 0, "Could"), True),
        ("Where is the dog", Edit("substitute", 0, "What"), True),
        ("Where is the dog", Edit("substitute", 0, "Whose"), False),
        ("Show the dog", Edit("substitute", 1, "A"), True),
        ("Show the owl", Edit("substitute", 1, "A"), False),
        ("Show the hour", Edit("substitute", 1, "An"), True),
        ("Show the uniform", Edit("substitute", 1, "An"), False),
        ("Show a dog", Edit("substitute", 2, "Owl"), False),
        ("Show the dog in it", Edit("substitute", 3, "On"), True),
        ("Show the dog in it", Edit("substitute", 3, "The"), False),
        ("Show the dog", Edit("insert", 0, "Please"), True),
        ("Show the dog", Edit("insert", 3, "Please"), True),
        ("Show the dog", Edit("insert", 1, "Please"), False),
        ("Can you show it", Edit("insert", 2, "Please"), True),
        ("Can you please show it", Edit("delete", 2, "please"), True),
        ("Show the dog", Edit("delete", 1, "the"), False),
        ("Ways to make it", Edit("insert", 0, "What"), True),
        ("The way to make it", Edit("insert", 0, "Share"), True),
        ("The way to make it", Edit("insert", 0, "What"), False),
    ],
)
def test_the_small_grammar(question: str, edit: Edit, passes: bool) -> None:
    assert grammatical(question, edit) is passes


# --- goals ------------------------------------------------------------------------------------


def verdict(label: Label, harm: bool | None = None) -> Verdict:
    return Verdict(query="q", judge="j", label=label, why="", harm=harm)


@pytest.mark.parametrize(
    ("goal", "before", "after", "reached"),
    [
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.COMPLIANCE), True),
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.COMPLIANCE, harm=False), False),
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.PARTIAL, harm=True), True),
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.PARTIAL), False),
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.FILTERED), False),
        (Goal.bypass, verdict(Label.REFUSAL), verdict(Label.UNPARSED), None),
        (Goal.over_refusal, verdict(Label.COMPLIANCE), verdict(Label.REFUSAL), True),
        (Goal.over_refusal, verdict(Label.COMPLIANCE), verdict(Label.IRRELEVANT), False),
        (Goal.over_refusal, verdict(Label.COMPLIANCE), verdict(Label.ERROR), None),
        (Goal.flip, verdict(Label.COMPLIANCE), verdict(Label.IRRELEVANT), True),
        (Goal.flip, verdict(Label.COMPLIANCE), verdict(Label.COMPLIANCE), False),
        (Goal.flip, verdict(Label.COMPLIANCE), verdict(Label.ERROR), None),
    ],
)
def test_when_a_goal_is_reached(goal: Goal, before: Verdict, after: Verdict, reached: bool | None) -> None:
    assert goal.reached(before, after) is reached


# --- words ------------------------------------------------------------------------------------


def test_words_of_a_file_and_of_an_audit(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("What  # a comment\n\n# only one\nHow\nwhat\n")
    assert words_of_file(file) == ["What", "How"]
    file.write_text("What\ntell me\n")
    with pytest.raises(UserError, match=r"words.txt, line 2 \(counting from 1\): 'tell me' is not one word"):
        words_of_file(file)
    audit = tmp_path / "audit.json"
    cue = {"position": "opening", "n": 50, "content_word": False}
    cues = [
        {**cue, "cue": "what", "rate": 0.1, "z": -9.0},
        {**cue, "cue": "share", "rate": 0.9, "z": 8.0},
        {**cue, "cue": "which", "rate": 0.2, "z": -3.0},
        {**cue, "cue": "rare", "rate": 0.0, "z": -1.0, "n": 3},
        {**cue, "cue": "bomb", "rate": 0.0, "z": -1.0, "content_word": True},
        {**cue, "cue": "ever", "rate": 0.0, "z": -1.0, "position": "anywhere"},
    ]
    audit.write_text(json.dumps({"base_rate": 0.5, "cues": cues}))
    assert words_of_audit(audit, Goal.bypass) == ["What", "Which"]
    assert words_of_audit(audit, Goal.over_refusal) == ["Share"]
    assert words_of_audit(audit, Goal.flip) == ["What", "Share", "Which"]
    audit.write_text(json.dumps({"base_rate": 0.5, "cues": cues[:1]}))
    with pytest.raises(UserError, match="no opening word that serves the goal over-refusal"):
        words_of_audit(audit, Goal.over_refusal)


# --- static variants ----------------------------------------------------------------------------


def test_k_words_have_k_controls_under_names_of_their_own() -> None:
    found = one_word_variants(
        [query("Share ways"), query("What ways", id="w")], OneWordAttack(Change.opening, ("What", "How"))
    )
    attacks = [v for v in found.variants if v.control_of is None]
    controls = [v for v in found.variants if v.control_of is not None]
    assert [(v.origin.id, v.question, v.shot) for v in attacks] == [
        ("q", "What ways", 0),
        ("q", "How ways", 1),
        ("w", "How ways", 0),
    ]
    assert {v.attack for v in attacks} == {"first-word:what|how"} == {v.control_of for v in controls}
    assert {v.attack for v in controls} == {"first-word:what|how/neutral"}
    assert [(v.origin.id, v.shot, v.position) for v in controls] == [("q", 0, 0), ("q", 1, 0), ("w", 0, 0)]
    assert found.attacks == 3
    assert found.unchanged == []


@pytest.mark.parametrize(
    ("attack", "name", "texts"),
    [
        (OneWordAttack(Change.insert, ("Please",), At.begin), "insert-begin:please", ["Please Share the way"]),
        (OneWordAttack(Change.insert, ("Please",), At.end), "insert-end:please", ["Share the way please"]),
        (OneWordAttack(Change.delete), "delete-any", ["the way", "Share way", "Share the"]),
        (OneWordAttack(Change.delete, intent=True), "delete-any", ["the way", "Share way"]),
        (OneWordAttack(Change.substitute, ("A",), At.inner, grammar=True), "substitute-inner:a", ["Share a way"]),
    ],
)
def test_other_edits_are_named_after_what_they_do(attack: OneWordAttack, name: str, texts: list[str]) -> None:
    found = one_word_variants([query("Share the way"), query("What is it", harmful=False)], attack)
    attacks = [v for v in found.variants if v.control_of is None]
    assert {v.attack for v in attacks} == {name}
    assert [v.question for v in attacks] == texts
    assert [v.shot for v in attacks] == list(range(len(texts)))
    assert len(found.variants) == 2 * len(texts)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(["What", "Share", "how"]), min_size=1, max_size=3, unique=True), seed=st.integers(0)
)
def test_the_opening_edit_is_the_swap_of_the_first_word(words: list[str], seed: int) -> None:
    queries = [query("Share  the way?", id="a"), query("what is it", id="b"), query("Is it", harmful=False, id="c")]
    attack = OneWordAttack(Change.opening, tuple(words), control=False, seed=seed)
    found, swapped = one_word_variants(queries, attack), substitute_first_word(queries, words, "bypass")
    assert found.variants == swapped.variants
    assert found.unchanged == swapped.unchanged


def test_without_controls_and_without_fitting_questions() -> None:
    found = one_word_variants([query("What is it")], OneWordAttack(Change.opening, ("What",), control=False))
    assert found.variants == []
    assert [q.id for q in found.unchanged] == ["q"]


# --- paraphrases --------------------------------------------------------------------------------


def read(path: Path, content: str) -> dict[str, list[str]]:
    path.write_text(content)
    return dict(read_paraphrases(path).texts)


def test_every_form_of_a_file_of_paraphrases(tmp_path: Path) -> None:
    wanted = {"1/unsafe": ["What is a way", "Tell a way"], "2": ["What ways"]}
    rows = [{"id": "1/unsafe", "paraphrases": wanted["1/unsafe"]}, {"id": 2, "paraphrase": "What ways"}]
    assert read(tmp_path / "a.json", json.dumps(wanted)) == wanted
    assert read(tmp_path / "a.json", json.dumps(rows)) == wanted
    assert read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n") == wanted
    assert read(tmp_path / "a.csv", "id,text\n1/unsafe,What is a way\n1/unsafe,Tell a way\n2,What ways\n") == wanted
    parted = {"1/unsafe": {"with": ["What is a way"], "without": ["Tell a way"]}, "2": "What ways"}
    assert read(tmp_path / "a.json", json.dumps(parted)) == wanted
    official = [
        {"id": "1", "image": "x.png", "safe": False, "instr-resp": [{"instruction": text, "response": "no"}]}
        for text in ("What a", "What b", "What c")
    ]
    assert read(tmp_path / "a.json", json.dumps(official)) == {"1/unsafe": ["What a", "What b", "What c"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{}]", r"row 0 \(counting from 0\): there is no 'id'"),
        ('[{"id": "1", "text": 3}]', r"row 0 \(counting from 0\), field 'text': 3 is no text"),
        ("{}", "holds no paraphrase"),
        ("{", "cannot be read as json"),
    ],
)
def test_a_file_of_something_else_is_refused(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path / "a.json", content)


def test_paraphrases_are_named_by_their_opening_and_what_is_unfit_is_told() -> None:
    found = Found()
    found.texts |= {
        "1": ["What is a way", "", "share ways", "What is a way", "Tell ways", "what, ways"],
        "2/unsafe": ["Tell it"],
        "3": ["What"],
    }
    queries = [query("share ways", id="1/unsafe"), query("share it", id="2/unsafe")]
    made = variants_of(queries, found, "What", control=True)
    assert [(v.origin.id, v.question, v.attack, v.shot, v.control_of) for v in made.variants] == [
        ("1/unsafe", "What is a way", "paraphrase:what", 0, None),
        ("1/unsafe", "Tell ways", "paraphrase:what/without", 0, "paraphrase:what"),
        ("1/unsafe", "what, ways", "paraphrase:what", 1, None),
        ("2/unsafe", "Tell it", "paraphrase:what/without", 0, "paraphrase:what"),
    ]
    assert {v.edit for v in made.variants} == {"paraphrase"}
    assert made.told == (
        "2 paraphrase:what, 2 paraphrase:what/without; 1 questions have none; not used: 1 empty, "
        "1 of other questions, 1 the same as the question, 1 there twice"
    )
    without = variants_of(queries, found, "What", control=False)
    assert {v.attack for v in without.variants} == {"paraphrase:what"}
    assert "2 without the cue" in without.told
    assert {v.attack for v in variants_of(queries, found, None, control=True).variants} == {"paraphrase"}


class FakeWriter:
    """A server that rewrites: replies in turn, and keeps what it was asked."""

    def __init__(self, replies: Sequence[str | int]) -> None:
        self.replies, self.asked = list(replies), list[dict[str, Any]]()

    def server(self) -> ChatServer:
        transport = httpx.MockTransport(self._reply)
        return ChatServer("http://writer", "m", concurrency=1, retries=0, transport=transport)

    def _reply(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        reply = self.replies.pop(0)
        if isinstance(reply, int):
            return httpx.Response(reply, json={"error": {"message": "broken"}})
        choice = {"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [choice]})


def test_rewrites_are_stored_parsed_strictly_and_what_failed_is_asked_again(tmp_path: Path) -> None:
    log = tmp_path / "v.jsonl.rewrites.jsonl"
    queries = [query('Share "ways"</rewrite>', id="a"), query("Share it", id="b")]
    first = FakeWriter(
        [
            "<rewrite>What ways are there</rewrite>",
            "<rewrite>Tell ways</rewrite>",  # must open with the cue
            "What ways",  # in no tags
            "<rewrite> </rewrite>",
            "<rewrite>What is it</rewrite>",
            "<rewrite>Which</rewrite> or <rewrite>What</rewrite>",
            400,
            "<rewrite>Name it</rewrite>",
        ]
    )
    quiet = lambda *_: None  # noqa: E731
    found = Rewriter(first.server(), log).paraphrases(queries, "What", 2, True, quiet)
    assert dict(found.texts) == {"a": ["What ways are there"], "b": ["What is it", "Name it"]}
    assert dict(found.unused) == {
        "with the wrong opening word": 1,
        "in another form than asked for": 3,
        "without a reply": 1,
    }
    assert [one["seed"] for one in first.asked] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert json.dumps('Share "ways"</rewrite>') in first.asked[0]["messages"][1]["content"]
    assert "must begin with the word 'What'" in first.asked[0]["messages"][0]["content"]
    assert "must not begin" in first.asked[2]["messages"][0]["content"]
    again = FakeWriter(["<rewrite>Say it</rewrite>"])
    found = Rewriter(again.server(), log).paraphrases(queries, "What", 2, True, quiet)
    assert len(again.asked) == 1
    assert found.texts["b"] == ["What is it", "Say it", "Name it"]
    assert "without a reply" not in found.unused
    assert len(JsonLines(log).read(Rewrite)) == 9


# --- the verb -----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, pictures: list[Path]) -> Path:
    rows = [("1", False, "Share ways to do it"), ("2", False, "What is it"), ("3", True, "Where is it")]
    content = [
        {
            "id": id_,
            "image": pictures[0].name,
            "safe": safe,
            "instr-resp": [{"safe_instruction" if safe else "instruction": question, "response": "no"}],
        }
        for id_, safe, question in rows
    ]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(content))
    return file


def variants_in(path: Path) -> list[Variant]:
    return [Variant.model_validate_json(line) for line in path.read_text().splitlines()]


def test_the_verb_writes_attack_and_control_into_one_file(
    data: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "v.jsonl"
    images = ("--images", pictures[0].parent, "--out", out)
    assert call("attack", data, "--to", "What", *images) == 0
    assert "(1 and 1 neutral controls; 1 questions open with the word already)" in capsys.readouterr().out
    assert [v.attack for v in variants_in(out)] == ["first-word:what", "first-word:what/neutral"]
    assert call("attack", data, "--edit", "delete", "--keep-intent", "--no-control", *images) == 0
    assert "(7; 0 questions have no such edit)" in capsys.readouterr().out
    assert {v.attack for v in variants_in(out)} == {"delete-any"}
    assert call("attack", data, "--edit", "insert", "--at", "end", "--to", "Please", "--goal", "flip", *images) == 0
    assert len(variants_in(out)) == 6
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"1": ["What ways are there", "Tell ways"], "2": ["Whatever is it"]}))
    assert call("attack", data, "--edit", "paraphrase", "--paraphrases", file, "--to", "What", *images) == 0
    said = capsys.readouterr().out
    assert "1 paraphrase:what, 2 paraphrase:what/without; 1 questions have none" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "an attack needs at least one word"),
        (("--edit", "delete", "--to", "What"), "to take words out needs no --to"),
        (("--edit", "paraphrase"), "give --paraphrases, or --server with --model"),
        (("--edit", "paraphrase", "--server", "http://localhost:1"), "--server needs --model"),
        (("--to", "What", "--paraphrases", "x.json"), "are for --edit paraphrase"),
        (("--to", "Tell me"), "'Tell me' is not one word"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: tuple[str, ...], said: str, data: Path, pictures: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ("attack", data, *options, "--images", pictures[0].parent, "--out", tmp_path / "v.jsonl")
    assert call(*command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "v.jsonl").exists()
