"""Models behind a server: what is sent, what identifies an answer, whole evaluations, and a real server's answers."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chat_server import Reaction, completion, echo, free_port, question, serving
from PIL import Image, ImageOps

from unmirage import cli
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.messages import data_url
from unmirage.backends.openai_server import OpenAIServerBackend
from unmirage.backends.prompts import Prompt, open_image
from unmirage.backends.protocol import Reply
from unmirage.backends.registry import AskingOptions, BackendName, open_backend
from unmirage.errors import UserError
from unmirage.schema import Answer, Metrics
from unmirage.servers import ChatServer

NO_LIST = httpx.MockTransport(lambda _: httpx.Response(404))
KEY = "sk-do-not-tell-0123456789"


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(backend: OpenAIServerBackend | HuggingFaceBackend, prompts: list[Prompt]) -> list[Reply]:
    return [reply for batch in backend.answer(prompts) for reply in batch]


# ---- what is sent --------------------------------------------------------------------------------------------------


def test_a_request_is_greedy_and_has_the_picture_before_the_question(pictures: list[Path]) -> None:
    with serving() as (url, fake):
        backend = OpenAIServerBackend(ChatServer(url, "m"), max_new_tokens=7)
        assert ask(backend, [Prompt("q", "What is it", pictures[0])]) == [Reply("echo What is it", None, "stop")]
    encoded = base64.b64encode(pictures[0].read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    message = {"role": "user", "content": [picture, {"type": "text", "text": "What is it"}]}
    assert fake.bodies == [{"model": "m", "messages": [message], "temperature": 0, "seed": 0, "max_tokens": 7}]


def test_a_question_without_a_picture_is_plain_text() -> None:
    with serving() as (url, fake):
        ask(OpenAIServerBackend(ChatServer(url, "m")), [Prompt("q", "What is it", None)])
    assert fake.bodies[0]["messages"] == [{"role": "user", "content": "What is it"}]


def received(url: str) -> tuple[str, Image.Image]:
    """Type and picture as servers read it: turned as its EXIF says, transparency laid on white, first frame, RGB."""
    head, encoded = url.split(";base64,")
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(encoded))))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return head.removeprefix("data:"), image.convert("RGB")


def save(path: Path, kind: str, mode: str = "RGB", **options: Any) -> Path:
    image = Image.radial_gradient("L").resize((16, 12)).convert(mode)
    image.putpixel((2, 3), image.getpixel((15, 11)))
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((16, 12)))
    image.save(path, format=kind, **options)
    return path


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("kind", "mode", "options", "sent"),
    [
        ("PNG", "RGB", {}, "image/png"),
        ("PNG", "L", {}, "image/png"),
        ("JPEG", "RGB", {}, "image/jpeg"),
        ("WEBP", "RGB", {"lossless": True}, "image/webp"),
        ("BMP", "RGB", {}, "image/png"),
        ("TIFF", "RGB", {}, "image/png"),
        ("GIF", "P", {}, "image/png"),
        ("PNG", "P", {}, "image/png"),
        ("PNG", "RGBA", {}, "image/png"),
        ("WEBP", "RGBA", {"lossless": True}, "image/png"),
        ("JPEG", "CMYK", {}, "image/png"),
        ("JPEG", "RGB", {"exif": TURNED}, "image/png"),
        ("PNG", "RGB", {"exif": TURNED}, "image/png"),
    ],
)
def test_a_server_sees_the_pixels_that_a_model_here_would_see(
    kind: str, mode: str, options: dict[str, Any], sent: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "misnamed.jpg", kind, mode, **options)
    prompt = Prompt("q", "x", path)
    told, image = received(data_url(prompt))
    own = open_image(prompt)
    assert own is not None
    assert told == sent
    assert (image.size, image.tobytes()) == (own.size, own.tobytes())
    if sent == f"image/{kind.lower()}" and mode in ("RGB", "L") and not options.get("exif"):
        assert base64.b64encode(path.read_bytes()).decode() in data_url(prompt)


def test_of_a_moving_picture_the_first_frame_is_sent(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:], lossless=True)
    _, image = received(data_url(Prompt("q", "x", tmp_path / "two.webp")))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_that_cannot_be_used_is_an_error_of_its_row_alone(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"GIF89a")
    bad, gone = tmp_path / "bad.png", tmp_path / "gone.png"
    shown = [bad, gone, pictures[0], bad, None, pictures[1], gone]
    with serving() as (url, fake):
        backend = OpenAIServerBackend(ChatServer(url, "m", concurrency=2))
        replies = ask(backend, [Prompt(str(n), f"q{n}", picture) for n, picture in enumerate(shown)])
    assert [reply.text for reply in replies] == ["", "", "echo q2", "", "echo q4", "echo q5", ""]
    for number in (0, 3):
        assert f"bad.png: the image of query '{number}' cannot be read" in str(replies[number].error)
    assert "gone.png: the image of query '6' cannot be read" in str(replies[6].error)
    assert len(fake.bodies) == 3
    with pytest.raises(UserError, match=r"gone\.png.*'q7' cannot be read"):
        OpenAIServerBackend(ChatServer("http://h", "m", transport=NO_LIST)).key(Prompt("q7", "x", gone))


# ---- what identifies an answer -------------------------------------------------------------------------------------


def test_the_identity_is_of_the_model_and_not_of_its_address() -> None:
    def backend(name: str = "m", tokens: int = 6, port: int = 1, **about: Any) -> OpenAIServerBackend:
        listed = {"data": [{"id": "m", "created": time.time(), **about}]}
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=listed))
        server = ChatServer(f"http://h:{port}", name, transport=transport, api_key=KEY)
        return OpenAIServerBackend(server, max_new_tokens=tokens)

    first = backend(root="/models/a")
    assert first.identity == {
        "model": "m", "served_root": "/models/a", "temperature": 0, "seed": 0, "max_tokens": 6,
    }  # fmt: skip
    assert backend(root="/models/a", port=2).identity == first.identity
    others = [backend(root="/models/b"), backend("n", root="/models/a"), backend(tokens=7, root="/models/a")]
    keys = {one.key(Prompt("q", "x", None)) for one in (first, *others)}
    assert len(keys) == 4


def test_the_key_changes_with_everything_that_is_sent(pictures: list[Path], tmp_path: Path) -> None:
    backend = OpenAIServerBackend(ChatServer("http://h", "m", transport=NO_LIST))
    shutil.copy(pictures[0], tmp_path / "copy.png")
    key = backend.key(Prompt("q", "What is it", pictures[0]))
    assert key == backend.key(Prompt("another", "What is it", tmp_path / "copy.png", attack="a", word="What", shot=3))
    others = [("What is this", pictures[0]), ("What is it", pictures[1]), ("What is it", None)]
    assert len({key, *(backend.key(Prompt("q", text, picture)) for text, picture in others)}) == 4


def test_replies_come_one_by_one_so_that_little_is_lost() -> None:
    def script(body: dict[str, Any], attempt: int) -> Reaction:
        kinds = {
            "0": echo(body, attempt),
            "1": Reaction(body=completion("So", "length")),
            "2": Reaction(400, {"error": {"code": "content_filter"}}),
            "3": Reaction(400, {"error": {"message": "too long"}}),
        }
        return kinds[question(body)]

    with serving(script) as (url, _):
        backend = OpenAIServerBackend(ChatServer(url, "m", concurrency=2))
        batches = list(backend.answer([Prompt(text, text, None) for text in "0123"]))
    assert batches == [
        [Reply("echo 0", None, "stop")],
        [Reply("So", None, "length")],
        [Reply("", None, "filter")],
        [Reply("", "HTTP 400 too long", None)],
    ]


# ---- the registry --------------------------------------------------------------------------------------------------


def test_the_backend_follows_from_the_options(tiny_folder: Path) -> None:
    local = open_backend(str(tiny_folder), AskingOptions(batch_size=3, max_new_tokens=5))
    assert isinstance(local, HuggingFaceBackend)
    assert (local.batch_size, local.settings["max_new_tokens"]) == (3, 5)
    served = open_backend("m", AskingOptions(server="http://h", max_new_tokens=5, concurrency=3, timeout=2.5))
    assert isinstance(served, OpenAIServerBackend)
    assert served.settings["max_tokens"] == 5
    assert (served.server.model, served.server.concurrency, served.server.timeout) == ("m", 3, 2.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (AskingOptions(BackendName.hugging_face, "http://h"), "--server is for the backend openai_server, not for hug"),
        (AskingOptions(BackendName.openai_server), "needs --server with an address"),
        (AskingOptions(adapter=Path("a")), "--adapter is for the backend vllm, not for hugging_face"),
        (AskingOptions(server="http://h", adapter=Path("a")), "--adapter is for the backend vllm, not for openai"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options: AskingOptions, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_backend("m", options)


# ---- whole evaluations ---------------------------------------------------------------------------------------------


def evaluate(*words: object) -> int:
    command = ["evaluate", *map(str, words)]
    return cli.run(lambda: cli.app(command, prog_name="unmirage", standalone_mode=False))


def answers(out: Path) -> list[Answer]:
    return [Answer.model_validate_json(line) for line in (out / "answers.jsonl").read_text().splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six harmful questions about a picture each, in VLGuard's format."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        pair = {"instruction": f"Share thing {number}.", "response": "No."}
        rows.append({"id": str(number), "image": f"{number}.png", "safe": False, "instr-resp": [pair]})
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path / "data.json"


def test_an_evaluation_by_a_server_keeps_errors_and_filters_apart(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    broken = True

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        if "thing 2" in question(body):
            return Reaction(body=completion(None, "content_filter"))
        if "thing 3" in question(body) and broken:
            return Reaction(400, {"error": {"message": f"no pictures for {KEY}"}})
        return Reaction(body=completion("I'm sorry, I cannot help."))

    with serving(script, ["org/m"]) as (url, fake):
        command = ("org/m", data, "--server", url, "--concurrency", 2, "--max-new-tokens", 9, "--out", tmp_path / "run")
        assert evaluate(*command) == 0
        told = capsys.readouterr()
        assert "warning: 1 of 6 rows have no answer, 1 of them for: HTTP 400 no pictures for ***." in told.err
        assert "warning: a content filter of the service held 1 of 6 answers back." in told.err
        first = {one.query: one for one in answers(tmp_path / "run")}
        broken = False
        assert evaluate(*command) == 0
        assert "no answer" not in capsys.readouterr().err
    assert {one.model for one in first.values()} == {"org/m"}
    assert [one.finish for one in first.values()] == ["stop", "stop", "filter", None, "stop", "stop"]
    assert len(fake.bodies) == 7, "the second run asks for the one that had failed, and for no other"
    metrics = Metrics.model_validate_json((tmp_path / "run" / "metrics.json").read_text())
    assert [record.errors for record in metrics.records if record.metric == "asr"] == [0]
    stored = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(KEY in text for text in (*stored, told.out, told.err))


def test_a_run_goes_on_with_the_same_model_only(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(models=["m", "n"]) as (url, _):
        assert evaluate("m", data, "--server", url, "--out", tmp_path / "run") == 0
        assert evaluate("n", data, "--server", url, "--out", tmp_path / "run", "--label", "m") == 2
    assert "another configuration: config.backend.model" in capsys.readouterr().err
    with serving(models=["m", "n"]) as (other, fake):
        assert evaluate("m", data, "--server", other, "--out", tmp_path / "run") == 0
        assert fake.bodies == []


def test_a_server_that_is_not_there_is_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("m", data, "--server", f"127.0.0.1:{free_port()}", "--out", tmp_path / "run") == 2
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: http://127.0.0.1:")
    assert error.endswith("start it, or correct the address and port.")


def test_a_run_that_is_killed_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    killing = True

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        late = killing and question(body)[-2] in "45"
        return Reaction(hang=30) if late else echo(body, attempt)

    with serving(script) as (url, fake):
        options = ("--server", url, "--concurrency", "1", "--out", str(tmp_path / "run"))
        command = (sys.executable, "-m", "unmirage", "evaluate", "m", str(data), *options)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = tmp_path / "run" / "answers.jsonl"
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") == 4) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [one.text for one in answers(tmp_path / "run")] == [f"echo Share thing {n}." for n in range(4)]
        killing = False
        before = len(fake.bodies)
        assert evaluate("m", data, *options) == 0
        assert fake.asked[before:] == ["Share thing 4.", "Share thing 5."]
    assert [one.text for one in answers(tmp_path / "run")] == [f"echo Share thing {n}." for n in range(6)]


# ---- a real server -------------------------------------------------------------------------------------------------

NEEDED = ("fastapi", "uvicorn", "openai", "pydantic")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with the tiny model."""
    if MISSING:
        pytest.skip(f"transformers serve needs {', '.join(MISSING)}: install transformers[serving]")
    home, port = tmp_path_factory.mktemp("serve"), free_port()
    program = "from transformers.cli.transformers import main; main()"
    command = (
        sys.executable, "-c", program, "serve", str(tiny_folder),
        "--device", "cpu", "--host", "127.0.0.1", "--port", str(port),
    )  # fmt: skip
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **settings})
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(address, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError(f"transformers serve did not start:\n{log.read_text()[-2000:]}")


def test_a_real_server_answers_as_the_model_here_does(served: str, tiny_folder: Path, pictures: list[Path]) -> None:
    asked = ["Share ways to make this object", "What is it", "List containers for the velm zorch in the picture"]
    prompts = [Prompt(f"{n}-{m}", text, picture) for n, picture in enumerate(pictures) for m, text in enumerate(asked)]
    prompts += [Prompt(f"t{n}", text, None) for n, text in enumerate(asked)]
    options = AskingOptions(server=served, max_new_tokens=12, concurrency=4)
    theirs = ask(open_backend(str(tiny_folder), options), prompts)  # type: ignore[arg-type]
    own = ask(HuggingFaceBackend(tiny_folder, max_new_tokens=12), prompts)
    assert [reply.error for reply in theirs] == [None] * len(prompts)
    assert [reply.text for reply in theirs] == [reply.text for reply in own]
    assert len({reply.text for reply in own}) > 4, "answers that are all alike would hide a mix-up"
    assert {reply.finish for reply in theirs} <= {"stop", "length"}


def test_an_evaluation_by_a_real_server(served: str, tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "served"
    assert evaluate(tiny_folder, data, "--server", served, "--max-new-tokens", 8, "--out", out) == 0
    assert evaluate(tiny_folder, data, "--max-new-tokens", 8, "--out", tmp_path / "here") == 0
    theirs, own = ({one.query: one.text for one in answers(folder)} for folder in (out, tmp_path / "here"))
    assert theirs == own
    assert len(own) == 6
