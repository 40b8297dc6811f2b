"""The verbs `stress list` and `stress run`. Part of the command line, on top of all rooms; nothing else imports it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.errors import UserError
from unmirage.judges import commands as judging
from unmirage.verbs import Format, Images, SharePrefix, Strict, load_all, load_queries, quiet_libraries, read_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unmirage.schema import Record
    from unmirage.stress.facts import Fact

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


@stress.command("run")
def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Checkpoint folder; with --server, the name by which the server knows the model."
        ),
    ],
    data: Annotated[list[Path], typer.Argument(help="Data files with the questions.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    kind: Annotated[str, typer.Option(help="Which stress; `unmirage stress list` has all.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting of the stress, such as n=50; may be repeated."),
    ] = None,
    attack: Annotated[
        list[Path] | None, typer.Option(help="File of variants made by `unmirage attack`; may be repeated.")
    ] = None,
    forget: Annotated[
        Path | None, typer.Option(help="Data whose harmful questions have harmful answers, to relearn from.")
    ] = None,
    general: Annotated[
        Path | None, typer.Option(help="Harmless data in LLaVA's format, to relearn and to train probes from.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The model that this one was made from.")] = None,
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON from a question's id to what its answer gives away; without it, the truth beside sandbox data."
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Name of a data file's part, such as seen; once for each file, in order.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Most questions, drawn by the seed.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="rules (default), truth and others: `judge list` has all. Repeatable.")
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="File made by `judge calibrate`: its judge's rates are given corrected too. Repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What results call the stress; without it, its kind.")] = None,
    label: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's name.")
    ] = None,
    method: Annotated[str, typer.Option(help="How the model was made; only written into the records.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that the stress draws.")] = 0,
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard,
    forget_format: Annotated[Format | None, typer.Option(help="Format of --forget; without it, the data's.")] = None,
    images: Images = None,
    forget_images: Annotated[Path | None, typer.Option(help="Folder of the images of --forget.")] = None,
    general_images: Annotated[Path | None, typer.Option(help="Folder of the images of --general.")] = None,
    backend: Annotated[BackendName | None, typer.Option(help="What answers; default hugging_face.")] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Server with OpenAI's interface, for stresses that need no weights."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one attempt to get an answer.")] = 60.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions asked at once; memory grows with it.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    share_prefix: SharePrefix = True,
    judge_server: judging.Server = None,
    judge_concurrency: judging.Concurrency = 8,
    judge_timeout: judging.Timeout = 60.0,
    judge_picture: judging.Picture = False,
    judge_label: judging.Meanings = None,
    judge_pair: judging.Pair = False,
    judge_policy: judging.Policy = None,
    judge_batch_size: judging.BatchSize = 16,
    strict: Strict = False,
) -> None:
    """Put a model under a stress, ask it, judge and measure its answers."""
    quiet_libraries()  # before anything imports them
    from unmirage.datasets import check_training
    from unmirage.evaluate.measure import Subject
    from unmirage.judges.registry import JudgeOptions, judges_named
    from unmirage.progress import Bars
    from unmirage.stress import Plan, find, judge_stress, read_settings, run_stress

    asking = AskingOptions(
        backend, server, batch_size, max_new_tokens, concurrency, timeout, None, share_prefix, out
    )  # fmt: skip
    config = read_settings(kind, _settings(setting or []))
    if find(kind).trains:
        check_training((forget_format or format).value, forget)
        check_training("llava", general)
    queries = _sampled(load_all(data, format.value, images, split or [], strict), sample, seed)
    plan = Plan(
        model, queries, read_variants(attack or [], queries), asking,
        load_queries(forget, (forget_format or format).value, forget_images, None, strict) if forget else (),
        load_queries(general, "llava", general_images, None, strict) if general else (),
        base, _facts(facts, data), seed,
    )  # fmt: skip
    subject = Subject(label or _name(model), method, seed, queries[0].data, name or kind)
    options = JudgeOptions(
        judge_server, judge_concurrency, judge_timeout, judge_picture, tuple(judge_label or ()), judge_pair,
        judge_policy, judge_batch_size,
    )  # fmt: skip
    judges = judges_named(judge or ["rules"], data, options)
    with Bars() as bars:
        run_stress(kind, config, plan, subject, out, bars.update, _note)
        records = judge_stress(out, out, judges, _calibrations(calibration or []), bars.update)
    _show(records)
    typer.echo(f"Metrics: {out / 'metrics.json'}")


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


def _calibrations(paths: list[Path]) -> list[Any]:
    from unmirage.judges.calibrate import read_calibration

    return [read_calibration(path) for path in paths]


def _name(model: str) -> str:
    return Path(model).resolve().name if Path(model).is_dir() else model


def _note(sentence: object) -> None:
    typer.echo(f"note: {sentence}", err=True)


def _show(records: Sequence[Record]) -> None:
    """The figures: of an evaluation as `evaluate` shows them, of a stress with its own as they are."""
    from unmirage.report.terminal import headline

    if any(record.judge != "probe" for record in records):
        headline([record for record in records if "sample" not in record.axes])
        return
    for record in records:
        where = "".join(f", {axis} {value:g}" for axis, value in record.axes.items() if isinstance(value, float))
        ends = "" if record.low is None else f" [{record.low:.3f}, {record.high:.3f}]"
        split = f"{record.split}: " if record.split else ""
        value = "none" if record.value is None else f"{record.value:.3f}"
        typer.echo(f"{split}{record.metric}{where}: {value}{ends} (n = {record.n})")
