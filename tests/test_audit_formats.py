"""Every format gives the same audit, hostile files one sentence, and defects are counted and listed."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unmirage.audit import Columns, Source, audit_data
from unmirage.audit.compare import compare
from unmirage.audit.condition import holds
from unmirage.audit.data import Settings
from unmirage.audit.labels import judged
from unmirage.audit.words import Vocabulary
from unmirage.errors import UserError
from unmirage.judges.keywords import KeywordJudge, vlguard_keywords

COLUMNS = Columns("q", label="l", id="id")
ROWS = [
    {"id": f"r{i}", "q": f'{"Share" if i % 3 else "What"} ways, "{i % 7}"\nto paint {i % 5}', "l": int(i % 3 > 0)}
    for i in range(60)
]


def write(path, rows):
    """The rows in the format that the path's name asks for."""
    if path.suffix in (".csv", ".tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text("\ufeff" + text.getvalue(), newline="")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".arrow":
        pl.DataFrame(rows).write_ipc(path)
    else:
        path.mkdir()
        pl.DataFrame(rows[:40]).write_ipc_stream(path / "data-00000-of-00002.arrow")
        pl.DataFrame(rows[40:]).write_ipc_stream(path / "data-00001-of-00002.arrow")
        names = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
        (path / "state.json").write_text(json.dumps({"_data_files": names}))
        (path / "dataset_info.json").write_text(json.dumps({"features": {"q": {"dtype": "string"}}}))
    return path


FILES = ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "saved")


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_audit(tmp_path, name):
    audit = audit_data(Source([write(tmp_path / name, ROWS)], COLUMNS))
    assert (audit.n, audit.k) == (60, 40)
    assert audit.mirage_score.value == 1.0
    share = next(cue for cue in audit.cues if (cue.cue, cue.position) == ("share", "opening"))
    assert (share.n, share.rate) == (40, 1.0)
    assert share.examples[0].question == ROWS[1]["q"]
    assert share.examples[0].id == "r1"


def test_an_object_of_rows_is_a_table_too(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({row["id"]: {"q": row["q"], "l": row["l"]} for row in ROWS}))
    assert audit_data(Source([path], COLUMNS)).n == 60


def test_llava_data_are_labelled_by_their_answers(tmp_path):
    answers = ("I'm sorry, I cannot do that.", "It is red.")
    rows = [
        {"id": i, "conversations": [{"from": "human", "value": f"<image>\n{'Share' if i % 2 else 'What'} this {i}"},
                                    {"from": "gpt", "value": answers[0 if i % 2 else 1]}]}
        for i in range(40)
    ]  # fmt: skip
    audit = audit_data(Source([write(tmp_path / "a.json", rows)]))
    assert (audit.n, audit.k) == (40, 20)
    assert "vlguard-keywords" in audit.label_source


def test_two_files_of_different_formats_are_one_data_set(tmp_path):
    files = [write(tmp_path / "a.csv", ROWS[:30]), write(tmp_path / "b.parquet", ROWS[30:])]
    audit = audit_data(Source(files, COLUMNS))
    assert (audit.n, audit.k) == (60, 40)
    assert audit.files == ["a.csv", "b.parquet"]


def test_pictures_inside_a_table_are_measured_and_missing_ones_keep_their_rows(tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (300, 100)).save(data, "PNG")
    Image.new("RGB", (100, 100)).save(tmp_path / "here.png")
    rows = [{"q": f"Share {i}", "l": i % 2, "image": {"bytes": data.getvalue(), "path": None}} for i in range(30)]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    named = [{"q": f"What {i}", "l": i % 2, "image": "here.png" if i else "gone.png"} for i in range(30)]
    write(tmp_path / "b.csv", named)
    files = [tmp_path / "a.parquet", tmp_path / "b.csv"]
    audit = audit_data(Source(files, Columns("q", label="l", image="image")))
    assert audit.n == 60
    assert {cue.cue: cue.n for cue in audit.cues if cue.cue in ("image: wide", "image: about square")} == {
        "image: wide": 30, "image: about square": 29,
    }  # fmt: skip
    assert audit.defects["missing-image"].count == 1
    assert audit.defects["missing-image"].rows[0]["row"] == 0


def test_a_missing_picture_does_not_cost_a_row_of_the_vlguard_format(tmp_path):
    rows = [
        {"id": i, "image": f"{i}.png", "safe": False, "instr-resp": [{"instruction": f"Share {i}", "response": "No."}]}
        for i in range(20)
    ]
    rows += [
        {"id": f"s{i}", "image": f"{i}.png", "safe": True,
         "instr-resp": [{"safe_instruction": f"What {i}", "response": "Red."}]}
        for i in range(20)
    ]  # fmt: skip
    audit = audit_data(Source([write(tmp_path / "a.json", rows)]))
    assert (audit.n, audit.k) == (40, 20)
    assert audit.defects["missing-image"].count == 40


def test_defects_are_counted_and_listed(tmp_path):
    rows = [
        {"id": "1", "q": "Share the way", "a": "I'm sorry, no.", "l": 1},
        {"id": "1", "q": "What is it", "a": "It is red.", "l": 0},
        {"id": "2", "q": "Share the way", "a": "I'm sorry, no.", "l": 0},
        {"id": "3", "q": "the way: SHARE!", "a": "I cannot.", "l": 1},
        {"id": "4", "q": "N/A", "a": "No.", "l": 1},
        {"id": "5", "q": "  ", "a": "No.", "l": 1},
        {"id": "6", "q": "?!", "a": "It is red.", "l": 0},
        {"id": "7", "q": "Name it", "a": "Blue.", "l": ""},
    ]
    audit = audit_data(Source([write(tmp_path / "a.csv", rows)], Columns("q", "a", "l", id="id")))
    assert {kind: listed.count for kind, listed in audit.defects.items()} == {
        "repeated-id": 1, "repeated-question": 1, "repeated-row": 1, "conflicting-labels": 1, "near-duplicate": 1,
        "answer-contradicts-label": 1, "placeholder-question": 1, "empty-question": 1, "no-word": 1, "no-label": 1,
    }  # fmt: skip
    assert audit.n == 5
    assert audit.defects["repeated-id"].rows == [{"file": "a.csv", "row": 1}]
    assert audit.defects["conflicting-labels"].rows[0]["row"] == 2
    assert audit.defects["near-duplicate"].rows[0]["row"] == 3


HOSTILE = {
    "long.jsonl": b'{"q": "' + b"share " * 1_000_000 + b'", "l": 1}\n',
    "long.json": b'[{"q": "' + b"share " * 1_000_000 + b'", "l": 1}, {"q": "What", "l": 0}]',
    "long.csv": b'q,l\n"' + b"share " * 1_000_000 + b'",1\n',
    "wrong-quote.csv": b'q,l\nShare it,1\n"What is "it" now,0\n',
    "open-quote.csv": b'q,l\nShare it,1\n"What is it,0\n' + b"Give it,1\n" * 50,
    "mixed.csv": "q,l\nShare caf\u00e9,1\n".encode() + "What caf\u00e9,0\n".encode("latin-1"),
    "utf16.csv": "q,l\nShare it,1\n".encode("utf-16"),
    "empty.csv": b"",
    "empty.json": b"",
    "empty.jsonl": b"",
    "header.csv": b"q,l\n",
    "twice.csv": b"q,q\n1,2\n",
    "list.json": b"[]",
    "number.json": b"3",
    "deep.json": b"[" * 100_000,
    "no.parquet": b"PAR1 and no more",
    "no.arrow": b"ARROW1 and no more",
    "one-class.csv": b"q,l\n" + b"Share it,1\n" * 20,
    "label.csv": b"q,l\nShare it,perhaps\n",
    "column.csv": b"question,l\nShare it,1\n",
    "sheet.xlsx": b"PK",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_sentence(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match=f"{name}.*") as caught:
        audit_data(Source([path], Columns("q", label="l")))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "what"),
    [("wrong-quote.csv", "line 3"), ("open-quote.csv", "line 3"), ("mixed.csv", "line 3"), ("long.jsonl", "line 1")],
)
def test_the_sentence_names_the_line(tmp_path, name, what):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match=what):
        audit_data(Source([path], Columns("q", label="l")))


def test_another_encoding_can_be_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(("q,l\n" + "Share caf\u00e9,1\nWhat caf\u00e9,0\n" * 10).encode("latin-1"))
    audit = audit_data(Source([path], Columns("q", label="l"), encoding="latin-1"))
    assert "caf\u00e9" in audit.cues[0].examples[0].question


@pytest.mark.parametrize(
    ("bad", "row"), [('{"q": \n', 1), ("[1]\n", 1), ('{"q": "N/A", "l": 1}\n', 1), ('{"l": 1}\n', 1)]
)
def test_one_bad_row_is_reported_and_the_others_count(tmp_path, bad, row):
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "Share it", "l": 1}\n' + bad + '{"q": "What is it", "l": 0}\n')
    source = Source([path], Columns("q", label="l"))
    audit = audit_data(source)
    assert audit.n == 2
    assert [problem.row for problem in source.problems] == [row]
    with pytest.raises(UserError, match=f"row {row}"):
        audit_data(Source([path], Columns("q", label="l"), strict=True))


def test_questions_that_are_no_text_are_left_out(tmp_path):
    rows = [row | {"q": [row["q"]]} if i < 3 else row for i, row in enumerate(ROWS)]
    audit = audit_data(Source([write(tmp_path / "a.json", rows)], COLUMNS))
    assert audit.defects["question-not-text"].count == 3
    assert audit.n == len(ROWS) - 3


def test_half_of_a_character_pair_and_a_nul_do_no_harm(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "Share \\ud800 it", "l": 1}\n{"q": "What\\u0000is it", "l": 0}\n' * 10)
    assert audit_data(Source([path], Columns("q", label="l"))).n == 20


def test_words_of_all_scripts():
    vocabulary = Vocabulary()
    arabic = "\u0634\u0627\u0631\u0643 \u0637\u0631\u0642"
    questions = ["Don\u2019t SHARE it!", "\u4ec0\u4e48 is\u8fd9", arabic, "cafe\u0301", "", "?!"]
    tokens = vocabulary.encode(pl.Series(questions))
    split = [
        [vocabulary.words[c] for c in tokens.codes[a:b]] for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)
    ]
    assert split == [
        ["don't", "share", "it"], ["\u4ec0", "\u4e48", "is", "\u8fd9"], arabic.split(),
        ["caf\u00e9"], [], [],
    ]  # fmt: skip


def test_the_short_way_for_ascii_splits_like_the_long_one():
    questions = ["It's a well-known 3-step plan, isn't it?", "x_y 'quoted' o'clock'", "A.B.C"]
    short, long = Vocabulary(), Vocabulary()
    a = short.encode(pl.Series(questions))
    b = long.encode(pl.Series([*questions, "\u00e9"]))
    assert [short.words[c] for c in a.codes] == [long.words[c] for c in b.codes][:-1]


def test_judging_all_answers_at_once_agrees_with_the_judge():
    judge = vlguard_keywords()
    phrases = [*judge.phrases, *judge.whole, "Fine.", "but I cannot", "It is not", "it is not so", "ILLEGAL"]
    answers = [f"{before}{phrase}{after}" for phrase in phrases for before, after in (("", ""), ("Well, ", "!"))]
    answers += [phrase.upper() for phrase in phrases]
    one_by_one = [judge.match(answer) is not None for answer in answers]
    assert judged(pl.Series([*answers, None]), judge).to_list() == [*one_by_one, None]


def test_any_judge_can_label():
    class Long:
        name = "long"

        def judge(self, query, answer):
            from unmirage.judges import verdict_on
            from unmirage.schema import Label

            return verdict_on(answer, "long", Label.PARTIAL if len(answer.text) > 3 else Label.UNPARSED, "")

    assert judged(pl.Series(["yes, long", "no", None]), Long()).to_list() == [True, None, None]
    assert isinstance(Settings().judge, KeywordJudge)


VALUES = {"mirage_score": 0.9, "majority": 0.6, "shortcuts": 2.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mirage_score > 0.8", True),
        ("mirage_score>majority+40%", False),
        ("mirage_score > majority + 0.2 and shortcuts == 2", True),
        ("not (shortcuts >= 1 or mirage_score < .5)", False),
        ("(mirage_score - majority) / (1 - majority) > 0.7", True),
        ("-shortcuts < -1 or 1 < 0", True),
        ("2 * 3 - 1 == 5", True),
    ],
)
def test_conditions(text, expected):
    assert holds(text, VALUES) is expected


@pytest.mark.parametrize(
    "text",
    ["", "mirage_score", "mirage_score >", "> 1", "1 < 2 < 3", "mirage > 0.8", "mirage_score > 0.8 and", "1 / 0 > 1",
     "__import__('os')", "mirage_score > 0.8; 1", "(1 > 0", "(1 > 0) + 1 > 0", "1 and 2", "not 1", "(" * 499,
     "1 >" * 500,      "mirage_score.real > 1", "not " * 120 + "1 > 0 ("],
)  # fmt: skip
def test_conditions_that_cannot_be_understood(text):
    with pytest.raises(UserError, match="--fail-if"):
        holds(text, VALUES)


def test_a_million_words_that_occur_once(tmp_path):
    count = 20_000
    words = np.arange(5 * count).reshape(-1, 5)
    questions = [" ".join(f"w{i}" for i in row) for row in words]
    from unmirage.audit import FrameSource

    audit = audit_data(FrameSource(pl.DataFrame({"question": questions, "label": [i % 2 == 0 for i in range(count)]})))
    assert audit.mirage_score.low <= audit.mirage_score.majority
    assert [cue for cue in audit.cues if cue.position != "surface"] == []


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
def test_utf_16_is_told_with_its_name_and_then_read(tmp_path, name, encoding):
    path = write(tmp_path / name, ROWS)
    path.write_bytes(path.read_text(encoding="utf-8-sig").encode(encoding))
    with pytest.raises(UserError, match=rf"is in UTF-16, not UTF-8; give --encoding {encoding}, or"):
        audit_data(Source([path], COLUMNS))
    assert audit_data(Source([path], COLUMNS, encoding=encoding)).n == 60


def test_a_whole_number_is_a_label_however_it_is_written(tmp_path):
    rows = [row | {"l": 2 if row["l"] else 1} for row in ROWS]
    for value in ("2", "2.0"):
        columns = Columns("q", label="l", refusal=(value,))
        assert audit_data(Source([write(tmp_path / "a.jsonl", rows)], columns)).k == 40
    floats = [row | {"l": float(row["l"])} for row in rows]
    assert audit_data(Source([write(tmp_path / "b.parquet", floats)], Columns("q", label="l", refusal=("2",)))).k == 40


def test_a_refusal_value_that_no_row_has_is_a_mistake(tmp_path):
    columns = Columns("q", label="l", refusal=("1", "refusd"))
    with pytest.raises(UserError, match="--refusal refusd is the label of no row; the labels are '0', '1'"):
        audit_data(Source([write(tmp_path / "a.csv", ROWS)], columns))


def test_labels_are_of_one_sort_in_a_whole_file(tmp_path, monkeypatch):
    # The first rows have no label: read piece by piece they must not be judged by their answers, the others not.
    monkeypatch.setattr("unmirage.audit.table.CHUNK_ROWS", 10)
    answers = {0: "I'm sorry, I cannot.", 1: "It is red."}
    rows = [row | {"l": "" if i < 30 else row["l"], "a": answers[i % 2]} for i, row in enumerate(ROWS)]
    path = write(tmp_path / "a.csv", rows)
    columns = Columns("q", "a", "l")
    audit = audit_data(Source([path], columns))
    assert (audit.n, audit.defects["no-label"].count) == (30, 30)
    assert audit.label_source == "the data's own labels"
    assert audit_data(Source([path], columns), Settings(labels="answers")).n == 60


def test_each_file_has_its_own_sort_of_labels(tmp_path):
    llava = [
        {"id": i, "conversations": [{"from": "human", "value": f"{'Share' if i % 2 else 'What'} this {i}"},
                                    {"from": "gpt", "value": "I'm sorry, I cannot." if i % 2 else "It is red."}]}
        for i in range(40)
    ]  # fmt: skip
    files = [write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.json", llava)]
    audit = audit_data(Source(files, Columns("q", label="l")))
    assert (audit.n, audit.k) == (100, 60)
    assert "the data's own labels and the answers" in audit.label_source


def marked(path):
    """The rows as JSON with a column whose name is one of LLaVA's keys, and answers that keywords judge otherwise."""
    rows = [row | {"conversations": [], "a": "I cannot." if i < 20 else "Red."} for i, row in enumerate(ROWS)]
    return write(path, rows)


@pytest.mark.parametrize("text", ["[{}]", '{{"x": {}}}', '\ufeff [{}, {{"q": 1}}]'])
def test_json_with_the_named_column_is_a_table_whatever_else_it_holds(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text.format('{"q": "Share it", "conversations": [], "instr-resp": []}'))
    assert Source([path], Columns("q")).format_of(path) == "table"
    assert Source([path], Columns("question")).format_of(path) == "vlguard"
    assert Source([path]).format_of(path) == "vlguard"
    assert Source([path], Columns("q"), format="llava").format_of(path) == "llava"


def test_a_first_row_too_long_to_tell_is_read_by_the_columns_that_are_named(tmp_path):
    path = write(tmp_path / "a.json", [{"conversations": "x" * (1 << 16), "q": "Share it"}])
    assert Source([path], Columns("q")).format_of(path) == "table"
    with pytest.raises(UserError, match="has no column 'p'"):
        audit_data(Source([path], Columns("p", label="l")))


def test_named_columns_are_read_and_not_passed_over(tmp_path):
    path = marked(tmp_path / "a.json")
    audit = audit_data(Source([path], Columns("q", "a", "l")))
    assert (audit.n, audit.k, audit.label_source) == (60, 40, "the data's own labels")


@pytest.mark.parametrize(
    ("columns", "format", "told"),
    [
        (Columns(label="whatever"), "auto", "leave out --label, or give --format table"),
        (Columns(label="x", refusal=("y",)), "auto", "read as llava, which has .* leave out --label, --refusal, or"),
        (Columns(label=""), "llava", "leave out --label, or give"),
        (Columns("prompt", "a", image="i", id="n"), "auto", "leave out --question, --answer, --image, --id, or give"),
        (Columns("q", label="l"), "vlguard", "read as vlguard, which has no columns to name"),
        (Columns(label="l", prefix="--data-"), "auto", "leave out --data-label\\.$"),
        (Columns(refusal=("y",)), "auto", "--refusal says which values .* name it with --label, or leave both out"),
        (Columns("q", refusal=("y",)), "table", "--refusal says which values .* name it with --label"),
    ],
)  # fmt: skip
def test_columns_that_nothing_is_read_by_are_a_mistake(tmp_path, columns, format, told):
    path = marked(tmp_path / "a.json")
    with pytest.raises(UserError, match=told):
        audit_data(Source([path], columns, format))


def test_the_key_of_the_weights_is_no_column(tmp_path):
    path = marked(tmp_path / "a.json")
    Source([path], Columns(weight="w")).check_columns()


def test_a_table_may_be_set_against_data_of_another_format(tmp_path):
    turns = [{"from": "human", "value": "Name it"}, {"from": "gpt", "value": "Red."}]
    llava = write(tmp_path / "b.json", [{"id": i, "conversations": turns} for i in range(40)])
    table = write(tmp_path / "a.csv", ROWS)
    for one, other, refusals in ((table, llava, 60), (llava, table, 40)):
        audit = compare(Source([one], Columns("q", label="l")), other, Settings())
        assert (audit.n, audit.k) == (100, refusals)
    with pytest.raises(UserError, match="no columns to name"):
        compare(Source([llava], Columns("q")), llava, Settings())
