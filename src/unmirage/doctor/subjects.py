"""A model and a server, each tried with a few prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.openai_server import OpenAIServerBackend
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend, Reply
from unmirage.doctor.finding import Section
from unmirage.errors import UserError
from unmirage.servers import ChatServer

_FEW = 4


def check_model(backend: HuggingFaceBackend, prompts: Sequence[Prompt]) -> Section:
    """Loads the model, and asks it a few prompts at once and one by one, which must not change the answers."""
    section = Section(f"Model {backend.folder}")
    try:
        start = time.monotonic()
        model, processor = backend.model, backend.processor
        section.ok(
            f"{type(model).__name__}: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} million "
            f"weights, {str(model.dtype).removeprefix('torch.')}, on {model.device}; "
            f"loaded in {time.monotonic() - start:.1f} s"
        )
        section.ok(f"{type(processor).__name__}: has a chat template, a padding token and an image processor")
        _ask_together_and_alone(section, backend, prompts)
    except UserError as error:
        section.problem(str(error))
    return section


def _ask_together_and_alone(section: Section, backend: Backend, prompts: Sequence[Prompt]) -> None:
    shown = [prompt for prompt in prompts if prompt.image][:_FEW]
    plain = [prompt for prompt in prompts if not prompt.image][:_FEW]
    for several, what in ((shown, "with a picture"), (plain, "without a picture")):
        if not several:
            continue
        together, seconds = timed(backend, several)
        if error := next((reply.error for reply in together if reply.error), None):
            section.problem(f"{what}: {error}")
            continue
        alone = [reply for prompt in several for reply in timed(backend, [prompt])[0]]
        equal = sum(one.text == other.text for one, other in zip(together, alone, strict=True))
        said = f"{what}: {equal} of {len(several)} answers are the same asked at once and one by one"
        if equal == len(several):
            section.ok(f"{said}; {seconds / len(several):.2f} s each")
        else:
            section.note(f"{said};\nin half precision rounding decides a word here and there, in float32 hardly ever")


def check_server(server: ChatServer, backend: OpenAIServerBackend, prompts: Sequence[Prompt]) -> Section:
    """Which models it lists, and whether it answers with and without a picture."""
    section = Section(f"Server {server.url}")
    try:
        _add_list(section, server)
        for with_picture, what in ((False, "without a picture"), (True, "with a picture")):
            asked = [prompt for prompt in prompts if bool(prompt.image) is with_picture][:1]
            if asked:
                (reply,), seconds = timed(backend, asked)
                _add_reply(section, reply, what, seconds)
    except UserError as error:
        section.problem(str(error))
    return section


def _add_list(section: Section, server: ChatServer) -> None:
    names = server.served()
    if names is None:
        section.note("it keeps no list of its models")
    elif server.model in names:
        section.ok(f"it lists {len(names)} models, {server.model} among them")
    else:
        section.note(f"it lists {', '.join(names[:5]) or 'no models'}, not {server.model}")


def _add_reply(section: Section, reply: Reply, what: str, seconds: float) -> None:
    if reply.error:
        section.problem(f"{what}: {reply.error}")
    elif reply.finish == "filter":
        section.note(f"{what}: a content filter held the answer to a harmless question back")
    elif not reply.text:
        section.problem(f"{what}: the answer is empty")
    else:
        section.ok(f"{what}: it answers, in {seconds:.2f} s; how an answer ended: {reply.finish or 'it does not say'}")


def timed(backend: Backend, prompts: Sequence[Prompt]) -> tuple[list[Reply], float]:
    """The replies and the seconds they took."""
    start = time.monotonic()
    replies = [reply for batch in backend.answer(prompts) for reply in batch]
    return replies, time.monotonic() - start


def served_name(url: str, given: str | None, model: Path | None) -> str:
    """The name to ask the server for: the one given, the only one it lists, or the model's folder; else UserError."""
    if given:
        return given
    names = ChatServer(url, "").served()
    if names and len(names) == 1:
        return names[0]
    if model and (not names or str(model) in names):
        return str(model)
    listed = f"lists {', '.join(names[:5])}" if names else "keeps no list of models"
    raise UserError(f"{url} {listed}; say with --served-name which one is meant.")
