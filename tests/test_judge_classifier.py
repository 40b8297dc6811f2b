"""The classifier judge on tiny models with real heads: labels, probabilities, pairs, what is cut off, its identity."""

import json
import shutil

import pytest
import torch
from judge_models import ANSWERS, REFUSALS, build_classifier, row

from unmirage import cli
from unmirage.errors import UserError
from unmirage.judges import judge_all
from unmirage.judges.classifier import MEANINGS, ClassifierJudge, read_meanings
from unmirage.judges.local import in_batches, room
from unmirage.judges.registry import JudgeOptions, judge_named, judges_named
from unmirage.runs import Run
from unmirage.schema import Label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT that says compliance or refusal. Read only."""
    path = tmp_path_factory.mktemp("classifier")
    build_classifier(path)
    return path


def copied(folder, to, **changes):
    """A copy of a folder with other entries in its config.json."""
    shutil.copytree(folder, to)
    if not changes:
        return to
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


def named(folder, to, *names):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    return copied(folder, to, problem_type=None, **labels)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_it_tells_refusals_from_answers(kind, tmp_path):
    build_classifier(tmp_path, kind=kind)
    judge = ClassifierJudge(tmp_path)
    verdicts = list(judge.judge_many([row(text, n) for n, text in enumerate([*REFUSALS, *ANSWERS])]))
    assert [verdict.label for verdict in verdicts] == [Label.REFUSAL] * 4 + [Label.COMPLIANCE] * 4
    assert [verdict.query for verdict in verdicts] == [f"q{n}" for n in range(8)]
    assert all(verdict.harm is None and verdict.correct is None for verdict in verdicts)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_probabilities_are_those_of_the_model_whatever_the_batch(kind, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    build_classifier(tmp_path, kind=kind)
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    texts = ["It is red.", "I cannot help with that. It lies on the table.", "blue"]
    together = ClassifierJudge(tmp_path).judge_many([row(text) for text in texts])
    for text, verdict in zip(texts, together, strict=True):
        with torch.no_grad():
            shares = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        told = dict(part.rsplit(" ", 1) for part in verdict.why.split(", "))
        assert float(told["compliance"]) == pytest.approx(shares[0], abs=6e-4)
        assert float(told["refusal"]) == pytest.approx(shares[1], abs=6e-4)
        assert verdict.label == ("refusal" if shares[1] > shares[0] else "compliance")


def test_classes_that_mean_the_same_are_taken_together(folder, tmp_path):
    judge = ClassifierJudge(
        named(folder, tmp_path / "two", "soft", "hard"), {"soft": Label.REFUSAL, "hard": Label.COMPLIANCE}
    )
    answer = row("x")[1]
    judge.labels = {"no": Label.REFUSAL, "yes": Label.COMPLIANCE, "never": Label.REFUSAL}
    verdict = judge._verdict(answer, [0.3, 0.4, 0.3], "")
    assert (verdict.label, verdict.why) == (Label.REFUSAL, "yes 0.400, no 0.300, never 0.300")


def test_a_class_with_an_unknown_name_must_be_explained(folder, tmp_path):
    anonymous = named(folder, tmp_path / "a", "LABEL_0", "LABEL_1")
    with pytest.raises(UserError, match=r"'LABEL_0' means is not known .*LABEL_0, LABEL_1.*--judge-label LABEL_0="):
        ClassifierJudge(anonymous)
    judge = judge_named(
        f"classifier:{anonymous}", options=JudgeOptions(labels=("LABEL_0=compliance", "LABEL_1=refusal"))
    )
    assert judge.judge(*row("I must decline.")).label is Label.REFUSAL
    swapped = ClassifierJudge(anonymous, {"LABEL_0": Label.REFUSAL, "LABEL_1": Label.COMPLIANCE})
    assert swapped.judge(*row("I must decline.")).label is Label.COMPLIANCE
    assert swapped.name != judge.name


@pytest.mark.parametrize(
    ("names", "meanings", "said"),
    [
        (("compliance", "refusal"), {"LABEL_7": Label.REFUSAL}, "no class 'LABEL_7' but compliance, refusal"),
        (("safe", "unsafe"), {}, "'safe' means is not known"),
        (("NORMAL", "REJECTION"), {}, "'NORMAL' means is not known"),
        (("refusal", "rejected"), {}, "do not tell refusal from other answers"),
        (("compliance", "partial"), {}, "do not tell refusal from other answers"),
        (("refusal",), {}, "a judge needs two or more"),
        (("refusal", "refusal"), {}, "a judge needs two or more, all named"),
    ],
)
def test_classes_are_never_guessed(folder, tmp_path, names, meanings, said):
    with pytest.raises(UserError, match=said):
        ClassifierJudge(named(folder, tmp_path / "c", *names), meanings)


@pytest.mark.parametrize("name", ["Refusal", "full-refusal", "2_full_refusal", "Not Refusal", "OFF_TOPIC"])
def test_usual_names_are_known(folder, tmp_path, name):
    other = "comply" if MEANINGS[name.lower().replace("-", "_").replace(" ", "_")] is Label.REFUSAL else "refused"
    labels = ClassifierJudge(named(folder, tmp_path / "c", name, other)).labels
    assert labels[name] is not labels[other]


@pytest.mark.parametrize("pair", ["refusal", "=refusal", "A=", "A=harm", "A=error", "A=unparsed"])
def test_a_meaning_is_a_name_and_a_label(pair):
    with pytest.raises(UserError, match="is no NAME=LABEL; LABEL is refusal, partial, compliance or irrelevant"):
        read_meanings([pair])


def test_a_name_may_hold_an_equals_sign():
    assert read_meanings(["a=b=partial"]) == {"a=b": Label.PARTIAL}


def test_the_end_of_a_long_answer_is_not_read(folder):
    judge = ClassifierJudge(folder)
    late, other = judge.judge_many([row("It is red. " * 6 + "I must decline. " * 6), row("It is red.")])
    assert late.label is Label.COMPLIANCE
    assert late.why.endswith("; it reads 24 of 50 tokens")  # 4 tokens a sentence with its full stop, and two ends
    assert "reads" not in other.why


def test_whatever_the_tokenizer_s_own_settings_it_is_the_end(folder, tmp_path):
    other = copied(folder, tmp_path / "left")
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    long = row("I must decline. " * 6 + "It is red. " * 6)
    assert ClassifierJudge(folder).judge(*long).label is Label.REFUSAL
    assert ClassifierJudge(other).judge(*long).label is Label.REFUSAL


def test_of_a_pair_the_longer_is_cut_at_its_end(folder):
    judge = ClassifierJudge(folder, pair=True)
    long = judge.judge(*row("I must decline. " + "red " * 60, question="What is it?"))
    assert long.why.endswith("; it reads 24 of 71 tokens")
    short = judge.judge(*row("I must decline. " + "red " * 13, question="What is it?"))
    assert long.why.split(";")[0] == short.why  # 4 words of the question, 17 of the answer, three ends


def test_a_pair_shows_the_question(folder):
    def why(judge, question):
        return judge.judge(*row("made", question=question)).why

    alone, paired = ClassifierJudge(folder), ClassifierJudge(folder, pair=True)
    assert why(alone, "What is it?") == why(alone, "How is it made?")
    assert why(paired, "What is it?") != why(paired, "Sorry, I must decline.")
    assert alone.name != paired.name


def test_the_limit_of_models_that_number_positions_from_the_padding_on():
    config = type("Config", (), {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1})()
    config.get_text_config = lambda: config
    model = type("Model", (), {"config": config})()
    assert room(model, type("Tokenizer", (), {"model_max_length": 10**30})()) == 512
    assert room(model, type("Tokenizer", (), {"model_max_length": 256})()) == 256


def test_the_name_changes_with_all_that_decides_and_with_nothing_else(folder, tmp_path):
    name = ClassifierJudge(folder).name
    assert name == ClassifierJudge(copied(folder, tmp_path / "same"), batch_size=1).name
    build_classifier(tmp_path / "other", seed=1)
    assert name != ClassifierJudge(tmp_path / "other").name
    assert name.startswith("classifier-")


def test_a_model_without_the_head_is_no_judge(folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    bare = copied(folder, tmp_path / "bare")
    AutoModelForSequenceClassification.from_pretrained(folder).bert.save_pretrained(bare)
    named(bare, tmp_path / "named", "compliance", "refusal")
    with pytest.raises(UserError, match=r"lacks 2 weights, such as classifier\.bias; it was saved without the head"):
        ClassifierJudge(tmp_path / "named").judge(*row("red"))


@pytest.mark.parametrize(
    ("gone", "said"), [("config.json", "no config.json"), ("model.safetensors", r"no \*.safetensors")]
)
def test_a_folder_that_is_no_model(folder, tmp_path, gone, said):
    (copied(folder, tmp_path / "c") / gone).unlink()
    with pytest.raises(UserError, match=said):
        ClassifierJudge(tmp_path / "c")
    with pytest.raises(UserError, match="does not exist"):
        ClassifierJudge(tmp_path / "nowhere")


def test_a_batch_that_does_not_fit_is_halved():
    tried = []

    def work(rows):
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        return [-number for number in rows]

    assert list(in_batches(range(7), 5, work)) == [0, -1, -2, -3, -4, -5, -6]
    assert tried == [5, 2, 2, 2, 1]


def test_a_row_that_does_not_fit_alone_is_one_sentence():
    def work(_rows):
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="does not hold the judge and one answer"):
        list(in_batches(range(3), 2, work))


def test_rows_that_nobody_can_judge_keep_their_place(folder):
    rows = [row("I must decline.", 0), row("", 1), row("It is red.", 2)]
    answers = [answer for _, answer in rows]
    answers[1] = answers[1].model_copy(update={"error": "no connection"})
    verdicts = list(judge_all(ClassifierJudge(folder, batch_size=1), [query for query, _ in rows], answers))
    assert [verdict.label for verdict in verdicts] == ["refusal", "error", "compliance"]
    assert list(ClassifierJudge(folder).judge_many([])) == []


# --- The command line ---------------------------------------------------------------------------


def call(*arguments):
    return cli.run(lambda: cli.app([str(one) for one in arguments], prog_name="unmirage", standalone_mode=False))


def test_a_run_is_judged_and_the_judge_measured(folder, tmp_path, capsys):
    rows = [row(text, n) for n, text in enumerate([*REFUSALS, *ANSWERS])]
    run = tmp_path / "run"
    with Run.open(run, "evaluate", {"model": "m", "method": "none", "seed": 0, "data": "toys"}, {}) as opened:
        opened.write_text("queries.jsonl", "".join(query.model_dump_json() + "\n" for query, _ in rows))
        opened.write_text("variants.jsonl", "")
        opened.log("answers.jsonl").append([answer for _, answer in rows])
    assert call("judge", run, "--judge", f"classifier:{folder}", "--judge", "rules") == 0
    name = ClassifierJudge(folder).name
    records = json.loads((run / "metrics.json").read_text())["records"]
    assert {r["metric"]: r["value"] for r in records if r["judge"] == name} == {
        "asr": 0.5,
        "refusal": 0.5,
        "partial": 0.0,
        "ir": 0.0,
    }
    labels = tmp_path / "labels.jsonl"
    said = [("refusal", text) for text in REFUSALS] + [("compliance", text) for text in ANSWERS]
    labels.write_text("".join(json.dumps({"label": label, "answer": text}) + "\n" for label, text in said))
    out = tmp_path / "calibrations"
    assert call("judge", "calibrate", labels, "--judge", f"classifier:{folder}", "--out", out) == 0
    found = json.loads((out / name / "labels.json").read_text())
    assert (found["n"], found["unusable"], found["full"]["accuracy"]["value"]) == (8, 0, 1.0)
    capsys.readouterr()


def test_mistakes_are_one_sentence(folder, tmp_path, capsys):
    assert call("judge", tmp_path, "--judge", f"classifier:{folder}", "--judge-label", "x=refusal") == 2
    assert capsys.readouterr().err.strip().endswith("has no class 'x' but compliance, refusal; correct --judge-label.")
    assert call("judge", tmp_path, "--judge", "classifier") == 2
    assert "name it with its folder, as classifier:FOLDER" in capsys.readouterr().err


def test_the_same_judge_twice_is_one(folder):
    assert len(judges_named([f"classifier:{folder}", f"classifier:{folder}/", "rules"])) == 2
