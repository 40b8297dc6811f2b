"""Content hash of queries, whatever the place of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmirage.backends.prompts import image_bytes
from unmirage.schema import Query, content_hash


def digest_queries(queries: Sequence[Query]) -> str:
    """Hash of questions, labels, answers and pictures; each picture is read once, however many questions it has.

    Raises UserError where a picture cannot be read.
    """
    pictures: dict[Path, str] = {}
    for query in queries:
        if query.image is not None and query.image not in pictures:
            pictures[query.image] = content_hash(image_bytes(query.image, query.id))
    rows = [query.model_dump(mode="json", exclude={"image"}) for query in queries]
    return content_hash(rows, [pictures[query.image] if query.image else None for query in queries])
