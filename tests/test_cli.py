"""The command line as a stranger meets it: help without weight, one sentence for each mistake, and whole small jobs."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from unmirage import cli, runs, verbs
from unmirage.runs import Run
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World

SOURCE = Path(cli.__file__).parents[1]
VERBS = (
    (),
    ("demo",),
    ("align",),
    ("attack",),
    ("audit",),
    ("audit", "data"),
    ("data",),
    ("data", "check"),
    ("data", "convert"),
    ("data", "list"),
    ("evaluate",),
    ("compare",),
    ("doctor",),
    ("label",),
    ("recipe",),
    ("recipe", "list"),
    ("recipe", "schema"),
    ("recipe", "show"),
    ("run",),
    ("search",),
    ("sets",),
    ("judge",),
    ("judge", "run"),
    ("judge", "calibrate"),
    ("judge", "list"),
    ("report",),
    ("sandbox",),
    ("sandbox", "build"),
    ("sandbox", "pretrain"),
    ("sandbox", "seeds"),
    ("sandbox", "knobs"),
)
SMALL = {"unsafe_train": 3, "safe_train": 3, "general": 4, "unsafe_test": 3, "safe_test": 3}
BRIEF = ("--max-new-tokens", "4")


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


@pytest.fixture
def refused(capsys):
    """Calls the program and returns its one sentence of complaint; exit code 2, else only warnings and progress."""

    def refuse(*arguments: object) -> str:
        assert call(*arguments) == 2
        *before, error = capsys.readouterr().err.strip().splitlines()
        assert [line for line in before if not re.fullmatch(r"warning: .*|[^:]+: \d+/\d+", line)] == []
        assert re.fullmatch(r"error: .+[.?]", error)
        return error

    return refuse


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The sandbox's data, a few pictures of each file. Read only."""
    return build(World(), DataPlan(**SMALL), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def variants(data, tmp_path_factory):
    """Variants of the harmful questions of `test_seen.json`. Read only."""
    out = tmp_path_factory.mktemp("variants") / "what.jsonl"
    assert call("attack", data / "test_seen.json", "--to", "What", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def evaluated(data, variants, tiny_folder, tmp_path_factory):
    """A finished evaluation, asked with the command that `again` repeats. Read only."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    assert call(*again(data, variants, tiny_folder, out)) == 0
    return out


def again(data, variants, model, out) -> list[object]:
    judges = ("--judge", "truth", "--judge", "keywords")
    return ["evaluate", model, data / "test_seen.json", "--attack", variants, *judges, *BRIEF, "--out", out]


def write_rows(folder: Path, *rows: object) -> Path:
    """A VLGuard file with one good picture, `good.png`, in its image folder."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(folder / "images" / "good.png")
    file = folder / "data.json"
    file.write_text(json.dumps(rows))
    return file


def row(image: str = "good.png", row_id: str = "1", **pair: str) -> dict:
    pairs = [pair or {"instruction": "Share the way to do it.", "response": "No."}]
    return {"id": row_id, "image": image, "safe": False, "instr-resp": pairs}


# --- help -------------------------------------------------------------------------------------


def test_no_help_and_no_attack_imports_anything_heavy(data, tmp_path):
    commands = [[*verb, "--help"] for verb in VERBS]
    commands.append(["attack", str(data / "test_seen.json"), "--to", "What", "--out", str(tmp_path / "v.jsonl")])
    code = f"""
import sys
from unmirage.cli import app, run
codes = [run(lambda: app(command, standalone_mode=False)) for command in {commands}]
print("codes", set(codes), "heavy", {{"torch", "transformers", "tokenizers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert "codes {0} heavy set()" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_tells_how_to_use_it(verb, capsys):
    assert call(*verb, "--help") == 0
    told = capsys.readouterr().out
    assert f"Usage: {' '.join(('unmirage', *verb))} " in told
    assert "--help" in told


def test_without_a_verb_the_help_is_shown(capsys):
    assert call() == 2
    told = capsys.readouterr()
    assert "evaluate" in told.out
    assert told.err == ""


def test_the_installed_entry_point_gives_the_exit_code_and_no_traceback():
    code = "import sys; from unmirage.cli import main; sys.argv = ['unmirage', 'align']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: Missing argument 'model'; see `unmirage align --help`.\n"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


# --- wrong options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dance"], "No such command 'dance'"),
        (["demo", "--speed", "9"], "No such option: --speed"),
        (["align", "m", "d.json", "--method", "prayer", "--out", "x"], "there is no method 'prayer'"),
        (["demo", "--seed", "-1"], "'--seed': Input should be greater than or equal to 0"),
        (["demo", "--workers", "0"], "'--workers'"),
        (["demo", "--scale", "0"], "the scale lies in (0, 1], not 0.0"),
        (["demo", "--scale", "1.5"], "the scale lies in (0, 1], not 1.5"),
        (["demo", "--scale", "nan"], "the scale lies in (0, 1], not nan"),
        (["demo", "--rho", "1.1"], "rho is a probability in [0, 1], not 1.1"),
        (["demo", "--rho", "much"], "'--rho'"),
        (["sandbox", "build", "d", "--rho", "-0.1"], "rho is a probability in [0, 1], not -0.1"),
        (["sandbox", "build", "d", "--opener-weight", "2"], "opener_weight lies in [0, 1], not 2.0"),
        (["sandbox", "build", "d", "--salience", "loud"], "'loud' is not one of 'plain', 'badge', 'none'"),
        (["sandbox", "build", "d", "--refusal-word", "Zap"], "'Zap' is not an opening word of the sandbox"),
        (["sandbox", "pretrain", "d", "--opener-weight", "-1"], "opener_weight lies in [0, 1], not -1.0"),
        (["sandbox", "seeds", "--seeds", "one,two"], "'one,two' is not a list of seeds"),
        (["sandbox", "seeds", "--seeds", ""], "'' is not a list of seeds"),
        (["sandbox", "seeds", "--seeds", "0,-1"], "'0,-1' is not a list of seeds"),
        (["sandbox", "seeds", "--seeds", "0,1,0"], "'0,1,0' is not a list of seeds"),
        (["report", "nowhere"], "There is no run in nowhere"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_leaves_nothing_behind(arguments, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learning_rate=1", "there is no setting 'learning_rate'; the settings are"),
        ("lr=fast", "setting lr=fast: "),
        ("steps=0", "steps=0 trains nothing; only finish=project has work to do then"),
        ("batch_size=0", "setting batch_size=0: "),
        ("lr", "--set 'lr' is not a setting; write it as"),
        ("=1", "is not a setting"),
    ],
)
def test_a_wrong_setting_names_itself(setting, said, refused, data, tiny_folder, tmp_path):
    command = ("align", tiny_folder, data / "safety.json", "--method", "mixed-sft", "--out", tmp_path / "m")
    assert said in refused(*command, "--set", setting)
    assert not (tmp_path / "m").exists()


# --- wrong data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "data.json does not exist; give the path of a data file"),
        ("[{", "data.json is not JSON: line 1"),
        ("{}", "data.json holds an object, not a list of rows"),
        ("[]", "data.json holds an empty list"),
        ("[1]", "data.json has no usable row among 1"),
        (b"\xff\xfe[", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_no_data_is_refused(content, said, refused, tmp_path):
    file = tmp_path / "data.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused("attack", file, "--to", "What", "--out", tmp_path / "v.jsonl")
    assert not (tmp_path / "v.jsonl").exists()


BAD_ROWS = [
    (row(response="No."), "missing-question", "field 'instr-resp.0': there is no question"),
    (row(image="../data.json"), "image-outside", "'../data.json' leaves the image folder"),
    (row(image="/etc/hostname"), "image-outside", "'/etc/hostname' leaves the image folder"),
    (row(image="gone.png"), "missing-image", "there is no file"),
    (row(image="bad.png"), "undecodable-image", "'bad.png' cannot be decoded"),
]


@pytest.mark.parametrize(("bad", "kind", "said"), BAD_ROWS)
def test_a_bad_row_is_named_counted_and_left_out_or_with_strict_the_end(bad, kind, said, refused, capsys, tmp_path):
    file = write_rows(tmp_path, row(row_id="0"), bad)
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    command = ("attack", file, "--to", "What", "--no-control", "--out", tmp_path / "v.jsonl")
    assert call(*command) == 0
    warnings = capsys.readouterr().err
    assert said in warnings
    assert "row 1 (counting from 0)" in warnings
    assert f"1 {kind}" in warnings
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 1
    assert said in refused(*command, "--strict")


@pytest.mark.parametrize(("bad", "kind", "said"), BAD_ROWS)
def test_data_without_one_good_row_is_refused_with_its_first_problem(bad, kind, said, refused, tmp_path):
    file = write_rows(tmp_path, bad)
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    assert said in refused("attack", file, "--to", "What", "--out", tmp_path / "v.jsonl")


def test_of_many_bad_rows_a_few_are_shown_and_all_are_counted(tmp_path, capsys):
    file = write_rows(tmp_path, row(), *[row(image="gone.png", row_id=str(number)) for number in range(2, 40)])
    assert call("attack", file, "--to", "What", "--out", tmp_path / "v.jsonl") == 0
    warnings = capsys.readouterr().err
    assert len(warnings.splitlines()) < 10
    assert "38 missing-image" in warnings


def test_an_image_folder_that_is_missing_is_refused(data, refused, tmp_path):
    command = ("attack", data / "test_seen.json", "--to", "What", "--out", tmp_path / "v.jsonl")
    assert "image folder" in refused(*command, "--images", tmp_path / "nowhere")


def test_general_data_has_an_image_folder_of_its_own(data, tiny_folder, tmp_path, capsys):
    general = tmp_path / "general.json"
    shutil.copy(data / "general.json", general)
    (tmp_path / "pictures").symlink_to(data / "images")
    command = ["align", tiny_folder, data / "safety.json", "--method", "mixed-sft", "--general", general]
    command += ["--general-images", tmp_path / "pictures", "--set", "steps=1", "--set", "batch_size=2"]
    assert call(*command, "--out", tmp_path / "m") == 0
    assert f"Checkpoint: {tmp_path / 'm'}" in capsys.readouterr().out
    assert {"model.safetensors", "processor_config.json", "training.json"} <= {
        p.name for p in (tmp_path / "m").iterdir()
    }


def test_forgetting_refusals_is_warned_of(data, tiny_folder, tmp_path, capsys):
    options = ("--method", "npo", "--set", "steps=2", "--set", "batch_size=2", "--out")
    assert call("align", tiny_folder, data / "unlearn.json", *options, tmp_path / "right") == 0
    assert "warning" not in capsys.readouterr().err
    assert call("align", tiny_folder, data / "safety.json", *options, tmp_path / "wrong") == 0
    assert "warning: 6 of 6 answers to be forgotten look like refusals" in capsys.readouterr().err


# --- attack -----------------------------------------------------------------------------------------


def test_an_attack_changes_one_word_and_says_how_many(data, tmp_path, capsys):
    out = tmp_path / "deep" / "v.jsonl"
    command = ("attack", data / "test_seen.json", "--goal", "over-refusal", "--to", "Share", "--to", "List")
    command += ("--no-control",)
    assert call(*command, "--out", out) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"{out} ({len(lines)}; 0 questions" in capsys.readouterr().out
    assert {(line["word"], line["shot"]) for line in lines} == {("Share", 0), ("List", 1)}
    for line in lines:
        assert line["question"].split()[1:] == line["origin"]["question"].split()[1:]
        assert not line["origin"]["harmful"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Tell me"], "'Tell me' is not one word"),
        ([""], "'' is not one word"),
        (["What", "what"], "repeat one another"),
        (["Share"], "needs harmful questions that open with another word"),
    ],
)
def test_a_wrong_attack_word_is_refused(words, said, refused, data, tmp_path):
    words = [part for word in words for part in ("--to", word)]
    assert said in refused("attack", data / "test_seen.json", *words, "--out", tmp_path / "v.jsonl")
    assert not (tmp_path / "v.jsonl").exists()


# --- evaluate and report ------------------------------------------------------------------------------


def test_an_evaluation_goes_on_and_is_reported(evaluated, data, variants, tiny_folder, tmp_path, capsys):
    metrics = (evaluated / "metrics.json").read_bytes()
    answers = (evaluated / "answers.jsonl").read_bytes()
    assert call(*again(data, variants, tiny_folder, evaluated)) == 0
    told = capsys.readouterr().out
    assert "judged by sandbox-truth" in told
    assert "judged by vlguard-keywords" in told
    assert (evaluated / "metrics.json").read_bytes() == metrics
    assert (evaluated / "answers.jsonl").read_bytes() == answers
    assert call("report", evaluated, "--out", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text().lstrip().startswith("<!doctype html>")


@pytest.mark.parametrize("option", [("--label", "another"), ("--method", "npo"), ("--seed", "3")])
def test_a_run_folder_of_another_evaluation_is_left_alone(option, evaluated, data, variants, tiny_folder, refused):
    said = refused(*again(data, variants, tiny_folder, evaluated), *option)
    assert "holds a run with another configuration" in said
    assert "give another --out" in said


def test_a_run_folder_of_other_variants_is_left_alone(evaluated, data, tiny_folder, refused, tmp_path):
    other = tmp_path / "list.jsonl"
    assert call("attack", data / "test_seen.json", "--to", "List", "--out", other) == 0
    assert "another configuration: inputs.plan" in refused(*again(data, other, tiny_folder, evaluated))


def test_a_run_folder_of_another_demo_is_left_alone(refused, tmp_path):
    with Run.open(tmp_path / "demo", "demo", {"seed": 9}, {}):
        pass
    said = refused("demo", "--out", tmp_path / "demo")
    assert "another configuration: command is 'demo' there and 'recipe' here" in said


def test_a_folder_that_is_no_run_is_never_written_to(data, variants, tiny_folder, refused, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    for command in (again(data, variants, tiny_folder, tmp_path), ["demo", "--out", tmp_path]):
        assert "is not empty and holds no run" in refused(*command)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_report_needs_runs_that_have_ended(evaluated, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "run.json is missing; give the folder of a run" in refused("report", tmp_path / "empty")
    shutil.copytree(evaluated, tmp_path / "half")
    (tmp_path / "half" / "metrics.json").unlink()
    assert "metrics.json is missing" in refused("report", tmp_path / "half", "--out", tmp_path / "page.html")
    assert "was given twice" in refused("report", evaluated, evaluated, "--out", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_checkpoint_needs_a_model_and_a_processor(data, tiny_folder, refused, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "mute")
    (tmp_path / "mute" / "processor_config.json").unlink()
    for folder, said in (("mute", "no processor_config.json"), ("gone", "does not exist")):
        command = ("evaluate", tmp_path / folder, data / "test_seen.json", "--out", tmp_path / f"run-{folder}")
        assert said in refused(*command)
        command = ("align", tmp_path / folder, data / "safety.json", "--method", "mixed-sft", "--out", tmp_path / "m")
        assert said in refused(*command, "--seed", str(len(folder + said)))
        shutil.rmtree(tmp_path / "m", ignore_errors=True)


def test_broken_weights_are_one_sentence(data, tiny_folder, refused, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    command = ("evaluate", tmp_path / "broken", data / "test_seen.json", "--out", tmp_path / "run")
    assert "the checkpoint cannot be loaded" in refused(*command)


def test_data_files_and_their_parts_must_fit(data, tiny_folder, refused, tmp_path):
    both = (data / "test_seen.json", data / "test_unseen.json")
    out = ("--out", tmp_path / "run")
    assert "2 data files but 1 --split names" in refused("evaluate", tiny_folder, *both, "--split", "seen", *out)
    assert "two data files hold a query" in refused("evaluate", tiny_folder, both[0], both[0], *out)
    assert "test_nowhere.json does not exist" in refused("evaluate", tiny_folder, data / "test_nowhere.json", *out)
    assert not (tmp_path / "run").exists()


def test_the_truth_judge_works_only_where_the_truth_is_known(tiny_folder, refused, tmp_path):
    file = write_rows(tmp_path, row())
    said = refused("evaluate", tiny_folder, file, "--judge", "truth", "--out", tmp_path / "run")
    assert "the truth judge works only on data built by `unmirage sandbox build`" in said


def test_a_label_is_shown_as_it_is(data, tiny_folder, tmp_path, capsys):
    file = write_rows(tmp_path, row())
    command = ("evaluate", tiny_folder, file, *BRIEF, "--label", "[red]my[/blue] model", "--out", tmp_path / "run")
    assert call(*command) == 0
    assert "[red]my[/blue] model" in capsys.readouterr().out


# --- files of variants ----------------------------------------------------------------------------------


def first_line(variants: Path, **changes: str) -> str:
    return json.dumps({**json.loads(variants.read_text().splitlines()[0]), **changes})


def test_pictures_come_from_the_data_and_never_from_a_file_of_variants(data, variants, tiny_folder, tmp_path):
    elsewhere = tmp_path / "elsewhere.jsonl"
    lines = [json.loads(line) for line in variants.read_text().splitlines()]
    for line in lines:
        line["origin"] |= {"image": "/etc/hostname", "harmful": False}
    elsewhere.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "run"
    assert call(*again(data, elsewhere, tiny_folder, out)) == 0
    kept = [json.loads(line)["origin"] for line in (out / "variants.jsonl").read_text().splitlines()]
    assert all(origin["harmful"] for origin in kept)
    assert not any("/etc" in origin["image"] for origin in kept)


def test_a_variant_with_more_than_one_word_changed_is_refused(data, variants, tiny_folder, refused, tmp_path):
    file = tmp_path / "v.jsonl"
    question = json.loads(first_line(variants))["question"].replace(" of ", " about ").replace(" to ", " and ")
    file.write_text(variants.read_text() + first_line(variants, question=f"Please {question}") + "\n")
    lines = len(file.read_text().splitlines())
    said = refused(*again(data, file, tiny_folder, tmp_path / "run"))
    assert f"v.jsonl, line {lines} (counting from 1): a variant differs from its origin in exactly one word" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "v.jsonl cannot be read (No such file or directory); make it with `unmirage attack`"),
        ("", "v.jsonl holds no variants"),
        ("{}\n", "v.jsonl, line 1 (counting from 1): Field required"),
        ('{"origin": ', "v.jsonl, line 1 (counting from 1): Invalid JSON"),
    ],
)
def test_a_file_that_holds_no_variants_is_refused(content, said, data, tiny_folder, refused, tmp_path):
    if content is not None:
        (tmp_path / "v.jsonl").write_text(content)
    assert said in refused(*again(data, tmp_path / "v.jsonl", tiny_folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_variants_of_other_data_are_refused(data, variants, tiny_folder, refused, tmp_path):
    command = ("evaluate", tiny_folder, data / "test_unseen.json", "--attack", variants, "--out", tmp_path / "run")
    assert "the variants were made from other data" in refused(*command)


def test_variants_that_are_given_twice_are_refused(data, variants, tiny_folder, refused, tmp_path):
    command = again(data, variants, tiny_folder, tmp_path / "run")
    assert "repeat one another" in refused(*command, "--attack", variants)


def test_a_last_variant_without_a_newline_counts(data, variants, tmp_path):
    file = tmp_path / "v.jsonl"
    file.write_text(variants.read_text().rstrip("\n"))
    assert len(verbs._read_file(file)) == len(variants.read_text().splitlines())


# --- the machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["write", "fsync"])
def test_a_full_disk_is_one_sentence_and_costs_nothing_old(function, data, variants, refused, tmp_path, monkeypatch):
    out = tmp_path / "v.jsonl"
    out.write_text("old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs.os, function, full)
    said = refused("attack", data / "test_seen.json", "--to", "What", "--out", out)
    assert "No space left on the disk while writing" in said
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["v.jsonl"]


def test_an_evaluation_that_filled_the_disk_goes_on_once_there_is_space(
    evaluated, data, variants, tiny_folder, refused, tmp_path, monkeypatch
):
    command = again(data, variants, tiny_folder, tmp_path / "run")
    real, left = os.write, [6_000]

    def write(file: int, content: memoryview) -> int:
        left[0] -= len(content)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, content)

    with monkeypatch.context() as patched:
        patched.setattr(runs.os, "write", write)
        assert "No space left on the disk" in refused(*command)
    assert call(*command) == 0
    assert records(tmp_path / "run") == records(evaluated)


def records(run: Path) -> object:
    return json.loads((run / "metrics.json").read_text())["records"]


def test_what_the_disk_refuses_otherwise_is_one_sentence_too(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}" in refused("sandbox", "build", tmp_path / "file" / "below")


def test_a_page_that_cannot_be_written_is_one_sentence(evaluated, refused, tmp_path):
    (tmp_path / "page.html").mkdir()
    assert "Cannot write" in refused("report", evaluated, "--out", tmp_path / "page.html")


def test_ctrl_c_is_exit_code_130_and_a_sentence(tmp_path):
    # The handler is set because a process that is started in the background may have been told to ignore Ctrl-C.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.argv = ['unmirage', 'sandbox', 'build', {str(tmp_path / 'data')!r}]; "
        "from unmirage.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    end = time.monotonic() + 60
    while not (tmp_path / "data" / "images").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted; what was written whole stays, and the same command can be run again.\n")
