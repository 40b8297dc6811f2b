"""From a recipe to its steps, in an order in which each comes after those it needs.

draw ──▶ audit
  ├────▶ align ──▶ ask ──▶ judge
  └────▶ attack ────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.recipes.config import SANDBOX, Audit, Measure, Model, Recipe, Sets, Source
from unmirage.recipes.graph import Step
from unmirage.recipes.judging import judge_files


def steps_of(recipe: Recipe) -> list[Step]:
    """All steps of a recipe; raises UserError where a file that it names is not there."""
    return list(_Planner(recipe).steps())


class _Planner:
    """Makes the steps of one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def steps(self) -> Iterator[Step]:
        recipe = self.recipe
        for name, world in recipe.worlds.items():
            yield Step(draw_step(name), "draw", world.model_dump(mode="json"), title=f"drawing {name}")
        yield from (self._sets(name, sets) for name, sets in recipe.sets.items())
        yield from map(self._audit, recipe.audit)
        for name, measure in recipe.measures.items():
            yield from (self._attack(name, measure, attack) for attack in measure.attacks)
        # What takes longest first, so that nothing long is left over at the end.
        made = [one for one in self._models() if one[1].method]
        made.sort(key=lambda one: len(recipe.chain(one[0])))  # each after the one it starts from
        yield from (self._align(*one) for one in made)
        for name, model, seed in self._models():
            for measuring, measure in recipe.measures.items():
                yield self._ask(name, model, seed, measuring, measure)
                yield self._judge(name, seed, measuring, measure)

    def _models(self) -> Iterator[tuple[str, Model, int]]:
        for name, model in self.recipe.models.items():
            yield from ((name, model, seed) for seed in self.recipe.seeds_of(model))

    def _sets(self, name: str, sets: Sets) -> Step:
        config = sets.model_dump(mode="json", include={"judge", "how", "max_new_tokens", "models"})
        data = [one for one in (sets.safety, sets.general) if one]
        files = [self._checkpoint(model, self.recipe.models[model]) for model in sets.models]
        files += judge_files(self.recipe, [sets.judge], [sets.safety])
        return self._step(f"sets/{name}", "sets", config, data, files, title=f"making the sets {name}")

    def _audit(self, audit: Audit) -> Step:
        data = [one for one in (audit.data, audit.against) if one]
        return self._step(f"audit/{audit.title}", "audit", {}, data, title=f"auditing {audit.data}")

    def _attack(self, name: str, measure: Measure, attack: str) -> Step:
        found = self.recipe.attacks[attack]
        config = {**found.model_dump(mode="json", exclude={"file"}), "seed": self.recipe.seeds[0]}
        extra = [self._existing(found.file, f"attacks.{attack}.file")] if found.file else []
        return self._step(
            attack_step(name, attack), "attack", config, list(measure.data), extra, title=f"attack {attack}"
        )

    def _align(self, name: str, model: Model, seed: int) -> Step:
        data = [one for one in (model.data, model.general, model.preferred) if one]
        config = {"method": model.method, "settings": model.settings, "seed": seed}
        roles = {role: getattr(model, role) for role in ("data", "general", "preferred")}
        needs, start = self._start(name, seed)
        files = [*start, *([self._existing(model.launch, f"models.{name}.launch")] if model.launch else [])]
        title = f"training {self.recipe.label(name, seed)}"
        return self._step(align_step(name, seed), "align", {**config, "roles": roles}, data, files, needs, title)

    def _start(self, name: str, seed: int) -> tuple[list[str], list[Path]]:
        """What a model starts from: a step, or a checkpoint that is there."""
        start = self.recipe.models[name].start
        if start is None:
            return [], [self._base()]
        if self.recipe.models[start].method:
            return [align_step(start, seed)], []
        return [], [self._checkpoint(start, self.recipe.models[start])]

    def _ask(self, name: str, model: Model, seed: int, measuring: str, measure: Measure) -> Step:
        made = [align_step(name, seed)] if model.method else []
        config: dict[str, Any] = {
            "label": self.recipe.label(name, seed),
            "method": model.method or "none",
            "seed": seed,
            "data": measuring,
            "max_new_tokens": measure.max_new_tokens,
        }
        if model.server:
            config |= {"server": model.server, "served": model.served}
        attacks = [attack_step(measuring, attack) for attack in measure.attacks]
        files = [] if made or model.server else [self._checkpoint(name, model)]
        needs = [*made, *attacks]
        title = self._titled("asking", name, seed, measuring)
        return self._step(ask_step(name, seed, measuring), "ask", config, list(measure.data), files, needs, title)

    def _judge(self, name: str, seed: int, measuring: str, measure: Measure) -> Step:
        files = [self._existing(path, f"measures.{measuring}.calibrations") for path in measure.calibrations]
        files += judge_files(self.recipe, measure.all_judges, measure.data)
        config: dict[str, Any] = {"judges": list(measure.all_judges)}
        if measure.judge_labels:
            config["judge_labels"] = list(measure.judge_labels)
        asked = [ask_step(name, seed, measuring)]
        title = self._titled("judging", name, seed, measuring)
        return self._step(judge_step(name, seed, measuring), "judge", config, list(measure.data), files, asked, title)

    def _titled(self, doing: str, name: str, seed: int, measure: str) -> str:
        several = f", {measure}" if len(self.recipe.measures) > 1 else ""
        return f"{doing} {self.recipe.label(name, seed)}{several}"

    def _step(
        self,
        name: str,
        kind: Any,
        config: dict[str, Any],
        data: list[str],
        files: list[Path] | None = None,
        needs: list[str] | None = None,
        title: str = "",
    ) -> Step:
        """A step that reads data: those that the recipe makes need the step that does it, others are input files."""
        sources = {key: self.recipe.data[key] for key in data}
        made = dict.fromkeys(source.made_by for source in sources.values() if source.made_by)
        read = {key: self._read(source) for key, source in sources.items()}
        paths = [path for key, source in sources.items() for path in self._paths(key, source)]
        return Step(
            name,
            kind,
            {**config, "sources": read},
            (*made, *(needs or [])),
            (*paths, *(files or [])),
            title,
        )

    def _read(self, source: Source) -> dict[str, Any]:
        """How a file is read; where it lies does not matter, its content is an input."""
        made = str(source.file) if source.made_by else None
        seed = self.recipe.seeds[0] if source.limit else None
        return {**source.model_dump(mode="json", exclude={"images"}), "file": made, "limit_seed": seed}

    def _paths(self, key: str, source: Source) -> list[Path]:
        if source.made_by:
            return []
        images = [self._existing(source.images, f"data.{key}.images")] if source.images else []
        return [self._existing(source.file, f"data.{key}.file"), *images]

    def _existing(self, given: Path, key: str) -> Path:
        path = self.recipe.path(given)
        if not path.exists():
            raise UserError(f"{key}: {path} does not exist; correct the path, or give --set root=FOLDER.")
        return path

    def _base(self) -> Path:
        return base_of(self.recipe)

    def _checkpoint(self, name: str, model: Model) -> Path:
        return self._existing(model.checkpoint, f"models.{name}.checkpoint") if model.checkpoint else self._base()


def base_of(recipe: Recipe) -> Path:
    """The folder of the base model; UserError where it is not there."""
    if recipe.base == SANDBOX:
        from unmirage.sandbox.shipped import base_weights

        return base_weights()
    path = recipe.path(recipe.base)
    if not path.is_dir():
        raise UserError(f"base: {path} does not exist; give the folder of a Hugging Face checkpoint, or {SANDBOX!r}.")
    return path


def draw_step(world: str) -> str:
    """The name of the step that draws a world."""
    return f"draw/{world}"


def align_step(model: str, seed: int) -> str:
    """The name of the step that makes a model."""
    return f"align/{model}/seed-{seed}"


def attack_step(measure: str, attack: str) -> str:
    """The name of the step that makes the variants of a measure's questions."""
    return f"attack/{measure}/{attack}"


def ask_step(model: str, seed: int, measure: str) -> str:
    """The name of the step that asks a model."""
    return f"ask/{measure}/{model}/seed-{seed}"


def judge_step(model: str, seed: int, measure: str) -> str:
    """The name of the step that judges a model's answers."""
    return f"judge/{measure}/{model}/seed-{seed}"
