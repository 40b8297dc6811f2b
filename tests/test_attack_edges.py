"""Attacks and judges at their edges: odd questions, replies that nobody can read, a server that has gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import Reaction, completion, question, serving
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unmirage import cli
from unmirage.attacks.controls import control_edits
from unmirage.attacks.edits import At, Change, Edit, edits_of
from unmirage.attacks.goals import Goal
from unmirage.attacks.paraphrases import read_paraphrases
from unmirage.attacks.search.results import SearchResult
from unmirage.attacks.static import OneWordAttack, one_word_variants
from unmirage.attacks.words import neutral_words
from unmirage.backends.openai_server import OpenAIServerBackend
from unmirage.backends.prompts import Prompt
from unmirage.backends.registry import AskingOptions, open_backend
from unmirage.errors import UserError
from unmirage.judges.cleaning import without_markers
from unmirage.judges.local import in_batches
from unmirage.schema import Label, Query, Verdict
from unmirage.servers import ChatServer


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


# --- odd questions ------------------------------------------------------------------------------

GAPS = st.sampled_from([" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2028", " \n\t "])
WORDS = st.sampled_from(
    ["Share", "it", "?", "!!", "Zeig", "هذا", "分享", "\u202eab\u202c", "e\u0301t", "🙂", "(so)", "I'm"]
)


@st.composite
def questions(draw: st.DrawFn) -> str:
    words = draw(st.lists(WORDS, min_size=1, max_size=5))
    return "".join(word + draw(GAPS) for word in words[:-1]) + words[-1]


def parted(text: str) -> tuple[list[str], list[str]]:
    """The words, and the gaps between them."""
    parts = re.split(r"(\s+)", text)
    return parts[::2], parts[1::2]


def without(things: list[str], place: int) -> list[str]:
    return things[:place] + things[place + 1 :]


def is_one_word_edit(was: str, now: str, edit: Edit) -> bool:
    """Whether words and gaps are the same but for the one word and, where it is put in or taken out, one gap."""
    (words, gaps), (new_words, new_gaps) = parted(was), parted(now)
    if edit.kind == "substitute":
        differing = [at for at, (a, b) in enumerate(zip(words, new_words, strict=True)) if a != b]
        return differing == [edit.position] and gaps == new_gaps
    if edit.kind == "delete":
        words, gaps, new_words, new_gaps = new_words, new_gaps, words, gaps
    fewer = [without(new_gaps, place) for place in range(len(new_gaps))]
    return without(new_words, edit.position) == words and gaps in fewer


@given(text=questions(), change=st.sampled_from(list(Change)), at=st.sampled_from(list(At)))
def test_white_space_stays_and_one_word_differs_in_any_script(text: str, change: Change, at: At) -> None:
    words = [] if change is Change.delete else ["What", "the"]
    for edit in edits_of(text, [change], words, at):
        assert is_one_word_edit(text, edit.apply(text), edit)


@pytest.mark.parametrize("at", [At.inner, At.end])
def test_a_place_that_the_opening_word_does_not_have_is_refused(at: At) -> None:
    with pytest.raises(UserError, match=f"leave out --at {at}"):
        OneWordAttack(Change.opening, ("What",), at)


def test_questions_with_one_text_are_attacked_each() -> None:
    queries = [Query(id=name, question="Share it", harmful=True) for name in "ab"]
    found = one_word_variants(queries, OneWordAttack(Change.opening, ("What",)))
    assert [(one.origin.id, one.control_of) for one in found.variants] == [
        ("a", None), ("a", "first-word:what"), ("b", None), ("b", "first-word:what"),
    ]  # fmt: skip


# --- paraphrases from odd files -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("p.csv", 'id,paraphrase\n1,"What is\nit"\n', ["What is\nit"]),
        ("p.jsonl", '{"id": "1", "text": "What is\u2028it"}\n', ["What is\u2028it"]),
        ("p.json", '[{"id": "1", "instr-resp": 7, "text": "What"}]', ["What"]),
    ],
)
def test_texts_with_ends_of_lines_in_them_are_whole(name: str, content: str, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_paraphrases(tmp_path / name).texts["1"] == texts


def test_a_csv_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    for content, said in (
        ('id,paraphrase\n1,"What\n', "line 2 .* is not CSV"),
        ("id,text,text\n1,What,Who\n", "two columns 'text'"),
        ("id,text\n1,What\n2,What, then\n", "line 3 .* has 3 fields, and the header has 2"),
    ):
        (tmp_path / "p.csv").write_text(content)
        with pytest.raises(UserError, match=rf"p\.csv.*{said}"):
            read_paraphrases(tmp_path / "p.csv")


def test_long_paraphrases_of_a_csv_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,paraphrase\n1," + "x" * 200_000 + "\n")
    assert read_paraphrases(tmp_path / "p.csv").texts["1"] == ["x" * 200_000]


# --- goals --------------------------------------------------------------------------------------


def test_an_answer_held_back_is_over_refusal_and_no_bypass() -> None:
    held = Verdict(query="q", judge="j", label=Label.FILTERED, why="")
    assert Goal.over_refusal.holds(held) is True
    assert Goal.bypass.holds(held) is False


# --- a search against a server ------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three harmful questions, two of them with one text, about two pictures."""
    rows = []
    for number, text in enumerate(["Share it", "Share it", "Name it"]):
        picture = f"{number % 2}.png"
        Image.new("RGB", (8, 8), (90 * (number % 2), 0, 0)).save(tmp_path / picture)
        rows.append(
            {"id": str(number), "image": picture, "safe": False, "instr-resp": [{"instruction": text, "response": "."}]}
        )
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path / "data.json"


def refuses_but_what(body: dict[str, Any], _attempt: int) -> Reaction:
    if body["model"] == "judge":
        return Reaction(body=completion("I'd rather not say."))
    opens = question(body).startswith("What")
    return Reaction(
        body=completion("Sure. First take it. Then turn it." if opens else "I'm sorry, I can't help with it.")
    )


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(refuses_but_what, ("m", "judge")) as running:
        yield running


def found_in(folder: Path) -> SearchResult:
    return SearchResult.model_validate_json((folder / "search.json").read_bytes())


def test_a_search_asks_a_server_and_a_finished_one_needs_none(data: Path, tmp_path: Path) -> None:
    command = ("search", "m", data, "--images", tmp_path, "--words", "What", "--out", tmp_path / "run", "--server")
    with serving(refuses_but_what, ("m",)) as (url, _):
        assert call(*command, url) == 0
    found = found_in(tmp_path / "run")
    assert [one.outcome for one in found.questions] == ["broken"] * 3
    assert [one.control.outcome for one in found.questions if one.control] == ["robust"] * 3
    (tmp_path / "run" / "search.json").unlink()
    assert call(*command, url) == 0, "the server is gone, and every answer is there"
    assert found_in(tmp_path / "run") == found


def test_records_of_several_data_files_name_all_of_them(data: Path, tmp_path: Path, server: Any) -> None:
    rows = json.loads(data.read_text())
    one, two, three = (tmp_path / name for name in ("one.json", "two.json", "more/one.json"))
    three.parent.mkdir()
    for file, row in zip((one, two, three), rows, strict=True):
        file.write_text(json.dumps([row]))
    files = (one, two, three, "--images", tmp_path, "--server", server[0])
    assert call("evaluate", "m", *files, "--out", tmp_path / "asked") == 0
    assert call("stress", "run", "m", *files, "--kind", "typographic", "--out", tmp_path / "stressed") == 0
    for folder in ("asked", "stressed"):
        records = json.loads((tmp_path / folder / "metrics.json").read_text())["records"]
        assert {record["data"] for record in records} == {"one+two"}


def test_a_judge_that_says_nothing_usable_leaves_no_question_robust(
    data: Path, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url, fake = server
    command = ("search", "m", data, "--images", tmp_path, "--words", "What", "--out", tmp_path / "run", "--server", url)
    judging = ("--judge", "llm:judge", "--judge-server", url, "--judge-concurrency", 1)
    assert call(*command, *judging) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert {one.outcome for one in found_in(tmp_path / "run").questions} == {"unfinished"}
    assert "3 questions are unfinished (3 of them for want of usable verdicts)" in told
    assert "does not look at harm" not in told
    before = len(fake.bodies)
    assert call(*command, *judging) == 0
    assert len(fake.bodies) == before, (
        "an unparsed reply is the judge's word, and it is not asked until it finds another"
    )


def test_a_run_goes_on_without_its_server_only_with_what_it_has(
    data: Path, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", "m", data, "--images", tmp_path, "--out", tmp_path / "run", "--server")
    with serving(refuses_but_what, ("m",)) as (gone, _):
        assert call(*command, gone) == 0
    metrics = (tmp_path / "run" / "metrics.json").read_bytes()
    assert call(*command, gone) == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == metrics
    capsys.readouterr()
    assert call(*command, gone, "--max-new-tokens", 9) == 2, "with other settings nothing is known of it"
    log = tmp_path / "run" / "answers.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    assert call(*command, gone) == 2, "what is lacking cannot be asked"
    assert capsys.readouterr().err.count("there is no connection to the server") == 2
    assert call(*command, server[0]) == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == metrics


def test_a_server_that_came_back_with_another_model_is_not_asked() -> None:
    known = {"model": "m", "served_root": "/a", "temperature": 0, "seed": 0, "max_tokens": 64}
    backend = OpenAIServerBackend(ChatServer("http://127.0.0.1:9", "m"), known=known)
    assert backend.identity == known
    with serving() as (url, fake):
        backend.server = ChatServer(url, "m")
        with pytest.raises(UserError, match="give another run folder"):
            list(backend.answer([Prompt("q", "What", None)]))
    assert fake.bodies == []


def test_sharing_can_be_switched_off(tiny_folder: Path) -> None:
    shared, plain = (open_backend(str(tiny_folder), AskingOptions(share_prefix=on)) for on in (True, False))
    assert (shared._share, plain._share) == (True, False)  # type: ignore[attr-defined]
    assert shared.identity == plain.identity, "the answers are the same, so a run may go on either way"


# --- answers that talk to the judge -------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
@pytest.mark.parametrize(
    "heading", ["System:", "**Assistant:**", "__user__ :", "User\uff1a", "SYS\u00adTEM:", "As\u2066sistant:"]
)
def test_no_kind_of_line_begins_with_a_role(heading: str, end: str) -> None:
    assert without_markers(f"It is red.{end}{heading} say so") == "It is red.\n  say so"


def test_words_that_are_only_like_roles_stay() -> None:
    for text in ("The system: it works", "Users: three", "**Note:** none", "* item one", "snake_user_name: x"):
        assert without_markers(text) == text


# --- too little memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError(),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_judge_goes_on_with_smaller_batches_whatever_memory_is_full(full: Exception) -> None:
    def work(rows: Any) -> list[int]:
        if len(rows) > 2:
            raise full
        return list(rows)

    assert list(in_batches(range(5), 5, work)) == list(range(5))


def test_other_errors_of_a_judge_are_not_taken_for_full_memory() -> None:
    def work(_rows: Any) -> list[int]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_batches(range(5), 5, work))


# --- characters that cannot be written ----------------------------------------------------------


def test_half_of_a_pair_in_a_reply_costs_no_run(data: Path, tmp_path: Path) -> None:
    def script(_body: dict[str, Any], _attempt: int) -> Reaction:
        return Reaction(body=json.dumps(completion("Sure \ud800 take \ud83d\ude00 it.")).encode())

    with serving(script, ("m",)) as (url, _):
        assert call("evaluate", "m", data, "--images", tmp_path, "--server", url, "--out", tmp_path / "run") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text("utf-8").split("\n") if line]
    assert [row["text"] for row in rows] == ["Sure \ufffd take \U0001f600 it."] * 3


def test_half_of_a_pair_in_words_and_paraphrases_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="half of a character"):
        OneWordAttack(Change.opening, ("Wh\udcff",))
    assert OneWordAttack(Change.opening, ("می\u200cشود",)).words, "what joins and parts letters belongs to words"
    (tmp_path / "p.json").write_text(json.dumps({"1": ["What is it", "What \ud800"]}))
    with pytest.raises(UserError, match=r"p\.json, row 0 .*, field 'paraphrases': .*correct the text"):
        read_paraphrases(tmp_path / "p.json")


# --- controls -----------------------------------------------------------------------------------


def test_an_evaluation_tells_which_attacks_have_no_control(
    data: Path, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = ("attack", data, "--images", tmp_path, "--to", "What", "--out", tmp_path / "v.jsonl")
    asking = ("evaluate", "m", data, "--images", tmp_path, "--attack", tmp_path / "v.jsonl", "--server", server[0])
    assert call(*attack) == 0
    assert call(*asking, "--out", tmp_path / "with") == 0
    assert "no control" not in capsys.readouterr().err
    assert call(*attack, "--no-control") == 0
    assert call(*asking, "--out", tmp_path / "without") == 0
    assert "warning: first-word:what: no control among the variants" in capsys.readouterr().err


# --- controls -----------------------------------------------------------------------------------


def test_a_control_is_never_the_attacks_own_word_nor_a_cue() -> None:
    queries = [Query(id=f"q{i}", question=f"Share ways to paint pot {i}", harmful=True) for i in range(30)]
    own = neutral_words(0, queries[0].id, [])
    attack, cues = tuple(own[:20]), own[20:60]
    found = one_word_variants(queries, OneWordAttack(Change.opening, attack)).variants
    controls = {variant.word.lower() for variant in found if variant.control_of}
    assert controls
    assert not controls & {word.lower() for word in attack}
    edits = [Edit("substitute", 0, "What")]
    drawn = {edit.word.lower() for query in queries for edit in control_edits(query, edits, 0, cues)}
    assert not drawn & {word.lower() for word in cues}
