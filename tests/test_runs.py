"""The run folder survives kills, full disks, foreign folders and changed settings."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from unmirage import runs
from unmirage.errors import UserError
from unmirage.runs import JsonLines, Run, digest_file, digest_folder, read_manifest, write_json, write_text
from unmirage.schema import Metrics
from unmirage.stats import Interval

SOURCE = Path(runs.__file__).parents[1]


class Line(BaseModel):
    number: int
    text: str = "ünïcode\u2028and a\nnewline"


def start(folder: Path, config: dict | None = None, inputs: dict | None = None, command: str = "attack") -> Run:
    return Run.open(folder, command, config or {"seed": 1}, inputs or {"train.json": "abc"})


def python(code: str, *arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def fail_writes(monkeypatch: pytest.MonkeyPatch, after: int, code: int = errno.ENOSPC) -> None:
    """Let `os.write` take `after` bytes in all and then fail, as a disk that fills up does."""
    left, real = [after], os.write

    def write(file: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(code, os.strerror(code))
        done = real(file, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(runs.os, "write", write)


# --- manifest ---------------------------------------------------------------------------------


def test_a_new_run_writes_its_manifest(tmp_path):
    with start(tmp_path / "deep" / "run", {"seed": 3, "out": Path("x"), "words": ("a", "b")}) as run:
        manifest = json.loads((run.path / "run.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["command"] == "attack"
    assert manifest["seeds"] == [3]
    assert manifest["config"] == {"seed": 3, "out": "x", "words": ["a", "b"]}
    assert manifest["inputs"] == {"train.json": "abc"}
    assert {"unmirage", "python", "platform"} <= manifest["versions"].keys()
    assert manifest["created"].endswith("Z")
    assert read_manifest(tmp_path / "deep" / "run") == run.manifest


def test_the_same_settings_have_the_same_id_anywhere_and_others_have_another(tmp_path):
    ids = [start(tmp_path / name, {"seed": seed}).manifest.id for name, seed in [("a", 1), ("b", 1), ("c", 2)]]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(("seed", "seeds"), [(None, []), (4, [4]), ([1, 2], [1, 2])])
def test_seeds_are_a_list(tmp_path, seed, seeds):
    with start(tmp_path, {"seed": seed}) as run:
        assert run.manifest.seeds == seeds


def test_the_same_command_goes_on(tmp_path):
    with start(tmp_path, {"seed": 1, "words": ("a",)}) as first:
        first.log("answers.jsonl").append(Line(number=0))
    with start(tmp_path, {"seed": 1, "words": ("a",)}) as second:
        second.log("answers.jsonl").append(Line(number=1))
        assert [line.number for line in second.log("answers.jsonl").read(Line)] == [0, 1]
    assert second.manifest == first.manifest


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"config": {"seed": 2, "train": {"lr": 0.1}}}, ["config.seed", "is 1 there and 2 here"]),
        ({"config": {"seed": 1, "train": {"lr": 0.2}}}, ["config.train.lr", "0.1 there and 0.2 here"]),
        ({"config": {"seed": 1}}, ["config.train", "{'lr': 0.1} there and absent here"]),
        ({"config": {"seed": 1, "train": {"lr": 0.1, "k": 3}}}, ["config.train.k", "absent there and 3 here"]),
        ({"inputs": {"train.json": "def"}}, ["inputs.train.json", "'abc' there and 'def' here"]),
        ({"command": "align"}, ["command is 'attack' there and 'align' here"]),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, parts):
    settings = {"config": {"seed": 1, "train": {"lr": 0.1}}}
    start(tmp_path, **settings).close()
    with pytest.raises(UserError) as caught:
        start(tmp_path, **(settings | changes))
    for part in [*parts, str(tmp_path), "another --out", "delete"]:
        assert part in str(caught.value)


def test_a_long_value_is_shortened_in_the_message(tmp_path):
    start(tmp_path, {"words": "a" * 500}).close()
    with pytest.raises(UserError, match=r"aaa\.\.\. there and 'b' here"):
        start(tmp_path, {"words": "b"})


def test_another_environment_is_recorded_not_hidden(tmp_path, monkeypatch):
    start(tmp_path).close()
    monkeypatch.setattr(runs, "_version", lambda package: "99")
    for _ in range(2):
        with start(tmp_path) as run:
            assert [later.versions["torch"] for later in run.manifest.resumed] == ["99"]


def test_git_commit_is_that_of_the_working_folder_or_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs._git_commit() is None
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert len(runs._git_commit() or "") == 40
    monkeypatch.setenv("PATH", "")
    assert runs._git_commit() is None


def test_reopen_needs_no_settings(tmp_path):
    start(tmp_path).close()
    with Run.reopen(tmp_path) as run:
        assert run.manifest.config == {"seed": 1}
    with pytest.raises(UserError, match="no run in"):
        Run.reopen(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', "\x00"])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json is not a manifest"):
        start(tmp_path)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    start(tmp_path).close()
    file = tmp_path / "run.json"
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UserError, match="field 'schema'"):
        start(tmp_path)


# --- folder and lock --------------------------------------------------------------------------


def test_a_foreign_folder_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds no run .*'thesis\.tex'.*another --out"):
        start(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "run")
    with pytest.raises(UserError, match="Cannot write"):
        start(tmp_path / "run" / "below")


def test_a_run_killed_before_its_manifest_can_start(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".unmirage-0123.tmp").write_text('{"schema": 1, "i')
    start(tmp_path).close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "run.json"]


def test_two_writers_are_refused_until_the_first_closes(tmp_path):
    with start(tmp_path), pytest.raises(UserError, match="Another process"):
        start(tmp_path)
    start(tmp_path).close()


def test_the_lock_is_freed_after_a_refusal(tmp_path):
    start(tmp_path).close()
    with pytest.raises(UserError, match="another configuration"):
        start(tmp_path, {"seed": 2})
    start(tmp_path).close()


def test_the_lock_holds_between_processes_and_dies_with_its_process(tmp_path):
    code = """
import sys, time
from unmirage.runs import Run
run = Run.open(sys.argv[1], "attack", {"seed": 1}, {"train.json": "abc"})
print("open", flush=True)
time.sleep(60)
"""
    process = python(code, tmp_path)
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="Another process"):
            start(tmp_path)
    finally:
        process.kill()
        process.communicate()
    start(tmp_path).close()


def test_close_twice(tmp_path):
    run = start(tmp_path)
    run.close()
    run.close()


# --- logs -------------------------------------------------------------------------------------


def test_a_log_reads_what_was_appended(tmp_path):
    log = JsonLines(tmp_path / "verdicts" / "judge.jsonl")
    assert log.read(Line) == []
    log.append(Line(number=0))
    log.append(Line(number=i) for i in (1, 2))
    log.append([])
    assert log.read(Line) == [Line(number=i) for i in range(3)]
    log.close()
    assert log.path.read_bytes().count(b"\n") == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(cut=st.integers(0, 200), texts=st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_cut_anywhere_a_log_goes_on_with_its_whole_lines(tmp_path, cut, texts):
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    lines = [Line(number=i, text=text) for i, text in enumerate(texts)]
    with JsonLines(path) as log:
        log.append(lines)
    kept = path.read_bytes()[:cut]
    path.write_bytes(kept)
    whole = lines[: kept.count(b"\n")]
    assert JsonLines(path).read(Line) == whole
    assert path.read_bytes() == kept, "reading changes nothing"
    with JsonLines(path) as log:
        log.append(Line(number=99))
        assert log.read(Line) == [*whole, Line(number=99)]


@pytest.mark.parametrize("tail", [b'{"number": 1', b'{"number": 1}', b"\x00\x00\x00\n", b"\xff\xfe\n", b"\n"])
def test_a_torn_last_line_is_cut_off(tmp_path, tail):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"number": 0, "text": ""}\n' + tail)
    with JsonLines(path) as log:
        log.append(Line(number=2))
        assert [line.number for line in log.read(Line)] == [0, 2]


@pytest.mark.parametrize(
    ("broken", "says"),
    [("{", "EOF"), ('{"number": "x"}', "field 'number'"), ("", "EOF"), ('{"number": 1}', "field 'text'")],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, broken, says):
    class Strict(BaseModel):
        number: int
        text: str

    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"number": 0, "text": ""}}\n{broken}\n{{"number": 2, "text": ""}}\n')
    with pytest.raises(UserError, match=rf"log\.jsonl, line 2 \(counting from 1\).*{says}"):
        JsonLines(path).read(Strict)


def test_a_last_line_that_is_json_but_no_record_is_an_error_not_a_torn_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"other": 0}\n')
    with pytest.raises(UserError, match="line 1"):
        JsonLines(path).read(Line)


def test_a_log_that_is_a_folder(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        JsonLines(tmp_path).read(Line)
    with pytest.raises(UserError, match="Cannot write"):
        JsonLines(tmp_path).append(Line(number=0))


# --- kills ------------------------------------------------------------------------------------


def test_killed_while_writing_nothing_that_was_confirmed_is_lost(tmp_path):
    code = """
import sys
from pydantic import BaseModel
from unmirage.runs import Run
class Line(BaseModel):
    number: int
    text: str = "x" * 5000
with Run.open(sys.argv[1], "attack", {"seed": 1}, {"train.json": "abc"}) as run:
    log = run.log("answers.jsonl")
    number = len(log.read(Line))
    while True:
        log.append(Line(number=number))
        run.write_json("metrics.json", {"last": number, "padding": "y" * 50000})
        print(number, flush=True)
        number += 1
"""
    for _ in range(3):
        process = python(code, tmp_path)
        confirmed = [process.stdout.readline() for _ in range(3)]
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        confirmed += process.communicate()[0].splitlines()
        last = max(int(line) for line in confirmed)
        with start(tmp_path) as run:
            numbers = [line.number for line in run.log("answers.jsonl").read(Line)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > last
        assert json.loads((tmp_path / "metrics.json").read_text())["last"] >= last
        assert not list(tmp_path.glob(".unmirage-*"))


def test_killed_in_the_middle_of_a_line_the_log_goes_on(tmp_path):
    code = """
import os, signal, sys
from pydantic import BaseModel
from unmirage.runs import JsonLines
class Line(BaseModel):
    number: int
    text: str = ""
log, real = JsonLines(sys.argv[1]), os.write
log.append(Line(number=0))
def half(file, data):
    real(file, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
log.append(Line(number=1))
"""
    path = tmp_path / "log.jsonl"
    process = python(code, path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n")
    with JsonLines(path) as log:
        log.append(Line(number=1))
        assert [line.number for line in log.read(Line)] == [0, 1]


# --- full disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_whole_lines_and_says_what_to_do(tmp_path, monkeypatch, code):
    log = JsonLines(tmp_path / "log.jsonl")
    log.append(Line(number=0))
    with monkeypatch.context() as full:
        fail_writes(full, after=10, code=code)
        with pytest.raises(UserError, match=r"No space left .* nothing .* is lost; free space and run the same"):
            log.append(Line(number=1))
    assert log.path.read_bytes().count(b"\n") == 1
    assert log.path.read_bytes().endswith(b"\n")
    log.append(Line(number=2))
    assert [line.number for line in log.read(Line)] == [0, 2]


def test_a_torn_line_that_cannot_be_taken_back_is_repaired_later(tmp_path, monkeypatch):
    log = JsonLines(tmp_path / "log.jsonl")
    log.append(Line(number=0))
    with monkeypatch.context() as full:
        fail_writes(full, after=10)
        full.setattr(runs.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
        with pytest.raises(UserError, match="No space left"):
            log.append(Line(number=1))
        with pytest.raises(UserError, match="broken disk"):
            log.append(Line(number=1))
    assert not log.path.read_bytes().endswith(b"\n")
    log.append(Line(number=2))
    assert [line.number for line in log.read(Line)] == [0, 2]


def test_a_write_that_takes_only_a_part_is_finished(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(runs.os, "write", lambda file, data: real(file, data[:7]))
    with JsonLines(tmp_path / "log.jsonl") as log:
        log.append([Line(number=0), Line(number=1)])
        assert len(log.read(Line)) == 2


def test_a_full_disk_leaves_the_old_json(tmp_path, monkeypatch):
    path = write_json(tmp_path / "metrics.json", {"value": 1})
    fail_writes(monkeypatch, after=5)
    with pytest.raises(UserError, match=r"No space left on the disk while writing .*metrics\.json"):
        write_json(path, {"value": 2})
    assert json.loads(path.read_text()) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_full_disk_at_the_start_of_a_run(tmp_path, monkeypatch):
    with monkeypatch.context() as full:
        fail_writes(full, after=5)
        with pytest.raises(UserError, match="No space left"):
            start(tmp_path)
    start(tmp_path).close()


# --- files and digests ------------------------------------------------------------------------


def test_write_json_of_models_dataclasses_paths_and_sets(tmp_path):
    obj = {"m": Metrics(run="r", records=[]), "i": Interval(0.5, 0.0, 1.0, 2), "p": Path("a/b"), "s": {"b", "a"}}
    path = write_json(tmp_path / "new" / "x.json", obj)
    assert json.loads(path.read_text()) == {
        "m": {"schema": 1, "run": "r", "records": []},
        "i": {"value": 0.5, "low": 0.0, "high": 1.0, "n": 2},
        "p": "a/b",
        "s": ["a", "b"],
    }


@pytest.mark.parametrize(("obj", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_what_json_does_not_have_is_refused_and_nothing_written(tmp_path, obj, error):
    with pytest.raises(error):
        write_json(tmp_path / "x.json", obj)
    assert list(tmp_path.iterdir()) == []


def test_write_text_follows_the_umask_and_keeps_line_ends(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    path = write_text(tmp_path / "report.html", "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()
    assert path.stat().st_mode == plain.stat().st_mode


def test_digest_file(tmp_path):
    (tmp_path / "a").write_bytes(b"hello")
    assert digest_file(tmp_path / "a") == hashlib.sha256(b"hello").hexdigest()
    with pytest.raises(UserError, match="Cannot read"):
        digest_file(tmp_path / "b")


def test_digest_folder_sees_names_and_contents_and_no_dates(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_text("x")
    os.utime(tmp_path / "two" / "sub" / "a", (0, 0))
    first = digest_folder(tmp_path / "one")
    assert digest_folder(tmp_path / "two") == first
    (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "sub" / "b")
    assert digest_folder(tmp_path / "two") != first
    (tmp_path / "one" / "sub" / "a").write_text("y")
    assert digest_folder(tmp_path / "one") != first
    with pytest.raises(UserError, match="not a folder"):
        digest_folder(tmp_path / "three")
