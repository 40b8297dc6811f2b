"""What the answer to a question gives away: the bare fact, and the words of the answer that come before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.schema import Frozen, Text


class Fact(Frozen):
    """A fact, such as "boiling it over hot coals", and the `lead` that comes before it in the right answer: "The velm
    zorch is made by"; empty where only the fact is known.
    """

    fact: Text
    lead: str = ""


def read_facts(paths: Sequence[Path]) -> dict[str, Fact]:
    """Facts by query id from JSON files, later files before earlier ones.

    A file is an object from id to a fact or to {"fact": ..., "lead": ...}; or a truth file of the sandbox, whose
    `facts` and `answers` hold the same. Raises UserError naming file and id where something else is found.
    """
    found: dict[str, Fact] = {}
    for path in paths:
        found |= _facts(path, _content(path))
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); repair the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: facts are written as a JSON object from a query's id to its fact.")
    return content


def _facts(path: Path, content: dict[str, Any]) -> dict[str, Fact]:
    facts, answers = content.get("facts"), content.get("answers")
    if isinstance(facts, dict) and isinstance(answers, dict):
        content = {
            name: {"fact": fact, "lead": _lead(str(answers.get(name, "")), str(fact))} for name, fact in facts.items()
        }
    return {name: _fact(path, name, value) for name, value in content.items()}


def _lead(answer: str, fact: str) -> str:
    """What comes before the fact in an answer; empty where it does not hold it."""
    before, found, _ = answer.partition(fact)
    return before.strip() if found else ""


def _fact(path: Path, name: str, value: Any) -> Fact:
    try:
        return Fact.model_validate({"fact": value} if isinstance(value, str) else value)
    except ValueError as error:
        raise UserError(
            f'{path}, id {name!r}: {value!r} is no fact; write a text, or {{"fact": ..., "lead": ...}}.'
        ) from error
