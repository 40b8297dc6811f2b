"""The paraphrase attack: other wordings of the questions, from a file (see `attacks.paraphrases`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unmirage.attacks.paraphrases import read_paraphrases, variants_of
from unmirage.errors import UserError
from unmirage.schema import Text
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress


class Paraphrase(StressConfig):
    """file: paraphrases by the id of their question. cue: word with which the attack's wordings open; the others are
    then its control, left out with control=false.
    """

    file: Path
    cue: Text | None = None
    control: bool = True


@stress("paraphrase", about="other wordings of the questions, from a file", config=Paraphrase)
def paraphrase(plan: Plan, config: Paraphrase, work: Work) -> Plan:
    """The plan with paraphrases as its variants."""
    found = variants_of(plan.queries, read_paraphrases(config.file), config.cue, config.control)
    if not found.variants:
        raise UserError(f"{config.file} has no paraphrase of these questions ({found.told}); give one for this data.")
    work.note(f"paraphrases: {found.told}.")
    return replace(plan, variants=found.variants)
