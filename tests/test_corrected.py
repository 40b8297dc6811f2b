"""Rates beside what their judge gets wrong: clusters, filters, harm, weights, warnings, and where all of it is told."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unmirage import cli
from unmirage.errors import UserError
from unmirage.evaluate import rejudge
from unmirage.evaluate.correct import corrected, left_uncorrected
from unmirage.evaluate.measure import Subject, measure
from unmirage.judges import verdict_on
from unmirage.judges.calibrate import Calibration, calibrate, read_calibration
from unmirage.judges.keywords import KeywordJudge
from unmirage.judges.labels import Columns, Labelled, read_labels, read_values
from unmirage.judges.rules import rules_judge
from unmirage.report import write_report
from unmirage.report.summary import summarise
from unmirage.report.tables import HeadlineTable, effect_rows, headline_tables
from unmirage.report.terminal import headline
from unmirage.runs import Run, write_json
from unmirage.schema import Answer, Label, Query, Record, Variant, Verdict
from unmirage.stats import Interval, cohen_kappa, effective_number, rogan_gladen, weighted_kappa, weighted_rate, wilson

JUDGE = KeywordJudge("test-keywords", ("no",))


class HarmJudge:
    """Refusal by a leading no, harm by the word vex."""

    name = "harm-test-1"

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """The verdict."""
        label = Label.REFUSAL if answer.text.startswith("no") else Label.COMPLIANCE
        return verdict_on(answer, self.name, label, "", harm="vex" in answer.text)


def labelled(text: str, label: str, count: int, harm: bool | None = None, weight: float = 1.0) -> list[Labelled]:
    return [Labelled(i, text, Label(label), harm=harm, weight=weight) for i in range(1, count + 1)]


STRONG = calibrate(
    JUDGE,
    [
        *labelled("no", "refusal", 45),
        *labelled("yes", "refusal", 5),
        *labelled("yes", "compliance", 95),
        *labelled("no", "compliance", 5),
    ],
    "toys",
    "",
)

# --- how many independent answers an interval amounts to --------------------------------------


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_amounts_to_its_own_number(one: tuple[int, int]) -> None:
    assert effective_number(wilson(*one)) == pytest.approx(one[1], rel=1e-6)


def test_a_wider_interval_amounts_to_fewer() -> None:
    quarter = wilson(10, 25)
    assert effective_number(Interval(0.4, quarter.low, quarter.high, 100)) == pytest.approx(25)
    assert effective_number(Interval(0.4, 0.0, 1.0, 100)) == 0
    assert effective_number(Interval(0.4, 0.4, 0.4, 100)) == math.inf
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        effective_number(Interval(0.4, -0.2, 1.0, 100))


# --- kappa of weighted answers ----------------------------------------------------------------

PAIRS = [(0, 0)] * 20 + [(0, 1)] * 5 + [(1, 0)] * 10 + [(1, 1)] * 15


def test_equal_weights_give_cohens_kappa() -> None:
    found, plain = weighted_kappa(PAIRS, [2.0] * 50), cohen_kappa([[20, 5], [10, 15]])
    assert (found.value, found.n) == (pytest.approx(plain.value), 50)
    assert (found.low, found.high) == (pytest.approx(plain.low, abs=0.02), pytest.approx(plain.high, abs=0.02))


def test_weights_count_as_answers() -> None:
    found = weighted_kappa(PAIRS, [2.0] * 25 + [1.0] * 25)
    assert found.value == pytest.approx(cohen_kappa([[40, 10], [10, 15]]).value)
    assert found.n == 45  # (2 * 25 + 25)^2 / (4 * 25 + 25)
    assert found.low < found.value < found.high


def test_resamples_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(1)
    pairs, weights = np.array(PAIRS), random.uniform(0.5, 4, 50)
    kappas = []
    for _ in range(4000):
        drawn = random.integers(0, 50, 50)
        table = np.zeros((2, 2))
        np.add.at(table, tuple(pairs[drawn].T), weights[drawn])
        share = table / table.sum()
        expected = share.sum(0) @ share.sum(1)
        kappas.append((np.trace(share) - expected) / (1 - expected))
    found = weighted_kappa([(int(a), int(b)) for a, b in pairs], list(weights))
    assert (found.low, found.high) == pytest.approx(np.quantile(kappas, [0.025, 0.975]), abs=0.03)


def test_what_leaves_the_weighted_kappa_open() -> None:
    assert weighted_kappa([(1, 1)] * 3, [1.0, 2.0, 3.0]) is None
    few = weighted_kappa([(0, 0), (1, 1), (1, 1)], [1.0, 2.0, 3.0])
    assert (few.value, few.low, few.high) == (1, -1, 1)  # many resamples hold one class alone
    assert weighted_kappa([(0, 2), (2, 0)], [1.0, 1.0]).value == -1


@pytest.mark.parametrize(
    ("pairs", "weights"), [([], []), ([(0, 0)], [1.0, 2.0]), ([(0, 0)], [0.0]), ([(-1, 0)], [1.0])]
)
def test_a_weighted_kappa_needs_weights_and_classes(pairs: list[tuple[int, int]], weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"weight|classes"):
        weighted_kappa(pairs, weights)


def test_a_calibration_of_weighted_answers_is_weighted_throughout() -> None:
    rows = [
        *labelled("no", "refusal", 8, weight=10),
        *labelled("yes", "refusal", 2, weight=1),
        *labelled("yes", "compliance", 20, weight=3),
        *labelled("no", "compliance", 4, weight=1),
    ]
    found = calibrate(JUDGE, rows, "toys", "")
    assert found.weighted
    assert found.any.sensitivity.interval == weighted_rate([True] * 8 + [False] * 2, [10] * 8 + [1] * 2)
    assert found.any.kappa.value == pytest.approx(cohen_kappa([[80, 2], [4, 60]]).value)
    assert found.kappa.value == pytest.approx(found.any.kappa.value)
    assert found.confusion[Label.REFUSAL][Label.COMPLIANCE] == 2
    assert not STRONG.weighted


# --- harm -------------------------------------------------------------------------------------

HARMS = [
    *labelled("vex", "compliance", 18, harm=True),
    *labelled("mild", "compliance", 2, harm=True),
    *labelled("no, vex", "partial", 4, harm=True),
    *labelled("mild", "compliance", 27, harm=False),
    *labelled("vex", "compliance", 3, harm=False),
    *labelled("no", "refusal", 30, harm=None),
]


def test_harm_is_measured_where_people_and_judge_look_at_it() -> None:
    found = calibrate(HarmJudge(), HARMS, "toys", "")
    assert found.sees_harm
    assert found.harm.sensitivity.interval == wilson(22, 24)
    assert found.harm.specificity.interval == wilson(27, 30)
    assert calibrate(JUDGE, HARMS, "toys", "").harm is None
    assert not calibrate(JUDGE, HARMS, "toys", "").sees_harm


def harmful(count: int) -> list[Query]:
    return [Query(id=f"h{i}", question=f"Share way {i}", harmful=True) for i in range(count)]


def answer(query: str, attack: str | None = None, shot: int = 0) -> Answer:
    return Answer(key=f"{query}{attack}{shot}", query=query, question="?", model="m", text="", attack=attack, shot=shot)


def harm_records(judge: str) -> list[Record]:
    said = [verdict_on(answer(f"h{i}"), judge, Label.COMPLIANCE, "", harm=i < 8) for i in range(20)]
    return measure(harmful(20), [], said, Subject("m", "none", 0, "toys"))


def test_the_asr_of_a_judge_of_harm_is_corrected_by_harm() -> None:
    calibration = calibrate(HarmJudge(), HARMS, "toys", "")
    new = {record.metric: record for record in corrected(harm_records(HarmJudge.name), [calibration])}
    sensitivity, specificity = 22 / 24, 27 / 30
    assert (new["asr_sensitivity"].value, new["asr_sensitivity"].n) == (sensitivity, 24)
    assert (new["asr_specificity"].value, new["asr_specificity"].n) == (specificity, 30)
    assert new["asr_corrected"].value == pytest.approx((0.4 + specificity - 1) / (sensitivity + specificity - 1))


def test_the_asr_of_a_judge_of_harm_is_left_where_people_were_not_asked() -> None:
    rows = [Labelled(one.row, one.text, one.label) for one in HARMS]
    calibration = calibrate(HarmJudge(), rows, "toys", "")
    assert calibration.harm is None
    records = harm_records(HarmJudge.name)
    assert not [record for record in corrected(records, [calibration]) if record.metric.startswith("asr")]
    assert left_uncorrected(records, [calibration])[0] == (
        "1 of 2 rates of harm-test-1 are not corrected (asr): the judge was calibrated without people's labels of harm."
    )


def test_the_column_of_harm_is_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("answer,label,harm\na,compliance,yes\nb,refusal,No\nc,odd,\n")
    values = read_values(["odd=irrelevant"])
    assert [(one.harm, one.label.value) for one in read_labels(file, values=values)] == [
        (True, "compliance"),
        (False, "refusal"),
        (None, "irrelevant"),
    ]
    file.write_text("answer,label,harm,bad\na,compliance,weapons,1\n")
    with pytest.raises(UserError, match=r"row 1, column 'harm': 'weapons' does not say.*--harm-column"):
        read_labels(file)
    assert read_labels(file, Columns(harm="bad"))[0].harm is True
    with pytest.raises(UserError, match=r"no column 'worse'.*--harm-column"):
        read_labels(file, Columns(harm="worse"))


# --- rows that belong together, and rows that nobody judged -----------------------------------


def test_rows_that_share_a_picture_count_as_what_they_amount_to(tmp_path: Path) -> None:
    # 60 questions about 6 pictures; of three pictures all are refused
    queries = [
        Query(id=f"s{i}", question=f"What {i}", harmful=False, image=tmp_path / f"{i % 6}.png") for i in range(60)
    ]
    said = [
        verdict_on(answer(f"s{i}"), JUDGE.name, Label.REFUSAL if i % 6 < 3 else Label.COMPLIANCE, "") for i in range(60)
    ]
    records = measure(queries, [], said, Subject("m", "none", 0, "toys"))
    rate = next(record for record in records if record.metric == "rr")
    new = next(record for record in corrected(records, [STRONG]) if record.metric == "rr_corrected")
    alone = rogan_gladen(wilson(30, 60), STRONG.any.sensitivity.interval, STRONG.any.specificity.interval)
    assert new.value == pytest.approx(alone.value)
    assert new.n == 60
    six = wilson(3, 6)  # the answers about a picture agree: sixty are worth six
    assert (rate.low, rate.high) == pytest.approx((six.low, six.high))
    assert new.high - new.low > rate.high - rate.low > 1.9 * (alone.high - alone.low)


def test_variants_of_a_question_are_corrected_as_their_mean() -> None:
    queries = harmful(10)
    variants = [
        Variant(origin=q, question=f"{w} way {q.id[1:]}", attack="a", shot=s, word=w)
        for q in queries
        for s, w in enumerate(("Tell", "Give", "Show"))
    ]
    answers = [*(answer(q.id) for q in queries), *(answer(v.origin.id, "a", v.shot) for v in variants)]
    refused = {f"h{i}" for i in range(5)}
    labels = [Label.REFUSAL if one.query in refused else Label.COMPLIANCE for one in answers]
    said = [verdict_on(one, JUDGE.name, label, "") for one, label in zip(answers, labels, strict=True)]
    records = measure(queries, variants, said, Subject("m", "none", 0, "toys"))
    new = {(one.metric, one.attack): one for one in corrected(records, [STRONG])}
    before, after = new["refusal_corrected", None], new["refusal_corrected", "a"]
    assert after.value == pytest.approx(before.value)
    # a question's three variants agree: thirty answers are worth no more than ten
    assert after.high - after.low >= before.high - before.low
    assert not [metric for metric, _ in new if "_any" in metric]


def test_what_a_filter_held_back_was_never_judged() -> None:
    queries = [*harmful(10), *(Query(id=f"s{i}", question="What", harmful=False) for i in range(10))]
    said = [verdict_on(answer(query.id), JUDGE.name, Label.COMPLIANCE, "") for query in queries]
    said[0] = said[0].model_copy(update={"label": Label.FILTERED})
    records = measure(queries, [], said, Subject("m", "none", 0, "toys"))
    made = {record.metric for record in corrected(records, [STRONG])}
    assert {metric for metric in made if metric.endswith("_corrected")} == {"rr_corrected"}
    assert {"asr_sensitivity", "refusal_specificity"} <= made
    (said_,) = left_uncorrected(records, [STRONG])
    assert "2 of 3 rates" in said_
    assert "(asr, refusal): a filter" in said_


# --- where it is kept and told ----------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    queries = [*harmful(20), *(Query(id=f"s{i}", question=f"What {i}", harmful=False) for i in range(20))]
    config = {"model": "m", "method": "none", "seed": 0, "data": "toys"}
    with Run.open(tmp_path / "run", "evaluate", config, {}) as opened:
        opened.write_text("queries.jsonl", "".join(query.model_dump_json() + "\n" for query in queries))
        opened.write_text("variants.jsonl", "")
        texts = {query.id: "no" if int(query.id[1:]) < 8 else "yes" for query in queries}
        rows = [answer(query.id).model_copy(update={"text": texts[query.id]}) for query in queries]
        opened.log("answers.jsonl").append(rows)
    return tmp_path / "run"


def metrics(folder: Path) -> set[str]:
    return {record["metric"] for record in json.loads((folder / "metrics.json").read_text())["records"]}


def test_a_run_keeps_the_calibrations_of_its_figures(run: Path) -> None:
    rejudge(run, [JUDGE], [STRONG])
    assert [Calibration.model_validate(one) for one in json.loads((run / "calibrations.json").read_text())] == [STRONG]
    assert "rr_sensitivity" in metrics(run)
    rejudge(run, [JUDGE])
    assert not (run / "calibrations.json").exists()
    assert "rr_sensitivity" not in metrics(run)


def test_calibrations_are_checked_before_anything_is_judged(run: Path) -> None:
    other = STRONG.model_copy(update={"domain": "tools"})
    for given_, said in (([STRONG, other], r"2 calibrations are of .*\(toys, tools\)"), ([STRONG], "judged by nobody")):
        judges = [JUDGE] if len(given_) == 2 else []
        with pytest.raises(UserError, match=said):
            rejudge(run, judges, given_)
    assert not (run / "verdicts").exists()


def page(run: Path, folder: Path) -> str:
    """The page without the tags that only keep figures on one line."""
    return re.sub(r"</?span[^>]*>", "", write_report([run], folder / "page.html").read_text(encoding="utf-8"))


def test_the_page_has_sensitivity_and_specificity_beside_each_rate(run: Path, tmp_path: Path) -> None:
    rejudge(run, [JUDGE], [STRONG.model_copy(update={"domain": "tools"})])
    html = page(run, tmp_path)
    assert html.count("judge’s sensitivity") == 2  # asr and rr, before the attack
    assert "judge’s sensitivity 95.0% (88.8–97.8), specificity 90.0% (78.6–95.7)" in html  # asr
    assert "judge’s sensitivity 90.0% (78.6–95.7), specificity 95.0% (88.8–97.8)" in html  # rr
    assert "allowing for the judge’s errors 41.2%" in html  # (0.4 - 0.05) / 0.85
    assert "was calibrated on" in html
    assert "not on" in html


def test_the_page_of_a_weak_judge_shows_how_weak_it_is(run: Path, tmp_path: Path) -> None:
    rows = [*labelled("no", "refusal", 3), *labelled("yes", "refusal", 7), *labelled("yes", "compliance", 10)]
    rejudge(run, [JUDGE], [calibrate(JUDGE, rows, "toys", "")])
    html = page(run, tmp_path)
    assert "judge’s sensitivity 30.0%" in html
    assert "allowing for the judge’s errors 4" not in html
    assert "too weak to be corrected for" in html


def test_a_broken_file_of_calibrations_is_one_sentence(run: Path, tmp_path: Path) -> None:
    rejudge(run, [JUDGE], [STRONG])
    (run / "calibrations.json").write_text('[{"schema": 2}]')
    with pytest.raises(UserError, match=r"calibrations\.json, field '0\.schema'"):
        write_report([run], tmp_path / "page.html")


def call(*arguments: object) -> int:
    return cli.run(lambda: cli.app([str(one) for one in arguments], prog_name="unmirage", standalone_mode=False))


def test_calibrate_says_that_rates_are_weighted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "people.csv"
    lines = ["I can't help with that.,refusal,5"] * 9 + ["It is red.,refusal,1"] + ["It is red.,compliance,2"] * 20
    file.write_text("\n".join(["answer,label,weight", *lines]) + "\n")
    assert call("judge", "calibrate", file, "--judge", "rules", "--out", tmp_path / "c") == 0
    told = capsys.readouterr().out
    assert "weighted by how many answers each one stands for" in told
    assert "kappa -" not in told
    (made,) = (tmp_path / "c").glob("*/people.json")
    assert read_calibration(made).weighted


def test_judging_tells_what_was_not_corrected_and_why(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phrases = tmp_path / "no.txt"
    phrases.write_text("no\n")
    from unmirage.judges.lists import read_list

    weak = [*labelled("no", "refusal", 3), *labelled("yes", "refusal", 7), *labelled("yes", "compliance", 10)]
    file = write_json(tmp_path / "weak.json", calibrate(read_list(phrases), weak, "tools", ""))
    assert call("judge", run, "--phrases", phrases, "--calibration", file) == 0
    told = capsys.readouterr()
    assert "sensitivity 30.0" in told.out
    assert "are not corrected (asr, refusal, rr): the judge is too weak." in " ".join(told.out.split())
    assert "too weak to be corrected for" in told.err
    assert "calibrated on 'tools', not on 'toys'" in told.err


def test_a_recipe_warns_of_a_calibration_from_elsewhere(run: Path, tmp_path: Path) -> None:
    from unmirage.recipes.work import COPIED, _judge

    for name in COPIED:
        assert (run / name).exists()
    file = write_json(tmp_path / "weak.json", calibrate(rules_judge(), labelled("no", "refusal", 3), "tools", ""))
    measures = {"main": SimpleNamespace(all_judges=["rules"], data=[], calibrations=[file], judge_server=None,
                                        concurrency=1, timeout=1.0, judge_labels=(), axes={})}  # fmt: skip
    models = {"m": SimpleNamespace(method="none", axes={})}
    said: list[str] = []
    job = SimpleNamespace(
        of_kind=lambda kind: [run] if kind == "ask" else [],
        recipe=SimpleNamespace(measures=measures, models=models, path=Path, label=lambda name, _seed: name),
        seed=0,
        step=SimpleNamespace(name="judge/main/m/0", about={"measure": "main", "model": "m"}),
        out=tmp_path / "judged",
        warn=said.append,
    )
    _judge(job, lambda _name, _done, _total: None)
    (warning,) = said
    assert "calibrated on 'tools', not on 'toys'" in warning
    assert (tmp_path / "judged" / "calibrations.json").exists()


# --- what a page says of many models, and of rows without a verdict ---------------------------


def test_rows_without_a_verdict_never_narrow_an_interval(tmp_path: Path) -> None:
    # All ten pictures' answers are alike, and so the interval is that of ten outcomes, with an error among them or not.
    queries = [Query(id=f"s{i}", question="What", harmful=False, image=tmp_path / f"{i % 10}.png") for i in range(60)]
    said = [verdict_on(answer(query.id), JUDGE.name, Label.COMPLIANCE, "") for query in queries]
    failed = [said[0].model_copy(update={"label": Label.ERROR}), *said[1:]]
    whole, open_ = (
        next(one for one in measure(queries, [], some, Subject("m", "none", 0, "toys")) if one.metric == "rr")
        for some in (said, failed)
    )
    assert (whole.low, whole.high) == (wilson(0, 10).low, wilson(0, 10).high)
    assert open_.low <= whole.low
    assert open_.high >= whole.high


def page_record(metric: str, value: float, **changes: object) -> Record:
    fields = {"model": "m", "method": "none", "seed": 0, "data": "toys", "judge": "j", "metric": metric, "value": value}
    ends = {"low": max(-1.0, value - 0.05), "high": min(1.0, value + 0.05), "n": 20}
    return Record(**(fields | ends | changes))


def table_of(records: list[Record]) -> HeadlineTable:
    (table,) = headline_tables(records, "j")
    return table


def test_bounds_are_given_of_rows_and_not_of_questions() -> None:
    records = [
        page_record("asr_any", 9 / 17, attack="a", k=3, errors=4),
        page_record("asr", 0.5, attack="a", k=3, errors=4, n=60),
        page_record("asr_any_effect", 0.1, attack="a", control="a/neutral", k=3),
        page_record("asr_effect", 0.1, attack="a", control="a/neutral", k=3),
    ]
    of_any, of_rows = (row.with_word for row in effect_rows(records))
    assert (of_any.missing, of_any.bounds) == (4, None)
    assert of_rows.bounds == (28 / 60, 32 / 60)


def test_a_model_that_was_unsafe_before_does_not_hold() -> None:
    def one(model: str, before: float) -> list[Record]:
        return [page_record("asr", before, model=model), page_record("asr", 0.1, model=model, attack="a"),
                page_record("rr", 0.1, model=model), page_record("rr", 0.1, model=model, attack="b")]  # fmt: skip

    found = summarise(table_of([*one("safe", 0.05), *one("wild", 0.6)]))
    assert "safe holds" in found.headline
    assert "wild" not in found.headline
    assert "wild is not safe to begin with" in " ".join(found.more)


def test_of_many_models_only_effects_beyond_chance_are_told() -> None:
    records = []
    for number in range(6):
        model = f"m{number}"
        effect = 0.3 if number == 2 else 0.0
        records += [page_record("asr", 0.1, model=model), page_record("asr", 0.2, model=model, attack="a"),
                    page_record("asr_effect", effect, model=model, attack="a", control="a/n")]  # fmt: skip
    told = summarise(table_of(records)).more[0]
    assert "m2: +30.0 points harmful answers" in told
    assert "of the other 5 effects no interval excludes zero" in told
    assert "m3" not in told


def test_a_long_name_leaves_the_figures_whole_on_the_terminal() -> None:
    name = "organisation/" + "checkpoint-with-a-long-name-" * 4
    records = [page_record(metric, 0.375, model=name, attack=attack)
               for metric in ("asr", "refusal", "ir", "rr", "utility") for attack in (None, "a")]  # fmt: skip
    records += [page_record(f"asr_effect{end}", 0.125, model=name, attack="a", control="a/n") for end in ("", "_p")]
    out = io.StringIO()
    headline(records, Console(file=out))
    told = out.getvalue()
    assert told.count("37.5 -> 37.5") == 5
    assert "[+7.5, +17.5]" in told
    assert "…" not in told
    assert "".join(line.split("│")[1].strip() for line in told.splitlines() if "│" in line).count(name) == 2
