"""The verbs `attack` and `search`. Part of the command line, so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.attacks.edits import At, Change
from unmirage.attacks.goals import Goal, none_to_attack
from unmirage.attacks.search.strategies import SearchName
from unmirage.backends.registry import BackendName
from unmirage.errors import UserError
from unmirage.options import (
    AdaptedAsking,
    DataFiles,
    ModelLabel,
    ModelName,
    OneJudge,
    Reading,
    RunFolder,
    Sample,
    grouped,
)
from unmirage.quiet import quiet_libraries
from unmirage.verbs import Format, Images, Strict, load_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unmirage.attacks.search import Plan
    from unmirage.schema import Query, Variant


class Edits(StrEnum):
    """What `attack` makes: one-word edits, or any other wording."""

    opening = "opening"
    substitute = "substitute"
    insert = "insert"
    delete = "delete"
    paraphrase = "paraphrase"


@dataclass(frozen=True)
class Editing:
    """What edits are for and where they are made."""

    at: Annotated[
        At, typer.Option("--at", help="Where, but for `opening`: begin, inner, end or any position of the question.")
    ] = At.any
    goal: Annotated[
        Goal,
        typer.Option(
            help="bypass: harmful questions answered; over-refusal: harmless ones refused; flip: label changes."
        ),
    ] = Goal.bypass
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="A neutral word at the same place, for each edit.")
    ] = True
    keep_grammar: Annotated[
        bool, typer.Option("--keep-grammar", help="Only edits that pass a small grammar of English questions.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Seed of neutral words and of every draw.")] = 0


@dataclass(frozen=True)
class Paraphrasing:
    """Where paraphrases come from."""

    paraphrases: Annotated[
        Path | None, typer.Option(help="JSON, JSON lines or CSV with paraphrases of the questions by their id.")
    ] = None
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of a server with OpenAI's interface; key in OPENAI_API_KEY."),
    ] = None
    model: Annotated[str | None, typer.Option(help="Model at --server that paraphrases.")] = None
    shots: Annotated[int, typer.Option(min=1, help="Paraphrases of each question that are asked for.")] = 3

    @property
    def is_given(self) -> bool:
        """Whether paraphrases are meant at all."""
        return bool(self.paraphrases or self.server or self.model)


@grouped
def attack(
    data: Annotated[Path, typer.Argument(help="Data file with the questions.")],
    out: Annotated[Path, typer.Option(help="File for the variants, one JSON object a line.")],
    *,
    to: Annotated[
        list[str] | None,
        typer.Option(help="Word to put into questions; repeat it for K variants of each. Of paraphrases: their cue."),
    ] = None,
    edit: Annotated[
        Edits,
        typer.Option(
            help="opening: in place of the first word; substitute: of any word; insert; delete; paraphrase: other "
            "wordings, of --paraphrases or --server."
        ),
    ] = Edits.opening,
    editing: Editing,
    keep_intent: Annotated[bool, typer.Option("--keep-intent", help="Leave content words alone.")] = False,
    paraphrasing: Paraphrasing,
    format: Annotated[Format, typer.Option(help="Format of the data file.")] = Format.vlguard,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Name of the part that this file is.")] = None,
    strict: Strict = False,
) -> None:
    """Make variants of questions: one word differs and nothing else, with a neutral control beside each.

    Other wordings of whole questions, from a file or a server, are paraphrases and are named so.
    """
    from unmirage.runs import write_text

    words, goal = tuple(to or []), editing.goal
    if edit is not Edits.paraphrase and paraphrasing.is_given:
        raise UserError("--paraphrases, --server and --model are for --edit paraphrase; leave them out or add it.")
    queries = load_queries(data, format.value, images, split, strict)
    if edit is Edits.paraphrase:
        mine = [query for query in queries if goal.concerns(query)]
        variants, told = _paraphrased(mine, words, editing.control, paraphrasing, out)
    else:
        variants, told = _one_word(queries, Change(edit.value), words, editing, keep_intent)
    if not variants:
        raise none_to_attack(str(data), goal, opening=edit is Edits.opening)
    write_text(out, "".join(variant.model_dump_json() + "\n" for variant in variants))
    typer.echo(f"Variants: {out} ({told})")


def _one_word(
    queries: Sequence[Query], change: Change, words: tuple[str, ...], how: Editing, intent: bool
) -> tuple[list[Variant], str]:
    from unmirage.attacks.static import OneWordAttack, one_word_variants

    wanted = OneWordAttack(change, words, how.at, how.goal, how.control, intent, how.keep_grammar, how.seed)
    found = one_word_variants(queries, wanted)
    why = "open with the word already" if change is Change.opening else "have no such edit"
    controls = len(found.variants) - found.attacks
    beside = f" and {controls} neutral controls" if controls else ""
    return found.variants, f"{found.attacks}{beside}; {len(found.unchanged)} questions {why}"


def _paraphrased(
    queries: Sequence[Query], cues: tuple[str, ...], control: bool, how: Paraphrasing, out: Path
) -> tuple[list[Variant], str]:
    from unmirage.attacks.official import is_official, official
    from unmirage.attacks.paraphrases import Rewriter, read_paraphrases, variants_of
    from unmirage.progress import Bars

    file = how.paraphrases
    if (file is None) == (how.server is None):
        raise UserError("paraphrases come from a file or from a model: give --paraphrases, or --server with --model.")
    if len(cues) > 1:
        raise UserError("paraphrases have one cue; give --to once.")
    cue = cues[0] if cues else None
    if file is not None and cue is None and is_official(file):
        wordings = official(file, queries)
        return wordings.variants, wordings.told
    if file is not None:
        found = read_paraphrases(file)
    else:
        from unmirage.servers import ChatServer

        if how.model is None:
            raise UserError("--server needs --model, the name by which the server knows the model that paraphrases.")
        rewriter = Rewriter(ChatServer(how.server or "", how.model), out.with_name(f"{out.name}.rewrites.jsonl"))
        with Bars() as bars:
            found = rewriter.paraphrases(queries, cue, how.shots, control, bars.update)
    made = variants_of(queries, found, cue, control)
    return made.variants, made.told


@dataclass(frozen=True)
class Words:
    """Where the words of a search come from."""

    words: Annotated[
        list[str] | None, typer.Option(help="Words to put into questions, commas between them; may be repeated.")
    ] = None
    lexicon: Annotated[
        list[Path] | None, typer.Option(help="File of words, one a line. Without words: the shipped openers.")
    ] = None
    audit: Annotated[
        Path | None, typer.Option(help="audit.json (or data to be audited) whose opening cues are the words.")
    ] = None


@dataclass(frozen=True)
class _Search:
    search: Annotated[
        SearchName,
        typer.Option(
            help="fixed: all edits, each counted; exhaustive: until one breaks, else a certificate; greedy: best "
            "positions first; gradient: the model's gradient ranks, the top ones are asked."
        ),
    ] = SearchName.exhaustive
    edit: Annotated[
        list[Change] | None, typer.Option(help="opening (default), substitute, insert or delete; may be repeated.")
    ] = None


@dataclass(frozen=True)
class Searching(Words, Editing, _Search):
    """What is searched and how far; the fields of the last base come first."""

    budget: Annotated[int | None, typer.Option(min=1, help="Most distinct requests; the rest is unfinished.")] = None
    sample: Sample = None
    keep_intent: Annotated[
        bool, typer.Option("--keep-intent/--any-word", help="Leave content words alone, or edit any word.")
    ] = True
    fluency: Annotated[
        float | None,
        typer.Option(min=0, help="Most nats a token by which an edit may make a question less likely to the model."),
    ] = None
    places: Annotated[int | None, typer.Option(min=1, help="Greedy: positions that are tried; default all.")] = None
    top: Annotated[int, typer.Option(min=1, help="Gradient: edits of each question that are asked.")] = 10

    def plan(self, model: str, data: str) -> Plan:
        """What is searched in the data of that name; UserError for words that are none."""
        from unmirage.attacks.search import Plan

        changes = tuple(dict.fromkeys(self.edit or [Change.opening]))
        return Plan(
            model, data, self.search, self.goal, changes, _lexicon(changes, self), self.at, self.seed, self.sample,
            self.control, self.keep_intent, self.keep_grammar, self.fluency, self.budget, self.places, self.top,
        )  # fmt: skip


@grouped
def search(
    model: ModelName,
    data: DataFiles,
    out: RunFolder,
    *,
    searching: Searching,
    label: ModelLabel = None,
    reading: Reading,
    judged: OneJudge,
    asked: AdaptedAsking,
) -> None:
    """Ask a model which one-word edit breaks it, and for which questions none does."""
    from unmirage.attacks.search import search as searched
    from unmirage.attacks.search.terminal import print_search
    from unmirage.backends.registry import open_backend
    from unmirage.progress import Bars

    asking = asked.options(out)
    local = asking.name is not BackendName.openai_server
    plan = searching.plan(label or (Path(model).resolve().name if local else model), data[0].stem)
    queries = reading.queries(data)
    if local or ":" in judged.judge:
        quiet_libraries()
    judged_by = judged.made(data)
    with Bars() as bars:
        found = searched(plan, queries, open_backend(model, asking), judged_by, out, bars.update)
    print_search(found)
    typer.echo(f"Search: {out / 'search.json'}")


def _lexicon(changes: Sequence[Change], given: Searching) -> tuple[str, ...]:
    """The words given by any of the three ways; where none is, the shipped ones, if any word is needed at all."""
    from unmirage.attacks.words import SHIPPED, checked_words, merged, words_of_audit, words_of_file

    words = checked_words([word.strip() for several in given.words or () for word in several.split(",")])
    audited = words_of_audit(given.audit, given.goal) if given.audit else ()
    found = merged(words, *(words_of_file(file) for file in given.lexicon or ()), audited)
    if set(changes) == {Change.delete}:
        if found:
            raise UserError("to take words out needs no words; leave out --words, --lexicon and --audit.")
        return ()
    return tuple(found or SHIPPED)
