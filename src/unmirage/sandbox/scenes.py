"""Pictures: one object, a few pebbles, a background. Drawn with Pillow, the same from the same scene, everywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from unmirage.sandbox.world import COLOURS, PLACES, Salience, Thing

PIXELS = 96
_FINE = 2
_BACKGROUNDS = ((222, 214, 200), (196, 210, 222), (206, 222, 200), (226, 206, 214), (208, 204, 226))
_INK = (24, 24, 28)
_PEBBLE = (108, 100, 92)
_CORNERS = ((0.12, 0.12), (0.88, 0.12), (0.12, 0.88), (0.88, 0.88))

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. `jitter` moves the object by a share of the picture's width; `size` is its radius."""

    thing: Thing
    colour: str
    place: str
    pebbles: int
    background: int
    size: float
    jitter: Point
    specks: tuple[Point, ...]


def sample_scene(rng: random.Random, things: Sequence[Thing]) -> Scene:
    """A scene of one of `things`; all the rest is independent of it, so only the object tells its hazard."""
    return Scene(
        thing=rng.choice(things),
        colour=rng.choice(list(COLOURS)),
        place=rng.choice(list(PLACES)),
        pebbles=rng.randrange(4),
        background=rng.randrange(len(_BACKGROUNDS)),
        size=rng.uniform(0.22, 0.26),
        jitter=(rng.uniform(-0.035, 0.035), rng.uniform(-0.035, 0.035)),
        specks=tuple((rng.random(), rng.random()) for _ in range(5)),
    )


def draw(scene: Scene, salience: Salience) -> Image.Image:
    """An RGB picture of `PIXELS` x `PIXELS`, drawn at twice the size and reduced for smooth edges."""
    side = PIXELS * _FINE
    image = Image.new("RGB", (side, side), _BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(image)
    for x, y in scene.specks:
        _disc(pen, (x * side, y * side), 0.012 * side, tuple(int(c * 0.9) for c in _BACKGROUNDS[scene.background]))
    for corner in _CORNERS[: scene.pebbles]:
        _disc(pen, (corner[0] * side, corner[1] * side), 0.06 * side, _PEBBLE)
    x, y = PLACES[scene.place]
    centre = ((x + scene.jitter[0]) * side, (y + scene.jitter[1]) * side)
    _draw_thing(pen, scene, centre, scene.size * side)
    if scene.thing.hazardous and salience != "none":
        _draw_badge(pen, centre, scene.size * side, side, salience)
    return image.resize((PIXELS, PIXELS), Image.Resampling.BOX)


def _draw_thing(pen: ImageDraw.ImageDraw, scene: Scene, centre: Point, radius: float) -> None:
    pen.polygon(_outline(scene.thing.outline, centre, radius), fill=COLOURS[scene.colour], outline=_INK, width=5)
    _GLYPHS[scene.thing.glyph](pen, centre, radius * 0.5)


def _draw_badge(pen: ImageDraw.ImageDraw, centre: Point, radius: float, side: int, salience: Salience) -> None:
    """A yellow spot with an ink rim at the object's upper right; large and with a red frame where it is to be plain."""
    size = 0.26 if salience == "badge" else 0.5
    at = (centre[0] + radius * 0.85, centre[1] - radius * 0.85)
    _disc(pen, at, radius * size, _INK)
    _disc(pen, at, radius * size * 0.7, (255, 222, 0))
    if salience == "plain":
        pen.rectangle((0, 0, side - 1, side - 1), outline=(220, 0, 0), width=10)


def _disc(pen: ImageDraw.ImageDraw, centre: Point, radius: float, fill: tuple[int, ...]) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _outline(name: str, centre: Point, radius: float) -> list[Point]:
    return [(centre[0] + dx * radius, centre[1] + dy * radius) for dx, dy in _SHAPES[name]]


def _polygon(corners: int, turn: float = -90.0, inner: float | None = None) -> list[Point]:
    """Corners on the unit circle; with `inner`, every second one on a smaller circle (a star)."""
    count = corners * (2 if inner else 1)
    radii = [1.0, inner] if inner else [1.0]
    return [
        (
            radii[i % len(radii)] * math.cos(math.radians(turn + 360 * i / count)),
            radii[i % len(radii)] * math.sin(math.radians(turn + 360 * i / count)),
        )
        for i in range(count)
    ]


_W = 0.42
_SHAPES: dict[str, list[Point]] = {
    "circle": _polygon(40),
    "square": [(x * 0.88, y * 0.88) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
    "triangle": [(0.0, -1.05), (1.05, 0.85), (-1.05, 0.85)],
    "diamond": [(0.0, -1.15), (0.8, 0.0), (0.0, 1.15), (-0.8, 0.0)],
    "hexagon": _polygon(6, turn=0),
    "star": _polygon(5, inner=0.55),
    "cross": [
        (-_W, -1),
        (_W, -1),
        (_W, -_W),
        (1, -_W),
        (1, _W),
        (_W, _W),
        (_W, 1),
        (-_W, 1),
        (-_W, _W),
        (-1, _W),
        (-1, -_W),
        (-_W, -_W),
    ],
    "drop": [(0.0, -1.2), (0.75, 0.1), (0.6, 0.75), (0.0, 1.0), (-0.6, 0.75), (-0.75, 0.1)],
}


def _bar(pen: ImageDraw.ImageDraw, centre: Point, size: float, dx: float, dy: float) -> None:
    (x, y), width = centre, max(1, round(size * 0.5))
    pen.line((x - dx * size, y - dy * size, x + dx * size, y + dy * size), fill=_INK, width=width)


def _ring(pen: ImageDraw.ImageDraw, centre: Point, size: float) -> None:
    (x, y) = centre
    pen.ellipse((x - size, y - size, x + size, y + size), outline=_INK, width=max(1, round(size * 0.38)))


def _pair(pen: ImageDraw.ImageDraw, centre: Point, size: float) -> None:
    for side in (-1, 1):
        _disc(pen, (centre[0] + side * size * 0.75, centre[1]), size * 0.42, _INK)


Glyph = Callable[[ImageDraw.ImageDraw, Point, float], None]
_GLYPHS: dict[str, Glyph] = {
    "dot": lambda pen, centre, size: _disc(pen, centre, size * 0.62, _INK),
    "bar": lambda pen, centre, size: _bar(pen, centre, size, 1, 0),
    "pole": lambda pen, centre, size: _bar(pen, centre, size, 0, 1),
    "slash": lambda pen, centre, size: _bar(pen, centre, size, 0.8, -0.8),
    "ring": _ring,
    "pair": _pair,
}
