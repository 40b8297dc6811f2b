"""The whole main job on the sandbox: learn the mirage, attack it, unlearn it, measure, report.

Base (shipped) -> Mixed-SFT, NPO and RMU from it, and the same SFT on unbiased data -> one-word attack -> verdicts ->
page. It is the shipped recipe "demo", made for a seed, a bias and a size; every figure comes from models trained and
asked in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.recipes.config import Recipe, World
from unmirage.recipes.reading import read_recipe
from unmirage.recipes.run import run_recipe
from unmirage.schema import Record
from unmirage.workers import Report

BIASED, BALANCED = "biased", "balanced"
ORDER = ("base", "mixed-sft", "npo", "rmu", "mixed-sft-rho0")
"""The demo's models, as results show them."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained and asked; the defaults are the demo, smaller ones a miniature of it."""

    unsafe_train: int = 800
    safe_train: int = 800
    general: int = 1600
    unsafe_test: int = 100
    safe_test: int = 200
    steps: float = 1.0

    @classmethod
    def scaled(cls, share: float) -> Size:
        """The demo at a share of its size; raises UserError unless 0 < share <= 1."""
        if not 0 < share <= 1:
            raise UserError(f"the scale lies in (0, 1], not {share}.")
        full = cls()
        counts = ("unsafe_train", "safe_train", "general", "unsafe_test", "safe_test")
        return cls(**{name: max(6, round(getattr(full, name) * share)) for name in counts}, steps=share)

    @property
    def counts(self) -> dict[str, int]:
        """The counts of pictures, as a recipe's world has them."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "steps"}


def demo(
    out: Path,
    *,
    seed: int = 0,
    rho: float = 1.0,
    base: Path | None = None,
    world: Any | None = None,
    only: Sequence[str] = ORDER,
    size: Size | None = None,
    workers: int = 2,
    report: Report = lambda _name, _done, _total: None,
) -> list[Record]:
    """Runs what is not done yet and returns all records, also written to `metrics.json` beside `report.html`.

    `base` is another base model than the shipped one, which knows `world` (a `sandbox.world.World`); `only` names some
    of the models. Raises UserError where `out` holds another recipe's run, or rho lies outside [0, 1].
    """
    recipe = demo_recipe(seed, rho, size or Size(), only, base, world)
    return run_recipe(recipe, out, report=report, workers=workers)


def demo_recipe(
    seed: int, rho: float, size: Size, only: Sequence[str] = ORDER, base: Path | None = None, world: Any | None = None
) -> Recipe:
    """The shipped recipe with these settings; at rho 0 the unbiased SFT is the SFT itself and does not come twice."""
    if not 0 <= rho <= 1:
        raise UserError(f"rho is a probability in [0, 1], not {rho}.")
    shipped = read_recipe("demo")
    kept = {name: shipped.models[name] for name in ORDER if name in only and (rho > 0 or name != "mixed-sft-rho0")}
    models = {name: _scaled(model.model_dump(), size.steps) for name, model in kept.items()}
    if "mixed-sft" in models:
        models["mixed-sft"]["label"] = f"Mixed-SFT (rho={rho:g})"
    look = {"salience": world.salience, "opener_weight": world.opener_weight} if world else {}
    drawn = {**size.counts, **look, "seed": seed}
    changed = {
        "seeds": (seed,),
        "base": str(base.resolve()) if base else shipped.base,
        "worlds": {BIASED: World(rho=rho, **drawn), BALANCED: World(rho=0.0, **drawn)},
        "models": models,
    }
    return Recipe.model_validate({**shipped.model_dump(by_alias=True), **changed})


def _scaled(model: dict[str, Any], share: float) -> dict[str, Any]:
    settings = model["settings"]
    if "steps" not in settings:
        return model
    return {**model, "settings": {**settings, "steps": max(1, round(settings["steps"] * share))}}
