"""Labelling in a terminal: single keys where somebody sits at it, lines where the input comes from elsewhere."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from unmirage.labelling.marks import CHOICES, HARM_QUESTION, HARMS, WARNING, Choice, Harm, Item, Mark
from unmirage.labelling.pictures import read_picture
from unmirage.labelling.session import Session
from unmirage.report.wording import printable

CHOICE_KEYS = dict(zip("12345", CHOICES, strict=True))
HARM_KEYS = {"y": Harm.YES, "n": Harm.NO, "c": Harm.CANNOT_SAY}
_CHOICES = "1 compliance  2 refusal  3 partial  4 irrelevant  5 cannot say"
COMMANDS = (
    "s put off to the end  b back  w write a note  o open the picture",
    "? this list  q save and quit",
)
QUIT = "q"
ENTER = ""
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_WIDEST = 100


class Keys(Protocol):
    """Where a person's input comes from."""

    def key(self) -> str:
        """One key, `ENTER` for the return key; `QUIT` at the end of the input."""

    def line(self) -> str:
        """One line; empty at the end of the input."""


class LineKeys:
    """Input without a terminal: one key a line, of which the first character counts."""

    def key(self) -> str:
        """The first character of the next line."""
        line = sys.stdin.readline()
        return line.strip()[:1].lower() if line else QUIT

    def line(self) -> str:
        """The next line."""
        return sys.stdin.readline().strip()


class TerminalKeys:
    """Input from a terminal, read key by key."""

    def key(self) -> str:
        """The next key, without waiting for the return key. Ctrl-C interrupts as ever."""
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal, termios.TCSADRAIN)  # what was typed ahead is kept
            pressed = os.read(terminal, 1)
            if pressed == b"\x1b":  # an arrow or another key of several bytes, which means nothing here
                pressed += os.read(terminal, 16) if select.select([terminal], [], [], 0.05)[0] else b""
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        known = {b"\n": ENTER, b"\r": ENTER, b"": QUIT, b"\x04": QUIT}
        return known.get(pressed, pressed.decode("latin-1").lower() if len(pressed) == 1 else "?")

    def line(self) -> str:
        """The next line."""
        return sys.stdin.readline().strip()


def keys_here() -> Keys:
    """Single keys where a person sits at the terminal, else lines."""
    return TerminalKeys() if sys.stdin.isatty() else LineKeys()


Hints = Callable[[int], str]


def label_in_terminal(session: Session, console: Console, keys: Keys, hints: Hints | None = None) -> None:
    """Asks for labels until all are given or the person quits.

    `hints` says more of an item than a blind person may see; only for settling disagreements.
    """
    with TemporaryDirectory(prefix="unmirage-") as folder:
        Asking(session, console, keys, Path(folder), hints).run()


def shown(text: str) -> str:
    """Model text that cannot steer a terminal: no control characters, nothing that turns the reading order."""
    return _REORDERING.sub("\ufffd", printable(text)) or "(empty)"


@dataclass
class Asking:
    """One person at one terminal. `note` is what was written for the item that is shown.

    Pictures are copied to `folder` under names of their own: those in a data set's folders may tell what is harmful.
    """

    session: Session
    console: Console
    keys: Keys
    folder: Path
    hints: Hints | None = None
    note: str = ""

    def run(self) -> None:
        """Warns, then asks item after item."""
        if self.session.current is None and not self.session.total:
            return
        if self._begin():
            while self._next():
                pass
        self._tell_end()

    def _begin(self) -> bool:
        self.console.print(Text(WARNING, style="bold"))
        self._tell_labels()
        if self.session.done:
            self._say(f"{self.session.done} of {self.session.total} are labelled already.")
        self._say("Enter begins, q quits.")
        return self.keys.key() != QUIT

    def _next(self) -> bool:
        """Shows and asks for one item; False where the person quits."""
        index = self.session.current
        if index is None:
            return self._all_done()
        said = self.session.said(index)
        self.note = said.note if said else ""
        self._show(self.session.item(index), index, said)
        return self._ask(index)

    def _all_done(self) -> bool:
        self._say("All are labelled. b goes back to the last one; Enter or q ends.")
        if self.keys.key() != "b":
            return False
        self.session.back()
        return True

    def _ask(self, index: int) -> bool:
        """Reads keys until the item is labelled, put off or left; False where the person quits."""
        while True:
            self._say(f"{_CHOICES}{'  Enter keep' if self.session.said(index) else ''}  ? more", style="dim")
            key = self.keys.key()
            if key == QUIT:
                return False
            if key in CHOICE_KEYS and self._ask_harm(index, CHOICE_KEYS[key]):
                return True
            if key not in CHOICE_KEYS and self._command(key, index):
                return True

    def _ask_harm(self, index: int, choice: Choice) -> bool:
        """Asks about harm and saves; False where the person takes the label back."""
        self._say(f"  {CHOICES[choice][0]}.")
        while True:
            self._say(HARM_QUESTION)
            self._say("y yes  n no  c cannot say  b another label", style="dim")
            key = self.keys.key()
            if key in HARM_KEYS:
                self.session.label(index, choice, HARM_KEYS[key], self.note)
                self._say(f"  {HARMS[HARM_KEYS[key]]}. Saved.")
                return True
            if key in ("b", QUIT):
                return False

    def _command(self, key: str, index: int) -> bool:
        """Does what a key says; True where another item comes next."""
        if key == "s":
            self.session.skip(index)
            self._say("  Put off to the end.")
        elif key == "b":
            return self._go_back()
        elif key == ENTER and self.session.said(index):
            self.session.forward()
        else:
            self._help(key, index)
            return False
        return True

    def _go_back(self) -> bool:
        if not self.session.can_go_back:
            self._say("  This is the first one.")
            return False
        self.session.back()
        return True

    def _help(self, key: str, index: int) -> None:
        if key == "w":
            self._say("Note, ended by Enter:")
            self.note = self.keys.line()
        elif key == "o":
            self._open(self.session.item(index), index)
        else:
            self._tell_labels()

    def _open(self, item: Item, index: int) -> None:
        picture = read_picture(item.image) if item.image is not None else None
        if picture is None:
            self._say("  The picture cannot be opened." if item.image else "  There is no picture.")
            return
        copy = self.folder / f"picture-{index}.{picture.kind.partition('/')[2]}"
        copy.write_bytes(picture.data)
        self._say(f"  {copy}")
        if sys.stdin.isatty():
            _launch(str(copy))

    def _show(self, item: Item, index: int, said: Mark | None) -> None:
        self.console.print()
        put_off = f", {self.session.put_off} put off" if self.session.put_off else ""
        self.console.print(Rule(f"{self.session.done} of {self.session.total} labelled{put_off}", align="left"))
        self._block("Question", shown(item.question))
        self._say("Picture: o opens it." if item.image else "No picture.", style="dim")
        self._block("Answer", shown(item.answer))
        if self.hints is not None:
            self._say(shown(self.hints(index)))
        if said is not None and said.choice is not None and said.harm is not None:
            note = f"; note: {shown(said.note)}" if said.note else ""
            self._say(f"So far: {CHOICES[said.choice][0]}, harm: {HARMS[said.harm]}{note}", style="bold")

    def _block(self, title: str, text: str) -> None:
        self._say(title, style="bold")
        self.console.print(Padding(Text(text), (0, 0, 0, 2)), width=min(self.console.width, _WIDEST))

    def _tell_labels(self) -> None:
        for key, choice in CHOICE_KEYS.items():
            name, meaning = CHOICES[choice]
            self._say(f"  {key}  {name}: {meaning}")
        for line in COMMANDS:
            self._say(f"  {line}")

    def _tell_end(self) -> None:
        more = "; the same command goes on from here" if self.session.done < self.session.total else ""
        self._say(f"{self.session.done} of {self.session.total} are labelled{more}.")

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=False)


def _launch(path: str) -> None:
    import typer

    typer.launch(path)
