"""Reads evaluation run folders; whatever is missing or broken becomes a sentence that names the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from unmirage.errors import UserError
from unmirage.judges.calibrate import CALIBRATIONS, Calibration
from unmirage.report.naming import axes_text, named
from unmirage.runs import MANIFEST, JsonLines, Manifest, digest_file, read_manifest
from unmirage.schema import Answer, Metrics, Query, Record, Variant, Verdict

Row = tuple[str, str | None, int]
AnyModel = TypeVar("AnyModel", bound=BaseModel)

DIGESTED = ("queries.jsonl", "variants.jsonl", "answers.jsonl", "metrics.json", CALIBRATIONS)


@dataclass(frozen=True)
class RunData:
    """Everything the page needs of one run; `label` is unique among the runs of a report."""

    folder: Path
    label: str
    manifest: Manifest
    queries: Mapping[str, Query]
    variants: Sequence[Variant]
    answers: Mapping[Row, Answer]
    verdicts: Mapping[str, Mapping[Row, Verdict]]
    records: Sequence[Record]
    digests: Mapping[str, str]
    calibrations: Sequence[Calibration] = field(default=())


def load_runs(folders: Sequence[Path]) -> list[RunData]:
    """Read every folder; raises UserError for the first one that is not a finished evaluation run."""
    if not folders:
        raise UserError("no run folder was given; name at least one folder of an evaluation run.")
    return _with_unique_labels([load_run(Path(folder)) for folder in folders])


def load_run(folder: Path) -> RunData:
    """Read one run folder."""
    manifest = read_manifest(folder)
    metrics = read_metrics(folder / "metrics.json")
    queries = read_rows(folder / "queries.jsonl", Query)
    answers = read_rows(folder / "answers.jsonl", Answer)
    return RunData(
        folder=folder,
        label=named(_model(folder / MANIFEST, manifest), {}, manifest.config.get("stress")),
        manifest=manifest,
        queries={query.id: query for query in queries},
        variants=read_variants(folder),
        answers={answer.row: answer for answer in answers},
        verdicts=_verdicts(folder / "verdicts"),
        records=metrics.records,
        digests={name: digest_file(folder / name) for name in DIGESTED if (folder / name).exists()},
        calibrations=_calibrations(folder / CALIBRATIONS),
    )


def read_variants(folder: Path) -> list[Variant]:
    """The variants that a run asked; none where nothing was attacked."""
    path = folder / "variants.jsonl"
    return read_rows(path, Variant) if path.exists() else []


def read_rows(path: Path, model: type[AnyModel]) -> list[AnyModel]:
    """Every line of a log as a `model`; unlike the log itself, a reader cannot do without the file."""
    _require(path)
    return JsonLines(path).read(model)


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; give the folder of an evaluation run that has ended.")


def read_metrics(path: Path) -> Metrics:
    """The figures of a run; raises UserError where the file is missing or broken."""
    _require(path)
    try:
        return Metrics.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}, field {field!r}: {first['msg']}; measure the run again.") from error


def _model(path: Path, manifest: Manifest) -> str:
    model = manifest.config.get("model")
    if not isinstance(model, str) or not model.strip():
        raise UserError(f"{path}, field 'config.model': it must name the model that answered.")
    return model


def _calibrations(path: Path) -> list[Calibration]:
    """What the run's judges get wrong by people's labels; none where the run was given none."""
    if not path.exists():
        return []
    try:
        return TypeAdapter(list[Calibration]).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UserError(
            f"{path}, field {where!r}: {first['msg']}; judge the run again with its calibrations."
        ) from None


def _verdicts(folder: Path) -> dict[str, dict[Row, Verdict]]:
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder} holds no <judge>.jsonl; judge the answers before reporting them.")
    verdicts: dict[str, dict[Row, Verdict]] = {}
    for file in files:
        for verdict in read_rows(file, Verdict):
            row = (verdict.query, verdict.attack, verdict.shot)
            verdicts.setdefault(verdict.judge, {})[row] = verdict
    return verdicts


def _with_unique_labels(runs: list[RunData]) -> list[RunData]:
    """Two runs of one model must not fall into one row: add axes, then seed, then folder, until they differ."""
    additions: list[Callable[[RunData], str]] = [
        lambda run: axes_text(run.manifest.config.get("axes", {})),
        lambda run: f"seed {run.manifest.config.get('seed', '?')}",
        lambda run: run.folder.name,
        lambda run: str(run.folder),
    ]
    for addition in additions:
        counts = Counter(run.label for run in runs)
        more = {run.folder: addition(run) for run in runs}
        runs = [
            replace(r, label=f"{r.label} · {more[r.folder]}") if counts[r.label] > 1 and more[r.folder] else r
            for r in runs
        ]
    repeated = [run.folder for run in runs if sum(other.label == run.label for other in runs) > 1]
    if repeated:
        raise UserError(f"{repeated[0]} was given twice; name each run folder once.")
    return [replace(r, records=[rec.model_copy(update={"model": r.label}) for rec in r.records]) for r in runs]
