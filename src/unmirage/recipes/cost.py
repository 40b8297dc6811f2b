"""What a recipe will take, told before it is run: questions, tokens, training steps, memory. Estimates, and said so."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.recipes.config import Attack, Recipe, World
from unmirage.recipes.graph import Planned
from unmirage.recipes.planning import base_of
from unmirage.recipes.run import job_of

if TYPE_CHECKING:
    from unmirage.align.config import AlignConfig

WEIGHT_BYTES = 4
TRAINED_BYTES = 16
"""Of each trained parameter: weight, gradient and Adam's two moments, in float32."""


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
    return [_cost(recipe, one, plan) for one in plan.values()]


def _cost(recipe: Recipe, one: Planned, plan: Mapping[str, Planned]) -> Cost:
    if one.step.kind == "align":
        return _training(recipe, one)
    if one.step.kind == "sets":
        return _making(recipe, one, plan)
    if one.step.kind == "ask":
        return _asking(recipe, one, plan)
    return Cost(one.step.name, one.done)


def _trained_share(config: AlignConfig, parameters: int) -> int:
    """Parameters that change, at least: of chosen layers and of adapters it is not known without the weights."""
    return parameters if config.tune == "full" and config.train != "layers" and config.parameters is None else 0


def _training(recipe: Recipe, one: Planned) -> Cost:
    from unmirage.align.config import checked

    config = checked({**one.step.config["settings"], "method": one.step.config["method"]})
    rows = config.steps * config.accumulation * config.batch_size * len(config.roles())
    parameters = _parameters(base_of(recipe))
    memory = parameters * WEIGHT_BYTES + _trained_share(config, parameters) * (TRAINED_BYTES - WEIGHT_BYTES)
    return Cost(one.step.name, one.done, training_steps=config.steps, training_rows=rows, memory=memory)


def _asking(recipe: Recipe, one: Planned, plan: Mapping[str, Planned]) -> Cost:
    measure = recipe.measures[one.step.config["data"]]
    job = job_of(recipe, one, plan)
    counts = [_rows(recipe, key, job.file(key)) for key in measure.data]
    questions = None
    if all(count is not None for count in counts):
        harmful, harmless = (sum(count[side] for count in counts if count) for side in (0, 1))
        questions = harmful + harmless + sum(_variants(recipe.attacks[a], harmful, harmless) for a in measure.attacks)
    tokens = None if questions is None else questions * measure.max_new_tokens
    made = job.of_kind("align")
    if "server" in one.step.config:
        return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens)
    model = recipe.models[one.step.name.split("/")[2]]
    weights = base_of(recipe) if made or not model.checkpoint else recipe.path(model.checkpoint)
    memory = WEIGHT_BYTES * _parameters(weights) * measure.workers
    return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens, memory=memory)


def _making(recipe: Recipe, one: Planned, plan: Mapping[str, Planned]) -> Cost:
    """Every harmful question is asked of each model."""
    sets = recipe.sets[one.step.name.split("/")[1]]
    count = _rows(recipe, sets.safety, job_of(recipe, one, plan).file(sets.safety))
    questions = None if count is None else count[0] * len(sets.models)
    tokens = None if questions is None else questions * sets.max_new_tokens
    weights = [recipe.models[name].checkpoint for name in sets.models]
    folders = [recipe.path(path) if path else base_of(recipe) for path in weights]
    memory = WEIGHT_BYTES * sum(map(_parameters, folders))
    return Cost(one.step.name, one.done, questions=questions, new_tokens=tokens, memory=memory)


def _variants(attack: Attack, harmful: int, harmless: int) -> int:
    """At most so many: a question that opens with the word already has no variant."""
    asked = harmful if attack.goal == "bypass" else harmless
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
