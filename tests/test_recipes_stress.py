"""Stresses and searches in recipes: what their steps depend on, what is refused, and what tables call their figures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from unmirage.attacks.goals import Goal
from unmirage.attacks.search.results import SearchEffect, SearchRate, SearchResult
from unmirage.errors import UserError
from unmirage.evaluate.measure import Subject
from unmirage.recipes.cost import costs
from unmirage.recipes.graph import Planned, planned
from unmirage.recipes.naming import relabel_run, relabelled
from unmirage.recipes.planning import steps_of
from unmirage.recipes.reading import read_recipe
from unmirage.recipes.run import check
from unmirage.recipes.searching import records_of
from unmirage.report.naming import told_apart
from unmirage.report.terminal import headline
from unmirage.runs import Run
from unmirage.schema import Record

STRESSED = """\
schema: 1
name: stressed
seeds: [0, 1]
worlds:
  small: {unsafe_train: 6, safe_train: 6, general: 12, unsafe_test: 3, safe_test: 3}
data:
  unlearn: {file: unlearn.json, world: small}
  retain: {file: retain.json, world: small, format: llava}
  seen: {file: test_seen.json, world: small, split: seen}
models:
  base: {}
  npo: {method: npo, data: unlearn, general: retain, settings: {steps: 3, batch_size: 4}}
attacks:
  what: {to: [What], control: false}
searches:
  every: {edit: [opening], words: [What, List]}
stresses:
  relearn: {kind: relearn, data: unlearn, settings: {steps: 7, batch_size: 4}}
  half: {kind: interpolate, settings: {alpha: 0.5}}
  warm: {kind: temperature, settings: {samples: 3}}
  words: {kind: openers, settings: {lexicon: words.txt}}
  probe: {kind: probe, general: retain}
measures:
  safety:
    data: [seen]
    models: [npo]
    attacks: [what]
    searches: [every]
    stresses: [relearn, half, warm, words, probe]
    judges: [truth]
    max_new_tokens: 10
"""


@pytest.fixture
def stressed(tmp_path: Path) -> Path:
    path = tmp_path / "stressed.yaml"
    path.write_text(STRESSED)
    (tmp_path / "words.txt").write_text("Give\n")
    return path


def plan_of(path: Path, *settings: str) -> dict[str, Planned]:
    recipe = read_recipe(path, [f"root={path.parent}", *settings])
    return planned(steps_of(recipe), path.parent / "out")


def changed(path: Path, *settings: str) -> set[str]:
    before, after = plan_of(path), plan_of(path, *settings)
    return {name for name in before.keys() | after.keys() if before[name].key != after[name].key}


def test_each_stress_asks_each_model_once_more_and_a_probe_is_not_judged(stressed: Path) -> None:
    plan = plan_of(stressed)
    assert plan["stress/safety+half/npo/seed-1"].step.needs == ("draw/small", "align/npo/seed-1", "attack/safety/what")
    assert plan["judge/safety+half/npo/seed-1"].step.needs == ("draw/small", "stress/safety+half/npo/seed-1")
    judged = {name.split("/")[1] for name in plan if name.startswith("judge/")}
    assert judged == {"safety", "safety+relearn", "safety+half", "safety+warm", "safety+words"}
    assert {name.split("/")[1] for name in plan if name.startswith("search/")} == {"safety+every"}


def test_of_an_interpolated_model_the_one_it_was_made_from_counts_too(stressed: Path) -> None:
    again = "models.again={method: rmu, start: npo, data: unlearn, general: retain, settings: {layer: 1}}"
    plan = plan_of(stressed, again, "measures.safety.models=[again]")
    needs = plan["stress/safety+half/again/seed-0"].step.needs
    assert {"align/again/seed-0", "align/npo/seed-0"} <= set(needs)
    assert "align/npo/seed-0" not in plan["stress/safety+warm/again/seed-0"].step.needs


def test_a_changed_stress_changes_its_own_steps_alone(stressed: Path) -> None:
    assert changed(stressed, "stresses.half.settings.alpha=0.25") == {
        f"{kind}/safety+half/npo/seed-{seed}" for kind in ("stress", "judge") for seed in (0, 1)
    }
    assert changed(stressed, "searches.every.words=[What]") == {f"search/safety+every/npo/seed-{s}" for s in (0, 1)}
    assert not changed(stressed, "measures.safety.batch_size=7")


def test_a_file_of_a_stress_counts_by_its_content_not_by_its_place(stressed: Path) -> None:
    (stressed.parent / "others.txt").write_text("Give\n")
    assert not changed(stressed, "stresses.words.settings.lexicon=others.txt")
    (stressed.parent / "others.txt").write_text("Show\n")
    assert {name.split("/")[1] for name in changed(stressed, "stresses.words.settings.lexicon=others.txt")} == {
        "safety+words"
    }
    with pytest.raises(UserError, match=r"^stresses\.words\.settings\.lexicon: .*lost\.txt does not exist"):
        plan_of(stressed, "stresses.words.settings.lexicon=lost.txt")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stresses.half.kind=half", r"^stresses\.half: there is no stress 'half'"),
        ("stresses.half.settings.alfa=1", r"^stresses\.half: the stress interpolate has no setting 'alfa'"),
        ("stresses.relearn.data=null", r"^stresses\.relearn: data is missing, which relearn needs"),
        ("stresses.probe.general=null", r"^stresses\.probe: general is missing, which probe needs"),
        ("stresses.half={kind: probe, general: retain, facts: [retain]}", r"^stresses\.half of measures\.safety reads"),
        (
            "stresses.words={kind: openers, settings: {lexicon: x}, world: small}",
            r"^stresses\.words\.settings\.lexicon",
        ),
        ("searches.every.words=[Two words]", r"^searches\.every: 'Two words' is not one word"),
        ("searches.every.at=end", r"^searches\.every: the opening word stands at the beginning"),
    ],
)
def test_what_a_stress_or_a_search_will_refuse_is_told_before_anything_is_done(
    setting: str, said: str, stressed: Path
) -> None:
    with pytest.raises(UserError, match=said):
        check(read_recipe(stressed, [setting]))


def test_stresses_and_searches_that_there_are_not_are_told(stressed: Path) -> None:
    with pytest.raises(UserError, match=r"measures\.safety\.stresses names 'lost'"):
        read_recipe(stressed, ["measures.safety.stresses=[lost]"])
    with pytest.raises(UserError, match=r"measures\.safety\.searches names 'lost'"):
        read_recipe(stressed, ["measures.safety.searches=[lost]"])


def test_a_dry_run_counts_what_stresses_ask_and_train(stressed: Path) -> None:
    recipe = read_recipe(stressed, [f"root={stressed.parent}"])
    found = {cost.step: cost for cost in costs(recipe, planned(steps_of(recipe), stressed.parent / "out"))}
    # 6 harmful and 3 harmless questions, and a variant of each harmful one.
    assert found["ask/safety/npo/seed-0"].questions == 15
    assert found["stress/safety+half/npo/seed-0"].questions == 15
    assert found["stress/safety+warm/npo/seed-0"].questions == 45
    relearn = found["stress/safety+relearn/npo/seed-0"]
    assert (relearn.questions, relearn.training_steps, relearn.training_rows) == (15, 7, 28)
    assert found["stress/safety+words/npo/seed-0"].questions is None
    assert found["stress/safety+probe/npo/seed-0"].questions == 0
    assert found["search/safety+every/npo/seed-0"].new_tokens is None


def record(model: str, stress: str | None = None, **axes: float | str) -> Record:
    return Record(
        model=model, method="m", seed=0, data="d", metric="asr", value=0.5, low=0.25, high=0.75, n=4, judge="j",
        stress=stress, axes=axes,
    )  # fmt: skip


def test_label_and_axes_are_put_in_beside_axes_of_its_own(tmp_path: Path) -> None:
    subject, inputs = Subject("N", "npo", 0, "safety", axes={"rho": 1}), {"plan": "p"}
    with Run.open(tmp_path / "asked", "evaluate", {"model": "npo", "axes": {"sample": 2.0}}, inputs):
        pass
    relabel_run(tmp_path / "asked", subject)
    config = {"model": "N", "axes": {"rho": 1, "sample": 2.0}}
    with Run.open(tmp_path / "asked", "evaluate", config, inputs) as run:
        again = run.manifest.id
    with Run.open(tmp_path / "fresh", "evaluate", config, inputs) as run:
        assert again == run.manifest.id
    (found,) = relabelled([record("npo", "probe", layer=3)], subject)
    assert (found.model, found.stress, found.axes) == ("N", "probe", {"rho": 1, "layer": 3})


def test_points_and_stresses_of_one_model_have_names_of_their_own() -> None:
    found = [
        record("A", rho=0.5, size=8), record("A", rho=1, size=8), record("B", rho=1), record("C"),
        record("C", stress="4-bit"), record("D", kind="x"), record("D"),
    ]  # fmt: skip
    assert [one.model for one in told_apart(found)] == [
        "A · rho 0.5", "A · rho 1", "B", "C", "C · under 4-bit", "D · kind x", "D",
    ]  # fmt: skip


def test_the_terminal_puts_figures_under_a_stress_into_tables_of_their_own() -> None:
    text = io.StringIO()
    headline([record("A", rho=0), record("A", rho=1), record("A", stress="4-bit", rho=1)], Console(file=text))
    before, after = text.getvalue().split("under 4-bit")
    assert "A · rho 0" in before
    assert "A · rho 1" in before
    assert "│ A " in after


def test_what_a_search_found_becomes_figures_that_name_what_they_are_of() -> None:
    ends = {"least": 0.25, "most": 0.5, "low": 0.1, "high": 0.7, "n": 4, "unfinished": 1}
    rates = [
        SearchRate(metric="worst_case", split="seen", harmful=True, attack="a", value=None, **ends),
        SearchRate(metric="per_edit", split="seen", harmful=True, attack="a", value=None, **ends),
        SearchRate(metric="already", split=None, harmful=False, attack=None, value=0.25, **{**ends, "unfinished": 0}),
    ]
    effect = SearchEffect(
        split="seen", harmful=True, attack="a", control="a/neutral", value=0.5, low=-0.1, high=0.9, gained=2, lost=0,
        p=0.5, n=4, unfinished=0,
    )  # fmt: skip
    about = {"changes": [], "at": "any", "words": [], "rules": [], "budget": None, "asked": 9, "scored": 0}
    result = SearchResult(
        schema=1, run="r", model="m", data="d", judge="j", goal=Goal.bypass, search="exhaustive", attack="a",
        rates=rates, effects=[effect], questions=[], **about,
    )  # fmt: skip
    found = list(records_of(result, Subject("M", "npo", 3, "safety", axes={"rho": 1})))
    assert [(one.metric, one.split, one.attack, one.value, one.n, one.errors) for one in found] == [
        ("asr_worst_case", "seen", "a", None, 4, 1),
        ("rr_already", None, None, 0.25, 4, 0),
        ("asr_broken_effect", "seen", "a", 0.5, 4, 0),
    ]
    assert found[2].control == "a/neutral"
    assert {(one.model, one.seed, one.data, one.axes["rho"]) for one in found} == {("M", 3, "safety", 1)}
