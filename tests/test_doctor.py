"""`unmirage doctor`: what it says of packages, machine, model and server, and when backends agree."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from chat_server import Reaction, completion, free_port, question, serving
from PIL import Image

from unmirage import cli
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply, Settled
from unmirage.doctor import Section, compare, machine, packages
from unmirage.doctor.packages import check_packages, numbers
from unmirage.doctor.prompts import SHIPPED, shipped_prompts, spread
from unmirage.doctor.subjects import check_model
from unmirage.errors import UserError
from unmirage.schema import Query


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def doctor(*words: object) -> int:
    command = ["doctor", *map(str, words)]
    return cli.run(lambda: cli.app(command, prog_name="unmirage", standalone_mode=False))


def lines(section: Section) -> list[str]:
    return [" ".join(line.split()) for line in section.lines()]


# ---- packages and machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "release"),
    [("2.13.0+cpu", (2, 13)), ("2.6", (2, 6)), ("0.33.0.dev1", (0, 33)), ("5.21.1rc1", (5, 21, 1)), ("x", ())],
)
def test_versions_are_compared_by_number(version: str, release: tuple[int, ...]) -> None:
    assert numbers(version) == release
    assert numbers("2.13") > numbers("2.9.1")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, as the checks see it."""
    there = {
        "torch": "2.13.0+cpu", "transformers": "5.23.0", "accelerate": "1.15.0", "httpx": "0.28.1", "peft": "0.21.2",
    }  # fmt: skip
    needed = ["torch>=2.6", "transformers>=5.21", "accelerate>=1.15", "httpx>=0.27", 'peft>=0.21; extra == "lora"']
    needed += ['bitsandbytes>=0.50; extra == "qlora"', 'transformers[serving]>=5.0; extra == "dev"']
    monkeypatch.setattr(packages, "version_of", there.get)
    monkeypatch.setattr("importlib.metadata.requires", lambda _: needed)
    return there


def test_what_is_missing_is_a_note_where_it_is_optional(installed: dict[str, str]) -> None:
    section = check_packages()
    assert section.is_well
    said = lines(section)
    assert "ok torch 2.13.0+cpu (at least 2.6; models)" in said
    assert "ok transformers 5.23.0 (at least 5.21; models)" in said  # what everybody needs, not what an extra does
    assert "note bitsandbytes is not installed: training in 4 bits; unmirage[qlora]" in said
    assert "note vllm is not installed: the backend vllm; unmirage[vllm]" in said
    assert any(line.startswith("note torchvision is not installed") for line in said)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("transformers", "5.20.3", "problem transformers 5.20.3 is too old: 5.21 or newer is needed (models)"),
        ("peft", "0.9", "problem peft 0.9 is too old: 0.21 or newer is needed (LoRA adapters; unmirage[lora])"),
        ("httpx", None, "problem httpx is not installed: servers"),
    ],
)
def test_what_is_too_old_or_missing_is_a_problem(
    name: str, version: str | None, said: str, installed: dict[str, str]
) -> None:
    installed.pop(name)
    installed |= {name: version} if version else {}
    section = check_packages()
    assert not section.is_well
    assert said in lines(section)


def test_a_torchvision_for_another_torch_is_a_problem(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed["torchvision"] = "0.28.0"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist\\nmore")')
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    problem = "problem torchvision 0.28.0 cannot be imported (operator torchvision::nms does not exist);"
    assert problem in lines(check_packages())
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    assert check_packages().is_well


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    gpu = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        mem_get_info=lambda _: (60 * 2**30, 80 * 2**30),
        get_device_capability=lambda _: (7, 5),
        get_device_name=lambda _: "Example GPU",
    )
    monkeypatch.setattr(torch, "cuda", gpu)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    said = lines(machine.check_machine(tmp_path))
    gpu_line = "ok cuda:0: Example GPU, 60.0 GiB of 80.0 GiB memory free, compute capability 7.5, no bfloat16"
    assert gpu_line in said
    assert f"note disk: 1.0 GiB free in {tmp_path}" in said
    monkeypatch.setattr(gpu, "is_available", lambda: False)
    assert any(line.startswith("note no GPU: ") for line in lines(machine.check_machine(tmp_path)))


# ---- comparing -----------------------------------------------------------------------------------------------------


class Says:
    """A backend with given replies, in batches of three."""

    identity: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, replies: Sequence[Reply | str]) -> None:
        self.replies = [Reply(one) if isinstance(one, str) else one for one in replies]

    def key(self, prompt: Prompt) -> str:
        return prompt.question

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        for start in range(0, len(self.replies), 3):
            yield self.replies[start : start + 3]


def compared(first: Sequence[Reply | str], second: Sequence[Reply | str], tolerance: float = 0.1) -> Any:
    prompts = [Prompt(f"q{n}", f"Question {n}?", Path("p.png") if n % 2 else None) for n in range(len(first))]
    return compare(Says(first), Says(second), prompts, ("here", "there"), tolerance)


def test_equal_answers_agree() -> None:
    found = compared(["a", "b", "c"], ["a", "b", "c"], tolerance=0)
    assert found.agrees
    assert lines(found.section()) == [
        "here against there",
        "note 3 of 3 answers are equal: 1 of 1 with a picture, 2 of 2 without",
        "ok they agree: what one answers stands for the other",
    ]


@pytest.mark.parametrize(("different", "agrees"), [(2, True), (3, False)])
def test_so_many_may_differ_and_no_more(different: int, agrees: bool) -> None:
    first = ["the same words"] * 20
    second = ["the same things"] * different + first[different:]
    found = compared(first, second)
    section = found.section()
    assert (found.agrees, section.is_well) == (agrees, agrees)
    said = lines(section)
    assert f"note {20 - different} of 20 answers are equal" in said[1]
    assert said[2:5] == [
        "note first difference: word 3, answer to q0 (without a picture), 'Question 0?'",
        "here 'the same words'",
        "there 'the same things'",
    ]
    assert "at most 10% may differ" in said[5]


def test_an_answer_that_is_missing_is_never_tolerated() -> None:
    found = compared(["a"] * 20, [*["a"] * 19, Reply("", "HTTP 500")])
    assert not found.agrees
    assert "problem there did not answer 1 of 20; the first time: HTTP 500" in lines(found.section())
    both = compared([Reply("", "x")], [Reply("", "x")], tolerance=1)
    assert not both.agrees, "two failures are no agreement"


@pytest.mark.parametrize(
    ("one", "other", "word"), [("a b", "a b", 0), ("a b", "a", 2), ("", "a", 1), ("a b c", "a x c", 2)]
)
def test_the_first_word_that_differs_is_told(one: str, other: str, word: int) -> None:
    assert compared([one], [other]).pairs[0].word == word


def test_too_few_replies_are_an_error() -> None:
    with pytest.raises(UserError, match="there gave 1 replies to 2 prompts"):
        compared(["a", "b"], ["a"])


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_shipped_prompts_have_pictures_that_differ(tmp_path: Path) -> None:
    prompts = shipped_prompts(tmp_path)
    assert (len(prompts), SHIPPED) == (20, 20)
    assert len({prompt.question for prompt in prompts}) == 20
    pictures = [prompt.image for prompt in prompts if prompt.image]
    assert len(pictures) == 10
    assert len({Image.open(picture).tobytes() for picture in pictures}) == 10
    for few in (2, 7):
        without = [prompt.image is None for prompt in shipped_prompts(tmp_path, few)]
        assert without == [False] * (few - few // 2) + [True] * (few // 2), "one change of sort: two batches"


def test_prompts_come_from_all_over_the_data() -> None:
    rows = [Query(id=str(n), question=f"Q{n}", harmful=False) for n in range(40)]
    assert [prompt.query for prompt in spread(rows, 4)] == ["0", "10", "20", "30"]
    assert [prompt.query for prompt in spread(rows[:3], 20)] == ["0", "1", "2"]
    assert spread([], 20) == []
    shown = [row.model_copy(update={"image": Path("p.png")}) if int(row.id) % 20 else row for row in rows]
    assert [prompt.query for prompt in spread(shown, 4)] == ["10", "30", "0", "20"]


# ---- a model and servers -------------------------------------------------------------------------------------------


def test_a_model_whose_answers_depend_on_the_batch_is_noted(tiny_folder: Path, pictures: list[Path]) -> None:
    class Shifting(HuggingFaceBackend):
        def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
            yield [Reply(f"{prompt.question} {len(prompts)}") for prompt in prompts]

    prompts = [Prompt(str(n), f"q{n}", picture) for n, picture in enumerate(pictures)]
    said = lines(check_model(Shifting(tiny_folder), prompts))
    assert "note with a picture: 0 of 4 answers are the same asked at once and one by one;" in said


def test_without_options_packages_and_machine_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor()
    told = capsys.readouterr().out
    assert told.startswith("Packages\n  ok       python 3.")
    assert "\nMachine\n  ok       cpu: " in told
    assert "Model" not in told
    assert code == int("\n  problem " in told)


def scripted(own: dict[str, str], wrong: int) -> Any:
    """Answers as the model does, but for the first so many questions."""
    different = set(list(own)[:wrong])

    def script(body: dict[str, Any], _attempt: int) -> Reaction:
        text = question(body)
        return Reaction(body=completion("something else" if text in different else own.get(text, "?")))

    return script


@pytest.fixture(scope="module")
def own(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the tiny model answers to the shipped prompts."""
    prompts = shipped_prompts(tmp_path_factory.mktemp("drawn"))
    backend = HuggingFaceBackend(tiny_folder, batch_size=20, max_new_tokens=6)
    replies = [reply for batch in backend.answer(prompts) for reply in batch]
    return {prompt.question: reply.text for prompt, reply in zip(prompts, replies, strict=True)}


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (2, 0), (3, 1)])
def test_a_model_is_compared_with_a_server(
    wrong: int, code: int, own: dict[str, str], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(scripted(own, wrong)) as (url, fake):
        assert doctor("--model", tiny_folder, "--server", url, "--max-new-tokens", 6) == code
    told = capsys.readouterr().out
    assert "LlavaForConditionalGeneration: " in told
    assert "with a picture: 4 of 4 answers are the same asked at once and one by one" in told
    assert "it lists 1 models, m among them" in told
    assert f"{20 - wrong} of 20 answers are equal: " in told
    assert ("they do not agree (at most 10% may differ)" in told) == bool(code)
    assert told.rstrip().endswith("Problems: hugging_face against server" if code else "No problems.")
    assert {body["max_tokens"] for body in fake.bodies} == {6}


def test_the_tolerance_and_the_prompts_can_be_chosen(
    own: dict[str, str], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", tiny_folder, "--max-new-tokens", 6, "--prompts", 4)
    with serving(scripted(own, 1)) as (url, _):
        assert doctor(*options, "--server", url, "--tolerance", 0.25) == 0
        assert doctor(*options, "--server", url, "--tolerance", 0.2) == 1
    assert "3 of 4 answers are equal" in capsys.readouterr().out


def test_prompts_can_come_from_data(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "a.png")
    said = [[{"from": "human", "value": f"<image>\nName {n}"}, {"from": "gpt", "value": "x"}] for n in range(3)]
    rows = [{"id": str(n), "image": "a.png", "conversations": turns} for n, turns in enumerate(said)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    options = ("--data", tmp_path / "data.json", "--format", "llava", "--max-new-tokens", 3)
    with serving() as (url, fake):
        assert doctor("--server", url, *options) == 0
        assert doctor("--model", tiny_folder, "--server", url, *options) == 1
    assert set(fake.asked) == {"Name 0", "Name 1", "Name 2"}
    assert "0 of 3 answers are equal" in capsys.readouterr().out


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: Reaction(body=completion(""))) as (url, _):
        assert doctor("--model", tmp_path / "nowhere", "--server", url) == 1
    told = capsys.readouterr().out
    assert "nowhere does not exist; give the folder of a Hugging Face checkpoint." in told
    assert "problem  with a picture: the answer is empty" in told
    assert "not compared, because of the problems above" in told
    assert f"Problems: Model {tmp_path / 'nowhere'}; Server {url}/v1" in told
    assert doctor("--server", f"127.0.0.1:{free_port()}", "--served-name", "m") == 1
    assert "there is no connection to the server" in capsys.readouterr().out


def test_a_broken_processor_is_told(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert doctor("--model", tmp_path / "model") == 1
    assert "the processor has no chat template" in capsys.readouterr().out


def test_which_of_several_models_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(models=["one", "two"]) as (url, fake):
        assert doctor("--server", url) == 1
        assert "lists one, two; say with --served-name which one is meant" in capsys.readouterr().out
        assert doctor("--server", url, "--served-name", "two") == 0
        assert {body["model"] for body in fake.bodies} == {"two"}
        assert doctor("--server", url, "--served-name", "three") == 0
        assert "it lists one, two, not three" in capsys.readouterr().out


def test_a_filter_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: Reaction(body=completion(None, "content_filter"))) as (url, _):
        assert doctor("--server", url) == 0
    assert "a content filter held the answer to a harmless question back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--vllm",), "--vllm needs --model"), (("--served-name", "m"), "--served-name needs --server")],
)
def test_options_that_miss_another_are_refused(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(*options) == 2
    assert said in capsys.readouterr().err
