"""Everything that can be asked is asked, and what answers is compared with the model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.openai_server import OpenAIServerBackend
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend
from unmirage.backends.registry import AskingOptions, BackendName, open_backend
from unmirage.doctor.compare import compare
from unmirage.doctor.finding import Section
from unmirage.doctor.subjects import check_model, check_server, served_name
from unmirage.errors import UserError


def trials(
    model: Path | None,
    name: str | None,
    vllm: bool,
    options: AskingOptions,
    prompts: Sequence[Prompt],
    tolerance: float,
) -> Iterator[Section]:
    """The sections about model, server and vLLM; what fails is a problem of its section, and the others go on."""
    local = replace(options, server=None)
    here: Backend | None = None
    others: dict[str, Backend | None] = {}
    if model:
        here, section = _model(model, local, prompts)
        yield section
    if options.server:
        served, section = _server(options, name, model, prompts)
        others["server"] = served
        yield section
    if vllm and model:
        engine, section = _vllm(model, replace(local, backend=BackendName.vllm))
        others["vllm"] = engine
        yield section
    for label, other in others.items():
        if here and other:
            yield _compared(here, other, prompts, ("hugging_face", label), tolerance)
        elif model:
            section = Section(f"hugging_face against {label}")
            section.note("not compared, because of the problems above")
            yield section


def _model(model: Path, options: AskingOptions, prompts: Sequence[Prompt]) -> tuple[Backend | None, Section]:
    try:
        backend = open_backend(str(model), options)
    except UserError as error:
        return None, _failed(f"Model {model}", error)
    assert isinstance(backend, HuggingFaceBackend)
    section = check_model(backend, prompts)
    return (backend if section.is_well else None), section


def _server(
    options: AskingOptions, name: str | None, model: Path | None, prompts: Sequence[Prompt]
) -> tuple[Backend | None, Section]:
    try:
        backend = open_backend(served_name(options.server or "", name, model), options)
    except UserError as error:
        return None, _failed("Server", error)
    assert isinstance(backend, OpenAIServerBackend)
    section = check_server(backend.server, backend, prompts)
    return (backend if section.is_well else None), section


def _vllm(model: Path, options: AskingOptions) -> tuple[Backend | None, Section]:
    try:
        backend = open_backend(str(model), options)
    except UserError as error:
        return None, _failed("vLLM", error)
    section = Section("vLLM")
    section.ok("is installed, and takes this model's adapter where there is one")
    return backend, section


def _compared(
    here: Backend, other: Backend, prompts: Sequence[Prompt], names: tuple[str, str], tolerance: float
) -> Section:
    try:
        return compare(here, other, prompts, names, tolerance).section()
    except UserError as error:
        return _failed(" against ".join(names), error)


def _failed(title: str, error: UserError) -> Section:
    section = Section(title)
    section.problem(str(error))
    return section
