"""The verbs `stress list` and `stress run`. Part of the command line, on top of all rooms; nothing else imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmirage.errors import UserError
from unmirage.options import (
    AttackedReading,
    DataFiles,
    Judges,
    Method,
    ModelLabel,
    ModelName,
    RunFolder,
    Sample,
    SharedAsking,
    grouped,
    model_name,
)
from unmirage.quiet import quiet_libraries
from unmirage.verbs import Format, load_queries, pooled_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unmirage.evaluate.measure import Subject
    from unmirage.judges import Judge
    from unmirage.schema import Query, Record
    from unmirage.stress.facts import Fact
    from unmirage.stress.protocol import Plan, StressConfig

stress = typer.Typer(
    help="Does a repair last? Relearning, quantization, forced answers, suffixes, probes and more, on any model.",
    no_args_is_help=True,
)
_TRUTH = ".truth.json"


@stress.command("list")
def list_() -> None:
    """List the stresses with their settings and what each is when nothing is set."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from unmirage.stress import stresses

    table = Table("stress", "what it does", "settings", box=None, pad_edge=False)
    for name, found in stresses().items():
        settings = ", ".join(_setting(key, field) for key, field in found.config.model_fields.items())
        table.add_row(name, found.about, settings)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _setting(name: str, field: Any) -> str:
    """A setting as it is written after --set; a long default is cut."""
    if field.is_required():
        return f"{name} (needed)"
    value = field.default
    text = ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
    return f"{name}={text if len(text) <= 24 else text[:21] + '...'}"


@dataclass(frozen=True)
class Rows:
    """What a stress may use besides the questions, and how it is read."""

    forget: Annotated[
        Path | None, typer.Option(help="Data whose harmful questions have harmful answers, to relearn from.")
    ] = None
    general: Annotated[
        Path | None, typer.Option(help="Harmless data in LLaVA's format, to relearn and to train probes from.")
    ] = None
    base: Annotated[Path | None, typer.Option(help="The model that this one was made from.")] = None
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON from a question's id to what its answer gives away; without it, the truth beside sandbox data."
        ),
    ] = None
    forget_format: Annotated[Format | None, typer.Option(help="Format of --forget; without it, the data's.")] = None
    forget_images: Annotated[Path | None, typer.Option(help="Folder of the images of --forget.")] = None
    general_images: Annotated[Path | None, typer.Option(help="Folder of the images of --general.")] = None

    def check(self, format: Format) -> None:
        """Raises UserError where one of them must not be trained on; `format` is the data's."""
        from unmirage.datasets import check_training

        check_training((self.forget_format or format).value, self.forget)
        check_training("llava", self.general)

    def read(self, format: Format, strict: bool) -> tuple[Sequence[Query], Sequence[Query]]:
        """The rows to relearn from, and the harmless ones; `format` is the data's."""
        told = (self.forget_format or format).value
        return (
            load_queries(self.forget, told, self.forget_images, None, strict) if self.forget else (),
            load_queries(self.general, "llava", self.general_images, None, strict) if self.general else (),
        )


@dataclass(frozen=True)
class StressAsking(SharedAsking):
    """How the model is asked: many a stress needs weights."""

    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a server with OpenAI's interface, such as http://localhost:8000, for stresses that need "
            "no weights; its key, where it needs one, is in the environment variable OPENAI_API_KEY.",
        ),
    ] = None


@stress.command("run")
@grouped
def run(
    model: ModelName,
    data: DataFiles,
    out: RunFolder,
    *,
    kind: Annotated[str, typer.Option(help="Which stress; `unmirage stress list` has all.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting of the stress, such as n=50; may be repeated."),
    ] = None,
    rows: Rows,
    reading: AttackedReading,
    sample: Sample = None,
    judged: Judges,
    name: Annotated[str | None, typer.Option(help="What results call the stress; without it, its kind.")] = None,
    label: ModelLabel = None,
    method: Method = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that the stress draws.")] = 0,
    asked: StressAsking,
) -> None:
    """Put a model under a stress, ask it, judge and measure its answers."""
    quiet_libraries()  # before anything imports them
    from unmirage.evaluate.measure import Subject
    from unmirage.stress import Plan, find, read_settings

    asking, config = asked.options(out), read_settings(kind, _settings(setting or []))
    if find(kind).trains:
        rows.check(reading.format)
    queries = _sampled(reading.queries(data), sample, seed)
    variants = reading.variants(queries)
    forget, general = rows.read(reading.format, reading.strict)
    plan = Plan(model, queries, variants, asking, forget, general, rows.base, _facts(rows.facts, data), seed)
    subject = Subject(label or model_name(model), method, seed, pooled_name(queries), name or kind)
    _show(_measured(kind, config, plan, subject, out, judged.made(data), judged), out)
    typer.echo(f"Metrics: {out / 'metrics.json'}")


def _measured(
    kind: str, config: StressConfig, plan: Plan, subject: Subject, out: Path, judges: list[Judge], judged: Judges
) -> list[Record]:
    from unmirage.progress import Bars
    from unmirage.stress import judge_stress, run_stress

    with Bars() as bars:
        run_stress(kind, config, plan, subject, out, bars.update, _note)
        return judge_stress(out, out, judges, judged.calibrations(), bars.update)


def _settings(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name or name in found:
            raise UserError(f"--set {one!r} is not a setting, or is set twice; write each once as --set n=50.")
        found[name] = value
    return found


def _sampled(queries: list[Any], count: int | None, seed: int) -> list[Any]:
    """At most so many of the harmful and of the harmless questions each, in the order of the file."""
    import random

    if count is None:
        return queries
    kept: set[str] = set()
    for harmful in (True, False):
        mine = [query.id for query in queries if query.harmful == harmful]
        kept.update(random.Random(f"{seed}/stress/{harmful}").sample(mine, min(count, len(mine))))
    return [query for query in queries if query.id in kept]


def _facts(given: list[Path] | None, data: list[Path]) -> dict[str, Fact]:
    from unmirage.stress.facts import read_facts

    beside = [path.with_suffix(_TRUTH) for path in data]
    return read_facts(given or [path for path in beside if path.is_file()])


def _note(sentence: object) -> None:
    typer.echo(f"note: {sentence}", err=True)


def _show(records: Sequence[Record], out: Path) -> None:
    """The figures: of an evaluation as `evaluate` shows them, of a stress with its own as they are."""
    from unmirage.report.load import read_variants
    from unmirage.report.terminal import headline

    if any(record.judge != "probe" for record in records):
        headline([record for record in records if "sample" not in record.axes], variants=read_variants(out))
        return
    for record in records:
        where = "".join(f", {axis} {value:g}" for axis, value in record.axes.items() if isinstance(value, float))
        ends = "" if record.low is None else f" [{record.low:.3f}, {record.high:.3f}]"
        split = f"{record.split}: " if record.split else ""
        value = "none" if record.value is None else f"{record.value:.3f}"
        typer.echo(f"{split}{record.metric}{where}: {value}{ends} (n = {record.n})")
