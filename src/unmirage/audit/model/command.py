"""The verbs `unmirage audit model` and `unmirage audit models`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.backends.registry import BackendName
from unmirage.errors import UserError
from unmirage.options import Asking, MaxNewTokens, ModelLabel, ModelName, RunFolder, Seed, grouped, model_name
from unmirage.quiet import quiet_libraries
from unmirage.verbs import Strict, load_queries

if TYPE_CHECKING:
    from unmirage.audit.model import Plan
    from unmirage.audit.model.sidebyside import DataWord
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


@dataclass(frozen=True)
class LearntData:
    """The data that the model learnt from."""

    data: Annotated[
        Path | None,
        typer.Option(help="audit.json, or the data that the model learnt from: shows each word in both."),
    ] = None
    data_question: Annotated[str | None, typer.Option(help="Table of --data: column of the questions.")] = None
    data_answer: Annotated[str | None, typer.Option(help="Table of --data: column of the answers.")] = None
    data_label: Annotated[str | None, typer.Option(help="Table of --data: column of the labels.")] = None
    data_refusal: Annotated[
        list[str] | None, typer.Option(help="Table of --data: value of the label that means refusal; repeatable.")
    ] = None

    def held(self) -> dict[tuple[str, str], DataWord] | None:
        """What these data say of words; None where there are none. UserError for columns of no table."""
        from unmirage.audit import Columns
        from unmirage.audit.model.sidebyside import read_words

        refusal = tuple(self.data_refusal or ())
        columns = Columns(self.data_question, self.data_answer, self.data_label, refusal=refusal, prefix="--data-")
        if not self.data and (named := columns.named()):
            raise UserError(f"{' and '.join(named)}: columns of --data, which is not given; add it, or leave them out.")
        return read_words(self.data, columns) if self.data else None


@dataclass(frozen=True)
class Trying:
    """Which words are tried, where, and how much is asked."""

    words: Annotated[
        list[str] | None, typer.Option(help="Words to try at every place, with commas between them; may be repeated.")
    ] = None
    candidates: Annotated[
        list[Candidates] | None,
        typer.Option(
            help="Words to try: lexicon (default without --words), data (those of --data), gradient (the model's own); "
            "may be repeated."
        ),
    ] = None
    position: Annotated[
        list[Place] | None,
        typer.Option(help="opening: in place of the first word; begin, end: put in there. Without it, all three."),
    ] = None
    judge: Annotated[
        str,
        typer.Option(help="Who says what is a refusal: keywords, rules, truth (sandbox data) ...; see `judge list`."),
    ] = "keywords"
    sample: Annotated[int, typer.Option(min=1, help="Most harmful and most harmless questions, each.")] = 100
    controls: Annotated[int, typer.Option(min=1, help="Neutral and random control words at each place, each.")] = 4
    top: Annotated[int, typer.Option(min=0, help="Words of the lexicon or gradient to generate after scoring.")] = 16
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Score first and generate what matters, or generate all.")
    ] = True
    attribute: Annotated[int, typer.Option(min=0, help="Refusals to take apart.")] = 4
    seed: Seed = 0

    def plan(self, model: str, data: str) -> Plan:
        """What is tried on the model of that name with the data of that name."""
        from unmirage.audit.model import Plan
        from unmirage.audit.model.edits import POSITIONS

        given = tuple(word.strip() for several in self.words or [] for word in several.split(","))
        sources = tuple(dict.fromkeys(one.value for one in self.candidates or ([] if given else [Candidates.lexicon])))
        wanted = {one.value for one in self.position} if self.position else set(POSITIONS)
        return Plan(
            model, data, sources, given, tuple(one for one in POSITIONS if one in wanted), sample=self.sample,
            seed=self.seed, controls=self.controls, top=self.top, attribute=self.attribute, score=self.score,
        )  # fmt: skip


@dataclass(frozen=True)
class Questions:
    """How the questions are read."""

    format: Annotated[
        QuestionFormat,
        typer.Option(
            help="auto finds VLGuard's and LLaVA's JSON; all else, and what has the column --question, is a table."
        ),
    ] = QuestionFormat.auto
    question: Annotated[str | None, typer.Option(help="Table: column of the questions.")] = None
    label: Annotated[str | None, typer.Option(help="Table: column that says whether a question is harmful.")] = None
    refusal: Annotated[
        list[str] | None,
        typer.Option(help="Table: value of the label that means harmful (to be refused); may be repeated."),
    ] = None
    image: Annotated[str | None, typer.Option(help="Table: column of the images.")] = None
    id: Annotated[str | None, typer.Option(help="Table: column of the ids.")] = None
    encoding: Annotated[str, typer.Option(help="Table: text encoding.")] = "utf-8"
    images: Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the file.")] = None
    strict: Strict = False

    def read(self, file: Path) -> list[Query]:
        """The questions; what is wrong with rows goes to standard error."""
        from unmirage.audit import Columns
        from unmirage.audit.model.questions import questions_of
        from unmirage.audit.table import Source

        columns = Columns(self.question, None, self.label, self.image, self.id, tuple(self.refusal or ()))
        source = Source([file], columns, self.format.value, self.images, self.encoding, self.strict)
        source.check_columns()
        found = source.format_of(file)
        if found != "table":
            return load_queries(file, found, self.images, None, self.strict)
        asked = questions_of(source)
        for warning in asked.warnings:
            typer.echo(f"warning: {warning}", err=True)
        return asked.queries


@dataclass(frozen=True)
class AuditAsking(Asking):
    """How the model is asked: a refusal shows in a few tokens."""

    max_new_tokens: MaxNewTokens = 64


@grouped
def model(
    model: ModelName,
    file: Annotated[Path, typer.Argument(help="Data file with the questions; all that `audit data` reads.")],
    out: RunFolder,
    *,
    learnt: LearntData,
    trying: Trying,
    name: ModelLabel = None,
    questions: Questions,
    asked: AuditAsking,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show harmful answers on the page; they are hidden otherwise.")
    ] = False,
) -> None:
    """Which words move this model's refusals? Tries words, against neutral words in the same place."""
    from unmirage.audit.model import audit_model
    from unmirage.audit.model.terminal import print_audit
    from unmirage.backends.registry import open_backend
    from unmirage.judges.registry import judges_named
    from unmirage.progress import Bars

    asking = asked.options()
    if asking.name is not BackendName.openai_server:
        quiet_libraries()
    plan = trying.plan(name or model_name(model), file.stem)
    held = learnt.held()
    queries = questions.read(file)
    with Bars() as bars:
        found = audit_model(
            plan, queries, open_backend(model, asking), judges_named([trying.judge], [file])[0], out,
            held=held, show_harmful=show_harmful, progress=bars.update,
        )  # fmt: skip
    print_audit(found)
    typer.echo(f"Page: {(out / 'audit_model.html').resolve()}")


def models(
    audits: Annotated[
        list[Path],
        typer.Argument(metavar="AUDIT...", help="Run folders of `unmirage audit model --data`, one a model."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audit_models.json and audit_models.html.")],
) -> None:
    """Which words move the refusals of all these models? Tells what data taught from one model's own ways.

    Give models that were trained on the same data, from several seeds or, better, from several base models.
    """
    from unmirage.audit.model.several import over_runs, read_audits
    from unmirage.audit.model.several_shown import print_audits, write_page
    from unmirage.runs import write_json

    if out.is_file():
        raise UserError(f"--out {out} is a file; give a folder for audit_models.json and audit_models.html.")
    read = read_audits(audits)
    found = over_runs(read, _apart([audit.model for audit in read], audits))
    written = [write_json(out / "audit_models.json", found), write_page(found, out / "audit_models.html")]
    print_audits(found)
    for path in written:
        typer.echo(f"Written: {path}")


def _apart(names: list[str], paths: list[Path]) -> list[str]:
    """Names of the models, or of their audits' folders, or these whole: the first that tell all apart."""
    ways = (names, [path.resolve().name for path in paths], [str(path) for path in paths])
    return next((way for way in ways if len(set(way)) == len(way)), ways[-1])
