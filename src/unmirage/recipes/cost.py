"""What a recipe will take, told before it is run: questions, tokens, training steps, memory. Estimates, and said so."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.recipes.aligning import align_settings
from unmirage.recipes.config import Attack, Recipe, World
from unmirage.recipes.graph import Planned
from unmirage.recipes.planning import base_of, is_judged, seed_of
from unmirage.recipes.pretraining import base_recipe
from unmirage.recipes.run import job_of
from unmirage.sandbox.shipped import base_weights

if TYPE_CHECKING:
    from unmirage.align.config import AlignConfig

WEIGHT_BYTES = 4
TRAINED_BYTES = 16
"""Of each trained parameter: weight, gradient and Adam's two moments, in float32."""
SAME_QUESTIONS = ("relearn", "quantize", "precision", "interpolate", "temperature", "prefix")
"""Stresses that ask what the measure asks."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step takes; None where that is not known before an earlier step has run."""

    step: str
    done: bool
    training_steps: int = 0
    training_rows: int = 0
    questions: int | None = 0
    new_tokens: int | None = 0
    memory: int | None = None
    """Bytes for the weights, of each process, and for gradients and moments where it trains; more for activations."""


def costs(recipe: Recipe, plan: Mapping[str, Planned]) -> list[Cost]:
    """The cost of every step, in their order."""
    counter = _Counter(recipe, plan)
    return [counter.cost(one) for one in plan.values()]


def _trained_share(config: AlignConfig, parameters: int) -> int:
    """Parameters that change, at least: of chosen layers and of adapters it is not known without the weights."""
    return parameters if config.tune == "full" and config.train != "layers" and config.parameters is None else 0


@dataclass
class _Counter:
    """Counts for one plan; each data file is read once."""

    recipe: Recipe
    plan: Mapping[str, Planned]
    counts: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    weights: dict[Path, int] = field(default_factory=dict)

    def cost(self, one: Planned) -> Cost:
        """What a step takes."""
        kinds = {
            "pretrain": self._pretraining, "align": self._training, "sets": self._making, "ask": self._asking,
            "stress": self._stressing, "search": self._searching,
        }  # fmt: skip
        return kinds[one.step.kind](one) if one.step.kind in kinds else Cost(one.step.name, one.done)

    def _pretraining(self, one: Planned) -> Cost:
        given = self.recipe.models[one.step.about["model"]].pretrain
        assert given
        made = base_recipe(given)
        rows = made.vision_steps * made.vision_batch + made.steps * made.batch_size
        memory = self._parameters(base_weights()) * TRAINED_BYTES  # every base of the sandbox is of one size
        return Cost(one.step.name, one.done, made.vision_steps + made.steps, rows, memory=memory)

    def _training(self, one: Planned) -> Cost:
        config = align_settings(self.recipe.models[one.step.about["model"]], seed_of(one.step.name))
        rows = config.steps * config.accumulation * config.batch_size * len(config.roles())
        parameters = self._parameters(self._origin(one.step.about["model"]))
        memory = parameters * WEIGHT_BYTES + _trained_share(config, parameters) * (TRAINED_BYTES - WEIGHT_BYTES)
        return Cost(one.step.name, one.done, training_steps=config.steps, training_rows=rows, memory=memory)

    def _asking(self, one: Planned) -> Cost:
        return self._asked(one, self._questions(one))

    def _asked(self, one: Planned, questions: int | None) -> Cost:
        measure = self.recipe.measures[one.step.about["measure"]]
        tokens = None if questions is None else questions * measure.max_new_tokens
        if "server" in one.step.config:
            return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens)
        memory = WEIGHT_BYTES * self._parameters(self._origin(one.step.about["model"])) * measure.workers
        return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens, memory=memory)

    def _questions(self, one: Planned) -> int | None:
        """What a measure asks of one model, its attacks included."""
        measure = self.recipe.measures[one.step.about["measure"]]
        counts = [self._rows(one, key) for key in measure.data]
        if any(count is None for count in counts):
            return None
        harmful, harmless = (sum(count[side] for count in counts if count) for side in (0, 1))
        attacks = [_variants(self.recipe.attacks[name], harmful, harmless) for name in measure.attacks]
        return None if None in attacks else harmful + harmless + sum(count or 0 for count in attacks)

    def _stressing(self, one: Planned) -> Cost:
        """As the measure asks; of kinds that ask something else, or nothing, what their settings say."""
        from unmirage.stress import read_settings

        stress = self.recipe.stresses[one.step.about["stress"]]
        settings = dict(read_settings(stress.kind, stress.settings))
        questions = self._questions(one) if stress.kind in SAME_QUESTIONS else None
        if stress.kind == "temperature" and questions is not None:
            questions *= settings["samples"]
        cost = self._asked(one, questions if is_judged(stress) else 0)
        steps = settings["steps"] if stress.kind == "relearn" else 0
        rows = steps * settings["batch_size"] * settings.get("accumulation", 1) if steps else 0
        return replace(cost, training_steps=steps, training_rows=rows)

    def _searching(self, one: Planned) -> Cost:
        """How many it asks depends on the answers."""
        return self._asked(one, None)

    def _making(self, one: Planned) -> Cost:
        """Every harmful question is asked of each model."""
        sets = self.recipe.sets[one.step.name.split("/")[1]]
        count = self._rows(one, sets.safety)
        questions = None if count is None else count[0] * len(sets.models)
        tokens = None if questions is None else questions * sets.max_new_tokens
        memory = WEIGHT_BYTES * sum(self._parameters(self._origin(name)) for name in sets.models)
        return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens, memory=memory)

    def _rows(self, one: Planned, key: str) -> tuple[int, int] | None:
        if key not in self.counts:
            self.counts[key] = _rows(self.recipe, key, job_of(self.recipe, one, self.plan).file(key))
        return self.counts[key]

    def _origin(self, name: str) -> Path:
        """A checkpoint as large as a model: the one that it was made from, in the end."""
        first = self.recipe.models[self.recipe.chain(name)[-1]]
        return self.recipe.path(first.checkpoint) if first.checkpoint else base_of(self.recipe)

    def _parameters(self, folder: Path) -> int:
        if folder not in self.weights:
            self.weights[folder] = _parameters(folder)
        return self.weights[folder]


def _variants(attack: Attack, harmful: int, harmless: int) -> int | None:
    """At most so many, as a question that opens with the word already has no variant; None where it takes the texts."""
    if attack.given or attack.edit != "opening":
        return None
    asked = {"bypass": harmful, "over-refusal": harmless, "flip": harmful + harmless}[attack.goal]
    return asked * len(attack.to) * (2 if attack.control else 1)


def _rows(recipe: Recipe, key: str, file: Path) -> tuple[int, int] | None:
    """Harmful and harmless questions of a data file; of drawn ones that are not there yet, as the world plans them."""
    from unmirage.datasets import load

    source = recipe.data[key]
    if not file.exists():
        planned = _planned_rows(recipe.worlds[source.world], source.file.name) if source.world else None
        return _limited(planned, source.limit)
    images = recipe.path(source.images) if source.images else None
    try:
        queries = load(file, format=source.format, images=images, split=source.split, require_images=False).queries
    except UserError as error:
        raise UserError(f"data.{key}: {error}") from error
    harmful = sum(query.harmful for query in queries)
    return _limited((harmful, len(queries) - harmful), source.limit)


def _limited(counts: tuple[int, int] | None, limit: int | None) -> tuple[int, int] | None:
    """Of at most `limit` rows drawn at random, as many of each sort as there are on average; together the limit."""
    if counts is None or limit is None or sum(counts) <= limit:
        return counts
    harmful = round(counts[0] * limit / sum(counts))
    return harmful, limit - harmful


def _planned_rows(world: World, file: str) -> tuple[int, int] | None:
    if file in ("safety.json", "unlearn.json"):
        return world.unsafe_train + world.safe_train, world.safe_train
    tests = ("test_seen.json", "test_unseen.json")
    return (world.unsafe_test + world.safe_test, world.safe_test) if file in tests else None


def _parameters(folder: Path) -> int:
    """Parameters of a checkpoint, from the heads of its weight files; no weight is read."""
    return sum(_numbers(path) for path in sorted(folder.glob("*.safetensors")))


def _numbers(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(length))
    return sum(prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")


def total(found: list[Cost]) -> Iterator[str]:
    """What the steps that are not done take together, in sentences."""
    due = [one for one in found if not one.done]
    yield f"{len(due)} of {len(found)} steps to do."
    steps, rows = sum(one.training_steps for one in due), sum(one.training_rows for one in due)
    if steps:
        yield f"Training: {steps:,} optimizer steps over {rows:,} rows."
    unknown = any(one.questions is None for one in due)
    questions, tokens = (sum(getattr(one, name) or 0 for one in due) for name in ("questions", "new_tokens"))
    if questions or unknown:
        more = " and those of steps whose data are not there yet" if unknown else ""
        yield f"Asking: at most {questions:,} questions, {tokens:,} new tokens{more}."
    memory = max((one.memory or 0 for one in due), default=0)
    if memory:
        yield f"Memory: {memory / 2**30:.2f} GiB for the largest step's weights, gradients and moments in float32."
