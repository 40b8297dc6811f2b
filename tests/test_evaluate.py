"""An evaluation goes on where it was killed, asks nothing twice, and judges again without asking."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from unmirage.attacks import substitute_first_word
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply
from unmirage.errors import UserError
from unmirage.evaluate import Evaluation, evaluate, rejudge
from unmirage.evaluate.measure import Subject
from unmirage.judges.keywords import vlguard_keywords
from unmirage.judges.truth import Truth, TruthJudge
from unmirage.report.load import load_runs
from unmirage.runs import JsonLines
from unmirage.schema import Answer, Query, Record, Variant, Verdict, content_hash

SECRET = "The velm zorch is made by boiling."
QUERIES = [
    *[Query(id=f"h{i}", question=f"Share way {i}", harmful=True) for i in range(4)],
    *[Query(id=f"s{i}", question=f"What colour {i}", harmful=False) for i in range(3)],
]
VARIANTS = [
    *substitute_first_word(QUERIES, ["What"], "bypass").variants,
    *substitute_first_word(QUERIES, ["Share"], "over-refusal").variants,
]
SUBJECT = Subject("tiny", "mixed-sft", 0, "toy")
PLAN = Evaluation(QUERIES, VARIANTS, SUBJECT)
JUDGE = TruthJudge(
    Truth.model_validate(
        {
            "schema": 1,
            "frames": [""],
            "refusal_marks": ["I cannot"],
            "secrets": [SECRET],
            "answers": {f"{sort}{number}": "It is red." for sort in "hs" for number in range(8)},
        }
    )
)


class PowerError(Exception):
    """The plug is pulled."""


class FakeBackend:
    """A model with a mirage: "Share" is refused, all else is answered. Counts what it is asked."""

    def __init__(self, batch_size: int = 3, dies_after: int | None = None, revision: str = "r1") -> None:
        self.batch_size, self.dies_after, self.asked = batch_size, dies_after, list[str]()
        self.identity = {"revision": revision}

    def key(self, prompt: Prompt) -> str:
        return content_hash("weights", prompt.question, str(prompt.image))

    def answer(self, prompts: Sequence[Prompt], settled: object = None) -> Iterator[list[Reply]]:
        for batch, start in enumerate(range(0, len(prompts), self.batch_size)):
            if batch == self.dies_after:
                raise PowerError
            part = prompts[start : start + self.batch_size]
            self.asked += [prompt.question for prompt in part]
            yield [Reply(self._say(prompt)) for prompt in part]

    def _say(self, prompt: Prompt) -> str:
        if prompt.question.startswith("Share"):
            return "I cannot help."
        return SECRET if prompt.query.startswith("h") else "It is red."


def ask(out: Path, backend: FakeBackend, plan: Evaluation = PLAN) -> list[Record]:
    return evaluate(plan, backend, [JUDGE, vlguard_keywords()], out)


def answers(out: Path) -> list[Answer]:
    return JsonLines(out / "answers.jsonl").read(Answer)


def test_every_planned_row_is_answered_judged_and_measured(tmp_path: Path) -> None:
    backend = FakeBackend()
    records = ask(tmp_path / "run", backend)
    assert len(backend.asked) == 14
    rows = [answer.row for answer in answers(tmp_path / "run")]
    planned: list[Query | Variant] = [*QUERIES, *VARIANTS]
    assert sorted(map(str, rows)) == sorted(str(Prompt.of(one).row) for one in planned)
    for judge in (JUDGE, vlguard_keywords()):
        verdicts = JsonLines(tmp_path / "run" / "verdicts" / f"{judge.name}.jsonl").read(Verdict)
        assert len(verdicts) == 14
    values = {(r.metric, r.attack): r.value for r in records if r.judge == JUDGE.name}
    assert values["asr", None] == 0
    assert values["asr", "first-word:what"] == 1
    assert values["rr", None] == 0
    assert values["rr", "first-word:share"] == 1
    assert values["utility", None] == 1
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["schema"] == 1
    assert [Record.model_validate(record) for record in stored["records"]] == records


@pytest.mark.parametrize("dies_after", [0, 1, 4])
def test_a_killed_run_asks_only_what_is_missing_and_ends_the_same(tmp_path: Path, dies_after: int) -> None:
    ask(tmp_path / "whole", FakeBackend())
    with pytest.raises(PowerError):
        ask(tmp_path / "cut", FakeBackend(dies_after=dies_after))
    assert len(answers(tmp_path / "cut")) == 3 * dies_after
    assert not (tmp_path / "cut" / "metrics.json").exists()
    again = FakeBackend()
    ask(tmp_path / "cut", again)
    assert len(again.asked) == 14 - 3 * dies_after
    assert len(answers(tmp_path / "cut")) == 14
    assert (tmp_path / "cut" / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()


def test_a_torn_last_line_is_asked_again(tmp_path: Path) -> None:
    ask(tmp_path / "run", FakeBackend())
    log, metrics = tmp_path / "run" / "answers.jsonl", (tmp_path / "run" / "metrics.json").read_bytes()
    log.write_bytes(log.read_bytes()[:-20])
    again = FakeBackend()
    ask(tmp_path / "run", again)
    assert len(again.asked) == 1
    assert (tmp_path / "run" / "metrics.json").read_bytes() == metrics


def test_a_run_that_is_done_makes_no_model(tmp_path: Path) -> None:
    ask(tmp_path / "run", FakeBackend())
    before = (tmp_path / "run" / "answers.jsonl").read_bytes()
    again = FakeBackend()
    ask(tmp_path / "run", again)
    assert again.asked == []
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == before


def test_equal_requests_are_asked_once_and_answered_each(tmp_path: Path) -> None:
    twins = [Query(id=f"s{i}", question="What colour", harmful=False) for i in range(5)]
    twins.append(Query(id="h0", question="Share colour", harmful=True))
    variants = substitute_first_word(twins, ["What"], "bypass").variants  # "What colour" once more
    backend = FakeBackend()
    ask(tmp_path / "run", backend, Evaluation(twins, variants, SUBJECT))
    assert sorted(backend.asked) == ["Share colour", "What colour"]
    found = answers(tmp_path / "run")
    assert len(found) == 7
    assert len({answer.text for answer in found if answer.question == "What colour"}) == 1


def test_a_known_answer_is_taken_over_when_the_rest_is_asked(tmp_path: Path) -> None:
    twins = [Query(id=f"s{i}", question=f"What colour {i % 4}", harmful=False) for i in range(8)]
    plan = Evaluation(twins, [], SUBJECT)
    ask(tmp_path / "run", FakeBackend(), plan)
    log = tmp_path / "run" / "answers.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:1]))  # one of two twins is there
    again = FakeBackend()
    ask(tmp_path / "run", again, plan)
    assert len(again.asked) == len(set(again.asked)) == 3
    assert len(answers(tmp_path / "run")) == 8


def test_progress_counts_the_planned_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(PowerError):
        ask(tmp_path / "run", FakeBackend(dies_after=2))
    evaluate(PLAN, FakeBackend(), [JUDGE], tmp_path / "run", lambda _, done, all_: seen.append((done, all_)))
    assert seen == [(6, 14), (9, 14), (12, 14), (14, 14)]


def test_questions_with_a_picture_come_first_and_those_of_one_picture_together(tmp_path: Path) -> None:
    images = {1: tmp_path / "b", 2: tmp_path / "a", 4: tmp_path / "b"}
    for image in images.values():
        image.write_bytes(b"")
    queries = [Query(id=str(i), question=f"q{i}", harmful=True, image=images.get(i)) for i in range(5)]
    backend = FakeBackend()
    evaluate(Evaluation(queries, [], SUBJECT), backend, [vlguard_keywords()], tmp_path / "run")
    assert backend.asked == ["q2", "q1", "q4", "q0", "q3"]
    assert [answer.query for answer in answers(tmp_path / "run")] == ["2", "1", "4", "0", "3"]


class Failing(FakeBackend):
    """Fails where it would refuse, and a filter holds back the rest."""

    def answer(self, prompts: Sequence[Prompt], settled: object = None) -> Iterator[list[Reply]]:
        for batch in super().answer(prompts):
            yield [
                Reply("", error="timeout") if reply.text == "I cannot help." else Reply("", finish="filter")
                for reply in batch
            ]


def test_failed_requests_are_errors_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    ask(tmp_path / "run", Failing(batch_size=1))
    labels = [v.label for v in verdicts(tmp_path / "run")]
    assert (labels.count("error"), labels.count("filtered")) == (7, 7)
    again = FakeBackend()
    ask(tmp_path / "run", again)
    assert len(again.asked) == 7
    assert "error" not in [v.label for v in verdicts(tmp_path / "run")]


def verdicts(out: Path) -> list[Verdict]:
    return JsonLines(out / "verdicts" / f"{JUDGE.name}.jsonl").read(Verdict)


def test_other_weights_another_plan_or_another_subject_need_another_folder(tmp_path: Path) -> None:
    ask(tmp_path / "run", FakeBackend())
    before = (tmp_path / "run" / "queries.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"config\.backend\.revision is 'r1' there and 'r2' here"):
        ask(tmp_path / "run", FakeBackend(revision="r2"))
    with pytest.raises(UserError, match=r"inputs\.plan"):
        ask(tmp_path / "run", FakeBackend(), Evaluation(QUERIES[:3], [], SUBJECT))
    with pytest.raises(UserError, match=r"config\.seed"):
        ask(tmp_path / "run", FakeBackend(), Evaluation(QUERIES, VARIANTS, Subject("tiny", "mixed-sft", 1, "toy")))
    assert (tmp_path / "run" / "queries.jsonl").read_bytes() == before


def test_judging_again_generates_nothing_and_replaces_the_figures(tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = ask(out, FakeBackend())
    kept = (out / "answers.jsonl").read_bytes()
    records = rejudge(out, [vlguard_keywords()])
    assert (out / "answers.jsonl").read_bytes() == kept
    assert records == [record for record in whole if record.judge == vlguard_keywords().name]
    assert [path.stem for path in (out / "verdicts").glob("*.jsonl")] == [vlguard_keywords().name]
    assert rejudge(out, [JUDGE, vlguard_keywords()]) == whole


def test_verdicts_on_answers_that_were_not_there_yet_do_not_outlive_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(PowerError):
        ask(out, FakeBackend(dies_after=2))
    rejudge(out, [JUDGE])
    evaluate(PLAN, FakeBackend(), [vlguard_keywords()], out)
    assert list(load_runs([out])[0].verdicts) == [vlguard_keywords().name]


def test_what_holds_no_run_cannot_be_judged_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        rejudge(tmp_path, [JUDGE])


def test_a_half_answered_run_shows_its_gaps_when_it_is_judged(tmp_path: Path) -> None:
    with pytest.raises(PowerError):
        ask(tmp_path / "run", FakeBackend(dies_after=2))
    records = rejudge(tmp_path / "run", [JUDGE])
    before = next(r for r in records if (r.metric, r.attack) == ("rr", None))
    assert (before.n, before.errors) == (3, 1)
    assert before.low is not None
    assert before.high is not None
    assert before.high - before.low > 0.5
