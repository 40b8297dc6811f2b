"""Guard models: they say whether an answer does harm, each with its own prompt and its own strict reader.

Most look at harm alone, and "safe" is not "refused". Such a guard is therefore joined to a judge of refusals: the label
is that judge's, `harm` the guard's, and the name holds both. WildGuard says both itself. What a guard says in any other
form than its own is `unparsed`, with the words kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unmirage.errors import UserError
from unmirage.judges.guards.contract import Guard
from unmirage.judges.guards.formats import FormatGuard
from unmirage.judges.guards.judge import GuardJudge
from unmirage.judges.guards.llama_guard import LlamaGuard
from unmirage.judges.guards.policies import LLAVAGUARD_POLICY, NO_JUDGE, SHIELDGEMMA_POLICIES, LlavaGuard, ShieldGemma
from unmirage.judges.guards.readers import read_wildguard, read_yes_or_no

__all__ = ["GUARDS", "NO_JUDGE", "GuardEntry", "GuardJudge", "guard_named"]


@dataclass(frozen=True)
class GuardEntry:
    """A guard that can be named: what it looks at in a line, and how it is made from folder, batch size and policy."""

    about: str
    make: Callable[[Path, int, Path | None], Guard]


def _llama_guard(folder: Path, batch_size: int, _policy: Path | None) -> Guard:
    return LlamaGuard(folder, batch_size=batch_size)


def _wildguard(folder: Path, batch_size: int, _policy: Path | None) -> Guard:
    return FormatGuard("wildguard", folder, read_wildguard, new_tokens=32, knows_refusal=True, batch_size=batch_size)


def _harmbench(kind: str, folder: Path, batch_size: int, _policy: Path | None) -> Guard:
    return FormatGuard(kind, folder, read_yes_or_no, new_tokens=1, most_answer=512, batch_size=batch_size)


def _shieldgemma(folder: Path, batch_size: int, policy: Path | None) -> Guard:
    policies = [line.strip() for line in _policy_text(policy).splitlines() if line.strip()] if policy else None
    return ShieldGemma(folder, policies or SHIELDGEMMA_POLICIES, batch_size=batch_size)


def _llavaguard(folder: Path, batch_size: int, policy: Path | None) -> Guard:
    return LlavaGuard(folder, _policy_text(policy) if policy else LLAVAGUARD_POLICY, batch_size=batch_size)


def _policy_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the policy cannot be read ({error}); give a file of UTF-8 text.") from error
    if not text:
        raise UserError(f"{path} is empty; write the guard's policy there.")
    return text


GUARDS: Mapping[str, GuardEntry] = {
    "llama-guard": GuardEntry("Llama Guard 3 or 4: harm of the answer, with the picture where it sees", _llama_guard),
    "wildguard": GuardEntry("WildGuard: refusal and harm of the answer, text alone", _wildguard),
    "harmbench-cls": GuardEntry("HarmBench's classifier: harm, text alone", partial(_harmbench, "harmbench-cls")),
    "harmbench-val-cls": GuardEntry(
        "HarmBench's validation classifier: harm, text alone", partial(_harmbench, "harmbench-val-cls")
    ),
    "shieldgemma": GuardEntry("ShieldGemma for text: harm by policy, with its probability", _shieldgemma),
    "llavaguard": GuardEntry("LlavaGuard: harm by policy, with the picture; trained on pictures alone", _llavaguard),
}


def guard_named(name: str, folder: Path, *, batch_size: int = 16, policy: Path | None = None) -> Guard:
    """The guard of that name in a folder; UserError where there is none, or one that cannot judge answers."""
    if name in NO_JUDGE:
        raise UserError(NO_JUDGE[name])
    if name not in GUARDS:
        raise UserError(f"no guard is called {name!r}; choose among {', '.join(GUARDS)}.")
    return GUARDS[name].make(folder, batch_size, policy)
