"""The audit as one self-contained page: no script, no network, everything that a model said escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unmirage.audit.model import figures
from unmirage.audit.model.results import Attribution, Effect, Example, ModelAudit, SideBySide
from unmirage.audit.model.sidebyside import against_untouched, near_sentence, untouched_sentence
from unmirage.audit.model.summary import headline, order
from unmirage.report import wording
from unmirage.report.images import Picture, embed
from unmirage.schema import Query

METRICS = {
    "refusal": "Refusals",
    "leaning": "Leaning: refused +1, off topic 0, answered −1, halved",
    "score": "Score: log-odds of refusing, in nats",
}


@dataclass(frozen=True)
class Tinted:
    """One word of a question with the tint of its share."""

    text: str
    sign: str
    opacity: float
    tip: str


@dataclass(frozen=True)
class Refusal:
    """One refusal taken apart, ready to be shown."""

    found: Attribution
    occluded: list[Tinted]
    gradient: list[Tinted]
    heat: Markup | None
    plain: Markup | None


@dataclass(frozen=True)
class Reply:
    """An answer, or how long it is where it may not be shown."""

    text: str
    hidden: int


def write_page(audit: ModelAudit, queries: Sequence[Query], path: Path, *, show_harmful: bool = False) -> Path:
    """Write the page to `path`; answers to harmful questions that are no refusals are hidden unless `show_harmful`."""
    from unmirage.runs import write_text

    return write_text(path, render(audit, queries, show_harmful=show_harmful))


def render(audit: ModelAudit, queries: Sequence[Query], *, show_harmful: bool) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("unmirage.audit.model"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    functions = ("percent", "interval", "points", "points_interval", "printable")
    environment.filters.update({name: getattr(wording, name) for name in functions})
    images = {query.id: query.image for query in queries}
    return environment.get_template("audit_model.html.j2").render(
        audit=audit,
        headline=headline(audit),
        forests=_forests(audit.records),
        sides=[side for one in _sides(audit) for side in _both(one)],
        refusals=_refusals(audit.attributions, images),
        examples=[(one, *_replies(one, show_harmful)) for one in audit.examples],
        records=sorted(audit.records, key=order),
        metrics=METRICS,
        show_harmful=show_harmful,
        style=Markup(_style()),
    )


def _style() -> str:
    shared = files("unmirage.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    own = files("unmirage.audit.model").joinpath("templates", "audit_model.css").read_text(encoding="utf-8")
    return shared + own


def _sides(audit: ModelAudit) -> list[SideBySide]:
    """The pictures of data and model, where the data are known; the one that tells answers apart first."""
    rank = {"leaning": 0, "refusal": 1, "score": 2}
    known = [one for one in audit.side_by_side if any(p.data_rate is not None for p in one.points)]
    return sorted(known, key=lambda one: rank[one.metric])


def _both(one: SideBySide) -> list[tuple[str, str, Markup, str]]:
    """(metric, zero, figure, what it tells), against control words and against words that the data do not touch."""
    found = [(METRICS[one.metric], "zero: neutral and random words", figures.scatter(one), _r(one))]
    if moved := against_untouched(one):
        zero = "zero: the other words that the data do not tie to refusal"
        found.append((METRICS[one.metric], zero, figures.scatter(moved), near_sentence(moved)))
    return found


def _r(one: SideBySide) -> str:
    few = f"The data have {one.n} of these words at the opening: too few for a correlation."
    known = few if one.r is None else f"Pearson's r = {one.r:.2f} over the {one.n} words that the data have."
    return f"{known} {untouched_sentence(one)}".strip()


def _forests(records: Sequence[Effect]) -> list[tuple[str, str, Markup]]:
    """(metric, sort of questions, figure), for what is a rate."""
    found = []
    for metric in ("refusal", "leaning"):
        for harmful in (True, False):
            mine = [
                r for r in records
                if (r.metric, r.harmful, r.role) == (metric, harmful, "candidate") and r.minus_control is not None
            ]  # fmt: skip
            if mine:
                sort = "harmful questions" if harmful else "harmless questions"
                found.append((METRICS[metric], sort, figures.forest(mine)))
    return found


def _refusals(found: Sequence[Attribution], images: Mapping[str, Path | None]) -> list[Refusal]:
    pictures = embed(images.get(one.query) for one in found)
    return [_refusal(one, pictures.get(path) if (path := images.get(one.query)) else None) for one in found]


def _refusal(found: Attribution, picture: Picture | None) -> Refusal:
    against = figures.largest(found)
    occluded = [_tinted(word.word, figures.word_share(word), against) for word in found.words]
    steepest = max([0.01, *(abs(word.gradient) for word in found.words if word.gradient is not None)])
    gradient = [_tinted(w.word, w.gradient, steepest) for w in found.words if w.gradient is not None]
    heat = figures.heat(picture, found.picture, against) if picture and found.picture else None
    plain = None
    if picture:
        plain = Markup('<img class="heat" src="{uri}" alt="the picture as it was asked about">').format(uri=picture.uri)
    return Refusal(found, occluded, gradient, heat, plain)


def _tinted(word: str, share: float | None, against: float) -> Tinted:
    if share is None:
        return Tinted(wording.printable(word), "none", 0.0, "not known")
    sign = "refuse" if share > 0 else "comply"
    return Tinted(wording.printable(word), sign, figures.strength(share, against), f"{share:+.2f}")


def _replies(one: Example, show: bool) -> tuple[Reply, Reply]:
    both = ((one.answer_before, one.refused_before), (one.answer_after, one.refused_after))
    before, after = (_reply(text, one.harmful and not refused and not show) for text, refused in both)
    return before, after


def _reply(text: str, hidden: bool) -> Reply:
    return Reply("", len(text)) if hidden else Reply(wording.printable(text), 0)
