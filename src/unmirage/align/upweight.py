"""Just train twice: rows that the model gets wrong are taken more often. Liu et al. 2021, arXiv 2107.09044.

Wrong is a row whose answer's first token is not the one that the model finds most likely after the question: for
safety data this tells a refusal from an answer, and needs no judge. In the paper the first model is one trained on the
same data for a short time; here it is the checkpoint that training starts from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from unmirage.align.batches import Encoded, collate
from unmirage.align.config import AlignConfig
from unmirage.align.features import Batch
from unmirage.align.processes import by_first, share, together
from unmirage.align.references import Asking, to_device
from unmirage.align.signals import Wanted, leading, read
from unmirage.runs import write_json


def repeated(
    data: Mapping[str, Encoded], asking: Asking, config: AlignConfig, folder: Path
) -> tuple[dict[str, list[int]], list[str]]:
    """Rows that stand more than once in `learn`, once for each further time, and what to tell of them.

    Which rows they are is kept in `folder`, so that an interrupted run goes on with the same.
    """
    if config.upweight == 1:
        return {}, []
    part, path = data["learn"], folder / "wrong.json"
    if not together(path.exists())[0]:
        found = sorted(row for rows in together(wrong_rows(part, asking)) for row in rows)
        by_first(lambda: write_json(path, found))
    wrong: list[int] = json.loads(path.read_text(encoding="utf-8"))
    return {"learn": wrong * (config.upweight - 1)}, [_note(len(wrong), len(part), config.upweight)]


def _note(wrong: int, among: int, times: int) -> str:
    if not wrong:
        return f"the model begins none of {among} answers otherwise than the data: upweight changes nothing here."
    if wrong == among:
        return f"the model begins all of {among} answers otherwise than the data: upweight favours none of them."
    return f"{wrong} of {among} learn rows, which the model begins otherwise, are taken {times} times as often."


@torch.no_grad()
def wrong_rows(part: Encoded, asking: Asking) -> list[int]:
    """The rows of this process's share whose answers the model begins otherwise."""
    rows = list(share(range(len(part))))
    wrong: list[int] = []
    asking.model.eval()
    loader: DataLoader[Batch] = DataLoader(
        Subset(part, rows), asking.batch_size, collate_fn=partial(collate, padding=asking.padding)
    )
    for batch in loader:
        wrong += [row for row, right in zip(batch["row"].tolist(), _begun(batch, asking), strict=True) if not right]
    return wrong


def _begun(batch: Batch, asking: Asking) -> list[bool]:
    """Whether the model finds the first token of each answer the most likely one."""
    with asking.autocast():
        logits = read(asking.model, to_device(batch, asking.model), Wanted(answers=True), asking.switches).logits
    assert logits is not None
    first = leading(logits.mask, torch.ones_like(logits.mask[:, 0], dtype=torch.long))[logits.mask]
    right: list[bool] = (logits.values[first].argmax(dim=-1) == logits.labels[first]).tolist()
    return right
