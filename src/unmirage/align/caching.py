"""What is computed once, before the first step, instead of in every step: references and image features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unmirage.align.batches import Encoded, collate
from unmirage.align.config import AlignConfig
from unmirage.align.data import digest, image_digest
from unmirage.align.features import ImageCache, Place, picture_features
from unmirage.align.processes import share, together
from unmirage.align.references import FILE_ROWS, AdapterOff, Asking, Reference, stored, to_device
from unmirage.align.signals import Wanted, base_of, read
from unmirage.align.store import RowStore
from unmirage.align.terms import Term
from unmirage.schema import content_hash

_PROBED = 4
_UNSUITED = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a model family that takes features otherwise may raise; it is said, and pixels are used."""
_CLOSE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Tolerance of logits from stored features, relative to the largest: pictures in another batch sum in another order."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where what is computed lies, and of which checkpoint it is."""

    root: Path
    revision: str


def references_for(
    terms: Sequence[Term], data: Mapping[str, Encoded], asking: Asking, keys: Keys, config: AlignConfig
) -> dict[str, Reference]:
    """A reference for each role whose terms need one; a term without need never builds one.

    "auto" stores what is small, and switches the adapter off where whole logits would have to be stored.
    """
    found: dict[str, Reference] = {}
    for role, part in data.items():
        needing = [term for term in terms if term.role == role and term.needs_reference]
        if not needing:
            continue
        large = config.tune != "full" and any(base_of(term.objective.signal) == "logits" for term in needing)
        if config.reference == "adapter" or (config.reference == "auto" and large):
            found[role] = AdapterOff(needing, asking.switches)
        else:
            what = (keys.revision, digest(part.queries), config.max_length, config.tune == "qlora", asking.dtype)
            found[role] = stored(needing, part, asking, keys.root, content_hash(*map(str, what)))
    return found


def use_features(data: Mapping[str, Encoded], asking: Asking, keys: Keys) -> str | None:
    """Computes the features of all pictures and lets the data give them, where what makes them is frozen.

    Returns a note where that was possible but did not give the same logits, so that pixels are used; None otherwise.
    """
    place = frozen_place(asking.model)
    rows = {role: [image_digest(query) for query in part.queries] for role, part in data.items()}
    if place is None or not any(digest for part in rows.values() for digest in part):
        return None
    packed = any(hasattr(parameter, "quant_state") for parameter in asking.model.parameters())  # of the tower too
    folder = keys.root / f"features-{keys.revision}-{place}-{asking.dtype}{'-4bit' if packed else ''}"
    asking.model.eval()
    fill = partial(_fill, ImageCache(RowStore(folder), place), data, rows, asking)
    if fault := _fault(fill, asking.dtype):
        return fault
    cache = ImageCache(RowStore(folder), place)  # anew: other processes have stored their share
    differences = (_difference(cache, part, rows[role], asking) for role, part in data.items())
    if fault := _fault(lambda: max(differences), asking.dtype):
        return fault
    for role, part in data.items():
        part.use(cache, rows[role])
    return None


def _fault(work: Callable[[], float], dtype: str) -> str | None:
    """Why features cannot be used, by the first process in which `work` fails or differs too much; in all of them."""
    fault = None
    try:
        difference = work()
        if difference > _CLOSE[dtype]:
            fault = f"Image features are not reused: the logits would differ by {difference:.1e} of the largest."
    except torch.OutOfMemoryError:
        raise
    except _UNSUITED as error:
        fault = f"Image features are not reused with this model family ({type(error).__name__}: {error})."
    return next(filter(None, together(fault)), None)


def frozen_place(model: Any) -> Place | None:
    """The last place up to which nothing of the way from pixels to decoder is trained."""
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    tower = {id(p) for p in network.get_encoder(modality="image").parameters()}
    if trained & tower:
        return None
    language = [network.get_decoder(), network.get_output_embeddings(), network.get_input_embeddings()]
    known = {id(p) for part in language for p in part.parameters()}
    return "tower" if trained - known else "projected"


def _fill(
    cache: ImageCache, data: Mapping[str, Encoded], rows: Mapping[str, Sequence[str | None]], asking: Asking
) -> float:
    """Stores the features of every picture that is not stored yet, each picture once; no difference is known yet."""
    places: dict[str, tuple[Encoded, int]] = {}
    for role, part in data.items():
        for row, digest_ in enumerate(rows[role]):
            if digest_ is not None:
                places.setdefault(digest_, (part, row))
    names = list(places)
    for start in share(range(0, len(names), FILE_ROWS)):
        block = [name for name in names[start : start + FILE_ROWS] if name not in cache.store]
        found = {name: _features(*places[name], cache.place, asking) for name in block}
        if block:
            cache.store.add({name + part: value for name, parts in found.items() for part, value in parts.items()})
    return 0.0


def _features(data: Encoded, row: int, place: Place, asking: Asking) -> dict[str, torch.Tensor]:
    """The features of one row's picture; one at a time, as families put several together in ways of their own."""
    batch = to_device(collate([data[row]], asking.padding), asking.model)
    with asking.autocast():
        return picture_features(asking.model, batch, place)


@torch.no_grad()
def _difference(cache: ImageCache, part: Encoded, digests: Sequence[str | None], asking: Asking) -> float:
    """Largest difference between logits from pixels and from stored features, as a share of the largest logit."""
    some = [(part[row], name) for row, name in enumerate(digests) if name is not None][:_PROBED]
    if not some:
        return 0.0
    logits = []
    for samples in ([sample for sample, _ in some], [cache.swap(sample, name) for sample, name in some]):
        batch = to_device(collate(samples, asking.padding), asking.model)
        with asking.autocast():
            found = read(asking.model, batch, Wanted(answers=True)).logits
        assert found is not None
        logits.append(found.values.float())
    return float((logits[0] - logits[1]).abs().max() / logits[0].abs().max())
