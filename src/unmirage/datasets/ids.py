"""Ids that must differ: one that comes again gets a number."""

from __future__ import annotations


class Ids:
    """The ids of a data set so far."""

    def __init__(self) -> None:
        """None yet."""
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def __contains__(self, one: object) -> bool:
        """Whether an id was there before."""
        return one in self._taken

    def add(self, wanted: str) -> str:
        """The id itself or, where it was there before, with the first free number (`<id>#2`, `#3`, ...), now taken.

        The search goes on behind the number that the same id got last, as none before it is free: each step takes time
        once, however often an id comes again.
        """
        unique, again = wanted, self._last.get(wanted, 1)
        while unique in self._taken:
            again += 1
            unique = f"{wanted}#{again}"
        if unique != wanted:
            self._last[wanted] = again
        self._taken.add(unique)
        return unique
