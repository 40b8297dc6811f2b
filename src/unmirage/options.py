"""Options that several verbs of the command line share, in groups: a dataclass each, written down once.

A verb that is `grouped` takes a group as one parameter, and the command line sees its fields as options of the verb.
Options that stand alone are in `verbs.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.verbs import Format, Images, SharePrefix, Strict, load_all, read_variants

if TYPE_CHECKING:
    from unmirage.judges import Judge
    from unmirage.judges.calibrate import Calibration
    from unmirage.judges.registry import JudgeOptions
    from unmirage.schema import Query, Variant


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with an option for each field of those of its parameters that are dataclasses, in their place.

    Raises ValueError where two options have one name.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(verb)
    def _called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    signature = inspect.signature(verb)
    parameters = [one for own in signature.parameters.values() for one in _parameters(own, hints[own.name])]
    _called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return _called


def _parameters(own: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    """The parameter or, where it is a group, one for each field; by keyword, so that any may have a default."""
    if not is_dataclass(hint):
        yield own.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
        return
    kind, known = inspect.Parameter.KEYWORD_ONLY, get_type_hints(hint, include_extras=True)
    for field in fields(hint):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(field.name, kind, default=default, annotation=known[field.name])


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Checkpoint folder: a Hugging Face model with its processor. With --server, the name by which the server "
        "knows the model.",
    ),
]
DataFiles = Annotated[list[Path], typer.Argument(help="Data files with the questions.")]
RunFolder = Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Questions asked at once of a model in this process; memory grows with it.")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
ModelLabel = Annotated[
    str | None, typer.Option(help="What results call the model; without it, its folder's or served name.")
]
Method = Annotated[str, typer.Option(help="How the model was made; only written into the records.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Most questions, drawn by the seed.")]


@dataclass(frozen=True)
class Reading:
    """How data files are read."""

    split: Annotated[
        list[str] | None, typer.Option(help="Name of a data file's part, such as seen; once for each file, in order.")
    ] = None
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard
    images: Images = None
    strict: Strict = False

    def queries(self, data: list[Path]) -> list[Query]:
        """The queries of all files, see `load_all`."""
        return load_all(data, self.format.value, self.images, self.split or [], self.strict)


@dataclass(frozen=True)
class _Attacked:
    attack: Annotated[
        list[Path] | None, typer.Option(help="File of variants made by `unmirage attack`; may be repeated.")
    ] = None


@dataclass(frozen=True)
class AttackedReading(Reading, _Attacked):
    """How data files are read, with the attacks on them; the fields of the last base come first."""

    def variants(self, queries: list[Query]) -> list[Variant]:
        """The variants of these queries, see `read_variants`."""
        return read_variants(self.attack or [], queries)


@dataclass(frozen=True)
class Asking:
    """How a model is asked; each field is one of `AskingOptions`."""

    backend: Annotated[
        BackendName | None,
        typer.Option(help="What answers; without it, the server where --server is given, else hugging_face."),
    ] = None
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a server with OpenAI's interface, such as http://localhost:8000; its key, where it needs "
            "one, is in the environment variable OPENAI_API_KEY.",
        ),
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until an attempt to get an answer from the server is given up.")
    ] = 60.0
    batch_size: BatchSize = 64
    max_new_tokens: MaxNewTokens = 256

    def options(self, run: Path | None = None) -> AskingOptions:
        """What a backend takes; `run` is the folder of the run."""
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return AskingOptions(**given, run=run)


@dataclass(frozen=True)
class SharedAsking(Asking):
    """How a model is asked, with what its questions have in common read once."""

    share_prefix: SharePrefix = True


@dataclass(frozen=True)
class AdaptedAsking(SharedAsking):
    """How a model is asked that may have an adapter."""

    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter for the model, with vllm.")] = None


JudgeServer = Annotated[
    str | None,
    typer.Option(
        "--judge-server",
        metavar="URL",
        help="Address of the server of llm: judges, such as http://localhost:8000; its key, where it needs one, is in "
        "the environment variable OPENAI_API_KEY.",
    ),
]
JudgeConcurrency = Annotated[int, typer.Option("--judge-concurrency", min=1, help="Requests to the judge at once.")]
JudgeTimeout = Annotated[
    float, typer.Option("--judge-timeout", min=0.1, help="Seconds until an attempt to ask the judge is given up.")
]
JudgePicture = Annotated[bool, typer.Option("--judge-picture", help="Show llm: judges the picture too.")]
JudgeLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-label",
        metavar="NAME=LABEL",
        help="What a class of a classifier: judge means, such as LABEL_1=refusal; may be repeated.",
    ),
]
JudgePair = Annotated[
    bool, typer.Option("--judge-pair", help="Give classifier: judges the question before the answer, as a pair.")
]
JudgePolicy = Annotated[
    Path | None, typer.Option("--judge-policy", help="File with the policy of a shieldgemma: or llavaguard: judge.")
]
JudgeBatchSize = Annotated[
    int, typer.Option("--judge-batch-size", min=1, help="Answers that a judge in this process reads at once.")
]


@dataclass(frozen=True)
class Judging:
    """What judges that are models need; each field is one of `JudgeOptions`."""

    judge_server: JudgeServer = None
    judge_concurrency: JudgeConcurrency = 8
    judge_timeout: JudgeTimeout = 60.0
    judge_picture: JudgePicture = False
    judge_label: JudgeLabels = None
    judge_pair: JudgePair = False
    judge_policy: JudgePolicy = None
    judge_batch_size: JudgeBatchSize = 16

    def options(self) -> JudgeOptions:
        """What the judges take."""
        from unmirage.judges.registry import JudgeOptions

        return JudgeOptions(
            self.judge_server, self.judge_concurrency, self.judge_timeout, self.judge_picture,
            tuple(self.judge_label or ()), self.judge_pair, self.judge_policy, self.judge_batch_size,
        )  # fmt: skip


@dataclass(frozen=True)
class _JudgeName:
    judge: Annotated[str, typer.Option(help="Who gives verdicts; `judge list` has all.")] = "rules"


@dataclass(frozen=True)
class OneJudge(Judging, _JudgeName):
    """The judge of a verb that takes one; the fields of the last base come first."""

    def made(self, data: list[Path]) -> Judge:
        """The judge, for the data files that are asked; UserError where there is none of that name."""
        from unmirage.judges.registry import judge_named

        return judge_named(self.judge, data, self.options())


Calibrations = Annotated[
    list[Path] | None,
    typer.Option(help="File made by `judge calibrate`: its judge's rates are given corrected too. May be repeated."),
]


@dataclass(frozen=True)
class _JudgeNames:
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="rules (default); vlguard, the published list; truth, for sandbox data; llm:MODEL, llama-guard:FOLDER "
            "and others: `judge list` has all. May be repeated."
        ),
    ] = None
    calibration: Calibrations = None


@dataclass(frozen=True)
class Judges(Judging, _JudgeNames):
    """The judges of a verb that takes several, with how often each errs; the fields of the last base come first."""

    def made(self, data: list[Path]) -> list[Judge]:
        """The judges, for the data files that are asked; UserError where there is none of a name."""
        from unmirage.judges.registry import judges_named

        return judges_named(self.judge or ["rules"], data, self.options())

    def calibrations(self) -> list[Calibration]:
        """What the files say of the judges."""
        return read_calibrations(self.calibration)


def read_calibrations(files: list[Path] | None) -> list[Calibration]:
    """What the files say of judges; UserError naming one that cannot be read."""
    from unmirage.judges.calibrate import read_calibration

    return [read_calibration(path) for path in files or []]


def model_name(model: str) -> str:
    """The last part of a folder, by which some servers too know a model; else the name as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model
