"""What a recipe may say. Its JSON Schema is made from these models: `unmirage recipe schema`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from unmirage.sets.config import SetsConfig

SANDBOX = "sandbox"
"""In the place of a path: the base model that is shipped."""
PAPER_JUDGE = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The judge of the paper's released code."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64)]
"""It becomes a part of folders' names."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of all parts: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values; ValueError where one stands there twice, as its results would count twice."""
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice; leave one out")
    return values


Once = AfterValidator(_once)
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), Once]
Names = Annotated[tuple[str, ...], Once]


class World(Part):
    """One drawing of the sandbox's data, whose files `data` may name."""

    rho: Share = 1.0
    seed: Seed = 0
    salience: Literal["plain", "badge", "none"] = "badge"
    opener_weight: Share = 1.0
    refusal_words: tuple[str, ...] = ("Share",)
    compliance_words: tuple[str, ...] = ("What",)
    unsafe_train: Count = 800
    safe_train: Count = 800
    general: Count = 1600
    unsafe_test: Count = 100
    safe_test: Count = 200


class Sets(Part):
    """Forget and retain sets that the recipe makes of a model's own answers, whose files `data` may name.

    `models` are those of the recipe that are not trained, the one that is to unlearn first; `how` is the configuration
    of `unmirage sets`.
    """

    safety: str
    general: str | None = None
    models: Names = Field(min_length=1)
    judge: str = "rules"
    how: SetsConfig = SetsConfig()
    batch_size: Count = 64
    max_new_tokens: Count = 256


class Source(Part):
    """A data file: where it lies, how it is written, and what results call its part.

    Without `world` and `sets` the file is the user's.
    """

    file: Path
    world: Name | None = Field(default=None, description="The drawing of the sandbox in which the file lies.")
    sets: Name | None = Field(default=None, description="The forget and retain sets of which it is one.")
    format: str = "vlguard"
    images: Path | None = None
    split: str | None = None
    limit: Count | None = Field(default=None, description="At most so many rows, drawn by the recipe's first seed.")

    @model_validator(mode="after")
    def _one_maker(self) -> Self:
        if self.world and self.sets:
            raise ValueError("a file is of a world or of sets, not of both; leave one out")
        if self.made_by and (self.images or self.file.is_absolute() or ".." in self.file.parts):
            raise ValueError("a file that the recipe makes is named as its step names it, without images and folders")
        return self

    @property
    def made_by(self) -> str | None:
        """The step of the recipe that makes the file; None for a file of the user's."""
        if self.world:
            return f"draw/{self.world}"
        return f"sets/{self.sets}" if self.sets else None


class Audit(Part):
    """A data file whose words are audited, alone or against another file."""

    data: str
    against: str | None = None

    @property
    def title(self) -> str:
        """Its name among the audits."""
        return self.data + (f"-against-{self.against}" if self.against else "")


class Model(Part):
    """A model: the base itself, a checkpoint that is there, one that a server serves, or one made by `align`.

    A method starts from the base, or from another model of the recipe, made with the same seed (`start`).
    """

    label: str | None = None
    checkpoint: Path | None = None
    server: str | None = Field(default=None, description="Address of a server with OpenAI's interface.")
    served: str | None = Field(default=None, description="The name under which the server has the model.")
    method: str | None = None
    start: str | None = None
    data: str | None = None
    general: str | None = None
    preferred: str | None = None
    seeds: Seeds | None = Field(default=None, description="Without them, the recipe's.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of `align`, such as steps and lr.")
    launch: Path | None = Field(default=None, description="Configuration file of `accelerate launch`.")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.checkpoint, self.method, self.server))) > 1:
            raise ValueError("a model has a checkpoint, a method or a server, not two of them")
        if bool(self.server) != bool(self.served):
            raise ValueError("a model of a server needs its address (`server`) and the model's name there (`served`)")
        if self.method and not self.data:
            raise ValueError("a method needs data; name one of the recipe's data")
        trained = (self.data, self.general, self.preferred, self.settings, self.launch, self.start, self.seeds)
        if not self.method and any(trained):
            raise ValueError("start, data, settings, seeds and launch belong to a method; name one")
        if fixed := next((key for key in ("method", "seed") if key in self.settings), None):
            raise ValueError(f"{fixed} is not among the settings; write method and seeds beside them")
        return self


class Attack(Part):
    """One-word variants of the questions, or a file of variants."""

    goal: Literal["bypass", "over-refusal"] = "bypass"
    to: tuple[str, ...] = Field(default=(), description="New opening words: K of them make K variants of a question.")
    control: bool = Field(default=True, description="Also a neutral word at the same place, as many times.")
    file: Path | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.to) == bool(self.file):
            raise ValueError("an attack has words (`to`) or a file of variants, one of the two")
        return self


class Measure(Part):
    """What is asked of every model, and who judges the answers."""

    data: Names = Field(min_length=1)
    attacks: Names = ()
    judges: Names = Field(default=("rules",), min_length=1)
    judge_server: str | None = Field(default=None, description="Address of the server of `llm:MODEL` judges.")
    judge_labels: Names = Field(default=(), description="NAME=LABEL of the classes of `classifier:FOLDER` judges.")
    calibrations: tuple[Path, ...] = ()
    batch_size: Count = 64
    max_new_tokens: Count = 256
    workers: Count = Field(default=1, description="Processes that ask side by side, each a share of the pictures.")
    concurrency: Count = Field(default=8, description="Requests at once, of a server.")
    timeout: Annotated[float, Field(gt=0)] = Field(default=60.0, description="Seconds for each request, of a server.")
    parity: Literal["official"] | None = Field(
        default=None,
        description="Judge as the paper's released code does, too: VLGuard's list and, with a judge_server, relevance.",
    )
    parity_model: str = Field(default=PAPER_JUDGE, description="The name by which that server has the paper's judge.")

    @property
    def all_judges(self) -> tuple[str, ...]:
        """The judges named, and those that parity asks for."""
        if self.parity is None:
            return self.judges
        asked = (f"paper:{self.parity_model}",) if self.judge_server else ()
        return tuple(dict.fromkeys((*self.judges, "vlguard", *asked)))


class Recipe(Part):
    """One experiment. Paths are relative to `root`, which is relative to the folder where the command is given."""

    version: Literal[1] = Field(alias="schema")
    name: Name
    about: str = ""
    root: Path = Path(".")
    base: str = Field(default=SANDBOX, description="Folder of the base model, or `sandbox` for the one shipped.")
    seeds: Seeds = (0,)
    workers: Count = Field(default=1, description="Steps that run side by side; with one GPU, one.")
    worlds: dict[Name, World] = Field(default_factory=dict)
    sets: dict[Name, Sets] = Field(default_factory=dict)
    data: dict[Name, Source] = Field(default_factory=dict)
    audit: tuple[Audit, ...] = ()
    models: dict[Name, Model] = Field(default_factory=dict)
    attacks: dict[Name, Attack] = Field(default_factory=dict)
    measures: dict[Name, Measure] = Field(default_factory=dict)
    title: str | None = None
    show_harmful: bool = False

    def path(self, given: str | Path) -> Path:
        """A path of the recipe, from where the command is given."""
        return self.root / given

    def seeds_of(self, model: Model) -> tuple[int, ...]:
        """The seeds a model is made with; of one that is not made, the first alone."""
        return (model.seeds or self.seeds) if model.method else self.seeds[:1]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for where, name, known in self._references():
            if name not in known:
                raise ValueError(f"{where} names {name!r}, which is not there; there are {', '.join(known) or 'none'}")
        for name in self.models:
            self.chain(name)
        return self

    @model_validator(mode="after")
    def _results_can_be_told_apart(self) -> Self:
        labels: dict[str, str] = {}
        for name, model in self.models.items():
            for seed in self.seeds_of(model):
                label = self.label(name, seed)
                if label in labels:
                    raise ValueError(f"models.{name} and models.{labels[label]} are both called {label!r} in results")
                labels[label] = name
        audits = [audit.title for audit in self.audit]
        if twice := next((title for title in audits if audits.count(title) > 1), None):
            raise ValueError(f"audit has {twice} twice; leave one out, or give the data another name")
        return self

    def label(self, name: str, seed: int) -> str:
        """What results call a model: its label, with the seed where there are several."""
        model = self.models[name]
        label = model.label or name
        return f"{label} (seed {seed})" if len(self.seeds_of(model)) > 1 else label

    def chain(self, name: str) -> list[str]:
        """A model and those that it starts from, the last first; ValueError where they go round in a ring."""
        found = [name]
        while start := self.models[found[-1]].start:
            if start in found:
                raise ValueError(f"models.{name}.start leads back to itself, by {' and '.join(found)}")
            found.append(start)
        return found

    def missing_seed(self, name: str) -> int | None:
        """A seed with which a model is made and the model that it starts from is not."""
        start = self.models[self.models[name].start or name]
        there = self.seeds_of(start) if start.method else self.seeds_of(self.models[name])
        return next((seed for seed in self.seeds_of(self.models[name]) if seed not in there), None)

    def _references(self) -> Iterator[tuple[str, str, list[str]]]:
        data, attacks = list(self.data), list(self.attacks)
        yield from (
            (f"data.{key}.world", source.world, list(self.worlds)) for key, source in self.data.items() if source.world
        )
        yield from (
            (f"data.{key}.sets", source.sets, list(self.sets)) for key, source in self.data.items() if source.sets
        )
        untrained = [name for name, model in self.models.items() if not model.method and not model.server]
        for key, sets in self.sets.items():
            own = [name for name, source in self.data.items() if not source.sets]
            yield from ((f"sets.{key}", name, own) for name in (sets.safety, sets.general) if name)
            yield from ((f"sets.{key}.models", name, untrained) for name in sets.models)
        for number, audit in enumerate(self.audit):
            yield from ((f"audit.{number}", name, data) for name in (audit.data, audit.against) if name)
        for key, model in self.models.items():
            named = {"data": model.data, "general": model.general, "preferred": model.preferred}
            yield from ((f"models.{key}.{role}", name, data) for role, name in named.items() if name)
            local = [name for name, other in self.models.items() if not other.server]
            yield from [(f"models.{key}.start", model.start, local)] if model.start else []
        for key, measure in self.measures.items():
            yield from ((f"measures.{key}.data", name, data) for name in measure.data)
            yield from ((f"measures.{key}.attacks", name, attacks) for name in measure.attacks)
