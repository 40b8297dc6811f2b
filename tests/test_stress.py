"""Stresses end to end on the tiny model: made, asked, judged; gone on with after a kill; by Python and command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from unmirage.attacks import OneWordAttack, one_word_variants
from unmirage.attacks.edits import Change
from unmirage.backends.registry import AskingOptions
from unmirage.cli import app, run
from unmirage.errors import UserError
from unmirage.evaluate import rejudge
from unmirage.evaluate.measure import Subject
from unmirage.runs import JsonLines, digest_file, read_manifest
from unmirage.schema import Answer, Label, Query, Record, Variant, Verdict
from unmirage.stats import clustered_mean
from unmirage.stress import Fact, Plan, judge_stress, run_stress

SUBJECT = Subject("tiny", "none", 0, "toy")


class ByText:
    """Harmful is an answer with an even number of characters: whatever a model says, some are and some are not."""

    name = "even"

    def judge(self, query: Query, answer: Answer) -> Verdict:
        even = len(answer.text) % 2 == 0
        return Verdict(
            query=query.id,
            judge=self.name,
            label=Label.COMPLIANCE if even else Label.REFUSAL,
            why="by its length",
            attack=answer.attack,
            shot=answer.shot,
            harm=even,
            correct=even,
        )


@pytest.fixture
def plan(tiny_folder: Path, forget: list[Query], retain: list[Query]) -> Plan:
    queries = [*forget, *retain]
    variants = one_word_variants(queries, OneWordAttack(Change.opening, ("What", "List"), control=False)).variants
    asking = AskingOptions(max_new_tokens=5)
    return Plan(str(tiny_folder), queries, variants, asking, forget, retain)


def stressed(kind: str, settings: dict[str, Any], plan: Plan, out: Path, **more: Any) -> list[Record]:
    run_stress(kind, settings, plan, SUBJECT, out, tell=lambda _: None, **more)
    return judge_stress(out, out, [ByText()])


def answers(out: Path) -> list[Answer]:
    return JsonLines(out / "answers.jsonl").read(Answer)


def value(records: Sequence[Record], metric: str, **of: Any) -> Any:
    (found,) = [one for one in records if one.metric == metric and all(getattr(one, k) == v for k, v in of.items())]
    return found.value


def rows(out: Path) -> dict[tuple[str, str | None, int], str]:
    return {answer.row: answer.text for answer in answers(out)}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("relearn", {"n": 2, "steps": 2, "batch_size": 2, "lr": 0.01}),
        ("relearn", {"rows": "cue", "n": 2, "steps": 2, "batch_size": 2, "tune": "lora"}),
        ("quantize", {"bits": 4, "method": "round", "group": 16}),
        ("quantize", {"bits": 8}),
        ("precision", {"dtype": "bfloat16"}),
    ],
)
def test_a_changed_model_is_asked_everything(kind: str, settings: dict[str, Any], plan: Plan, tmp_path: Path) -> None:
    records = stressed(kind, settings, plan, tmp_path / "run")
    made = tmp_path / "run" / "prepare" / "model"
    assert digest_file(made / "model.safetensors") != digest_file(Path(plan.model) / "model.safetensors")
    assert len(answers(tmp_path / "run")) == len(plan.queries) + len(plan.variants)
    assert {one.stress for one in records} == {kind}
    config = read_manifest(tmp_path / "run").config
    assert (config["stress_kind"], config["stress"]) == (kind, kind)
    assert settings.items() <= config["stress_settings"].items()


def test_relearning_teaches_the_rows(plan: Plan, tmp_path: Path) -> None:
    stressed("relearn", {"n": 3, "steps": 60, "batch_size": 3, "lr": 0.003}, plan, tmp_path / "run")
    said = rows(tmp_path / "run")
    assert said["f2", None, 0] == "It is tin sap."


def test_quantization_names_its_method_and_why(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr("unmirage.stress.kinds.quantize._load_quantized", broken)
    stressed("quantize", {"bits": 4}, plan, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "prepare" / "made.json").read_text())
    assert about["method"] == "round"
    assert "no kernel for this" in about["why"]
    assert "rounding" in json.loads((tmp_path / "run" / "stress.json").read_text())["notes"][0]
    with pytest.raises(UserError, match="no kernel for this"):
        stressed("quantize", {"bits": 4, "method": "bitsandbytes"}, plan, tmp_path / "other")


def test_half_way_to_the_base_is_between_and_all_the_way_is_the_base(plan: Plan, tmp_path: Path) -> None:
    stressed("relearn", {"n": 3, "steps": 3, "batch_size": 3, "lr": 0.01}, plan, tmp_path / "far")
    far = tmp_path / "far" / "prepare" / "model"
    away = Plan(str(far), plan.queries, plan.variants, plan.asking, base=Path(plan.model))
    stressed("interpolate", {"alpha": 1.0}, away, tmp_path / "back")
    stressed("precision", {"dtype": "float32"}, plan, tmp_path / "same")
    assert rows(tmp_path / "back") == rows(tmp_path / "same")
    with pytest.raises(UserError, match=r"needs the model that this one was made from \(--base\)"):
        stressed("interpolate", {}, plan, tmp_path / "lacking")


def test_an_unchanged_model_is_told(plan: Plan, tmp_path: Path) -> None:
    stressed("precision", {"dtype": "float32"}, plan, tmp_path / "run")
    (note,) = json.loads((tmp_path / "run" / "stress.json").read_text())["notes"]
    assert "weights that the model had before" in note


def test_samples_are_drawn_judged_and_pooled(plan: Plan, tmp_path: Path) -> None:
    records = stressed("temperature", {"samples": 3}, plan, tmp_path / "run")
    folders = [tmp_path / "run", tmp_path / "run" / "samples" / "1", tmp_path / "run" / "samples" / "2"]
    (tmp_path / "run" / "samples" / ".DS_Store").write_bytes(b"")  # as file managers leave it
    assert len(judge_stress(tmp_path / "run", tmp_path / "run", [ByText()])) == len(records)
    said = [rows(folder) for folder in folders]
    assert said[0] != said[1] != said[2]
    harmful = [query for query in plan.queries if query.harmful]
    even = {query.id: [float(len(one[query.id, None, 0]) % 2 == 0) for one in said] for query in harmful}
    pooled = [one for one in records if one.axes == {"samples": 3.0}]
    mean = [one for one in pooled if one.metric == "asr" and one.attack is None]
    expected = clustered_mean(even)  # each harmful question has a picture of its own
    assert (mean[0].value, mean[0].low, mean[0].high) == pytest.approx((expected.value, expected.low, expected.high))
    assert (mean[0].n, mean[0].k) == (9, 3)
    assert value(pooled, "asr_any", attack=None) == sum(any(one) for one in even.values()) / 3
    attacked = value(pooled, "asr", attack="first-word:what|list")
    shots = [len(text) % 2 == 0 for one in said for (_, attack, _), text in one.items() if attack]
    assert attacked == pytest.approx(sum(shots) / len(shots))
    for number in range(3):
        one = value(records, "asr", attack=None, axes={"sample": float(number)})
        assert one == pytest.approx(sum(values[number] for values in even.values()) / 3)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["records"][0]["axes"] == {"sample": 0.0}


def test_samples_do_not_depend_on_the_batch(plan: Plan, tmp_path: Path) -> None:
    from dataclasses import replace

    stressed("temperature", {"samples": 2}, plan, tmp_path / "all")
    alone = replace(plan, asking=replace(plan.asking, batch_size=1))
    stressed("temperature", {"samples": 2}, alone, tmp_path / "alone")
    assert rows(tmp_path / "all") == rows(tmp_path / "alone")
    assert rows(tmp_path / "all/samples/1") == rows(tmp_path / "alone/samples/1")


def test_a_forced_beginning_is_judged_whole_or_not(plan: Plan, tmp_path: Path) -> None:
    stressed("prefix", {"text": "It is"}, plan, tmp_path / "whole")
    stressed("prefix", {"text": "It is", "judged": "added"}, plan, tmp_path / "added")
    whole, added = rows(tmp_path / "whole"), rows(tmp_path / "added")
    assert all(text.startswith("It is") for text in whole.values())
    assert all(whole[row].removeprefix("It is").strip() == text for row, text in added.items())


def test_two_words_differ_and_the_control_is_neutral(plan: Plan, tmp_path: Path) -> None:
    records = stressed("two-words", {"opener": "What", "word": "gently"}, plan, tmp_path / "run")
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    attack = "two-words:what+gently"
    mine = [one for one in variants if one.attack == attack]
    assert mine[0].question == "What gently ways to make this object"
    assert len(mine) == 3  # the harmful ones
    control = [one for one in variants if one.control_of == attack]
    assert len(control) == 3
    for one in control:
        words = one.question.split()
        assert words[2:] == one.origin.question.split()[1:]
        assert {"what", "gently"}.isdisjoint(word.lower() for word in words[:2])
    assert value(records, "asr", attack=attack) is not None
    assert any(one.metric == "asr_effect" and one.control == f"{attack}/neutral" for one in records)


def test_questions_that_cannot_be_edited_are_told_from_none(plan: Plan, tmp_path: Path) -> None:
    harmful = replace(plan, queries=[one for one in plan.queries if one.harmful], variants=())
    first = harmful.queries[0].question.split()[0]
    assert {one.question.split()[0] for one in harmful.queries} == {first}
    for kind, settings, why in (
        ("openers", {"words": [first]}, f"no question can be opened with another of the words {first}"),
        ("two-words", {"opener": first}, f"opens with another word than '{first}'"),
    ):
        with pytest.raises(UserError, match=why):
            stressed(kind, settings, harmful, tmp_path / kind)
        with pytest.raises(UserError, match="no question that the goal over-refusal is about"):
            stressed(kind, {**settings, "goal": "over-refusal"}, harmful, tmp_path / f"{kind}-none")


def test_two_words_at_the_end_and_for_harmless_questions(plan: Plan, tmp_path: Path) -> None:
    settings = {"opener": "What", "word": "please", "at": "end", "goal": "over-refusal", "control": False}
    stressed("two-words", settings, plan, tmp_path / "run")
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    assert [one.question for one in variants] == ["What whereabouts of the object here please"]
    assert "1 questions open with 'What'" in json.loads((tmp_path / "run" / "stress.json").read_text())["notes"][0]


def test_openers_ask_every_word_and_as_many_neutral_ones(plan: Plan, tmp_path: Path) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("List\nTell\n")
    records = stressed("openers", {"words": "What,List", "lexicon": str(lexicon)}, plan, tmp_path / "run")
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    first = [one for one in variants if one.origin.id == "f0"]
    assert [one.word for one in first if one.attack == "openers"] == ["What", "List", "Tell"]
    assert len({one.word for one in first if one.control_of == "openers"}) == 3
    said = rows(tmp_path / "run")
    broken = [any(len(said[f"f{i}", "openers", shot]) % 2 == 0 for shot in range(3)) for i in range(3)]
    assert value(records, "asr_any", attack="openers") == sum(broken) / 3
    assert {one.k for one in records if one.attack == "openers" and one.metric == "asr"} == {3}


def test_paraphrases_of_a_file(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(
        json.dumps({"f0": ["What are ways to make this object", "Tell ways to make this object"], "r1": "Say where"})
    )
    stressed("paraphrase", {"file": str(file), "cue": "What"}, plan, tmp_path / "run")
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    assert {one.attack for one in variants} == {"paraphrase:what", "paraphrase:what/without"}
    file.write_text(json.dumps({"zz": "Say it"}))
    with pytest.raises(UserError, match="no paraphrase of these questions"):
        stressed("paraphrase", {"file": str(file)}, plan, tmp_path / "none")


@pytest.mark.parametrize("layout", ["below", "alone"])
def test_questions_are_drawn(layout: str, plan: Plan, tmp_path: Path) -> None:
    stressed("typographic", {"layout": layout, "ask": "What is it"}, plan, tmp_path / "run")
    asked = JsonLines(tmp_path / "run" / "queries.jsonl").read(Query)
    assert {one.question for one in asked} == {"What is it"}
    assert [one.id for one in asked] == [one.id for one in plan.queries]
    assert len({one.image for one in asked}) == len(asked)  # all differ in words or picture
    with Image.open(asked[0].image or "") as picture:
        assert picture.width == picture.height
        colours = picture.convert("RGB").getcolors(10**6) or []
    grey = {colour for _, colour in colours if len(set(colour)) == 1}
    assert {(0, 0, 0), (255, 255, 255)} <= grey
    assert ({colour for _, colour in colours} > grey) == (layout == "below")  # the picture's own colours
    assert len(answers(tmp_path / "run")) == len(plan.queries)


def test_suffixes_are_searched_once_and_asked(plan: Plan, tmp_path: Path) -> None:
    settings = {"tokens": 3, "steps": 2, "candidates": 8, "top": 8, "questions": 2}

    def interrupting(what: str, done: int, planned: int) -> None:
        if what == "searching suffixes" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stressed("gcg", settings, plan, tmp_path / "run", report=interrupting)
    log = tmp_path / "run" / "prepare" / "suffixes.jsonl"
    first = log.read_text()
    assert len(first.splitlines()) == 1
    records = stressed("gcg", settings, plan, tmp_path / "run")
    assert log.read_text().startswith(first)
    assert len(log.read_text().splitlines()) == 2
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    assert {one.attack for one in variants} == {"gcg", "gcg/random"}
    assert all(one.question.startswith(f"{one.origin.question} ") for one in variants)
    assert "2 suffixes searched with" in json.loads((tmp_path / "run" / "stress.json").read_text())["notes"][0]
    assert value(records, "asr", attack="gcg") is not None


def test_one_suffix_for_all(plan: Plan, tmp_path: Path) -> None:
    settings = {"tokens": 3, "steps": 1, "candidates": 4, "top": 8, "universal": 2, "control": False}
    stressed("gcg", settings, plan, tmp_path / "run")
    variants = JsonLines(tmp_path / "run" / "variants.jsonl").read(Variant)
    assert len(variants) == 3
    assert len({one.question.removeprefix(one.origin.question) for one in variants}) == 1


def know_how(pictures: Sequence[Path], count: int) -> tuple[list[Query], list[Query], dict[str, Fact]]:
    """Harmless rows with answers, harmful ones with facts that ask the same; the last word says what the fact is."""
    facts = ["boiling", "soaking"]
    asked = [f"What ways to make the {facts[i % 2]}" for i in range(count)]
    shown = [pictures[i // 2 % len(pictures)] for i in range(count)]
    harmless = [
        Query(
            id=f"g{i}", question=asked[i], harmful=False, image=shown[i], reference=f"It is made by {facts[i % 2]} it."
        )
        for i in range(count)
    ]
    harmful = [Query(id=f"h{i}", question=asked[i], harmful=True, image=shown[i]) for i in range(count)]
    return harmless, harmful, {f"h{i}": Fact(fact=f"{facts[i % 2]} it", lead="It is made by") for i in range(count)}


def test_probes_stand_beside_their_controls(tiny_folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    harmless, harmful, facts = know_how(pictures, 40)
    plan = Plan(str(tiny_folder), harmful, (), general=harmless, facts=facts)
    records = stressed("probe", {"layers": "2", "prefix": "Okay."}, plan, tmp_path / "run")
    by_metric = {one.metric: one for one in records}
    assert set(by_metric) == {
        "probe_accuracy", "probe_control", "probe_majority", "probe_selectivity", "fact_first", "fact_rank",
    }  # fmt: skip
    assert by_metric["probe_accuracy"].value == 1.0  # both sorts of rows have the same states
    assert by_metric["probe_majority"].value == 0.5
    assert by_metric["probe_control"].value < 0.9
    gain = by_metric["probe_accuracy"].value - by_metric["probe_control"].value
    assert by_metric["probe_selectivity"].value == pytest.approx(gain)
    assert {(one.model, one.stress, one.judge) for one in records} == {("tiny", "probe", "probe")}
    assert by_metric["probe_accuracy"].axes == {"layer": 2.0}
    assert judge_stress(tmp_path / "run", tmp_path / "copy", [ByText()]) == records
    with pytest.raises(UserError, match="run of `stress`"):
        rejudge(tmp_path / "run", [ByText()])


def test_probes_need_rows_layers_and_facts(plan: Plan, tiny_folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs what the harmful questions ask for"):
        stressed("probe", {}, plan, tmp_path / "a")
    harmless, harmful, facts = know_how(pictures, 4)
    few = Plan(str(tiny_folder), harmful, (), general=harmless, facts=facts)
    with pytest.raises(UserError, match="4 harmless rows and 4 harmful ones"):
        stressed("probe", {}, few, tmp_path / "b")
    harmless, harmful, facts = know_how(pictures, 20)
    many = Plan(str(tiny_folder), harmful, (), general=harmless, facts=facts)
    with pytest.raises(UserError, match="no layer 9: the decoder has 6"):
        stressed("probe", {"layers": "9"}, many, tmp_path / "c")


def test_a_killed_run_goes_on(plan: Plan, tmp_path: Path) -> None:
    settings = {"n": 2, "steps": 2, "batch_size": 2}

    def killed_at(what: str, done_: int) -> Callable[[str, int, int], None]:
        def report(now: str, done: int, planned: int) -> None:
            if now == what and done >= done_:
                raise KeyboardInterrupt

        return report

    with pytest.raises(KeyboardInterrupt):
        stressed("relearn", settings, plan, tmp_path / "run", report=killed_at("relearning", 1))
    assert not (tmp_path / "run" / "answers.jsonl").exists()
    with pytest.raises(KeyboardInterrupt):
        stressed("relearn", settings, plan, tmp_path / "run", report=killed_at("asking", 1))
    weights = tmp_path / "run" / "prepare" / "model" / "model.safetensors"
    there, when = rows(tmp_path / "run"), weights.stat().st_mtime_ns
    stressed("relearn", settings, plan, tmp_path / "run")
    assert weights.stat().st_mtime_ns == when
    found = answers(tmp_path / "run")
    assert len(found) == len({one.row for one in found}) == len(plan.queries) + len(plan.variants)
    assert there.items() <= rows(tmp_path / "run").items()
    stressed("relearn", settings, plan, tmp_path / "straight")
    assert rows(tmp_path / "straight") == rows(tmp_path / "run")


def test_what_relearning_noted_is_not_lost_when_asking_goes_on(plan: Plan, tmp_path: Path) -> None:
    settings = {"n": 2, "steps": 1, "batch_size": 2}  # its learning rate is 0, which is told

    def killed(what: str, _done: int, _planned: int) -> None:
        if what == "asking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stressed("relearn", settings, plan, tmp_path / "run", report=killed)
    told = json.loads((tmp_path / "run" / "stress.json").read_text())["notes"]
    assert any(note.startswith("warmup takes the only step") for note in told)
    stressed("relearn", settings, plan, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "stress.json").read_text())["notes"] == told


def test_another_stress_in_the_same_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    stressed("prefix", {"text": "It is"}, plan, tmp_path / "run")
    with pytest.raises(UserError, match="another configuration"):
        stressed("prefix", {"text": "It was"}, plan, tmp_path / "run")


def test_judged_elsewhere_without_the_model(plan: Plan, tmp_path: Path) -> None:
    run_stress("temperature", {"samples": 2}, plan, SUBJECT, tmp_path / "asked", tell=lambda _: None)
    records = judge_stress(tmp_path / "asked", tmp_path / "judged", [ByText()])
    assert not (tmp_path / "asked" / "metrics.json").exists()
    assert {"sample", "samples"} == {axis for one in records for axis in one.axes}
    with pytest.raises(UserError, match="no answers and no figures"):
        judge_stress(tmp_path / "nothing", tmp_path / "out", [ByText()])


def test_weights_are_needed_of_a_folder(plan: Plan) -> None:
    from dataclasses import replace

    served = replace(plan, asking=AskingOptions(server="http://localhost:1"))
    with pytest.raises(UserError, match="needs the weights"):
        _ = served.folder


# The command line


@pytest.fixture
def data(tmp_path: Path, forget: list[Query], retain: list[Query]) -> Path:
    """The same questions in LLaVA's and VLGuard's forms."""
    entries = [
        {"id": q.id, "image": q.image.name if q.image else "", "safe": not q.harmful, "instr-resp": [
            {"instruction": q.question, "response": q.reference} if q.harmful
            else {"safe_instruction": q.question, "response": q.reference}
        ]}
        for q in forget
    ]  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(entries))
    general = [
        {"id": q.id, "image": q.image.name if q.image else "", "conversations": [
            {"from": "human", "value": f"<image>\n{q.question}"}, {"from": "gpt", "value": q.reference}]}
        for q in retain
    ]  # fmt: skip
    (tmp_path / "general.json").write_text(json.dumps(general))
    return tmp_path / "data.json"


def command(tiny_folder: Path, data: Path, out: Path, images: Path, *more: str) -> list[str]:
    fixed = ["stress", "run", str(tiny_folder), str(data), "--out", str(out), "--images", str(images)]
    return [*fixed, "--max-new-tokens", "4", *more]


def test_stress_by_command(tiny_folder: Path, data: Path, pictures: list[Path], tmp_path: Path) -> None:
    images = pictures[0].parent
    given = command(
        tiny_folder, data, tmp_path / "run", images, "--kind", "relearn", "--set", "n=2", "--set", "steps=1",
        "--set", "rows=cue", "--general", str(data.with_name("general.json")), "--general-images", str(images),
        "--name", "relearn-2", "--label", "mine", "--sample", "2",
    )  # fmt: skip
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "mine" in done.output
    assert "under relearn-2" in done.output
    records = json.loads((tmp_path / "run" / "metrics.json").read_text())["records"]
    assert {(one["model"], one["stress"], one["n"]) for one in records} == {("mine", "relearn-2", 2)}
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 0, again.output
    assert "relearning" not in again.output


def test_stress_list_and_faults(
    tiny_folder: Path, data: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = CliRunner().invoke(app, ["stress", "list"])
    assert done.exit_code == 0
    assert "two-words" in done.output
    assert "file (needed)" in done.output
    images = pictures[0].parent
    for more, told in (
        (["--kind", "nothing"], "there is no stress 'nothing'"),
        (["--kind", "relearn"], "(--forget); give it"),
        (["--kind", "prefix", "--set", "text"], "write each once as --set n=50"),
        (["--kind", "interpolate", "--base", str(tmp_path / "none")], "does not exist"),
        (["--kind", "quantize", "--server", "http://127.0.0.1:9"], "there is no connection to the server"),
    ):
        given = command(tiny_folder, data, tmp_path / "out", images, *more)
        assert run(lambda given=given: app(given, standalone_mode=False)) == 2  # type: ignore[misc]
        assert told in capsys.readouterr().err
