"""The audit as files: `audit.json` for programs, `audit.html` for people; the page is one file and asks no network.

Text of the data reaches the page only as escaped text or as JSON that its script sets as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unmirage.audit.data import Audit
from unmirage.audit.defects import ABOUT
from unmirage.audit.score import Score
from unmirage.audit.terminal import after_repair, verdict
from unmirage.runs import write_json, write_text

LONGEST = 400


def write_audit(audit: Audit, folder: Path, after: Audit | None = None) -> list[Path]:
    """Write both files into a folder and return their paths; `after` is the audit of the repaired data."""
    record = audit.record()
    if after is not None:
        record["after_repair"] = _after(after)
    return [
        write_json(folder / "audit.json", record),
        write_text(folder / "audit.html", render(audit, after)),
    ]


def _after(audit: Audit) -> dict[str, Any]:
    """What `audit.json` says of the repaired data."""
    whole = audit.record()
    names = ("mirage_score", "scores", "rows", "rows_effective", "base_rate", "grouped_by", "notes")
    short = {name: whole[name] for name in names}
    cues = [
        {name: cue[name] for name in ("cue", "position", "n", "rate", "q")} for cue in whole["cues"] if cue["shortcut"]
    ]
    return short | {"shortcuts": cues, "defects": {kind: one["count"] for kind, one in whole["defects"].items()}}


def render(audit: Audit, after: Audit | None = None) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("unmirage.audit"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = _own("audit.js")
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        verdict=verdict(audit),
        scores=[_score(score) for score in audit.scores],
        after=None if after is None else [_score(score) for score in after.scores],
        repaired=None if after is None else after_repair(after),
        about=ABOUT,
        payload=_payload(audit),
        style=Markup(_own("audit.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def _own(name: str) -> str:
    return files("unmirage.audit").joinpath("templates", name).read_text(encoding="utf-8")


def _score(score: Score) -> Mapping[str, Any]:
    return {
        "name": score.name,
        "value": f"{score.value:.1%}",
        "interval": f"{100 * score.low:.1f}–{100 * score.high:.1f}",
        "majority": f"{score.majority:.1%}",
        "gain": f"{score.gain:+.2f}",
        "auc": "–" if score.auc is None else f"{score.auc:.3f}",
        "width": f"{100 * score.value:.2f}",
        "mark": f"{100 * score.majority:.2f}",
        "low": f"{100 * score.low:.2f}",
        "span": f"{100 * (score.high - score.low):.2f}",
    }


def _payload(audit: Audit) -> Markup:
    """The cues as JSON inside a script element: no character in it can end the element."""
    legitimate = {(cue.cue, cue.position) for cue in audit.legitimate}
    cues = [cue.record() | {"legitimate": (cue.cue, cue.position) in legitimate} for cue in audit.cues]
    for cue in cues:
        for example in cue["examples"]:
            example["question"] = _short(example["question"])
    # A row of a weighted file counts for less than one: the funnel is as wide as for that many rows.
    counted = 1.0 if audit.n_effective is None else audit.n_effective / audit.n
    data = {
        "base": audit.base_rate,
        "counted": counted,
        "directions": list(audit.directions),
        "target": audit.target,
        "cues": cues,
    }
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
