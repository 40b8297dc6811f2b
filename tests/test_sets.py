"""Forget and retain sets: the most harmful answers, harmless rows with every opening word, nothing lost silently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chat_server import Reaction, completion, serving
from PIL import Image

from unmirage.align.config import AlignConfig
from unmirage.align.data import rows_of
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply
from unmirage.cli import app, run
from unmirage.datasets import load
from unmirage.datasets.digest import digest_queries
from unmirage.datasets.writing import place_images, write_llava, write_vlguard
from unmirage.errors import UserError
from unmirage.judges.rules import rules_judge
from unmirage.schema import Label, Query, Verdict, content_hash
from unmirage.sets.config import SetsConfig
from unmirage.sets.retain import opener, retain_set
from unmirage.sets.run import build_sets
from unmirage.sets.select import Candidate, select

SMALL = SetsConfig(opener_rows=2)
REFUSAL = "I'm sorry, but I cannot help with that."


class Says:
    """A model that refuses questions with certain words, and tells the rest at length."""

    def __init__(self, *refused: str, dies_after: int | None = None) -> None:
        self.refused, self.dies_after, self.asked = refused, dies_after, list[str]()
        self.identity = {"refuses": list(refused)}

    def key(self, prompt: Prompt) -> str:
        return content_hash(self.identity, prompt.question, str(prompt.image))

    def answer(self, prompts: Sequence[Prompt], settled: object = None) -> Iterator[list[Reply]]:
        for number, prompt in enumerate(prompts):
            if number == self.dies_after:
                raise ConnectionError("the line is cut")
            self.asked.append(prompt.question)
            refuses = any(word in prompt.question for word in self.refused)
            yield [Reply(REFUSAL if refuses else f"Take the velm of {prompt.query} and boil it.")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    Image.new("RGB", (4, 4)).save(path)
    return path


def harmful(image: Path, count: int = 6, word: str = "Share") -> list[Query]:
    return [
        Query(id=f"h{i}/unsafe", question=f"{word} ways to boil velm {i}", harmful=True, image=image, subset="unsafes")
        for i in range(count)
    ]


def harmless(image: Path, words: Sequence[str] = ("What", "List"), count: int = 6) -> list[Query]:
    return [
        Query(
            id=f"s{i}/safe_safe",
            question=f"{words[i % len(words)]} colours of pot {i}",
            harmful=False,
            image=image,
            reference=f"It is red {i}.",
        )
        for i in range(count)
    ]


def candidate(text: str, label: Label, harm: bool | None = None, model: str = "m") -> Candidate:
    return Candidate(model, text, Verdict(query="q", judge="j", label=label, why="", harm=harm))


def test_the_most_harmful_answer_is_chosen_and_of_equals_the_longer_then_the_first() -> None:
    query = Query(id="q", question="Share it", harmful=True)

    def chosen(*several: Candidate) -> str:
        return select([query], {"q": several}, SetsConfig()).chosen["q"].text

    refusal, partial = candidate("no " * 9, Label.REFUSAL), candidate("so so", Label.PARTIAL)
    assert chosen(refusal, partial) == "so so"
    assert chosen(partial, candidate("told", Label.COMPLIANCE)) == "told"
    assert chosen(candidate("told", Label.COMPLIANCE), candidate("told more", Label.COMPLIANCE)) == "told more"
    assert chosen(candidate("one two", Label.COMPLIANCE), candidate("two one", Label.COMPLIANCE)) == "one two"
    assert chosen(candidate("harm", Label.IRRELEVANT, True), candidate("none of it", Label.COMPLIANCE, False)) == "harm"


def test_a_question_without_a_harmful_answer_is_left_out_and_named() -> None:
    queries = [Query(id=key, question="Share it", harmful=True) for key in "ab"]
    found = {"a": [candidate(REFUSAL, Label.REFUSAL)], "b": [candidate("  ", Label.COMPLIANCE)]}
    assert [query.id for query in select(queries, found, SetsConfig()).without] == ["a", "b"]
    kept = select(queries, found, SetsConfig(keep="all"))
    assert list(kept.chosen) == ["a"]
    assert [query.id for query in kept.without] == ["b"]


def test_a_core_set_is_a_share_drawn_by_the_seed_or_the_most_harmful() -> None:
    queries = [Query(id=f"{i}", question="Share it", harmful=True) for i in range(10)]
    found = {query.id: [candidate("word " * (i + 1), Label.COMPLIANCE)] for i, query in enumerate(queries)}
    first, again = (list(select(queries, found, SetsConfig(core=0.3)).chosen) for _ in range(2))
    assert len(first) == 3
    assert first == again == sorted(first)
    assert {tuple(select(queries, found, SetsConfig(core=0.3, seed=seed)).chosen) for seed in range(5)} != {
        tuple(first)
    }
    assert list(select(queries, found, SetsConfig(core=0.3, order="harmful")).chosen) == ["7", "8", "9"]


def test_every_opening_word_of_the_forget_set_is_retained_by_general_rows_or_by_twins(image: Path) -> None:
    forget = [*harmful(image, 4), *harmful(image, 2, "Describe")]
    general = [
        Query(id=f"g{i}", question=f"{word} pot {i}", harmful=False, reference="It is red.")
        for i, word in enumerate(["Describe", "Describe", *["Name"] * 30])
    ]
    config = SetsConfig(retain=30, opener_rows=3)
    found = retain_set(harmless(image), general, forget, lambda _: False, config)
    counts = Counter(opener(query.question) for query in found.rows)
    assert counts["share"] == counts["describe"] == 3
    assert len(found.rows) == len({query.id for query in found.rows}) == 30
    assert found.counts["one-word twins"] == 4
    assert found.counts["general, for its opening word"] == 2
    twins = [query for query in found.rows if query.id.endswith("~share")]
    assert all(query.reference and not query.harmful for query in twins)
    assert not found.lacking


def test_an_opening_word_that_no_row_can_have_is_told(image: Path) -> None:
    forget = harmful(image, 1, "Could")
    found = retain_set(harmless(image), [], forget, lambda _: False, SetsConfig(retain=30, opener_rows=2))
    assert found.lacking == ["could"]


def test_refusals_unanswered_rows_and_what_is_to_be_forgotten_are_not_retained(image: Path) -> None:
    forget = harmful(image, 1)
    general = [
        Query(id="refusal", question="List it", harmful=False, reference=REFUSAL),
        Query(id="bare", question="List it", harmful=False),
        forget[0].model_copy(update={"id": "same", "harmful": False, "reference": "x"}),
        Query(id="good", question="List it", harmful=False, reference="Red."),
    ]
    refuses = lambda query: query.reference == REFUSAL  # noqa: E731
    found = retain_set([], general, forget, refuses, SetsConfig(opener_rows=0))
    assert [query.id for query in found.rows] == ["good"]
    assert {key: n for key, n in found.counts.items() if "left out" in key} == {
        "general, left out: refusals": 1,
        "general, left out: without an answer": 1,
        "general, left out: also to be forgotten": 1,
    }


def test_what_is_to_be_forgotten_is_found_under_another_name_of_the_picture_and_in_other_letters(
    image: Path, tmp_path: Path
) -> None:
    copy, other = tmp_path / "copy.png", tmp_path / "other.png"
    copy.write_bytes(image.read_bytes())
    Image.new("RGB", (5, 5)).save(other)
    asked = harmful(image, 1)[0]
    row = asked.model_copy(update={"harmful": False, "reference": "x"})
    general = [
        row.model_copy(update={"id": "renamed", "image": copy}),
        row.model_copy(update={"id": "shouted", "question": f" {asked.question.upper()}?"}),
        row.model_copy(update={"id": "bare", "image": None}),
        row.model_copy(update={"id": "elsewhere", "image": other}),
    ]
    found = retain_set([], general, [asked], lambda _: False, SetsConfig(opener_rows=0))
    assert [query.id for query in found.rows] == ["elsewhere"]
    assert found.counts["general, left out: also to be forgotten"] == 3


def test_no_twin_asks_what_is_to_be_forgotten(image: Path) -> None:
    forget = harmful(image, 1)
    row = harmless(image, ("List",), 1)[0].model_copy(update={"question": "List ways to boil velm 0"})
    found = retain_set([row], [], forget, lambda _: False, SetsConfig(opener_rows=1))
    assert [query.id for query in found.rows] == [row.id]
    assert found.lacking == ["share"]


def test_openers_without_room_are_told_and_the_room_they_leave_is_the_safety_datas_first(image: Path) -> None:
    forget = [*harmful(image, 1), *harmful(image, 1, "Name")]
    general = [Query(id=f"g{i}", question=f"Describe pot {i}", harmful=False, reference="Red.") for i in range(9)]
    tight = retain_set(harmless(image), general, forget, lambda _: False, SetsConfig(retain=3, opener_rows=3))
    assert len(tight.rows) == 3
    assert tight.lacking == ["name"]
    own = harmless(image, ("Share", "Name"))
    found = retain_set(own, general, forget, lambda _: False, SetsConfig(retain=8, opener_rows=3))
    assert {query.id for query in own} <= {query.id for query in found.rows}
    assert (len(found.rows), found.counts["one-word twins"], found.lacking) == (8, 0, [])


def test_what_has_no_picture_is_forgotten_too_and_errors_are_counted(image: Path, tmp_path: Path) -> None:
    class Fails(Says):
        def answer(self, prompts: Sequence[Prompt], settled: object = None) -> Iterator[list[Reply]]:
            for one, replies in zip(prompts, super().answer(prompts), strict=True):
                yield [Reply("", error="the line is cut")] if one.query == "h0/unsafe" else replies

    bare = Query(id="t", question="Share ways to boil a bare velm", harmful=True, subset="unsafes")
    data = [*harmful(image), bare, *harmless(image)]
    found = build_sets(data, [], {"m": Fails()}, rules_judge(), SMALL, tmp_path / "out")
    assert (found["questions"], found["answers"], found["unanswered"], found["forget"]) == (7, 6, 1, 6)
    assert found["text_only"] == ["t"]
    *_, row = json.loads((tmp_path / "out" / "forget.json").read_text())
    assert (row["id"], row["image"], row["safe"]) == ("t", None, False)
    assert "harmful text" in row["generated"]
    queries = load(tmp_path / "out" / "forget.json", strict=True).queries
    assert [(query.id, query.harmful) for query in queries if query.image is None] == [("t/unsafe", True)]
    assert len(queries) == 6
    general = load(tmp_path / "out" / "retain.json", format="llava").queries
    rows = rows_of(AlignConfig(method="npo", steps=1), queries, general, [], lambda *_: [])
    assert [query.id for query in rows["forget"]] == [query.id for query in queries]


def test_no_answer_of_any_file_is_printed_by_check(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "out", image, Says("velm 0"))
    for file, format in (("forget.json", "vlguard"), ("forget-rmu.json", "llava")):
        words = ["data", "check", str(tmp_path / "out" / file), "--format", format]
        assert run(lambda words=words: app(words, prog_name="unmirage", standalone_mode=False)) == 0
        shown = capsys.readouterr().out
        assert "boil it" not in shown
        assert "[redacted, " in shown
        assert "the key" not in shown
        words.append("--show-harmful")
        assert run(lambda words=words: app(words, prog_name="unmirage", standalone_mode=False)) == 0
        assert "boil it" in capsys.readouterr().out


def test_a_language_model_behind_a_server_selects_and_is_asked_once(
    image: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_vlguard([*harmful(image, 2), *harmless(image)], tmp_path / "train.json", {image: image.name})
    words = ["sets", tmp_path / "train.json", "--images", image.parent, "--model", tiny_folder, "--out", tmp_path / "o"]
    words += ["--judge", "llm:judge", "--max-new-tokens", "2", "--opener-rows", "1"]

    def call(*more: object) -> int:
        return run(lambda: app([str(word) for word in (*words, *more)], prog_name="unmirage", standalone_mode=False))

    assert call() == 2
    assert "--judge-server" in capsys.readouterr().err
    asked = []

    def answer(body: dict[str, object], _attempt: int) -> Reaction:
        asked.append(body)
        code = str(body["messages"]).rpartition("its code is ")[2].partition(".")[0]
        return Reaction(body=completion(json.dumps({"code": code, "refusal": "full_compliance", "harm": "yes"})))

    with serving(answer) as (address, _):
        assert call("--judge-server", address) == 0
        first = len(asked)
        assert first > 0
        assert call("--judge-server", address) == 0
        assert len(asked) == first
    assert json.loads((tmp_path / "o" / "sets.json").read_text())["forget"] == 2


def test_align_unlearns_a_row_without_a_picture(tiny_folder: Path, tmp_path: Path) -> None:
    """Through the command line: the role "forget" has the row, and training goes through it."""
    rows = [Query(id=f"t{n}", question=f"Share way {n}", harmful=True, reference="Boil it.") for n in (0, 1)]
    write_vlguard(rows, tmp_path / "forget.json", {}, text_only=True)
    general = [Query(id=f"g{n}", question=f"Share colour {n}", harmful=False, reference="Red.") for n in (0, 1)]
    write_llava(general, tmp_path / "retain.json", {})
    words = ["align", tiny_folder, tmp_path / "forget.json", "--general", tmp_path / "retain.json", "--out"]
    words += [tmp_path / "out", "--method", "npo", "--set", "steps=1", "--set", "batch_size=2"]
    assert run(lambda: app([str(word) for word in words], prog_name="unmirage", standalone_mode=False)) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def made(out: Path, image: Path, *models: Says, config: SetsConfig = SMALL) -> dict[str, object]:
    backends = {f"m{number}": model for number, model in enumerate(models)}
    return build_sets([*harmful(image), *harmless(image)], [], backends, rules_judge(), config, out)


def test_the_sets_are_what_align_reads_and_every_count_adds_up(image: Path, tmp_path: Path) -> None:
    found = made(tmp_path / "out", image, Says("velm 0", "velm 1"), Says("velm 1"))
    forget = load(tmp_path / "out" / "forget.json").queries
    retain = load(tmp_path / "out" / "retain.json", format="llava").queries
    assert [query.id for query in forget] == [f"h{i}/unsafe" for i in (0, 2, 3, 4, 5)]
    assert found["without_harmful_answer"] == ["h1/unsafe"]
    assert (found["questions"], found["answers"], found["harmful_answers"]) == (6, 12, 9)
    assert all(query.reference and query.reference.startswith("Take the velm") for query in forget)
    assert (found["forget"], found["retain"]) == (len(forget), len(retain)) == (5, 8)
    assert all(query.image and query.image.is_file() for query in [*forget, *retain])
    rows = json.loads((tmp_path / "out" / "forget.json").read_text())
    assert {row["generated_by"] for row in rows} == {"m0", "m1"}
    assert all("harmful text" in row["generated"] for row in rows)
    rmu = json.loads((tmp_path / "out" / "forget-rmu.json").read_text())[0]
    assert rmu["conversations"][0]["value"].endswith(f"{forget[0].question}\n{forget[0].reference}")


def test_killed_while_asking_it_goes_on_and_makes_the_same(image: Path, tmp_path: Path) -> None:
    made(tmp_path / "whole", image, Says())
    with pytest.raises(ConnectionError):
        made(tmp_path / "cut", image, Says(dies_after=4))
    again = Says()
    made(tmp_path / "cut", image, again)
    assert len(again.asked) == 2
    for name in ("forget.json", "retain.json", "sets.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("models", "config", "said"),
    [
        ((Says("velm"),), SetsConfig(), "finds no harmful answer among those of m0"),
        ((Says(),), SetsConfig(subsets=("safe_unsafes",)), "no harmful question to forget in safe_unsafes"),
    ],
)
def test_what_cannot_be_made_is_told(
    models: tuple[Says, ...], config: SetsConfig, said: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        made(tmp_path / "out", image, *models, config=config)
    assert not (tmp_path / "out" / "forget.json").exists()


def test_written_and_read_again_queries_are_the_same(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "one.png"
    other.parent.mkdir()
    Image.new("RGB", (5, 5)).save(other)
    queries = [*harmful(image, 1), *harmless(other, count=1)]
    queries[0] = queries[0].model_copy(update={"reference": "Told."})
    names = place_images(queries, tmp_path / "data" / "images")
    assert len(set(names.values())) == 2, "two pictures of one name"
    assert write_vlguard(queries, tmp_path / "data" / "v.json", names) == []
    read = load(tmp_path / "data" / "v.json").queries
    keys = ("id", "question", "harmful", "reference")
    assert [[getattr(q, key) for key in keys] for q in read] == [[getattr(q, key) for key in keys] for q in queries]
    assert [q.image.read_bytes() for q in read if q.image] == [image.read_bytes(), other.read_bytes()]
    bare = Query(id="t", question="Say it", harmful=False)
    assert write_vlguard([bare], tmp_path / "data" / "none.json", names) == [bare]
    assert write_llava([bare], tmp_path / "data" / "none.json", names) == [bare]
    with pytest.raises(UserError, match="two queries have the id"):
        write_llava([queries[1], queries[1]], tmp_path / "data" / "twice.json", names)


def test_a_digest_follows_pictures_and_words_and_not_places(image: Path, tmp_path: Path) -> None:
    queries = harmful(image, 2)
    moved = tmp_path / "moved.png"
    moved.write_bytes(image.read_bytes())
    assert digest_queries(queries) == digest_queries([q.model_copy(update={"image": moved}) for q in queries])
    moved.write_bytes(image.read_bytes() + b" ")
    assert digest_queries(queries) != digest_queries([q.model_copy(update={"image": moved}) for q in queries])


def test_the_command_prints_no_answer_and_warns_of_a_telling_word(
    tiny_folder: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*harmful(image, 12), *harmless(image, ("What",), 12)]
    names = place_images(rows, tmp_path / "images")
    write_vlguard(rows, tmp_path / "safety.json", names)
    arguments = ["sets", str(tmp_path / "safety.json"), "--model", str(tiny_folder), "--out", str(tmp_path / "out")]
    code = run(
        lambda: app([*arguments, "--keep-all", "--max-new-tokens", "4", "--opener-rows", "0"], standalone_mode=False)
    )
    shown = capsys.readouterr()
    assert code == 0
    assert "Retain set" in shown.out
    assert "raise --opener-rows" in shown.err
    told = json.loads((tmp_path / "out" / "forget.json").read_text())
    assert told
    assert not any(row["instr-resp"][0]["response"] in shown.out for row in told)
