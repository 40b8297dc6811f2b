"""vLLM's backend against the recorded contract of its offline interface, as of 0.11 to 0.33.

The stand-in below takes what `vllm.LLM`, `LLM.chat`, `SamplingParams` and `LoRARequest` take, and nothing else, and
answers in their form. Where vLLM is installed its own signatures are compared with what is recorded here.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from unmirage import cli
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply
from unmirage.backends.registry import AskingOptions, BackendName, open_backend
from unmirage.backends.vllm import VllmBackend, check_adapter
from unmirage.errors import UserError

INSTALLED = importlib.util.find_spec("vllm") is not None
DECODER = r".*language_model.*\.(q_proj|v_proj)"


@dataclass(frozen=True)
class SamplingParams:
    temperature: float
    max_tokens: int
    seed: int | None = None


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class VLLMClientError(Exception):
    """What later versions raise for a request that they do not take; earlier ones raise ValueError."""


class VLLMValidationError(VLLMClientError):
    pass


class LLM:
    """Answers "echo <question>" and notes how it was made and asked."""

    made: ClassVar[list[LLM]] = []
    rejection: type[Exception] = ValueError

    def __init__(
        self,
        model: str,
        *,
        seed: int = 0,
        limit_mm_per_prompt: dict[str, int] | None = None,
        enable_lora: bool = False,
        max_loras: int = 1,
        max_lora_rank: int = 16,
        tensor_parallel_size: int = 1,
    ) -> None:
        assert isinstance(model, str)
        assert enable_lora or max_lora_rank == 16
        self.model, self.seed, self.limit = model, seed, limit_mm_per_prompt
        self.lora, self.rank, self.parallel = enable_lora, max_lora_rank, tensor_parallel_size
        self.calls: list[SimpleNamespace] = []
        LLM.made.append(self)

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        sampling_params: SamplingParams | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[SimpleNamespace]:
        assert all(isinstance(conversation, list) for conversation in messages)
        assert isinstance(sampling_params, SamplingParams)
        assert use_tqdm is False
        assert lora_request is None or self.lora
        self.calls.append(SimpleNamespace(messages=messages, sampling=sampling_params, lora=lora_request))
        asked = [_question(conversation) for conversation in messages]
        if any("too long" in text for text in asked):
            raise self.rejection("The decoder prompt (length 9000) is longer than the model length of 4096.\nMore.")
        return [_output(text) for text in asked]


def _question(conversation: list[dict[str, Any]]) -> str:
    (message,) = conversation
    assert message["role"] == "user"
    content = message["content"]
    if isinstance(content, str):
        return content
    picture, text = content
    assert picture["type"] == "image_url"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["type"] == "text"
    return text["text"]


def _output(text: str) -> SimpleNamespace:
    finish = {"long": "length", "odd": "abort"}.get(text, "stop")
    return SimpleNamespace(outputs=[SimpleNamespace(text=f" echo {text}\n", finish_reason=finish)])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """The stand-in, in vLLM's place."""
    names = {"vllm": {"LLM": LLM, "SamplingParams": SamplingParams}, "vllm.lora": {}}
    for name, content in {**names, "vllm.lora.request": {"LoRARequest": LoRARequest}}.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    monkeypatch.setattr(LLM, "made", [])
    return LLM


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real LoRA adapters of the tiny model: on the language model, on the vision tower too, and with odd settings."""
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tmp_path_factory.mktemp("adapters")
    settings: dict[str, dict[str, Any]] = {
        "decoder": {"target_modules": DECODER, "r": 4},
        "wide": {"target_modules": DECODER, "r": 24},
        "bare": {"target_modules": ["q_proj", "v_proj"], "r": 4},
        "projector": {"target_modules": r".*multi_modal_projector\.linear_1", "r": 4},
        "head": {"target_modules": ["lm_head"], "r": 4},
        "dora": {"target_modules": DECODER, "r": 4, "use_dora": True},
        "ranks": {"target_modules": DECODER, "r": 4, "rank_pattern": {"v_proj": 2}},
        "alphas": {"target_modules": DECODER, "r": 4, "alpha_pattern": {"v_proj": 2}},
        "saved": {"target_modules": DECODER, "r": 4, "modules_to_save": ["multi_modal_projector"]},
    }
    for name, options in settings.items():
        model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
        get_peft_model(model, LoraConfig(**options)).save_pretrained(folder / name)
        AutoProcessor.from_pretrained(tiny_folder).save_pretrained(folder / name)
    return {name: folder / name for name in settings}


def ask(backend: VllmBackend, prompts: list[Prompt]) -> list[Reply]:
    return [reply for batch in backend.answer(prompts) for reply in batch]


def test_conversations_are_handed_over_in_batches_and_greedily(
    vllm: type[LLM], tiny_folder: Path, pictures: list[Path]
) -> None:
    backend = VllmBackend(tiny_folder, batch_size=2, max_new_tokens=9)
    prompts = [Prompt(str(n), f"q{n}", picture) for n, picture in enumerate([*pictures[:3], None, None])]
    assert vllm.made == [], "the engine takes the GPU's memory: it starts when something is asked"
    assert list(map(len, backend.answer(prompts))) == [2, 2, 1]
    assert ask(backend, prompts) == [Reply(f"echo q{n}", None, "stop") for n in range(5)]
    (engine,) = vllm.made
    assert (engine.model, engine.seed, engine.limit, engine.lora) == (str(tiny_folder), 0, {"image": 1}, False)
    assert {call.sampling for call in engine.calls} == {SamplingParams(0.0, 9, 0)}
    assert engine.calls[1].messages[1] == [{"role": "user", "content": "q3"}]


def test_how_an_answer_ended_is_told(vllm: type[LLM], tiny_folder: Path) -> None:
    prompts = [Prompt(text, text, None) for text in ("so", "long", "odd")]
    assert ask(VllmBackend(tiny_folder), prompts) == [
        Reply("echo so", None, "stop"),
        Reply("echo long", None, "length"),
        Reply("", "vLLM broke the answer off (abort)", None),
    ]


@pytest.mark.parametrize("rejection", [ValueError, VLLMValidationError])
def test_one_prompt_that_is_too_long_does_not_take_the_others_down(
    rejection: type[Exception], vllm: type[LLM], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "rejection", rejection)
    texts = ["a", "b", "c", "d", "too long", "e", "f", "g"]
    error = "vLLM: The decoder prompt (length 9000) is longer than the model length of 4096."
    assert ask(VllmBackend(tiny_folder), [Prompt(text, text, None) for text in texts]) == [
        *(Reply(f"echo {text}", None, "stop") for text in texts[:4]),
        Reply("", error, None),
        *(Reply(f"echo {text}", None, "stop") for text in texts[5:]),
    ]
    assert [len(call.messages) for call in vllm.made[0].calls] == [8, 4, 4, 2, 1, 1, 2]


def test_a_picture_that_cannot_be_used_is_an_error_of_its_row_alone(
    vllm: type[LLM], tiny_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"GIF89a")
    shown = [tmp_path / "bad.png", pictures[0], tmp_path / "bad.png"]
    backend = VllmBackend(tiny_folder, batch_size=2)
    replies = ask(backend, [Prompt(str(n), f"q{n}", picture) for n, picture in enumerate(shown)])
    assert [reply.text for reply in replies] == ["", "echo q1", ""]
    assert "bad.png: the image of query '2' cannot be read" in str(replies[2].error)
    assert [len(call.messages) for call in vllm.made[0].calls] == [1]


def test_an_engine_that_breaks_down_is_no_error_of_a_row(
    vllm: type[LLM], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "rejection", RuntimeError)
    with pytest.raises(RuntimeError, match="longer than"):
        ask(VllmBackend(tiny_folder), [Prompt("q", "too long", None)])


def test_too_few_outputs_are_an_error(vllm: type[LLM], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "chat", lambda *_args, **_options: [])
    with pytest.raises(UserError, match="vLLM answered 0 of 1 questions"):
        ask(VllmBackend(tiny_folder), [Prompt("q", "x", None)])


def test_an_engine_that_does_not_start_is_one_sentence(
    vllm: type[LLM], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    monkeypatch.setattr(LLM, "__init__", broken)
    with pytest.raises(UserError, match=r"cannot load the model \(RuntimeError: Engine core init.*failed\.\); what"):
        ask(VllmBackend(tiny_folder), [Prompt("q", "x", None)])


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed here")
def test_without_vllm_it_is_said_what_to_install(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"needs the package vllm, which is not installed; install unmirage\[vllm\]"):
        open_backend(str(tiny_folder), AskingOptions(BackendName.vllm))
    assert "vllm" not in sys.modules


@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed; its contract is the recorded one")
def test_the_record_agrees_with_what_is_installed() -> None:
    import vllm
    from vllm.lora.request import LoRARequest as Request

    for real, recorded in (
        (vllm.LLM.chat, LLM.chat),
        (vllm.SamplingParams, SamplingParams),
        (Request, LoRARequest),
    ):
        there = inspect.signature(real).parameters
        assert [name for name in inspect.signature(recorded).parameters if name not in there] == []


def test_the_key_is_of_weights_settings_question_and_picture(
    vllm: type[LLM], tiny_folder: Path, pictures: list[Path], adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt("q", "What is it", pictures[0])
    backend = VllmBackend(tiny_folder, max_new_tokens=6)
    assert VllmBackend(tiny_folder, max_new_tokens=6, batch_size=3).key(prompt) == backend.key(prompt)
    keys = {
        backend.key(prompt),
        backend.key(Prompt("q", "What is this", pictures[0])),
        backend.key(Prompt("q", "What is it", pictures[1])),
        backend.key(Prompt("q", "What is it", None)),
        VllmBackend(tiny_folder, max_new_tokens=7).key(prompt),
        VllmBackend(tiny_folder, max_new_tokens=6, engine={"tensor_parallel_size": 2}).key(prompt),
        VllmBackend(tiny_folder, max_new_tokens=6, adapter=adapters["decoder"]).key(prompt),
        VllmBackend(tiny_folder, max_new_tokens=6, adapter=adapters["wide"]).key(prompt),
    }
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    keys.add(VllmBackend(tiny_folder, max_new_tokens=6).key(prompt))
    assert len(keys) == 9
    assert vllm.made == [], "a run that has all its answers never starts the engine"


# ---- adapters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rank"), [("decoder", 8), ("wide", 32)])
def test_an_adapter_goes_with_every_request(
    name: str, rank: int, vllm: type[LLM], tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    """The engine's highest rank is the next one that vLLM allows."""
    options = AskingOptions(BackendName.vllm, adapter=adapters[name], max_new_tokens=5)
    backend = open_backend(str(tiny_folder), options)
    assert isinstance(backend, VllmBackend)
    assert ask(backend, [Prompt("q", "x", None)]) == [Reply("echo x", None, "stop")]
    (engine,) = vllm.made
    assert (engine.model, engine.lora, engine.rank) == (str(tiny_folder), True, rank)
    assert engine.calls[0].lora == LoRARequest("adapter", 1, str(adapters[name].resolve()))


def test_a_folder_that_is_an_adapter_is_asked_as_one(
    vllm: type[LLM], tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    backend = VllmBackend(adapters["decoder"])
    assert (backend.folder, backend.adapter) == (tiny_folder, adapters["decoder"])
    ask(backend, [Prompt("q", "x", None)])
    assert vllm.made[0].calls[0].lora is not None
    with pytest.raises(UserError, match="is an adapter itself"):
        VllmBackend(adapters["decoder"], adapter=adapters["wide"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "bare",
            r"\d+ of the \d+ modules .* the language model \(model.language_model\), such as .*vision_tower",
        ),
        (
            "projector",
            r"1 of the 1 modules .*such as model\.multi_modal_projector\.linear_1; vLLM applies none of them",
        ),
        ("head", r"2 of the 2 modules .*such as lm_head"),
        ("dora", r"an adapter with use_dora as it was trained"),
        ("ranks", r"an adapter with rank_pattern"),
        ("alphas", r"an adapter with alpha_pattern"),
        ("saved", r"an adapter with modules_to_save"),
    ],
)
def test_an_adapter_that_vllm_would_apply_in_part_is_refused(
    name: str, said: str, vllm: type[LLM], tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        VllmBackend(tiny_folder, adapter=adapters[name])
    assert str(caught.value).endswith("merge it into its model first, as docs/backends.md shows, and ask that one.")
    with pytest.raises(UserError, match=said):
        VllmBackend(adapters[name])


def test_an_adapter_is_merged_as_the_page_says(
    vllm: type[LLM], adapters: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    from unmirage.backends.checkpoint import load_checkpoint, revision

    model, processor = load_checkpoint(adapters["bare"])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    backend = VllmBackend(tmp_path)
    assert (backend.folder, backend.adapter) == (tmp_path, None)
    assert revision(tmp_path) != revision(tiny_folder)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3", "gemma3"])
def test_the_language_model_is_found_whatever_the_family_calls_it(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from families import build
    from transformers import AutoModelForImageTextToText

    build(family, tmp_path / "base")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    inside = peft.get_peft_model(model, peft.LoraConfig(target_modules=rf"{decoder}\..*v_proj"))
    inside.save_pretrained(tmp_path / "inside")
    check_adapter(tmp_path / "inside", tmp_path / "base")
    everywhere = peft.get_peft_model(inside.unload(), peft.LoraConfig(target_modules="all-linear"))
    everywhere.save_pretrained(tmp_path / "everywhere")
    with pytest.raises(UserError, match="outside the language model"):
        check_adapter(tmp_path / "everywhere", tmp_path / "base")


def test_an_adapter_that_is_none_or_too_wide_is_refused(
    vllm: type[LLM], tiny_folder: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"adapter_config\.json does not exist; give the folder of a LoRA adapter"):
        VllmBackend(tiny_folder, adapter=tmp_path)
    config = json.loads((adapters["decoder"] / "adapter_config.json").read_text())
    for path in adapters["decoder"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 1024}))
    with pytest.raises(UserError, match="its rank 1024 is above 512"):
        ask(VllmBackend(tiny_folder, adapter=tmp_path), [Prompt("q", "x", None)])
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read"):
        VllmBackend(tiny_folder, adapter=tmp_path)


# ---- the doctor ----------------------------------------------------------------------------------------------------


def doctor(*words: object) -> int:
    command = ["doctor", *map(str, words)]
    return cli.run(lambda: cli.app(command, prog_name="unmirage", standalone_mode=False))


def test_the_doctor_compares_vllm_with_the_model_here(
    vllm: type[LLM], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", tiny_folder, "--vllm", "--prompts", 4, "--max-new-tokens", 3)
    assert doctor(*options) == 1
    told = capsys.readouterr().out
    assert "hugging_face against vllm\n" in told
    assert "0 of 4 answers are equal: 0 of 2 with a picture, 0 of 2 without" in told
    assert told.rstrip().endswith("Problems: hugging_face against vllm")
    assert doctor(*options, "--tolerance", 1) == 0
    assert {call.sampling.max_tokens for call in vllm.made[0].calls} == {3}


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed here")
def test_the_doctor_says_that_vllm_is_missing(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--model", tiny_folder, "--vllm", "--prompts", 2, "--max-new-tokens", 2) == 1
    told = capsys.readouterr().out
    assert "problem  the backend vllm needs the package vllm, which is not installed" in told
    assert "not compared, because of the problems above" in told
