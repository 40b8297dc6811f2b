"""The verb `unmirage audit model`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.verbs import load_queries, quiet_libraries

if TYPE_CHECKING:
    from unmirage.audit.table import Columns
    from unmirage.schema import Query


class Candidates(StrEnum):
    """Where words to try come from."""

    lexicon = "lexicon"
    data = "data"
    gradient = "gradient"


class Place(StrEnum):
    """Where a word is tried."""

    opening = "opening"
    begin = "begin"
    end = "end"


class QuestionFormat(StrEnum):
    """Formats of the questions."""

    auto = "auto"
    table = "table"
    vlguard = "vlguard"
    llava = "llava"


def model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint folder: a Hugging Face model with its processor. With --server, the name by which the "
            "server knows the model.",
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Data file with the questions; all that `audit data` reads.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    data: Annotated[
        Path | None,
        typer.Option(help="audit.json, or the data that the model learnt from: shows each word in both."),
    ] = None,
    data_question: Annotated[str | None, typer.Option(help="Table of --data: column of the questions.")] = None,
    data_answer: Annotated[str | None, typer.Option(help="Table of --data: column of the answers.")] = None,
    data_label: Annotated[str | None, typer.Option(help="Table of --data: column of the labels.")] = None,
    data_refusal: Annotated[
        list[str] | None, typer.Option(help="Table of --data: value of the label that means refusal; repeatable.")
    ] = None,
    words: Annotated[
        list[str] | None, typer.Option(help="Words to try at every place, with commas between them; may be repeated.")
    ] = None,
    candidates: Annotated[
        list[Candidates] | None,
        typer.Option(
            help="Words to try: lexicon (default without --words), data (those of --data), gradient (the model's own); "
            "may be repeated."
        ),
    ] = None,
    position: Annotated[
        list[Place] | None,
        typer.Option(help="opening: in place of the first word; begin, end: put in there. Without it, all three."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(help="Who says what is a refusal: keywords, rules, truth (sandbox data) ...; see `judge list`."),
    ] = "keywords",
    sample: Annotated[int, typer.Option(min=1, help="Most harmful and most harmless questions, each.")] = 100,
    controls: Annotated[int, typer.Option(min=1, help="Neutral and random control words at each place, each.")] = 4,
    top: Annotated[int, typer.Option(min=0, help="Words of the lexicon or gradient to generate after scoring.")] = 16,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Score first and generate what matters, or generate all.")
    ] = True,
    attribute: Annotated[int, typer.Option(min=0, help="Refusals to take apart.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's or served name.")
    ] = None,
    format: Annotated[
        QuestionFormat, typer.Option(help="auto finds VLGuard's and LLaVA's JSON; all else is a table.")
    ] = QuestionFormat.auto,
    question: Annotated[str | None, typer.Option(help="Table: column of the questions.")] = None,
    label: Annotated[str | None, typer.Option(help="Table: column that says whether a question is harmful.")] = None,
    refusal: Annotated[
        list[str] | None,
        typer.Option(help="Table: value of the label that means harmful (to be refused); may be repeated."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Table: column of the images.")] = None,
    id: Annotated[str | None, typer.Option(help="Table: column of the ids.")] = None,
    encoding: Annotated[str, typer.Option(help="Table: text encoding.")] = "utf-8",
    images: Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the file.")] = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="What answers; without it, the server where --server is given, else hugging_face."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a server with OpenAI's interface, such as http://localhost:8000; its key, where it needs "
            "one, is in the environment variable OPENAI_API_KEY.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until an attempt to get an answer from the server is given up.")
    ] = 60.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once; the memory needed grows with it.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show harmful answers on the page; they are hidden otherwise.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first bad row instead of leaving it out.")
    ] = False,
) -> None:
    """Which words move this model's refusals? Tries words, against neutral words in the same place."""
    from unmirage.audit import Columns
    from unmirage.audit.model import Plan, audit_model
    from unmirage.audit.model.edits import POSITIONS
    from unmirage.audit.model.sidebyside import read_words
    from unmirage.audit.model.terminal import print_audit
    from unmirage.backends.registry import open_backend
    from unmirage.judges.registry import judges_named
    from unmirage.progress import Bars

    asking = AskingOptions(
        backend, server, batch_size=batch_size, max_new_tokens=max_new_tokens, concurrency=concurrency, timeout=timeout
    )
    if asking.name is not BackendName.openai_server:
        quiet_libraries()
    given = tuple(word.strip() for several in words or [] for word in several.split(","))
    sources = tuple(dict.fromkeys(one.value for one in candidates or ([] if given else [Candidates.lexicon])))
    wanted = {one.value for one in position} if position else set(POSITIONS)
    plan = Plan(
        name or _name(model), file.stem, sources, given, tuple(one for one in POSITIONS if one in wanted),
        sample=sample, seed=seed, controls=controls, top=top, attribute=attribute, score=score,
    )  # fmt: skip
    data_columns = Columns(data_question, data_answer, data_label, refusal=tuple(data_refusal or ()), prefix="--data-")
    held = read_words(data, data_columns) if data else None
    columns = Columns(question, None, label, image, id, tuple(refusal or ()))
    queries = _questions(file, format.value, columns, images, encoding, strict)
    with Bars() as bars:
        found = audit_model(
            plan, queries, open_backend(model, asking), judges_named([judge], [file])[0], out,
            held=held, show_harmful=show_harmful, progress=bars.update,
        )  # fmt: skip
    print_audit(found)
    typer.echo(f"Page: {(out / 'audit_model.html').resolve()}")


def _name(model: str) -> str:
    """The last part of a folder; else the name as it is, by which a server knows the model."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _questions(
    file: Path, format: str, columns: Columns, images: Path | None, encoding: str, strict: bool
) -> list[Query]:
    """The questions; what is wrong with rows goes to standard error."""
    from unmirage.audit.model.questions import questions_of
    from unmirage.audit.table import Source

    source = Source([file], columns, format, images, encoding, strict)
    found = source.format_of(file)
    if found != "table":
        return load_queries(file, found, images, None, strict)
    asked = questions_of(source)
    for warning in asked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return asked.queries
