"""The verbs `attack` and `search`. Part of the command line, so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.attacks.edits import At, Change
from unmirage.attacks.goals import Goal
from unmirage.attacks.search.strategies import SearchName
from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.errors import UserError
from unmirage.judges import commands as judging
from unmirage.verbs import Format, Images, SharePrefix, Strict, load_all, load_queries, quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unmirage.schema import Query, Variant

_TARGETS = {
    Goal.bypass: "needs harmful questions",
    Goal.over_refusal: "needs harmless questions",
    Goal.flip: "needs questions",
}


class Edits(StrEnum):
    """What `attack` makes: one-word edits, or any other wording."""

    opening = "opening"
    substitute = "substitute"
    insert = "insert"
    delete = "delete"
    paraphrase = "paraphrase"


Where = Annotated[
    At, typer.Option("--at", help="Where, but for `opening`: begin, inner, end or any position of the question.")
]
GoalOption = Annotated[
    Goal,
    typer.Option(help="bypass: harmful questions answered; over-refusal: harmless ones refused; flip: label changes."),
]
Control = Annotated[
    bool, typer.Option("--control/--no-control", help="A neutral word at the same place, for each edit.")
]
Grammar = Annotated[
    bool, typer.Option("--keep-grammar", help="Only edits that pass a small grammar of English questions.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of neutral words and of every draw.")]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Address of a server with OpenAI's interface; key in OPENAI_API_KEY."),
]


def attack(
    data: Annotated[Path, typer.Argument(help="Data file with the questions.")],
    out: Annotated[Path, typer.Option(help="File for the variants, one JSON object a line.")],
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
    at: Where = At.any,
    goal: GoalOption = Goal.bypass,
    control: Control = True,
    keep_intent: Annotated[bool, typer.Option("--keep-intent", help="Leave content words alone.")] = False,
    keep_grammar: Grammar = False,
    paraphrases: Annotated[
        Path | None, typer.Option(help="JSON, JSON lines or CSV with paraphrases of the questions by their id.")
    ] = None,
    server: Server = None,
    model: Annotated[str | None, typer.Option(help="Model at --server that paraphrases.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Paraphrases of each question that are asked for.")] = 3,
    format: Annotated[Format, typer.Option(help="Format of the data file.")] = Format.vlguard,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Name of the part that this file is.")] = None,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Make variants of questions: one word differs and nothing else, with a neutral control beside each."""
    from unmirage.runs import write_text

    words = tuple(to or [])
    if edit is not Edits.paraphrase and (paraphrases or server or model):
        raise UserError("--paraphrases, --server and --model are for --edit paraphrase; leave them out or add it.")
    queries = load_queries(data, format.value, images, split, strict)
    mine = [query for query in queries if goal.concerns(query)]
    if edit is Edits.paraphrase:
        variants, told = _paraphrased(mine, words, control, paraphrases, server, model, shots, out)
    else:
        variants, told = _one_word(
            queries, Change(edit.value), words, at, goal, control, keep_intent, keep_grammar, seed
        )
    if not variants:
        other = " that open with another word" if edit is Edits.opening else " that such an edit fits"
        raise UserError(f"{data} holds no question to attack; {goal.value} {_TARGETS[goal]}{other}.")
    write_text(out, "".join(variant.model_dump_json() + "\n" for variant in variants))
    typer.echo(f"Variants: {out} ({told})")


def _one_word(
    queries: Sequence[Query], change: Change, words: tuple[str, ...], at: At, goal: Goal, control: bool,
    intent: bool, grammar: bool, seed: int,
) -> tuple[list[Variant], str]:  # fmt: skip
    from unmirage.attacks.static import OneWordAttack, one_word_variants

    found = one_word_variants(queries, OneWordAttack(change, words, at, goal, control, intent, grammar, seed))
    why = "open with the word already" if change is Change.opening else "have no such edit"
    controls = len(found.variants) - found.attacks
    beside = f" and {controls} neutral controls" if controls else ""
    return found.variants, f"{found.attacks}{beside}; {len(found.unchanged)} questions {why}"


def _paraphrased(
    queries: Sequence[Query], cues: tuple[str, ...], control: bool, file: Path | None, server: str | None,
    model: str | None, shots: int, out: Path,
) -> tuple[list[Variant], str]:  # fmt: skip
    from unmirage.attacks.official import is_official, official
    from unmirage.attacks.paraphrases import Rewriter, read_paraphrases, variants_of
    from unmirage.progress import Bars

    if (file is None) == (server is None):
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

        if model is None:
            raise UserError("--server needs --model, the name by which the server knows the model that paraphrases.")
        rewriter = Rewriter(ChatServer(server or "", model), out.with_name(f"{out.name}.rewrites.jsonl"))
        with Bars() as bars:
            found = rewriter.paraphrases(queries, cue, shots, control, bars.update)
    made = variants_of(queries, found, cue, control)
    return made.variants, made.told


def search(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint folder; with --server, the name of the model there.")
    ],
    data: Annotated[list[Path], typer.Argument(help="Data files with the questions.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    search: Annotated[
        SearchName,
        typer.Option(
            help="fixed: all edits, each counted; exhaustive: until one breaks, else a certificate; greedy: best "
            "positions first; gradient: the model's gradient ranks, the top ones are asked."
        ),
    ] = SearchName.exhaustive,
    edit: Annotated[
        list[Change] | None, typer.Option(help="opening (default), substitute, insert or delete; may be repeated.")
    ] = None,
    at: Where = At.any,
    goal: GoalOption = Goal.bypass,
    words: Annotated[
        list[str] | None, typer.Option(help="Words to put into questions, commas between them; may be repeated.")
    ] = None,
    lexicon: Annotated[
        list[Path] | None, typer.Option(help="File of words, one a line. Without words: the shipped openers.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="audit.json (or data to be audited) whose opening cues are the words.")
    ] = None,
    judge: Annotated[str, typer.Option(help="Who gives verdicts; `judge list` has all.")] = "rules",
    judge_server: judging.Server = None,
    judge_concurrency: judging.Concurrency = 8,
    judge_timeout: judging.Timeout = 60.0,
    judge_picture: judging.Picture = False,
    judge_label: judging.Meanings = None,
    judge_pair: judging.Pair = False,
    judge_policy: judging.Policy = None,
    judge_batch_size: judging.BatchSize = 16,
    budget: Annotated[int | None, typer.Option(min=1, help="Most distinct requests; the rest is unfinished.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Most questions, drawn by the seed.")] = None,
    control: Control = True,
    keep_intent: Annotated[
        bool, typer.Option("--keep-intent/--any-word", help="Leave content words alone, or edit any word.")
    ] = True,
    keep_grammar: Grammar = False,
    fluency: Annotated[
        float | None,
        typer.Option(min=0, help="Most nats a token by which an edit may make a question less likely to the model."),
    ] = None,
    places: Annotated[int | None, typer.Option(min=1, help="Greedy: positions that are tried; default all.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Gradient: edits of each question that are asked.")] = 10,
    label: Annotated[str | None, typer.Option(help="What results call the model.")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Name of a data file's part; once for each file, in order.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard,
    images: Images = None,
    seed: Seed = 0,
    backend: Annotated[BackendName | None, typer.Option(help="What answers; default hugging_face.")] = None,
    server: Server = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one attempt to get an answer.")] = 60.0,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter for the model, with vllm.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions asked at once; memory grows with it.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    share_prefix: SharePrefix = True,
    strict: Strict = False,
) -> None:
    """Ask a model which one-word edit breaks it, and for which questions none does."""
    from unmirage.attacks.search import Plan
    from unmirage.attacks.search import search as searched
    from unmirage.attacks.search.terminal import print_search
    from unmirage.backends.registry import open_backend
    from unmirage.judges.registry import JudgeOptions, judge_named
    from unmirage.progress import Bars

    asking = AskingOptions(
        backend, server, batch_size, max_new_tokens, concurrency, timeout, adapter, share_prefix, out
    )  # fmt: skip
    options = JudgeOptions(
        judge_server, judge_concurrency, judge_timeout, judge_picture, tuple(judge_label or ()), judge_pair,
        judge_policy, judge_batch_size,
    )  # fmt: skip
    local = asking.name is not BackendName.openai_server
    changes = tuple(dict.fromkeys(edit or [Change.opening]))
    plan = Plan(
        label or (Path(model).resolve().name if local else model), data[0].stem, search, goal,
        changes, _lexicon(changes, words or [], lexicon or [], audit, goal), at, seed, sample, control, keep_intent,
        keep_grammar, fluency, budget, places, top,
    )  # fmt: skip
    queries = load_all(data, format.value, images, split or [], strict)
    if local or ":" in judge:
        quiet_libraries()
    judged_by = judge_named(judge, data, options)
    with Bars() as bars:
        found = searched(plan, queries, open_backend(model, asking), judged_by, out, bars.update)
    print_search(found)
    typer.echo(f"Search: {out / 'search.json'}")


def _lexicon(
    changes: Sequence[Change], words: Sequence[str], files: Sequence[Path], audit: Path | None, goal: Goal
) -> tuple[str, ...]:
    """The words given by any of the three ways; where none is, the shipped ones, if any word is needed at all."""
    from unmirage.attacks.words import SHIPPED, checked_words, merged, words_of_audit, words_of_file

    given = checked_words([word.strip() for several in words for word in several.split(",")])
    found = merged(given, *(words_of_file(file) for file in files), words_of_audit(audit, goal) if audit else ())
    if set(changes) == {Change.delete}:
        if found:
            raise UserError("to take words out needs no words; leave out --words, --lexicon and --audit.")
        return ()
    return tuple(found or SHIPPED)
