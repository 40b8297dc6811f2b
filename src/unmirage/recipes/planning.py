"""From a recipe to its steps, in an order in which each comes after those it needs.

draw ──▶ audit ┄▶ align ──▶ ask, stress ──▶ judge
  └────▶ attack ───────────────┘
pretrain ───────▶ align
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.plugins import version_of
from unmirage.recipes.aligning import align_settings
from unmirage.recipes.config import SANDBOX, Attack, Audit, Measure, Model, Recipe, Sets, Source, Stress, World
from unmirage.recipes.graph import Step
from unmirage.recipes.judging import identity, truth_files
from unmirage.recipes.naming import shown
from unmirage.recipes.pretraining import base_recipe
from unmirage.recipes.searching import search_plan


def steps_of(recipe: Recipe) -> list[Step]:
    """All steps of a recipe; raises UserError where a file that it names is not there."""
    return list(_Planner(recipe).steps())


class _Planner:
    """Makes the steps of one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._judges: dict[tuple[str, tuple[str, ...]], str] = {}  # the weights of a judge are read for it once

    def steps(self) -> Iterator[Step]:
        """All steps, each behind those that it needs."""
        recipe = self.recipe
        for name, world in recipe.worlds.items():
            yield Step(draw_step(name), "draw", _plain(world, "retain"), title=f"drawing {name}")
        yield from (self._pretrain(name, model) for name, model in recipe.models.items() if model.made == "pretrain")
        yield from (self._sets(name, sets) for name, sets in recipe.sets.items())
        yield from map(self._audit, recipe.audit)
        for name, measure in recipe.measures.items():
            yield from (self._attack(name, measure, attack) for attack in measure.attacks)
        # What takes longest first, so that nothing long is left over at the end.
        made = [one for one in self._models() if one[1].method]
        made.sort(key=lambda one: len(recipe.chain(one[0])))  # each after the one it starts from
        yield from (self._align(*one) for one in made)
        asked = {measure: set(recipe.asked(measure)) for measure in recipe.measures}
        for name, model, seed in self._models():
            for measuring, measure in recipe.measures.items():
                if name in asked[measuring]:
                    yield from self._measured(name, model, seed, measuring, measure)

    def _measured(self, name: str, model: Model, seed: int, measuring: str, measure: Measure) -> Iterator[Step]:
        """One model asked by one measure, as it is and under each stress."""
        yield self._ask(name, model, seed, measuring, measure)
        yield self._judge(name, seed, measuring, measure)
        yield from (self._search(name, model, seed, measuring, measure, search) for search in measure.searches)
        for stress in measure.stresses:
            yield self._stress(name, model, seed, measuring, measure, stress)
            if is_judged(self.recipe.stresses[stress]):
                yield self._judge(name, seed, measuring, measure, stress)

    def _models(self) -> Iterator[tuple[str, Model, int]]:
        for name, model in self.recipe.models.items():
            yield from ((name, model, seed) for seed in self.recipe.seeds_of(model))

    def _pretrain(self, name: str, model: Model) -> Step:
        assert model.pretrain
        try:
            config = asdict(base_recipe(model.pretrain))
        except UserError as error:
            raise UserError(f"models.{name}: {error}") from error
        title = f"pretraining {self.recipe.label(name, 0)}"
        return Step(pretrain_step(name), "pretrain", config, title=title, about={"model": name})

    def _sets(self, name: str, sets: Sets) -> Step:
        config = sets.model_dump(mode="json", include={"how", "max_new_tokens", "models"})
        config["judge"] = self._identity(sets.judge)
        data = _parts(safety=sets.safety, general=sets.general)
        files = [self._checkpoint(model, self.recipe.models[model]) for model in sets.models]
        files += truth_files(self.recipe, [sets.judge], [sets.safety])
        return self._step(f"sets/{name}", "sets", config, data, files, title=f"making the sets {name}")

    def _audit(self, audit: Audit) -> Step:
        from unmirage.audit.data import Settings

        used = Settings()
        config = {"min_n": used.min_n, "labels": used.labels, "judge": used.judge.name}
        data = _parts(data=audit.data, against=audit.against)
        return self._step(f"audit/{audit.title}", "audit", config, data, title=f"auditing {audit.data}")

    def _attack(self, name: str, measure: Measure, attack: str) -> Step:
        found = self.recipe.attacks[attack]
        config: dict[str, Any] = {**found.model_dump(mode="json", include={"goal", "to", "control"})}
        config |= {**self._edited(found), "seed": self.recipe.seeds[0], "measure": name}
        files, needs = self._made_file(f"attacks.{attack}", found)
        step, title = attack_step(name, attack), f"attack {attack}"
        return self._step(step, "attack", config, {"data": measure.data}, files, needs, title, {"measure": name})

    def _edited(self, attack: Attack) -> dict[str, Any]:
        """What is not as in the first attacks there were, whose steps stay as they are; of a file not its place."""
        old = {"goal", "to", "control", "file", "paraphrases"}
        new: dict[str, Any] = attack.model_dump(mode="json", exclude={*old, "world"}, exclude_defaults=True)
        new |= self._drawn(attack.world)
        if attack.paraphrases:
            new["paraphrases"] = str(attack.paraphrases) if attack.world else True
        return {**new, "file": str(attack.file)} if attack.file and attack.world else new

    def _made_file(self, key: str, attack: Attack) -> tuple[list[Path], list[str]]:
        """The file that an attack reads: one that is there, or one of the step that draws a world."""
        if attack.given is None:
            return [], []
        if attack.world:
            return [], [draw_step(attack.world)]
        return [self._existing(attack.given, f"{key}.{'file' if attack.file else 'paraphrases'}")], []

    def _align(self, name: str, model: Model, seed: int) -> Step:
        data = _parts(**roles_of(model))
        needs, start = self._start(name, seed)
        if model.audit:
            needs = [*needs, f"audit/{model.audit}"]
        files = [*start, *([self._existing(model.launch, f"models.{name}.launch")] if model.launch else [])]
        title = f"training {self.recipe.label(name, seed)}"
        config = self._training(name, model, seed)
        return self._step(align_step(name, seed), "align", config, data, files, needs, title, {"model": name})

    def _training(self, name: str, model: Model, seed: int) -> dict[str, Any]:
        """All settings, those that the method or nobody sets too, and the versions of objectives of other packages."""
        from unmirage.align.objectives import GROUP

        try:
            settings = align_settings(model, seed)
        except UserError as error:
            raise UserError(f"models.{name}: {error}") from error
        versions = {term.objective: version_of(GROUP, term.found().function) for term in settings.terms}
        return {"settings": settings.model_dump(mode="json"), "versions": {k: v for k, v in versions.items() if v}}

    def _start(self, name: str, seed: int) -> tuple[list[str], list[Path]]:
        """What a model starts from: a step, or a checkpoint that is there."""
        start = self.recipe.models[name].start
        if start is None:
            return [], [self._base()]
        return self._weights(start, seed)

    def _weights(self, name: str, seed: int) -> tuple[list[str], list[Path]]:
        """What holds a model's weights: the step that makes it, or the checkpoint that is there; none of a server."""
        model = self.recipe.models[name]
        if step := making_step(name, model, seed):
            return [step], []
        return [], [] if model.server else [self._checkpoint(name, model)]

    def _ask(self, name: str, model: Model, seed: int, measuring: str, measure: Measure) -> Step:
        config = self._asked(name, model, measuring, measure)
        needs, files = self._weights(name, seed)
        needs = [*needs, *(attack_step(measuring, attack) for attack in measure.attacks)]
        title, about = self._titled("asking", name, seed, measuring), {"model": name, "measure": measuring}
        data = {"data": measure.data}
        return self._step(ask_step(name, seed, measuring), "ask", config, data, files, needs, title, about)

    def _asked(self, name: str, model: Model, measuring: str, measure: Measure) -> dict[str, Any]:
        """What decides the answers of a model besides its weights and the questions.

        The names are in what is stored and in the folder's name; label and axes come in where answers are judged.
        """
        config: dict[str, Any] = {"model": name, "measure": measuring, "max_new_tokens": measure.max_new_tokens}
        return config | ({"server": model.server, "served": model.served} if model.server else {})

    def _stress(self, name: str, model: Model, seed: int, measuring: str, measure: Measure, stress: str) -> Step:
        found = self.recipe.stresses[stress]
        config = {**self._asked(name, model, measuring, measure), **self._stressing(stress), "seed": seed}
        needs, files = self._weights(name, seed)
        if "base" in needs_of(found):
            more, base = self._origin(name, seed)
            needs, files = [*needs, *more], [*files, *base]
        needs += [attack_step(measuring, attack) for attack in measure.attacks]
        needs += [draw_step(found.world)] if found.world else []
        files += self._stress_files(stress, found, measure)
        data = {**_parts(forget=found.data, general=found.general), "facts": facts_of(found, measure)}
        data = {"data": measure.data, **data}
        title = self._titled(f"{stress}:", name, seed, measuring)
        about = {"model": name, "measure": measuring, "stress": stress}
        step = stress_step(name, seed, measuring, stress)
        return self._step(step, "stress", config, data, files, needs, title, about)

    def _stressing(self, name: str) -> dict[str, Any]:
        """What decides a stress: its kind, all settings, and the version of the package that it is of."""
        from unmirage.stress import find
        from unmirage.stress.registry import GROUP

        stress = self.recipe.stresses[name]
        found = {"stress": name, "kind": stress.kind, "settings": self._stress_settings(stress)}
        return {**found, **self._drawn(stress.world), "version": version_of(GROUP, find(stress.kind).function)}

    def _drawn(self, world: str | None) -> dict[str, Any]:
        """In which of the drawings that a step needs a file lies, by what is drawn and not by its name."""
        return {"world": _plain(self.recipe.worlds[world], "retain")} if world else {}

    def _search(self, name: str, model: Model, seed: int, measuring: str, measure: Measure, search: str) -> Step:
        plan = search_plan(self.recipe.searches[search], name, measuring, self.recipe.seeds[0])
        config = self._asked(name, model, measuring, measure)
        config |= {"search": asdict(plan), "judge": self._identity(measure.judges[0], measuring)}
        needs, files = self._weights(name, seed)
        files = [*files, *truth_files(self.recipe, measure.judges[:1], measure.data)]
        title = self._titled(f"search {search}:", name, seed, measuring)
        about = {"model": name, "measure": measuring, "search": search}
        step = search_step(name, seed, measuring, search)
        return self._step(step, "search", config, {"data": measure.data}, files, needs, title, about)

    def _stress_settings(self, stress: Stress) -> dict[str, Any]:
        """All settings; of files that are there their content counts, not their place."""
        from unmirage.stress import read_settings

        found = read_settings(stress.kind, stress.settings).model_dump(mode="json")
        own = [key for key in stress.settings if self._is_own_file(stress, key)]
        return {**found, **dict.fromkeys(own, "a file")}

    def _is_own_file(self, stress: Stress, key: str) -> bool:
        return key in path_settings(stress.kind) and not stress.world

    def _stress_files(self, name: str, stress: Stress, measure: Measure) -> list[Path]:
        own = [key for key in stress.settings if self._is_own_file(stress, key)]
        found = [self._existing(Path(stress.settings[key]), f"stresses.{name}.settings.{key}") for key in own]
        facts = [self.recipe.data[key] for key in facts_of(stress, measure)]
        theirs = [source.file.with_suffix(".truth.json") for source in facts if not source.made_by]
        return [*found, *(self._existing(path, f"stresses.{name}.facts") for path in theirs)]

    def _origin(self, name: str, seed: int) -> tuple[list[str], list[Path]]:
        """What a model was made from; itself where nothing made it."""
        return self._start(name, seed) if self.recipe.models[name].method else self._weights(name, seed)

    def _judge(self, name: str, seed: int, measuring: str, measure: Measure, stress: str | None = None) -> Step:
        files = [self._existing(path, f"measures.{measuring}.calibrations") for path in measure.calibrations]
        files += truth_files(self.recipe, measure.all_judges, measure.data)
        config: dict[str, Any] = {"judges": [self._identity(judge, measuring) for judge in measure.all_judges]}
        config["subject"] = asdict(shown(self.recipe, name, seed, measuring, stress))
        asked = stress_step(name, seed, measuring, stress) if stress else ask_step(name, seed, measuring)
        title = self._titled(f"judging {stress}:" if stress else "judging", name, seed, measuring)
        about = {"model": name, "measure": measuring, **({"stress": stress} if stress else {})}
        step = judge_step(name, seed, measuring, stress)
        return self._step(step, "judge", config, {"data": measure.data}, files, [asked], title, about)

    def _identity(self, judge: str, measuring: str | None = None) -> str:
        """What decides a judge's verdicts; of a measure's judge, with the meanings that it gives to classes."""
        measure = self.recipe.measures[measuring] if measuring else None
        known = (judge, measure.judge_labels if measure else ())
        if known not in self._judges:
            self._judges[known] = identity(self.recipe, judge, measure)
        return self._judges[known]

    def _titled(self, doing: str, name: str, seed: int, measure: str) -> str:
        several = f", {measure}" if len(self.recipe.measures) > 1 else ""
        return f"{doing} {self.recipe.label(name, seed)}{several}"

    def _step(
        self,
        name: str,
        kind: Any,
        config: dict[str, Any],
        data: Mapping[str, Sequence[str]],
        files: list[Path] | None = None,
        needs: list[str] | None = None,
        title: str = "",
        about: dict[str, str] | None = None,
    ) -> Step:
        """A step that reads data, by the parts they play: those that the recipe makes need the step that does it,
        others are input files. What the recipe calls them does not matter.
        """
        sources = [self.recipe.data[key] for several in data.values() for key in several]
        made = list(dict.fromkeys(source.made_by for source in sources if source.made_by))
        read = {part: [self._read(self.recipe.data[key], made) for key in several] for part, several in data.items()}
        paths = [path for several in data.values() for key in several for path in self._paths(key)]
        needed = tuple(dict.fromkeys((*made, *(needs or []))))
        return Step(name, kind, {**config, "sources": read}, needed, (*paths, *(files or [])), title, about or {})

    def _read(self, source: Source, made: Sequence[str]) -> dict[str, Any]:
        """How a file is read, and which of the steps `made` makes it; of the user's, its content is an input."""
        found = source.model_dump(mode="json", include={"format", "split", "limit"})
        if source.made_by:
            found |= {"file": str(source.file), "made_by": made.index(source.made_by)}
        return {
            **found,
            "images": source.images is not None,
            "limit_seed": self.recipe.seeds[0] if source.limit else None,
        }

    def _paths(self, key: str) -> list[Path]:
        source = self.recipe.data[key]
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


def _parts(**data: str | None) -> dict[str, tuple[str, ...]]:
    """Data by the parts that they play, without those that are not given."""
    return {part: (key,) for part, key in data.items() if key}


def roles_of(model: Model) -> dict[str, str]:
    """The data that a model is trained on, by their roles."""
    found = {"data": model.data, "general": model.general, "preferred": model.preferred}
    return {role: key for role, key in found.items() if key}


def _plain(world: World, *new: str) -> dict[str, Any]:
    """A world's settings; those that there were not in the first worlds only where they are not as they were then."""
    fields = type(world).model_fields
    same = {key for key in new if getattr(world, key) == fields[key].default}
    return world.model_dump(mode="json", exclude=same)


def is_judged(stress: Stress) -> bool:
    """Whether answers come of it that are to be judged."""
    from unmirage.stress import find

    return find(stress.kind).judged


def needs_of(stress: Stress) -> tuple[str, ...]:
    """What a stress must be given: "forget", "general", "base", "facts"."""
    from unmirage.stress import find, read_settings

    return tuple(find(stress.kind).needs(read_settings(stress.kind, stress.settings)))


def facts_of(stress: Stress, measure: Measure) -> Sequence[str]:
    """The data whose facts a stress is given: those that it names, else the measure's, if it needs any."""
    return stress.facts or (measure.data if "facts" in needs_of(stress) else ())


def path_settings(kind: str) -> set[str]:
    """The settings of a stress that are files."""
    from typing import get_args

    from unmirage.stress import find

    fields = find(kind).config.model_fields
    return {name for name, one in fields.items() if Path in (one.annotation, *get_args(one.annotation))}


def draw_step(world: str) -> str:
    """The name of the step that draws a world."""
    return f"draw/{world}"


def pretrain_step(model: str) -> str:
    """The name of the step that makes a base model."""
    return f"pretrain/{model}"


def align_step(model: str, seed: int) -> str:
    """The name of the step that trains a model."""
    return f"align/{model}/seed-{seed}"


def seed_of(step: str) -> int:
    """The seed in the name of a step that is about a model."""
    return int(step.rpartition("/seed-")[2])


def making_step(name: str, model: Model, seed: int) -> str | None:
    """The name of the step that makes a model; None for one that is there."""
    return {"align": align_step(name, seed), "pretrain": pretrain_step(name), None: None}[model.made]


def attack_step(measure: str, attack: str) -> str:
    """The name of the step that makes the variants of a measure's questions."""
    return f"attack/{measure}/{attack}"


def ask_step(model: str, seed: int, measure: str) -> str:
    """The name of the step that asks a model."""
    return f"ask/{measure}/{model}/seed-{seed}"


def stress_step(model: str, seed: int, measure: str, stress: str) -> str:
    """The name of the step that asks a model under a stress."""
    return f"stress/{measure}+{stress}/{model}/seed-{seed}"


def search_step(model: str, seed: int, measure: str, search: str) -> str:
    """The name of the step that searches for what breaks a model."""
    return f"search/{measure}+{search}/{model}/seed-{seed}"


def judge_step(model: str, seed: int, measure: str, stress: str | None = None) -> str:
    """The name of the step that judges a model's answers."""
    return f"judge/{measure}{f'+{stress}' if stress else ''}/{model}/seed-{seed}"
