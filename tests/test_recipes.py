"""Recipes: errors that name key and line, steps that are not done twice, kills that lose no more than a step."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from judge_models import build_classifier
from PIL import Image
from typer.testing import CliRunner

from unmirage.align.methods import METHODS
from unmirage.cli import app
from unmirage.errors import UserError
from unmirage.judges.rules import rules_judge
from unmirage.judges.truth import RULE
from unmirage.recipes.config import Recipe
from unmirage.recipes.graph import fingerprint, planned
from unmirage.recipes.judging import identity, truth_files
from unmirage.recipes.planning import steps_of
from unmirage.recipes.reading import read_recipe, shipped
from unmirage.recipes.run import check, job_of, run_recipe
from unmirage.recipes.variants import variants_of
from unmirage.sandbox.build import ASKED, FILES, DataPlan, build
from unmirage.sandbox.world import World
from unmirage.schema import Query

TINY = """\
schema: 1
name: tiny
seeds: [0, 1]
workers: 2
worlds:
  small: {unsafe_train: 6, safe_train: 6, general: 12, unsafe_test: 3, safe_test: 3}
sets:
  own:
    safety: unlearn
    general: retain
    models: [base]
    how: {opener_rows: 2, retain: 10}
    max_new_tokens: 12
data:
  unlearn: {file: unlearn.json, world: small}
  own-forget: {file: forget.json, sets: own}
  own-retain: {file: retain.json, sets: own, format: llava}
  retain: {file: retain.json, world: small, format: llava}
  seen: {file: test_seen.json, world: small, split: seen, limit: 8}
audit:
  - {data: unlearn}
models:
  base: {}
  npo:
    method: npo
    data: unlearn
    general: retain
    settings: {steps: 3, lr: 1.0e-3, batch_size: 4, save_steps: 1}
  own:
    method: npo
    seeds: [0]
    data: own-forget
    general: own-retain
    settings: {steps: 2, batch_size: 4}
attacks:
  what: {to: [What]}
  share: {goal: over-refusal, to: [Share]}
measures:
  safety: {data: [seen], attacks: [what, share], judges: [truth, vlguard], max_new_tokens: 8}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def keys(path: Path, *settings: str) -> dict[str, str]:
    plan = planned(steps_of(read_recipe(path, settings)), path.parent / "out")
    return {name: one.key for name, one in plan.items()}


def changed(path: Path, *settings: str) -> set[str]:
    before, after = keys(path), keys(path, *settings)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "schema: 1\nname: x\nmodels:\n  a:\n    method: npo\n    dta: x\n",
            "line 6: models.a.dta: there is no such key",
        ),
        ("schema: 1\nname: x\nseeds: [0, -1]\n", "line 3: seeds.1: Input should be greater than or equal to 0"),
        ("schema: 1\nabout: x\n", "name: this key is missing"),
        ("schema: 2\nname: x\n", "line 1: schema: Input should be 1"),
        ("schema: 1\nname: x\nname: y\n", "line 3: 'name' stands there twice"),
        ("schema: 1\nname: [x\n", "is not YAML"),
        ("- 1\n", "a recipe is written as `name: value`"),
        ("schema: 1\nname: x\nmodels:\n  a: {method: npo}\n", "line 4: models.a: a method needs data"),
        ("schema: 1\nname: x\nattacks:\n  a: {goal: bypass}\n", "line 4: attacks.a: an attack has words"),
        (
            "schema: 1\nname: x\nmeasures:\n  m:\n    data: [lost]\n",
            "line 5: measures.m.data names 'lost', which is not there; there are none",
        ),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seeds", "is not a setting"),
        ("seeds=[", "is not YAML"),
        ("name=2024-13-45", "^--set 'name=2024-13-45': the value is not YAML"),
        ("name=" + "[" * 5000, "the value is not YAML"),
        ("name.x=1", "'name' is a value"),
        ("seeds.9=1", "'9' is no place in a list of 2"),
        ("models.npo.method=4", "--set models.npo.method=4: models.npo.method: Input should be a valid string"),
        ("world=1", "--set world=1: world: there is no such key"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, said: str, tiny: Path) -> None:
    with pytest.raises(UserError, match=said.replace("[", r"\[")):
        read_recipe(tiny, [setting])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seeds=[0,0]", "seeds: 0 stands there twice"),
        ("models.npo.seeds=[]", "at least 1 item"),
        ("models.base.seeds=[1]", "seeds and launch belong to a method"),
        ("models.npo.settings.seed=1", "seed is not among the settings"),
        ("models.own.label=base", "models.own and models.base are both called 'base' in results"),
        ("measures.safety.data=[seen,seen]", "'seen' stands there twice"),
        ("measures.safety.data=[]", "at least 1 item"),
        ("measures.safety.data=[lost]", "--set measures.safety.data=[lost]: measures.safety.data names 'lost'"),
        ("measures.safety.timeout=.inf", "finite number"),
        ("data.seen.sets=own", "of a world or of sets"),
        ("data.seen.file=../seen.json", "named as its step names it"),
        ("name=..", "match pattern"),
        ("worlds={..: {}}", "match pattern"),
        ("audit=[{data: unlearn}, {data: unlearn}]", "audit has unlearn twice"),
        ("models.npo={method: 4}", "--set models.npo={method: 4}: models.npo.method"),
    ],
)
def test_what_would_count_twice_or_leave_the_folder_is_refused(setting: str, said: str, tiny: Path) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_recipe(tiny, [setting])


def test_a_label_with_several_seeds_is_not_that_of_a_model_with_one(tiny: Path) -> None:
    assert read_recipe(tiny, ["models.npo.label=base"]).label("npo", 1) == "base (seed 1)"


@pytest.mark.parametrize(
    "text",
    [
        "schema: 1\nname: 2001-99-99\n",
        "schema: 1\nname: x\ndata: &a {b: *a}\n",
        "[" * 5000,
        "x: !!python/object:os.system {}\n",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)),
    ],
)
def test_odd_yaml_is_told_and_not_died_of(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is not YAML"):
        read_recipe(path)


def test_a_setting_at_one_of_two_places_with_an_anchor_leaves_the_other(tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text(
        "schema: 1\nname: x\ndata: {d: {file: a.json}}\nmodels:\n"
        "  a-1.5: &a {method: npo, data: d, settings: {lr: 1}}\n"
        "  b: *a\n  c: {<<: *a, label: third}\nworlds:\n"
    )
    found = read_recipe(path, ["models.a-1.5.settings.lr=2", "worlds.w.rho=0.5"])
    assert [model.settings["lr"] for model in found.models.values()] == [2, 1, 1]
    assert found.worlds["w"].rho == 0.5


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("measures.safety.judges=[rulez]", "measures.safety.judges: no judge is called 'rulez'"),
        ("measures.safety.judges=[llm:m]", "measures.safety.judges: the judge llm:m needs"),
        ("measures.safety.judges=[classifier:lost]", "measures.safety.judges: .*lost"),
        ("sets.own.judge=rulez", "sets.own.judge: no judge is called"),
        ("data.seen.format=csv", "data.seen.format: there is no format 'csv'"),
        ("attacks.what.to=[Two words]", "attacks.what: 'Two words' is not one word"),
        ("data.unlearn.format=mossbench", "models.npo: .* must not be trained on"),
        ("data.seen.file=sen.json", "^data.seen.file: a world has no file sen.json; choose among test_seen.json, "),
        ("data.own-forget.file=x.json", "^data.own-forget.file: sets has no file x.json; choose among forget.json, "),
        ("attacks.what={paraphrases: x.json, world: small}", "^attacks.what: a world has no file x.json"),
        ("data.seen.file=safety.json", "^measures.safety.judges: the judge truth reads .* data.seen, safety.json, has"),
        ("sets.own.judge=truth", "^sets.own.judge: the judge truth reads the truth, and data.unlearn, unlearn.json, "),
        ("attacks.share={goal: flip, to: [what]}", "^measures.safety.attacks: what and share make the same variants"),
        ("worlds.small.refusal_words=[]", "^worlds.small: refusal_words is empty; give at least one word"),
        ("worlds.small.compliance_words=[Foo]", "^worlds.small: 'Foo' is not an opening word of the sandbox"),
        ("worlds.small.refusal_words=[What]", "^worlds.small: 'What' is among the refusal words and the compliance"),
    ],
)
def test_what_a_late_step_will_refuse_is_told_before_anything_is_done(
    setting: str, said: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run_recipe(read_recipe(tiny, [setting]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_go_before_the_file_and_reach_into_lists(tiny: Path) -> None:
    found = read_recipe(tiny, ["seeds.1=7", "models.npo.settings.lr=0.5", "worlds.small.rho=0.5"])
    assert found.seeds == (0, 7)
    assert found.models["npo"].settings["lr"] == 0.5
    assert found.worlds["small"].rho == 0.5


def test_what_align_will_refuse_is_told_before_anything_is_done(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"models\.npo: there is no setting 'lrr'"):
        check(read_recipe(tiny, ["models.npo.settings.lrr=1"]))


def test_every_model_is_made_asked_and_judged_with_every_seed(tiny: Path) -> None:
    asked = {name for name in keys(tiny) if name.startswith("judge/")}
    assert asked == {
        f"judge/safety/{model}/seed-{seed}" for model, seed in (("base", 0), ("npo", 0), ("npo", 1), ("own", 0))
    }


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        ("about=x", set()),
        ("workers=1", set()),
        ("measures.safety.batch_size=2", set()),
        ("measures.safety.judges=[truth]", {"judge"}),
        ("measures.safety.max_new_tokens=9", {"ask", "judge"}),
        ("attacks.what.to=[How]", {"attack", "ask", "judge"}),
        ("sets.own.how.seed=1", {"sets", "align", "ask", "judge"}),
        ("models.npo.settings.steps=4", {"align", "ask", "judge"}),
        ("worlds.small.rho=0.5", {"draw", "sets", "audit", "align", "attack", "ask", "judge"}),
    ],
)
def test_a_changed_setting_changes_only_the_steps_that_depend_on_it(setting: str, kinds: set[str], tiny: Path) -> None:
    assert {name.split("/")[0] for name in changed(tiny, setting)} == kinds


def test_a_changed_model_leaves_the_others_alone(tiny: Path) -> None:
    assert not {name for name in changed(tiny, "models.npo.settings.steps=4") if "/base/" in name}


def test_a_model_may_start_from_another_and_is_made_after_it(tiny: Path) -> None:
    more = ("models.again={method: rmu, start: npo, data: unlearn, general: retain}",)
    plan = planned(steps_of(read_recipe(tiny, more)), tiny.parent)
    assert "align/npo/seed-1" in plan["align/again/seed-1"].step.needs
    assert list(plan).index("align/npo/seed-1") < list(plan).index("align/again/seed-0")
    names = {name for name in changed(tiny, *more, "models.npo.settings.steps=4") if name.startswith("align")}
    assert names == {f"align/{model}/seed-{seed}" for model in ("npo", "again") for seed in (0, 1)}
    with pytest.raises(UserError, match="leads back to itself"):
        read_recipe(tiny, ["models.npo.start=again", *more])
    with pytest.raises(UserError, match=r"models\.again\.seeds has 5, but npo"):
        check(read_recipe(tiny, [*more, "models.again.seeds=[5]"]))


def test_an_input_file_counts_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"schema": 1, "name": "x", "data": {"d": {"file": "a.json"}}, "audit": [{"data": "d"}]}

    def key(folder: str, content: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.json").write_text(content)
        found = Recipe.model_validate({**recipe, "root": tmp_path / folder})
        return planned(steps_of(found), tmp_path)["audit/d"].key

    assert key("one", "[1]") == key("two", "[1]") != key("two", "[2]")


def test_a_folder_counts_by_its_data_and_by_the_names_and_sizes_of_its_pictures(tmp_path: Path) -> None:
    def print_of(picture: str, rows: str) -> str:
        (tmp_path / "a.PNG").write_text(picture)
        (tmp_path / "rows.json").write_text(rows)
        return fingerprint(tmp_path)

    first = print_of("one", "[1]")
    assert print_of("two", "[1]") == first
    assert print_of("three", "[1]") != first
    assert print_of("two", "[2]") != first


def test_truths_of_the_user_are_inputs(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {"schema": 1, "name": "x", "root": tmp_path, "data": {"d": {"file": "a.json"}, "w": {"file": "b.json"}}}
    )
    assert truth_files(recipe, ["rules", "truth", "llm:a/b"], ["d"]) == [tmp_path / "a.truth.json"]
    assert truth_files(recipe, ["truth+llama-guard:guards/one"], ["d"]) == [tmp_path / "a.truth.json"]
    assert truth_files(recipe, ["rules"], ["d"]) == []


def test_a_judge_that_reads_text_alone_is_known_by_what_its_folder_holds(tiny: Path, tmp_path: Path) -> None:
    judged = (f"root={tmp_path}", "measures.safety.judges=[classifier:judge]")
    build_classifier(tmp_path / "judge")
    check(read_recipe(tiny, judged))
    before = keys(tiny, *judged)
    build_classifier(tmp_path / "judge", seed=1)
    after = keys(tiny, *judged)
    assert {name.split("/")[0] for name in before if before[name] != after[name]} == {"judge"}


def test_judges_are_known_by_their_rules_and_those_at_a_server_by_their_name() -> None:
    recipe = Recipe.model_validate({"schema": 1, "name": "x"})
    assert identity(recipe, "rules") == rules_judge().name
    assert identity(recipe, "llm:a/b") == "llm:a/b"
    assert identity(recipe, "truth") == f"truth, {RULE}"


def test_names_that_people_see_redo_the_judging_alone(tiny: Path) -> None:
    assert {name.split("/")[0] for name in changed(tiny, "models.npo.label=N")} == {"judge"}
    assert {name.split("/")[0] for name in changed(tiny, "models.npo.axes={a: 1}")} == {"judge"}
    one, two = keys(tiny, "seeds=[0]"), keys(tiny, "seeds=[0, 1]")
    assert {name for name in one if one[name] != two[name]} == {"judge/safety/npo/seed-0"}, "its label has the seed"


def test_data_count_by_what_they_are_and_the_part_they_play_not_by_their_name(tiny: Path) -> None:
    before = keys(tiny)
    tiny.write_text(
        TINY.replace("unlearn: {", "renamed: {").replace(": unlearn\n", ": renamed\n").replace("small", "w")
    )
    assert "renamed" in read_recipe(tiny, ["audit=[]"]).data
    after = {name.replace("draw/w", "draw/small"): key for name, key in keys(tiny, "audit=[]").items()}
    assert after == {name: key for name, key in before.items() if not name.startswith("audit")}
    swapped = ("sets.own.safety=retain", "sets.own.general=renamed")
    assert keys(tiny, "audit=[]", *swapped)["sets/own"] != before["sets/own"]
    swapped = ("models.npo.data=retain", "models.npo.general=renamed")
    assert keys(tiny, "audit=[]", *swapped)["align/npo/seed-0"] != before["align/npo/seed-0"]


def test_a_method_that_has_changed_is_trained_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(tiny)
    assert keys(tiny, "models.npo.settings.warmup=0.05") == before, "its default, written out"
    monkeypatch.setitem(METHODS, "npo", replace(METHODS["npo"], settings={"warmup": 0.1}))
    after = keys(tiny)
    made = {name for name in before if before[name] != after[name]}
    assert {name for name in made if name.startswith("align")} == {name for name in before if name.startswith("align")}


def test_steps_of_one_content_and_other_names_have_folders_of_their_own(tiny: Path) -> None:
    more = ["models.b-c={}", "models.c={label: d}", "measures.m={data: [seen], models: [b-c]}"]
    more.append("measures.m-b={data: [seen], models: [c]}")
    plan = planned(steps_of(read_recipe(tiny, more)), tiny.parent)
    assert len({one.folder for one in plan.values()}) == len(plan)


def test_a_missing_file_is_told_with_its_key(tmp_path: Path) -> None:
    found = Recipe.model_validate(
        {"schema": 1, "name": "x", "root": tmp_path, "data": {"d": {"file": "a.json"}}, "audit": [{"data": "d"}]}
    )
    with pytest.raises(UserError, match=r"data\.d\.file: .*a\.json does not exist"):
        steps_of(found)


def test_every_shipped_recipe_is_a_recipe_and_the_schema_knows_its_keys() -> None:
    schema = Recipe.model_json_schema(by_alias=True)
    for name, path in shipped().items():
        assert read_recipe(path).name == name
        assert read_recipe(path).about
    assert {"schema", "name", "models", "measures", "worlds"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_the_published_schema_is_the_one_of_this_version() -> None:
    published = Path(__file__).parents[1] / "docs" / "recipe.schema.json"
    assert CliRunner().invoke(app, ["recipe", "schema"]).output == published.read_text()


def command(*arguments: str | Path) -> list[str]:
    program = "import sys; from unmirage.cli import main; sys.argv[0] = 'unmirage'; main()"
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.yaml").write_text(TINY)
    found = run("run", folder / "tiny.yaml", "--out", folder / "out")
    assert found.returncode == 0, found.stderr
    assert "NPO" in found.stdout.upper()
    return folder


def test_a_run_ends_with_figures_and_a_page_for_all_models(done: Path) -> None:
    records = json.loads((done / "out" / "metrics.json").read_text())["records"]
    assert {record["model"] for record in records} == {"base", "npo (seed 0)", "npo (seed 1)", "own"}
    assert {record["seed"] for record in records} == {0, 1}
    asked = {(r["model"], r["metric"]): r["n"] for r in records if r["attack"] is None and r["judge"][0] == "s"}
    assert asked["base", "asr"] + asked["base", "rr"] == 8, "the limit"
    page = (done / "out" / "report.html").read_text()
    assert "npo (seed 1)" in page
    assert (next((done / "out" / "steps").glob("audit-unlearn-*")) / "audit.html").is_file()


def test_what_is_done_is_not_done_again(done: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in (done / "out" / "steps").rglob("done.json")}
    assert len(made) == 16
    plan = run("run", done / "tiny.yaml", "--out", done / "out", "--dry-run").stdout
    assert "0 of 16 steps to do" in plan
    changes = ("measures.safety.judges=[truth]", "models.npo.label=N", "models.npo.axes={a: 1}")
    again = run("run", done / "tiny.yaml", "--out", done / "out", *(word for one in changes for word in ("--set", one)))
    assert again.returncode == 0, again.stderr
    now = {path: path.stat().st_mtime_ns for path in (done / "out" / "steps").rglob("done.json")}
    assert {path: time_ for path, time_ in now.items() if path in made} == made
    assert {path.parent.name.split("-")[0] for path in now.keys() - made.keys()} == {"judge"}
    out, name = done / "out", Path("safety/npo/seed-0/run.json")
    assert json.loads((out / "evaluations" / name).read_text())["config"]["model"] == "N (seed 0)"
    (asked,) = (out / "steps").glob("ask-safety-npo-seed-0-*/run.json")
    assert json.loads(asked.read_text())["config"]["model"] == "npo"
    records = json.loads((out / "metrics.json").read_text())["records"]
    assert {one["model"] for one in records} == {"base", "N (seed 0)", "N (seed 1)", "own"}
    assert {one["axes"].get("a") for one in records if one["model"][0] == "N"} == {1}


def test_links_and_pages_follow_the_recipe_and_files_of_the_user_stay(done: Path) -> None:
    out = done / "out"
    (out / "models" / "mine").mkdir()
    (out / "models" / "mine" / "notes.txt").write_text("kept")
    (out / "report-old.html").write_text("of a measure that is gone")
    recipe = read_recipe(done / "tiny.yaml")
    run_recipe(recipe.model_copy(update={"models": {"base": recipe.models["base"]}}), out)
    assert (out / "models" / "mine" / "notes.txt").read_text() == "kept"
    assert [path.name for path in (out / "models").iterdir()] == ["mine"]
    assert not (out / "report-old.html").exists()
    assert {one["model"] for one in json.loads((out / "metrics.json").read_text())["records"]} == {"base"}
    shutil.rmtree(out / "models")


def test_a_step_that_fails_is_named_and_what_was_done_before_stays(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(
        "schema: 1\nname: broken\nworlds:\n"
        "  small: {unsafe_train: 6, safe_train: 6, general: 12, unsafe_test: 3, safe_test: 3}\n"
        "data: {seen: &seen {file: test_seen.json, world: small}, again: *seen}\n"
        "models: {base: {}}\nmeasures: {m: {data: [seen, again], judges: [truth], max_new_tokens: 4}}\n"
    )
    found = run("run", tmp_path / "broken.yaml", "--out", tmp_path / "out")
    assert found.returncode == 2
    assert "error: step ask/m/base/seed-0:" in found.stderr
    assert "two of its queries have the id" in found.stderr
    assert "Traceback" not in found.stderr
    assert len(list((tmp_path / "out" / "steps").glob("draw-small-*/done.json"))) == 1
    mended = run("run", tmp_path / "broken.yaml", "--out", tmp_path / "out", "--set", "measures.m.data=[seen]")
    assert mended.returncode == 0, mended.stderr


def test_rows_that_cannot_be_used_are_told_and_two_of_one_id_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, picture in (("one", "lost.png"), ("two", "there.png")):
        pair = [{"instruction": "Share it", "response": "x"}]
        rows = [
            {"id": str(i), "image": "there.png" if i == "1" else picture, "safe": False, "instr-resp": pair}
            for i in "01"
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    Image.new("RGB", (4, 4)).save(tmp_path / "there.png")
    data = {name: {"file": f"{name}.json", "images": "."} for name in ("one", "two")}
    measure = {"m": {"data": ["one", "two"]}}
    recipe = Recipe.model_validate(
        {"schema": 1, "name": "x", "root": tmp_path, "data": data, "measures": measure, "models": {"base": {}}}
    )
    plan = planned(steps_of(recipe), tmp_path / "out")
    job = job_of(recipe, plan["ask/m/base/seed-0"], plan)
    with pytest.raises(UserError, match=r"measures\.m\.data: two of its queries have the id"):
        job.asked("m")
    assert "warning: asking base: data.one: 1 missing-image" in capsys.readouterr().err


def test_attacks_of_one_name_on_other_questions_are_apart(tiny: Path) -> None:
    check(read_recipe(tiny, ["attacks.share.to=[What]"]))


def test_an_attack_that_changes_no_question_is_told(tmp_path: Path) -> None:
    attack = {"none": {"to": ["What"], "goal": "over-refusal"}}
    recipe = Recipe.model_validate({"schema": 1, "name": "x", "attacks": attack})
    asked = [Query(id="0", question="What is it?", harmful=False), Query(id="1", question="Is it?", harmful=True)]
    said = (
        r"^attacks\.none: the data holds no question to attack; over-refusal needs harmless questions that open with "
    )
    with pytest.raises(UserError, match=said):
        variants_of(recipe, "none", asked, None, print)


def test_the_files_of_a_world_are_those_that_are_written(tmp_path: Path) -> None:
    out = build(World(), DataPlan(unsafe_train=1, safe_train=1, general=1, unsafe_test=1, safe_test=1), tmp_path / "w")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.suffix in (".json", ".csv")}
    truths = {str(Path(name).with_suffix(".truth.json")) for name in ASKED}
    assert there == {*FILES, *truths, "run.json"}


def test_a_dry_run_counts_questions_and_steps(tiny: Path) -> None:
    found = CliRunner().invoke(app, ["run", str(tiny), "--dry-run", "--out", "nowhere"])
    assert "16 of 16 steps to do." in found.output
    assert "Training: 8 optimizer steps over 64 rows." in found.output
    # Of 6 harmful and 3 harmless rows the limit draws 5 and 3, each with a variant and its control, for four models;
    # and the 12 harmful questions of the sets.
    assert "Asking: at most 108 questions, 912 new tokens." in found.output
    assert not Path("nowhere").exists()


@pytest.mark.long
def test_killed_twice_it_ends_with_the_same_figures(done: Path, tmp_path: Path) -> None:
    arguments = ("run", done / "tiny.yaml", "--out", tmp_path / "out")
    run("run", done / "tiny.yaml", "--out", done / "out")  # with its own judges, whatever another test asked for
    for kind in ("align", "ask"):
        process = subprocess.Popen(command(*arguments), start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any((tmp_path / "out" / "steps").glob(f"{kind}-*")):
                break
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "metrics.json").exists()
    found = run(*arguments)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out" / "metrics.json").read_bytes() == (done / "out" / "metrics.json").read_bytes()


@pytest.mark.long
def test_a_model_may_be_trained_in_processes_that_accelerate_launches(tiny: Path) -> None:
    launch = Path(__file__).parents[1] / "recipes" / "accelerate" / "ddp.yaml"
    changes = [f"models.npo.launch={launch}", "models.npo.seeds=[0]", "data.unlearn.limit=8", "measures={}"]
    changes += ["models.own={}", "audit=[]"]
    found = run("run", tiny, "--out", tiny.parent / "out", *[word for one in changes for word in ("--set", one)])
    assert found.returncode == 0, found.stderr
    made = json.loads((tiny.parent / "out" / "models" / "npo" / "seed-0" / "run.json").read_text())
    assert made["inputs"]["processes"] == "2"


def test_a_launched_process_ends_with_the_one_that_launched_it() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    program = f"import time; from unmirage.recipes.launched import _end_with; _end_with({gone.pid}); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 1


def test_the_recipes_of_the_documentation_are_some() -> None:
    text = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    whole, grid = (yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml\n")[1:])
    assert Recipe.model_validate(whole).seeds == (0, 1, 2)
    found = Recipe.model_validate(grid)
    check(found)
    assert list(found.models) == ["sft-0", "sft-0.5", "sft-0.9", "sft-1", "repair-0.9", "repair-1"]
