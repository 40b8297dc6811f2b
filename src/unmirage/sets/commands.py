"""The verb `sets`. Part of the command line; nothing else imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmirage.errors import UserError
from unmirage.options import BatchSize, MaxNewTokens, OneJudge, RunFolder, Seed, grouped
from unmirage.quiet import quiet_libraries
from unmirage.verbs import Format, Images, Strict, load_queries

if TYPE_CHECKING:
    from unmirage.sets.config import SetsConfig

NOTABLE = 0.1
"""Gain over the larger set's share from which on the opening word is worth a warning."""


@dataclass(frozen=True)
class Choosing:
    """What is taken into the two sets."""

    subset: Annotated[
        list[str] | None, typer.Option(help="Only these harmful questions, such as unsafes; may be repeated.")
    ] = None
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Also questions whose answers the judge finds harmless.")
    ] = False
    core: Annotated[float, typer.Option(help="Share of the forget set to keep, in (0, 1].")] = 1.0
    most_harmful: Annotated[
        bool, typer.Option("--most-harmful", help="With --core: the most harmful answers instead of any.")
    ] = False
    retain: Annotated[int, typer.Option(min=1, help="Most rows of the retain set.")] = 2000
    opener_rows: Annotated[
        int, typer.Option(min=0, help="Fewest rows to retain for each opening word of the forget set.")
    ] = 10
    seed: Seed = 0

    def config(self) -> SetsConfig:
        """The same as settings; UserError naming an option out of its range."""
        from unmirage.sets.config import SetsConfig

        found: SetsConfig = _config(
            SetsConfig, subsets=tuple(self.subset) if self.subset else None,
            keep="all" if self.keep_all else "harmful", core=self.core,
            order="harmful" if self.most_harmful else "random", retain=self.retain, opener_rows=self.opener_rows,
            seed=self.seed,
        )  # fmt: skip
        return found


@dataclass(frozen=True)
class HarmJudge(OneJudge):
    """The judge of harm."""

    judge: Annotated[str, typer.Option(help="Who says which answers are harmful; `judge list` has all.")] = "rules"


@grouped
def sets(
    data: Annotated[Path, typer.Argument(help="Safety data: harmful questions to forget, harmless ones to retain.")],
    model: Annotated[
        list[str],
        typer.Option(
            help="Checkpoint that answers the harmful questions: first the one that is to unlearn; repeatable."
        ),
    ],
    out: RunFolder,
    *,
    general: Annotated[
        Path | None, typer.Option(help="General data in LLaVA's format, to top up what is retained.")
    ] = None,
    general_images: Annotated[Path | None, typer.Option(help="Folder of the general data's images.")] = None,
    choosing: Choosing,
    judged: HarmJudge,
    format: Annotated[Format, typer.Option(help="Format of the safety data.")] = Format.vlguard,
    images: Images = None,
    batch_size: BatchSize = 64,
    max_new_tokens: MaxNewTokens = 256,
    strict: Strict = False,
) -> None:
    """Make forget and retain sets: a model's own harmful answers, and harmless rows with every opening word."""
    from unmirage.datasets import check_training

    check_training(format.value, data, general)
    from unmirage.progress import Bars
    from unmirage.sets.run import build_sets

    config = choosing.config()
    safety = load_queries(data, format.value, images, None, strict)
    extra = load_queries(general, "llava", general_images, None, strict) if general else []
    quiet_libraries()
    chosen = judged.made([data])
    backends = {_name(one): _backend(one, batch_size, max_new_tokens) for one in model}
    if len(backends) < len(model):
        raise UserError("two models have the same folder name; give each once, under a name of its own.")
    with Bars() as bars:
        found = build_sets(safety, extra, backends, chosen, config, out, bars.update)
    _tell(found, out)


def _config(kind: Any, **values: Any) -> Any:
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{first['loc'][0]} {first['input']}: {first['msg']}.") from error


def _name(model: str) -> str:
    return Path(model).resolve().name


def _backend(model: str, batch_size: int, max_new_tokens: int) -> Any:
    from unmirage.backends.registry import AskingOptions, open_backend

    return open_backend(model, AskingOptions(batch_size=batch_size, max_new_tokens=max_new_tokens))


def _tell(found: dict[str, Any], out: Path) -> None:
    """What came of each step. No answer is printed: they are harmful."""
    typer.echo(
        f"Harmful questions: {found['questions']}; answers: {found['answers']}, harmful: {found['harmful_answers']}"
    )
    if found["unanswered"]:
        typer.echo(
            f"warning: {found['unanswered']} questions got no answer, only an error (candidates/ has them); the same "
            "command asks them again.",
            err=True,
        )
    typer.echo(f"Forget set: {out / 'forget.json'} ({found['forget']} rows)")
    if found["without_harmful_answer"]:
        typer.echo(f"  without a harmful answer, and so left out: {len(found['without_harmful_answer'])}")
    if found["text_only"]:
        typer.echo(f"  without a picture, in rows whose image is null: {len(found['text_only'])}")
    typer.echo(f"Retain set: {out / 'retain.json'} ({found['retain']} rows)")
    for source, count in found["retain_from"].items():
        typer.echo(f"  {source}: {count}")
    if found["openers_lacking"]:
        words = ", ".join(found["openers_lacking"])
        typer.echo(f"warning: too few rows to retain open with {words}; give more general data.", err=True)
    confounding = found["confounding"]
    if confounding is None:
        typer.echo("Words: too few questions to tell whether words tell the sets apart.")
        return
    typer.echo(
        f"Words: the opening word alone tells {confounding['mirage_score']:.1%} of the rows right "
        f"(the larger set has {confounding['majority']:.1%}); {out / 'audit.html'}"
    )
    if confounding["mirage_score"] > confounding["majority"] + NOTABLE:
        typer.echo(
            "warning: the opening word tells what is to be forgotten from what is to be retained, so unlearning may "
            "learn the word instead of the harm; raise --opener-rows.",
            err=True,
        )
