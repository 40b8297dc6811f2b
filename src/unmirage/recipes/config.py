"""What a recipe may say. Its JSON Schema is made from these models: `unmirage recipe schema`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from unmirage.recipes.grid import expand
from unmirage.sets.config import SetsConfig

SANDBOX = "sandbox"
"""In the place of a path: the base model that is shipped."""
PAPER_JUDGE = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The judge of the paper's released code."""

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
"""It becomes a part of folders' names."""

Salience = Literal["plain", "badge", "none"]
Value = float | str
Axes = Annotated[
    dict[str, Value], Field(description="Settings of a study by which figures are told apart; a grid fills them in.")
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
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
    salience: Salience = "badge"
    opener_weight: Share = 1.0
    refusal_words: tuple[str, ...] = ("Share",)
    compliance_words: tuple[str, ...] = ("What",)
    retain: Literal["mended", "confounded"] = Field(
        default="mended",
        description="Openers of what unlearning retains: `mended`, of every kind; `confounded`, biased as all else.",
    )
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


class Pretrain(Part):
    """How a base model of the sandbox is made from nothing; what is left out is as `unmirage.sandbox.bases` has it."""

    salience: Salience = "badge"
    opener_weight: Share = 1.0
    seed: Seed | None = None
    scenes: Count | None = None
    vision_steps: Count | None = None
    vision_batch: Count | None = None
    vision_lr: Rate | None = None
    steps: Count | None = None
    batch_size: Count | None = None
    lr: Rate | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is given beside the world's own knobs."""
        return self.model_dump(exclude={"salience", "opener_weight"}, exclude_none=True)

    @property
    def shipped(self) -> bool:
        """Whether it is the base that comes with the package."""
        return self == Pretrain()


class Model(Part):
    """A model: the base itself, a checkpoint that is there, one that a server serves, or one that the recipe makes.

    `method` trains with `align`, from the base or from another model of the recipe, made with the same seed (`start`);
    `audit` names the audit whose cues are the words of the method. `pretrain` makes another base of the sandbox.
    """

    label: str | None = None
    checkpoint: Path | None = None
    server: str | None = Field(default=None, description="Address of a server with OpenAI's interface.")
    served: str | None = Field(default=None, description="The name under which the server has the model.")
    pretrain: Pretrain | None = None
    method: str | None = None
    start: str | None = None
    data: str | None = None
    general: str | None = None
    preferred: str | None = None
    audit: str | None = Field(default=None, description="Data among the audits: their cues are the method's words.")
    seeds: Seeds | None = Field(default=None, description="Without them, the recipe's.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of `align`, such as steps and lr.")
    launch: Path | None = Field(default=None, description="Configuration file of `accelerate launch`.")
    axes: Axes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.checkpoint, self.method, self.server, self.pretrain))) > 1:
            raise ValueError("a model has a checkpoint, a method, a server or a pretraining, not two of them")
        if bool(self.server) != bool(self.served):
            raise ValueError("a model of a server needs its address (`server`) and the model's name there (`served`)")
        if self.method and not self.data:
            raise ValueError("a method needs data; name one of the recipe's data")
        trained = (self.data, self.general, self.preferred, self.audit, self.settings, self.launch, self.start)
        if not self.method and any((*trained, self.seeds)):
            raise ValueError("start, data, audit, settings, seeds and launch belong to a method; name one")
        if fixed := next((key for key in ("method", "seed") if key in self.settings), None):
            raise ValueError(f"{fixed} is not among the settings; write method and seeds beside them")
        return self

    @property
    def made(self) -> Literal["align", "pretrain"] | None:
        """The kind of step that makes it; None for one that is there."""
        if self.method:
            return "align"
        return "pretrain" if self.pretrain and not self.pretrain.shipped else None


class Attack(Part):
    """Variants of the questions in which one word differs, or those of a file; or paraphrases of a file.

    `world` names the drawing of the sandbox in which the file lies.
    """

    goal: Literal["bypass", "over-refusal", "flip"] = "bypass"
    to: tuple[str, ...] = Field(
        default=(),
        description="Words that are put in: K of them make K variants of a question. Of paraphrases, their one cue.",
    )
    control: bool = Field(default=True, description="Also a neutral word at the same place, as many times.")
    file: Path | None = Field(default=None, description="Variants, as `unmirage attack` writes them.")
    edit: Literal["opening", "substitute", "insert", "delete"] = "opening"
    at: Literal["begin", "inner", "end", "any"] = "any"
    intent: bool = Field(default=False, description="Leave content words alone.")
    grammar: bool = Field(default=False, description="Only edits that pass a small grammar of English questions.")
    paraphrases: Path | None = Field(default=None, description="Other wordings by the id of their question.")
    world: Name | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        words = bool(self.to) or self.edit == "delete"
        if (words and not self.paraphrases) + bool(self.file) + bool(self.paraphrases) != 1:
            raise ValueError("an attack has words (`to`), a file of variants or a file of paraphrases, one of these")
        if len(self.to) > 1 and self.paraphrases:
            raise ValueError("paraphrases have one cue (`to`); leave the other words out")
        edited = (self.edit, self.at, self.intent, self.grammar) != ("opening", "any", False, False)
        if edited and self.given:
            raise ValueError("edit, at, intent and grammar belong to words (`to`); leave them out with a file")
        if self.world and (not self.given or self.given.is_absolute() or ".." in self.given.parts):
            raise ValueError("of a world an attack has a file or paraphrases, named as the world names them")
        return self

    @property
    def given(self) -> Path | None:
        """The file of variants or paraphrases."""
        return self.file or self.paraphrases


class Search(Part):
    """A search for the one-word edit that breaks a model, judged by the measure's first judge.

    Without `words`, the shipped openers are tried. `search` and the rest are as `unmirage search` has them.
    """

    goal: Literal["bypass", "over-refusal", "flip"] = "bypass"
    search: Literal["exhaustive", "fixed", "greedy", "gradient"] = "exhaustive"
    edit: Annotated[tuple[Literal["opening", "substitute", "insert", "delete"], ...], Field(min_length=1), Once] = (
        "opening",
    )
    words: Names = ()
    at: Literal["begin", "inner", "end", "any"] = "any"
    sample: Count | None = Field(default=None, description="Most questions, drawn by the recipe's first seed.")
    control: bool = True
    intent: bool = True
    grammar: bool = False
    fluency: Annotated[float, Field(ge=0)] | None = None
    budget: Count | None = Field(default=None, description="Most distinct requests; the rest is unfinished.")
    places: Count | None = None
    top: Count = 10


class Stress(Part):
    """What is done to a model, its questions or its answering before a measure asks it again.

    `data` are harmful questions with answers, `general` harmless ones, `facts` data with what each harmful question is
    after, where the kind needs them; without `facts`, the measure's own. `settings` are those of `unmirage stress`;
    `world` names the drawing in which files of the settings lie.
    """

    kind: str
    settings: dict[str, Any] = Field(default_factory=dict)
    data: str | None = None
    general: str | None = None
    facts: Names = ()
    world: Name | None = None


class Measure(Part):
    """What is asked of every model, and who judges the answers."""

    data: Names = Field(min_length=1)
    models: Names = Field(default=(), description="Who is asked, patterns with * and ? too; without them, every model.")
    attacks: Names = ()
    stresses: Names = Field(
        default=(), description="With what the models are stressed; each is asked once more under each."
    )
    searches: Names = Field(default=(), description="What the models are searched for, by the first judge.")
    judges: Names = Field(default=("rules",), min_length=1)
    judge_server: str | None = Field(default=None, description="Address of the server of `llm:MODEL` judges.")
    judge_labels: Names = Field(default=(), description="NAME=LABEL of the classes of `classifier:FOLDER` judges.")
    calibrations: tuple[Path, ...] = ()
    batch_size: Count = 64
    max_new_tokens: Count = 256
    workers: Count = Field(default=1, description="Processes that ask side by side, each a share of the pictures.")
    concurrency: Count = Field(default=8, description="Requests at once, of a server.")
    timeout: Rate = Field(default=60.0, description="Seconds for each request, of a server.")
    parity: Literal["official"] | None = Field(
        default=None,
        description="Judge as the paper's released code does, too: VLGuard's list and, with a judge_server, relevance.",
    )
    parity_model: str = Field(default=PAPER_JUDGE, description="The name by which that server has the paper's judge.")
    axes: Axes = Field(default_factory=dict)

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
    shared: dict[str, Any] = Field(
        default_factory=dict, description="Values with anchors, to be named further below; nothing else reads them."
    )
    grid: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict, description="Axes and their values: an entry named with {axis} stands for one for each."
    )
    worlds: dict[Name, World] = Field(default_factory=dict)
    sets: dict[Name, Sets] = Field(default_factory=dict)
    data: dict[Name, Source] = Field(default_factory=dict)
    audit: tuple[Audit, ...] = ()
    models: dict[Name, Model] = Field(default_factory=dict)
    attacks: dict[Name, Attack] = Field(default_factory=dict)
    searches: dict[Name, Search] = Field(default_factory=dict)
    stresses: dict[Name, Stress] = Field(default_factory=dict)
    measures: dict[Name, Measure] = Field(default_factory=dict)
    title: str | None = None
    show_harmful: bool = False
    pages: bool = Field(default=True, description="Whether a page is written for each measure.")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, given: Any) -> Any:
        return expand(given).values if isinstance(given, Mapping) else given

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
        labels: dict[tuple[str, str], str] = {}
        for name, model in self.models.items():
            for seed in self.seeds_of(model):
                label = self.label(name, seed)
                if (twin := labels.setdefault((label, repr(model.axes)), name)) != name:
                    raise ValueError(f"models.{name} and models.{twin} are both called {label!r} in results")
        audits = [audit.title for audit in self.audit]
        if twice := next((title for title in audits if audits.count(title) > 1), None):
            raise ValueError(f"audit has {twice} twice; leave one out, or give the data another name")
        return self

    def label(self, name: str, seed: int) -> str:
        """What results call a model: its label, with the seed where there are several."""
        model = self.models[name]
        label = model.label or name
        return f"{label} (seed {seed})" if len(self.seeds_of(model)) > 1 else label

    def asked(self, measure: str) -> list[str]:
        """The models that a measure asks, in the order of the recipe."""
        wanted = self.measures[measure].models
        return [name for name in self.models if not wanted or any(fnmatchcase(name, one) for one in wanted)]

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
        """Who names what, and the names that there are."""
        worlds, data = list(self.worlds), list(self.data)
        for part in ("data", "attacks", "stresses"):
            yield from ((f"{part}.{key}.world", o.world, worlds) for key, o in getattr(self, part).items() if o.world)
        for key, source in self.data.items():
            yield from [(f"data.{key}.sets", source.sets, list(self.sets))] if source.sets else []
        yield from self._references_of_sets()
        for number, audit in enumerate(self.audit):
            yield from ((f"audit.{number}", name, data) for name in (audit.data, audit.against) if name)
        yield from self._references_of_models()
        for key, stress in self.stresses.items():
            named = {"data": (stress.data,), "general": (stress.general,), "facts": stress.facts}
            yield from ((f"stresses.{key}.{role}", n, data) for role, names in named.items() for n in names if n)
        yield from self._references_of_measures()

    def _references_of_sets(self) -> Iterator[tuple[str, str, list[str]]]:
        untrained = [name for name, one in self.models.items() if not (one.method or one.server or one.pretrain)]
        own = [name for name, source in self.data.items() if not source.sets]
        for key, sets in self.sets.items():
            yield from ((f"sets.{key}", name, own) for name in (sets.safety, sets.general) if name)
            yield from ((f"sets.{key}.models", name, untrained) for name in sets.models)

    def _references_of_models(self) -> Iterator[tuple[str, str, list[str]]]:
        local = [name for name, model in self.models.items() if not model.server]
        audited = [audit.data for audit in self.audit if not audit.against]
        for key, model in self.models.items():
            named = {"data": model.data, "general": model.general, "preferred": model.preferred}
            yield from ((f"models.{key}.{role}", name, list(self.data)) for role, name in named.items() if name)
            yield from [(f"models.{key}.start", model.start, local)] if model.start else []
            yield from [(f"models.{key}.audit", model.audit, audited)] if model.audit else []

    def _references_of_measures(self) -> Iterator[tuple[str, str, list[str]]]:
        names = list(self.models)
        for key, measure in self.measures.items():
            for part in ("data", "attacks", "stresses", "searches"):
                known = list(getattr(self, part))
                yield from ((f"measures.{key}.{part}", name, known) for name in getattr(measure, part))
            lost = [one for one in measure.models if not any(fnmatchcase(name, one) for name in names)]
            yield from ((f"measures.{key}.models", name, names) for name in lost)
