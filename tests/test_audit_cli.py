"""`unmirage audit data` as a user runs it: files, exit codes, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from test_audit_formats import ROWS, write
from test_cli import SOURCE, call

OPTIONS = ("--question", "q", "--label", "l", "--id", "id")


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "a.csv", ROWS)


def test_it_prints_and_writes_both_files(table, tmp_path, capsys):
    assert call("audit", "data", table, *OPTIONS, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "The opening word alone tells refusal in 100.0% of rows" in printed.out
    assert "share" in printed.out
    assert printed.err == ""
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["mirage_score"]["value"] == 1.0
    assert record["files"] == ["a.csv"]
    assert "</html>" in (tmp_path / "out" / "audit.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.html", "audit.json"]


@pytest.mark.parametrize(
    ("condition", "code"), [("mirage_score > 0.8", 1), ("mirage_score > 1", 0), ("shortcuts >= 1 and rows == 60", 1)]
)
def test_fail_if(table, tmp_path, condition, code, capsys):
    assert call("audit", "data", table, *OPTIONS, "--out", tmp_path / "out", "--fail-if", condition) == code
    assert (f"failed: {condition}" in capsys.readouterr().err) == bool(code)


def test_a_wrong_condition_is_told_before_the_work(tmp_path, capsys):
    assert call("audit", "data", tmp_path / "nothing.csv", "--fail-if", "mirage > 1") == 2
    assert "there is no 'mirage'" in capsys.readouterr().err


def test_against(table, tmp_path, capsys):
    other = write(tmp_path / "b.csv", [row | {"q": row["q"].replace("Share", "Name")} for row in ROWS])
    assert call("audit", "data", table, *OPTIONS, "--against", other, "--out", tmp_path / "out") == 0
    assert "The opening word alone tells the file a.csv" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    cues = {
        (cue["cue"], cue["direction"]) for cue in record["cues"] if cue["position"] == "opening" and cue["q"] < 0.05
    }
    assert cues == {("share", "a.csv"), ("name", "b.csv")}
    words = [cue for cue in record["cues"] if cue["position"] != "surface"]
    assert all(cue["cue"].split()[0] in one["question"].lower() for cue in words for one in cue["examples"])


def test_control_characters_do_not_reach_the_terminal(tmp_path, capsys):
    rows = [row | {"id": "\x1b[31m\u202e" + row["id"]} for row in ROWS]
    rows = [row | {"q": "N/A"} if i == 0 else row for i, row in enumerate(rows)]
    assert call("audit", "data", write(tmp_path / "a.csv", rows), *OPTIONS, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out
    assert "\u202e" not in printed.out


def test_nothing_half_written_after_an_error(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("q,l\nShare it,1\n")
    assert call("audit", "data", tmp_path / "a.csv", *OPTIONS[:4], "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"], ["audit", "data", "--help"], None])
def test_torch_is_never_imported(table, tmp_path, arguments):
    arguments = arguments or ["audit", "data", str(table), *OPTIONS, "--out", str(tmp_path / "out")]
    code = (
        "import sys; from unmirage import cli\n"
        f"code = cli.run(lambda: cli.app({arguments!r}, standalone_mode=False))\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'accelerate', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'CODE', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=True
    )
    assert "HEAVY [] CODE 0" in done.stdout


def test_help_does_not_wait_for_polars():
    code = "import sys; import unmirage.cli; print('polars' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_names_may_stand_in_a_divisor(table, tmp_path):
    condition = "(mirage_score - majority) / (1 - majority) > 1"
    assert call("audit", "data", table, *OPTIONS, "--out", tmp_path / "out", "--fail-if", condition) == 0


def test_an_auc_of_0_is_not_taken_for_none(table):
    from dataclasses import replace

    from unmirage.audit import Columns, Source, audit_data
    from unmirage.audit.commands import _values

    found = audit_data(Source([table], Columns("q", label="l")))
    first, *rest = found.scores
    wrong = replace(found, scores=[replace(first, auc=0.0), *rest])
    assert _values(wrong)["auc"] == 0.0
    assert _values(replace(found, scores=[replace(first, auc=None), *rest]))["auc"] == 0.5


@pytest.mark.parametrize("more", [(), ("--format", "vlguard")])
def test_columns_of_data_that_have_none_are_refused(tmp_path, capsys, more):
    rows = [{"id": 1, "safe": False, "instr-resp": [{"instruction": "Share it", "response": "No."}]}]
    path = write(tmp_path / "a.json", rows)
    wrong = ("--label", "whatever", "--refusal", "nonsense")
    assert call("audit", "data", path, *wrong, *more, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        f"error: {path} is read as vlguard, which has no columns to name; leave out --label, --refusal, or give "
        "--format table to read it by its columns.\n"
    )
    assert not (tmp_path / "out").exists()
