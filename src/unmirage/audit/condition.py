"""Conditions for `--fail-if`, such as "mirage_score > majority + 0.1": a small language of its own, never `eval`.

    condition   := conjunction ("or" conjunction)*
    conjunction := comparison ("and" comparison)*
    comparison  := "not" comparison | sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)?
    sum         := product (("+" | "-") product)*
    product     := value (("*" | "/") value)*
    value       := number "%"? | name | "-" value | "(" condition ")"

A condition is true or false and a sum is a number; either in the place of the other is a mistake.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unmirage.errors import UserError

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)(%?)|([A-Za-z_][A-Za-z_0-9]*)|(<=|>=|==|!=|[<>+\-*/()]))")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
LONGEST = 500


def holds(text: str, values: Mapping[str, float]) -> bool:
    """Whether the condition is true of the values; UserError says what in it cannot be understood."""
    if len(text) > LONGEST:
        raise UserError(f"--fail-if {text[:40]!r}... is longer than {LONGEST} characters; write a shorter condition.")
    return _Parser(text, _tokens(text), values).whole()


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise UserError(f"--fail-if {text!r}: {text[place:].strip()[:20]!r} cannot be understood; {_HELP}.")
        number, percent, name, sign = match.groups()
        found.append(str(float(number) / 100) if percent else number or name or sign)
        place = match.end()
    return found


_HELP = 'write a comparison such as "mirage_score > 0.8" or "mirage_score > majority + 0.1 and shortcuts > 0"'


@dataclass
class _Parser:
    text: str
    rest: list[str]
    values: Mapping[str, float]

    def whole(self) -> bool:
        """Whether the condition holds; raises UserError where it is none, or something is left over."""
        try:
            result = self.truth(self.condition())
        except RecursionError:
            raise UserError(f"--fail-if {self.text[:40]!r}... has too many brackets; write a simpler one.") from None
        if self.rest:
            raise self.wrong()
        return result

    def condition(self) -> float | bool:
        """conjunction ("or" conjunction)*"""
        result = self.conjunction()
        while self.taken("or"):
            # The right side is read whatever the left is, so that a mistake in it is always found.
            other = self.truth(self.conjunction())
            result = self.truth(result) or other
        return result

    def conjunction(self) -> float | bool:
        """comparison ("and" comparison)*"""
        result = self.comparison()
        while self.taken("and"):
            other = self.truth(self.comparison())
            result = self.truth(result) and other
        return result

    def comparison(self) -> float | bool:
        """Reads "not" comparison, or a sum, or two sums with a sign of comparison between them."""
        if self.taken("not"):
            return not self.truth(self.comparison())
        left = self.sum()
        if self.peek() not in _COMPARE:
            return left
        compare = _COMPARE[self.rest.pop(0)]
        return compare(self.number(left), self.number(self.sum()))

    def sum(self) -> float | bool:
        """product (("+" or "-") product)*"""
        result = self.product()
        while (sign := self.peek()) in ("+", "-"):
            self.rest.pop(0)
            other = self.number(self.product())
            result = self.number(result) + (other if sign == "+" else -other)
        return result

    def product(self) -> float | bool:
        """value (("*" or "/") value)*; raises UserError for a division by zero."""
        result = self.value()
        while (sign := self.peek()) in ("*", "/"):
            self.rest.pop(0)
            other = self.number(self.value())
            if sign == "/" and other == 0:
                raise UserError(f"--fail-if {self.text!r} divides by zero; write a condition without that.")
            result = self.number(result) * other if sign == "*" else self.number(result) / other
        return result

    def value(self) -> float | bool:
        """Reads "-" value, or "(" condition ")", or a number, or a name; raises UserError for anything else."""
        if self.taken("-"):
            return -self.number(self.value())
        if self.taken("("):
            result = self.condition()
            if not self.taken(")"):
                raise self.wrong()
            return result
        token = self.peek()
        if token[:1].isdigit() or token[:1] == ".":
            return float(self.rest.pop(0))
        if token in self.values:
            return float(self.values[self.rest.pop(0)])
        if token.isidentifier() and token not in ("and", "or", "not"):
            raise UserError(f"--fail-if {self.text!r}: there is no {token!r}; the names are {', '.join(self.values)}.")
        raise self.wrong()

    def peek(self) -> str:
        return self.rest[0] if self.rest else ""

    def taken(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.rest.pop(0)
        return True

    def truth(self, value: float | bool) -> bool:
        if not isinstance(value, bool):
            raise self.wrong()
        return value

    def number(self, value: float | bool) -> float:
        if isinstance(value, bool):
            raise self.wrong()
        return value

    def wrong(self) -> UserError:
        where = f"at {self.rest[0]!r}" if self.rest else "at its end"
        return UserError(f"--fail-if {self.text!r} cannot be understood {where}; {_HELP}.")
