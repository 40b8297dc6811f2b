"""What a stress left behind, judged and measured: as an evaluation, and several samples of it together.

Every sample has all the figures of an evaluation, under the axis "sample". Pooled over the n samples, under the axis
"samples": the rate over all answers, whole questions taken as the units, and the share of questions of which any answer
has the outcome ("asr_any"); `k` counts a question's answers, its variants times n.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from unmirage.backends.asking import Progress
from unmirage.errors import UserError
from unmirage.evaluate.measure import rate_interval
from unmirage.evaluate.rows import ANY_OF, HARMFUL, HARMLESS, Group, Sheet, groups_of
from unmirage.evaluate.run import rejudge
from unmirage.judges import Judge
from unmirage.judges.calibrate import Calibration
from unmirage.runs import JsonLines, Run
from unmirage.schema import Label, Metrics, Query, Record, Variant, Verdict
from unmirage.stress.run import ABOUT, SAMPLE, SAMPLES

_COPIED = ("run.json", ABOUT, "queries.jsonl", "variants.jsonl", "answers.jsonl", "metrics.json")


def judge_stress(
    asked: Path,
    out: Path,
    judges: Sequence[Judge],
    calibrations: Sequence[Calibration] = (),
    progress: Progress = lambda _what, _done, _planned: None,
) -> list[Record]:
    """Judges what `run_stress` left in `asked` into `out`, which may be the same; the records of its `metrics.json`.

    What a stress prepared is not copied. Figures that a stress has itself stay as they are. Raises UserError where
    there is nothing to judge.
    """
    folders = copy_asked(asked, out)
    if not (out / "answers.jsonl").is_file():
        return _own_figures(out)
    first, *more = [rejudge(folder, judges, calibrations, progress) for folder in folders]
    if not more:
        return first
    first = [record.model_copy(update={"axes": {**record.axes, SAMPLE: 0.0}}) for record in first]
    pooled = _pooled(folders, first)
    return _written(out, [*first, *(record for records in more for record in records), *pooled])


def copy_asked(asked: Path, out: Path) -> list[Path]:
    """Copies what judging reads into `out`, which may be the same; returns the folder of each sample there."""
    others = sorted((path.name for path in (asked / SAMPLES).glob("*") if path.name.isdecimal()), key=int)
    folders = ["", *(f"{SAMPLES}/{name}" for name in others)]
    for folder in folders:
        _copy(asked / folder, out / folder)
    return [out / folder for folder in folders]


def _own_figures(out: Path) -> list[Record]:
    """The figures that a stress has itself; raises UserError where there are none."""
    if not (out / "metrics.json").is_file():
        raise UserError(f"{out} holds no answers and no figures of a stress; run it to its end first.")
    return Metrics.model_validate_json((out / "metrics.json").read_bytes()).records


def _copy(source: Path, target: Path) -> None:
    """The files of one folder that judging reads; the manifest as it is, as it says what was asked."""
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _written(out: Path, records: list[Record]) -> list[Record]:
    with Run.reopen(out) as run:
        metrics = Metrics(schema=1, run=run.manifest.id, records=records)
        run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    return records


def _pooled(folders: Sequence[Path], records: Sequence[Record]) -> Iterator[Record]:
    """The figures of all samples together, of each judge; `records` are those of one sample."""
    queries = JsonLines(folders[0] / "queries.jsonl").read(Query)
    variants = JsonLines(folders[0] / "variants.jsonl").read(Variant)
    count = len(folders)
    for judge in dict.fromkeys(record.judge for record in records):
        example = next(record for record in records if record.judge == judge)
        told = [one for number, path in enumerate(folders) for one in _verdicts(path, judge, number)]
        sheet = Sheet(told, queries)
        for harmful, metrics in ((True, HARMFUL), (False, HARMLESS)):
            mine = [query for query in queries if query.harmful == harmful]
            for split in dict.fromkeys(query.split for query in mine):
                part = [query for query in mine if query.split == split]
                for group in groups_of(part, variants, split):
                    yield from _figures(sheet, _several(group, count), tuple(metrics), example, count)


def _verdicts(folder: Path, judge: str, number: int) -> Iterator[Verdict]:
    """The verdicts on one sample, its answers told from those of others by their number."""
    for verdict in JsonLines(folder / "verdicts" / f"{judge}.jsonl").read(Verdict):
        yield verdict.model_copy(update={"attack": _name(verdict.attack, number)})


def _name(attack: str | None, number: int) -> str:
    return f"{number}/{attack or ''}"


def _several(group: Group, count: int) -> Group:
    """The rows of a group in every sample."""
    rows = tuple((query, _name(attack, number), shot) for query, attack, shot in group.rows for number in range(count))
    return Group(group.split, group.attack, rows, group.units)


def _figures(sheet: Sheet, group: Group, metrics: Sequence[str], example: Record, count: int) -> Iterator[Record]:
    for metric in metrics:
        mine = sheet.counted(group, metric)
        if not mine.rows:
            continue
        values = {unit: [sheet.value(row, metric) for row in rows] for unit, rows in mine.clusters.items()}
        yield _record(sheet, mine, metric, values, example, count)
        if metric in ANY_OF:
            any_of: dict[Hashable, list[float | None]] = {}
            for query, value in sheet.any_of(mine, metric).items():
                any_of.setdefault(mine.units[query], []).append(value)
            yield _record(sheet, mine, f"{metric}_any", any_of, example, count)


def _record(
    sheet: Sheet,
    group: Group,
    metric: str,
    values: dict[Hashable, list[float | None]],
    example: Record,
    count: int,
) -> Record:
    """A rate; its interval is widened to what rows without a usable verdict leave open."""
    flat = [value for several in values.values() for value in several]
    usable = [value for value in flat if value is not None]
    ends = [
        rate_interval({unit: [assumed if v is None else v for v in several] for unit, several in values.items()})
        for assumed in (0.0, 1.0)
    ]
    axes = {name: value for name, value in example.axes.items() if name != SAMPLE}
    return example.model_copy(
        update={
            "split": group.split,
            "attack": group.attack,
            "control": None,
            "metric": metric,
            "value": sum(usable) / len(usable) if usable else None,
            "low": min(end.low for end in ends),
            "high": max(end.high for end in ends),
            "n": len(flat),
            "k": group.k,
            "axes": {**axes, "samples": float(count)},
            "errors": sheet.count(group.rows, Label.ERROR),
            "unparsed": sheet.count(group.rows, Label.UNPARSED),
        }
    )
