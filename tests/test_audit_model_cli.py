"""`unmirage audit model` as a user runs it: questions from any table, a server that only returns text, and no model."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image
from test_audit_formats import write
from test_cli import SOURCE, call

from unmirage.audit import Columns, Source
from unmirage.audit.model.questions import questions_of
from unmirage.errors import UserError

REFUSAL, ANSWER = "I'm sorry, I cannot help with that.", "It is red."
ROWS = [
    {"nr": f"q{i}", "prompt": f"{opener} ways to paint the wide pot {i}", "sort": sort}
    for i, (opener, sort) in enumerate([("What", "safe"), ("Share", "unsafe")] * 12)
]
OPTIONS = ("--controls", "2", "--question", "prompt", "--label", "sort", "--id", "nr", "--position", "opening")


class Chat(BaseHTTPRequestHandler):
    """Refuses what opens with "Share"; keeps what it was asked in `asked` of its server."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body: else each answer waits for the acknowledgement of its head

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "toy", "object": "model", "owned_by": "nobody"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = " ".join(part["text"] for part in parts if part["type"] == "text")
        self.server.asked.append((text, len(parts)))  # type: ignore[attr-defined]
        answer = REFUSAL if text.split()[0] == "Share" else ANSWER
        message = {"role": "assistant", "content": answer}
        self._send({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _send(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    made.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_served_model_is_audited_by_its_texts(tmp_path, server, capsys):
    path = write(tmp_path / "a.csv", ROWS)
    options = ("--server", url(server), "--words", "What,Share,List", "--attribute", "2", "--out", tmp_path / "run")
    assert call("audit", "model", "toy", path, *OPTIONS, *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The model only returns text, so every word was generated." in printed
    assert "“Share” at the opening makes this model refuse" in printed
    found = json.loads((tmp_path / "run" / "audit_model.json").read_text())
    assert (found["model"], found["harmful"], found["harmless"]) == ("toy", 12, 12)
    cues = {one["word"] for one in found["records"] if one["reading"] == "refusal cue" and not one["harmful"]}
    assert cues == {"Share"}
    assert not found["scoring"]["used"]
    # Occlusion by asking: without the opening word, or with another one, the refusal is gone; any other word may go.
    for one in found["attributions"]:
        removed = [word["removed_refused"] for word in one["words"]]
        assert removed == [0.0, *[1.0] * (len(removed) - 1)]
        assert one["score"] is None
        assert "nothing but its text" in one["gradient_note"]
    assert all(parts == 1 for _, parts in server.asked)  # text alone, no picture
    asked = len(server.asked)
    assert call("audit", "model", "toy", path, *OPTIONS, *options) == 0
    assert len(server.asked) == asked


def test_a_served_model_loads_none_here(tmp_path, server):
    path = write(tmp_path / "a.csv", ROWS)
    arguments = ["audit", "model", "toy", str(path), *OPTIONS, "--server", url(server), "--words", "What,Share",
                 "--out", str(tmp_path / "run")]  # fmt: skip
    code = (
        "import sys; from unmirage import cli\n"
        f"code = cli.run(lambda: cli.app({arguments!r}, standalone_mode=False))\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'accelerate'} & set(sys.modules)), 'CODE', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=True
    )
    assert "HEAVY [] CODE 0" in done.stdout


def test_pictures_of_a_table_are_sent_and_occluded(tmp_path, server):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "pot.png")
    rows = [row | {"picture": "pot.png" if i < 4 else ""} for i, row in enumerate(ROWS)]
    path = write(tmp_path / "a.jsonl", rows)
    options = ("--server", url(server), "--words", "What", "--image", "picture", "--attribute", "1")
    assert call("audit", "model", "toy", path, *OPTIONS, *options, "--out", tmp_path / "run") == 0
    assert {parts for _, parts in server.asked} == {1, 2}


def test_no_server_is_one_sentence(tmp_path, capsys):
    path = write(tmp_path / "a.csv", ROWS)
    options = ("--server", "http://127.0.0.1:9", "--words", "What", "--out", tmp_path / "run")
    assert call("audit", "model", "toy", path, *OPTIONS, *options) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("judge", ["rules", "keywords", "vlguard"])
def test_any_judge_by_name(tmp_path, server, judge):
    path = write(tmp_path / "a.csv", ROWS)
    options = ("--server", url(server), "--words", "Share", "--judge", judge, "--attribute", "0")
    assert call("audit", "model", "toy", path, *OPTIONS, *options, "--out", tmp_path / "run") == 0
    found = json.loads((tmp_path / "run" / "audit_model.json").read_text())
    assert {one["reading"] for one in found["records"] if one["word"] == "Share" and not one["harmful"]} == {
        "refusal cue"
    }


def test_an_unknown_judge_is_named(tmp_path, server, capsys):
    path = write(tmp_path / "a.csv", ROWS)
    options = ("--server", url(server), "--judge", "nobody", "--out", tmp_path / "run")
    assert call("audit", "model", "toy", path, *OPTIONS, *options) == 2
    assert "no judge is called 'nobody'" in capsys.readouterr().err


def test_text_alone_is_asked_of_a_model_in_this_process(tmp_path, tiny_folder, capsys):
    path = write(tmp_path / "a.parquet", ROWS)
    options = ("--words", "What", "--max-new-tokens", "2", "--sample", "2", "--attribute", "0")
    assert call("audit", "model", tiny_folder, path, *OPTIONS, *options, "--out", tmp_path / "run") == 0
    found = json.loads((tmp_path / "run" / "audit_model.json").read_text())
    assert (found["harmful"], found["harmless"]) == (2, 2)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "saved"])
def test_questions_of_every_table(tmp_path, name):
    asked = questions_of(Source([write(tmp_path / name, ROWS)], Columns("prompt", label="sort", id="nr")))
    assert [query.id for query in asked.queries] == [row["nr"] for row in ROWS]
    assert [query.harmful for query in asked.queries] == [row["sort"] == "unsafe" for row in ROWS]
    assert all(query.image is None for query in asked.queries)
    assert asked.warnings == []


def test_what_cannot_be_asked_is_counted_and_left_out(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "here.png")
    extra = [
        {"nr": "q0", "prompt": "Name it now", "sort": "safe", "picture": "here.png"},
        {"nr": "x", "prompt": "Name it now", "sort": "", "picture": ""},
        {"nr": "y", "prompt": "N/A", "sort": "safe", "picture": ""},
        {"nr": "z", "prompt": "Name it now", "sort": "safe", "picture": "gone.png"},
    ]
    path = write(tmp_path / "a.csv", [*(row | {"picture": ""} for row in ROWS), *extra])
    asked = questions_of(Source([path], Columns("prompt", label="sort", id="nr", image="picture")))
    assert len(asked.queries) == 25
    assert (asked.queries[-1].id, asked.queries[-1].image) == ("q0#2", tmp_path / "here.png")
    told = " ".join(asked.warnings)
    for what in ("1 rows have no label", "1 rows name an image that is not there", "1 placeholder-question"):
        assert what in told


def test_a_table_without_labels_cannot_be_asked(tmp_path):
    with pytest.raises(UserError, match="--label the column that says which questions are harmful"):
        questions_of(Source([write(tmp_path / "a.csv", ROWS)], Columns("prompt")))


def test_the_columns_of_the_data_are_named_apart(tmp_path, server, capsys):
    path, data = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", ROWS * 2)
    options = ("--server", url(server), "--words", "Share,What", "--attribute", "0", "--data", data)
    assert call("audit", "model", "toy", path, *OPTIONS, *options, "--out", tmp_path / "run") == 2
    assert "name the column of its questions with --data-question" in capsys.readouterr().err
    named = ("--data-question", "prompt", "--data-label", "sort")
    assert call("audit", "model", "toy", path, *OPTIONS, *options, *named, "--out", tmp_path / "run") == 0
    found = json.loads((tmp_path / "run" / "audit_model.json").read_text())
    rates = {one["word"]: (one["data_n"], one["data_rate"]) for one in found["side_by_side"][0]["points"]}
    assert rates == {"Share": (24, 1.0), "What": (24, 0.0)}


def test_columns_of_questions_that_have_none_are_refused(tmp_path, capsys):
    rows = [{"id": 1, "safe": False, "instr-resp": [{"instruction": "Share it", "response": "No."}]}]
    path = write(tmp_path / "a.json", rows)
    assert call("audit", "model", "toy", path, "--server", "http://127.0.0.1:9", "--label", "sort", "--out", "x") == 2
    assert "read as vlguard, which has no columns to name; leave out --label, or" in capsys.readouterr().err


def test_columns_of_data_that_have_none_or_are_not_there_are_refused(tmp_path, server, capsys):
    path, audit = write(tmp_path / "a.csv", ROWS), tmp_path / "audit.json"
    audit.write_text(json.dumps({"base_rate": 0.5, "cues": []}))
    options = (*OPTIONS, "--server", url(server), "--data-question", "prompt", "--out", tmp_path / "run")
    assert call("audit", "model", "toy", path, *options) == 2
    assert "--data-question: columns of --data, which is not given; add it, or leave" in capsys.readouterr().err
    assert call("audit", "model", "toy", path, *options, "--data", audit) == 2
    assert f"{audit} is an audit, which has no columns; leave out --data-question." in capsys.readouterr().err
