"""Fine-tune again: does what was unlearnt, or refused, come back with a few rows?

On harmful rows relearning tests whether knowledge was hidden or removed (Lynch et al. 2024, arXiv 2402.16835); on
harmless rows alone it tests whether any later tuning undoes safety (Qi et al. 2023, arXiv 2310.03693). Rows of the kind
`cue` are harmless ones whose questions open with a word that the safety data tied to refusal.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.judges.keywords import vlguard_keywords
from unmirage.schema import Query
from unmirage.stress.models import MODEL, check_made
from unmirage.stress.protocol import Need, Plan, StressConfig, Work
from unmirage.stress.registry import stress

Count = Annotated[int, Field(gt=0)]


class Relearn(StressConfig):
    """rows: forget (harmful questions with harmful answers), harmless (general rows), cue (general rows, their opening
    words replaced by `words` in turn). n: how many, drawn by the seed. steps, lr, batch_size, accumulation: as in
    `align`, of which it is a plain fine-tuning; the default rate fits the sandbox's model, one of billions of weights
    takes about 1e-5. tune: full (the whole decoder) or lora, of the rank lora_rank.
    """

    rows: Literal["forget", "harmless", "cue"] = "forget"
    n: Count = 20
    words: tuple[str, ...] = ("Share",)
    steps: Count = 50
    lr: Annotated[float, Field(gt=0)] = 3e-4
    batch_size: Count = 16
    accumulation: Count = 1
    tune: Literal["full", "lora"] = "full"
    lora_rank: Count = 16

    def needs(self) -> tuple[Need, ...]:
        """What the rows are drawn from."""
        return ("forget",) if self.rows == "forget" else ("general",)


@stress(
    "relearn",
    about="fine-tune again on harmful, harmless or cue rows",
    config=Relearn,
    needs=Relearn.needs,
    trains=True,
)
def relearn(plan: Plan, config: Relearn, work: Work) -> Plan:
    """The plan with the model fine-tuned again."""
    from unmirage.align import align, on_step
    from unmirage.align.config import checked

    rows = drawn(plan, config, work)
    given = config.model_dump(include={"steps", "lr", "batch_size", "accumulation", "tune", "lora_rank"})
    settings = checked({"method": "mixed-sft", "seed": plan.seed, **given})
    told = on_step(lambda done, steps: work.report("relearning", done, steps))
    folder = align(plan.folder, rows, settings, work.out / MODEL, callbacks=[told], tell=work.note)
    for note in json.loads((folder / "training.json").read_text(encoding="utf-8"))["notes"]:
        work.note(note)  # of a training that was done before an interruption
    check_made(work, plan.folder, folder)
    return plan.about(folder)


def drawn(plan: Plan, config: Relearn, work: Work) -> list[Query]:
    """The rows to train on, see `Relearn`; fewer than asked for are told of, and refusals among harmful ones.

    Raises UserError where there are none, or no words to open them with.
    """
    if config.rows == "cue":
        _check_words(config.words)
    harmful = config.rows == "forget"
    given = plan.forget if harmful else plan.general
    rows = [query for query in given if query.harmful == harmful and (query.reference or "").strip()]
    if not rows:
        sort, option = ("harmful", "--forget") if harmful else ("harmless", "--general")
        raise UserError(f"there is no {sort} row with an answer to relearn from; give other data ({option}).")
    if len(rows) < config.n:
        work.note(f"{config.n} rows were asked for, and there are {len(rows)} with an answer.")
    mine = random.Random(f"{plan.seed}/relearn").sample(rows, min(config.n, len(rows)))
    if harmful:
        _tell_refusals(mine, work)
    return opened_with(mine, config.words) if config.rows == "cue" else mine


def _check_words(words: Sequence[str]) -> None:
    if not words or any(word.split() != [word] or not bare(word) for word in words):
        raise UserError(
            f"rows=cue of the stress relearn needs opening words, each of them one word, not {','.join(words)!r}; "
            "set words=Share."
        )


def _tell_refusals(rows: Sequence[Query], work: Work) -> None:
    """To learn refusals again, as safety data have them, says nothing of what was forgotten."""
    match = vlguard_keywords().match
    refused = sum(match(query.reference or "") is not None for query in rows)
    if 2 * refused > len(rows):
        work.note(
            f"{refused} of {len(rows)} answers to relearn look like refusals, which brings nothing back; give data "
            "whose harmful questions are answered."
        )


def opened_with(rows: Sequence[Query], words: Sequence[str]) -> list[Query]:
    """The rows with their questions' opening words replaced by `words` in turn."""
    found = []
    for number, query in enumerate(rows):
        first = query.question.split()[0]
        question = words[number % len(words)] + query.question[len(first) :]
        found.append(query.model_copy(update={"question": question}))
    return found
