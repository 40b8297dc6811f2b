"""What a check found, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """`note`: worth knowing, nothing to put right. `problem`: something will fail; the exit code is then 1."""

    ok = "ok"
    note = "note"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One line; further lines of it are indented."""

    state: State
    text: str


@dataclass
class Section:
    """The findings about one thing."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def ok(self, text: str) -> None:
        """Adds what is as it should be."""
        self.findings.append(Finding(State.ok, text))

    def note(self, text: str) -> None:
        """Adds what is worth knowing."""
        self.findings.append(Finding(State.note, text))

    def problem(self, text: str) -> None:
        """Adds what will fail."""
        self.findings.append(Finding(State.problem, text))

    @property
    def is_well(self) -> bool:
        """Whether there is no problem."""
        return all(finding.state is not State.problem for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """The section as it is printed."""
        yield self.title
        for finding in self.findings:
            first, *others = finding.text.split("\n")
            yield f"  {finding.state:<8} {first}"
            yield from (f"  {'':<8} {line}" for line in others)
