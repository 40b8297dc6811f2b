"""The verb `doctor`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.errors import UserError
from unmirage.quiet import quiet_libraries
from unmirage.verbs import Format, Images, load_queries

if TYPE_CHECKING:
    from unmirage.backends.prompts import Prompt
    from unmirage.backends.registry import AskingOptions
    from unmirage.doctor.finding import Section


def doctor(
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder: is loaded, and asked in batches and one by one.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of a server with OpenAI's interface: is asked too.")
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="Name by which the server knows the model; without it, the only one it lists.")
    ] = None,
    vllm: Annotated[bool, typer.Option("--vllm", help="Ask vLLM too, with the folder of --model.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Data file to take the prompts from; without it, shipped harmless ones.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the data file.")] = Format.vlguard,
    images: Images = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts that backends are compared on.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Share of prompts whose answers may differ between backends.")
    ] = 0.1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until an attempt at the server is given up.")] = 60.0,
) -> None:
    """Say what is installed and works, and whether two backends answer alike; exit code 1 where something is wrong."""
    from unmirage.backends.registry import AskingOptions

    if vllm and model is None:
        raise UserError("--vllm needs --model with a checkpoint folder.")
    if served_name and not server:
        raise UserError("--served-name needs --server with an address.")
    quiet_libraries()
    options = AskingOptions(server=server, batch_size=prompts, max_new_tokens=max_new_tokens, timeout=timeout)
    with TemporaryDirectory() as drawn:
        asked = _prompts(Path(drawn), data, format.value, images, prompts) if model or server else []
        sections = _sections(model, served_name, vllm, options, asked, tolerance)
        wrong = [section.title for section in _printed(sections) if not section.is_well]
    typer.echo(f"\nProblems: {'; '.join(wrong)}" if wrong else "\nNo problems.")
    if wrong:
        raise typer.Exit(1)


def _prompts(drawn: Path, data: Path | None, format: str, images: Path | None, count: int) -> list[Prompt]:
    from unmirage.doctor.prompts import shipped_prompts, spread

    if data is None:
        return shipped_prompts(drawn, count)
    return spread(load_queries(data, format, images, None, False), count)


def _printed(sections: Iterator[Section]) -> Iterator[Section]:
    """Each section is shown as soon as it is there: later ones may take minutes."""
    for number, section in enumerate(sections):
        typer.echo("\n" * bool(number) + "\n".join(section.lines()))
        yield section


def _sections(
    model: Path | None,
    served_name: str | None,
    vllm: bool,
    options: AskingOptions,
    prompts: list[Prompt],
    tolerance: float,
) -> Iterator[Section]:
    from unmirage.doctor.machine import check_machine
    from unmirage.doctor.packages import check_packages
    from unmirage.doctor.trials import trials

    yield check_packages()
    yield check_machine(Path.cwd())
    if model or options.server:
        yield from trials(model, served_name, vllm, options, prompts, tolerance)
