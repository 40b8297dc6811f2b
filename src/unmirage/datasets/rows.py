"""A JSON list of rows read one row after the other: neither the file nor all its rows are ever in memory at once."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from unmirage.datasets.files import kind_of
from unmirage.errors import UserError

CHUNK = 1 << 20
"""Bytes that are read at a time."""
LONGEST = 64 << 20
"""Most characters of one row: a longer one is a bracket or a quote that never closes."""
_AFTER = frozenset(" \t\n\r,]")
"""What ends a number: without it, more of the number may follow in what is not read yet."""
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield number (from 0) and value of each member of a JSON list.

    Raises UserError where the file cannot be read, is no list, holds no row or is broken; what was yielded before the
    broken place was good.
    """
    try:
        with file.open("rb") as opened:
            yield from enumerate(_Window(file, opened).members())
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give the path of a data file.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give the path of a data file.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON in UTF-8: {error}; fetch it again.") from error


class _Window:
    """The part of a JSON list that is in memory, and where in the file that is."""

    def __init__(self, file: Path, opened: BinaryIO) -> None:
        self._file, self._opened = file, opened
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        self._line, self._column = 1, 1

    def members(self) -> Iterator[Any]:
        """The members of the list, one after the other; raises UserError where the file is no list, or an empty one."""
        first = self._next_mark()
        if first != "[":
            raise UserError(f"{self._file} {self._other()}; is it a data file?")
        self._at += 1
        if self._next_mark() == "]":
            raise UserError(f"{self._file} holds an empty list; there is nothing to read.")
        while True:
            yield self._value()
            mark = self._next_mark()
            self._at += 1
            if mark == "]":
                break
            if mark != ",":
                self._at -= 1
                raise self._broken("Expecting ',' or ']'" if mark else "the list does not end")
            self._next_mark()
        if self._next_mark():
            raise self._broken("Extra data")

    def _value(self) -> Any:
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > LONGEST:
                    self._at = min(error.pos, len(self._text))
                    raise self._broken(error.msg) from error
            except ValueError:
                raise self._told("the row that begins there has a number of too many digits") from None
            else:
                if self._ended or not isinstance(value, int | float) or self._text[end : end + 1] in _AFTER:
                    self._at = end
                    return value
            self._more()

    def _next_mark(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _more(self) -> None:
        """Let go of what was read and read on; more each time that a row is not at its end yet."""
        done, left = self._text[: self._at], self._text[self._at :]
        self._advance(done)
        data = self._opened.read(max(CHUNK, len(left)))
        self._ended = not data
        self._text, self._at = left + self._decoder.decode(data, final=self._ended), 0

    def _advance(self, done: str) -> None:
        lines = done.count("\n")
        self._line += lines
        self._column = len(done) - done.rfind("\n") if lines else self._column + len(done)

    def _broken(self, why: str) -> UserError:
        return self._told(why, "is not JSON")

    def _told(self, why: str, what: str = "cannot be read") -> UserError:
        self._advance(self._text[: self._at])
        place = f"line {self._line}, column {self._column}"
        return UserError(f"{self._file} {what}: {place}: {why}; correct it or fetch it again.")

    def _other(self) -> str:
        if not self._text:
            return "is empty"
        try:
            return f"holds {kind_of(self._value())}, not a list of rows"
        except UserError as error:
            raise error from None
