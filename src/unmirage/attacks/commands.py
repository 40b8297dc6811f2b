"""The verb `attack`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unmirage.errors import UserError
from unmirage.verbs import Format, Images, Strict, load_queries


class Goal(StrEnum):
    """What an attack is after."""

    bypass = "bypass"
    over_refusal = "over-refusal"


_TARGETS = {
    Goal.bypass: "needs harmful questions that open with another word",
    Goal.over_refusal: "needs harmless questions that open with another word",
}


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

    queries = load_queries(data, format.value, images, split, strict)
    found = substitute_first_word(queries, to, goal.value)
    if not found.variants:
        raise UserError(f"{data} holds no question to attack; {goal.value} {_TARGETS[goal]}.")
    write_text(out, "".join(variant.model_dump_json() + "\n" for variant in found.variants))
    typer.echo(f"Variants: {out} ({len(found.variants)}; {len(found.unchanged)} questions open with the word already)")
