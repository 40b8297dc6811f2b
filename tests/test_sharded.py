"""Several processes ask what one asks, and what they leave tells nobody how many there were."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from unmirage.attacks import substitute_first_word
from unmirage.backends.prompts import Prompt
from unmirage.backends.registry import AskingOptions, open_backend
from unmirage.evaluate.measure import Subject
from unmirage.evaluate.run import Evaluation, evaluate, opened
from unmirage.evaluate.sharded import FOLDER, ask_in_shards, evaluate_sharded, shared_out
from unmirage.judges.keywords import vlguard_keywords
from unmirage.runs import JsonLines
from unmirage.schema import Answer, Query


@pytest.fixture(scope="module")
def plan(forget: list[Query], retain: list[Query]) -> Evaluation:
    queries = [*forget, *retain, Query(id="bare", question="What way it", harmful=False)]
    return Evaluation(queries, substitute_first_word(queries, ["What"], "bypass").variants, Subject("t", "n", 0, "d"))


def test_pictures_are_shared_out_whole_and_evenly() -> None:
    prompts = [Prompt(f"q{i}", "?", Path(f"{i % 5}.png")) for i in range(20)] + [Prompt("a", "?", None)] * 3
    parts = shared_out(prompts, 2)
    assert sorted(map(len, parts)) == [11, 12]
    assert not {prompt.image for prompt in parts[0]} & {prompt.image for prompt in parts[1]}
    assert [one for part in parts for one in part if one.image is None] == [Prompt("a", "?", None)] * 3
    assert shared_out(prompts[:4], 9)[4:] == [[]] * 5


@pytest.mark.parametrize("workers", [1, 2])
def test_what_several_processes_end_with_is_what_one_ends_with(
    workers: int, plan: Evaluation, tiny_folder: Path, tmp_path: Path
) -> None:
    make = partial(open_backend, str(tiny_folder), AskingOptions(batch_size=2, max_new_tokens=6))
    alone = evaluate(plan, make(), [vlguard_keywords()], tmp_path / "one")
    said: list[tuple[str, int, int]] = []
    told = lambda *one: said.append(one)  # noqa: E731
    found = evaluate_sharded(plan, make, tmp_path / "more", workers, told, [vlguard_keywords()])
    assert found == alone
    assert (tmp_path / "more" / "metrics.json").read_bytes() == (tmp_path / "one" / "metrics.json").read_bytes()
    texts = [
        {a.row: a.text for a in JsonLines(tmp_path / run / "answers.jsonl").read(Answer)} for run in ("one", "more")
    ]
    assert texts[0] == texts[1]
    assert not (tmp_path / "more" / FOLDER).exists()
    assert {name for name, _, _ in said} == {f"asking, process {number}" for number in range(workers)}


def test_what_a_killed_run_left_in_its_shards_is_not_asked_again(
    plan: Evaluation, tiny_folder: Path, tmp_path: Path
) -> None:
    make = partial(open_backend, str(tiny_folder), AskingOptions(batch_size=2, max_new_tokens=6))
    with opened(plan, make(), tmp_path / "run") as run:
        with JsonLines(tmp_path / "run" / FOLDER / "0.jsonl") as log:
            kept = [
                Answer(key="k", query=prompt.query, question=prompt.question, model="t", text="kept")
                for prompt in plan.prompts[:3]
            ]
            log.append(kept)
        ask_in_shards(run, plan.prompts, make, "t", 1, lambda *_: None)
    found = {answer.row: answer.text for answer in JsonLines(tmp_path / "run" / "answers.jsonl").read(Answer)}
    assert [found[prompt.row] == "kept" for prompt in plan.prompts] == [True] * 3 + [False] * (len(plan.prompts) - 3)
