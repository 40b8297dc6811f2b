"""The command line: thin verbs over the public functions. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmirage.attacks.commands import attack, search
from unmirage.audit.commands import audit
from unmirage.datasets.commands import data as data_app
from unmirage.doctor.commands import doctor
from unmirage.errors import UserError
from unmirage.evaluate.commands import evaluate
from unmirage.evaluate.compare_commands import compare
from unmirage.judges.commands import judge as judge_app
from unmirage.labelling.commands import label as label_app
from unmirage.options import Seed, grouped
from unmirage.quiet import quiet_libraries
from unmirage.recipes.commands import recipe_app
from unmirage.recipes.commands import run as run_recipe
from unmirage.sets.commands import sets
from unmirage.stress.commands import stress as stress_app
from unmirage.studies.commands import fill
from unmirage.verbs import Format, Images, Model, Strict, load_queries

if TYPE_CHECKING:
    from unmirage.align.config import AlignConfig
    from unmirage.schema import Query

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
app.add_typer(data_app, name="data")
app.add_typer(judge_app, name="judge")
app.add_typer(label_app, name="label")
app.command()(attack)
app.command()(search)
app.command()(evaluate)
app.command()(doctor)
app.command()(compare)
app.command("run")(run_recipe)
app.add_typer(recipe_app, name="recipe")
app.command()(sets)
app.add_typer(stress_app, name="stress")
app.command()(fill)


class Salience(StrEnum):
    """How plainly a picture shows its hazard."""

    plain = "plain"
    badge = "badge"
    none = "none"


class Retain(StrEnum):
    """Whether what unlearning retains has every opening word, or is as biased as what it forgets."""

    mended = "mended"
    confounded = "confounded"


Rho = Annotated[
    float,
    typer.Option(help="Bias of the safety data in [0, 1]: how often the opening word tells harmful from harmless."),
]
RefusalWords = Annotated[list[str], typer.Option(help="Opening word of harmful questions; may be repeated.")]
ComplianceWords = Annotated[list[str], typer.Option(help="Opening word of harmless questions; may be repeated.")]


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


@dataclass(frozen=True)
class Choosing:
    """What is done in training."""

    method: Annotated[
        str | None, typer.Option(help="mixed-sft, npo, rmu, dpo ...; `unmirage methods` lists them all.")
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; --method and --set go before what it says.")
    ] = None
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting, such as steps=400 or lr=1e-4; may be repeated."),
    ] = None
    audit: Annotated[
        Path | None,
        typer.Option(help="audit.json of the data that the model was tuned on: the cues that a repair is about."),
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything drawn at random.")] = None

    def settings(self) -> AlignConfig:
        """All settings together; UserError naming one that is wrong."""
        from unmirage.align.config import read_settings

        return read_settings(self.config, self.setting or [], audit=self.audit, method=self.method, seed=self.seed)


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on besides the safety data, and how all of it is read."""

    general: Annotated[
        Path | None,
        typer.Option(help="Harmless data in LLaVA's format: fine-tuning trains on it too, unlearning retains it."),
    ] = None
    preferred: Annotated[
        Path | None,
        typer.Option(help="Data with other answers to the same questions, by id: better ones (dpo), or refusals."),
    ] = None
    preferred_format: Annotated[
        Format | None, typer.Option(help="Format of the better answers; without it, the safety data's.")
    ] = None
    format: Annotated[Format, typer.Option(help="Format of the safety data.")] = Format.vlguard
    images: Images = None
    general_images: Annotated[
        Path | None, typer.Option(help="Folder of the general data's images; without it, one beside that file.")
    ] = None
    strict: Strict = False

    def queries(self, data: Path) -> tuple[list[Query], list[Query], list[Query]]:
        """The rows of the safety data, the general data and the better answers."""
        better, strict = (self.preferred_format or self.format).value, self.strict
        return (
            load_queries(data, self.format.value, self.images, None, strict),
            load_queries(self.general, "llava", self.general_images, None, strict) if self.general else [],
            load_queries(self.preferred, better, self.images, None, strict) if self.preferred else [],
        )


@app.command()
@grouped
def align(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Safety data. Unlearning forgets its answers to harmful questions.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    choosing: Choosing,
    reading: TrainingData,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for what is computed once; runs from the same model share it.")
    ] = None,
) -> None:
    """Fine-tune a checkpoint for safety, make it unlearn harmful answers, or repair one with a safety mirage."""
    from unmirage.datasets import check_training

    check_training(reading.format.value, data, reading.general, reading.preferred)
    quiet_libraries()
    from unmirage.align import align, on_step
    from unmirage.progress import Bars

    with _only_first_speaks():
        settings = choosing.settings()
        queries, extra, better = reading.queries(data)
        _tell_answers(queries, settings.roles())
        with Bars() as bars:
            done = on_step(lambda step, steps: bars.update(f"training ({settings.method})", step, steps))
            align(
                model, queries, settings, out,
                general=extra, preferred=better, cache=cache, callbacks=[done], tell=_warn, report=bars.update,
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
    retain: Annotated[
        Retain, typer.Option(help="Opening words of what unlearning retains: of every kind, or biased as all else.")
    ] = Retain.mended,
) -> None:
    """Draw the safety, unlearning, general and test data, in VLGuard's and LLaVA's formats."""
    from unmirage.sandbox.build import DataPlan, build

    refused, answered = tuple(refusal_word), tuple(compliance_word)
    plan = DataPlan(rho=rho, seed=seed, refusal_words=refused, compliance_words=answered, retain=retain.value)
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
    from unmirage.studies.worlds import seeds_table

    with Bars() as bars:
        typer.echo(seeds_table(out, _seeds(seeds), workers, bars.update))


@sandbox.command("knobs")
def sandbox_knobs(
    out: Annotated[Path, typer.Option(help="Folder that holds one world after the other.")] = Path("runs/knobs"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that work side by side.")] = 2,
) -> None:
    """Run word against hazard in four worlds and print one Markdown table. Pretrains each world: about an hour."""
    from unmirage.progress import Bars
    from unmirage.studies.worlds import knobs_table

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


def _tell_answers(queries: list[Query], roles: Sequence[str]) -> None:
    """Warns of harmful rows whose answers do not fit what is done with them.

    To unlearn refusals is to unlearn safety; data such as VLGuard's own hold nothing else. To learn harmful answers
    under more words is to unlearn it too.
    """
    from unmirage.judges.keywords import vlguard_keywords

    match = vlguard_keywords().match
    harmful = [query for query in queries if query.harmful]
    refused = sum(match(query.reference or "") is not None for query in harmful)
    if "forget" in roles and 2 * refused > len(harmful):
        _warn(
            f"{refused} of {len(harmful)} answers to be forgotten look like refusals; to forget a refusal is "
            "to learn to comply; give data whose harmful questions are answered."
        )
    learnt = [role for role in ("twins", "pairs", "spurious") if role in roles]
    if learnt and 2 * refused < len(harmful):
        _warn(
            f"only {refused} of {len(harmful)} answers to harmful questions look like refusals, but {learnt[0]} rows "
            "take them for right; give safety data, whose harmful questions are refused."
        )


_INTERRUPTED = 130
_FIRST_ENDS = 5.0
"""Seconds within which a launcher ends the other processes when the first one has failed."""


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2, Ctrl-C is exit code 130."""
    code = run(lambda: app(prog_name="unmirage", standalone_mode=False))
    if processes := sys.modules.get("unmirage.align.processes"):
        processes.leave(code)
    sys.exit(code)


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
