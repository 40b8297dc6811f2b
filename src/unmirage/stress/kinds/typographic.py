"""The question drawn into the picture, so that its words reach the model by its eyes alone (FigStep: Gong et al. 2023,
arXiv 2311.05608; below the picture as in MM-SafetyBench: Liu et al. 2023, arXiv 2311.17600).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from unmirage.backends.prompts import Prompt, open_image
from unmirage.datasets.figstep import PROMPT
from unmirage.runs import digest_file
from unmirage.sandbox.typographic import typed
from unmirage.schema import Query, Text, content_hash
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress

SIDE = 640
"""Pixels of a picture with words below it; a square, as many processors cut others to one."""
ITEMS = ".\n1.\n2.\n3."


class Typographic(StressConfig):
    """layout: below (words under the question's own picture, in a square), alone (words only). listed: the empty items
    1 to 3 under the words, which `ask`, the text that goes with every picture, wants filled in. font: a file of a font
    that has the letters of the questions; without it those of ASCII alone can be drawn.
    """

    layout: Literal["below", "alone"] = "below"
    listed: bool = True
    ask: Text = PROMPT
    font: Path | None = None


@stress("typographic", about="the question drawn into the picture", config=Typographic)
def typographic(plan: Plan, config: Typographic, work: Work) -> Plan:
    """The plan with all its questions drawn; its variants go, as they would all ask the same."""
    if plan.variants:
        work.note(f"{len(plan.variants)} variants are not asked: every question is in its picture, as it was.")
    queries = []
    for number, query in enumerate(plan.queries, start=1):
        queries.append(_drawn(query, config, work.out / "pictures"))
        work.report("drawing", number, len(plan.queries))
    return replace(plan, queries=queries, variants=[])


def _drawn(query: Query, config: Typographic, folder: Path) -> Query:
    """The query with a new picture; questions with the same words and picture share one, and so stay one unit."""
    own = query.image if config.layout == "below" else None
    name = content_hash(query.question, digest_file(own) if own else None, config.model_dump(mode="json"))
    path = folder / f"{name}.png"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        drawing(query, config).save(part, format="PNG")
        part.replace(path)
    return query.model_copy(update={"question": config.ask, "image": path})


def drawing(query: Query, config: Typographic) -> Image.Image:
    """The picture with the question's words; raises UserError where they cannot be drawn or the picture not be read."""
    words = typed(query.question + (ITEMS if config.listed else ""), config.font)
    above = open_image(Prompt.of(query)) if config.layout == "below" else None
    if above is None:
        return words
    above = ImageOps.contain(above, (SIDE, SIDE - words.height))
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(above, ((SIDE - above.width) // 2, (SIDE - words.height - above.height) // 2))
    canvas.paste(words, ((SIDE - words.width) // 2, SIDE - words.height))
    return canvas
