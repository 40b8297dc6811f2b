"""All judges by name: what the command line offers, and how each is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.judges import Judge
from unmirage.judges.choice import ChoiceJudge
from unmirage.judges.classifier import ClassifierJudge, read_meanings
from unmirage.judges.guards import GUARDS, NO_JUDGE, GuardJudge, guard_named
from unmirage.judges.keywords import vlguard_keywords
from unmirage.judges.lists import ListJudge, PhraseList, published
from unmirage.judges.rules import rules_judge
from unmirage.judges.truth import TruthJudge
from unmirage.judges.vqa import RULES, VqaJudge

if TYPE_CHECKING:
    from unmirage.servers import ChatServer


@dataclass(frozen=True)
class Entry:
    """What a judge looks at, in a line, and the function that makes it from the data files that were asked."""

    about: str
    make: Callable[[Sequence[Path]], Judge]


def _truth(data: Sequence[Path]) -> Judge:
    if not data:
        raise UserError("the truth judge needs the data files that were asked; name them with --data.")
    return TruthJudge.beside(*data)


def _scored(rule: str, _data: Sequence[Path]) -> Judge:
    return VqaJudge(rule)


def _listed(phrases: PhraseList, _data: Sequence[Path]) -> Judge:
    return ListJudge(phrases)


JUDGES: dict[str, Entry] = {
    "rules": Entry("our own refusal judge: who says that what cannot be done, and where", lambda _: rules_judge()),
    "vlguard": Entry("VLGuard's list with VLGuard's matching, for comparison", lambda _: vlguard_keywords()),
    "keywords": Entry("another name of vlguard", lambda _: vlguard_keywords()),
    "truth": Entry("the known answers of sandbox data", _truth),
    "choice": Entry("the right option of multiple-choice questions (ScienceQA)", lambda _: ChoiceJudge()),
    **{name: Entry(rule.about, partial(_scored, name)) for name, rule in RULES.items()},
    **{name: Entry(one.about, partial(_listed, one)) for name, one in published().items()},
}


@dataclass(frozen=True)
class JudgeOptions:
    """What judges that are models need besides their name.

    server: address of the server of `llm` judges, `concurrency` requests at once, `timeout` seconds for each attempt.
    picture: `llm` judges are shown the picture. labels: NAME=LABEL for classes of `classifier` judges. pair: these
    read the question too. policy: file with the policy of shieldgemma or llavaguard. batch_size: answers that a judge
    in this process reads at once.
    """

    server: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    picture: bool = False
    labels: tuple[str, ...] = ()
    pair: bool = False
    policy: Path | None = None
    batch_size: int = 16


def _classifier(folder: str, options: JudgeOptions) -> Judge:
    meanings = read_meanings(options.labels)
    return ClassifierJudge(Path(folder), meanings, pair=options.pair, batch_size=options.batch_size)


def _llm(model: str, options: JudgeOptions) -> Judge:
    from unmirage.judges.llm import LLMJudge

    return LLMJudge(_server("llm", model, options), picture=options.picture)


def _paper(model: str, options: JudgeOptions) -> Judge:
    from unmirage.judges.paper import PaperJudge, read_phrases

    return PaperJudge(_server("paper", model, options), read_phrases(options.policy))


def _server(kind: str, model: str, options: JudgeOptions) -> ChatServer:
    from unmirage.servers import ChatServer

    if options.server is None:
        raise UserError(f"the judge {kind}:{model} needs the address of its server; give it with --judge-server.")
    return ChatServer(options.server, model, concurrency=options.concurrency, timeout=options.timeout)


@dataclass(frozen=True)
class ModelEntry:
    """A judge that is a model: what it looks at, what follows its name and a colon, and how it is made from that."""

    about: str
    what: str
    make: Callable[[str, JudgeOptions], Judge]


MODELS: dict[str, ModelEntry] = {
    "classifier": ModelEntry("a text-classification model for refusals", "FOLDER", _classifier),
    "llm": ModelEntry("a language model behind a server: refusal and harm, asked apart", "MODEL", _llm),
    "paper": ModelEntry("the paper's measuring: VLGuard's list, phrases, a served model on relevance", "MODEL", _paper),
}
_GUARD = re.compile(rf"(?:(?P<labels>.+)\+)?(?P<guard>{'|'.join([*GUARDS, *NO_JUDGE])}):(?P<folder>.+)", re.DOTALL)


def judge_named(name: str, data: Sequence[Path] = (), options: JudgeOptions = JudgeOptions()) -> Judge:
    """The judge of that name; UserError where there is none.

    A model's name has its folder, or the name by which a server knows it, behind a colon: `classifier:FOLDER`,
    `llm:MODEL`, `wildguard:FOLDER`. A guard that judges harm alone takes its labels from the judge before a plus sign,
    `rules` where there is none: `llama-guard:FOLDER` is `rules+llama-guard:FOLDER`.
    """
    if name in JUDGES:
        return JUDGES[name].make(data)
    if guard := _guard(name, data, options):
        return guard
    kind, colon, model = name.partition(":")
    if kind in MODELS and colon and model:
        return MODELS[kind].make(model, options)
    if kind in MODELS or kind in GUARDS:
        what = MODELS[kind].what if kind in MODELS else "FOLDER"
        raise UserError(f"the judge {kind!r} is a model; name it with its {what.lower()}, as {kind}:{what}.")
    known = [
        *JUDGES,
        *(f"{kind}:{entry.what}" for kind, entry in MODELS.items()),
        *(f"{kind}:FOLDER" for kind in GUARDS),
    ]
    raise UserError(f"no judge is called {name!r}; choose among {', '.join(known)}.")


def _guard(name: str, data: Sequence[Path], options: JudgeOptions) -> Judge | None:
    """The guard, joined to a judge of refusals where one is named or needed; None where the name is not a guard's."""
    found = _GUARD.fullmatch(name)
    if found is None:
        return None
    folder = Path(found["folder"])
    guard = guard_named(found["guard"], folder, batch_size=options.batch_size, policy=options.policy)
    labels = found["labels"] or (None if guard.knows_refusal else "rules")
    return GuardJudge(guard, judge_named(labels, data, options) if labels else None)


def judges_named(
    names: Sequence[str],
    data: Sequence[Path] = (),
    options: JudgeOptions = JudgeOptions(),
    *,
    server: str | None = None,
) -> list[Judge]:
    """The judges of those names, each once; `server` is short for options that hold nothing else."""
    if server is not None:
        options = replace(options, server=server)
    judges = [judge_named(name, data, options) for name in names]
    return list({judge.name: judge for judge in judges}.values())
