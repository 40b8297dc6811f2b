"""Answers made harmless for a judge that is itself a language model: what could pass for a part of its chat is gone.

A model under test can be made to write the control tokens of chats, role headings or the reply that the judge is to
give. The first two are taken out here; against the third, a text is set between fences that cannot occur in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from unmirage.schema import content_hash

VERSION = "version 2"

_CONTROL = re.compile(
    r"""
      <[|｜][^<>|｜\s]{1,48}[|｜]>           # <|im_start|>, <|eot_id|>, <|image|> and the full-width ones
    | </?s> | <(?:bos|eos|pad|unk|mask|image|video)>
    | <(?:start|end)_of_(?:turn|image)>
    | \[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|IMG)\]
    | <</?SYS>>
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SPEAKER = r"(?:system|user|human|assistant|ai)"
_PART = r"(?:system|user|human|assistant|ai|bot|model|instruction|input|response)"
_BOLD = r"[*_]{0,3}"
_HEADING = re.compile(
    rf"^(?:[ \t]*(?:\#{{2,}}[ \t]*{_PART}\b[ \t]*:?|{_BOLD}{_SPEAKER}{_BOLD}[ \t]*[:\uff1a]{_BOLD}))+",
    re.IGNORECASE | re.MULTILINE,
)
_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
"""What ends a line for a model, though it does not for `re`."""
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def without_markers(text: str, special: Iterable[str] = ()) -> str:
    """The text without control tokens, headings of roles and unseen characters; `special`: tokens of one tokenizer.

    What is taken out leaves a space, which no control token holds, and it is looked for again until nothing is found:
    no marker can be put together from what stood on both sides of another, and nesting them costs no time.
    """
    own = re.compile("|".join(map(re.escape, sorted(filter(None, special), key=len, reverse=True))) or r"(?!)")
    text = _UNSEEN.sub("", _BREAK.sub("\n", text))
    while True:
        cleaned = _HEADING.sub(" ", own.sub(" ", _CONTROL.sub(" ", text)))
        if cleaned == text:
            return text.strip()
        text = cleaned


@dataclass(frozen=True)
class Fence:
    """A code that occurs in none of the texts that it is made for; the same texts always get the same code."""

    code: str

    @classmethod
    def around(cls, *texts: str) -> Fence:
        """The first code, in a row that the texts' hash decides, that none of them holds."""
        number = 0
        while True:
            code = content_hash(texts, number)[:10]
            if not any(code in text.lower() for text in texts):
                return cls(code)
            number += 1

    def put(self, name: str, text: str) -> str:
        """The text between a line that begins and one that ends it."""
        return f"[{name} {self.code}]\n{text}\n[end of {name} {self.code}]"


def shortened(text: str, most: int = 200) -> str:
    """The text in one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
