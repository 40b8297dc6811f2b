"""What a model holds where a fact is due: hidden states after a forced beginning, and the rank of the fact itself.

A row is a question with the beginning of its answer up to the fact: "Sure, here it is. The velm zorch is made by". What
comes next, its first word, is the row's class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmirage.audit.model.edits import bare
from unmirage.audit.model.encoding import Local
from unmirage.backends.manner import check_forced
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.schema import Query
from unmirage.stress.facts import Fact

ENDING = 2
"""Words before a fact by which the place of a fact is known in other answers: "made by", "in a"."""


@dataclass(frozen=True, slots=True)
class Row:
    """A question, the beginning of its answer up to the fact, and the fact."""

    query: Query
    beginning: str
    fact: str

    @property
    def word(self) -> str:
        """The fact's first word: the class."""
        return bare(self.fact.split()[0])

    @property
    def form(self) -> str:
        """How the sentence goes on into the fact."""
        return ending(self.beginning)


@dataclass(frozen=True, slots=True)
class Reading:
    """Of each row the hidden states of the layers at the last token of the beginning, each (n, d), and the rank of the
    fact's first token among all tokens there, from 1.
    """

    states: Mapping[int, Tensor]
    ranks: list[int]


def ending(text: str) -> str:
    """The last words of a beginning."""
    return " ".join(text.split()[-ENDING:]).lower()


def rows_of_facts(queries: Sequence[Query], facts: Mapping[str, Fact], prefix: str) -> list[Row]:
    """The rows of queries whose facts are known; `prefix` comes before every beginning."""
    found = [(query, facts[query.id]) for query in queries if query.id in facts]
    return [Row(query, f"{prefix} {fact.lead}".strip(), fact.fact) for query, fact in found]


def rows_of_answers(queries: Sequence[Query], endings: Sequence[str], prefix: str) -> list[Row]:
    """The rows of queries in whose answer one of the endings stands: the fact is what follows the last of them."""
    made = [(query, _parted(query.reference or "", endings)) for query in queries]
    return [Row(query, _begun(parts[0], prefix), parts[1]) for query, parts in made if parts is not None]


def _parted(answer: str, endings: Sequence[str]) -> tuple[str, str] | None:
    """An answer before and from its fact on; None where none of the endings is in it."""
    words = answer.split()
    for at in range(len(words) - 1, ENDING - 1, -1):
        if " ".join(words[at - ENDING : at]).lower() in endings:
            return " ".join(words[:at]), " ".join(words[at:])
    return None


def _begun(lead: str, prefix: str) -> str:
    """The lead behind the prefix, once: an answer of the data may begin with it already."""
    return lead if not prefix or lead.startswith(prefix) else f"{prefix} {lead}"


def read_rows(local: Local, rows: Sequence[Row], layers: Sequence[int], tell: Callable[[int], object]) -> Reading:
    """Hidden states and ranks of the rows, in batches; `tell` gets how many are read.

    Raises UserError where a picture cannot be read, and where a fact begins in the middle of a token.
    """
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    ranks: list[int] = []
    order: list[int] = []
    for batch in _batches(rows, local.batch_size):
        mine = [rows[at] for at in batch]
        firsts = [_first_token(local, row) for row in mine]
        inputs = _inputs(local, mine).to(local.model.device)
        with torch.inference_mode():
            out = local.model(**inputs, output_hidden_states=True, use_cache=False)
        for layer in layers:
            states[layer].append(out.hidden_states[layer + 1][:, -1].float().cpu())
        ranks += _ranks(out.logits[:, -1].float().cpu(), firsts)
        order += batch
        tell(len(order))
    back = torch.tensor(order).argsort()
    found = {layer: torch.cat(parts)[back] for layer, parts in states.items()}
    return Reading(found, [ranks[at] for at in back.tolist()])


def _ranks(logits: Tensor, tokens: Sequence[int]) -> list[int]:
    """The rank of each row's token, from 1; logits are of shape (rows, vocabulary)."""
    return [int((row > row[token]).sum()) + 1 for row, token in zip(logits, tokens, strict=True)]


def _batches(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Numbers of rows, those with and those without a picture apart."""
    for bare_ in (True, False):
        mine = [at for at, row in enumerate(rows) if (row.query.image is None) == bare_]
        yield from (mine[start : start + size] for start in range(0, len(mine), size))


def _inputs(local: Local, rows: Sequence[Row]) -> Any:
    texts = [_rendered(local, row.query, row.beginning) for row in rows]
    images = [[image] for row in rows if (image := open_image(Prompt.of(row.query))) is not None]
    pictures = {"images": images} if images else {}
    special = adds_special_tokens(local.processor, texts[0])
    found = local.processor(text=texts, **pictures, padding=True, return_tensors="pt", add_special_tokens=special)
    found.pop("labels", None)
    check_forced(local.processor, found["input_ids"][0], rows[0].beginning)
    return found


def _rendered(local: Local, query: Query, answer: str) -> str:
    chat = turns(Prompt.of(query), answer)
    text: str = local.processor.apply_chat_template(chat, tokenize=False, continue_final_message=True)
    return text


def _first_token(local: Local, row: Row) -> int:
    """The token that comes next where the fact does."""
    tokenizer = local.processor.tokenizer
    texts = [_rendered(local, row.query, text) for text in (row.beginning, f"{row.beginning} {row.fact}")]
    before, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise UserError(
            f"the fact of query {row.query.id!r} does not begin with a token of its own behind {row.beginning!r}; "
            "leave it out."
        )
    return int(whole[len(before)])


def shared_classes(train: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """The classes that both have, the most frequent of training first."""
    counts = Counter(row.word for row in train)
    there = {row.word for row in test}
    return [word for word, _ in counts.most_common() if word in there]
