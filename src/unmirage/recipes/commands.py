"""The verbs `run` and `recipe`. Part of the command line; nothing else imports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unmirage.recipes.choosing import Choice
    from unmirage.recipes.config import Recipe as RecipeOf
    from unmirage.recipes.cost import Cost
    from unmirage.recipes.graph import Planned
    from unmirage.schema import Record

MOST_SHOWN = 60
"""Models, under a stress or not, whose figures are printed; those of a larger study are for its own tables."""
MOST_TOLD = 5

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="One value of the recipe, such as seeds=[0,1]; may be repeated."),
]
Recipe = Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe; `recipe list` has them.")]


def run(
    recipe: Recipe,
    setting: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; without it, runs/NAME. The same command goes on where it stopped.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Steps side by side; without it, as the recipe says.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only these and what they need: steps (align/*), or models, measures, stresses; may be repeated.",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only this share of the work, to be made on a machine of its own.")
    ] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done and what it takes.")] = False,
) -> None:
    """Run a whole experiment: data, audit, models, attacks, judges, measures, report."""
    from unmirage.progress import Bars
    from unmirage.quiet import quiet_libraries
    from unmirage.recipes import read_recipe, run_recipe
    from unmirage.recipes.choosing import Choice, Shard
    from unmirage.recipes.run import check

    found = read_recipe(recipe, setting or [])
    quiet_libraries()
    check(found)
    folder = out or Path("runs") / found.name
    choice = Choice(tuple(only or ()), Shard.of(shard))
    if dry_run:
        _tell_plan(found, folder, choice)
        return
    with Bars() as bars:
        records = run_recipe(found, folder, report=bars.update, workers=workers, choice=choice)
    _tell_done(records, found, folder)


def _tell_done(records: list[Record], found: RecipeOf, folder: Path) -> None:
    from unmirage.report.terminal import headline

    if 0 < len({(one.model, one.stress, *one.axes.values()) for one in records}) <= MOST_SHOWN:
        headline(records)
    _tell_missing(found, folder)
    for page in sorted(folder.glob("report*.html")):
        typer.echo(f"Page: {page.resolve()}")
    typer.echo(f"Metrics: {folder / 'metrics.json'}")


recipe_app = typer.Typer(help="Recipes: those that are shipped, and what one may say.", no_args_is_help=True)


@recipe_app.command("list")
def list_() -> None:
    """List the shipped recipes."""
    from unmirage.recipes import read_recipe
    from unmirage.recipes.reading import shipped

    for name, path in shipped().items():
        typer.echo(f"{name:<22} {read_recipe(path).about}")


@recipe_app.command("show")
def show(recipe: Recipe) -> None:
    """Print a recipe, to be written into a file and changed."""
    from unmirage.recipes.reading import find

    typer.echo(find(recipe).read_text(encoding="utf-8"), nl=False)


@recipe_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and checks."""
    from unmirage.recipes.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _tell_missing(found: RecipeOf, folder: Path) -> None:
    """What a run of a part leaves to be done."""
    from unmirage.recipes.run import missing

    left, all_ = missing(found, folder)
    if left:
        shown = ", ".join(left[:MOST_TOLD]) + (", ..." if len(left) > MOST_TOLD else "")
        typer.echo(f"Missing: {len(left)} of {all_} evaluations ({shown}); all figures are of the others.")


def _tell_plan(found: RecipeOf, folder: Path, choice: Choice) -> None:
    from rich.console import Console
    from rich.table import Table

    from unmirage.recipes.cost import costs, total
    from unmirage.recipes.graph import planned
    from unmirage.recipes.planning import steps_of

    plan = planned(steps_of(found), folder)
    chosen = choice.steps(plan)
    each = [cost for cost in costs(found, plan) if cost.step in chosen]
    table = Table("step", "state", "training steps", "questions", "new tokens", "GiB", box=None, pad_edge=False)
    for cost in each:
        table.add_row(*_cells(cost, plan[cost.step]))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(width=140, highlight=False)).print(table)
    for sentence in total(each):
        typer.echo(sentence)


def _cells(cost: Cost, one: Planned) -> list[str]:
    state = "done" if cost.done else "begun" if one.folder.exists() else "to do"
    tokens, questions = (_count(number) for number in (cost.new_tokens, cost.questions))
    memory = "" if cost.memory is None else f"{cost.memory / 2**30:.2f}"
    return [cost.step, state, _count(cost.training_steps), questions, tokens, memory]


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}" if number else ""
