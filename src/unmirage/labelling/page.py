"""The page on which somebody labels: one answer at a time, a form that works without its script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unmirage.labelling.marks import CHOICES, HARM_QUESTION, HARMS, WARNING
from unmirage.labelling.pictures import read_picture
from unmirage.labelling.session import LONGEST_NOTE, Session
from unmirage.report.wording import printable


def policy() -> str:
    """The page's Content-Security-Policy: its own style, script, pictures and form, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{_hash('page.css')}'",
            f"script-src 'sha256-{_hash('page.js')}'",
            "img-src 'self' data:",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def warning_page(session: Session) -> str:
    """What is said before the first answer is seen."""
    return _render("warning", session)


def item_page(session: Session) -> str:
    """The answer that is to be labelled now, or that there is none left."""
    index = session.current
    if index is None:
        return _render("finished", session)
    item = session.item(index)
    picture = read_picture(item.image) if item.image is not None else None
    return _render("item", session, index=index, item=item, picture=picture, said=session.said(index))


def ended_page(session: Session) -> str:
    """The last page, after which the server is gone."""
    return _render("ended", session)


def _render(view: str, session: Session, **values: object) -> str:
    empty = {"index": None, "item": None, "picture": None, "said": None}
    return _environment().get_template("page.html.j2").render(
        view=view,
        session=session,
        choices=CHOICES,
        harms=HARMS,
        harm_question=HARM_QUESTION,
        warning=WARNING,
        longest_note=LONGEST_NOTE,
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        **(empty | values),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unmirage.labelling"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    return environment


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(name: str) -> str:
    return base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()
