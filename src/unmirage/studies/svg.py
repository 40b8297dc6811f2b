"""What all pictures share: the frame, the colours in light and in dark, text and how wide it is.

A picture is a file of its own that a page shows as an image, so it brings its style with it, with a ground of its own:
it stays legible where the page is dark and the browser's scheme is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from unmirage.report.wording import printable

WIDTH = 700
CHARACTER = 6.4
"""Width of a character of 12 px text, on average, in px; a little more than most fonts take."""

LIGHT = ("#0067a3", "#c24e00", "#00805c", "#a3397a", "#1c2226", "#7a6200", "#5b5fc7", "#8c4a2f")
DARK = ("#62b8ee", "#ff9a5c", "#4fd0a5", "#ee9ccb", "#e8e6e1", "#e0c04f", "#a9aaf5", "#d9a58c")
"""The order is one that people who do not tell all colours apart can read (Okabe and Ito's hues, set darker or lighter
for the ground); lines differ in dashes and marks as well."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "7 3", "2 3", "9 3 2 3")

_STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;fill:#1c2226}
.ground{fill:#fbfaf7}.soft{fill:#566067}.head{font-weight:600}.small{font-size:11px}
.grid{stroke:#e2dfd8}.base{stroke:#a3abb0}.none{fill:#e9e6df}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}.lead{fill:none;stroke:currentColor;stroke-width:1}
.band{fill:currentColor;opacity:.13}.mark{fill:currentColor;stroke:#fbfaf7}.dot{fill:none;stroke:currentColor;stroke-width:3.6;stroke-linecap:round;opacity:.5}
.name{fill:currentColor}
"""
_DARK_STYLE = """
text{fill:#e8e6e1}.ground{fill:#14181b}.soft{fill:#a3abb0}.grid{stroke:#2e353a}.base{stroke:#566067}.none{fill:#242a2f}
.band{opacity:.2}.mark{stroke:#14181b}.name{fill:currentColor}
"""


def picture(title: str, height: float, marks: Iterable[Markup], series: int = 0) -> str:
    """A whole SVG file, `WIDTH` px wide, with a title for those who do not see it; `series` colours c0, c1, ..."""
    light = "".join(f".c{i}{{color:{LIGHT[i % len(LIGHT)]}}}" for i in range(series))
    dark = "".join(f".c{i}{{color:{DARK[i % len(DARK)]}}}" for i in range(series))
    style = f"{_STYLE.strip()}\n{light}\n@media (prefers-color-scheme:dark){{\n{_DARK_STYLE.strip()}\n{dark}\n}}"
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
            'aria-label="{title}">\n<title>{title}</title>\n<style>\n{style}\n</style>\n'
            '<rect class="ground" width="{w}" height="{h}" rx="6"/>\n{marks}\n</svg>\n'
        ).format(w=WIDTH, h=px(height), title=printable(title), style=Markup(style), marks=Markup("\n").join(marks))
    )


def px(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{round(value, 1) + 0.0:g}"


def width(text: str) -> float:
    """About how wide a text of 12 px is, in px."""
    return CHARACTER * len(text)


def cut(text: str, room: float) -> str:
    """The text, shortened where it needs more than `room` px."""
    text = printable(text)
    most = max(1, int(room / CHARACTER))
    return text if len(text) <= most else text[: most - 1] + "…"


def write(text: str, x: float, y: float, anchor: str = "start", look: str = "", more: str = "") -> Markup:
    """One line of text; `look` names classes."""
    kind = Markup(' class="{look}"').format(look=look) if look else Markup("")
    return Markup('<text{kind} x="{x}" y="{y}" text-anchor="{anchor}"{more}>{text}</text>').format(
        kind=kind, x=px(x), y=px(y), anchor=anchor, more=Markup(more), text=printable(text)
    )


def rule(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    """A straight line."""
    return Markup('<path class="{look}" d="M{a} {b}L{c} {d}"/>').format(
        look=look, a=px(x1), b=px(y1), c=px(x2), d=px(y2)
    )


def spread_out(wanted: list[float], least: float, top: float, bottom: float) -> list[float]:
    """Places at least `least` apart and near to those wanted, in the order of `wanted`, between `top` and `bottom`.

    Where that leaves too little room they stand closer.
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    step = min(least, (bottom - top) / max(1, len(wanted) - 1))
    places = [0.0] * len(wanted)
    at = top - step
    for i in order:
        at = places[i] = max(wanted[i], at + step)
    at = bottom + step
    for i in reversed(order):
        at = places[i] = min(places[i], at - step)
    return places
