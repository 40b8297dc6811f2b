"""Conversations written by a guard's template, and what its model says after them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image
from unmirage.errors import UserError
from unmirage.judges.guards.contract import Exchange
from unmirage.judges.local import generate, room


def conversation(question: str, answer: str | None, picture: bool, parts: bool) -> list[dict[str, Any]]:
    """A conversation for a template; `parts`: each turn's content is a list."""
    said = [("user", question)] + ([] if answer is None else [("assistant", answer)])
    if not parts:
        return [{"role": role, "content": text} for role, text in said]
    chat: list[dict[str, Any]] = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    if picture:
        chat[0]["content"].insert(0, {"type": "image"})
    return chat


def templated(speaker: Any, chat: list[dict[str, Any]], **fields: Any) -> str:
    """The conversation as the template of a tokenizer or processor writes it, up to where the guard speaks."""
    return str(speaker.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **fields))


def takes_parts(folder: Path, speaker: Any, **fields: Any) -> bool:
    """Whether a template wants each turn's content in parts; UserError where it shows the turns in neither form."""
    question, answer = "probe of a question", "probe of an answer"
    if not getattr(speaker, "chat_template", None):
        raise UserError(f"{folder}: there is no chat template; save the guard's own one there as chat_template.jinja.")
    why = ""
    for parts in (True, False):
        try:
            text = templated(speaker, conversation(question, answer, False, parts), **fields)
        except Exception as error:  # templates raise whatever they run into when the form is not theirs
            why = f" (it says {type(error).__name__}: {error})"
            continue
        if question in text and answer in text and "'role'" not in text and "'type'" not in text:
            return parts
    raise UserError(
        f"{folder}: the chat template does not show both the question and the answer{why}, so this is not a guard "
        "that judges answers; give the folder of one."
    )


def adds_special(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer must still add its own tokens: not where the template begins with BOS."""
    return not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))


def said_to_pictures(model: Any, processor: Any, texts: Sequence[str], rows: Sequence[Exchange], new: int) -> list[str]:
    """What a model with pictures says after each text; rows with and without a picture never share a batch."""
    said: dict[int, str] = {}
    for with_picture in (True, False):
        mine = [number for number, row in enumerate(rows) if (row.image is not None) == with_picture]
        if not mine:
            continue
        shown = [open_image(Prompt(rows[number].query, "", rows[number].image)) for number in mine]
        pictures = {"images": [[picture] for picture in shown]} if with_picture else {}
        written = [texts[number] for number in mine]
        special = adds_special_tokens(processor, written[0])
        inputs = processor(text=written, **pictures, padding=True, return_tensors="pt", add_special_tokens=special)
        # Processors make 32-bit pixels, and not every family turns them into what its weights are.
        inputs = inputs.to(dtype=model.dtype)
        said |= zip(mine, generate(model, inputs, new, processor.tokenizer), strict=True)
    return [said[number] for number in range(len(rows))]


def continued(model: Any, tokenizer: Any, texts: Sequence[str], new: int, *, special: bool) -> list[str | None]:
    """What the model says after each text; None where a text does not fit into what it reads."""
    limit = room(model, tokenizer)
    lengths = [len(tokenizer(text, add_special_tokens=special)["input_ids"]) for text in texts]
    fitting = [text for text, n in zip(texts, lengths, strict=True) if limit is None or n + new <= limit]
    if not fitting:
        return [None] * len(texts)
    inputs = tokenizer(fitting, padding=True, return_tensors="pt", add_special_tokens=special)
    said = iter(generate(model, inputs, new, tokenizer))
    return [next(said) if limit is None or n + new <= limit else None for n in lengths]
