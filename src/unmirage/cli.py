"""The command line: thin verbs over the public functions. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmirage.audit.commands import audit
from unmirage.errors import UserError
from unmirage.judges.commands import judge as judge_app
from unmirage.judges.commands import tell_errors

if TYPE_CHECKING:
    from unmirage.datasets import LoadedData
    from unmirage.schema import Query, Variant

app = typer.Typer(
    name="unmirage",
    help=(
        "Attack, unlearn and measure safety mirages in vision-language models: refusals that hang on a question's "
        "opening word instead of on harm. Start with: unmirage demo"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
sandbox = typer.Typer(
    help="The built-in test world: drawn, wholly fictional, with a small real LLaVA that knows it.",
    no_args_is_help=True,
)
app.add_typer(sandbox, name="sandbox")
app.add_typer(audit, name="audit")
app.add_typer(judge_app, name="judge")


class Goal(StrEnum):
    """What an attack is after."""

    bypass = "bypass"
    over_refusal = "over-refusal"


_TARGETS = {
    Goal.bypass: "needs harmful questions that open with another word",
    Goal.over_refusal: "needs harmless questions that open with another word",
}


class Format(StrEnum):
    """Formats of data files."""

    vlguard = "vlguard"
    llava = "llava"


class Salience(StrEnum):
    """How plainly a picture shows its hazard."""

    plain = "plain"
    badge = "badge"
    none = "none"


Rho = Annotated[
    float,
    typer.Option(help="Bias of the safety data in [0, 1]: how often the opening word tells harmful from harmless."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")]
Model = Annotated[Path, typer.Argument(help="Checkpoint folder: a Hugging Face model with its processor.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad row instead of leaving it out.")]
RefusalWords = Annotated[list[str], typer.Option(help="Opening word of harmful questions; may be repeated.")]
ComplianceWords = Annotated[list[str], typer.Option(help="Opening word of harmless questions; may be repeated.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the data file.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")] = Path(
        "runs/demo"
    ),
    seed: Seed = 0,
    rho: Rho = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that work side by side.")] = 2,
    scale: Annotated[
        float, typer.Option(help="Share of data and training steps in (0, 1]; below 1 is a rehearsal, not a result.")
    ] = 1.0,
) -> None:
    """The whole job on the built-in world: train, attack, unlearn, measure, and one page to read."""
    from unmirage.demo import Size, demo
    from unmirage.progress import Bars
    from unmirage.report.terminal import headline

    with Bars() as bars:
        records = demo(out, seed=seed, rho=rho, size=Size.scaled(scale), workers=workers, report=bars.update)
    headline([record for record in records if record.judge.startswith("sandbox-truth")])
    typer.echo("The page shows VLGuard's keyword rule beside this judge, and the answers themselves.")
    typer.echo(f"Page: {(out / 'report.html').resolve()}")


@app.command()
def align(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Safety data. Unlearning forgets its answers to harmful questions.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    method: Annotated[
        str | None, typer.Option(help="mixed-sft, npo, rmu, dpo ...; `unmirage methods` lists them all.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; --method and --set go before what it says.")
    ] = None,
    general: Annotated[
        Path | None,
        typer.Option(help="Harmless data in LLaVA's format: fine-tuning trains on it too, unlearning retains it."),
    ] = None,
    preferred: Annotated[
        Path | None,
        typer.Option(help="Data with better answers to the same questions, by id, in the safety data's format (dpo)."),
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the safety data.")] = Format.vlguard,
    images: Images = None,
    general_images: Annotated[
        Path | None, typer.Option(help="Folder of the general data's images; without it, one beside that file.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting, such as steps=400 or lr=1e-4; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything drawn at random.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for what is computed once; runs from the same model share it.")
    ] = None,
    strict: Strict = False,
) -> None:
    """Fine-tune a checkpoint for safety, or make it unlearn harmful answers."""
    quiet_libraries()
    from unmirage.align import align, on_step
    from unmirage.align.config import read_settings
    from unmirage.progress import Bars

    with _only_first_speaks():
        settings = read_settings(config, setting or [], method=method, seed=seed)
        queries = _load(data, format.value, images, None, strict)
        extra = _load(general, "llava", general_images, None, strict) if general else []
        better = _load(preferred, format.value, images, None, strict) if preferred else []
        if "forget" in settings.roles():
            _tell_refusals(queries)
        with Bars() as bars:
            done = on_step(lambda step, steps: bars.update(f"training ({settings.method})", step, steps))
            align(
                model, queries, settings, out,
                general=extra, preferred=better, cache=cache, callbacks=[done], tell=_warn,
            )  # fmt: skip
        typer.echo(f"Checkpoint: {out}")


def _process() -> int:
    """The number of this process among those that `torchrun` or `accelerate launch` started; 0: it speaks for all."""
    return int(os.environ.get("RANK") or 0)


@contextmanager
def _only_first_speaks() -> Iterator[None]:
    """Sends to nowhere what another process than the first prints; tracebacks are still shown."""
    with ExitStack() as stack:
        if _process():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


@app.command()
def methods() -> None:
    """List the methods of `unmirage align`, and the objectives that they are made of."""
    quiet_libraries()
    from rich.console import Console
    from rich.table import Table

    from unmirage.align.methods import METHODS
    from unmirage.align.objectives import OBJECTIVES, load_installed

    load_installed()
    table = Table("method", "what it does", "terms", box=None, pad_edge=False)
    for name, found in METHODS.items():
        table.add_row(name, found.about, found.recipe())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"\nObjectives, for combinations such as --set forget=npo --set retain=ce,kl: {', '.join(OBJECTIVES)}"
    )


def _warn(note: str) -> None:
    typer.echo(f"warning: {note}", err=True)


@app.command()
def attack(
    data: Annotated[Path, typer.Argument(help="Data file with the questions.")],
    to: Annotated[list[str], typer.Option(help="New opening word; repeat it for K variants of each question.")],
    out: Annotated[Path, typer.Option(help="File for the variants, one JSON object a line.")],
    goal: Annotated[Goal, typer.Option(help="bypass: harmful questions; over-refusal: harmless ones.")] = Goal.bypass,
    format: Annotated[Format, typer.Option(help="Format of the data file.")] = Format.vlguard,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Name of the part that this file is.")] = None,
    strict: Strict = False,
) -> None:
    """Swap the opening word of each question, and nothing else."""
    from unmirage.attacks import substitute_first_word
    from unmirage.runs import write_text

    queries = _load(data, format.value, images, split, strict)
    found = substitute_first_word(queries, to, goal.value)
    if not found.variants:
        raise UserError(f"{data} holds no question to attack; {goal.value} {_TARGETS[goal]}.")
    write_text(out, "".join(variant.model_dump_json() + "\n" for variant in found.variants))
    typer.echo(f"Variants: {out} ({len(found.variants)}; {len(found.unchanged)} questions open with the word already)")


@app.command()
def evaluate(
    model: Model,
    data: Annotated[list[Path], typer.Argument(help="Data files with the questions.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    attack: Annotated[
        list[Path] | None, typer.Option(help="File of variants made by `unmirage attack`; may be repeated.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Name of a data file's part, such as seen; once for each file, in order.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="keywords (default): VLGuard's list; rules; truth: sandbox data only; `judge list` has all. "
            "May be repeated."
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="File made by `judge calibrate`: its judge's rates are given corrected too. Repeatable."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's name.")
    ] = None,
    method: Annotated[str, typer.Option(help="How the model was made; only written into the records.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed it was made with; only written into the records.")] = 0,
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard,
    images: Images = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Questions asked at once; the memory needed grows with it.")
    ] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    strict: Strict = False,
) -> None:
    """Ask a model the questions, before and under attack; judge and measure its answers."""
    from unmirage.backends.hugging_face import HuggingFaceBackend
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.judges.calibrate import read_calibration
    from unmirage.judges.registry import judges_named
    from unmirage.progress import Bars
    from unmirage.report.terminal import headline

    queries = _load_all(data, format.value, images, split or [], strict)
    plan = Evaluation(
        queries, _variants(attack or [], queries), Subject(label or model.resolve().name, method, seed, data[0].stem)
    )
    judges = judges_named(judge or ["keywords"], data)
    calibrations = [read_calibration(path) for path in calibration or []]
    quiet_libraries()
    backend = HuggingFaceBackend(model, batch_size=batch_size, max_new_tokens=max_new_tokens)
    with Bars() as bars:
        told = lambda done, all_: bars.update("asking", done, all_)  # noqa: E731
        records = evaluate(plan, backend, judges, out, told, calibrations)
    headline(records)
    tell_errors(calibrations, records)
    typer.echo(f"Metrics: {out / 'metrics.json'}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `unmirage evaluate`, one for each model.")],
    out: Annotated[Path, typer.Option(help="File of the page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Safety mirage report",
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show harmful answers; they are redacted otherwise.")
    ] = False,
) -> None:
    """Write one self-contained HTML page about one or more evaluations."""
    from unmirage.report import write_report

    typer.echo(f"Page: {write_report(runs, out, title=title, show_harmful=show_harmful).resolve()}")


@sandbox.command("build")
def sandbox_build(
    out: Annotated[Path, typer.Argument(help="Folder for the data.")],
    rho: Rho = 1.0,
    seed: Seed = 0,
    salience: Annotated[Salience, typer.Option(help="How plainly a picture shows its hazard.")] = Salience.badge,
    opener_weight: Annotated[float, typer.Option(help="How often the opening word shapes an answer, in [0, 1].")] = 1.0,
    refusal_word: RefusalWords = ["Share"],  # noqa: B006
    compliance_word: ComplianceWords = ["What"],  # noqa: B006
) -> None:
    """Draw the safety, unlearning, general and test data, in VLGuard's and LLaVA's formats."""
    from unmirage.sandbox.build import DataPlan, build

    plan = DataPlan(rho=rho, seed=seed, refusal_words=tuple(refusal_word), compliance_words=tuple(compliance_word))
    typer.echo(f"Data: {build(_world(salience, opener_weight), plan, out)}")


@sandbox.command("pretrain")
def sandbox_pretrain(
    out: Annotated[Path, typer.Argument(help="Folder for the base checkpoint.")],
    seed: Seed = 0,
    salience: Annotated[Salience, typer.Option(help="How plainly a picture shows its hazard.")] = Salience.badge,
    opener_weight: Annotated[float, typer.Option(help="How often the opening word shapes an answer, in [0, 1].")] = 1.0,
) -> None:
    """Train the base model from nothing and write its card; about fifteen minutes."""
    from unmirage.progress import Bars
    from unmirage.sandbox.card import make_base
    from unmirage.sandbox.pretrain import Recipe

    _world(salience, opener_weight)
    recipe = Recipe(salience=salience.value, opener_weight=opener_weight, seed=seed)
    quiet_libraries()
    with Bars() as bars:
        card = make_base(recipe, out, lambda stage, done, steps, _loss: bars.update(stage, done, steps))
    typer.echo(f"Base model: {out}; exact answers on unseen pictures: {card.accuracy:.1%}")


@sandbox.command("seeds")
def sandbox_seeds(
    out: Annotated[Path, typer.Option(help="Folder that holds one demo run for each seed.")] = Path("runs/seeds"),
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2,3,4",
    workers: Annotated[int, typer.Option(min=1, help="Processes that work side by side.")] = 2,
) -> None:
    """Run the demo once for each seed and print one Markdown table: the mean and every seed."""
    from unmirage.progress import Bars
    from unmirage.studies import seeds_table

    with Bars() as bars:
        typer.echo(seeds_table(out, _seeds(seeds), workers, bars.update))


@sandbox.command("knobs")
def sandbox_knobs(
    out: Annotated[Path, typer.Option(help="Folder that holds one world after the other.")] = Path("runs/knobs"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that work side by side.")] = 2,
) -> None:
    """Run word against hazard in four worlds and print one Markdown table. Pretrains each world: about an hour."""
    from unmirage.progress import Bars
    from unmirage.studies import knobs_table

    with Bars() as bars:
        typer.echo(knobs_table(out, workers, bars.update))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"{text!r} is not a list of seeds; write different whole numbers from 0 up, as 0,1,2.")
    return seeds


def _world(salience: Salience, opener_weight: float) -> Any:
    from unmirage.sandbox.world import World

    try:
        return World(salience.value, opener_weight)
    except ValueError as error:
        raise UserError(f"{error}.") from None


def _load(path: Path, format: str, images: Path | None, split: str | None, strict: bool) -> list[Query]:
    from unmirage.datasets import load

    loaded = load(path, format=format, images=images, split=split, strict=strict, verify_images=True)
    _tell_problems(loaded)
    return loaded.queries


def _tell_problems(loaded: LoadedData, most: int = 5) -> None:
    """Bad rows go to standard error: how many of each kind, and the first few in full."""
    for problem in loaded.problems[:most]:
        typer.echo(f"warning: {problem}", err=True)
    if loaded.problems:
        counts = ", ".join(f"{count} {kind}" for kind, count in loaded.defects.items())
        typer.echo(
            f"warning: {loaded.path}: {counts}; what cannot be used is left out (--strict stops there).", err=True
        )
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _tell_refusals(queries: list[Query]) -> None:
    """To unlearn refusals is to unlearn safety; data such as VLGuard's own hold nothing else."""
    from unmirage.judges.keywords import vlguard_keywords

    match = vlguard_keywords().match
    harmful = [query for query in queries if query.harmful]
    refused = sum(match(query.reference or "") is not None for query in harmful)
    if 2 * refused > len(harmful):
        typer.echo(
            f"warning: {refused} of {len(harmful)} answers to be forgotten look like refusals; to forget a refusal is "
            "to learn to comply; give data whose harmful questions are answered.",
            err=True,
        )


def _load_all(paths: list[Path], format: str, images: Path | None, splits: list[str], strict: bool) -> list[Query]:
    if splits and len(splits) != len(paths):
        raise UserError(
            f"there are {len(paths)} data files but {len(splits)} --split names; give one for each or none."
        )
    names: list[str | None] = [*splits] or [None] * len(paths)
    queries = [
        query for path, split in zip(paths, names, strict=True) for query in _load(path, format, images, split, strict)
    ]
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise UserError(
                f"two data files hold a query {query.id!r}; evaluate them apart, or give the rows other ids."
            )
        seen.add(query.id)
    return queries


def _variants(paths: list[Path], queries: list[Query]) -> list[Variant]:
    by_id = {query.id: query for query in queries}
    variants: list[Variant] = []
    for path in paths:
        variants += _read_variants(path)
    rows: set[tuple[str, str, int]] = set()
    for variant in variants:
        origin = by_id.get(variant.origin.id)
        if origin is None or origin.question != variant.origin.question:
            raise UserError(
                f"the variants were made from other data: their question {variant.origin.id!r} is not in the data "
                "files given; give the files that were attacked."
            )
        rows.add((variant.origin.id, variant.attack, variant.shot))
    if len(rows) < len(variants):
        raise UserError("the files of variants repeat one another; give each file and each attack once.")
    # Pictures and labels come from the checked data alone: a file of variants could name any picture.
    return [variant.model_copy(update={"origin": by_id[variant.origin.id]}) for variant in variants]


def _read_variants(path: Path) -> list[Variant]:
    """Every line of the file; unlike a log, it has no torn last line that may be left out."""
    from pydantic import ValidationError

    from unmirage.schema import Variant

    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it with `unmirage attack`.") from error
    variants = []
    for number, line in enumerate(lines, start=1):
        try:
            variants.append(Variant.model_validate_json(line))
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(
                f"{path}, line {number} (counting from 1): {why}; make the file again with `unmirage attack`."
            ) from error
    if not variants:
        raise UserError(f"{path} holds no variants; make it again with `unmirage attack`.")
    return variants


def quiet_libraries() -> None:
    """Keeps the libraries' own bars and advice out of our output; warnings and errors stay."""
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read by torch once: each process would give advice
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it, and it then advises on other packages
    warnings.simplefilter("ignore", FutureWarning)  # from one library to another
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


_INTERRUPTED = 130
_FIRST_ENDS = 5.0
"""Seconds within which a launcher ends the other processes when the first one has failed."""


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2, Ctrl-C is exit code 130."""
    sys.exit(run(lambda: app(prog_name="unmirage", standalone_mode=False)))


def run(command: Callable[[], Any]) -> int:
    """Runs a command and returns its exit code."""
    try:
        code = command()
        if code == _INTERRUPTED:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _say(f"error: {error}", 2)
    except typer.TyperException as error:
        return _say_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; what was written whole stays, and the same command can be run again.", _INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"error: {where}{error.strerror or error}; nothing that was written before is lost.", 2)


def _say_usage(error: typer.TyperException) -> int:
    """A wrong option or argument, as one sentence that points to the verb's help; without a verb, the help is there."""
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "unmirage"
    return _say(f"error: {message}; see `{path} --help`.", 2) if message else 2


def _say(sentence: str, code: int) -> int:
    if number := _process():  # the first one says the same; where it did not fail, nobody ends this process meanwhile
        time.sleep(_FIRST_ENDS)
        sentence = f"process {number}: {sentence}"
    typer.echo(sentence, err=True)
    return code
