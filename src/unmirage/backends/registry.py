"""Backends by name, and the options that asking takes whichever it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.backends.manner import Manner
from unmirage.errors import UserError

if TYPE_CHECKING:
    from unmirage.backends.protocol import Backend


class BackendName(StrEnum):
    """What can answer prompts: a model in this process, a server with OpenAI's interface, vLLM in this process."""

    hugging_face = "hugging_face"
    openai_server = "openai_server"
    vllm = "vllm"


@dataclass(frozen=True)
class AskingOptions:
    """How a model is asked. `backend` None: the server where `server` (an address) is given, else `hugging_face`.

    `batch_size` holds for models in this process; `concurrency` (requests at once) and `timeout` (seconds for each
    attempt) hold for a server. `adapter` is a LoRA adapter's folder, for `vllm` alone: `hugging_face` takes such a
    folder as its model. `share_prefix` holds for `hugging_face`. `run`: the folder of the run, which knows the server
    with which it began. `temperature`, `sample_seed`, `answer_prefix` and `show_prefix`: see `Manner`.
    """

    backend: BackendName | None = None
    server: str | None = None
    batch_size: int = 64
    max_new_tokens: int = 256
    concurrency: int = 8
    timeout: float = 60.0
    adapter: Path | None = None
    share_prefix: bool = True
    run: Path | None = None
    temperature: float = 0.0
    sample_seed: int = 0
    answer_prefix: str = ""
    show_prefix: bool = True

    @property
    def manner(self) -> Manner:
        """How answers are generated; raises UserError for a temperature or a beginning that is none."""
        return Manner(self.temperature, self.sample_seed, self.answer_prefix, self.show_prefix)

    @property
    def name(self) -> BackendName:
        """The backend that is meant; raises UserError where the options contradict one another."""
        meant = self.backend or (BackendName.openai_server if self.server else BackendName.hugging_face)
        if self.server and meant is not BackendName.openai_server:
            raise UserError(f"--server is for the backend openai_server, not for {meant}; leave one of them out.")
        if meant is BackendName.openai_server and not self.server:
            raise UserError("the backend openai_server needs --server with an address, such as http://localhost:8000.")
        if self.adapter and meant is not BackendName.vllm:
            raise UserError(f"--adapter is for the backend vllm, not for {meant}; leave one of them out.")
        return meant


def open_backend(model: str, options: AskingOptions = AskingOptions()) -> Backend:
    """The backend for a model: a checkpoint's folder, or with a server the name under which it serves the model.

    Raises UserError where the options contradict one another, there is no such checkpoint, or the server is not there.
    """
    name = options.name
    if name is BackendName.openai_server:
        return _server(model, options)
    if name is BackendName.vllm:
        return _vllm(model, options)
    from unmirage.backends.hugging_face import HuggingFaceBackend

    return HuggingFaceBackend(
        Path(model),
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        share_prefix=options.share_prefix,
        manner=options.manner,
        tell=_note,
    )


def _note(note: str) -> None:
    """To standard error, in the form of the command line's own notes."""
    print(f"note: {note}", file=sys.stderr)


def _server(model: str, options: AskingOptions) -> Backend:
    from unmirage.backends.openai_server import OpenAIServerBackend
    from unmirage.servers import ChatServer

    server = ChatServer(options.server or "", model, concurrency=options.concurrency, timeout=options.timeout)
    return OpenAIServerBackend(
        server, max_new_tokens=options.max_new_tokens, manner=options.manner, known=_known(options.run)
    )


def _known(run: Path | None) -> Mapping[str, Any]:
    """What a run's manifest says of the server with which it began; nothing where there is no such run yet."""
    from unmirage.runs import read_manifest

    try:
        found = read_manifest(run).config.get("backend") if run else None
    except UserError:  # there is none, or it is broken; to open the run tells the latter
        return {}
    return found if isinstance(found, dict) else {}


def _vllm(model: str, options: AskingOptions) -> Backend:
    from unmirage.backends.vllm import VllmBackend

    return VllmBackend(
        Path(model),
        adapter=options.adapter,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        manner=options.manner,
    )
