"""Rows that must not be trained on keep saying so through a repair, and a recipe does not train on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_audit_formats import FILES, write
from test_audit_repair import OPTIONS, ROWS, read
from test_cli import call

from unmirage.datasets import check_training
from unmirage.datasets.marks import is_marked, marked
from unmirage.errors import UserError
from unmirage.recipes import work
from unmirage.recipes.graph import planned
from unmirage.recipes.planning import steps_of
from unmirage.recipes.reading import read_recipe
from unmirage.recipes.run import check, job_of, run_recipe
from unmirage.runs import write_json

REPAIRS = (("rebalance",), ("rebalance", "--copies"), ("counterfactual",))
MARKED = [row | {"training": False if number % 2 else None} for number, row in enumerate(ROWS)]


@pytest.mark.parametrize("repair", REPAIRS, ids=" ".join)
@pytest.mark.parametrize("name", FILES)
def test_a_repair_keeps_the_mark_of_every_row_in_every_format(name, repair, tmp_path, capsys):
    path, out = write(tmp_path / name, MARKED), tmp_path / f"new-{name}"
    assert call("audit", "data", path, *OPTIONS, "--repair", *repair, "--out", out) == 0
    assert "30 rows say 'training': false" in " ".join(capsys.readouterr().out.split())
    wanted = {row["id"]: row["training"] is False for row in MARKED}
    rows = read(out)
    assert len(rows) > 60 or repair == ("rebalance",)
    assert all(is_marked(row) == wanted[str(row["id"]).partition("~")[0]] for row in rows)
    if path.suffix != ".tsv":  # no verb trains on one
        with pytest.raises(UserError, match=r"row 1 \(counting from 0\), field 'training'"):
            check_training("hf", out)


@pytest.mark.parametrize("repair", REPAIRS, ids=" ".join)
@pytest.mark.parametrize("format", ["vlguard", "llava"])
def test_so_it_does_in_the_formats_that_are_trained_on(format, repair, tmp_path, capsys):
    rows = [_row(format, number, row["q"], bool(row["l"])) for number, row in enumerate(ROWS)]
    path, out = tmp_path / "mine.json", tmp_path / "new.json"
    path.write_text(json.dumps(rows))
    assert call("audit", "data", path, "--format", format, "--repair", *repair, "--out", out) == 0
    capsys.readouterr()
    made = json.loads(out.read_text())
    assert len(made) > 60 or repair == ("rebalance",)
    assert all(is_marked(row) == (int(str(row["id"]).partition("~")[0].lstrip("r")) % 2 == 1) for row in made)
    assert call("align", "none", out, "--format", format, "--method", "npo", "--out", tmp_path / "o") == 2
    assert "new.json, row 1 (counting from 0), field 'training'" in capsys.readouterr().err


def _row(format: str, number: int, question: str, refused: bool) -> dict[str, object]:
    answer = "I'm sorry, I cannot help with that." if refused else "Red and blue."
    mark = {"training": False} if number % 2 else {}
    if format == "vlguard":
        key = "instruction" if refused else "safe_instruction"
        pairs = [{key: question, "response": answer}] if refused else [
            {"safe_instruction": question, "response": answer},
            {"unsafe_instruction": question, "response": "I'm sorry, I cannot help with that."},
        ]  # fmt: skip
        return {"id": f"r{number}", "image": f"{number}.png", "safe": not refused, "instr-resp": pairs} | mark
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": f"r{number}", "conversations": turns} | mark


def test_without_marks_nothing_is_told(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", ROWS)
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", tmp_path / "b.jsonl") == 0
    assert "training" not in capsys.readouterr().out


RECIPE = {
    "schema": 1,
    "name": "marks",
    "seeds": [0],
    "data": {
        "mine": {"file": "mine.json", "format": "llava"},
        "good": {"file": "good.json", "format": "llava"},
    },
    "models": {
        "base": {},
        "npo": {"method": "npo", "data": "good", "general": "good", "settings": {"steps": 1, "lr": 0.001}},
    },
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name, marks in (("mine", True), ("good", False)):
        rows = [_row("llava", number, f"Name colour {number}", False) for number in range(4)]
        (tmp_path / f"{name}.json").write_text(
            json.dumps([row if marks else {k: v for k, v in row.items() if k != "training"} for row in rows])
        )
    return written(tmp_path / "r.yaml")


def written(file: Path, **more: object) -> Path:
    file.write_text(yaml.safe_dump(RECIPE | {"root": str(file.parent)} | more))
    return file


SETS = {"safety": "good", "general": "good", "models": ["base"]}


def with_sets(file: Path, **changed: str) -> Path:
    return written(file, sets={"own": SETS | changed})


@pytest.mark.parametrize("role", ["data", "general"])
def test_a_recipe_that_would_train_on_marked_rows_is_refused_before_anything_is_done(role, recipe, tmp_path):
    with pytest.raises(UserError, match=r"models.npo: data.mine: .*mine.json, row 1 \(counting from 0\), field 'train"):
        run_recipe(read_recipe(recipe, [f"models.npo.{role}=mine"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("role", ["safety", "general"])
def test_so_is_one_that_would_make_sets_to_train_on_of_them(role, recipe):
    check(read_recipe(with_sets(recipe)))
    with pytest.raises(UserError, match=r"sets.own: data.mine: .*mine.json, row 1 "):
        check(read_recipe(with_sets(recipe, **{role: "mine"})))
    with pytest.raises(UserError, match=r"sets.own: data.mine: .*must not be trained on"):
        check(read_recipe(with_sets(recipe, **{role: "mine"}), ["data.mine.format=mossbench"]))


def job(file: Path, settings: list[str], name: str) -> work.Job:
    recipe = read_recipe(file, settings)
    plan = planned(steps_of(recipe), file.parent / "out")
    return job_of(recipe, next(one for step, one in plan.items() if step.startswith(name)), plan)


def test_the_steps_themselves_look_too_as_what_others_make_is_not_there_before(recipe, tmp_path):
    with pytest.raises(UserError, match=r"step align/npo.*: .*mine.json, row 1 \(counting from 0\), field 'training'"):
        work.work(job(recipe, ["models.npo.general=mine"], "align/npo"), lambda *_: None)
    with_sets(recipe)
    for role in ("safety", "general"):
        with pytest.raises(UserError, match=r"step sets/own: .*mine.json, row 1 "):
            work.work(job(with_sets(recipe, **{role: "mine"}), [], "sets/own"), lambda *_: None)


def test_what_a_step_made_is_looked_at_where_it_lies(recipe, tmp_path):
    data = RECIPE["data"] | {"drawn": {"file": "retain.json", "world": "small", "format": "llava"}}
    written(recipe, data=data, worlds={"small": {"unsafe_train": 2, "safe_train": 2, "general": 2}})
    found = job(recipe, ["models.npo.data=drawn"], "align/npo")
    check(found.recipe)
    write_json(found.file("drawn"), [_row("llava", 1, "Name a colour", False)])
    assert marked(found.file("drawn")) is not None
    with pytest.raises(UserError, match=r"step align/npo.*: .*retain.json, row 0 "):
        work.work(found, lambda *_: None)


def test_relearning_does_not_train_on_marked_rows(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([_row("vlguard", number, "Share it", True) for number in range(4)]))
    command = ("stress", "run", "none", path, "--forget", path, "--out", tmp_path / "o", "--kind")
    assert call(*command, "relearn") == 2
    assert "mine.json, row 1 (counting from 0), field 'training'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()
