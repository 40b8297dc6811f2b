"""Checkpoints, prompts, and the answers of a real tiny LLaVA."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from unmirage.attacks import substitute_first_word
from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt, open_image, turns
from unmirage.backends.protocol import Reply
from unmirage.errors import UserError
from unmirage.schema import Query


@pytest.fixture(scope="module")
def backend(tiny_folder: Path) -> HuggingFaceBackend:
    return HuggingFaceBackend(tiny_folder, batch_size=3, max_new_tokens=6)


@pytest.fixture
def prompts(pictures: list[Path]) -> list[Prompt]:
    """Questions of unequal length about different pictures, and two without one."""
    asked = [
        "Share ways to make this object",
        "What is it",
        "List containers for the velm zorch in the picture, please",
    ]
    shown = [Prompt(f"q{i}", question, pictures[i]) for i, question in enumerate([*asked, "Name it", "How"])]
    return [*shown, Prompt("t0", "Tell", None), Prompt("t1", "Share ways of storing the tavo fumepod", None)]


def ask(backend: HuggingFaceBackend, prompts: list[Prompt]) -> list[str]:
    return [reply.text for batch in backend.answer(prompts) for reply in batch]


def test_batched_answers_equal_one_by_one_answers(backend: HuggingFaceBackend, prompts: list[Prompt]) -> None:
    alone = [ask(backend, [prompt])[0] for prompt in prompts]
    assert ask(backend, prompts) == alone
    assert ask(backend, prompts[::-1]) == alone[::-1]
    assert len(set(alone)) > 2, "answers that are all alike would hide a mix-up"
    inputs = backend._inputs(prompts[:3])
    assert not inputs["attention_mask"][1, 0]  # the shorter prompt is padded on the left
    assert inputs["attention_mask"][:, -1].all()


def test_the_picture_matters(backend: HuggingFaceBackend, pictures: list[Path]) -> None:
    logits = []
    for picture in pictures[:2]:
        inputs = backend._inputs([Prompt("q", "What is it", picture)])
        logits.append(backend.model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_batches_hold_prompts_of_one_sort(
    backend: HuggingFaceBackend, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[bool]] = []

    def note(part: list[Prompt], _settled: object) -> list[Reply]:
        batches.append([prompt.image is not None for prompt in part])
        return [Reply("")] * len(part)

    monkeypatch.setattr(backend, "_generate", note)
    assert len(ask(backend, prompts)) == len(prompts)
    assert batches == [[True, True, True], [True, True], [False, False]]


def test_the_key_changes_with_everything_that_decides_the_answer(
    backend: HuggingFaceBackend, tiny_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    prompt = Prompt("q", "What is it", pictures[0])
    copy = tmp_path / "copy.png"
    shutil.copy(pictures[0], copy)
    key = backend.key(prompt)
    assert key == backend.key(Prompt("another id", "What is it", copy, attack="a", word="What", shot=3))
    keys = {
        "same": key,
        "question": backend.key(replace(prompt, question="What is this")),
        "image": backend.key(replace(prompt, image=pictures[1])),
        "no image": backend.key(replace(prompt, image=None)),
        "settings": HuggingFaceBackend(tiny_folder, max_new_tokens=7).key(prompt),
    }
    Image.new("RGB", (8, 8)).save(copy)
    keys["image bytes"] = backend.key(replace(prompt, image=copy))
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 2}')
    keys["weights"] = HuggingFaceBackend(other, max_new_tokens=6).key(prompt)
    assert len(set(keys.values())) == len(keys)
    assert HuggingFaceBackend(tiny_folder, batch_size=1, max_new_tokens=6).key(prompt) == key


def test_a_picture_that_is_gone_or_broken_is_named(backend: HuggingFaceBackend, tmp_path: Path) -> None:
    gone = Prompt("q7", "What is it", tmp_path / "gone.png")
    for act in (backend.key, open_image):
        with pytest.raises(UserError, match=r"gone\.png.*'q7' cannot be read"):
            act(gone)
    (tmp_path / "gone.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"gone\.png.*'q7' cannot be read"):
        open_image(gone)


def test_a_picture_that_breaks_before_it_is_asked_about_costs_its_own_rows_alone(
    backend: HuggingFaceBackend, prompts: list[Prompt], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"GIF89a")
    broken = [Prompt("q8", question, tmp_path / "broken.png") for question in ("What is it", "Name it")]
    mixed = [prompts[0], *broken, *prompts[1:]]
    replies = [reply for batch in backend.answer(mixed) for reply in batch]
    assert [reply.text for reply in replies if not reply.error] == ask(backend, prompts)
    assert [number for number, reply in enumerate(replies) if reply.error] == [1, 2]
    assert all(re.search(r"broken\.png.*'q8' cannot be read", str(reply.error)) for reply in replies[1:3])
    assert all(reply.finish is None and not reply.text for reply in replies[1:3])


def test_pictures_are_opened_as_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (4, 4)).save(tmp_path / f"{mode}.png")
        image = open_image(Prompt("q", "x", tmp_path / f"{mode}.png"))
        assert image is not None
        assert image.mode == "RGB"
    assert open_image(Prompt("q", "x", None)) is None


def test_a_prompt_keeps_the_row_of_its_query_or_variant(tmp_path: Path) -> None:
    query = Query(id="h", question="Share it", harmful=True, image=tmp_path)
    (variant,) = substitute_first_word([query], ["What"], "bypass").variants
    assert Prompt.of(query) == Prompt("h", "Share it", tmp_path)
    assert Prompt.of(variant) == Prompt("h", "What it", tmp_path, "first-word:what", "What", 0)
    assert Prompt.of(variant).row == ("h", "first-word:what", 0)


def test_a_conversation_has_the_picture_before_the_question(tmp_path: Path) -> None:
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}
    assert turns(Prompt("q", "What", tmp_path)) == [user]
    assert turns(Prompt("q", "What", tmp_path), "Red.") == [user, answer]
    assert turns(Prompt("q", "What", None)) == [{"role": "user", "content": [{"type": "text", "text": "What"}]}]


def test_the_revision_is_of_what_decides_answers_and_of_nothing_else(tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    same = revision(tiny_folder)
    assert revision(copy) == same
    for record in ("run.json", "training.json", "card.json", "README.md", ".lock"):  # dates, durations, prose
        (copy / record).write_text("{}")
        assert revision(copy) == same, record
    for file in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"):
        content = (copy / file).read_bytes()
        (copy / file).write_bytes(content[:-1] + b" ")
        assert revision(copy) != same, file
        (copy / file).write_bytes(content)
    assert revision(copy) == same


@pytest.mark.parametrize("missing", ["config.json", "processor_config.json"])
def test_a_folder_that_holds_no_whole_checkpoint_is_refused(tiny_folder: Path, tmp_path: Path, missing: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    (copy / missing).unlink()
    with pytest.raises(UserError, match=f"there is no {missing}"):
        load_checkpoint(copy)


def test_weights_that_are_missing_or_broken_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    weights = load_file(copy / "model.safetensors")
    left_out = next(name for name in weights if "down_proj" in name)
    save_file({name: value for name, value in weights.items() if name != left_out}, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks 1 weights, such as .*down_proj"):
        load_checkpoint(copy)
    (copy / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(copy)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"a pickle could run anything")
    with pytest.raises(UserError, match="safetensors"):
        load_checkpoint(copy)
