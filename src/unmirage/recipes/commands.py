"""The verbs `run` and `recipe`. Part of the command line; nothing else imports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unmirage.recipes.cost import Cost
    from unmirage.recipes.graph import Planned

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done and what it takes.")] = False,
) -> None:
    """Run a whole experiment: data, audit, models, attacks, judges, measures, report."""
    from unmirage.progress import Bars
    from unmirage.recipes import read_recipe, run_recipe
    from unmirage.recipes.run import check
    from unmirage.report.terminal import headline
    from unmirage.verbs import quiet_libraries

    found = read_recipe(recipe, setting or [])
    quiet_libraries()
    check(found)
    folder = out or Path("runs") / found.name
    if dry_run:
        _tell_plan(found, folder)
        return
    with Bars() as bars:
        records = run_recipe(found, folder, report=bars.update, workers=workers)
    headline(records)
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
    from unmirage.recipes.config import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(by_alias=True), indent=2))


def _tell_plan(found: object, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from unmirage.recipes.config import Recipe
    from unmirage.recipes.cost import costs, total
    from unmirage.recipes.graph import planned
    from unmirage.recipes.planning import steps_of

    assert isinstance(found, Recipe)
    plan = planned(steps_of(found), folder)
    each = costs(found, plan)
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
