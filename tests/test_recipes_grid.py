"""Grids of recipes: what an entry stands for, worked by hand; mistakes with key and line; keys of old recipes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from unmirage.audit import data as audit_data
from unmirage.cli import app
from unmirage.errors import UserError
from unmirage.recipes.choosing import Choice, Shard
from unmirage.recipes.config import Recipe
from unmirage.recipes.graph import Planned, Step, planned
from unmirage.recipes.grid import expand, text_of
from unmirage.recipes.planning import steps_of
from unmirage.recipes.reading import read_recipe
from unmirage.recipes.run import check
from unmirage.sandbox import pretrain

GRID = """\
schema: 1
name: study
seeds: [0, 1]
grid:
  rho: [0, 0.5, 1.0]
  size: [few, many]
worlds:
  biased-{rho}: {rho: "{rho}"}
data:
  safety-{rho}: {file: safety.json, world: "biased-{rho}"}
  seen: {file: test_seen.json, world: biased-1}
audit:
  - {data: seen}
  - {data: "safety-{rho}", over: {rho: [1]}}
models:
  base: {}
  sft-{rho}:
    label: Mixed-SFT
    method: mixed-sft
    data: safety-{rho}
    settings: {steps: 3}
  repair-{rho}-{size}:
    over: {rho: [1]}
    label: "Repair, rho {rho}"
    method: npo
    start: sft-{rho}
    data: safety-{rho}
    seeds: [0]
measures:
  seen:
    data: [seen]
    models: ["repair-*", "sft-{rho}"]
    judges: [truth]
  shift-{rho}:
    over: {rho: [0, 1]}
    data: ["safety-{rho}"]
    models: [base, sft-1]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(GRID)
    return path


def test_an_entry_named_with_an_axis_stands_for_one_for_each_value() -> None:
    found = expand(
        {
            "grid": {"rho": [0, 0.25, 1.0]},
            "worlds": {"w-{rho}": {"rho": "{rho}", "note": "at {rho}"}, "other": {"rho": 0.5}},
            "title": "{rho} stays",
        }
    )
    assert found.values["worlds"] == {
        "w-0": {"rho": 0, "note": "at 0"},
        "w-0.25": {"rho": 0.25, "note": "at 0.25"},
        "w-1": {"rho": 1.0, "note": "at 1"},
        "other": {"rho": 0.5},
    }
    assert isinstance(found.values["worlds"]["w-1"]["rho"], float)
    assert found.values["title"] == "{rho} stays"


def test_two_axes_in_a_name_make_all_combinations_and_models_say_of_which_they_are() -> None:
    found = expand({"grid": {"a": [1, 2], "b": ["x", "y"]}, "models": {"m-{b}-{a}": {"start": "s-{a}"}}})
    assert found.values["models"] == {
        "m-x-1": {"start": "s-1", "axes": {"a": 1, "b": "x"}},
        "m-y-1": {"start": "s-1", "axes": {"a": 1, "b": "y"}},
        "m-x-2": {"start": "s-2", "axes": {"a": 2, "b": "x"}},
        "m-y-2": {"start": "s-2", "axes": {"a": 2, "b": "y"}},
    }


def test_lists_are_written_out_in_place_and_inside_a_named_entry_only_over_the_other_axes() -> None:
    grid = {"a": [1, 2], "b": ["x", "y"]}
    entries = {"m": {"data": ["first", "d-{a}", "last"]}, "n-{a}": {"data": ["e-{a}-{b}"]}}
    found = expand({"grid": grid, "measures": entries, "audit": [{"data": "d-{a}", "against": "c-{b}"}]})
    assert found.values["measures"]["m"] == {"data": ["first", "d-1", "d-2", "last"]}
    assert found.values["measures"]["n-2"] == {"data": ["e-2-x", "e-2-y"], "axes": {"a": 2}}
    assert [tuple(one.values()) for one in found.values["audit"]] == [
        ("d-1", "c-x"), ("d-1", "c-y"), ("d-2", "c-x"), ("d-2", "c-y"),
    ]  # fmt: skip


def test_over_leaves_values_out_in_names_and_lists_and_keeps_the_order_of_the_grid() -> None:
    grid = {"a": [1, 2, 3]}
    found = expand(
        {
            "grid": grid,
            "models": {"m-{a}": {"over": {"a": [3, 1]}}},
            "measures": {"n": {"over": {"a": [2]}, "models": ["m-{a}"]}},
            "audit": [{"data": "{a}", "over": {"a": [3]}}],
        }
    )
    assert list(found.values["models"]) == ["m-1", "m-3"]
    assert found.values["measures"]["n"] == {"models": ["m-2"]}
    assert found.values["audit"] == [{"data": 3}]


def test_axes_given_by_hand_go_before_those_of_the_name() -> None:
    found = expand({"grid": {"a": [1]}, "models": {"m-{a}": {"axes": {"a": 7, "b": "x"}}}})
    assert found.values["models"]["m-1"]["axes"] == {"a": 7, "b": "x"}


def test_without_a_grid_nothing_is_changed() -> None:
    values = {"models": {"m": {"label": "{rho}"}}, "audit": [{"data": "d"}]}
    assert expand(values).values == values


def test_what_was_made_leads_back_to_where_it_was_written() -> None:
    values = {"grid": {"a": [1, 2]}, "measures": {"m-{a}": {"data": ["x"]}, "n": {"data": ["d-{a}", "e"]}}}
    found = expand(values)
    assert found.origin(("measures", "m-2", "data", 0)) == ("measures", "m-{a}", "data", 0)
    assert found.origin(("measures", "n", "data", 2)) == ("measures", "n", "data", 1)
    assert found.origin(("measures", "n", "judges")) == ("measures", "n", "judges")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_name_of_a_number_is_that_number(value: float) -> None:
    assert float(text_of(value)) == value


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), st.sampled_from(["x", "y"]))
def test_writing_out_twice_is_writing_out_once(values: list[int], word: str) -> None:
    once = expand({"grid": {"a": values}, "data": {f"{word}-{{a}}": {"file": "{a}.json"}}}).values
    assert expand(once).values == once
    assert len(once["data"]) == len(values)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("grid: 3", "line 4: grid is written as `axis: [value, ...]`"),
        ("grid: {rho: []}", "line 4: grid.rho is a list of at least one number or word"),
        ("grid: {rho: [0, 0.0]}", "line 4: grid.rho has 0 twice"),
        ("grid: {rho: [true]}", "line 4: grid.rho has True; the values of an axis are numbers or words"),
        ("grid: {rho: [a b]}", "line 4: grid.rho has 'a b', which becomes a part of names"),
        ("grid: {rho: [.inf]}", "line 4: grid.rho has inf; the numbers of an axis are finite"),
        ("grid: {2: [1]}", "line 4: grid.2 is no name of an axis"),
        ("grid: {rho: [1]}\nworlds:\n  w-{size}: {}", "line 6: worlds.w-{size} has {size}, which is no axis"),
        ("grid: {rho: [1]}\nworlds:\n  w:\n    rho: '{rho}'", "line 7: worlds.w.rho has {rho}, which the entry's name"),
        ("grid: {rho: [1]}\nworlds:\n  w-1: {}\n  w-{rho}: {}", "line 7: worlds.w-{rho} makes 'w-1', which is there"),
        ("grid: {rho: [1]}\nworlds:\n  w: {over: {n: [1]}}", "line 6: worlds.w.over.n is no axis of the grid"),
        ("grid: {rho: [1]}\nworlds:\n  w: {over: {rho: [2]}}", "line 6: worlds.w.over.rho has 2, which grid.rho has"),
        ("grid: {rho: [1]}\nworlds:\n  w: {over: 2}", "line 6: worlds.w.over is written as"),
        ("grid: {rho: [2, 1]}\nworlds:\n  w-{rho}:\n    rho: '{rho}'", "line 7: worlds.w-2.rho: Input should be less"),
        ("grid: {rho: [1]}\nmodels:\n  m-{rho}:\n    methd: x", "line 7: models.m-1.methd: there is no such key"),
        ("grid: {rho: [1]}\nmodels:\n  m-{rho}:\n    start: x", "line 6: models.m-1: start, data, audit, settings"),
        (
            "grid: {rho: [1, 2]}\ndata: {d-1: {file: a}}\nmeasures:\n  m:\n    data: ['d-{rho}']",
            "line 8: measures.m.data names 'd-2', which is not there",
        ),
        (
            "grid: {rho: [1, 2]}\ndata: {d: {file: a}}\nmeasures:\n  m:\n    data:\n    - 'd-{rho}'\n    - [x]",
            "line 10: measures.m.data.2: Input should be a valid string",
        ),
        (
            "data: {d: {file: a}}\nmodels: {base: {}}\nmeasures:\n  m:\n    data: [d]\n    models: [bse-*]",
            "line 9: measures.m.models names 'bse-*', which is not there; there are base",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_the_line_where_it_was_written(entry: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"schema: 1\nname: x\nabout: y\n{entry}\n")
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert f"{path}, {said}" in str(error.value)


def test_a_grid_that_would_not_end_is_refused(tmp_path: Path) -> None:
    axes = {letter: list(range(20)) for letter in "abcde"}
    path = tmp_path / "large.yaml"
    large = {"schema": 1, "name": "x", "grid": axes, "worlds": {"{a}-{b}-{c}-{d}-{e}": {"seed": 1}}}
    path.write_text(yaml.safe_dump(large))
    with pytest.raises(UserError, match="grid makes more than 100,000 values"):
        read_recipe(path)


def test_axes_and_entries_of_a_grid_may_be_set(study: Path) -> None:
    found = read_recipe(study, ["grid.rho=[1, 0.75, 0]", "models.sft-{rho}.settings.steps=9"])
    assert list(found.worlds) == ["biased-1", "biased-0.75", "biased-0"]
    assert {found.models[f"sft-{rho}"].settings["steps"] for rho in ("0", "0.75", "1")} == {9}
    with pytest.raises(UserError, match=r"^--set models.x-\{rho\}=\{methd: 1\}: models.x-0.methd: there is no"):
        read_recipe(study, ["models.x-{rho}={methd: 1}"])


def test_a_recipe_reads_back_as_it_was_written_down(study: Path) -> None:
    found = read_recipe(study)
    assert Recipe.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert found.grid == {"rho": (0, 0.5, 1), "size": ("few", "many")}


def test_models_of_one_label_are_told_apart_by_their_axes(study: Path) -> None:
    found = read_recipe(study)
    assert {found.label(name, 0) for name in found.models if name.startswith("sft")} == {"Mixed-SFT (seed 0)"}
    with pytest.raises(UserError, match="are both called 'Mixed-SFT"):
        read_recipe(study, ["models.again={method: npo, data: seen, label: Mixed-SFT, axes: {rho: 0.5}}"])


def plan_of(path: Path, *settings: str) -> dict[str, Planned]:
    return planned(steps_of(read_recipe(path, settings)), path.parent / "out")


def test_a_measure_asks_its_models_alone_and_answers_say_of_which_point_they_are(study: Path) -> None:
    plan = plan_of(study)
    asked = {name.removeprefix("ask/") for name in plan if name.startswith("ask/")}
    sft = {f"seen/sft-{rho}/seed-{seed}" for rho in ("0", "0.5", "1") for seed in (0, 1)}
    repair = {f"seen/repair-1-{size}/seed-0" for size in ("few", "many")}
    shift = {f"shift-{rho}/{one}" for rho in (0, 1) for one in ("base/seed-0", "sft-1/seed-0", "sft-1/seed-1")}
    assert asked == sft | repair | shift
    axes = {name: plan[f"judge/{name}"].step.config["subject"]["axes"] for name in asked}
    assert axes["seen/sft-0.5/seed-1"] == {"rho": 0.5}
    assert axes["seen/repair-1-few/seed-0"] == {"rho": 1, "size": "few"}
    assert axes["shift-0/sft-1/seed-0"] == {"rho": 1}, "the model's own goes before the measure's"
    assert axes["shift-0/base/seed-0"] == {"rho": 0}


def test_an_added_value_leaves_the_steps_of_the_others_as_they_were(study: Path) -> None:
    before, after = plan_of(study), plan_of(study, "grid.rho=[0, 0.25, 0.5, 1.0]")
    assert {name: one.key for name, one in before.items()}.items() <= {n: one.key for n, one in after.items()}.items()
    assert {name for name in after.keys() - before.keys() if name.startswith("draw")} == {"draw/biased-0.25"}


DEMO = {
    "draw/biased": "60f6ed931ac7",
    "attack/safety/what": "88199361a64a",
    "attack/safety/share": "3c61a5708673",
    "align/mixed-sft/seed-0": "f94babd44784",
    "align/npo/seed-0": "6f702ea60368",
    "ask/safety/npo/seed-0": "98bec2103dcd",
}
"""Keys that finished runs have; those of judges and audits depend on rules, which are looked at elsewhere."""


def test_new_keys_of_recipes_leave_the_steps_of_old_runs_as_they_were(tmp_path: Path) -> None:
    plan = planned(steps_of(read_recipe("demo")), tmp_path)
    assert {name: plan[name].key for name in DEMO} == DEMO


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{pretrain: {salience: plain}, checkpoint: x}", "a checkpoint, a method, a server or a pretraining"),
        ("{pretrain: {salience: plan}}", "models.m.pretrain.salience"),
        ("{method: npo, data: seen, audit: safety-1}", None),
        ("{method: npo, data: seen, audit: safety-0}", "models.m.audit names 'safety-0', which is not there"),
        ("{audit: seen}", "start, data, audit, settings, seeds and launch belong to a method"),
    ],
)
def test_models_with_a_pretraining_or_an_audit(model: str, said: str | None, study: Path) -> None:
    if said is None:
        plan = plan_of(study, f"models.m={model}")
        assert plan["align/m/seed-0"].step.needs == ("draw/biased-1", "audit/safety-1")
    else:
        with pytest.raises(UserError, match=said):
            read_recipe(study, [f"models.m={model}"])


def test_words_that_an_audit_is_still_to_find_are_no_mistake_and_other_settings_are(study: Path) -> None:
    check(read_recipe(study, ["models.m={method: twin-sft, data: seen, audit: seen}"]))
    with pytest.raises(UserError, match=r"^models\.m: .*words"):
        check(read_recipe(study, ["models.m={method: twin-sft, data: seen}"]))
    with pytest.raises(UserError, match=r"^models\.m: there is no setting 'lrr'"):
        check(read_recipe(study, ["models.m={method: twin-sft, data: seen, audit: seen, settings: {lrr: 1}}"]))


def test_a_base_that_is_pretrained_has_a_step_but_for_the_one_that_is_shipped(study: Path) -> None:
    more = ["models.plain={pretrain: {salience: plain}}", "models.ours={pretrain: {salience: badge}}"]
    more.append("models.m={method: npo, start: plain, data: seen}")
    plan = plan_of(study, *more)
    assert "pretrain/plain" in plan["align/m/seed-0"].step.needs
    assert "pretrain/ours" not in plan
    assert plan["pretrain/plain"].key == plan_of(study, *more)["pretrain/plain"].key


def test_a_base_whose_recipe_has_changed_is_pretrained_anew(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "models.plain={pretrain: {salience: plain}}"
    before = plan_of(study, more)["pretrain/plain"].key
    assert plan_of(study, "models.plain={pretrain: {salience: plain, steps: 1200}}")["pretrain/plain"].key == before
    assert plan_of(study, "models.plain={pretrain: {salience: plain, steps: 1201}}")["pretrain/plain"].key != before

    @dataclass(frozen=True)
    class Changed(pretrain.Recipe):
        lr: float = 1e-3

    monkeypatch.setattr(pretrain, "Recipe", Changed)
    assert plan_of(study, more)["pretrain/plain"].key != before


def test_an_audit_by_other_rules_is_made_anew(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(study)

    @dataclass(frozen=True)
    class Changed(audit_data.Settings):
        min_n: int = 7

    monkeypatch.setattr(audit_data, "Settings", Changed)
    after = plan_of(study)
    made = {name for name in before if before[name].key != after[name].key}
    assert {name for name in before if name.startswith("audit/")} <= made
    assert not any(name.startswith(("draw/", "attack/")) for name in made)


def test_pictures_of_another_salience_than_the_base_knows_are_refused(study: Path) -> None:
    more = ["models.plain={pretrain: {salience: plain}, label: P}", "measures.seen.models=[plain]"]
    with pytest.raises(UserError, match=r"^models\.plain: its base knows a world of salience plain, and data\.seen is"):
        check(read_recipe(study, more))
    with pytest.raises(UserError, match=r"salience badge, and data\.safety-0"):
        check(read_recipe(study, ["worlds.biased-{rho}.salience=none"]))
    with pytest.raises(UserError, match=r"^models\.plain: steps is a|models\.plain\.pretrain\.steps"):
        check(read_recipe(study, ["models.plain={pretrain: {salience: plain, steps: 0}}"]))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("{edit: insert}", "an attack has words"),
        ("{to: [What], file: a.jsonl}", "one of these"),
        ("{paraphrases: a.json, to: [What, How]}", "paraphrases have one cue"),
        ("{paraphrases: a.json, edit: insert}", "edit, at, intent and grammar belong to words"),
        ("{to: [What], world: biased-1}", "of a world an attack has a file"),
        ("{paraphrases: ../a.json, world: biased-1}", "named as the world names them"),
        ("{paraphrases: a.json, world: lost}", "attacks.a.world names 'lost'"),
    ],
)
def test_attacks_that_fit_no_kind_are_refused(attack: str, said: str, study: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_recipe(study, [f"attacks.a={attack}"])


def test_attacks_say_what_they_do_and_their_place_is_checked_before_anything_is_done(study: Path) -> None:
    attacks = ["attacks.a={edit: insert, at: end, to: [please]}", "attacks.b={edit: delete, intent: true}"]
    attacks += ["attacks.c={paraphrases: paraphrases_seen.json, world: biased-1}", "measures.seen.attacks=[a, b, c]"]
    plan = plan_of(study, *attacks)
    config = plan["attack/seen/a"].step.config
    assert {key: config[key] for key in ("edit", "at", "to")} == {"edit": "insert", "at": "end", "to": ["please"]}
    assert plan["attack/seen/b"].step.config["intent"] is True
    assert plan["attack/seen/c"].step.needs == ("draw/biased-1",)
    assert plan["attack/seen/c"].step.config["paraphrases"] == "paraphrases_seen.json"
    with pytest.raises(UserError, match=r"^attacks\.a: the opening word stands at the beginning"):
        check(read_recipe(study, ["attacks.a={to: [What], at: end}"]))


def step(name: str, *needs: str, model: str = "") -> Step:
    return Step(name, name.split("/")[0], {"of": name}, needs, about={"model": model} if model else {})  # type: ignore[arg-type]


PLAN = planned(
    [
        step("draw/w"),
        step("audit/d", "draw/w"),
        step("align/a", "draw/w", model="a"),
        step("align/b", "align/a", model="b"),
        step("align/c", "draw/w", model="c"),
        step("ask/a", "align/a", model="a"),
        step("ask/b", "align/b", model="b"),
        step("ask/c", "align/c", model="c"),
        step("judge/c", "ask/c", model="c"),
    ],
    Path("out"),
)


def test_a_pattern_names_steps_or_models_and_brings_what_they_need() -> None:
    assert Choice(("c",)).steps(PLAN) == {"draw/w", "align/c", "ask/c", "judge/c"}
    assert Choice(("ask/b",)).steps(PLAN) == {"draw/w", "align/a", "align/b", "ask/b"}
    assert Choice(("align/*", "audit/d")).steps(PLAN) == {"draw/w", "audit/d", "align/a", "align/b", "align/c"}
    assert Choice().steps(PLAN) == set(PLAN)
    with pytest.raises(UserError, match="--only x: no step, model"):
        Choice(("x",)).steps(PLAN)


def test_shares_are_whole_together_and_models_that_start_from_one_another_stay_in_one() -> None:
    one, two = (Choice(shard=Shard(number, 2)).steps(PLAN) for number in (1, 2))
    assert one | two == set(PLAN)
    assert one == {"draw/w", "audit/d", "align/a", "align/b", "ask/a", "ask/b"}
    assert two == {"draw/w", "align/c", "ask/c", "judge/c"}
    both = (Choice(("c",), Shard(number, 2)).steps(PLAN) for number in (1, 2))
    assert set().union(*both) == Choice(("c",)).steps(PLAN)


def test_of_more_shares_than_there_is_work_the_last_ones_are_empty() -> None:
    shares = [Choice(shard=Shard(number, 10**9 - 1)).steps(PLAN) for number in (1, 2, 3, 10**9 - 1)]
    assert shares[:2] == [Choice(shard=Shard(number, 2)).steps(PLAN) for number in (1, 2)]
    assert shares[2:] == [set(), set()]


@pytest.mark.parametrize("text", ["0/2", "1/" + "9" * 5000, "3/2", "1/0", "one", "1", "1/2/3"])
def test_a_share_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no share"):
        Shard.of(text)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether one of the forms that a schema allows has the type of a value."""
    types = {"string": str, "number": (int, float), "integer": int}
    return any(isinstance(value, types[form["type"]]) for form in schema.get("anyOf", [schema]) if "type" in form)


def test_the_schema_knows_recipes_as_they_are_written() -> None:
    schema = json.loads(CliRunner().invoke(app, ["recipe", "schema"]).output)
    world = schema["$defs"]["World"]["properties"]
    assert accepts(world["rho"], "{rho}")
    assert accepts(world["rho"], 0.5)
    assert accepts(world["salience"], "{salience}")
    assert "over" in world
    assert any(re.match(pattern, "biased-{rho}") for pattern in schema["properties"]["worlds"]["patternProperties"])
