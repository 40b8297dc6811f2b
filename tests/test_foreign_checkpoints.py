"""Checkpoints that are not ours: other templates, half precision, missing parts, full disks."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, PreTrainedModel, TrainerCallback

from unmirage.align import AlignConfig, align
from unmirage.align.encode import encode
from unmirage.backends.checkpoint import load_checkpoint
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt, adds_special_tokens
from unmirage.errors import UserError
from unmirage.schema import Query

# As LLaVA-1.5 renders: no BOS of its own, no EOS after the answer.
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %} "
    "{% else %}<user>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_an_answer_that_the_template_leaves_open_is_closed(tiny_folder: Path, forget: list[Query]) -> None:
    processor = AutoProcessor.from_pretrained(tiny_folder)
    own = encode(processor, forget[0])
    processor.chat_template = PLAIN
    sample = encode(processor, forget[0])
    end = processor.tokenizer.eos_token_id
    assert own["labels"].tolist().count(end) == 1, "one end is enough where the template has it"
    assert sample["labels"].tolist()[-1] == sample["input_ids"].tolist()[-1] == end
    assert {len(sample[key]) for key in ("input_ids", "attention_mask", "labels", "image_mask")} == {
        len(sample["input_ids"])
    }
    told = processor.tokenizer.decode(sample["labels"][sample["labels"] != -100], skip_special_tokens=True)
    assert told.strip() == forget[0].reference


def test_the_tokenizer_adds_its_own_tokens_only_where_the_template_has_none(tiny_folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_folder)
    assert not adds_special_tokens(processor, "<s><user>What is it")
    assert adds_special_tokens(processor, "USER: What is it")


class Dtypes(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.found: set[torch.dtype] = set()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.found = {parameter.dtype for parameter in model.parameters()}


def test_half_precision_is_trained_in_full_and_stored_as_it_was(
    copy: Path, forget: list[Query], retain: list[Query], tmp_path: Path
) -> None:
    model, _ = load_checkpoint(copy)
    model.half().save_pretrained(copy)
    seen = Dtypes()
    out = align(
        copy,
        [*forget, *retain],
        AlignConfig(method="mixed-sft", steps=1, batch_size=2),
        tmp_path / "out",
        callbacks=[seen],
    )
    assert seen.found == {torch.float32}
    tuned, _ = load_checkpoint(out)
    assert tuned.dtype == torch.float16
    assert all(torch.isfinite(weight).all() for weight in tuned.parameters())


def test_a_processor_without_a_template_or_padding_is_refused(copy: Path) -> None:
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        load_checkpoint(copy)
    (copy / "chat_template.jinja").write_text(template)
    edit(copy, "tokenizer_config.json", lambda content: content.pop("pad_token"))
    with pytest.raises(UserError, match="no padding token"):
        load_checkpoint(copy)


def test_generation_is_greedy_whatever_the_checkpoint_says(tiny_folder: Path, copy: Path) -> None:
    edit(copy, "generation_config.json", lambda content: content.update(repetition_penalty=5.0, num_beams=3))
    prompts = [Prompt("a", "Share ways to make this object", None)]
    plain, odd = (HuggingFaceBackend(folder, max_new_tokens=12) for folder in (tiny_folder, copy))
    assert list(odd.answer(prompts)) == list(plain.answer(prompts))


def test_a_full_disk_at_the_end_of_training_is_a_sentence(
    tiny_folder: Path, forget: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_options: Any) -> None:
        raise RuntimeError(f"I/O error: {OSError(errno.ENOSPC, 'No space left on device')}")

    config = AlignConfig(method="mixed-sft", steps=1, batch_size=2, save_steps=50)
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(UserError, match="no space is left"):
            align(tiny_folder, forget, config, tmp_path / "out")
    assert not (tmp_path / "out" / "training.json").exists()
    align(tiny_folder, forget, config, tmp_path / "out")
    assert (tmp_path / "out" / "training.json").exists()
