"""The verb `unmirage audit model`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
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


class ModelJudge(StrEnum):
    """Who says what is a refusal."""

    keywords = "keywords"
    truth = "truth"


class ModelFormat(StrEnum):
    """Formats of the questions."""

    vlguard = "vlguard"
    llava = "llava"


def model(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder: a Hugging Face model with its processor.")],
    file: Annotated[Path, typer.Argument(help="Data file with the questions.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    data: Annotated[
        Path | None,
        typer.Option(help="audit.json, or the data that the model learnt from: shows each word in both."),
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
        ModelJudge, typer.Option(help="keywords: VLGuard's list; truth: sandbox data only.")
    ] = ModelJudge.keywords,
    sample: Annotated[int, typer.Option(min=1, help="Most harmful and most harmless questions, each.")] = 100,
    controls: Annotated[int, typer.Option(min=1, help="Neutral and random control words at each place, each.")] = 4,
    top: Annotated[int, typer.Option(min=0, help="Words of the lexicon or gradient to generate after scoring.")] = 16,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Score first and generate what matters, or generate all.")
    ] = True,
    attribute: Annotated[int, typer.Option(min=0, help="Refusals to take apart.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")] = 0,
    label: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's name.")
    ] = None,
    format: Annotated[ModelFormat, typer.Option(help="Format of the questions.")] = ModelFormat.vlguard,
    images: Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the file.")] = None,
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
    from unmirage.audit.model import Plan, audit_model
    from unmirage.audit.model.edits import POSITIONS
    from unmirage.audit.model.sidebyside import read_words
    from unmirage.audit.model.terminal import print_audit
    from unmirage.progress import Bars

    given = tuple(word.strip() for several in words or [] for word in several.split(","))
    sources = tuple(dict.fromkeys(one.value for one in candidates or ([] if given else [Candidates.lexicon])))
    wanted = {one.value for one in position} if position else set(POSITIONS)
    plan = Plan(
        label or model.resolve().name, file.stem, sources, given, tuple(one for one in POSITIONS if one in wanted),
        sample=sample, seed=seed, controls=controls, top=top, attribute=attribute, score=score,
    )  # fmt: skip
    held = read_words(data) if data else None
    queries = _questions(file, format.value, images, strict)
    backend = _backend(model, batch_size, max_new_tokens)
    with Bars() as bars:
        found = audit_model(
            plan, queries, backend, _judge(judge, file), out,
            held=held, show_harmful=show_harmful, progress=bars.update,
        )  # fmt: skip
    print_audit(found)
    typer.echo(f"Page: {(out / 'audit_model.html').resolve()}")


def _backend(model: Path, batch_size: int, max_new_tokens: int) -> Any:
    import transformers

    from unmirage.backends.hugging_face import HuggingFaceBackend

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return HuggingFaceBackend(model, batch_size=batch_size, max_new_tokens=max_new_tokens)


def _questions(file: Path, format: str, images: Path | None, strict: bool) -> list[Query]:
    """The questions; what is wrong with rows goes to standard error."""
    from unmirage.datasets import load

    loaded = load(file, format=format, images=images, strict=strict, verify_images=True)
    for problem in loaded.problems[:5]:
        typer.echo(f"warning: {problem}", err=True)
    if loaded.problems:
        counts = ", ".join(f"{count} {kind}" for kind, count in loaded.defects.items())
        typer.echo(f"warning: {loaded.path}: {counts}; what cannot be used is left out.", err=True)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return loaded.queries


def _judge(name: ModelJudge, file: Path) -> Any:
    if name is ModelJudge.keywords:
        from unmirage.judges.keywords import vlguard_keywords

        return vlguard_keywords()
    from unmirage.judges.truth import TruthJudge

    return TruthJudge.beside(file)
